//! A CPU's loop: one turn of it, and the sleep between turns.
//!
//! ```text
//!  turn() ─► free dead cells ─► fire timers, if the alarm rang ─► choose() ─► poll() ─► account() ─┐
//!    ▲         │ nothing to poll                                                                   │
//!    │         ▼                                                                                   │
//!    │       steal() ─ nothing ─► sleep(): publish Idle, look again, Machine::idle                 │
//!    └─────────┴───────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A task that was woken while it ran is kept in hand (`again`) until the next task is chosen: if nobody else waits, it is that, and
//! no queue is touched; else it is queued and the next taken out in one.
//!
//! Tasks are polled with interrupts on. Everything here belongs to the CPU that runs it; what comes from elsewhere comes through
//! its inbox, its flags, and kicks. next: wake.rs.

use core::{panic::Location, time::Duration};

use super::{Shared, wake::Origin};
use crate::{
    atomic::{Ordering, spin_loop},
    cause::Cause,
    cpu::{Cpu, Demands, Mode},
    machine::{LongPoll, Machine, TraceEvent},
    run_queue::{Chosen, GRANULARITY, REAL_TIME_LOOK, REAL_TIME_TURN, SPREAD_AFTER},
    sync::assert_no_lock_held,
    task::{Class, Dead, Facts, Outcome, Runnable, TaskRef},
    time::{Instant, fire},
};

/// A poll that takes longer than this, in nanoseconds, is counted and warned of.
const LONG_POLL: u64 = 1_000_000;
/// After so many nanoseconds a CPU with one task more than another gives one away.
const ROTATION: u64 = 100_000_000;
/// So many nanoseconds at least lie between two reports of long polls on one CPU.
const BETWEEN_REPORTS: u64 = 1_000_000_000;

/// Where a task waits, if it was seen to.
type Place = Option<&'static Location<'static>>;

impl<M: Machine> Shared<M> {
    /// One round of the loop. False if there was nothing to poll. `again` is the task in hand, before and after.
    pub(super) fn turn(&self, index: usize, again: &mut Option<Runnable>) -> bool {
        let cpu = &self.cpus[index];
        self.free_dead(cpu);
        if cpu.demands.has(Demands::ALARM) {
            self.fire_timers(cpu);
        }
        // Taken back before looking, so that a request that comes later stays.
        cpu.demands.take(Demands::RESCHEDULE);
        let mut was_in_use = false;
        let Some(chosen) = self.choose(index, again.take()).or_else(|| self.steal(index, &mut was_in_use)) else {
            cpu.stamp.store(0, Ordering::Relaxed);
            if was_in_use {
                spin_loop();
            }
            // A deadline may have passed while the alarm is still on its way; and a queue that could not be looked at may hold something.
            return self.fire_timers(cpu) || !cpu.has_nothing_to_do() || was_in_use;
        };
        *again = self.poll(index, chosen);
        true
    }

    fn free_dead(&self, cpu: &Cpu) {
        for dead in cpu.dead.take_all() {
            self.free(dead);
        }
    }

    fn free(&self, dead: Dead) {
        self.tasks.leave(&dead);
        dead.reap();
    }

    /// Wakes whom the time has come for, and sets the alarm for the next. Says whether somebody was woken.
    fn fire_timers(&self, cpu: &Cpu) -> bool {
        // Taken back before looking, so that no ring is missed.
        let has_rung = cpu.demands.take(Demands::ALARM);
        if has_rung {
            cpu.armed.store(u64::MAX, Ordering::Relaxed);
        }
        let Some(first) = cpu.timers.lock().first_key() else { return false };
        let now = self.machine.now();
        let is_due = first <= now.as_nanos();
        let first = if is_due { self.fire(cpu, now) } else { Some(Instant::from_nanos(first)) };
        match first {
            // More are due than one turn wakes: drivers go first, then the rest.
            Some(first) if first <= now => cpu.demands.set(Demands::ALARM),
            Some(first) => self.arm(cpu, first),
            None => {}
        }
        is_due
    }

    /// Wakes those whose deadline has come, as the timers' doing.
    fn fire(&self, cpu: &Cpu, now: Instant) -> Option<Instant> {
        cpu.cause.set(Cause::Timer.encode());
        self.trace(|| TraceEvent::TimersFire);
        let first = fire(&cpu.timers, now);
        self.trace(|| TraceEvent::TimersFired);
        first
    }

    /// Sets this CPU's alarm to `at`, unless it rings earlier anyway.
    pub(super) fn arm(&self, cpu: &Cpu, at: Instant) {
        // Relaxed: only this CPU, and never an interrupt handler, touches it.
        if at.as_nanos() < cpu.armed.load(Ordering::Relaxed) {
            cpu.armed.store(at.as_nanos(), Ordering::Relaxed);
            cpu.count.alarms.add(1);
            self.machine.set_alarm(Some(at));
        }
    }

    /// The task being polled on this CPU has a slice from `now` on; a short one if another CPU could take over who waits.
    pub(super) fn begin_slice(&self, cpu: &Cpu, now: Instant) {
        // A driver task has none, and leaves its rank to a user task that is spared.
        let is_real_time = (Class::SHARING + 1..Class::DRIVING).contains(&cpu.rank.load(Ordering::Relaxed));
        let length = match () {
            () if is_real_time => real_time_slice(cpu),
            () if self.has_idle_cpu() => SPREAD_AFTER,
            () => GRANULARITY,
        };
        let end = now + Duration::from_nanos(length);
        cpu.slice_end.store(end.as_nanos(), Ordering::Relaxed);
        self.arm(cpu, end);
    }

    fn choose(&self, index: usize, mut again: Option<Runnable>) -> Option<Chosen> {
        let cpu = &self.cpus[index];
        loop {
            let chosen = if cpu.inbox.has_waiting() || again.is_some() && !cpu.next.is_empty() {
                let mut queue = cpu.queue();
                // What came in meanwhile goes first.
                if let Some(task) = again.take() {
                    queue.push(task);
                }
                queue.pop(&cpu.next, || self.machine.now().as_nanos())?
            } else {
                Chosen { task: cpu.alone(again.take())?, is_spared: false }
            };
            if chosen.task.facts().allows(index) {
                return Some(chosen);
            }
            // It came here before it was said where it may run.
            self.queue(chosen.task, Origin::Move);
        }
    }

    /// Takes half of the tasks of some CPU that has more than it can run, and returns the one to begin with. `was_in_use`: some CPU's queue
    /// could not be looked at.
    fn steal(&self, thief: usize, was_in_use: &mut bool) -> Option<Chosen> {
        let count = self.cpus.len();
        let victims = (1..count).map(|step| (thief + step) % count);
        victims.into_iter().find_map(|victim| self.steal_from(victim, thief, was_in_use))
    }

    fn steal_from(&self, victim: usize, index: usize, was_in_use: &mut bool) -> Option<Chosen> {
        let (victim, thief) = (&self.cpus[victim], &self.cpus[index]);
        // Not the one that goes next there.
        if !victim.inbox.has_waiting() {
            return None;
        }
        // Of a CPU that is asleep nothing is taken: it has been kicked, and the task is warm there.
        if victim.status.peek() == Mode::Idle {
            return None;
        }
        let Some(mut theirs) = victim.try_queue() else {
            *was_in_use = true;
            return None;
        };
        // `try` again: two thieves that rob each other must not wait for each other.
        let Some(mut ours) = thief.try_queue() else {
            *was_in_use = true;
            return None;
        };
        // A CPU that is polling can spare its only waiting task, too.
        let others = usize::from(victim.current.is_busy()) + usize::from(!victim.next.is_empty());
        let spared = theirs.length().saturating_add(others) / 2;
        let taken = theirs.give_to(&mut ours, spared, |task| task.facts().allows(index));
        drop(theirs);
        let chosen = ours.pop(&thief.next, || self.machine.now().as_nanos());
        drop(ours);
        thief.count.stolen.add(taken as u64);
        let chosen = chosen?;
        if !chosen.task.facts().allows(index) {
            self.queue(chosen.task, Origin::Move);
            return None;
        }
        Some(chosen)
    }

    /// Polls a task. Returns it if it is to be kept in hand, to be polled again.
    fn poll(&self, index: usize, Chosen { task, is_spared }: Chosen) -> Option<Runnable> {
        let cpu = &self.cpus[index];
        // Relaxed, throughout: these are read on this CPU, or are hints.
        cpu.is_spared.store(is_spared, Ordering::Relaxed);
        cpu.slice_end.store(u64::MAX, Ordering::Relaxed);
        let facts = task.facts();
        cpu.rank.store(facts.class().rank(), Ordering::Relaxed);
        facts.cpu.store(index, Ordering::Relaxed);
        facts.polls.add(1);
        cpu.count.polls.add(1);
        let id = facts.id();
        cpu.cause.set(id);
        let resumed_at = facts.waits_at();
        self.trace(move || TraceEvent::PollBegins { task: id });

        // Nobody says again that he waits.
        cpu.take_company();
        if cpu.has_waiting() {
            cpu.company.store(true, Ordering::Relaxed);
        }

        let begin = match cpu.stamp.load(Ordering::Relaxed) {
            0 => {
                let now = self.machine.now().as_nanos();
                cpu.stamp.store(now, Ordering::Relaxed);
                now
            }
            stamp => stamp,
        };
        if is_spared {
            self.begin_slice(cpu, Instant::from_nanos(begin));
        }
        let outcome = cpu.current.poll(task, |facts, is_ready| {
            let end = self.machine.now().as_nanos();
            cpu.stamp.store(end, Ordering::Relaxed);
            facts.idle_since.set(end);
            let took = end.saturating_sub(begin);
            account(cpu, facts, took);
            let of_the_kernel = took.saturating_sub(self.take_user_time(cpu));
            facts.note_poll(of_the_kernel);
            if of_the_kernel > LONG_POLL {
                self.report_long_poll(cpu, facts, resumed_at, of_the_kernel, end);
            }
            self.trace(move || TraceEvent::PollEnds { task: facts.id(), is_ready, waits_at: facts.waits_at() });
        });
        assert_no_lock_held();
        match outcome {
            Outcome::Idle | Outcome::Done(None) => None,
            Outcome::Again(task) => self.queue_again(index, task),
            Outcome::Done(Some(dead)) | Outcome::Abandoned(dead) => {
                self.free(dead);
                None
            }
        }
    }

    /// A task was woken while it ran: queues it behind its like, or returns it, to be kept in hand.
    fn queue_again(&self, index: usize, task: Runnable) -> Option<Runnable> {
        if self.is_traced() {
            self.machine.trace(&TraceEvent::Requeued { task: task.facts().id() });
        }
        if !task.facts().allows(index) {
            self.queue(task, Origin::Move);
            return None;
        }
        let cpu = &self.cpus[index];
        let now = cpu.stamp.load(Ordering::Relaxed);
        let is_slice_over = now >= cpu.slice_end.load(Ordering::Relaxed);
        let class = task.facts().class();
        if is_slice_over
            && class.weight().is_some()
            && let Some(other) = self.less_busy(index, task.facts(), now)
        {
            self.queue_on(other, index, task);
            return None;
        }
        let keeps_its_place = match class {
            Class::RealTime { takes_turns, .. } => {
                cpu.demands.has(Demands::RESCHEDULE) || is_slice_over && !takes_turns
            }
            _ => false,
        };
        if !keeps_its_place && !self.has_idle_cpu() {
            return Some(task);
        }
        let mut queue = cpu.queue();
        // What came in meanwhile goes first.
        if keeps_its_place {
            queue.push_interrupted(task);
        } else {
            queue.push(task);
        }
        let has_more_than_one = queue.length() > 1 || !cpu.next.is_empty();
        drop(queue);
        if has_more_than_one && let Some(idle) = self.take_idle_cpu(|_| true) {
            // It finds nothing in its own queue, and comes for ours.
            self.kick(idle, index);
        }
        None
    }

    /// A CPU on which a task whose slice on CPU `index` is over has fewer to compete with. If it is one fewer only, nothing is won by
    /// moving, but three tasks on two CPUs are to have the same time in the end: now and then it is answered, too.
    fn less_busy(&self, index: usize, facts: &Facts, now: u64) -> Option<usize> {
        let cpu = &self.cpus[index];
        let tasks = |cpu: &Cpu| cpu.waiting() + usize::from(cpu.current.is_busy());
        let here = cpu.waiting() + 1;
        if here < 2 || self.cpus.len() < 2 {
            return None;
        }
        let others = (1..self.cpus.len()).map(|step| (index + step) % self.cpus.len());
        let other = others.filter(|&other| facts.allows(other)).min_by_key(|&other| tasks(&self.cpus[other]))?;
        match here.saturating_sub(tasks(&self.cpus[other])) {
            0 => None,
            1 => {
                let is_time = now.saturating_sub(cpu.rotated.load(Ordering::Relaxed)) >= ROTATION;
                is_time.then(|| cpu.rotated.store(now, Ordering::Relaxed))?;
                Some(other)
            }
            _ => Some(other),
        }
    }

    /// For how many nanoseconds this CPU was in user mode since this was last asked, which is during one poll.
    #[inline]
    fn take_user_time(&self, cpu: &Cpu) -> u64 {
        let all = self.machine.user_time();
        let before = cpu.user_time.get();
        cpu.user_time.set(all);
        all.wrapping_sub(before)
    }

    /// Counts a poll that took too long, and has the machine tell of it, but seldom: that they happen, and how often, is what matters.
    #[cold]
    fn report_long_poll(&self, cpu: &Cpu, facts: &Facts, resumed_at: Place, took: u64, now: u64) {
        cpu.count.long_polls.add(1);
        let told = cpu.long_poll_told.get();
        if told != 0 && now.saturating_sub(told) < BETWEEN_REPORTS {
            return;
        }
        cpu.long_poll_told.set(now.max(1));
        self.machine.long_poll(&LongPoll {
            task: facts.id(),
            name: facts.name(),
            took: Duration::from_nanos(took),
            resumed_at,
            waits_at: facts.waits_at(),
            so_far: cpu.count.long_polls.get(),
        });
    }

    /// Sleeps until there is something to do.
    pub(super) fn sleep(&self, index: usize) {
        let cpu = &self.cpus[index];
        let (word, bit) = (&self.idle[index / 64], 1 << (index % 64));
        word.fetch_or(bit, Ordering::Relaxed);
        cpu.status.publish(Mode::Idle);
        cpu.count.sleeps.add(1);
        let began = self.machine.now();
        // Whoever takes our bit back kicks us, but has perhaps nothing for our own queue: then we look at those of others once more. SeqCst:
        // with the bit gone before this look we do not sleep, and a kick that comes after it ends the sleep.
        self.machine.idle(&|| cpu.has_nothing_to_do() && word.load(Ordering::SeqCst) & bit != 0);
        cpu.status.publish(Mode::Kernel);
        cpu.count.idle_time.add(self.machine.now().saturating_duration_since(began).as_nanos() as u64);
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Puts the time of a poll, in nanoseconds, down to its task.
#[inline]
fn account(cpu: &Cpu, facts: &Facts, took: u64) {
    facts.run_time.add(took);
    match facts.class() {
        Class::Driver => {}
        Class::RealTime { .. } => cpu.queue().charge_real_time(took),
        Class::User { weight } | Class::Batch { weight } => {
            let sum = &facts.virtual_runtime;
            // Relaxed: only the CPU that polls a task writes this.
            let time = sum.load(Ordering::Relaxed).saturating_add(virtual_time(took, weight));
            sum.store(time, Ordering::Relaxed);
        }
    }
}

/// For how many nanoseconds a real-time task runs before it is looked who goes next.
#[cold]
fn real_time_slice(cpu: &Cpu) -> u64 {
    match cpu.current.with(TaskRef::class) {
        Some(Class::RealTime { takes_turns: true, .. }) => REAL_TIME_TURN.as_nanos() as u64,
        _ => REAL_TIME_LOOK,
    }
}

/// The virtual time that goes with a time, in nanoseconds.
#[inline]
fn virtual_time(time: u64, weight: u32) -> u64 {
    if weight == 1024 { time } else { time.saturating_mul(1024) / u64::from(weight.max(1)) }
}

/// Keeps a second loop from driving the same CPU, and the task that this one has in hand.
pub(super) struct Driver<'a> {
    cpu: &'a Cpu,
    /// A task to be polled again, unless another one goes first.
    pub(super) again: Option<Runnable>,
}

impl<'a> Driver<'a> {
    pub(super) fn new<M: Machine>(shared: &'a Shared<M>, cpu: usize) -> Self {
        let cpu = &shared.cpus[cpu];
        let was_driven = cpu.is_driven.swap(true, Ordering::Acquire);
        assert!(!was_driven, "a CPU is driven by one loop, and not from within a task");
        cpu.stamp.store(0, Ordering::Relaxed);
        Self { cpu, again: None }
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.again.take() {
            self.cpu.queue().push(task);
        }
        self.cpu.is_driven.store(false, Ordering::Release);
    }
}
