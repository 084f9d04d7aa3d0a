//! What can be seen of tasks from outside: who woke them, since when they wait, what a poll took, and the trace.

use executor::testing::{Bench, on_cpu};
use executor::{Cause, Class, Instant, TraceEvent};
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_task_tells_who_woke_it_last() {
    let bench = Bench::new();
    let sleeper = bench.spawn(pending());
    bench.settle();
    assert_eq!((sleeper.wakes(), sleeper.woken_by()), (0, Cause::Unknown), "it was spawned, not woken");

    let sleepers_own = sleeper.clone();
    let waker = bench.spawn(async move { sleepers_own.wake() });
    bench.settle();
    assert_eq!((sleeper.wakes(), sleeper.woken_by()), (1, Cause::Task(waker.id())));

    bench.executor().in_interrupt(0x35, || sleeper.wake());
    bench.settle();
    assert_eq!((sleeper.wakes(), sleeper.woken_by()), (2, Cause::Interrupt(0x35)));

    let timers = bench.executor().timers();
    let napper = bench.spawn(async move { timers.sleep(MS).await });
    bench.advance(MS);
    assert_eq!((napper.wakes(), napper.woken_by()), (1, Cause::Timer));
}

#[test]
fn an_interrupt_does_not_take_the_blame_for_what_the_interrupted_task_wakes() {
    let bench = Bench::new();
    let [by_interrupt, by_task] = [(); 2].map(|()| bench.spawn(pending()));
    bench.settle();
    let (first, second) = (by_interrupt.clone(), by_task.clone());
    let executor = bench.executor();
    let interrupted = bench.spawn(async move {
        executor.in_interrupt(0x31, || first.wake());
        second.wake();
    });
    bench.settle();
    assert_eq!(by_interrupt.woken_by(), Cause::Interrupt(0x31));
    assert_eq!(by_task.woken_by(), Cause::Task(interrupted.id()));
}

#[test]
fn a_wake_of_a_task_that_is_queued_already_is_not_counted() {
    let bench = Bench::new();
    let task = bench.spawn(pending());
    task.wake();
    bench.settle();
    assert_eq!((task.wakes(), task.polls()), (0, 1));
    task.wake();
    task.wake();
    bench.settle();
    assert_eq!((task.wakes(), task.polls()), (1, 2));
}

#[test]
fn a_task_waits_since_the_end_of_its_last_poll() {
    let bench = Bench::new();
    let task = bench.spawn(poll_fn(move |_| {
        bench.machine().turn_clock(MS / 2);
        Poll::Pending
    }));
    assert_eq!(task.idle_since(), Instant::BOOT);
    bench.machine().turn_clock(MS);
    bench.settle();
    assert_eq!(task.idle_since(), Instant::BOOT + MS + MS / 2);
    bench.machine().turn_clock(7 * MS);
    assert_eq!(bench.executor().now().saturating_duration_since(task.idle_since()), 7 * MS);
}

#[test]
fn the_worst_poll_is_kept_and_time_in_user_mode_is_not_the_kernels() {
    let bench = Bench::new();
    let mut steps = [(2, 0), (5, 1), (3, 0), (90, 89)].into_iter();
    let task = bench.spawn(poll_fn(move |_| {
        let (all, user) = steps.next().unwrap_or_default();
        bench.machine().turn_clock(all * MS / 10);
        bench.machine().spend_in_user_mode(user * MS / 10);
        Poll::Pending
    }));
    for worst in [2, 4, 4, 4] {
        task.wake();
        bench.settle();
        assert_eq!(task.worst_poll(), worst * MS / 10);
    }
    assert_eq!(task.run_time(), 10 * MS, "which is all of it");
    assert_eq!(bench.executor().statistics(0).long_polls, 0, "the long one was the program's");
}

#[test]
fn the_time_of_a_task_that_runs_includes_the_poll_under_way() {
    let bench = Bench::new();
    let executor = bench.executor();
    let task = bench.spawn(poll_fn(move |_| {
        let own = executor.current().expect("it is polled");
        let before = (executor.run_time(&own), own.run_time());
        bench.machine().turn_clock(MS);
        assert_eq!((executor.run_time(&own), own.run_time()), (before.0 + MS, before.1));
        Poll::<()>::Pending
    }));
    for polls in 1..3 {
        task.wake();
        bench.settle();
        assert_eq!(executor.run_time(&task), polls * MS);
    }
}

#[test]
fn a_long_poll_is_told_with_its_task_and_place_once_a_second_and_always_counted() {
    let bench = Bench::new();
    let queue = Arc::new(executor::sync::WaitQueue::new());
    let (own, line) = (queue.clone(), line!() + 4);
    let task = bench.executor().spawn(Class::NORMAL, "slow", async move {
        loop {
            // The place that is to be told.
            own.wait().await;
            bench.machine().turn_clock(3 * MS);
        }
    });
    bench.settle();
    let wake_often = |count: usize| {
        for _ in 0..count {
            queue.wake_all();
            bench.settle();
        }
    };
    wake_often(4);
    let [told] = bench.machine().take_long_polls()[..] else { panic!("one of them is told") };
    assert_eq!((told.task, told.name, told.took, told.so_far), (task.id(), "slow", 3 * MS, 1));
    let place = told.resumed_at.expect("it came from a wait");
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert!(told.to_string().starts_with("a poll of slow (task 1) took 3ms, from executor/tests/seen.rs:"), "{told}");

    bench.machine().turn_clock(Duration::from_secs(1));
    wake_often(1);
    let [told] = bench.machine().take_long_polls()[..] else { panic!("a second later, the next") };
    assert_eq!(told.so_far, 5);
    assert_eq!(bench.executor().statistics(0).long_polls, 5);
}

#[test]
fn a_trace_tells_each_wake_with_the_poll_that_it_causes() {
    let bench = Bench::with_cpus(2);
    let executor = bench.executor();
    let task = bench.spawn(pending());
    bench.settle();
    assert_eq!(bench.machine().take_traced(), [], "nobody asked");

    executor.set_traced(true);
    executor.in_interrupt(0x30, || task.wake());
    bench.settle();
    let (id, vector) = (task.id(), 0x30);
    assert_eq!(
        bench.machine().take_traced(),
        [
            TraceEvent::InterruptBegins { vector },
            TraceEvent::Woken { task: id, by: Cause::Interrupt(vector), cpu: 0 },
            TraceEvent::InterruptEnds { vector },
            TraceEvent::PollBegins { task: id },
            TraceEvent::PollEnds { task: id, is_ready: false, waits_at: None },
        ]
    );

    let other = on_cpu(1, || bench.spawn(executor::yield_now()));
    on_cpu(1, || bench.settle());
    let id = other.id();
    assert_eq!(
        bench.machine().take_traced(),
        [
            TraceEvent::Spawned { task: id, by: Cause::Unknown, cpu: 1, name: "test" },
            TraceEvent::PollBegins { task: id },
            TraceEvent::Notified { cpu: 1, by: Cause::Task(id) },
            TraceEvent::PollEnds { task: id, is_ready: false, waits_at: None },
            TraceEvent::Requeued { task: id },
            TraceEvent::PollBegins { task: id },
            TraceEvent::PollEnds { task: id, is_ready: true, waits_at: None },
        ]
    );

    executor.set_traced(false);
    task.wake();
    bench.settle();
    assert_eq!(bench.machine().take_traced(), []);
}
