//! How a thread shares the CPUs with others: its policy, nice value and real-time priority (sched(7)).
//!
//! ```text
//! SCHED_OTHER, SCHED_BATCH   a share by nice value          Class::User, Class::Batch
//! SCHED_IDLE                 what others leave              Class::User of the least weight
//! SCHED_FIFO, SCHED_RR       ahead of these, by priority    Class::RealTime
//! ```
//!
//! SCHED_DEADLINE is refused. next: `src/syscall/scheduling.rs`, which changes it; `executor/src/run_queue.rs`, which acts on it.

use core::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Result, general};
use executor::Class;

/// A scheduling policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// SCHED_OTHER.
    Normal,
    /// SCHED_BATCH.
    Batch,
    /// SCHED_IDLE.
    Idle,
    /// SCHED_FIFO.
    Fifo,
    /// SCHED_RR.
    RoundRobin,
}

impl Policy {
    /// The policy of this `SCHED_*` number.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: SCHED_DEADLINE. `EINVAL`: there is no such policy.
    pub fn of_number(number: u32) -> Result<Self> {
        match number {
            general::SCHED_NORMAL => Ok(Self::Normal),
            general::SCHED_BATCH => Ok(Self::Batch),
            general::SCHED_IDLE => Ok(Self::Idle),
            general::SCHED_FIFO => Ok(Self::Fifo),
            general::SCHED_RR => Ok(Self::RoundRobin),
            general::SCHED_DEADLINE => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Its `SCHED_*` number.
    pub fn number(self) -> u32 {
        match self {
            Self::Normal => general::SCHED_NORMAL,
            Self::Batch => general::SCHED_BATCH,
            Self::Idle => general::SCHED_IDLE,
            Self::Fifo => general::SCHED_FIFO,
            Self::RoundRobin => general::SCHED_RR,
        }
    }

    /// Whether it has priorities instead of nice values.
    pub fn is_real_time(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }
}

/// What is set for one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduling {
    /// The policy.
    pub policy: Policy,
    /// -20 to 19. Kept while a real-time policy does not use it.
    pub nice: i8,
    /// 1 to 99 with a real-time policy, else 0.
    pub priority: u8,
    /// Children begin with SCHED_OTHER and no negative nice value.
    pub is_reset_on_fork: bool,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self { policy: Policy::Normal, nice: 0, priority: 0, is_reset_on_fork: false }
    }
}

impl Scheduling {
    /// What a new thread or process has from its maker.
    pub fn of_child(self) -> Self {
        if !self.is_reset_on_fork {
            return self;
        }
        let nice = if self.policy.is_real_time() { 0 } else { self.nice.max(0) };
        Self { nice, ..Self::default() }
    }

    /// How its task is scheduled.
    pub fn class(self) -> Class {
        match self.policy {
            Policy::Normal => Class::User { weight: weight(self.nice) },
            Policy::Batch => Class::Batch { weight: weight(self.nice) },
            Policy::Idle => Class::User { weight: Class::IDLE_WEIGHT },
            Policy::Fifo => Class::RealTime { priority: self.priority, takes_turns: false },
            Policy::RoundRobin => Class::RealTime { priority: self.priority, takes_turns: true },
        }
    }

    /// The `priority` of proc_pid_stat(5): 0 to 39 by nice value; below 0, real-time priorities.
    pub fn shown_priority(self) -> i32 {
        if self.policy.is_real_time() { -1 - i32::from(self.priority) } else { 20 + i32::from(self.nice) }
    }
}

/// The share of CPU time that goes with a nice value: each step is a factor of 1.25 (sched(7)).
fn weight(nice: i8) -> u32 {
    // 16 binary places, so that twenty divisions lose nothing that matters.
    let steps = 0..nice.unsigned_abs();
    let scaled = steps.fold(1024u64 << 16, |weight, _| if nice > 0 { weight * 4 / 5 } else { weight * 5 / 4 });
    (scaled >> 16) as u32
}

/// A [`Scheduling`] that others may look at and change.
#[derive(Default)]
pub struct SharedScheduling(AtomicU32);

impl SharedScheduling {
    /// What is set.
    pub fn get(&self) -> Scheduling {
        // Relaxed: nothing else depends on it.
        let [policy, nice, priority, is_reset_on_fork] = self.0.load(Ordering::Relaxed).to_le_bytes();
        Scheduling {
            // Only what `set` has stored is ever there.
            policy: Policy::of_number(policy.into()).unwrap_or(Policy::Normal),
            nice: nice.cast_signed(),
            priority,
            is_reset_on_fork: is_reset_on_fork != 0,
        }
    }

    /// Sets it.
    pub fn set(&self, scheduling: Scheduling) {
        let Scheduling { policy, nice, priority, is_reset_on_fork } = scheduling;
        let bytes = [policy.number() as u8, nice.cast_unsigned(), priority, u8::from(is_reset_on_fork)];
        self.0.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nice_value_weighs_as_on_linux() {
        // The table of the Linux kernel (sched_prio_to_weight), to a hundredth.
        for (nice, linux) in
            [(-20, 88_761), (-10, 9548), (-5, 3121), (-1, 1277), (0, 1024), (1, 820), (5, 335), (19, 15)]
        {
            let own = f64::from(weight(nice));
            assert!((own / f64::from(linux) - 1.0).abs() < 0.07, "nice {nice}: {own}, {linux}");
        }
    }

    #[test]
    fn what_was_set_is_what_is_read() {
        let shared = SharedScheduling::default();
        assert_eq!(shared.get(), Scheduling::default());
        for policy in [Policy::Normal, Policy::Batch, Policy::Idle, Policy::Fifo, Policy::RoundRobin] {
            let set = Scheduling { policy, nice: -20, priority: 99, is_reset_on_fork: true };
            shared.set(set);
            assert_eq!(shared.get(), set);
        }
    }

    #[test]
    fn a_child_inherits_unless_that_is_to_be_reset() {
        let fifo = Scheduling { policy: Policy::Fifo, nice: -3, priority: 5, is_reset_on_fork: false };
        assert_eq!(fifo.of_child(), fifo);
        assert_eq!(Scheduling { is_reset_on_fork: true, ..fifo }.of_child(), Scheduling::default());
        let batch = Scheduling { policy: Policy::Batch, nice: 7, priority: 0, is_reset_on_fork: true };
        assert_eq!(batch.of_child(), Scheduling { nice: 7, ..Scheduling::default() });
    }
}
