//! Waiting for something to become so.
//!
//! A wait queue knows who waits, not for what. The rule that makes it safe is always the same, and every blocking call keeps it:
//!
//! ```text
//!   the waiter                              whoever changes something
//!   register()                              change it
//!   attempt ── it is so ──► leave()         wake_one() / wake_all()
//!      │ not yet
//!      ▼
//!   Pending; woken: from the top
//! ```
//!
//! *Register, then attempt.* Whichever side comes second finds what the other did: the waiter sees the change, or the
//! changer sees the waiter. A queue in which nobody waits costs the changer a fence and a load, no lock.
//!
//! A [`Waiter`] is a node of an intrusive list, as part of the waiting future: waiting needs no memory. It is *exclusive* (a
//! wake of n wakes n of these, longest waiting first) or *shared* (every wake wakes it). An exclusive waiter that was woken and
//! then leaves, or is dropped, before it could look passes the wake on: a cancelled reader never swallows another one's byte.
//! An [`Observer`](super::Observer) stays in the queue, and is told of each wake.
//!
//! Wakers and observers are called after the queue's lock has been released. Not for interrupt handlers: those have
//! [`Event`](super::Event). next: waiter.rs.
//!
//! Exercise: `wake_one` has chosen A; before A is polled, its deadline passes and it leaves. Who gets the wake?

use alloc::sync::Arc;
use core::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering as CoreOrdering},
    task::Waker,
};

use super::{
    lock_order::Rank,
    observer::Observe,
    waiter::{Wait, Waiter},
};
use crate::{
    atomic::{AtomicUsize, Ordering, fence},
    list::{Home, List, Locked, Node, Visit},
};

/// How many are taken out of the queue before its lock is released to wake them.
const BATCH: usize = 8;

/// Those who wait for the same thing.
pub struct WaitQueue {
    waiters: Home<List, Entry>,
    /// Not 0 if the list may contain somebody. Written under the lock.
    is_occupied: AtomicUsize,
    /// Counts the wakes. Written under the lock.
    wakes: AtomicU64,
}

/// What hangs in the list.
pub(super) struct Entry {
    who: Who,
    is_exclusive: bool,
    woken: Woken,
    /// The wake that it has been part of, or the last one before it came: later ones concern it.
    seen: u64,
}

/// Who is to be told.
enum Who {
    Task(Option<Waker>),
    Observer(Arc<dyn Observe>),
}

/// What has happened to a waiter since it registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    No,
    /// It was chosen; others were not.
    Chosen,
    /// All were woken.
    WithAll,
}

/// Somebody to be told, once the lock is released.
enum Call {
    Wake(Waker),
    Notify(Arc<dyn Observe>),
}

impl WaitQueue {
    /// A queue in which nobody waits.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self::ordered(Rank::WAIT_QUEUE)
    }

    /// A queue whose lock has a rank of its own: for those that are woken under a lock of a rank above
    /// [`Rank::WAIT_QUEUE`].
    #[cfg(not(loom))]
    #[must_use]
    pub const fn ordered(rank: Rank) -> Self {
        Self { waiters: Home::new(rank, List::new()), is_occupied: AtomicUsize::new(0), wakes: AtomicU64::new(0) }
    }

    /// A queue in which nobody waits.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiters: Home::new(Rank::WAIT_QUEUE, List::new()),
            is_occupied: AtomicUsize::new(0),
            wakes: AtomicU64::new(0),
        }
    }

    /// Wakes the exclusive waiter that has waited longest, and all that are shared. How many were woken or told.
    pub fn wake_one(&self) -> usize {
        self.wake_n(1)
    }

    /// Wakes the `count` exclusive waiters that have waited longest, and all that are shared. How many were woken or told.
    pub fn wake_n(&self, count: usize) -> usize {
        if count == 0 { 0 } else { self.wake(count, Woken::Chosen) }
    }

    /// Wakes everybody who waits now. How many were woken or told.
    pub fn wake_all(&self) -> usize {
        self.wake(usize::MAX, Woken::WithAll)
    }

    /// Whether nobody waits, and nobody observes: a hint, which is out of date at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_occupied.load(Ordering::Relaxed) == 0
    }

    /// Waits for a wake that comes after the first poll: exclusively.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue; a wake that it was chosen for goes to the next.
    #[track_caller]
    pub fn wait(&self) -> Wait<'_> {
        Waiter::exclusive(self)
    }

    /// Waits for any wake that comes after the first poll.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue.
    #[track_caller]
    pub fn wait_shared(&self) -> Wait<'_> {
        Waiter::shared(self)
    }

    fn wake(&self, mut exclusive: usize, how: Woken) -> usize {
        // Pairs with the fence in register(): either we see the waiter here, or it sees what was changed before this call.
        fence(Ordering::SeqCst);
        if self.is_occupied.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut number = None;
        let mut woken = 0;
        loop {
            let mut calls: [Option<Call>; BATCH] = [const { None }; BATCH];
            let mut free = calls.iter_mut();
            let mut is_over = true;
            let mut locked = self.waiters.lock();
            // Those who come, or are told, later than this are not concerned: without it, a task that is woken and
            // registers again at once, on another CPU, could keep us here.
            let number = *number.get_or_insert_with(|| self.wakes.fetch_add(1, CoreOrdering::Relaxed) + 1);
            locked.visit(|entry| {
                if entry.seen >= number {
                    return Visit::Keep;
                }
                let Some(slot) = free.next() else {
                    is_over = false;
                    return Visit::Stop;
                };
                woken += 1;
                entry.seen = number;
                match &mut entry.who {
                    Who::Observer(observer) => {
                        *slot = Some(Call::Notify(Arc::clone(observer)));
                        Visit::Keep
                    }
                    Who::Task(waker) => {
                        entry.woken = how;
                        *slot = waker.take().map(Call::Wake);
                        if !entry.is_exclusive {
                            return Visit::Remove;
                        }
                        exclusive -= 1;
                        // The shared ones stand in front: nobody is left out.
                        if exclusive == 0 { Visit::RemoveAndStop } else { Visit::Remove }
                    }
                }
            });
            self.note_occupation(&locked);
            drop(locked);
            for call in calls.into_iter().flatten() {
                match call {
                    Call::Wake(waker) => waker.wake(),
                    Call::Notify(observer) => observer.notify(),
                }
            }
            if is_over {
                return woken;
            }
        }
    }

    /// To be called before the lock is released by whoever has changed the list.
    fn note_occupation(&self, locked: &Locked<'_, List, Entry>) {
        // Relaxed: ordered by the fences in register() and wake().
        self.is_occupied.store(usize::from(!locked.is_empty()), Ordering::Relaxed);
    }

    /// Puts a node in. `Q` names this queue.
    pub(super) fn admit<Q: Deref<Target = Self>>(
        &self,
        node: Pin<&Node<HomeOf<Q>, List, Entry>>,
        change: impl FnOnce(&mut Entry),
    ) {
        let mut locked = self.waiters.lock();
        let entry = locked.value(node);
        change(entry);
        // Relaxed: under the lock.
        entry.seen = self.wakes.load(CoreOrdering::Relaxed);
        if entry.is_exclusive {
            locked.push_back(node);
        } else {
            locked.push_front(node);
        }
        self.is_occupied.store(1, Ordering::Relaxed);
        drop(locked);
        // Pairs with the fence in wake(): either the waker sees us in the queue, or the attempt that follows sees the change.
        fence(Ordering::SeqCst);
    }

    /// Takes a node out for good. Says whether it was chosen by a wake that it has not looked at.
    pub(super) fn dismiss<Q: Deref<Target = Self>>(&self, node: Pin<&Node<HomeOf<Q>, List, Entry>>) -> bool {
        let mut locked = self.waiters.lock();
        let entry = locked.value(node);
        let was_chosen = core::mem::replace(&mut entry.woken, Woken::No) == Woken::Chosen && entry.is_exclusive;
        let waker = match &mut entry.who {
            Who::Task(waker) => waker.take(),
            Who::Observer(_) => None,
        };
        locked.retire(node);
        self.note_occupation(&locked);
        drop(locked);
        drop(waker);
        was_chosen
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

/// From what names a queue to the list within.
#[derive(Debug)]
pub(super) struct HomeOf<Q>(pub(super) Q);

impl<Q: Deref<Target = WaitQueue>> Deref for HomeOf<Q> {
    type Target = Home<List, Entry>;

    fn deref(&self) -> &Self::Target {
        &self.0.waiters
    }
}

impl Entry {
    /// An entry that is woken once, and then leaves.
    pub(super) const fn waiting(is_exclusive: bool) -> Self {
        Self { who: Who::Task(None), is_exclusive, woken: Woken::No, seen: 0 }
    }

    /// Whether it was woken since this was last asked: now the wake is used up.
    pub(super) fn take_woken(&mut self) -> bool {
        core::mem::replace(&mut self.woken, Woken::No) != Woken::No
    }

    /// Whether it was woken.
    pub(super) fn is_woken(&self) -> bool {
        self.woken != Woken::No
    }

    /// An entry that is told of each wake.
    pub(super) fn observing(observer: Arc<dyn Observe>) -> Self {
        Self { who: Who::Observer(observer), is_exclusive: false, woken: Woken::No, seen: 0 }
    }

    /// Has `waker` woken; returns the former one if it is another, to be dropped without the lock.
    pub(super) fn set_waker(&mut self, waker: &Waker) -> Option<Waker> {
        match &mut self.who {
            Who::Task(Some(present)) if present.will_wake(waker) => None,
            Who::Task(present) => present.replace(waker.clone()),
            Who::Observer(_) => None,
        }
    }
}
