//! Sleeping: in order, exactly, and without a trace when it is given up.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::Waker,
    time::Duration,
};

use executor::{
    Instant,
    testing::{Bench, poll_once},
    time::Elapsed,
};

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let bench = Bench::new();
    let timers = bench.executor().timers();
    let order = Arc::new(Mutex::new(Vec::new()));
    // A fixed permutation of 0..101 (17 is prime to 101).
    for index in 0..101_u64 {
        let (order, millis) = (Arc::clone(&order), index * 17 % 101);
        bench.spawn(async move {
            timers.sleep(Duration::from_millis(millis)).await;
            order.lock().unwrap().push(millis);
        });
    }
    bench.advance(Duration::from_secs(1));
    assert_eq!(*order.lock().unwrap(), (0..101).collect::<Vec<_>>());
}

#[test]
fn sleepers_with_one_deadline_wake_in_the_order_in_which_they_went_to_sleep() {
    let bench = Bench::new();
    let timers = bench.executor().timers();
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..100 {
        let order = Arc::clone(&order);
        bench.executor().spawn(executor::Class::Driver, "sleeper", async move {
            timers.sleep_until(Instant::from_nanos(1_000 + index % 2)).await;
            order.lock().unwrap().push(index);
        });
    }
    bench.advance(Duration::from_micros(2));
    let expected: Vec<_> = (0..100).step_by(2).chain((1..100).step_by(2)).collect();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
#[cfg_attr(miri, ignore = "a crowd of tasks: too slow there")]
fn a_crowd_that_wakes_at_once_does_not_hold_up_the_others() {
    let bench = Bench::new();
    let executor = bench.executor();
    let deadline = Instant::from_nanos(1_000);
    let sleepers: Vec<_> = (0..300).map(|_| bench.spawn(async move { executor.sleep_until(deadline).await })).collect();
    let driver = executor.spawn(executor::Class::Driver, "driver", std::future::pending());
    bench.settle();
    bench.machine().turn_clock(Duration::from_micros(1));
    executor.alarm();
    driver.wake();
    executor.run_one();
    assert_eq!(driver.polls(), 2, "it did not wait for all the wakes");
    bench.settle();
    assert!(sleepers.iter().all(executor::TaskRef::is_done));
}

#[test]
fn nobody_wakes_early_and_a_deadline_in_the_past_is_ready_at_once() {
    let bench = Bench::new();
    let executor = bench.executor();
    let deadline = Instant::from_nanos(1_000);
    let handle = bench.start(async move { executor.sleep_until(deadline).await });
    bench.advance(Duration::from_nanos(999));
    assert_eq!(handle.try_take(), None);
    bench.advance(Duration::from_nanos(1));
    assert_eq!(handle.try_take(), Some(()));
    let past = pin!(executor.sleep_until(Instant::BOOT));
    assert!(poll_once(past, Waker::noop()).is_ready());
}

#[test]
fn the_alarm_is_set_only_for_a_deadline_that_comes_first() {
    let bench = Bench::new();
    let timers = bench.executor().timers();
    for millis in [50, 60, 70, 40] {
        bench.spawn(async move { timers.sleep(Duration::from_millis(millis)).await });
    }
    bench.settle();
    assert_eq!(bench.machine().alarm(), Some(Instant::from_nanos(40_000_000)));
    assert!(bench.machine().alarms_set() <= 2, "for 50, and for 40");
}

#[test]
fn a_dropped_sleep_leaves_the_heap() {
    let bench = Bench::new();
    let executor = bench.executor();
    {
        let sleep = pin!(executor.sleep_until(Instant::from_nanos(5)));
        assert!(poll_once(sleep, Waker::noop()).is_pending());
    }
    bench.advance(Duration::from_nanos(10));
    assert_eq!(bench.machine().alarm(), None, "rung once for nothing, and not set again");
}

#[test]
fn a_sleep_can_be_moved_to_another_deadline() {
    let bench = Bench::new();
    let executor = bench.executor();
    let mut sleep = pin!(executor.sleep_until(Instant::from_nanos(100)));
    assert!(poll_once(sleep.as_mut(), Waker::noop()).is_pending());
    sleep.as_mut().reset(Instant::from_nanos(200));
    bench.advance(Duration::from_nanos(150));
    assert!(poll_once(sleep.as_mut(), Waker::noop()).is_pending());
    bench.advance(Duration::from_nanos(50));
    assert!(poll_once(sleep.as_mut(), Waker::noop()).is_ready());
}

#[test]
fn a_timeout_ends_what_takes_too_long_and_not_what_is_ready() {
    let bench = Bench::new();
    let executor = bench.executor();
    let timers = executor.timers();
    let late = timers.timeout_at(Instant::from_nanos(10), timers.sleep_until(Instant::from_nanos(20)));
    assert_eq!(bench.block_on(late), Err(Elapsed));
    assert_eq!(executor.now(), Instant::from_nanos(10));
    let in_time = timers.timeout_at(Instant::from_nanos(30), timers.sleep_until(Instant::from_nanos(30)));
    assert_eq!(bench.block_on(in_time), Ok(()), "the future is polled first");
}

#[test]
fn a_timeout_without_end_sets_no_alarm() {
    let bench = Bench::new();
    let timers = bench.executor().timers();
    bench.spawn(async move {
        let _ = timers.timeout_at(Instant::NEVER, std::future::pending::<()>()).await;
    });
    bench.settle();
    assert_eq!(bench.machine().alarm(), None);
}

#[test]
fn a_hundred_thousand_timeouts_that_never_fire_set_few_alarms() {
    let bench = Bench::new();
    let executor = bench.executor();
    let timers = executor.timers();
    bench.block_on(async move {
        for _ in 0..if cfg!(miri) { 100 } else { 100_000 } {
            let deadline = timers.now() + Duration::from_secs(1);
            timers.timeout_at(deadline, executor::yield_now()).await.expect("a yield is short");
            executor.machine().turn_clock(Duration::from_nanos(100));
        }
    });
    assert!(bench.machine().alarms_set() <= 2, "{}", bench.machine().alarms_set());
}

#[test]
fn the_heap_keeps_its_order_whatever_is_taken_out_of_it() {
    let bench = Bench::new();
    let timers = bench.executor().timers();
    let fired = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    let mut expected = Vec::new();
    let mut state = 12_345_u64;
    for index in 0..if cfg!(miri) { 40 } else { 300_u64 } {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let deadline = state >> 50;
        let given_up = index % 3 == 0;
        let fired = Arc::clone(&fired);
        let give_up = Arc::new(executor::sync::Event::new());
        let told = Arc::clone(&give_up);
        bench.spawn(async move {
            let sleep = pin!(timers.sleep_until(Instant::from_nanos(deadline)));
            let told = pin!(told.wait());
            if let futures_util::future::Either::Left(_) = futures_util::future::select(sleep, told).await {
                fired.lock().unwrap().push(deadline);
            }
        });
        if given_up {
            tasks.push(give_up);
        } else {
            expected.push(deadline);
        }
    }
    bench.settle();
    let at_once = fired.lock().unwrap().len();
    assert_eq!(at_once, expected.iter().filter(|&&deadline| deadline == 0).count());
    tasks.iter().for_each(|event| event.notify());
    bench.advance(Duration::from_micros(20));
    expected.sort_unstable();
    assert_eq!(*fired.lock().unwrap(), expected);
}
