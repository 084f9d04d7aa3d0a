//! What an interrupt handler can do: tell one waiting task.
//!
//! A counter and the place of one waker, both touched without a lock. A notification that comes while nobody waits is kept:
//! the next wait returns at once. So "look, then wait" cannot lose one, and neither can a handler that runs between any two
//! instructions of the waiting task. next: mutex.rs.
//!
//! Exercise: where would a notification be lost if `poll_wait` registered first and did not look again?

use core::{
    future::{Future, poll_fn},
    panic::Location,
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{
    atomic::{AtomicU32, Ordering, foreign_step},
    task::note_wait,
};

/// Notifications, counted until the one task that waits for them has taken them.
#[derive(Debug, Default)]
pub struct Event {
    pending: AtomicU32,
    waiter: AtomicWaker,
}

impl Event {
    /// An event of which nothing has been heard.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: AtomicU32::new(0), waiter: AtomicWaker::new() }
    }

    /// An event of which nothing has been heard.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { pending: AtomicU32::new(0), waiter: AtomicWaker::new() }
    }

    /// Wakes the task that waits; if none does, the next wait returns at once. From anywhere, an interrupt handler included:
    /// takes no lock, needs no memory.
    pub fn notify(&self) {
        // Release: what the notifier did before is seen by the task that takes the count. Saturates by wrapping past 0 at once:
        // a count is never lost altogether.
        if self.pending.fetch_add(1, Ordering::Release) == u32::MAX {
            self.pending.store(1, Ordering::Release);
        }
        foreign_step();
        self.waiter.wake();
    }

    /// The notifications since this was last asked, or waited for.
    pub fn take(&self) -> u32 {
        // A plain load first: it is asked far more often than it is so.
        if self.pending.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // Acquire: pairs with the Release in notify().
        self.pending.swap(0, Ordering::Acquire)
    }

    /// Waits for a notification; returns how many there were since the last wait.
    ///
    /// One task waits at a time: a second one takes the first one's place. It waits with its own waker: `join!` and `select!` keep
    /// that, but what is in a `FuturesUnordered` (or a long `join_all`) has another, whose last reference would be freed by the
    /// interrupt handler.
    ///
    /// # Cancel safety
    /// A notification is taken only by the poll that returns it.
    #[track_caller]
    pub fn wait(&self) -> impl Future<Output = u32> + Send + Sync + '_ {
        let created_at = Location::caller();
        poll_fn(move |context| {
            note_wait(context, created_at);
            self.poll_wait(context)
        })
    }

    /// [`Event::wait`], for use inside another future's poll.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<u32> {
        match self.take() {
            0 => {}
            count => return Poll::Ready(count),
        }
        // The interrupt handler drops what it wakes. A task's own waker never frees anything there; another one might.
        #[cfg(all(target_os = "none", debug_assertions))]
        assert!(
            crate::TaskRef::from_waker(context.waker()).is_some(),
            "an event is waited for by a task itself, not from within a combinator that wraps wakers"
        );
        // Register, then look again: a notification in between finds either the waker or us.
        foreign_step();
        self.waiter.register(context.waker());
        // A read-modify-write: it comes after the registration in everybody's eyes.
        match self.pending.swap(0, Ordering::AcqRel) {
            0 => Poll::Pending,
            count => Poll::Ready(count),
        }
    }
}
