//! Waiting for what a task returns. next: sync/event.rs, which it waits with.

use alloc::sync::Arc;
use core::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    sync::{Event, SpinLock},
    task::TaskRef,
};

/// What a task and whoever waits for it share.
pub(crate) struct Slot<T> {
    result: SpinLock<Option<T>>,
    is_done: Event,
}

/// A task whose result can be awaited. Dropping it lets the task go on.
///
/// # Cancel safety
/// The result stays in the slot until a poll of the handle returns it.
#[must_use = "dropping it discards the result; the task goes on"]
pub struct JoinHandle<T> {
    slot: Arc<Slot<T>>,
    task: TaskRef,
}

/// The shared slot, and `future` with an end that fills it.
pub(crate) fn join_slot<F>(future: F) -> (Arc<Slot<F::Output>>, impl Future<Output = ()> + Send + 'static)
where
    F: Future<Output: Send> + Send + 'static,
{
    let slot = Arc::new(Slot { result: SpinLock::new(None), is_done: Event::new() });
    let filled = Arc::clone(&slot);
    let wrapped = async move {
        let result = future.await;
        *filled.result.lock() = Some(result);
        filled.is_done.notify();
    };
    (slot, wrapped)
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>, task: TaskRef) -> Self {
        Self { slot, task }
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// The result, if it is there already.
    pub fn try_take(&self) -> Option<T> {
        self.slot.result.lock().take()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Register, then look: the result is put down before the event is notified.
        let _ = self.slot.is_done.poll_wait(context);
        self.try_take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinHandle").field(&self.task).finish()
    }
}
