//! What a CPU has done: counted by the CPU itself, read by whoever wants to know. next: executor.rs.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a CPU has done since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuStatistics {
    /// Polls of tasks.
    pub polls: u64,
    /// Polls that took more than a millisecond, user mode aside.
    pub long_polls: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// For how long it slept, in nanoseconds.
    pub idle_time: u64,
    /// Kicks (inter-processor interrupts) that it sent.
    pub kicks: u64,
    /// How often it set its alarm.
    pub alarms: u64,
    /// Tasks that it took from other CPUs.
    pub stolen: u64,
    /// Tasks that wait for it at this moment.
    pub waiting: usize,
}

/// The counters behind [`CpuStatistics`], written by their CPU only.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) polls: Counter,
    pub(crate) long_polls: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) idle_time: Counter,
    pub(crate) kicks: Counter,
    pub(crate) alarms: Counter,
    pub(crate) stolen: Counter,
}

impl Counters {
    pub(crate) fn read(&self, waiting: usize) -> CpuStatistics {
        CpuStatistics {
            polls: self.polls.get(),
            long_polls: self.long_polls.get(),
            sleeps: self.sleeps.get(),
            idle_time: self.idle_time.get(),
            kicks: self.kicks.get(),
            alarms: self.alarms.get(),
            stolen: self.stolen.get(),
            waiting,
        }
    }
}

/// A count that one CPU writes: a load, an addition and a store, no locked instruction. An interrupt handler that counts between the
/// load and the store is not counted: these are statistics.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// For what is no count, but is written and read like one.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
