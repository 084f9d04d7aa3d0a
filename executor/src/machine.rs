//! What the executor needs of the machine that it runs on.
//!
//! Five functions, which the kernel implements over its local APICs and a test over a clock that it turns by hand
//! (testing.rs); and three for those who watch it. next: executor.rs.

use core::{fmt, panic::Location, time::Duration};

use crate::{cause::Cause, time::Instant};

/// What the executor needs of the machine. All of it is called on the CPU concerned, except `kick`.
pub trait Machine: Sync + 'static {
    /// The time since boot. It never goes back, and is the same on all CPUs.
    fn now(&self) -> Instant;

    /// The CPU that the caller runs on, from 0 up to the number given to [`Executor::new`](crate::Executor::new). Two threads of execution that run
    /// at the same time are never told the same number.
    fn current_cpu(&self) -> usize;

    /// Interrupts another CPU: ends its sleep, or its stay in user mode.
    fn kick(&self, cpu: usize);

    /// Sleeps until an interrupt. First turns interrupts off and asks `nothing_to_do`; if that is so, turns them on and halts,
    /// as one pair of instructions; else turns them on again. Returns with interrupts on.
    fn idle(&self, nothing_to_do: &dyn Fn() -> bool);

    /// Sets this CPU's one alarm to a point in time, in place of the former one; one in the past rings at once. Its interrupt
    /// handler calls [`Executor::alarm`](crate::Executor::alarm).
    fn set_alarm(&self, at: Option<Instant>);

    /// For how many nanoseconds this CPU has been in user mode: those of a poll are known when it ends. They do not count as the kernel's.
    fn user_time(&self) -> u64 {
        0
    }

    /// Something happened on this CPU: only called while [`Executor::set_traced`](crate::Executor::set_traced) says so. May be called in an
    /// interrupt handler, and under the executor's locks: takes no lock, needs no memory, wakes nobody.
    fn trace(&self, _event: &TraceEvent) {}

    /// A poll took more than a millisecond of the kernel's time. Called at most once a second on each CPU; the rest are only counted.
    fn long_poll(&self, poll: &LongPoll) {
        log::info!("{poll}");
    }
}

/// What happens in an executor, as [`Machine::trace`] is told of it. Tasks go by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEvent {
    /// A new task was queued.
    Spawned {
        /// Which.
        task: u64,
        /// By whom.
        by: Cause,
        /// Where it is queued.
        cpu: usize,
        /// Its name.
        name: &'static str,
    },
    /// A task that waited was woken, and queued: the next poll of it is due to this.
    Woken {
        /// Which.
        task: u64,
        /// By whom.
        by: Cause,
        /// Where it is queued.
        cpu: usize,
    },
    /// The task that this CPU polls was woken while it ran.
    Notified {
        /// Which CPU.
        cpu: usize,
        /// By whom.
        by: Cause,
    },
    /// A task was given to another CPU, because it may not run where it was, or too many wait there.
    Moved {
        /// Which.
        task: u64,
        /// Where it is queued now.
        cpu: usize,
    },
    /// A poll begins on this CPU.
    PollBegins {
        /// Of which task.
        task: u64,
    },
    /// The poll is over.
    PollEnds {
        /// Of which task.
        task: u64,
        /// The task is finished.
        is_ready: bool,
        /// Where it waits, if it does.
        waits_at: Option<&'static Location<'static>>,
    },
    /// It was woken while it ran: it is queued again, and waits for its turn only.
    Requeued {
        /// Which task.
        task: u64,
    },
    /// This CPU begins to wake those whose deadline has come.
    TimersFire,
    /// It is done with that.
    TimersFired,
    /// This CPU was interrupted.
    InterruptBegins {
        /// By which vector.
        vector: u8,
    },
    /// It goes on where it was.
    InterruptEnds {
        /// After which vector.
        vector: u8,
    },
}

/// A poll that kept its CPU for too long.
#[derive(Debug, Clone, Copy)]
pub struct LongPoll {
    /// The task's number.
    pub task: u64,
    /// Its name.
    pub name: &'static str,
    /// How long it took, user mode aside.
    pub took: Duration,
    /// The wait that it came from, if any.
    pub resumed_at: Option<&'static Location<'static>>,
    /// The wait that it last reached.
    pub waits_at: Option<&'static Location<'static>>,
    /// How many long polls there were on this CPU, this one and those not told of included.
    pub so_far: u64,
}

impl fmt::Display for LongPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, name, took, so_far, .. } = self;
        write!(f, "a poll of {name} (task {task}) took {took:?}")?;
        if let Some(place) = self.resumed_at {
            write!(f, ", from {place}")?;
        }
        if let Some(place) = self.waits_at {
            write!(f, " to {place}")?;
        }
        write!(f, "; {so_far} long polls on this CPU")
    }
}
