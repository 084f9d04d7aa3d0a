//! The atomics of this crate: the processor's own, or loom's when a model is being explored (`--cfg loom`).
//!
//! Only what takes part in a modelled protocol comes from here: the state word, the idle protocol, the wait queue and
//! the lock it uses. next: state.rs.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
