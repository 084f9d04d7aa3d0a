//! Exercise 1, on the real executor.

#[cfg(feature = "mine")]
use exercises::exercise::countdown::Countdown;
#[cfg(not(feature = "mine"))]
use exercises::solution::countdown::Countdown;

use executor::testing::Bench;
use std::sync::{Arc, Mutex};

#[test]
fn it_is_polled_once_more_than_it_gives_way() {
    for turns in [0, 1, 5] {
        assert_eq!(Bench::new().block_on(Countdown::new(turns)), turns + 1);
    }
}

#[test]
fn two_of_them_take_turns() {
    let bench = Bench::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for name in ["a", "b"] {
        let order = Arc::clone(&order);
        bench.spawn(async move {
            for _ in 0..3 {
                order.lock().expect("nobody panics").push(name);
                Countdown::new(1).await;
            }
        });
    }
    bench.settle();
    assert_eq!(*order.lock().expect("nobody panics"), ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn it_does_not_keep_its_task_awake_when_it_is_over() {
    let bench = Bench::new();
    let task = bench.spawn(async {
        Countdown::new(2).await;
        std::future::pending().await
    });
    bench.settle();
    assert_eq!(task.polls(), 3);
}

/// Left out when you try your own work.
#[test]
#[cfg(not(feature = "mine"))]
#[should_panic(expected = "deadlock")]
fn the_starting_point_is_never_polled_again() {
    Bench::new().block_on(exercises::exercise::countdown::Countdown::new(1));
}
