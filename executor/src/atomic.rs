//! The atomics of this crate: the processor's own; loom's when a model is explored (`--cfg loom`); or, on the host in builds with
//! debug assertions, atomics that a simulation can step between ([`simulated`]).
//!
//! Only what takes part in a protocol between CPUs comes from here: the state word, the idle protocol, the queues, the wait
//! queue and the locks. Counters and facts that order nothing are the processor's own always. next: state.rs.

#[cfg(all(debug_assertions, not(any(target_os = "none", loom, miri))))]
mod lock_word;
#[cfg(all(debug_assertions, not(any(target_os = "none", loom, miri))))]
pub(crate) mod memory;
#[cfg(all(debug_assertions, not(any(target_os = "none", loom, miri))))]
mod simulated;

#[cfg(not(any(loom, all(debug_assertions, not(any(target_os = "none", loom, miri))))))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(not(loom))]
pub(crate) use core::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(all(debug_assertions, not(any(target_os = "none", loom, miri))))]
pub(crate) use self::{
    lock_word::{Held, LockWord},
    simulated::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence, foreign_step},
};

/// What a simulation sees of spin locks and of other people's queues: outside of one, nothing.
#[cfg(not(all(debug_assertions, not(any(target_os = "none", loom, miri)))))]
mod not_simulated {
    use core::marker::PhantomData;

    /// A read-modify-write that is made by somebody else's code is about to come.
    #[inline]
    pub(crate) fn foreign_step() {}

    pub(crate) struct LockWord;

    pub(crate) struct Held<'a>(PhantomData<&'a LockWord>);

    impl LockWord {
        pub(crate) const fn new() -> Self {
            Self
        }

        #[inline]
        pub(crate) fn acquire(&self) -> Held<'_> {
            Held(PhantomData)
        }

        #[inline]
        pub(crate) fn try_acquire(&self) -> Option<Held<'_>> {
            Some(Held(PhantomData))
        }
    }
}

#[cfg(not(all(debug_assertions, not(any(target_os = "none", loom, miri)))))]
pub(crate) use self::not_simulated::{Held, LockWord, foreign_step};
