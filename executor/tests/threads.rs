//! The executor on real threads: several CPUs that poll, wake, steal, sleep and kick each other at once.

use std::{
    cell::Cell,
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant as RealInstant},
};

use executor::{
    Class, Executor, Instant, Machine,
    sync::{Event, Mutex, SpinLock, WaitQueue, channel, wait_until},
    yield_now,
};

const CPUS: usize = 4;
const ROUNDS: usize = if cfg!(miri) { 5 } else { 2_000 };
const TASKS: usize = if cfg!(miri) { 4 } else { 24 };

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// A machine whose CPUs are threads; an interrupt is a flag and an `unpark`.
struct Threads {
    start: RealInstant,
    threads: [OnceLock<Thread>; CPUS],
    kicked: [AtomicBool; CPUS],
    alarms: [AtomicU64; CPUS],
    executor: OnceLock<Executor<Self>>,
}

impl Machine for Threads {
    fn now(&self) -> Instant {
        Instant::BOOT + self.start.elapsed()
    }

    fn current_cpu(&self) -> usize {
        CPU.get()
    }

    fn kick(&self, cpu: usize) {
        self.kicked[cpu].store(true, Ordering::SeqCst);
        if let Some(thread) = self.threads[cpu].get() {
            thread.unpark();
        }
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        // The last task may have been freed in a turn that found nothing to poll: then the end is near, and nobody else would say so.
        let is_over = || self.executor.get().is_some_and(|executor| executor.task_count() == 0);
        if nothing_to_do() && !is_over() {
            match self.alarms[CPU.get()].load(Ordering::SeqCst) {
                // Without an alarm only a kick ends the sleep: a kick that is missing is a test that hangs.
                u64::MAX => {
                    while !self.kicked[CPU.get()].load(Ordering::SeqCst) {
                        thread::park();
                    }
                }
                alarm => thread::park_timeout(Instant::from_nanos(alarm) - self.now()),
            }
        }
        self.take_interrupts();
    }

    fn set_alarm(&self, at: Option<Instant>) {
        self.alarms[CPU.get()].store(at.map_or(u64::MAX, Instant::as_nanos), Ordering::SeqCst);
    }
}

impl Threads {
    /// The interrupts of this CPU that are due. Says whether one was.
    fn take_interrupts(&self) -> bool {
        let was_kicked = self.kicked[CPU.get()].swap(false, Ordering::SeqCst);
        let alarm = &self.alarms[CPU.get()];
        let has_rung = alarm.load(Ordering::SeqCst) <= self.now().as_nanos();
        if has_rung {
            alarm.store(u64::MAX, Ordering::SeqCst);
            self.executor.get().expect("it is set before the CPUs start").alarm();
        }
        was_kicked || has_rung
    }
}

/// Runs `CPUS` CPUs until `prepare`'s tasks have all gone.
fn run(prepare: impl FnOnce(Executor<Threads>)) -> Executor<Threads> {
    let machine = Threads {
        start: RealInstant::now(),
        threads: Default::default(),
        kicked: Default::default(),
        alarms: [const { AtomicU64::new(u64::MAX) }; CPUS],
        executor: OnceLock::new(),
    };
    let executor = Executor::new(machine, CPUS);
    let _ = executor.machine().executor.set(executor);
    prepare(executor);
    let is_over = &AtomicBool::new(false);
    // Nobody is kicked before it can be.
    let all_are_there = &Barrier::new(CPUS);
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            scope.spawn(move || {
                CPU.set(cpu);
                let _ = executor.machine().threads[cpu].set(thread::current());
                all_are_there.wait();
                executor.run_until(cpu, || {
                    executor.machine().take_interrupts();
                    if executor.task_count() == 0 && !is_over.swap(true, Ordering::SeqCst) {
                        (0..CPUS).for_each(|cpu| executor.machine().kick(cpu));
                    }
                    is_over.load(Ordering::SeqCst)
                });
            });
        }
    });
    executor
}

#[test]
fn tasks_pass_values_around_a_ring_of_channels() {
    let total = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&total);
    run(|executor| {
        let (first, mut input) = channel(1);
        for _ in 0..TASKS {
            let (output, next) = channel(1);
            executor.spawn(Class::NORMAL, "station", async move {
                while let Some(value) = input.receive().await {
                    let value: usize = value;
                    output.send(value + 1).await.expect("the next station is there");
                }
            });
            input = next;
        }
        executor.spawn(Class::Driver, "source", async move {
            for _ in 0..ROUNDS {
                first.send(0).await.expect("the first station is there");
            }
        });
        executor.spawn(Class::NORMAL, "sink", async move {
            while let Some(value) = input.receive().await {
                seen.fetch_add(value, Ordering::SeqCst);
            }
        });
    });
    assert_eq!(total.load(Ordering::SeqCst), ROUNDS * TASKS);
}

#[test]
fn a_mutex_counts_right_and_waiters_that_give_up_disturb_nobody() {
    let count = Arc::new(Mutex::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    run(|executor| {
        for task in 0..TASKS {
            let (count, done) = (Arc::clone(&count), Arc::clone(&done));
            executor.spawn(Class::NORMAL, "counter", async move {
                for round in 0..ROUNDS / 10 {
                    let patience = Duration::from_micros((task * round % 50) as u64);
                    let deadline = if task % 4 == 0 { executor.now() + patience } else { Instant::NEVER };
                    if let Ok(mut count) = executor.timeout_at(deadline, count.lock()).await {
                        *count += 1;
                        yield_now().await;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let count = *count.try_lock().expect("all have finished");
    assert_eq!(count, done.load(Ordering::SeqCst));
    assert!(count >= TASKS * 3 / 4 * (ROUNDS / 10));
}

#[test]
fn no_item_and_no_wake_is_lost_between_producers_and_consumers() {
    let taken = Arc::new(AtomicUsize::new(0));
    run(|executor| {
        let items = Arc::new((SpinLock::new(Vec::new()), WaitQueue::new()));
        for _ in 0..TASKS {
            let (shelf, taken) = (Arc::clone(&items), Arc::clone(&taken));
            executor.spawn(Class::NORMAL, "consumer", async move {
                for _ in 0..ROUNDS {
                    wait_until(&shelf.1, || shelf.0.lock().pop()).await;
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
            let shelf = Arc::clone(&items);
            executor.spawn(Class::NORMAL, "producer", async move {
                for round in 0..ROUNDS {
                    shelf.0.lock().push(round);
                    shelf.1.wake_one();
                    if round % 7 == 0 {
                        yield_now().await;
                    }
                }
            });
        }
    });
    assert_eq!(taken.load(Ordering::SeqCst), TASKS * ROUNDS);
}

#[test]
fn a_task_in_user_mode_hears_every_wake_and_every_newcomer_gets_a_turn() {
    let heard = Arc::new(AtomicUsize::new(0));
    let newcomers = Arc::new(AtomicUsize::new(0));
    run(|executor| {
        let rounds = ROUNDS / 10;
        let is_over = Arc::new(AtomicBool::new(false));
        // One thread that computes on each CPU, tickless: only a kick brings it back.
        for _ in 0..CPUS {
            let is_over = Arc::clone(&is_over);
            executor.spawn(Class::NORMAL, "hog", async move {
                while !is_over.load(Ordering::SeqCst) {
                    executor.enter_user();
                    if !executor.should_leave_user() {
                        while !executor.machine().take_interrupts() || !executor.should_leave_user() {
                            thread::yield_now();
                        }
                    }
                    executor.exit_user();
                    if executor.acknowledge_kick() {
                        yield_now().await;
                    }
                }
            });
        }
        let (signal, answer) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let (ask, listen) = (Arc::clone(&signal), Arc::clone(&answer));
        let (count, arrived) = (Arc::clone(&heard), Arc::clone(&newcomers));
        executor.spawn(Class::Driver, "answerer", async move {
            for _ in 0..rounds {
                signal.wait().await;
                count.fetch_add(1, Ordering::SeqCst);
                answer.notify();
            }
        });
        executor.spawn(Class::NORMAL, "asker", async move {
            for _ in 0..rounds {
                ask.notify();
                listen.wait().await;
                let arrived = Arc::clone(&arrived);
                let newcomer = move || async move { arrived.fetch_add(1, Ordering::SeqCst) };
                executor.spawn_with_result(Class::NORMAL, "newcomer", newcomer()).await;
            }
            is_over.store(true, Ordering::SeqCst);
            // The threads that compute do not look at the flag in user mode: have them woken, as a signal would.
            executor.for_each_task(|task| task.wake());
        });
    });
    assert_eq!(heard.load(Ordering::SeqCst), ROUNDS / 10);
    assert_eq!(newcomers.load(Ordering::SeqCst), ROUNDS / 10);
}
