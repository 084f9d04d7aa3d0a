//! Counters of what costs time but not instructions: accesses of devices, beside what other files count. Read in
//! /proc/rouse/counters; a benchmark shows them beside its figures.
//!
//! Each CPU counts for itself, without locked instructions; whoever reads adds up.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{MAX_CPUS, cpu_id};

/// What one CPU has counted, in cache lines of its own.
#[repr(align(64))]
struct OfOneCpu([AtomicU64; COUNTERS]);

static COUNTS: [OfOneCpu; MAX_CPUS] = [const { OfOneCpu([const { AtomicU64::new(0) }; COUNTERS]) }; MAX_CPUS];
const COUNTERS: usize = 5;

/// One counter.
pub struct Counter(usize);

impl Counter {
    /// Counts one.
    #[inline]
    pub fn add(&self) {
        self.add_many(1);
    }

    /// Counts so many.
    #[inline]
    pub fn add_many(&self, count: u64) {
        // The remainder says to the compiler that there is such a CPU.
        let own = &COUNTS[cpu_id() % MAX_CPUS].0[self.0];
        // A plain load and store: only this CPU counts here.
        own.store(own.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// How many there were on this CPU.
    #[inline]
    pub fn get_here(&self) -> u64 {
        COUNTS[cpu_id() % MAX_CPUS].0[self.0].load(Ordering::Relaxed)
    }

    /// How many there were, on all CPUs.
    pub fn get(&self) -> u64 {
        (0..MAX_CPUS).map(|cpu| self.get_on(cpu)).sum()
    }

    /// How many there were on one CPU.
    pub fn get_on(&self, cpu: usize) -> u64 {
        COUNTS[cpu].0[self.0].load(Ordering::Relaxed)
    }
}

/// System calls.
pub static SYSTEM_CALLS: Counter = Counter(0);
/// Reads and writes of devices that the kernel itself makes: the local interrupt controller's registers and I/O ports. What drivers
/// write to tell their devices is counted by them ([`drivers::hw::doorbells`]).
pub static DEVICE_ACCESSES: Counter = Counter(1);
/// Threads that were made since boot, those of new processes included.
pub static THREADS_MADE: Counter = Counter(2);
/// Nanoseconds that all threads have spent in user mode.
pub static USER_TIME: Counter = Counter(3);
/// Nanoseconds that all threads have spent in the kernel.
pub static SYSTEM_TIME: Counter = Counter(4);
