//! Counters of what costs time but not instructions: page-table switches, flushes, inter-processor interrupts. Read in
//! /proc/rouse/counters; a benchmark shows them beside its figures.

use core::sync::atomic::{AtomicU64, Ordering};

/// One counter.
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Counts one.
    #[inline]
    pub fn add(&self) {
        // A plain load and store: with one CPU nothing is lost, and a benchmark needs no more.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts so many.
    #[inline]
    pub fn add_many(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// System calls.
pub static SYSTEM_CALLS: Counter = Counter::new();
/// Inter-processor interrupts sent.
pub static IPIS: Counter = Counter::new();
/// Threads that were made since boot, those of new processes included.
pub static THREADS_MADE: Counter = Counter::new();
/// Nanoseconds that all threads have spent in user mode.
pub static USER_TIME: Counter = Counter::new();
/// Nanoseconds that all threads have spent in the kernel.
pub static SYSTEM_TIME: Counter = Counter::new();
