//! The tasks that wait for a CPU, and which of them goes next.
//!
//! Each CPU has a [`RunQueue`], which is its own, room for a task that goes `next`, and an [`Inbox`], into which anybody may push:
//!
//! ```text
//!   wake by the task that runs here, the first ─► next ─────────────────────────────┐ nobody else waits: no lock
//!   wake on this CPU, queue not in use ────────────────► RunQueue { drivers,        │
//!   wake from elsewhere, or from an interrupt                ▲      real_time, users }
//!   that came while the queue was in use ──► Inbox ──────────┘ collect()            ▼ pop()
//!                                      full? └► overflow (a lock-free list)    the executor polls
//! ```
//!
//! No push ever fails or needs memory: a task stands in one queue at most and brings its own links.
//!
//! Who goes next:
//!
//! 1. Driver tasks, first come, first served; but after [`DRIVER_BURST`] of them, or [`DRIVER_TIME`], while user tasks wait, one
//!    user task goes first and is *spared*: waiting drivers do not end its slice.
//! 2. Real-time tasks, the greatest priority first, within one in the order of wake-ups; one that was interrupted keeps its place. While
//!    others wait they have [`REAL_TIME_SHARE`] of each [`REAL_TIME_PERIOD`], as on Linux.
//! 3. The task that the running one has just woken, its `next` (the other end of a pipe, the next holder of a futex): its data
//!    is warm, and no queue is touched. At most [`HAND_OFFS`] times in a row, and only if it is not ahead of the others in
//!    virtual time by more than [`GRANULARITY`].
//! 4. The user task that has had the least virtual time (time divided by weight), to within 131 µs (list/calendar.rs). A task
//!    that has slept does not bring the time it missed, but a small credit, so that it goes soon and nobody waits for it to catch
//!    up. If it is more than [`INTERRUPTION`] behind the task that runs when it is woken, that one's slice is over; else it waits
//!    for the end. A task that a user task has spawned begins [`SPAWN_DEBIT`] ahead of that.
//!
//! next: executor.rs. Exercise: which of these rules keeps a pair of tasks that wake each other from starving a third?

use core::{num::NonZeroU64, time::Duration};

use crossbeam_queue::ArrayQueue;

use crate::{
    atomic::{AtomicU64, AtomicUsize, Ordering, foreign_step},
    task::{ByPlace, ByTime, Class, Fifo, Runnable, Slot, Stack, TaskRef},
};

/// How many driver tasks may go before a waiting user task.
pub(crate) const DRIVER_BURST: u32 = 256;
/// For how many nanoseconds driver tasks may go before a waiting user task.
pub(crate) const DRIVER_TIME: u64 = 10_000_000;
/// How often in a row the `next` task goes before the others.
pub(crate) const HAND_OFFS: u32 = 16;
/// How long a user task runs before a waiting one of equal weight has its turn.
pub const SLICE: Duration = Duration::from_millis(3);
/// The same, in nanoseconds.
pub(crate) const GRANULARITY: u64 = SLICE.as_nanos() as u64;
/// The same while another CPU has nothing to do, which may then take one of the two. Not at once: whoever wakes another task mostly waits
/// for it soon, as the two ends of a pipe do, and then both are best off where they are.
pub(crate) const SPREAD_AFTER: u64 = 500_000;
/// By how much virtual time a task that is woken must be behind the one that runs, to end its slice, in nanoseconds.
pub(crate) const INTERRUPTION: u64 = 1_000_000;
/// For how long a real-time task runs before another one of its priority has its turn, if its class takes turns.
pub const REAL_TIME_TURN: Duration = Duration::from_millis(100);
/// After this time, in nanoseconds, it is looked whether real-time tasks have had their share.
pub(crate) const REAL_TIME_LOOK: u64 = 50_000_000;
/// The time, in nanoseconds, of which real-time tasks have a share.
const REAL_TIME_PERIOD: u64 = 1_000_000_000;
/// How much of each period real-time tasks have while others wait, in nanoseconds.
const REAL_TIME_SHARE: u64 = 950_000_000;
/// How far behind the others a task may be in virtual time when it wakes, in nanoseconds.
pub(crate) const SLEEPER_CREDIT: u64 = GRANULARITY / 2;
/// How far ahead in virtual time, in nanoseconds, a task begins of the user task that has spawned it. Whoever spawns ever new tasks is so
/// held to have used the time; without it, those would go before all who wait.
const SPAWN_DEBIT: u64 = GRANULARITY / 2;
/// How many wakes from elsewhere wait in a slot; the rest go to the overflow list.
const INBOX_SLOTS: usize = 64;
/// The most that one theft takes.
const STEAL_LIMIT: usize = 64;

/// The tasks that wait for one CPU.
#[derive(Debug)]
pub(crate) struct RunQueue {
    drivers: Fifo,
    /// By [`real_time_place`].
    real_time: ByPlace,
    users: ByTime,
    /// How many tasks are in the three of them.
    length: usize,
    /// How many of these are driver tasks.
    driver_count: usize,
    /// How many are real-time tasks.
    real_time_count: usize,
    /// When the present period of real-time tasks began.
    period_since: u64,
    /// What real-time tasks have had of it, in nanoseconds.
    period_used: u64,
    hand_offs: u32,
    driver_burst: u32,
    /// When the present burst of driver tasks began to keep a user task waiting.
    driver_since: Option<u64>,
    /// No user task of this CPU is far behind this virtual time. It never goes back.
    floor: u64,
    /// For tests: all tasks go in an order drawn from this.
    shuffle: Option<NonZeroU64>,
}

/// A task to be polled.
pub(crate) struct Chosen {
    pub(crate) task: Runnable,
    /// It goes before driver tasks that wait: they are not to interrupt it.
    pub(crate) is_spared: bool,
}

impl RunQueue {
    pub(crate) const fn new(shuffle: Option<NonZeroU64>) -> Self {
        Self {
            drivers: Fifo::new(),
            real_time: ByPlace::new(),
            users: ByTime::new(),
            length: 0,
            driver_count: 0,
            real_time_count: 0,
            period_since: 0,
            period_used: 0,
            hand_offs: 0,
            driver_burst: 0,
            driver_since: None,
            floor: 0,
            shuffle,
        }
    }

    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Queues a task that was woken, spawned or stolen, or that has had its turn. Its virtual time, or [`u64::MAX`] if it has none that
    /// counts against others.
    #[inline]
    pub(crate) fn push(&mut self, task: Runnable) -> u64 {
        self.insert(task, false)
    }

    /// Queues a task that was interrupted: if it is a real-time task, ahead of those of its priority.
    pub(crate) fn push_interrupted(&mut self, task: Runnable) {
        self.insert(task, true);
    }

    #[inline]
    fn insert(&mut self, task: Runnable, was_interrupted: bool) -> u64 {
        self.length += 1;
        if let Some(state) = &mut self.shuffle {
            let place = draw(state);
            self.users.push(task, place);
            return u64::MAX;
        }
        match task.facts().class() {
            Class::Driver => {
                self.driver_count += 1;
                self.drivers.push(task);
            }
            Class::RealTime { priority, .. } => {
                self.real_time_count += 1;
                self.real_time.push(task, real_time_place(priority, was_interrupted));
            }
            Class::User { .. } => {
                let time = catch_up(&task, self.floor, SLEEPER_CREDIT);
                self.users.push(task, time);
                return time;
            }
            Class::Batch { .. } => {
                let time = catch_up(&task, self.floor, 0);
                self.users.push(task, time);
            }
        }
        u64::MAX
    }

    /// Puts `took` nanoseconds down to real-time tasks.
    pub(crate) fn charge_real_time(&mut self, took: u64) {
        self.period_used = self.period_used.saturating_add(took);
    }

    /// Takes out the task that goes next, or that in `next`. `now` is asked only where one class waits for another.
    pub(crate) fn pop(&mut self, next: &Slot, now: impl Fn() -> u64) -> Option<Chosen> {
        if self.driver_count > 0 {
            if self.length == self.driver_count && next.is_empty() {
                self.driver_burst = 0;
                self.driver_since = None;
                return self.pop_driver();
            }
            let now = now();
            let since = *self.driver_since.get_or_insert(now);
            if self.driver_burst < DRIVER_BURST && now.saturating_sub(since) < DRIVER_TIME {
                self.driver_burst += 1;
                return self.pop_driver();
            }
        }
        self.driver_burst = 0;
        self.driver_since = None;
        let task = if self.real_time_count > 0 { self.pop_real_time(next, now) } else { self.pop_user(next) }?;
        Some(Chosen { task, is_spared: self.driver_count > 0 })
    }

    /// Takes out a real-time task, or a user task if those have had their share.
    #[cold]
    fn pop_real_time(&mut self, next: &Slot, now: impl Fn() -> u64) -> Option<Runnable> {
        if self.length > self.driver_count + self.real_time_count || !next.is_empty() {
            let now = now();
            if now.saturating_sub(self.period_since) >= REAL_TIME_PERIOD {
                (self.period_since, self.period_used) = (now, 0);
            }
            if self.period_used >= REAL_TIME_SHARE {
                return self.pop_user(next);
            }
        }
        let task = self.real_time.pop()?;
        self.length -= 1;
        self.real_time_count -= 1;
        Some(task)
    }

    fn pop_driver(&mut self) -> Option<Chosen> {
        let task = self.drivers.pop()?;
        self.length -= 1;
        self.driver_count -= 1;
        Some(Chosen { task, is_spared: false })
    }

    fn pop_user(&mut self, next: &Slot) -> Option<Runnable> {
        if let Some(next) = next.take() {
            let time = next.facts().virtual_runtime.load(Ordering::Relaxed);
            let is_fair = self.users.first_time().is_none_or(|first| time <= first.saturating_add(GRANULARITY));
            if is_fair && self.hand_offs < HAND_OFFS {
                self.hand_offs += 1;
                return Some(next);
            }
            self.users.push(next, time);
            self.length += 1;
        }
        self.hand_offs = 0;
        let task = self.users.pop()?;
        self.length -= 1;
        // In a shuffled queue the places are not times; the floor is not used there.
        self.floor = self.floor.max(task.facts().virtual_runtime.load(Ordering::Relaxed));
        Some(task)
    }

    /// Brings the floor up to what it was raised to without the lock.
    #[inline]
    pub(crate) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// Moves up to `count` tasks to `thief`, of those that it `may_run`; returns how many. Virtual times are moved to the thief's scale.
    pub(crate) fn give_to(&mut self, thief: &mut Self, count: usize, may_run: impl Fn(&Runnable) -> bool) -> usize {
        let count = count.min(STEAL_LIMIT);
        let mut kept = Fifo::new();
        let (mut given, mut looked_at) = (0, 0);
        while given < count
            && looked_at < 2 * STEAL_LIMIT
            && let Some(task) = self.take_spare()
        {
            looked_at += 1;
            if may_run(&task) {
                given += 1;
                rescale(&task, self.floor, thief.floor);
                thief.push(task);
            } else {
                kept.push(task);
            }
        }
        while let Some(task) = kept.pop() {
            self.push(task);
        }
        given
    }

    fn take_spare(&mut self) -> Option<Runnable> {
        let real_time = self.real_time.pop().inspect(|_| self.real_time_count -= 1);
        let task = real_time.or_else(|| self.users.pop()).or_else(|| {
            let driver = self.drivers.pop()?;
            self.driver_count -= 1;
            Some(driver)
        })?;
        self.length -= 1;
        Some(task)
    }
}

/// Brings a task that has slept up to the others, all but its credit. Its virtual time.
#[inline]
pub(crate) fn catch_up(task: &Runnable, floor: u64, credit: u64) -> u64 {
    // Relaxed: the `Runnable` is the caller's, and nobody else changes it.
    let own = task.facts().virtual_runtime.load(Ordering::Relaxed);
    let time = own.max(floor.saturating_sub(credit));
    task.facts().virtual_runtime.store(time, Ordering::Relaxed);
    time
}

/// Where a real-time task stands: the greatest priority first, and within it who was interrupted first; equals in the order in which
/// they came.
fn real_time_place(priority: u8, was_interrupted: bool) -> u64 {
    u64::from(u8::MAX - priority) * 2 + u64::from(!was_interrupted)
}

/// The next number of a sequence: xorshift (Marsaglia, 2003).
fn draw(state: &mut NonZeroU64) -> u64 {
    let mut x = state.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    // Xorshift never reaches 0 from another number.
    *state = NonZeroU64::new(x).unwrap_or(NonZeroU64::MIN);
    x
}

/// With which virtual time a task begins that `parent` spawns, on a CPU with this floor.
pub(crate) fn time_of_child(parent: &TaskRef, floor: u64) -> u64 {
    match parent.class() {
        Class::Driver | Class::RealTime { .. } => floor,
        Class::User { .. } | Class::Batch { .. } => {
            // Relaxed: only the CPU that polls the parent writes this, and that is the one that asks.
            let own = parent.facts().virtual_runtime.load(Ordering::Relaxed);
            own.max(floor).saturating_add(SPAWN_DEBIT)
        }
    }
}

/// Moves a task's virtual time from the scale of one CPU to that of another.
#[inline]
pub(crate) fn rescale(task: &Runnable, from: u64, to: u64) {
    let time = &task.facts().virtual_runtime;
    let moved = to.saturating_add(time.load(Ordering::Relaxed).saturating_sub(from));
    time.store(moved, Ordering::Relaxed);
}

/// Where anybody may leave a task for a CPU, from an interrupt handler too.
pub(crate) struct Inbox {
    slots: ArrayQueue<Runnable>,
    overflow: Stack<Runnable>,
    /// The length of the CPU's run queue, published by whoever has changed it under its lock.
    waiting: AtomicUsize,
    /// The floor of the CPU's run queue, published likewise.
    floor: AtomicU64,
}

impl Inbox {
    /// The inbox of one of `cpus` CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            // A push into a full `ArrayQueue` may have to wait for a pop that is under way; if it comes from an interrupt handler
            // that interrupted this very pop, for ever. So it never gets full: beyond `INBOX_SLOTS` there is room for all
            // who may be past the test in push() at the same time, a task and an interrupt handler on each CPU.
            slots: ArrayQueue::new(INBOX_SLOTS + 2 * cpus),
            overflow: Stack::new(),
            waiting: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
        }
    }

    /// Leaves a task. Takes no lock, needs no memory, cannot fail.
    #[inline]
    pub(crate) fn push(&self, task: Runnable) {
        foreign_step();
        if self.slots.len() >= INBOX_SLOTS {
            self.overflow.push(task);
        } else if let Err(task) = self.slots.push(task) {
            self.overflow.push(task);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.overflow.is_empty()
    }

    /// Moves everything into the CPU's queue. The caller holds the queue's lock.
    #[inline]
    pub(crate) fn collect(&self, queue: &mut RunQueue) {
        if !self.is_empty() {
            self.collect_all(queue);
        }
    }

    fn collect_all(&self, queue: &mut RunQueue) {
        // Before anything leaves the inbox: the CPU, looking while a thief is at this, finds one of the two not empty.
        // Release: pairs with the Acquire of has_waiting(), which looks here after it has found the inbox empty.
        self.waiting.store(queue.length() + 1, Ordering::Release);
        // No more than there are slots: who pushes faster than this is not to keep us here.
        for _ in 0..INBOX_SLOTS {
            foreign_step();
            let Some(task) = self.slots.pop() else { break };
            queue.push(task);
        }
        for task in self.overflow.take_all() {
            queue.push(task);
        }
    }

    /// Publishes the length of the queue. The caller holds the queue's lock.
    #[inline]
    pub(crate) fn publish(&self, queue: &RunQueue) {
        self.waiting.store(queue.length(), Ordering::Release);
        self.raise_floor(queue.floor);
    }

    /// A user task of this virtual time is polled.
    #[inline]
    pub(crate) fn raise_floor(&self, time: u64) {
        // Relaxed: a hint. Of two CPUs that raise it at the same time one may be forgotten until the next poll.
        if time > self.floor() {
            self.floor.store(time, Ordering::Relaxed);
        }
    }

    /// Whether a task is in the inbox or in the run queue. For the CPU itself a reliable answer: it may sleep on it.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        // In this order: see collect_all().
        !self.is_empty() || self.waiting() != 0
    }

    /// The length of the run queue, as last published.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// The floor of the run queue, as last published.
    #[inline]
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }
}
