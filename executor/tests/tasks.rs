//! What a user of the executor sees of tasks: they run, wait, wake, return, and leave nothing behind.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use executor::{Class, SLICE, TaskRef, sync::Event, testing::Bench, yield_now};

/// Notes that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_runs_only_when_the_executor_is_driven() {
    let bench = Bench::new();
    let handle = bench.start(async { 7 });
    assert_eq!(handle.try_take(), None);
    bench.settle();
    assert_eq!(handle.try_take(), Some(7));
}

#[test]
fn a_task_can_await_the_result_of_another() {
    let bench = Bench::new();
    let inner = bench.start(async {
        yield_now().await;
        "done"
    });
    assert_eq!(bench.block_on(async move { inner.await.len() }), 4);
}

#[test]
fn a_finished_task_is_freed_when_the_last_reference_goes() {
    let bench = Bench::new();
    let task = bench.spawn(async {});
    bench.settle();
    assert!(task.is_done());
    assert_eq!(bench.executor().task_count(), 1);
    let second = task.clone();
    drop(task);
    bench.settle();
    assert_eq!(bench.executor().task_count(), 1);
    drop(second);
    assert_eq!(bench.executor().task_count(), 1, "nothing is freed where a reference is dropped");
    bench.settle();
    assert_eq!(bench.executor().task_count(), 0);
}

#[test]
fn the_future_is_dropped_as_soon_as_it_is_ready() {
    let bench = Bench::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let guard = Dropped(Arc::clone(&drops));
    let task = bench.spawn(async move {
        let _guard = guard;
        yield_now().await;
    });
    bench.settle();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert!(task.is_done());
}

#[test]
fn a_task_that_nobody_can_wake_any_more_is_dropped() {
    let bench = Bench::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let guard = Dropped(Arc::clone(&drops));
    let task = bench.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    });
    bench.settle();
    assert_eq!(drops.load(Ordering::SeqCst), 0, "there is a reference");
    drop(task);
    assert_eq!(drops.load(Ordering::SeqCst), 0, "not where the reference is dropped");
    bench.settle();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(bench.executor().task_count(), 0);
}

#[test]
fn a_waker_that_outlives_its_task_does_nothing() {
    let bench = Bench::new();
    let task = bench.spawn(async {});
    let waker = task.waker();
    bench.settle();
    waker.wake_by_ref();
    waker.wake();
    bench.settle();
    assert_eq!(task.polls(), 1);
    drop(task);
    bench.settle();
    assert_eq!(bench.executor().task_count(), 0);
}

#[test]
fn many_wakes_are_one_poll() {
    let bench = Bench::new();
    let task = bench.spawn(pending());
    bench.settle();
    for _ in 0..10 {
        task.wake();
    }
    bench.settle();
    assert_eq!(task.polls(), 2);
}

#[test]
fn a_task_that_wakes_itself_is_polled_again_after_the_others() {
    let bench = Bench::new();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for name in ["a", "b"] {
        let order = Arc::clone(&order);
        bench.executor().spawn(Class::Driver, name, async move {
            for _ in 0..2 {
                order.lock().unwrap().push(name);
                yield_now().await;
            }
        });
    }
    bench.settle();
    assert_eq!(*order.lock().unwrap(), ["a", "b", "a", "b"]);
}

#[test]
fn the_current_task_is_known_while_it_is_polled_and_only_then() {
    let bench = Bench::new();
    let executor = bench.executor();
    assert!(executor.current().is_none());
    let id = bench.block_on(async move { executor.current().map(|task| task.id()) });
    assert_eq!(id, Some(1));
    assert!(executor.current().is_none());
}

#[test]
fn a_task_is_found_through_its_waker_but_not_through_another_ones() {
    let bench = Bench::new();
    let name = bench.block_on(std::future::poll_fn(|context| {
        Poll::Ready(TaskRef::from_waker(context.waker()).map(|task| task.name()))
    }));
    assert_eq!(name, Some("test"));
    assert!(TaskRef::from_waker(std::task::Waker::noop()).is_none());
}

#[test]
fn a_running_task_sees_that_it_was_woken_and_may_take_note_of_it() {
    let bench = Bench::new();
    let executor = bench.executor();
    let seen = bench.block_on(async move {
        let task = executor.current().expect("a task is running");
        let before = task.is_notified();
        task.wake();
        let after = task.is_notified();
        let _ = executor.acknowledge_kick();
        (before, after, task.is_notified())
    });
    assert_eq!(seen, (false, true, false));
}

#[test]
fn a_long_loop_learns_whether_somebody_waits() {
    let bench = Bench::new();
    let executor = bench.executor();
    let answers = bench.block_on(async move {
        let alone = executor.should_yield();
        let other = executor.spawn(Class::NORMAL, "other", async {});
        let not_alone = executor.should_yield();
        // Who was spawned begins a little behind its parent.
        executor.machine().turn_clock(SLICE);
        yield_now().await;
        drop(other);
        yield_now().await;
        (alone, not_alone, executor.should_yield())
    });
    assert_eq!(answers, (false, true, false));
}

#[test]
fn all_tasks_are_listed_with_where_they_wait() {
    let bench = Bench::new();
    let executor = bench.executor();
    let event: &'static Event = Box::leak(Box::default());
    for _ in 0..40 {
        executor.spawn(Class::NORMAL, "sleeper", async move {
            executor.sleep_until(executor.now() + Duration::from_secs(1)).await;
        });
    }
    executor.spawn(Class::Driver, "driver", async move {
        event.wait().await;
    });
    bench.settle();
    let mut names = Vec::new();
    let mut files = Vec::new();
    executor.for_each_task(|task| {
        names.push(task.name());
        files.extend(task.waits_at().map(|place| place.file()));
    });
    assert_eq!(names.len(), 41);
    assert_eq!(names.iter().filter(|&&name| name == "driver").count(), 1);
    assert!(files.iter().filter(|file| file.ends_with("tasks.rs")).count() >= 40, "{files:?}");
    bench.advance(Duration::from_secs(1));
    let mut count = 0;
    executor.for_each_task(|_| count += 1);
    assert_eq!(count, 1);
}

#[test]
fn time_spent_in_polls_is_put_down_to_the_task() {
    let bench = Bench::new();
    let machine = bench.machine();
    let task = bench.spawn(async move {
        for _ in 0..3 {
            machine.turn_clock(Duration::from_millis(2));
            yield_now().await;
        }
    });
    bench.settle();
    assert_eq!(task.run_time(), Duration::from_millis(6));
    assert_eq!(task.polls(), 4);
    assert_eq!(bench.executor().statistics(0).long_polls, 3, "each was longer than a millisecond");
}

#[test]
#[should_panic(expected = "driven by one loop")]
fn an_executor_is_not_driven_from_within_a_task() {
    let bench = Bench::new();
    bench.spawn(async move { bench.settle() });
    bench.settle();
}
