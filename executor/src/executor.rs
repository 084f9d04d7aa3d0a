//! The executor: on each CPU a loop that takes a task from the CPU's queue, polls it, and sleeps when there is none.
//!
//! ```text
//!  run(cpu) ─► turn() ─► free dead cells ─► fire timers, if the alarm rang ─► choose() ─► poll ─► account() ─┐
//!     ▲          │ nothing to poll                                                                           │
//!     │          ▼                                                                                           │
//!     │        steal() ─ nothing ─► sleep(): publish Idle, look again, Machine::idle                         │
//!     └──────────┴────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It knows neither hardware nor processes. What it needs of a machine is the [`Machine`] trait: a clock, an alarm, which CPU
//! this is, a way to kick another CPU, and a way to sleep. A test hands it one whose clock it turns by hand.
//!
//! User code is run by a task from within its poll. The executor is told so by [`Executor::enter_user`] and
//! [`Executor::exit_user`], and says through [`Executor::should_leave_user`] when the task is to come back: because it was
//! woken, or because somebody else is to have the CPU. next: cpu.rs (who is kicked when), sync/wait_queue.rs.
//!
//! Exercise: a task is spawned on a CPU whose only user thread computes without ever making a system call. Follow the calls by
//! which the new task gets its first poll.

use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt,
    future::Future,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::Poll,
    time::Duration,
};

use crate::{
    cpu::{Cpu, Mode},
    join::{JoinHandle, join_slot},
    list::{Heap, Home},
    run_queue::{Chosen, GRANULARITY, rescale},
    sync::{MAX_CPUS, assert_no_lock_held},
    task::{self, Class, Dead, NewTask, Outcome, Registry, Runnable, Schedule, SpawnError, TaskRef},
    time::{Clock, Instant, Sleep, Timeout, Timer, TimerHandle, fire},
};

/// A poll that takes longer than this, in nanoseconds, is counted and warned of.
const LONG_POLL: u64 = 1_000_000;

/// What the executor needs of the machine. All of it is called on the CPU concerned, except `kick`.
pub trait Machine: Sync + 'static {
    /// The time since boot. It never goes back, and is the same on all CPUs.
    fn now(&self) -> Instant;

    /// The CPU that the caller runs on, from 0 up to the number given to [`Executor::new`]. Two threads of execution that run
    /// at the same time are never told the same number.
    fn current_cpu(&self) -> usize;

    /// Interrupts another CPU: ends its sleep, or its stay in user mode.
    fn kick(&self, cpu: usize);

    /// Sleeps until an interrupt. First turns interrupts off and asks `nothing_to_do`; if that is so, turns them on and halts,
    /// as one pair of instructions; else turns them on again. Returns with interrupts on.
    fn idle(&self, nothing_to_do: &dyn Fn() -> bool);

    /// Sets this CPU's one alarm to a point in time, in place of the former one; one in the past rings at once. Its interrupt
    /// handler calls [`Executor::alarm`].
    fn set_alarm(&self, at: Option<Instant>);
}

/// Runs tasks on the CPUs of a machine. A copyable handle; what it stands for is made once and never goes away.
pub struct Executor<M: Machine>(&'static Shared<M>);

impl<M: Machine> Clone for Executor<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Executor<M> {}

struct Shared<M> {
    machine: M,
    cpus: Box<[Cpu]>,
    /// The CPUs that sleep, a bit each: a hint for wakes and spawns.
    idle: [AtomicU64; MAX_CPUS / 64],
    task_count: AtomicUsize,
    tasks: Registry,
}

/// What a CPU has done since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuStatistics {
    /// Polls of tasks.
    pub polls: u64,
    /// Polls of more than a millisecond, those aside in which the task was in user mode.
    pub long_polls: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// Kicks (inter-processor interrupts) that it sent.
    pub kicks: u64,
    /// How often it set its alarm.
    pub alarms: u64,
    /// Tasks that it took from other CPUs.
    pub stolen: u64,
    /// Tasks that wait for it at this moment.
    pub waiting: usize,
}

impl<M: Machine> Executor<M> {
    /// An executor for a machine of `cpus` CPUs. It is never freed.
    ///
    /// # Panics
    /// If `cpus` is 0, or more than [`MAX_CPUS`].
    pub fn new(machine: M, cpus: usize) -> Self {
        Self::build(machine, cpus, None)
    }

    /// For tests: an executor on which tasks go in an order drawn from `seed`, drivers and users alike.
    pub fn shuffled(machine: M, cpus: usize, seed: NonZeroU64) -> Self {
        Self::build(machine, cpus, Some(seed))
    }

    fn build(machine: M, cpus: usize, seed: Option<NonZeroU64>) -> Self {
        assert!((1..=MAX_CPUS).contains(&cpus), "a machine has between 1 and {MAX_CPUS} CPUs");
        let cpus: Vec<Cpu> = (0..cpus).map(|_| Cpu::new(cpus, seed)).collect();
        Self(Box::leak(Box::new(Shared {
            machine,
            cpus: cpus.into_boxed_slice(),
            idle: [const { AtomicU64::new(0) }; MAX_CPUS / 64],
            task_count: AtomicUsize::new(0),
            tasks: Registry::new(),
        })))
    }

    /// The machine.
    pub fn machine(self) -> &'static M {
        &self.0.machine
    }

    /// Runs `future` as a task.
    ///
    /// # Panics
    /// If there is no memory for it; see [`Executor::try_spawn`] for what user space can cause.
    pub fn spawn(self, class: Class, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
        self.try_spawn(class, name, future).expect("the kernel's own tasks are spawned while there is memory")
    }

    /// Runs `future` as a task.
    ///
    /// # Errors
    /// There is no memory for it; the future comes back.
    pub fn try_spawn<F>(self, class: Class, name: &'static str, future: F) -> Result<TaskRef, SpawnError<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = self.0;
        let cpu = shared.machine.current_cpu();
        let new = NewTask { name, class, cpu, virtual_runtime: shared.cpus[cpu].inbox.floor() };
        let (task, runnable) = task::spawn(shared, &new, future)?;
        shared.task_count.fetch_add(1, Ordering::Relaxed);
        shared.tasks.enter(&task);
        shared.queue(runnable, Origin::Spawn);
        Ok(task)
    }

    /// Runs `future` as a task whose result can be awaited.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn spawn_with_result<F>(self, class: Class, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (slot, wrapped) = join_slot(future);
        JoinHandle::new(slot, self.spawn(class, name, wrapped))
    }

    /// Runs tasks on this CPU, for ever.
    pub fn run(self, cpu: usize) -> ! {
        loop {
            self.run_until(cpu, || false);
        }
    }

    /// Runs tasks on this CPU until `is_over`, which is asked before each turn; whoever makes it so kicks the CPU.
    pub fn run_until(self, cpu: usize, is_over: impl Fn() -> bool) {
        let _driver = Driver::new(self.0, cpu);
        while !is_over() {
            if !self.0.turn(cpu) {
                self.0.sleep(cpu);
            }
        }
    }

    /// Runs tasks on this CPU until all of them wait. Timers that are due are fired.
    pub fn run_until_idle(self) {
        let cpu = self.0.machine.current_cpu();
        let _driver = Driver::new(self.0, cpu);
        while self.0.turn(cpu) {}
    }

    /// Polls one task of this CPU, if one is there. Says whether it was. For tests that look between two polls.
    pub fn run_one(self) -> bool {
        let cpu = self.0.machine.current_cpu();
        let _driver = Driver::new(self.0, cpu);
        self.0.turn(cpu)
    }

    /// The task that this CPU is polling.
    #[must_use]
    pub fn current(self) -> Option<TaskRef> {
        self.0.here().current.with(TaskRef::clone)
    }

    /// Shows all tasks to `look`, oldest first. Tasks that come or go meanwhile may be shown, or not.
    pub fn for_each_task(self, look: impl FnMut(&TaskRef)) {
        self.0.tasks.for_each(look);
    }

    /// How many tasks exist, the finished ones to which somebody holds a reference included.
    #[must_use]
    pub fn task_count(self) -> usize {
        self.0.task_count.load(Ordering::Relaxed)
    }

    /// What `cpu` has done.
    ///
    /// # Panics
    /// If there is no such CPU.
    #[must_use]
    pub fn statistics(self, cpu: usize) -> CpuStatistics {
        let cpu = &self.0.cpus[cpu];
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CpuStatistics {
            polls: read(&cpu.count.polls),
            long_polls: read(&cpu.count.long_polls),
            sleeps: read(&cpu.count.sleeps),
            kicks: read(&cpu.count.kicks),
            alarms: read(&cpu.count.alarms),
            stolen: read(&cpu.count.stolen),
            waiting: cpu.inbox.waiting(),
        }
    }

    /// The clock and the timers, as a handle that does not know the machine.
    #[must_use]
    pub fn timers(self) -> TimerHandle {
        TimerHandle(self.0)
    }

    /// The time.
    #[must_use]
    pub fn now(self) -> Instant {
        self.0.machine.now()
    }

    /// Waits until `deadline`.
    #[track_caller]
    pub fn sleep_until(self, deadline: Instant) -> Sleep {
        self.timers().sleep_until(deadline)
    }

    /// Runs `future`, but only until `deadline`.
    #[track_caller]
    pub fn timeout_at<F: Future>(self, deadline: Instant, future: F) -> Timeout<F> {
        self.timers().timeout_at(deadline, future)
    }

    /// The alarm of this CPU rang. For its interrupt handler, and for nobody else.
    pub fn alarm(self) {
        // Release: pairs with the Acquire in `Cpu::has_nothing_to_do`. The timers themselves are looked at between two polls.
        self.0.here().alarm_due.store(true, Ordering::Release);
    }

    /// Runs user code, on behalf of the task that this CPU is polling: publishes that the CPU is in user mode while `visit` runs,
    /// and lets it ask whether it must come back. `visit` stays on this CPU.
    ///
    /// ```
    /// # use executor::{Executor, Machine};
    /// # struct Context; enum Trap { Kick }
    /// # fn arch_enter_user(context: &mut Context, leave: impl Fn() -> bool) -> Trap { Trap::Kick }
    /// # fn example(executor: Executor<impl Machine>, context: &mut Context) -> Trap {
    /// executor.in_user_mode(|visit| arch_enter_user(context, || visit.must_end()))
    /// # }
    /// ```
    #[inline]
    pub fn in_user_mode<R>(self, visit: impl FnOnce(&UserVisit<'_>) -> R) -> R {
        let shared = self.0;
        let cpu = shared.here();
        shared.enter_user(cpu);
        let result = visit(&UserVisit(cpu));
        cpu.status.publish(Mode::Kernel);
        result
    }

    /// The task that this CPU is polling is about to enter user mode. After this, and with interrupts off, it asks
    /// [`Executor::should_leave_user`] before it goes. [`Executor::in_user_mode`] does this and the next in one.
    pub fn enter_user(self) {
        self.0.enter_user(self.0.here());
    }

    /// The task that this CPU is polling has come back from user mode.
    pub fn exit_user(self) {
        self.0.here().status.publish(Mode::Kernel);
    }

    /// Whether the task that this CPU is polling must not enter, or stay in, user mode: it was woken (a signal, for example), the
    /// alarm rang, or another task is to have the CPU. Asked with interrupts off right before user mode is entered, and at the end
    /// of each interrupt that came from user mode.
    #[must_use]
    pub fn should_leave_user(self) -> bool {
        UserVisit(self.0.here()).must_end()
    }

    /// What a thread does when it was told to leave user mode: takes note of its being woken, so that it may go back once it has
    /// looked for the reason. True if it is to [`yield_now`](crate::yield_now) as well, because the CPU is wanted.
    #[must_use = "if the CPU is wanted, user mode cannot be entered before the task has yielded"]
    pub fn acknowledge_kick(self) -> bool {
        let cpu = self.0.here();
        cpu.current.with(TaskRef::clear_notified);
        cpu.reschedule.load(Ordering::Relaxed) || cpu.alarm_due.load(Ordering::Relaxed)
    }
}

/// A stay in user mode: see [`Executor::in_user_mode`].
pub struct UserVisit<'a>(&'a Cpu);

impl UserVisit<'_> {
    /// Whether the task must not enter, or stay in, user mode: see [`Executor::should_leave_user`].
    #[inline]
    #[must_use]
    pub fn must_end(&self) -> bool {
        let cpu = self.0;
        cpu.reschedule.load(Ordering::Relaxed)
            || cpu.alarm_due.load(Ordering::Relaxed)
            || cpu.current.with(TaskRef::is_notified).unwrap_or(false)
    }
}

impl fmt::Debug for UserVisit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserVisit")
    }
}

/// Keeps a second loop from driving the same CPU.
struct Driver<'a>(&'a Cpu);

impl<'a> Driver<'a> {
    fn new<M: Machine>(shared: &'a Shared<M>, cpu: usize) -> Self {
        let cpu = &shared.cpus[cpu];
        let was_driven = cpu.is_driven.swap(true, Ordering::Acquire);
        assert!(!was_driven, "a CPU is driven by one loop, and not from within a task");
        cpu.stamp.store(0, Ordering::Relaxed);
        Self(cpu)
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.0.is_driven.store(false, Ordering::Release);
    }
}

impl<M: Machine> Shared<M> {
    fn here(&self) -> &Cpu {
        &self.cpus[self.machine.current_cpu()]
    }

    /// One round of the loop. False if there was nothing to poll.
    fn turn(&self, index: usize) -> bool {
        let cpu = &self.cpus[index];
        self.free_dead(cpu);
        if cpu.alarm_due.load(Ordering::Relaxed) {
            self.fire_timers(cpu);
        }
        if cpu.reschedule.load(Ordering::Relaxed) {
            // SeqCst, and a read-modify-write: taken back before looking, so that a request that comes later stays.
            cpu.reschedule.swap(false, Ordering::SeqCst);
        }
        let Some(chosen) = self.choose(cpu).or_else(|| self.steal(index)) else {
            cpu.stamp.store(0, Ordering::Relaxed);
            // A deadline may have passed while the alarm is still on its way.
            return self.fire_timers(cpu) || !cpu.has_nothing_to_do();
        };
        self.poll(index, chosen);
        true
    }

    /// See [`Executor::enter_user`].
    #[inline]
    fn enter_user(&self, cpu: &Cpu) {
        assert_no_lock_held();
        cpu.was_in_user_mode.store(true, Ordering::Relaxed);
        cpu.status.publish(Mode::User);
        // Somebody waits: the task has a slice only. (Whoever begins to wait after this sees `User`, and kicks.)
        if cpu.has_waiting() && cpu.slice_end.load(Ordering::Relaxed) == u64::MAX {
            self.begin_slice(cpu, self.machine.now());
        }
    }

    fn free_dead(&self, cpu: &Cpu) {
        for dead in cpu.dead.take_all() {
            self.free(dead);
        }
    }

    fn free(&self, dead: Dead) {
        self.tasks.leave(&dead);
        dead.reap();
        self.task_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes whom the time has come for, and sets the alarm for the next. Says whether somebody was woken.
    fn fire_timers(&self, cpu: &Cpu) -> bool {
        // Acquire: pairs with the Release of whoever asked for this. Taken back before looking, so that no ring is missed.
        let has_rung = cpu.alarm_due.swap(false, Ordering::Acquire);
        if has_rung {
            cpu.armed.store(u64::MAX, Ordering::Relaxed);
        }
        let Some(first) = cpu.timers.lock().first_key() else { return false };
        let now = self.machine.now();
        let is_due = first <= now.as_nanos();
        let first = if is_due { fire(&cpu.timers, now) } else { Some(Instant::from_nanos(first)) };
        match first {
            // More are due than one turn wakes: drivers go first, then the rest.
            Some(first) if first <= now => cpu.alarm_due.store(true, Ordering::Relaxed),
            Some(first) => self.arm(cpu, first),
            None => {}
        }
        is_due
    }

    /// Sets this CPU's alarm to `at`, unless it rings earlier anyway.
    fn arm(&self, cpu: &Cpu, at: Instant) {
        // Relaxed: only this CPU, and never an interrupt handler, touches it.
        if at.as_nanos() < cpu.armed.load(Ordering::Relaxed) {
            cpu.armed.store(at.as_nanos(), Ordering::Relaxed);
            count(&cpu.count.alarms);
            self.machine.set_alarm(Some(at));
        }
    }

    /// The task being polled on this CPU has a slice from `now` on.
    fn begin_slice(&self, cpu: &Cpu, now: Instant) {
        let end = now + Duration::from_nanos(GRANULARITY);
        cpu.slice_end.store(end.as_nanos(), Ordering::Relaxed);
        self.arm(cpu, end);
    }

    fn choose(&self, cpu: &Cpu) -> Option<Chosen> {
        if !cpu.has_waiting() {
            return None;
        }
        cpu.queue().pop(|| self.machine.now().as_nanos())
    }

    /// Takes half of the tasks of some CPU that has more than one, and returns the one to begin with.
    fn steal(&self, thief: usize) -> Option<Chosen> {
        let count = self.cpus.len();
        (1..count).map(|step| (thief + step) % count).find_map(|victim| self.steal_from(victim, thief))
    }

    fn steal_from(&self, victim: usize, thief: usize) -> Option<Chosen> {
        let (victim, thief) = (&self.cpus[victim], &self.cpus[thief]);
        if !victim.has_waiting() {
            return None;
        }
        // Of a CPU that is asleep nothing is taken: it has been kicked, and the task is warm there.
        if victim.status.peek() == Mode::Idle {
            return None;
        }
        let mut theirs = victim.try_queue()?;
        // `try` again: two thieves that rob each other must not wait for each other.
        let mut ours = thief.try_queue()?;
        let taken = theirs.give_half_to(&mut ours);
        drop(theirs);
        let chosen = ours.pop(|| self.machine.now().as_nanos());
        thief.count.stolen.fetch_add(taken as u64, Ordering::Relaxed);
        chosen
    }

    fn poll(&self, index: usize, Chosen { task, is_spared }: Chosen) {
        let cpu = &self.cpus[index];
        // Relaxed, throughout: these are read on this CPU, or are hints.
        cpu.is_spared.store(is_spared, Ordering::Relaxed);
        cpu.was_in_user_mode.store(false, Ordering::Relaxed);
        cpu.slice_end.store(u64::MAX, Ordering::Relaxed);
        task.facts().cpu.store(index, Ordering::Relaxed);
        count(&task.facts().polls);
        count(&cpu.count.polls);

        let begin = match cpu.stamp.load(Ordering::Relaxed) {
            0 => self.machine.now().as_nanos(),
            stamp => stamp,
        };
        if is_spared {
            self.begin_slice(cpu, Instant::from_nanos(begin));
        }
        let outcome = cpu.current.poll(task, |facts| {
            let end = self.machine.now().as_nanos();
            cpu.stamp.store(end, Ordering::Relaxed);
            account(cpu, facts, end.saturating_sub(begin));
        });
        assert_no_lock_held();
        match outcome {
            Outcome::Idle | Outcome::Done(None) => {}
            Outcome::Again(task) => self.queue_again(cpu, task),
            Outcome::Done(Some(dead)) | Outcome::Abandoned(dead) => self.free(dead),
        }
    }

    /// Queues a task that was woken while it ran, behind its like.
    fn queue_again(&self, cpu: &Cpu, task: Runnable) {
        // What came in meanwhile goes first.
        cpu.queue().push(task);
    }

    /// Sleeps until there is something to do.
    fn sleep(&self, index: usize) {
        let cpu = &self.cpus[index];
        let (word, bit) = (&self.idle[index / 64], 1 << (index % 64));
        word.fetch_or(bit, Ordering::Relaxed);
        cpu.status.publish(Mode::Idle);
        count(&cpu.count.sleeps);
        self.machine.idle(&|| cpu.has_nothing_to_do());
        cpu.status.publish(Mode::Kernel);
        word.fetch_and(!bit, Ordering::Relaxed);
    }

    /// Some CPU that sleeps.
    fn some_idle_cpu(&self) -> Option<usize> {
        self.idle.iter().take(self.cpus.len().div_ceil(64)).enumerate().find_map(|(index, word)| {
            let word = word.load(Ordering::Relaxed);
            (word != 0).then(|| index * 64 + word.trailing_zeros() as usize)
        })
    }

    /// The CPU for a task that was woken: the one that had it last, unless that is busy while another one sleeps.
    fn cpu_for(&self, task: &Runnable) -> usize {
        let last = task.facts().cpu.load(Ordering::Relaxed);
        if self.cpus.len() == 1 || self.cpus[last].status.peek() == Mode::Idle {
            return last;
        }
        self.some_idle_cpu().unwrap_or(last)
    }

    /// `cpu` was given something to do: makes sure that it looks.
    fn nudge(&self, index: usize, here: usize, is_driver: bool) {
        let cpu = &self.cpus[index];
        // Before the fence in observe(): if the CPU is in the kernel, it sees this before it enters user mode.
        if is_driver && !cpu.is_spared.load(Ordering::Relaxed) {
            cpu.reschedule.store(true, Ordering::Relaxed);
        }
        match cpu.status.observe() {
            Mode::Kernel => return,
            // Not spared, or its slice is running: if `is_spared` is out of date, so is `User`, and enter_user() begins a slice.
            Mode::User if !cpu.is_spared.load(Ordering::Relaxed) => cpu.reschedule.store(true, Ordering::SeqCst),
            Mode::User | Mode::Idle => {}
        }
        self.kick(index, here);
    }

    /// Interrupts another CPU. On this one we are in an interrupt handler already, at whose end it looks.
    fn kick(&self, index: usize, here: usize) {
        if index != here {
            self.cpus[here].count.kicks.fetch_add(1, Ordering::Relaxed);
            self.machine.kick(index);
        }
    }
}

/// Why a task is to be queued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Spawn,
    Wake,
}

impl<M: Machine> Shared<M> {
    /// Gives a task that stands in no queue to a CPU.
    fn queue(&self, task: Runnable, origin: Origin) {
        let here = self.machine.current_cpu();
        let index = self.cpu_for(&task);
        let cpu = &self.cpus[index];
        let is_driver = task.facts().class() == Class::Driver;
        // Relaxed: the `Runnable` is ours. Whoever polls it says where, too.
        let former = task.facts().cpu.load(Ordering::Relaxed);
        if former != index {
            rescale(&task, self.cpus[former].inbox.floor(), cpu.inbox.floor());
        }
        match if index == here { cpu.try_queue_to_push() } else { None } {
            Some(mut queue) => {
                // Woken by the task that runs here: its data is warm, it may go next.
                if origin == Origin::Wake && cpu.current.with(|_| ()).is_some() {
                    queue.push_next(task);
                } else {
                    queue.push(task);
                }
            }
            None => cpu.inbox.push(task),
        }
        self.nudge(index, here, is_driver);
    }
}

impl<M: Machine> Schedule for Shared<M> {
    fn schedule(&self, task: Runnable) {
        self.queue(task, Origin::Wake);
    }

    fn interrupt(&self, cpu: usize) {
        let here = self.machine.current_cpu();
        // On its own CPU it was woken by itself, or by an interrupt handler, at whose end it is asked whether to stay.
        if cpu != here && self.cpus[cpu].status.observe() == Mode::User {
            self.kick(cpu, here);
        }
    }

    fn retire(&self, task: Dead) {
        self.here().dead.push(task);
    }
}

impl<M: Machine> Clock for Shared<M> {
    fn now(&self) -> Instant {
        self.machine.now()
    }

    fn here(&self) -> usize {
        self.machine.current_cpu()
    }

    fn timers(&'static self, cpu: usize) -> &'static Home<Heap, Timer> {
        &self.cpus[cpu].timers
    }

    fn earliest_is(&self, index: usize, deadline: Instant) {
        let here = self.machine.current_cpu();
        let cpu = &self.cpus[index];
        if index == here {
            return self.arm(cpu, deadline);
        }
        // Another CPU's alarm is its own to set: have it look.
        cpu.alarm_due.store(true, Ordering::Release);
        if cpu.status.observe() != Mode::Kernel {
            self.kick(index, here);
        }
    }
}

/// Puts the time of a poll, in nanoseconds, down to its task, and takes note if it was long.
#[inline]
fn account(cpu: &Cpu, facts: &task::Facts, took: u64) {
    // Relaxed: only the CPU that polls a task writes these.
    let add =
        |sum: &AtomicU64, term: u64| sum.store(sum.load(Ordering::Relaxed).saturating_add(term), Ordering::Relaxed);
    add(&facts.run_time, took);
    match facts.class() {
        Class::Driver => {}
        Class::User { weight: 1024 } => add(&facts.virtual_runtime, took),
        Class::User { weight } => add(&facts.virtual_runtime, took.saturating_mul(1024) / u64::from(weight)),
    }
    if took > LONG_POLL && !cpu.was_in_user_mode.load(Ordering::Relaxed) {
        report_long_poll(cpu, facts, took);
    }
}

#[cold]
fn report_long_poll(cpu: &Cpu, facts: &task::Facts, took: u64) {
    count(&cpu.count.long_polls);
    let so_far = cpu.count.long_polls.load(Ordering::Relaxed);
    // Every one would drown the log; that they happen, and how often, is what matters.
    if so_far.is_power_of_two() {
        let took = Duration::from_nanos(took);
        log::warn!("a poll of {} (task {}) took {took:?}; {so_far} long polls on this CPU", facts.name(), facts.id());
    }
}

/// Counts one, in a counter that only this CPU writes.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Lets the other tasks of this CPU go first, once.
///
/// # Cancel safety
/// Nothing is lost.
pub fn yield_now() -> impl Future<Output = ()> + Send + Sync {
    let mut has_yielded = false;
    core::future::poll_fn(move |context| {
        if core::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}
