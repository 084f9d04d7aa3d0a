//! Exercise 2: an event that happens once, and a task that waits for it.
//!
//! `set` is called by an interrupt handler, which may come between any two steps of the task. Whenever it comes, the wait must end: the
//! poll under way is ready, or the task is woken.
//!
//! The starting point looks, and then registers. Find the step at which the interrupt must come for the task to sleep for ever; then put
//! the steps in an order in which there is none.
//!
//! Compare: `poll_wait` in `executor/src/sync/event.rs`. Test: `tests/event.rs`.

use crate::world::interrupt::{Flag, Slot};
use std::future::poll_fn;
use std::task::Poll;

/// An event that happens once.
#[derive(Debug, Default)]
pub struct Event {
    has_happened: Flag,
    waiter: Slot,
}

impl Event {
    /// It happens. Called in an interrupt handler.
    pub fn set(&self) {
        self.has_happened.raise();
        if let Some(waker) = self.waiter.take() {
            waker.wake();
        }
    }

    /// Waits until it has happened. One task waits at a time.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.has_happened.is_raised() {
                return Poll::Ready(());
            }
            self.waiter.put(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
