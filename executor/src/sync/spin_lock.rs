//! A spin lock whose guard cannot cross an `.await`.
//!
//! It is `spin`'s lock with two things added. The guard is not `Send`: a future that holds it over an `.await` is not `Send`
//! either, and the executor takes no such future, so the mistake does not compile. And the lock may have a place in the order
//! of locks, checked in debug builds ([`Rank`]).
//!
//! The kernel is not preempted and a lock is held for a few instructions, so spinning is short. Interrupt handlers take no
//! spin lock, therefore locking need not turn interrupts off. next: wait_queue.rs.

#![allow(clippy::disallowed_types, reason = "this is the one place that wraps spin's lock")]

use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

#[cfg(loom)]
use loom::sync::{Mutex as Inner, MutexGuard as InnerGuard};
#[cfg(not(loom))]
use spin::mutex::{SpinMutex as Inner, SpinMutexGuard as InnerGuard};

use super::lock_order::Rank;
use crate::atomic::{Held, LockWord};

/// Mutual exclusion for a few instructions, on any CPU, never in an interrupt handler.
///
/// ```
/// use executor::sync::SpinLock;
/// static COUNT: SpinLock<u32> = SpinLock::new(0);
/// *COUNT.lock() += 1;
/// assert_eq!(*COUNT.lock(), 1);
/// ```
///
/// Its guard cannot be held over an `.await` by anything that is spawned:
///
/// ```compile_fail
/// use executor::sync::SpinLock;
/// fn spawnable(_: impl Future + Send) {}
/// static LOCK: SpinLock<u32> = SpinLock::new(0);
/// spawnable(async {
///     let _guard = LOCK.lock();
///     std::future::ready(()).await;
/// });
/// ```
pub struct SpinLock<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    word: LockWord,
    inner: Inner<T>,
}

impl<T> SpinLock<T> {
    /// A lock outside the order of locks.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self::ordered(Rank::NONE, value)
    }

    /// A lock that is taken only while locks of lower ranks are held.
    #[cfg(not(loom))]
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    pub const fn ordered(rank: Rank, value: T) -> Self {
        Self {
            #[cfg(debug_assertions)]
            rank,
            word: LockWord::new(),
            inner: Inner::new(value),
        }
    }

    /// A lock outside the order of locks.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self::ordered(Rank::NONE, value)
    }

    /// A lock that is taken only while locks of lower ranks are held.
    #[cfg(loom)]
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    pub fn ordered(rank: Rank, value: T) -> Self {
        Self {
            #[cfg(debug_assertions)]
            rank,
            word: LockWord::new(),
            inner: Inner::new(value),
        }
    }

    /// Waits for the lock, spinning.
    ///
    /// # Panics
    /// With debug assertions, if this CPU holds a lock of the same or a higher rank, and in the kernel if the lock is not released for
    /// seconds.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        #[cfg(debug_assertions)]
        self.rank.acquire();
        let held = self.word.acquire();
        #[cfg(all(debug_assertions, target_os = "none"))]
        let inner = self.lock_or_report();
        #[cfg(not(any(loom, all(debug_assertions, target_os = "none"))))]
        let inner = self.inner.lock();
        #[cfg(loom)]
        let inner = self.inner.lock().expect("a model does not go on after a panic");
        self.guard(inner, held)
    }

    /// Waits for the lock, but not for ever: a lock is held for a few instructions, so one that is not released for seconds was
    /// taken twice, or by an interrupt handler, and a report is worth more than a kernel that stands still.
    #[cfg(all(debug_assertions, target_os = "none"))]
    #[track_caller]
    fn lock_or_report(&self) -> InnerGuard<'_, T> {
        const STUCK: u32 = 1 << 30;
        for _ in 0..STUCK {
            if let Some(inner) = self.inner.try_lock_weak() {
                return inner;
            }
            core::hint::spin_loop();
        }
        panic!("a spin lock is stuck");
    }

    /// Takes the lock if it is free. It does not wait, so it may be asked out of order.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let held = self.word.try_acquire()?;
        #[cfg(not(loom))]
        let inner = self.inner.try_lock()?;
        #[cfg(loom)]
        let inner = self.inner.try_lock().ok()?;
        Some(self.unranked_guard(inner, held))
    }

    /// The value, of which the caller proves to be the only user.
    #[cfg(not(loom))]
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The value, when the lock is no longer needed.
    pub fn into_inner(self) -> T {
        #[cfg(not(loom))]
        return self.inner.into_inner();
        #[cfg(loom)]
        return self.inner.into_inner().expect("a model does not go on after a panic");
    }

    #[inline]
    fn guard<'a>(&self, inner: InnerGuard<'a, T>, held: Held<'a>) -> SpinGuard<'a, T> {
        SpinGuard {
            #[cfg(debug_assertions)]
            rank: self.rank,
            inner,
            _held: held,
            not_send: PhantomData,
        }
    }

    #[inline]
    fn unranked_guard<'a>(&self, inner: InnerGuard<'a, T>, held: Held<'a>) -> SpinGuard<'a, T> {
        SpinGuard {
            #[cfg(debug_assertions)]
            rank: Rank::NONE,
            inner,
            _held: held,
            not_send: PhantomData,
        }
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: printing must not wait for a lock.
        f.write_str("SpinLock")
    }
}

/// The right to use what is in a [`SpinLock`]; released when it is dropped. It stays on its CPU.
#[must_use = "the lock is released at once if its guard is not kept"]
pub struct SpinGuard<'a, T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: InnerGuard<'a, T>,
    /// After the lock itself.
    _held: Held<'a>,
    not_send: PhantomData<*const ()>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        self.rank.release();
    }
}

impl<T: fmt::Debug> fmt::Debug for SpinGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_until_its_guard_is_dropped() {
        let lock = SpinLock::new(1);
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(lock.try_lock().map(|guard| *guard), Some(1));
    }

    #[test]
    fn locks_are_taken_from_low_ranks_to_high() {
        let low = SpinLock::ordered(Rank::new(1), ());
        let high = SpinLock::ordered(Rank::new(2), ());
        let _low = low.lock();
        let _high = high.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "lock order")]
    fn taking_a_low_rank_under_a_high_one_is_refused() {
        let low = SpinLock::ordered(Rank::new(1), ());
        let high = SpinLock::ordered(Rank::new(2), ());
        let _high = high.lock();
        let _low = low.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "lock order")]
    fn taking_the_same_rank_twice_is_refused() {
        let one = SpinLock::ordered(Rank::new(1), ());
        let two = SpinLock::ordered(Rank::new(1), ());
        let _one = one.lock();
        let _two = two.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "a spin lock is held")]
    fn a_lock_that_is_held_where_none_may_be_is_found() {
        let lock = SpinLock::ordered(Rank::new(1), ());
        let _guard = lock.lock();
        super::super::assert_no_lock_held();
    }

    #[test]
    fn released_ranks_may_be_taken_again() {
        let low = SpinLock::ordered(Rank::new(1), ());
        let high = SpinLock::ordered(Rank::new(2), ());
        drop(high.lock());
        drop(low.lock());
        super::super::assert_no_lock_held();
    }
}
