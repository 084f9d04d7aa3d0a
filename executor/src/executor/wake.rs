//! What becomes of a task that is woken: which CPU gets it, and whether that CPU is kicked.
//!
//! All of this may run in an interrupt handler: it takes no lock that it would have to wait for, and no memory. Which CPU is in
//! what mode, and why looking at it after the push is safe, is told in cpu.rs. next: user_mode.rs.

use core::sync::atomic::Ordering;

use super::Shared;
use crate::{
    cpu::Mode,
    list::{Heap, Home},
    machine::Machine,
    run_queue::rescale,
    task::{Class, Dead, Runnable, Schedule},
    time::{Clock, Instant, Timer},
};

/// Why a task is to be queued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Spawn,
    Wake,
}

impl<M: Machine> Shared<M> {
    /// Gives a task that stands in no queue to a CPU.
    pub(super) fn queue(&self, task: Runnable, origin: Origin) {
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
