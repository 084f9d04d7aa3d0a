//! A count of permits, handed out in the order in which they were asked for.
//!
//! A release gives the permits to those who wait, longest first, and lets go of its lock; a permit never becomes free while
//! somebody waits for it, so a newcomer cannot overtake. Nor does a claim for few overtake a claim for many that came first.
//! A claim that is dropped after it was granted gives its permits back, and they go to the next. next: mutex.rs.
//!
//! Exercise: the first in the queue wants five permits and gives up while two are free and the second wants two. Which line
//! serves the second?

use core::{
    fmt,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use super::lock_order::Rank;
use crate::{
    list::{Home, List, Locked, Node, Visit},
    task::note_wait,
};

/// How many claims are granted before the lock is released to wake them.
const BATCH: usize = 8;

/// Permits that tasks wait for, first come, first served.
pub struct Semaphore {
    /// Written under the lock of `claims`.
    free: AtomicUsize,
    claims: Home<List, Claim>,
}

/// What hangs in the list.
struct Claim {
    wanted: usize,
    is_granted: bool,
    waker: Option<Waker>,
}

impl Semaphore {
    /// A semaphore with `permits` free permits.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(permits: usize) -> Self {
        Self { free: AtomicUsize::new(permits), claims: Home::new(Rank::WAIT_QUEUE, List::new()) }
    }

    /// A semaphore with `permits` free permits.
    #[cfg(loom)]
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { free: AtomicUsize::new(permits), claims: Home::new(Rank::WAIT_QUEUE, List::new()) }
    }

    /// Waits for `count` permits. They are the caller's until it [releases](Semaphore::release) them.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place in the queue; permits that were granted already go to the next.
    #[track_caller]
    pub fn acquire(&self, count: usize) -> Acquire<'_> {
        Acquire {
            node: Node::new(&self.claims, Claim { wanted: count, is_granted: false, waker: None }),
            semaphore: self,
            count,
            created_at: Location::caller(),
        }
    }

    /// Takes `count` permits if they are free and nobody waits.
    #[must_use = "if it was not granted, nothing was taken"]
    pub fn try_acquire(&self, count: usize) -> bool {
        self.take(&self.claims.lock(), count)
    }

    /// Gives `count` permits back, or adds them.
    pub fn release(&self, count: usize) {
        let mut count = count;
        loop {
            let mut granted: [Option<Waker>; BATCH] = [const { None }; BATCH];
            let mut places = granted.iter_mut();
            let mut is_over = true;
            let mut locked = self.claims.lock();
            // Relaxed, here and below: under the lock.
            let mut free = self.free.load(Ordering::Relaxed).saturating_add(core::mem::take(&mut count));
            locked.visit(|claim| {
                if claim.wanted > free {
                    return Visit::Stop;
                }
                let Some(place) = places.next() else {
                    is_over = false;
                    return Visit::Stop;
                };
                free -= claim.wanted;
                claim.is_granted = true;
                *place = claim.waker.take();
                Visit::Remove
            });
            self.free.store(free, Ordering::Relaxed);
            drop(locked);
            granted.into_iter().flatten().for_each(Waker::wake);
            if is_over {
                return;
            }
        }
    }

    /// How many permits are free: a hint, which is out of date at once.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    fn take(&self, locked: &Locked<'_, List, Claim>, count: usize) -> bool {
        let free = self.free.load(Ordering::Relaxed);
        let is_granted = free >= count && locked.is_empty();
        if is_granted {
            self.free.store(free - count, Ordering::Relaxed);
        }
        is_granted
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("free", &self.free()).finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// Waits for permits: see [`Semaphore::acquire`].
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct Acquire<'s> {
        #[pin]
        node: Node<&'s Home<List, Claim>, List, Claim>,
        semaphore: &'s Semaphore,
        count: usize,
        created_at: &'static Location<'static>,
    }

    impl PinnedDrop for Acquire<'_> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let node = this.node.as_ref();
            if node.is_claimed() {
                let mut locked = node.home().lock();
                let was_granted = locked.value(node).is_granted;
                locked.retire(node);
                drop(locked);
                // Even if nothing was granted: behind a claim for many, one for few may have waited that can be granted now.
                this.semaphore.release(if was_granted { *this.count } else { 0 });
            }
        }
    }
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let node = this.node.as_ref();
        let mut locked = node.home().lock();
        if !node.is_claimed() {
            if this.semaphore.take(&locked, *this.count) {
                return Poll::Ready(());
            }
            note_wait(context, this.created_at);
            locked.push_back(node);
        }
        let claim = locked.value(node);
        if claim.is_granted {
            // Taken: dropping this future gives nothing back any more.
            claim.is_granted = false;
            locked.retire(node);
            return Poll::Ready(());
        }
        let mut former = None;
        if !claim.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            former = claim.waker.replace(context.waker().clone());
        }
        drop(locked);
        drop(former);
        Poll::Pending
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("count", &self.count).finish_non_exhaustive()
    }
}
