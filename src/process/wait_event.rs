//! The one way to block.
//!
//! ```text
//!   register on the queue ──► attempt ──► done
//!                               │ not yet
//!                               ▼
//!                       a signal? the time up? ──► give up
//!                               │ no
//!                               ▼
//!                            Pending        (woken by the queue, by a signal, or by the timer: begin again)
//! ```
//!
//! Registering comes before the attempt, so an event between the two is not lost. Nothing in this kernel looks first and
//! sleeps afterwards.
//!
//! Next: `wait.rs`.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use abi::{Errno, Result};
use executor::Instant;
use executor::sync::{WaitQueue, Waiter};
use executor::time::Sleep;
use pin_project_lite::pin_project;

use super::thread::{Thread, attention};

/// What may end a wait before its event comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruptible {
    /// Any signal that is to be delivered, and a stop.
    BySignals,
    /// Only the end of the process.
    ByKill,
    /// Nothing.
    No,
}

impl Thread {
    /// Waits until `attempt` returns something. `queue` is woken whenever it may.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: interrupted; the system call's table row and `deliver.rs` decide what becomes of that. `ETIMEDOUT`: the
    /// deadline came first.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the queue; a wake that it had consumed goes on to the next waiter.
    #[track_caller]
    #[allow(clippy::manual_map, reason = "a closure has no caller of its own to tell")]
    #[inline(always)] // a future this large is made where it is to be
    pub fn wait_event<'a, T, F: FnMut() -> Option<T>>(
        &'a self,
        queue: &'a WaitQueue,
        interruptible: Interruptible,
        deadline: Option<Instant>,
        attempt: F,
    ) -> WaitEvent<'a, F> {
        WaitEvent {
            thread: self,
            interruptible,
            // Both take down where this was called, which a closure's caller would not be: there the thread is seen to wait.
            waiter: Waiter::exclusive(queue),
            timer: match deadline {
                Some(deadline) => Some(crate::tasks::timers().sleep_until(deadline)),
                None => None,
            },
            attempt,
        }
    }

    /// Whether something that may end such a wait has happened.
    pub fn is_interrupted(&self, interruptible: Interruptible) -> bool {
        let mask = match interruptible {
            Interruptible::BySignals => attention::SIGNAL | attention::STOP | attention::END,
            Interruptible::ByKill => attention::END,
            Interruptible::No => return false,
        };
        self.attention.load(Ordering::Acquire) & mask != 0
    }
}

pin_project! {
    /// The wait that [`Thread::wait_event`] begins. Written by hand: an `async fn` knows no caller, and would hold what it is given twice.
    #[must_use = "nothing is waited for unless it is awaited"]
    pub struct WaitEvent<'a, F> {
        thread: &'a Thread,
        interruptible: Interruptible,
        #[pin]
        waiter: Waiter<&'a WaitQueue>,
        #[pin]
        timer: Option<Sleep>,
        attempt: F,
    }
}

impl<T, F: FnMut() -> Option<T>> Future for WaitEvent<'_, F> {
    type Output = Result<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let mut this = self.project();
        this.waiter.as_mut().register(context);
        if let Some(value) = (this.attempt)() {
            this.waiter.as_mut().leave();
            return Poll::Ready(Ok(value));
        }
        if this.thread.is_interrupted(*this.interruptible) {
            return Poll::Ready(Err(Errno::ERESTARTSYS));
        }
        match this.timer.as_mut().as_pin_mut().map(|timer| timer.poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Errno::ETIMEDOUT)),
            _ => Poll::Pending,
        }
    }
}
