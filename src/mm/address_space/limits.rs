//! How much a program may map.
//!
//! Next: `request.rs`.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What bounds an address space; `u64::MAX` is no bound. In bytes, as setrlimit(2) has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `RLIMIT_AS`: all that is mapped.
    pub address_space: u64,
    /// `RLIMIT_DATA`: what is private and writable.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, locked: 8 << 20 }
    }
}

/// [`Limits`] that can change under way.
pub struct AtomicLimits {
    address_space: AtomicU64,
    data: AtomicU64,
    pub stack: AtomicU64,
    locked: AtomicU64,
}

impl AtomicLimits {
    pub fn new(limits: Limits) -> AtomicLimits {
        AtomicLimits {
            address_space: AtomicU64::new(limits.address_space),
            data: AtomicU64::new(limits.data),
            stack: AtomicU64::new(limits.stack),
            locked: AtomicU64::new(limits.locked),
        }
    }

    pub fn get(&self) -> Limits {
        Limits {
            address_space: self.address_space.load(Relaxed),
            data: self.data.load(Relaxed),
            stack: self.stack.load(Relaxed),
            locked: self.locked.load(Relaxed),
        }
    }

    pub fn set(&self, limits: Limits) {
        self.address_space.store(limits.address_space, Relaxed);
        self.data.store(limits.data, Relaxed);
        self.stack.store(limits.stack, Relaxed);
        self.locked.store(limits.locked, Relaxed);
    }
}
