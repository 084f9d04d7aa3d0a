//! Who gets a CPU, for how long, and who is kicked for it.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use executor::{
    Class, Executor, Instant, Machine, TaskRef,
    sync::{WaitQueue, wait_until},
    testing::{Bench, HandMachine, on_cpu},
    yield_now,
};

const STEP: Duration = Duration::from_micros(if cfg!(miri) { 1_000 } else { 100 });

/// What the kernel does for a thread that computes in user mode until `end`: enters it, comes back when it is told to.
/// `interrupt` is what happens at each step of the clock while it is there.
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

fn hog(bench: Bench, weight: u32, end: Instant) -> TaskRef {
    let executor = bench.executor();
    executor.spawn(Class::User { weight }, "hog", compute(executor, end, || ()))
}

#[test]
fn driver_tasks_go_before_user_tasks() {
    let bench = Bench::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for (class, name) in [(Class::NORMAL, "user"), (Class::Driver, "first driver"), (Class::Driver, "second driver")] {
        let order = Arc::clone(&order);
        bench.executor().spawn(class, name, async move { order.lock().unwrap().push(name) });
    }
    bench.settle();
    assert_eq!(*order.lock().unwrap(), ["first driver", "second driver", "user"]);
}

#[test]
#[cfg_attr(miri, ignore = "a thousand polls: too slow there")]
fn a_driver_that_never_rests_cannot_starve_a_user_task() {
    let bench = Bench::new();
    let executor = bench.executor();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let driver = executor.spawn(Class::Driver, "restless", async move {
        while !over.load(Ordering::SeqCst) {
            yield_now().await;
        }
    });
    // The user task needs user mode, which a waiting driver task would end at once: it must be spared.
    let user = executor.spawn(Class::NORMAL, "user", async move {
        compute(executor, executor.now() + Duration::from_millis(10), || ()).await;
        is_over.store(true, Ordering::SeqCst);
    });
    bench.settle();
    assert!(user.is_done() && driver.is_done());
    assert!(driver.polls() > user.polls(), "the driver still goes first most of the time");
}

#[test]
fn a_slow_driver_cannot_starve_a_user_task_either() {
    let bench = Bench::new();
    let executor = bench.executor();
    let user = hog(bench, 1024, executor.now() + Duration::from_millis(200));
    let watched = user.clone();
    let driver = executor.spawn(Class::Driver, "slow", async move {
        while !watched.is_done() {
            executor.machine().turn_clock(Duration::from_millis(1));
            yield_now().await;
        }
    });
    bench.settle();
    assert!(user.is_done());
    let share = user.run_time().as_secs_f64() / (user.run_time() + driver.run_time()).as_secs_f64();
    assert!(share > 0.1, "the user task had {share} of the time");
}

#[test]
#[cfg_attr(miri, ignore = "a hundred thousand polls: too slow there")]
fn cpu_time_is_shared_in_proportion_to_weight() {
    let bench = Bench::new();
    let end = Instant::BOOT + Duration::from_secs(10);
    // Nice 0, 5, -5 and 19, as Linux weighs them.
    let weights = [1024, 335, 3121, 15];
    let tasks: Vec<_> = weights.iter().map(|&weight| hog(bench, weight, end)).collect();
    bench.settle();
    let total: f64 = tasks.iter().map(|task| task.run_time().as_secs_f64()).sum();
    for (task, weight) in tasks.iter().zip(weights) {
        let share = task.run_time().as_secs_f64() / total;
        let fair = f64::from(weight) / 4495.0;
        assert!((share - fair).abs() < 0.01, "weight {weight}: had {share:.4} of the time, {fair:.4} is fair");
    }
}

/// Runs for half a millisecond, and spawns the next one like it, until `end`.
fn link(bench: Bench, end: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let executor = bench.executor();
        executor.machine().turn_clock(Duration::from_micros(500));
        if executor.now() < end {
            executor.spawn(Class::NORMAL, "link", link(bench, end));
        }
    })
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of tasks: too slow there")]
fn ever_new_tasks_do_not_starve_one_that_waits() {
    let bench = Bench::new();
    let end = Instant::BOOT + Duration::from_millis(500);
    let waits = hog(bench, 1024, end);
    let chain = bench.executor().spawn(Class::NORMAL, "link", link(bench, end));
    bench.settle();
    assert!(chain.is_done());
    let share = waits.run_time().as_secs_f64() / 0.5;
    assert!(share > 0.5, "{share} of the time");
    assert!(share < 0.9, "{share} of the time");
}

#[test]
#[cfg_attr(miri, ignore = "ten thousand polls: too slow there")]
fn a_changed_weight_changes_the_share() {
    let bench = Bench::new();
    let end = Instant::BOOT + Duration::from_secs(2);
    let (heavy, light) = (hog(bench, 1024, end), hog(bench, 1024, end));
    heavy.set_class(Class::User { weight: 3072 });
    assert_eq!(heavy.class(), Class::User { weight: 3072 });
    bench.settle();
    let ratio = heavy.run_time().as_secs_f64() / light.run_time().as_secs_f64();
    assert!((2.7..3.3).contains(&ratio), "{ratio}");
}

#[test]
fn a_lone_user_task_runs_without_a_tick() {
    let bench = Bench::new();
    let task = hog(bench, 1024, Instant::BOOT + Duration::from_millis(50));
    bench.settle();
    assert_eq!(bench.machine().alarms_set(), 0);
    assert_eq!(task.polls(), 1);
}

#[test]
fn user_tasks_that_compete_take_turns_of_a_few_milliseconds() {
    let bench = Bench::new();
    let end = Instant::BOOT + Duration::from_millis(300);
    let (one, two) = (hog(bench, 1024, end), hog(bench, 1024, end));
    bench.settle();
    for task in [one, two] {
        assert!((30..=80).contains(&task.polls()), "{} turns in 300 ms", task.polls());
    }
}

#[test]
fn a_sleeper_that_wakes_gets_the_cpu_from_one_that_computes() {
    let bench = Bench::new();
    let executor = bench.executor();
    let _hog = hog(bench, 1024, Instant::BOOT + Duration::from_millis(500));
    let worst = Arc::new(Mutex::new(Duration::ZERO));
    let noted = Arc::clone(&worst);
    executor.spawn(Class::NORMAL, "sleeper", async move {
        for _ in 0..20 {
            let deadline = executor.now() + Duration::from_millis(20);
            executor.sleep_until(deadline).await;
            let mut worst = noted.lock().unwrap();
            *worst = (*worst).max(executor.now() - deadline);
        }
    });
    bench.settle();
    let worst = *worst.lock().unwrap();
    assert!(worst <= Duration::from_millis(1), "it waited {worst:?} for its turn");
}

#[test]
fn an_interrupt_that_wakes_a_driver_ends_user_mode_at_once() {
    let bench = Bench::new();
    let executor = bench.executor();
    let ran_at = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&ran_at);
    let driver = executor.spawn(Class::Driver, "driver", async move {
        let mut polls = 0;
        std::future::poll_fn(|_| {
            polls += 1;
            if polls == 1 {
                return std::task::Poll::Pending;
            }
            *noted.lock().unwrap() = Some(executor.now());
            std::task::Poll::Ready(())
        })
        .await;
    });
    bench.settle();
    let at = Instant::BOOT + Duration::from_millis(10);
    let interrupt = move || {
        if executor.now() == at {
            driver.wake();
        }
    };
    executor.spawn(Class::NORMAL, "hog", compute(executor, at + Duration::from_millis(10), interrupt));
    bench.settle();
    assert_eq!(*ran_at.lock().unwrap(), Some(at));
}

#[test]
fn a_task_in_user_mode_that_is_woken_leaves_it_and_returns_once_it_has_looked() {
    let bench = Bench::new();
    let executor = bench.executor();
    bench.block_on(async move {
        let task = executor.current().expect("a task is running");
        executor.enter_user();
        assert!(!executor.should_leave_user());
        task.wake();
        assert!(executor.should_leave_user());
        executor.exit_user();
        assert!(!executor.acknowledge_kick(), "nobody else wants the CPU");
        executor.enter_user();
        assert!(!executor.should_leave_user());
        executor.exit_user();
    });
}

#[test]
fn a_task_in_user_mode_is_kicked_when_another_cpu_wakes_it_and_only_then() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    bench.block_on(async move {
        let task = executor.current().expect("a task is running");
        on_cpu(1, || task.wake());
        assert_eq!(executor.machine().take_kicked(), [], "it is in the kernel: it will look");
        let _ = executor.acknowledge_kick();
        executor.enter_user();
        on_cpu(1, || task.wake());
        assert_eq!(executor.machine().take_kicked(), [0]);
        on_cpu(1, || task.wake());
        assert_eq!(executor.machine().take_kicked(), [], "once is enough");
        executor.exit_user();
    });
}

#[test]
fn a_cpu_that_runs_tickless_is_kicked_when_its_queue_is_no_longer_empty() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    let sleeper = bench.spawn(async {
        let mut is_woken = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut is_woken, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
    bench.settle();
    let woken = sleeper.clone();
    bench.block_on(async move {
        executor.enter_user();
        assert!(!executor.should_leave_user());
        on_cpu(1, || woken.wake());
        assert_eq!(executor.machine().take_kicked(), [0]);
        assert!(executor.should_leave_user());
        executor.exit_user();
        assert!(executor.acknowledge_kick(), "the CPU is wanted");
        yield_now().await;
        assert!(woken.is_done());
    });
}

#[test]
fn a_task_that_hands_data_over_is_followed_by_its_receiver() {
    let bench = Bench::new();
    let executor = bench.executor();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (queue, is_ready) = (Arc::new(WaitQueue::new()), Arc::new(AtomicBool::new(false)));
    let receiver = (Arc::clone(&queue), Arc::clone(&is_ready), Arc::clone(&order));
    bench.spawn(async move {
        wait_until(&receiver.0, || receiver.1.load(Ordering::SeqCst).then_some(())).await;
        receiver.2.lock().unwrap().push("receiver");
    });
    bench.settle();
    let sender = Arc::clone(&order);
    bench.spawn(async move {
        sender.lock().unwrap().push("sender");
        // These are queued first, but the receiver is the `next` task.
        for name in ["other", "another"] {
            let order = Arc::clone(&sender);
            executor.spawn(Class::NORMAL, name, async move { order.lock().unwrap().push(name) });
        }
        is_ready.store(true, Ordering::SeqCst);
        queue.wake_one();
    });
    bench.settle();
    assert_eq!(*order.lock().unwrap(), ["sender", "receiver", "other", "another"]);
}

#[test]
#[cfg_attr(miri, ignore = "a thousand polls: too slow there")]
fn two_tasks_that_wake_each_other_do_not_starve_a_third() {
    let bench = Bench::new();
    let is_over = Arc::new(AtomicBool::new(false));
    let turn = Arc::new(AtomicUsize::new(0));
    let queue = Arc::new(WaitQueue::new());
    for player in 0..2 {
        let (is_over, turn, queue) = (Arc::clone(&is_over), Arc::clone(&turn), Arc::clone(&queue));
        bench.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                wait_until(&queue, || (turn.load(Ordering::SeqCst) % 2 == player).then_some(())).await;
                let count = turn.fetch_add(1, Ordering::SeqCst);
                assert!(count < 10_000, "the third has starved");
                queue.wake_all();
            }
        });
    }
    for _ in 0..1_000 {
        assert!(bench.executor().run_one());
    }
    let third = bench.spawn(async move { is_over.store(true, Ordering::SeqCst) });
    bench.settle();
    assert!(third.is_done());
}

#[test]
fn more_wakes_than_the_inbox_has_slots_for_are_all_heard() {
    let bench = Bench::with_cpus(2);
    let count = if cfg!(miri) { 150 } else { 1_000 };
    let tasks: Vec<_> = (0..count).map(|_| bench.spawn(pending())).collect();
    bench.settle();
    on_cpu(1, || tasks.iter().for_each(TaskRef::wake));
    bench.settle();
    assert!(tasks.iter().all(|task| task.polls() == 2));
}

#[test]
fn an_idle_cpu_takes_half_but_never_the_only_task() {
    let bench = Bench::with_cpus(2);
    let tasks: Vec<_> = (0..9).map(|_| bench.spawn(pending())).collect();
    on_cpu(1, || assert!(bench.executor().run_one()));
    let statistics = bench.executor().statistics(1);
    assert_eq!((statistics.stolen, statistics.waiting), (4, 3));
    bench.settle();
    on_cpu(1, || bench.settle());
    assert!(tasks.iter().all(|task| task.polls() == 1), "wherever it was, each has run once");

    let alone = bench.spawn(pending());
    on_cpu(1, || assert!(!bench.executor().run_one(), "it is the only one"));
    assert_eq!(alone.polls(), 0);
    bench.settle();
    assert_eq!(alone.polls(), 1);
}

#[test]
fn a_stolen_task_is_found_by_its_waker() {
    let bench = Bench::with_cpus(2);
    let queue = Arc::new(WaitQueue::new());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let queue = Arc::clone(&queue);
            bench.spawn(async move { queue.wait().await })
        })
        .collect();
    on_cpu(1, || bench.settle());
    bench.settle();
    assert!(bench.executor().statistics(1).stolen > 0);
    on_cpu(1, || queue.wake_all());
    bench.settle();
    on_cpu(1, || bench.settle());
    assert!(tasks.iter().all(TaskRef::is_done));
}

#[test]
fn the_same_seed_gives_the_same_schedule_and_another_one_another() {
    let schedule = |seed: u64| {
        let bench = Bench::shuffled(seed.try_into().expect("not 0"));
        let order = Arc::new(Mutex::new(Vec::new()));
        for index in 0..10 {
            let order = Arc::clone(&order);
            bench.spawn(async move {
                order.lock().unwrap().push(index);
                yield_now().await;
                order.lock().unwrap().push(index);
            });
        }
        bench.settle();
        Arc::try_unwrap(order).expect("all have finished").into_inner().unwrap()
    };
    assert_eq!(schedule(1), schedule(1));
    assert_ne!(schedule(1), schedule(2));
}

/// A task that is polled `count` times and notes on which CPU, each time.
fn wanderer(bench: Bench, affinity: u64, count: usize) -> (TaskRef, Arc<Mutex<Vec<usize>>>) {
    let executor = bench.executor();
    let places = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&places);
    let future = async move {
        for _ in 0..count {
            noted.lock().unwrap().push(executor.machine().current_cpu());
            yield_now().await;
        }
    };
    let mut seen = None;
    let before = |task: &TaskRef| seen = Some(task.clone());
    let task = executor.try_spawn_on(affinity, Class::NORMAL, "wanderer", before, future).expect("memory");
    assert_eq!(seen, Some(task.clone()), "it is shown before it is polled");
    (task, places)
}

#[test]
fn a_task_is_polled_only_where_it_may_run() {
    let bench = Bench::with_cpus(3);
    let (task, places) = wanderer(bench, 1 << 2, 3);
    assert_eq!(task.affinity(), 1 << 2);
    bench.settle();
    on_cpu(1, || bench.settle());
    assert_eq!(*places.lock().unwrap(), [], "neither of these is its CPU");
    on_cpu(2, || bench.settle());
    assert_eq!(*places.lock().unwrap(), [2, 2, 2]);
}

#[test]
fn a_task_that_may_not_stay_moves_when_it_yields() {
    let bench = Bench::with_cpus(2);
    let (task, places) = wanderer(bench, u64::MAX, 4);
    assert!(bench.executor().run_one());
    task.set_affinity(1 << 1);
    bench.settle();
    assert_eq!(*places.lock().unwrap(), [0], "it was waiting here, and went");
    on_cpu(1, || bench.settle());
    assert_eq!(*places.lock().unwrap(), [0, 1, 1, 1]);
    assert!(task.is_done());
}

#[test]
fn thieves_leave_what_they_may_not_run() {
    let bench = Bench::with_cpus(2);
    let held: Vec<_> = (0..6).map(|_| wanderer(bench, 1, 1)).collect();
    on_cpu(1, || assert!(!bench.executor().run_one()));
    let free: Vec<_> = (0..6).map(|_| wanderer(bench, u64::MAX, 1)).collect();
    on_cpu(1, || bench.settle());
    assert!(bench.executor().statistics(1).stolen > 0);
    bench.settle();
    assert!(held.iter().all(|(_, places)| *places.lock().unwrap() == [0]));
    assert!(free.iter().any(|(_, places)| *places.lock().unwrap() == [1]));
    assert!(held.iter().chain(&free).all(|(task, _)| task.is_done()));
}

#[test]
fn a_task_in_user_mode_that_may_not_stay_gives_way() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    bench.block_on(async move {
        let task = executor.current().expect("a task is running");
        executor.enter_user();
        on_cpu(1, || {
            task.set_affinity(1 << 1);
            task.wake();
        });
        assert_eq!(executor.machine().take_kicked(), [0]);
        assert!(executor.should_leave_user());
        executor.exit_user();
        assert!(executor.acknowledge_kick(), "it is to yield, so that it moves");
        task.set_affinity(u64::MAX);
    });
}

#[test]
fn who_is_woken_by_its_partner_stays_with_it_and_the_third_goes_elsewhere() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    let sleepers: Vec<_> = (0..2).map(|_| bench.spawn(pending())).collect();
    bench.settle();
    let woken = sleepers.clone();
    bench.spawn(async move {
        woken[0].wake();
        assert_eq!(executor.statistics(0).waiting, 1, "it goes next, here");
        woken[1].wake();
        assert_eq!(executor.statistics(0).waiting, 2, "nobody sleeps who could take it");
    });
    bench.settle();
    assert!(sleepers.iter().all(|task| task.polls() == 2));
}

#[test]
fn a_cpu_that_polls_can_spare_its_only_waiting_task() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    bench.spawn(async move {
        let (waiting, places) = wanderer(bench, u64::MAX, 1);
        on_cpu(1, || assert!(executor.run_one(), "we are polled, it waits: it is better off there"));
        assert!(*places.lock().unwrap() == [1] || waiting.is_done());
    });
    bench.settle();
    assert_eq!(executor.statistics(1).stolen, 1);
}
