//! Real-time tasks, tasks of least importance, and how tasks are spread over CPUs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use executor::{
    Class, Executor, Instant, TaskRef,
    testing::{Bench, HandMachine, on_cpu},
    yield_now,
};

const STEP: Duration = Duration::from_micros(if cfg!(miri) { 1_000 } else { 100 });

/// Computes in user mode until `end`, and comes back when it is told to; at each step of the clock `interrupt` happens.
async fn compute(executor: Executor<HandMachine>, end: Instant, interrupt: impl Fn() + Send) {
    while executor.now() < end {
        executor.user_mode().visit(|visit| {
            while !visit.must_end() && executor.now() < end {
                executor.machine().turn_clock(STEP);
                interrupt();
                if executor.machine().alarm().is_some_and(|alarm| alarm <= executor.now()) {
                    executor.alarm();
                }
            }
        });
        if executor.acknowledge_kick() {
            yield_now().await;
        }
    }
}

fn hog(bench: Bench, class: Class, end: Instant) -> TaskRef {
    let executor = bench.executor();
    executor.spawn(class, "hog", compute(executor, end, || ()))
}

const fn fifo(priority: u8) -> Class {
    Class::RealTime { priority, takes_turns: false }
}

const fn in_turns(priority: u8) -> Class {
    Class::RealTime { priority, takes_turns: true }
}

fn milliseconds(count: u64) -> Instant {
    Instant::BOOT + Duration::from_millis(count)
}

/// A log of who did something.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn note(&self, who: &'static str) {
        self.0.lock().unwrap().push(who);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn a_class_is_kept_as_it_was_given_within_its_bounds() {
    let bench = Bench::new();
    let task = bench.spawn(std::future::pending());
    for class in [fifo(1), in_turns(99), Class::NORMAL, Class::Batch { weight: 15 }, Class::User { weight: 3 }] {
        task.set_class(class);
        assert_eq!(task.class(), class);
    }
    task.set_class(fifo(200));
    assert_eq!(task.class(), fifo(99));
    task.set_class(Class::Driver);
    assert_eq!(task.class(), fifo(99), "nobody becomes a driver");
}

#[test]
fn real_time_tasks_go_by_priority_ahead_of_those_that_share() {
    let bench = Bench::new();
    let log = Log::default();
    let classes = [(Class::NORMAL, "user"), (fifo(10), "low"), (fifo(20), "high"), (in_turns(20), "high, later")];
    for (class, name) in classes.into_iter().chain([(Class::Driver, "driver")]) {
        let log = log.clone();
        bench.executor().spawn(class, name, async move { log.note(name) });
    }
    bench.settle();
    assert_eq!(log.take(), ["driver", "high", "high, later", "low", "user"]);
}

#[test]
fn a_real_time_task_that_wakes_interrupts_user_mode_at_once() {
    let bench = Bench::new();
    let executor = bench.executor();
    for lower in [Class::NORMAL, Class::User { weight: 88_761 }, fifo(4)] {
        let start = executor.now();
        let ran_at = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&ran_at);
        let mut waits = true;
        let task = executor.spawn(fifo(5), "woken", async move {
            std::future::poll_fn(|_| {
                if std::mem::take(&mut waits) { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            })
            .await;
            *noted.lock().unwrap() = Some(executor.now());
        });
        bench.settle();
        let at = start + Duration::from_millis(1);
        let interrupt = move || {
            if executor.now() == at {
                task.wake()
            }
        };
        executor.spawn(lower, "hog", compute(executor, at + Duration::from_millis(5), interrupt));
        bench.settle();
        assert_eq!(*ran_at.lock().unwrap(), Some(at), "{lower:?}");
    }
}

#[test]
fn equals_take_turns_only_if_their_class_says_so() {
    let bench = Bench::new();
    let alone = [hog(bench, fifo(7), milliseconds(300)), hog(bench, fifo(7), milliseconds(600))];
    bench.settle();
    assert_eq!(alone[0].run_time(), Duration::from_millis(300), "it ran to its end first");
    assert_eq!(alone[1].run_time(), Duration::from_millis(300));

    let end = bench.executor().now() + Duration::from_secs(1);
    let turns = [hog(bench, in_turns(7), end), hog(bench, in_turns(7), end)];
    bench.settle();
    for task in turns {
        let share = task.run_time().as_secs_f64();
        assert!((0.4..=0.6).contains(&share), "{share} of a second");
    }
}

#[test]
fn one_that_was_interrupted_goes_on_before_its_equals() {
    let bench = Bench::new();
    let executor = bench.executor();
    let log = Log::default();
    let (first, second, high) = (log.clone(), log.clone(), log.clone());
    let interrupted = AtomicBool::new(false);
    let interrupt = move || {
        if !interrupted.swap(true, Ordering::Relaxed) {
            let high = high.clone();
            executor.spawn(fifo(9), "high", async move { high.note("high") });
        }
    };
    executor.spawn(fifo(8), "first", async move {
        compute(executor, milliseconds(5), interrupt).await;
        first.note("first");
    });
    executor.spawn(fifo(8), "second", async move { second.note("second") });
    bench.settle();
    assert_eq!(log.take(), ["high", "first", "second"]);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of polls: too slow there")]
fn real_time_tasks_leave_a_twentieth_to_those_that_share() {
    let bench = Bench::new();
    let end = Instant::BOOT + Duration::from_secs(10);
    let (greedy, user) = (hog(bench, fifo(50), end), hog(bench, Class::NORMAL, end));
    bench.settle();
    let share = user.run_time().as_secs_f64() / (user.run_time() + greedy.run_time()).as_secs_f64();
    assert!((0.03..0.07).contains(&share), "{share}");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of polls: too slow there")]
fn an_idle_weight_is_interrupted_by_whoever_wakes_and_gets_what_is_left() {
    let bench = Bench::new();
    let executor = bench.executor();
    let late = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&late);
    let least = hog(bench, Class::User { weight: Class::IDLE_WEIGHT }, milliseconds(1000));
    executor.spawn(Class::NORMAL, "sleeper", async move {
        // Busy for 4 ms of each 10: it has no credit to speak of.
        for _ in 0..50 {
            let deadline = executor.now() + Duration::from_millis(6);
            executor.sleep_until(deadline).await;
            let late = executor.now() - deadline;
            noted.lock().unwrap().push(late);
            compute(executor, executor.now() + Duration::from_millis(4), || ()).await;
        }
    });
    bench.settle();
    let worst = late.lock().unwrap().iter().max().copied();
    assert!(worst.is_some_and(|worst| worst <= Duration::from_millis(1)), "{worst:?}");
    let had = least.run_time().as_secs_f64();
    assert!((0.5..0.85).contains(&had), "{had} s");
}

#[test]
#[cfg_attr(miri, ignore = "ten thousand polls: too slow there")]
fn whoever_slept_long_and_is_woken_by_a_hog_does_not_wait_for_the_end_of_its_slice() {
    let bench = Bench::new();
    let executor = bench.executor();
    let others: Vec<_> = (0..100).map(|_| hog(bench, Class::NORMAL, milliseconds(3000))).collect();
    let woken_at = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&woken_at);
    let sleeper = executor.spawn(Class::NORMAL, "sleeper", async move {
        loop {
            let mut waits = true;
            std::future::poll_fn(|_| {
                if std::mem::take(&mut waits) { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            })
            .await;
            noted.lock().unwrap().push(executor.now());
        }
    });
    let wakes = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::clone(&wakes);
    executor.spawn(Class::NORMAL, "waker", async move {
        for _ in 0..20 {
            compute(executor, executor.now() + Duration::from_millis(1), || ()).await;
            sleeper.wake();
            sent.lock().unwrap().push(executor.now());
            compute(executor, executor.now() + Duration::from_millis(2), || ()).await;
        }
    });
    bench.settle();
    let (wakes, woken) = (wakes.lock().unwrap(), woken_at.lock().unwrap());
    assert!(woken.len() >= 20);
    let late = wakes.iter().zip(woken.iter()).map(|(&sent, &ran)| ran - sent).max();
    assert!(late <= Some(Duration::from_millis(3)), "{late:?} is more than a slice");
    drop(others);
}

/// A task that uses up every slice, whatever the alarm says.
fn whole_slices(bench: Bench, end: Instant) -> TaskRef {
    let executor = bench.executor();
    bench.spawn(async move {
        while executor.now() < end {
            executor.user_mode().visit(|visit| {
                // It is asked whether it may go, as by everybody who enters user mode.
                let _ = visit.must_end();
                executor.machine().turn_clock(Duration::from_millis(4));
            });
            let _ = executor.acknowledge_kick();
            yield_now().await;
        }
    })
}

#[test]
fn a_cpu_with_more_to_do_gives_to_one_with_less_and_an_odd_one_changes_places() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    let end = Instant::BOOT + Duration::from_secs(8);
    // All are queued on CPU 0, but for one, so that CPU 1 never has nothing to do, and never goes and steals.
    let mut tasks: Vec<_> = (0..4).map(|_| whole_slices(bench, end)).collect();
    tasks.push(on_cpu(1, || whole_slices(bench, end)));
    let mut on_second = [0; 5];
    let mut looks = 0;
    while executor.now() < end {
        let worked = [0, 1].map(|cpu| on_cpu(cpu, || executor.run_one()));
        assert_eq!(worked, [true, true]);
        looks += 1;
        on_second.iter_mut().zip(&tasks).for_each(|(count, task)| *count += usize::from(task.cpu() == 1));
    }
    for count in on_second {
        let share = count as f64 / f64::from(looks);
        assert!((0.2..0.8).contains(&share), "a task was on CPU 1 for {share} of the time; {on_second:?} of {looks}");
    }
}
