//! Solution 2: register, then look. An interrupt before the registration has raised the flag, which the look finds; one after it finds
//! the waker. (Looking once more in front of both, as `executor/src/sync/event.rs` does, only saves the registration.)

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
            self.waiter.put(context.waker().clone());
            if self.has_happened.is_raised() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await
    }
}
