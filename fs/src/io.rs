//! [`Io`]: a result that is there already, or one to wait for.
//!
//! Next: `buffer.rs`.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use alloc::boxed::Box;

use crate::{BoxFuture, Result};

/// What a method returns that may have to wait for a device: the result itself when it is known, so that nothing is
/// allocated for what is cached; a future otherwise. `.await` takes both.
#[must_use = "an `Io` does nothing unless awaited"]
pub enum Io<'a, T> {
    /// The result. `None` once it was taken by polling.
    Ready(Option<Result<T>>),
    /// The work that leads to it.
    Wait(BoxFuture<'a, Result<T>>),
}

impl<'a, T> Io<'a, T> {
    /// A result that is known.
    pub fn ready(result: Result<T>) -> Io<'a, T> {
        Io::Ready(Some(result))
    }

    /// Work to be awaited.
    pub fn wait(work: impl Future<Output = Result<T>> + Send + 'a) -> Io<'a, T> {
        Io::Wait(Box::pin(work))
    }

    /// The result if it is known now, else the `Io` back.
    ///
    /// # Errors
    ///
    /// The `Io` itself, to be awaited.
    pub fn now(self) -> Result<Result<T>, Io<'a, T>> {
        match self {
            Io::Ready(Some(result)) => Ok(result),
            other => Err(other),
        }
    }
}

impl<T> From<Result<T>> for Io<'_, T> {
    fn from(result: Result<T>) -> Self {
        Io::ready(result)
    }
}

impl<T: Unpin> Future for Io<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.get_mut() {
            Io::Ready(result) => Poll::Ready(result.take().expect("polled again after it was ready")),
            Io::Wait(work) => work.as_mut().poll(context),
        }
    }
}
