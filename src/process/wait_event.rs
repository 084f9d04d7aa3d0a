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

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::Ordering;
use core::task::Poll;

use abi::{Errno, Result};
use executor::Instant;
use executor::sync::{WaitQueue, Waiter};

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
    pub async fn wait_event<T>(
        &self,
        queue: &WaitQueue,
        interruptible: Interruptible,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let mut waiter = pin!(Waiter::exclusive(queue));
        let mut timer = pin!(deadline.map(|deadline| crate::tasks::timers().sleep_until(deadline)));
        poll_fn(|context| {
            waiter.as_mut().register(context);
            if let Some(value) = attempt() {
                waiter.as_mut().leave();
                return Poll::Ready(Ok(value));
            }
            if self.is_interrupted(interruptible) {
                return Poll::Ready(Err(Errno::ERESTARTSYS));
            }
            match timer.as_mut().as_pin_mut().map(|timer| timer.poll(context)) {
                Some(Poll::Ready(_)) => Poll::Ready(Err(Errno::ETIMEDOUT)),
                _ => Poll::Pending,
            }
        })
        .await
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
