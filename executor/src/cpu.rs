//! What the executor knows of one CPU, and the protocol by which others find out whether it needs to be kicked.
//!
//! A CPU publishes what it does; whoever gives it work publishes the work, and then looks. A fence between the two steps on
//! both sides makes sure that at least one of them sees the other:
//!
//! ```text
//!   the CPU                                   whoever wakes a task for it
//!   publish(Idle | User)                      push into its queue, or set NOTIFIED
//!   fence(SeqCst)                             fence(SeqCst)
//!   anything for me? ── yes ─► do not sleep   observe() ── Idle ───► kick: the interrupt ends `hlt`
//!        │ no                                     │      └ User ───► kick: the interrupt ends user mode
//!        ▼                                        ▼ Kernel
//!   sleep, or enter user mode                 nothing: it will look before it sleeps or leaves
//! ```
//!
//! In between, interrupts are off on the CPU's side: a kick that comes after the last look is taken as soon as `sti; hlt` or
//! `sysret` lets it, and ends what it was meant to end. The model in `tests/loom_idle.rs` is this picture. next: executor.rs.
//!
//! Exercise: take one fence out of the picture, and find the run that sleeps for ever.

use core::{
    num::NonZeroU64,
    ops::{Deref, DerefMut},
};

use crate::{
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence},
    list::{Home, Wheel},
    run_queue::{Inbox, RunQueue, SLEEPER_CREDIT, catch_up},
    statistics::{Counter, Counters},
    sync::{Rank, SpinGuard, SpinLock},
    task::{Class, CurrentTask, Dead, Runnable, Slot, Stack},
    time::Timer,
};

/// What a CPU is doing, as far as others need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the kernel: it looks at its queues before it does anything long.
    Kernel,
    /// Asleep, or about to sleep: only an interrupt makes it look.
    Idle,
    /// Running user code, or about to: only an interrupt makes it look.
    User,
}

/// The published mode of a CPU.
#[derive(Debug)]
pub struct Status(AtomicU8);

impl Default for Status {
    fn default() -> Self {
        Self(AtomicU8::new(Mode::Kernel as u8))
    }
}

impl Status {
    /// Says what this CPU is about to do. For `Idle` and `User` the caller looks for work after this, and before it does it.
    #[inline]
    pub fn publish(&self, mode: Mode) {
        // Release: what the CPU did in the kernel comes before whatever somebody does who sees it elsewhere.
        self.0.store(mode as u8, Ordering::Release);
        if mode != Mode::Kernel {
            // Pairs with the fence in observe(): of "publish, then look for work" and "give work, then look", one sees the other.
            fence(Ordering::SeqCst);
        }
    }

    /// What the CPU is doing. The caller has given it work before this, and kicks it if the answer is not `Kernel`.
    #[inline]
    #[must_use]
    pub fn observe(&self) -> Mode {
        // Pairs with the fence in publish().
        fence(Ordering::SeqCst);
        self.peek()
    }

    /// What the CPU was doing lately: a hint.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Mode {
        match self.0.load(Ordering::Acquire) {
            1 => Mode::Idle,
            2 => Mode::User,
            _ => Mode::Kernel,
        }
    }
}

/// What a CPU is to look at, a bit each: all that it asks before it enters user mode is whether there is any.
///
/// Who sets a bit has done before what it is about; who takes it back looks afterwards.
#[derive(Debug, Default)]
pub(crate) struct Demands(AtomicU8);

impl Demands {
    /// The task being polled must leave user mode, so that another one can be chosen.
    pub(crate) const RESCHEDULE: u8 = 1;
    /// The alarm went off, or another CPU has put a timer here: look at the timers.
    pub(crate) const ALARM: u8 = 2;
    /// Somebody on another CPU has put a task here since the task being polled was last told that it is not alone. What is put here by this
    /// CPU is remembered beside it, in [`Cpu::company`].
    pub(crate) const COMPANY: u8 = 4;

    #[inline]
    pub(crate) fn set(&self, bit: u8) {
        // Release: pairs with the Acquire below. SeqCst, since a bit that is set in vain costs less than to prove that less will do.
        self.0.fetch_or(bit, Ordering::SeqCst);
    }

    /// Takes a bit back; says whether it was set.
    #[inline]
    pub(crate) fn take(&self, bit: u8) -> bool {
        // A read-modify-write: what was set after the look that follows stays set.
        self.has(bit) && self.0.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    #[inline]
    pub(crate) fn has(&self, bits: u8) -> bool {
        self.any() & bits != 0
    }

    #[inline]
    pub(crate) fn any(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// One CPU. A cache line pair of its own, so that CPUs do not slow each other down by being neighbours.
#[repr(align(128))]
pub(crate) struct Cpu {
    pub(crate) status: Status,
    pub(crate) demands: Demands,
    /// Somebody has begun to wait for this CPU since the task being polled was last told, by this CPU's doing: [`Demands::COMPANY`] without
    /// the locked instructions, since nobody else writes it.
    pub(crate) company: AtomicBool,
    /// `run` or `run_until_idle` is under way.
    pub(crate) is_driven: AtomicBool,
    /// The task being polled runs although driver tasks wait, because its like have waited for too long.
    pub(crate) is_spared: AtomicBool,
    /// What [`Machine::user_time`](crate::Machine::user_time) said at the end of the last poll.
    pub(crate) user_time: Counter,
    /// On whose behalf this CPU acts, and so who wakes what it wakes: see [`Cause::encode`](crate::Cause).
    pub(crate) cause: Counter,
    /// When a long poll was last told of, in nanoseconds.
    pub(crate) long_poll_told: Counter,
    /// The rank of the task being polled, or polled last.
    pub(crate) rank: AtomicU8,
    /// When this CPU last gave a task away only to let tasks change places.
    pub(crate) rotated: AtomicU64,
    /// When the task being polled has had its time, if others wait; else [`u64::MAX`].
    pub(crate) slice_end: AtomicU64,
    /// What the alarm was last set to; [`u64::MAX`] if it is not set.
    pub(crate) armed: AtomicU64,
    /// When the poll under way began; between polls the end of the last one, if nothing but polls has happened since, else 0.
    pub(crate) stamp: AtomicU64,
    pub(crate) current: CurrentTask,
    /// Locked by this CPU, and with `try_lock` by thieves and by wakes on this CPU.
    queue: SpinLock<RunQueue>,
    pub(crate) inbox: Inbox,
    /// A user task that the one that runs here has woken: it goes before the others, if that is fair. No other CPU takes it: it is warm here.
    pub(crate) next: Slot,
    /// For tests: tasks go in no order, and none goes next.
    is_shuffled: bool,
    /// Cells to be freed.
    pub(crate) dead: Stack<Dead>,
    pub(crate) timers: Home<Wheel, Timer>,
    pub(crate) count: Counters,
}

impl Cpu {
    pub(crate) fn new(cpus: usize, shuffle: Option<NonZeroU64>) -> Self {
        Self {
            status: Status::default(),
            demands: Demands::default(),
            company: AtomicBool::new(false),
            is_driven: AtomicBool::new(false),
            is_spared: AtomicBool::new(false),
            user_time: Counter::default(),
            cause: Counter::default(),
            long_poll_told: Counter::default(),
            rank: AtomicU8::new(0),
            rotated: AtomicU64::new(0),
            slice_end: AtomicU64::new(u64::MAX),
            armed: AtomicU64::new(u64::MAX),
            stamp: AtomicU64::new(0),
            current: CurrentTask::new(),
            queue: SpinLock::new(RunQueue::new(shuffle)),
            inbox: Inbox::new(cpus),
            next: Slot::new(),
            is_shuffled: shuffle.is_some(),
            dead: Stack::new(),
            timers: Home::new(Rank::TIMERS, Wheel::new()),
            count: Counters::default(),
        }
    }

    /// The run queue, with what has come into the inbox.
    #[inline]
    pub(crate) fn queue(&self) -> QueueGuard<'_> {
        QueueGuard::new(self.queue.lock(), &self.inbox)
    }

    /// The run queue, with what has come into the inbox, if nobody is at it. For thieves.
    pub(crate) fn try_queue(&self) -> Option<QueueGuard<'_>> {
        Some(QueueGuard::new(self.queue.try_lock()?, &self.inbox))
    }

    /// The run queue alone, if nobody is at it. For wakes, which may come from an interrupt handler: those only push.
    #[inline]
    pub(crate) fn try_queue_to_push(&self) -> Option<QueueGuard<'_>> {
        let mut queue = self.queue.try_lock()?;
        queue.raise_floor(self.inbox.floor());
        Some(QueueGuard { queue, inbox: &self.inbox })
    }

    /// Has a task that the one being polled has woken go next, if it may. Its virtual time then, else the task. By the task being polled, not
    /// by an interrupt handler.
    #[inline]
    pub(crate) fn push_next(&self, task: Runnable) -> Result<u64, Runnable> {
        if !self.next.is_empty() || self.is_shuffled || !matches!(task.facts().class(), Class::User { .. }) {
            return Err(task);
        }
        let time = catch_up(&task, self.inbox.floor(), SLEEPER_CREDIT);
        self.next.fill(task);
        Ok(time)
    }

    /// The task to be polled if none waits but the one that goes next, or the one that is to be polled `again`: without the queue's lock.
    #[inline]
    pub(crate) fn alone(&self, again: Option<Runnable>) -> Option<Runnable> {
        let task = again.or_else(|| self.next.take())?;
        // Relaxed: the `Runnable` is ours.
        self.inbox.raise_floor(task.facts().virtual_runtime.load(Ordering::Relaxed));
        Some(task)
    }

    /// Takes back that somebody waits; says whether it was said. By this CPU: whoever waits is looked for afterwards.
    #[inline]
    pub(crate) fn take_company(&self) -> bool {
        // Relaxed: an interrupt handler of this CPU that sets it has queued its task before.
        let was_here = self.company.load(Ordering::Relaxed);
        if was_here {
            self.company.store(false, Ordering::Relaxed);
        }
        self.demands.take(Demands::COMPANY) || was_here
    }

    /// Whether some task waits for its turn on this CPU.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.inbox.has_waiting() || !self.next.is_empty()
    }

    /// How many tasks wait for their turn on this CPU, as far as is known.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.waiting() + usize::from(!self.next.is_empty())
    }

    /// Whether this CPU has nothing at all to do.
    #[inline]
    pub(crate) fn has_nothing_to_do(&self) -> bool {
        !self.has_waiting() && !self.demands.has(Demands::ALARM) && self.dead.is_empty()
    }
}

/// A CPU's run queue, locked. Publishes its length when it is released.
pub(crate) struct QueueGuard<'a> {
    queue: SpinGuard<'a, RunQueue>,
    inbox: &'a Inbox,
}

impl<'a> QueueGuard<'a> {
    #[inline]
    fn new(mut queue: SpinGuard<'a, RunQueue>, inbox: &'a Inbox) -> Self {
        queue.raise_floor(inbox.floor());
        inbox.collect(&mut queue);
        Self { queue, inbox }
    }
}

impl Deref for QueueGuard<'_> {
    type Target = RunQueue;

    #[inline]
    fn deref(&self) -> &RunQueue {
        &self.queue
    }
}

impl DerefMut for QueueGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut RunQueue {
        &mut self.queue
    }
}

impl Drop for QueueGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.inbox.publish(&self.queue);
    }
}
