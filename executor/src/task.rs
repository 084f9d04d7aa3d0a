//! A task: a future on the heap, with everything that is needed to run it, queue it and wake it, in one allocation.
//!
//! ```text
//!            spawn() ── memory, future moved in, first reference to the TaskRef, second to the queue
//!               │
//!               ▼
//!        ┌► QUEUED ──── RunQueue::pop() ──► Runnable::poll() ──► RUNNING ──┐
//!        │     ▲                                                           │ Future::poll
//!        │     │ again: woken while it ran                                 ▼
//!        │     └───────────────────────────────────────────── Pending ◄────┴────► Ready
//!        │                                                       │                  │
//!   Waker::wake(),                                               ▼                  ▼
//!   TaskRef::wake() ◄── a queue, a timer, an interrupt ────── IDLE                DONE: the future is dropped at once
//!        (state.rs: who turns QUEUED on pushes)                  │                  │
//!                                                                ▼                  ▼
//!                                last reference dropped ──► reap list ──► executor: Dead::reap() frees the cell
//! ```
//!
//! A waker *is* a pointer to the cell: no allocation per poll, no reference counted for the waker that a poll is lent. It
//! names the task, never a CPU, so it stays right when the task is stolen. Waking from an interrupt handler is one step of
//! the state word and one push into a lock-free inbox. Nothing is ever freed where a reference is dropped, because that may
//! be an interrupt handler: the cell goes to a lock-free list, and the executor frees it between two polls.
//!
//! Three handles, told apart by what holding one proves:
//!
//! - [`TaskRef`] (and every `Waker`): the cell exists.
//! - [`Runnable`]: *the* right to queue or poll the task; there is one at most, and it owns the links in the cell.
//! - [`Dead`]: the last reference is gone; the cell is the holder's alone.
//!
//! The unsafe code of this file rests on exactly these three sentences. A future must be `Send`: its task may be polled by
//! another CPU next time, and the compiler then rejects a lock guard held over an `.await`. next: run_queue.rs.
//!
//! Exercise: a task is dropped half-way when the last reference to it goes while it is IDLE. Who can still hold one?

mod cell;
mod current;
mod queues;
mod registry;
mod task_ref;
mod waker;

use core::{
    cell::UnsafeCell,
    mem::ManuallyDrop,
    panic::Location,
    ptr::NonNull,
    sync::atomic::{self as plain, AtomicPtr},
    task::{Context, Poll, Waker},
};

pub use self::{cell::SpawnError, task_ref::TaskRef, waker::waits_here};
use self::{cell::VTable, waker::raw_waker};
pub(crate) use self::{
    cell::{NewTask, spawn},
    current::CurrentTask,
    queues::{ByPlace, ByTime, Fifo, Slot, Stack},
    registry::Registry,
    waker::note_wait,
};
use crate::{
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    list::Links,
    state::{State, Suspend},
    statistics::Counter,
};

/// How a task is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Runs ahead of all others, in the order of wake-ups. For tasks that are short between two awaits.
    Driver,
    /// Runs ahead of every task that shares, and of those with a lower priority, until it waits or yields: SCHED_FIFO and SCHED_RR of
    /// sched(7). Tasks that share keep a twentieth of a CPU.
    RealTime {
        /// 1 to 99, the greater first. Others are brought into these bounds.
        priority: u8,
        /// Tasks of one priority take turns.
        takes_turns: bool,
    },
    /// Shares the CPU with its like in proportion to `weight`; [`Class::NORMAL`] has 1024.
    User {
        /// The share, relative to the other tasks that share. 0 counts as 1.
        weight: u32,
    },
    /// The same for a task that computes: one that wakes does not interrupt others (SCHED_BATCH).
    Batch {
        /// As for [`Class::User`].
        weight: u32,
    },
}

impl Class {
    /// A user task of ordinary weight: nice 0.
    pub const NORMAL: Self = Self::User { weight: 1024 };
    /// The weight of tasks for which any other is more important (SCHED_IDLE). Whoever has it is interrupted by all who have more.
    pub const IDLE_WEIGHT: u32 = 3;

    /// The rank of tasks that share.
    pub(crate) const SHARING: u8 = 1;
    /// The rank of driver tasks; those of real-time tasks lie between.
    pub(crate) const DRIVING: u8 = 101;

    const WEIGHTS: u32 = (1 << 24) - 1;
    const BATCH: u32 = 1 << 29;
    const TURNS: u32 = 1 << 30;
    const REAL_TIME: u32 = 1 << 31;

    /// The word in which a task keeps its class: 0 for a driver task; a weight or a priority, with flags.
    fn encode(self) -> u32 {
        let bounded = |weight: u32| weight.clamp(1, Self::WEIGHTS);
        match self {
            Self::Driver => 0,
            Self::User { weight } => bounded(weight),
            Self::Batch { weight } => bounded(weight) | Self::BATCH,
            Self::RealTime { priority, takes_turns } => {
                let turns = if takes_turns { Self::TURNS } else { 0 };
                Self::REAL_TIME | turns | u32::from(priority.clamp(1, 99))
            }
        }
    }

    #[inline]
    fn decode(word: u32) -> Self {
        match word {
            0 => Self::Driver,
            1..=Self::WEIGHTS => Self::User { weight: word },
            _ if word & Self::REAL_TIME != 0 => {
                Self::RealTime { priority: word as u8, takes_turns: word & Self::TURNS != 0 }
            }
            _ => Self::Batch { weight: word & Self::WEIGHTS },
        }
    }

    /// Who interrupts whom: a task that is woken, one of a lower rank.
    #[inline]
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Driver => Self::DRIVING,
            Self::RealTime { priority, .. } => Self::SHARING + priority,
            Self::User { weight } | Self::Batch { weight } => Self::SHARING * u8::from(weight > Self::IDLE_WEIGHT),
        }
    }

    /// Its weight, if it shares.
    #[inline]
    pub(crate) fn weight(self) -> Option<u32> {
        match self {
            Self::User { weight } | Self::Batch { weight } => Some(weight),
            Self::Driver | Self::RealTime { .. } => None,
        }
    }
}

/// Where a task goes when it is woken, and when the last reference to it is dropped. Both may be asked in an interrupt.
pub(crate) trait Schedule: Sync + 'static {
    fn schedule(&self, task: Runnable);
    /// The task that is being polled on `cpu` was woken: if it is in user mode, it is to come back.
    fn interrupt(&self, cpu: usize);
    fn retire(&self, task: Dead);
}

/// The part of a cell that does not depend on the future's type.
#[repr(C)]
struct Header {
    /// First, so that a pointer to the links is a pointer to the cell (task/queues.rs). The `Runnable`'s, or the `Dead`'s.
    links: UnsafeCell<Links>,
    state: State,
    /// The registry's.
    registered: UnsafeCell<Links>,
    vtable: &'static VTable,
    /// The `&'static S` of the `Cell<F, S>` that this is part of.
    scheduler: *const (),
    facts: Facts,
}

/// What is known about a task, beside its state. All of it may be read at any time; none of it orders anything.
#[derive(Debug)]
pub(crate) struct Facts {
    /// 0 until the registry has given it one.
    id: AtomicU64,
    name: &'static str,
    /// See [`Class::encode`].
    class: AtomicU32,
    /// The longest time that one poll of it took of the kernel, in nanoseconds; [`u32::MAX`] for more.
    worst_poll: plain::AtomicU32,
    /// The CPU that ran it last, or spawned it.
    pub(crate) cpu: AtomicUsize,
    /// The CPUs that may run it, a bit each; all bits: any.
    pub(crate) affinity: AtomicU64,
    /// The virtual time it has had, in nanoseconds of a task of ordinary weight, on the scale of `cpu`.
    pub(crate) virtual_runtime: AtomicU64,
    pub(crate) run_time: Counter,
    pub(crate) polls: Counter,
    /// How often it was queued by a wake. Written by whoever has the right to queue it.
    pub(crate) wakes: Counter,
    /// See [`Cause::encode`](crate::cause::Cause::encode). Written likewise.
    pub(crate) woken_by: Counter,
    /// When its last poll ended, in nanoseconds; 0 before the first.
    pub(crate) idle_since: Counter,
    /// The `&'static Location` of the wait that it was last seen to begin, or null.
    waits_at: AtomicPtr<Location<'static>>,
}

impl Facts {
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        // Relaxed: it was given before the task was queued.
        self.id.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether `cpu` may run it.
    #[inline]
    pub(crate) fn allows(&self, cpu: usize) -> bool {
        // Relaxed: whoever changes it has the task polled afterwards.
        let affinity = self.affinity.load(Ordering::Relaxed);
        affinity == u64::MAX || cpu < 64 && affinity >> cpu & 1 == 1
    }

    /// Where it was last seen to begin a wait.
    #[inline]
    pub(crate) fn waits_at(&self) -> Option<&'static Location<'static>> {
        let location = self.waits_at.load(Ordering::Relaxed);
        // SAFETY: null, or made from a `&'static Location` in `note_wait`.
        unsafe { location.as_ref() }
    }

    /// Takes note of what a poll took of the kernel, in nanoseconds. By the CPU that polls it.
    #[inline]
    pub(crate) fn note_poll(&self, took: u64) {
        if took > self.worst_poll.load(Ordering::Relaxed).into() {
            self.worst_poll.store(u32::try_from(took).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// How the task is scheduled.
    #[inline]
    pub(crate) fn class(&self) -> Class {
        // Relaxed: nothing else depends on it.
        Class::decode(self.class.load(Ordering::Relaxed))
    }
}

/// The right to queue a task and to poll it, with the queue's reference. There is at most one of each task.
#[derive(Debug)]
pub(crate) struct Runnable(NonNull<Header>);

// SAFETY: the future is `Send`, and a `Runnable` is its only door.
unsafe impl Send for Runnable {}

/// How a poll ended.
pub(crate) enum Outcome {
    /// The task waits.
    Idle,
    /// It was woken while it ran: queue it again.
    Again(Runnable),
    /// It has finished.
    Done(Option<Dead>),
    /// It waits, and nobody is left who could wake it.
    Abandoned(Dead),
}

impl Runnable {
    #[inline]
    pub(crate) fn facts(&self) -> &Facts {
        // SAFETY: the queue's reference keeps the cell in memory; facts are atomics and constants.
        unsafe { &(*self.0.as_ptr()).facts }
    }

    /// Polls the future once. `after` is called when it has been polled, and the task is still this CPU's; it is told whether it is ready.
    #[inline]
    fn poll(self, after: impl FnOnce(&Facts, bool)) -> Outcome {
        let task = self.0;
        // SAFETY: the queue's reference keeps the cell in memory until the end of this function gives it back.
        let header = unsafe { &*task.as_ptr() };
        header.state.start();
        // SAFETY: the waker borrows the queue's reference: it is never dropped, and does not outlive the poll.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(task)) });
        // SAFETY: we own the `Runnable`, and a task that is DONE is never queued.
        let poll = unsafe { (header.vtable.poll)(task, &mut Context::from_waker(&waker)) };
        after(&header.facts, poll.is_ready());
        match poll {
            Poll::Ready(()) => Outcome::Done(header.state.complete().then_some(Dead(task))),
            Poll::Pending => match header.state.suspend() {
                Suspend::Idle => Outcome::Idle,
                Suspend::Again => Outcome::Again(self),
                Suspend::LastReference => Outcome::Abandoned(Dead(task)),
            },
        }
    }
}

/// A cell to which no reference is left, on its way to be freed.
pub(crate) struct Dead(NonNull<Header>);

// SAFETY: the future is `Send`, and the cell is the holder's alone.
unsafe impl Send for Dead {}

impl Dead {
    /// Drops the future, unless it has finished, and frees the cell. Not in an interrupt handler.
    pub(crate) fn reap(self) {
        // SAFETY: no reference is left, and `self` is consumed.
        unsafe { ((*self.0.as_ptr()).vtable.free)(self.0) };
    }
}
