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

use alloc::boxed::Box;
use core::future::Future;
use core::panic::Location;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use abi::{Errno, Result};
use executor::Instant;
use executor::sync::{WaitQueue, Waiter};
use executor::time::Sleep;
use pin_project_lite::pin_project;

use super::thread::{Thread, attention};
use crate::mm::try_box;

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
    /// deadline came first. `ENOMEM`: there is none for the timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the queue; a wake that it had consumed goes on to the next waiter.
    #[track_caller]
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
            // It takes down where this was called: there the thread is seen to wait.
            waiter: Waiter::exclusive(queue),
            deadline,
            timer: None,
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
        deadline: Option<Instant>,
        // Made when it is clear that there is something to wait for; most waits have none.
        timer: Option<Pin<Box<Sleep>>>,
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
        match this.deadline {
            Some(deadline) => poll_timer(this.timer, *deadline, this.waiter.created_at(), context).map(Err),
            None => Poll::Pending,
        }
    }
}

/// Waits for the deadline; the error that its coming is. The timer is made when that is first asked.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    location: &'static Location<'static>,
    context: &mut Context<'_>,
) -> Poll<Errno> {
    let timer = match timer {
        Some(timer) => timer,
        None if deadline <= crate::arch::clock::now() => return Poll::Ready(Errno::ETIMEDOUT),
        None => match boxed_timer(deadline, location) {
            Ok(made) => timer.insert(made),
            Err(errno) => return Poll::Ready(errno),
        },
    };
    timer.as_mut().poll(context).map(|()| Errno::ETIMEDOUT)
}

/// A timer apart from the future that has it: not a part of every thread.
///
/// # Errors
///
/// `ENOMEM`.
pub fn boxed_timer(deadline: Instant, location: &'static Location<'static>) -> Result<Pin<Box<Sleep>>> {
    try_box(crate::tasks::timers().sleep_until_for(deadline, location)).map(Box::into_pin)
}
