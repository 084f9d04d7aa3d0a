//! What becomes of a task that is woken: which CPU gets it, and whether that CPU is kicked.
//!
//! All of this may run in an interrupt handler: it takes no lock that it would have to wait for, and no memory. Which CPU is in
//! what mode, and why looking at it after the push is safe, is told in cpu.rs. next: user_mode.rs.

use super::Shared;
use crate::{
    atomic::Ordering,
    cause::Cause,
    cpu::{Cpu, Demands, Mode},
    list::{Home, Wheel},
    machine::{Machine, TraceEvent},
    run_queue::{INTERRUPTION, rescale},
    task::{Class, Dead, Facts, Runnable, Schedule, TaskRef},
    time::{Clock, Instant, Timer},
};

/// Why a task is to be queued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Spawn,
    Wake,
    /// It may not run where it was.
    Move,
}

impl<M: Machine> Shared<M> {
    /// Gives a task that stands in no queue to a CPU.
    pub(super) fn queue(&self, task: Runnable, origin: Origin) {
        let here = self.machine.current_cpu();
        let index = self.cpu_for(&task, origin, here);
        let cpu = &self.cpus[index];
        let rank = task.facts().class().rank();
        self.come_to(index, &task);
        if origin == Origin::Wake {
            task.facts().wakes.add(1);
            task.facts().woken_by.set(self.cpus[here].cause.get());
        }
        if self.is_traced() {
            self.trace_queued(task.facts(), origin, here, index);
        }
        if index == here {
            self.push_here(cpu, task, origin);
            self.nudge_here(cpu, rank);
        } else {
            cpu.inbox.push(task);
            self.nudge(index, here, rank);
        }
    }

    /// Queues a task on this CPU.
    fn push_here(&self, cpu: &Cpu, task: Runnable, origin: Origin) {
        // Relaxed: read on the CPU that writes it, or a hint.
        let time_of = |task: &TaskRef| task.facts().virtual_runtime.load(Ordering::Relaxed);
        let current = if origin == Origin::Wake { cpu.current.with(time_of) } else { None };
        // Woken by the task that runs here: its data is warm, it may go next.
        let pushed = if current.is_some() && Cause::is_task(cpu.cause.get()) { cpu.push_next(task) } else { Err(task) };
        let time = match pushed {
            Ok(time) => time,
            Err(task) => match cpu.try_queue_to_push() {
                Some(mut queue) => queue.push(task),
                None => return cpu.inbox.push(task),
            },
        };
        if current.is_some_and(|current| time.saturating_add(INTERRUPTION) < current) {
            cpu.demands.set(Demands::RESCHEDULE);
        }
    }

    /// Gives a task that stands in no queue to another CPU than `here`.
    pub(super) fn queue_on(&self, index: usize, here: usize, task: Runnable) {
        let rank = task.facts().class().rank();
        self.come_to(index, &task);
        if self.is_traced() {
            self.trace_queued(task.facts(), Origin::Move, here, index);
        }
        let cpu = &self.cpus[index];
        cpu.inbox.push(task);
        self.nudge(index, here, rank);
    }

    /// A task is about to be queued on a CPU: brings its virtual time to the scale of that.
    fn come_to(&self, index: usize, task: &Runnable) {
        // Relaxed: the `Runnable` is ours. Whoever polls it says where, too.
        let former = task.facts().cpu.load(Ordering::Relaxed);
        if former != index {
            rescale(task, self.cpus[former].inbox.floor(), self.cpus[index].inbox.floor());
        }
    }

    #[cold]
    fn trace_queued(&self, facts: &Facts, origin: Origin, here: usize, cpu: usize) {
        let (task, by) = (facts.id(), Cause::decode(self.cpus[here].cause.get()));
        self.machine.trace(&match origin {
            Origin::Spawn => TraceEvent::Spawned { task, by, cpu, name: facts.name() },
            Origin::Wake => TraceEvent::Woken { task, by, cpu },
            Origin::Move => TraceEvent::Moved { task, cpu },
        });
    }

    /// Whether some CPU sleeps.
    pub(super) fn has_idle_cpu(&self) -> bool {
        self.cpus.len() > 1 && self.idle.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Some CPU that sleeps and that is `wanted`. It is nobody else's choice until it has slept again, so that many who are woken at once
    /// are spread.
    pub(super) fn take_idle_cpu(&self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        for (index, word) in self.idle.iter().enumerate().take(self.cpus.len().div_ceil(64)) {
            let mut left = word.load(Ordering::Relaxed);
            while left != 0 {
                let (cpu, bit) = (index * 64 + left.trailing_zeros() as usize, left & left.wrapping_neg());
                left &= !bit;
                // SeqCst: see sleep().
                if wanted(cpu) && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                    return Some(cpu);
                }
            }
        }
        None
    }

    /// The CPU for a task.
    ///
    /// 1. A user task that another one has woken: here, if nobody else waits here. The waker mostly goes on to wait for it.
    /// 2. The CPU that had it last, if that sleeps; else another one that sleeps.
    /// 3. The CPU that had it last.
    fn cpu_for(&self, task: &Runnable, origin: Origin, here: usize) -> usize {
        let facts = task.facts();
        let last = facts.cpu.load(Ordering::Relaxed);
        if self.cpus.len() == 1 {
            return last;
        }
        if origin == Origin::Wake && facts.allows(here) && self.is_woken_by_its_like(facts, here) {
            return here;
        }
        let may_stay = facts.allows(last);
        if may_stay && self.cpus[last].status.peek() == Mode::Idle {
            return last;
        }
        let rank = facts.class().rank();
        // Behind a real-time task it would wait for long.
        let would_wait = |cpu: usize| {
            let running = self.cpus[cpu].rank.load(Ordering::Relaxed);
            running >= rank && running > Class::SHARING && running < Class::DRIVING
        };
        let stays = || {
            if may_stay && !would_wait(last) {
                return Some(last);
            }
            let mut allowed = (0..self.cpus.len()).filter(|&cpu| facts.allows(cpu));
            let first = allowed.clone().next();
            allowed.find(|&cpu| !would_wait(cpu)).or(may_stay.then_some(last)).or(first)
        };
        self.take_idle_cpu(|cpu| facts.allows(cpu)).or_else(stays).unwrap_or(last)
    }

    fn is_woken_by_its_like(&self, facts: &Facts, here: usize) -> bool {
        let cpu = &self.cpus[here];
        facts.class().weight().is_some()
            && !cpu.has_waiting()
            && cpu.current.with(|current| current.class().weight().is_some()).unwrap_or(false)
    }

    /// This CPU was given a task of this rank: makes sure that it looks. It needs no fence: what a CPU has stored it sees itself, and in user
    /// mode or asleep it is not, but for an interrupt handler, at whose end it looks.
    #[inline]
    fn nudge_here(&self, cpu: &Cpu, rank: u8) {
        cpu.company.store(true, Ordering::Relaxed);
        let outranks = rank > cpu.rank.load(Ordering::Relaxed) || cpu.status.peek() == Mode::User;
        if outranks && !cpu.is_spared.load(Ordering::Relaxed) {
            cpu.demands.set(Demands::RESCHEDULE);
        }
    }

    /// Another CPU was given a task of this rank: makes sure that it looks.
    fn nudge(&self, index: usize, here: usize, rank: u8) {
        let cpu = &self.cpus[index];
        // Before the fence in observe(): if the CPU is in the kernel, it sees these before it enters user mode.
        cpu.demands.set(Demands::COMPANY);
        if rank > cpu.rank.load(Ordering::Relaxed) && !cpu.is_spared.load(Ordering::Relaxed) {
            cpu.demands.set(Demands::RESCHEDULE);
        }
        match cpu.status.observe() {
            Mode::Kernel => return,
            // Not spared, or its slice is running: if `is_spared` is out of date, so is `User`, and must_end() begins a slice.
            Mode::User if !cpu.is_spared.load(Ordering::Relaxed) => cpu.demands.set(Demands::RESCHEDULE),
            Mode::User | Mode::Idle => {}
        }
        self.kick(index, here);
    }

    /// Interrupts another CPU. This one needs it not.
    pub(super) fn kick(&self, index: usize, here: usize) {
        if index != here {
            self.cpus[here].count.kicks.add(1);
            self.machine.kick(index);
        }
    }
}

impl<M: Machine> Schedule for Shared<M> {
    fn schedule(&self, task: Runnable) {
        self.queue(task, Origin::Wake);
    }

    fn interrupt(&self, cpu: usize) {
        let here = self.machine.current_cpu();
        self.trace(move || {
            let by = Cause::decode(self.cpus[here].cause.get());
            TraceEvent::Notified { cpu, by }
        });
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

    fn timers(&'static self, cpu: usize) -> &'static Home<Wheel, Timer> {
        &self.cpus[cpu].timers
    }

    fn earliest_is(&self, index: usize, deadline: Instant) {
        let here = self.machine.current_cpu();
        let cpu = &self.cpus[index];
        if index == here {
            return self.arm(cpu, deadline);
        }
        // Another CPU's alarm is its own to set: have it look.
        cpu.demands.set(Demands::ALARM);
        if cpu.status.observe() != Mode::Kernel {
            self.kick(index, here);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{TaskRef, testing::Bench};

    #[test]
    fn a_wake_that_interrupts_the_use_of_the_queue_goes_through_the_inbox() {
        let bench = Bench::new();
        let tasks: Vec<_> = (0..200).map(|_| bench.spawn(std::future::pending())).collect();
        bench.settle();
        let cpu = &bench.executor().0.cpus[0];
        // As if an interrupt handler ran while this CPU is at its queue: it must neither wait for the lock nor need memory.
        let queue = cpu.queue();
        tasks.iter().for_each(TaskRef::wake);
        assert!(!cpu.inbox.is_empty());
        assert!(!cpu.has_nothing_to_do());
        drop(queue);
        bench.settle();
        assert!(cpu.inbox.is_empty());
        assert!(tasks.iter().all(|task| task.polls() == 2), "more than there are slots, and none is lost");
    }

    #[test]
    fn the_last_reference_may_go_while_the_queue_is_in_use() {
        let bench = Bench::new();
        let waker = bench.spawn(std::future::pending()).waker();
        bench.settle();
        let cpu = &bench.executor().0.cpus[0];
        let queue = cpu.queue();
        drop(waker);
        assert_eq!(bench.executor().task_count(), 1, "it is freed later");
        assert!(!cpu.has_nothing_to_do(), "the CPU does not sleep on it");
        drop(queue);
        bench.settle();
        assert_eq!(bench.executor().task_count(), 0);
    }

    #[test]
    fn a_task_is_shown_with_its_state_and_where_it_waits() {
        let bench = Bench::new();
        let executor = bench.executor();
        let task = bench.spawn(async move { executor.sleep_until(crate::Instant::from_nanos(9)).await });
        bench.settle();
        let shown = format!("{task:?}");
        assert!(shown.starts_with("task 1 \"test\": IDLE, 2 references, 1 polls, waits at executor/src/"), "{shown}");
    }
}
