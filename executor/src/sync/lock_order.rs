//! The order of locks, checked as they are taken, in builds with debug assertions.
//!
//! A lock with a [`Rank`] may be taken only while every ranked lock that this CPU holds has a lower one. If all code keeps to
//! that, no circle of CPUs waiting for each other can form, however rare its timing would be: the check finds the wrong order
//! on the first run, not the deadlock on the millionth. Locks without a rank are left out of it.
//!
//! What a CPU holds is one word: a bit for each rank. In the kernel the words stand in a table by CPU (locks are not held over
//! an `.await`, interrupt handlers take none, and the kernel is not preempted: so nobody else touches a CPU's word meanwhile);
//! on the host each thread has its own. Without debug assertions nothing of this is compiled in. next: spin_lock.rs.
//!
//! Exercise: two CPUs take two locks of the *same* rank, one after the other. Why must that be refused as well?

/// The most CPUs that there can be.
pub const MAX_CPUS: usize = 256;

/// A lock's place in the order: locks are taken from low to high. Each crate names its ranks in one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// Not part of the order.
    pub(crate) const NONE: Self = Self(u8::MAX);
    /// The inside of a wait queue: other locks of the kernel may be held around it, an [`Observer`](super::Observer) may take a
    /// higher one within.
    pub const WAIT_QUEUE: Self = Self(48);
    /// The list of all tasks: nothing is taken within.
    pub(crate) const REGISTRY: Self = Self(61);
    /// A CPU's timers: nothing is taken within.
    pub(crate) const TIMERS: Self = Self(62);

    /// The rank `order`, from 0 to 63.
    ///
    /// # Panics
    /// If `order` is greater; in a constant that is an error of compilation.
    #[must_use]
    pub const fn new(order: u8) -> Self {
        assert!(order < 64, "a lock's rank is below 64");
        Self(order)
    }

    /// Takes note that a lock of this rank is about to be taken.
    ///
    /// # Panics
    /// If a lock of the same or a higher rank is held on this CPU: the order is violated here.
    #[cfg(debug_assertions)]
    #[track_caller]
    pub(crate) fn acquire(self) {
        if self != Self::NONE {
            let held = record::load();
            assert!(
                held >> self.0 == 0,
                "lock order: a lock of rank {} is taken while the ranks {held:#b} are held (bit = rank)",
                self.0
            );
            record::store(held | 1 << self.0);
        }
    }

    /// Takes note that a lock of this rank was released.
    #[cfg(debug_assertions)]
    pub(crate) fn release(self) {
        if self != Self::NONE {
            record::store(record::load() & !(1 << self.0));
        }
    }
}

/// Checks that this CPU holds no ranked lock: called wherever it is about to do something long, as to enter user mode or sleep.
///
/// # Panics
/// If it does; only with debug assertions.
#[inline]
pub fn assert_no_lock_held() {
    #[cfg(debug_assertions)]
    assert_eq!(record::load(), 0, "a spin lock is held where none may be (bit = rank)");
}

/// Tells the check how to find out which CPU it is on. The kernel calls it once, before it starts a second CPU; until then all
/// is put down to CPU 0. On the host it does nothing.
pub fn track_lock_order(current_cpu: fn() -> usize) {
    #[cfg(all(debug_assertions, target_os = "none"))]
    record::CURRENT_CPU.init_once(|| current_cpu);
    #[cfg(not(all(debug_assertions, target_os = "none")))]
    let _ = current_cpu;
}

#[cfg(all(debug_assertions, target_os = "none"))]
mod record {
    use core::sync::atomic::{AtomicU64, Ordering};

    use conquer_once::spin::OnceCell;

    use super::MAX_CPUS;

    pub(super) static CURRENT_CPU: OnceCell<fn() -> usize> = OnceCell::uninit();
    /// The ranks that each CPU holds, a bit each. Touched by that CPU only.
    static HELD: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

    fn here() -> &'static AtomicU64 {
        let cpu = CURRENT_CPU.try_get().map_or(0, |current_cpu| current_cpu());
        &HELD[cpu % MAX_CPUS]
    }

    pub(super) fn load() -> u64 {
        here().load(Ordering::Relaxed)
    }

    pub(super) fn store(held: u64) {
        here().store(held, Ordering::Relaxed);
    }
}

#[cfg(all(debug_assertions, not(target_os = "none")))]
pub(crate) mod record {
    use core::cell::Cell;

    std::thread_local!(static HELD: Cell<u64> = const { Cell::new(0) });

    pub(super) fn load() -> u64 {
        HELD.get()
    }

    pub(super) fn store(held: u64) {
        HELD.set(held);
    }

    /// What the CPU held that this thread plays next, for what the one held that it has played until now.
    #[cfg_attr(any(loom, miri), allow(dead_code, reason = "no simulation there"))]
    pub fn exchange(held: u64) -> u64 {
        HELD.replace(held)
    }
}
