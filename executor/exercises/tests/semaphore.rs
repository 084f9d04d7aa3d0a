//! Exercise 3: waiters that give up, at each point at which they can.

#[cfg(feature = "mine")]
use exercises::exercise::semaphore::Semaphore;
#[cfg(not(feature = "mine"))]
use exercises::solution::semaphore::Semaphore;

use executor::testing::{Bench, WakeCounter, cancel_at_every_await, poll_once};
use std::cell::Cell;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// A waker, and how often it was woken.
fn counted() -> (Arc<WakeCounter>, Waker) {
    let counter = Arc::new(WakeCounter::default());
    (Arc::clone(&counter), Waker::from(counter))
}

#[test]
fn permits_go_to_those_who_wait_in_the_order_in_which_they_came() {
    let bench = Bench::new();
    let semaphore = Arc::new(Semaphore::new(2));
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..6 {
        let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
        bench.spawn(async move {
            semaphore.acquire().await;
            order.lock().expect("nobody panics").push(number);
        });
    }
    bench.settle();
    assert_eq!(*order.lock().expect("nobody panics"), [0, 1]);
    for _ in 0..4 {
        semaphore.release();
        bench.settle();
    }
    assert_eq!(*order.lock().expect("nobody panics"), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_waiter_that_was_granted_a_permit_and_gives_up_passes_it_on() {
    let semaphore = Semaphore::new(0);
    let (mut first, mut second) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
    let ((one, waker_one), (two, waker_two)) = (counted(), counted());
    assert!(poll_once(first.as_mut(), &waker_one).is_pending());
    assert!(poll_once(second.as_mut(), &waker_two).is_pending());
    semaphore.release();
    assert_eq!((one.count(), two.count()), (1, 0), "it is the first one's");
    drop(first);
    assert_eq!(two.count(), 1, "now it is the second one's");
    assert!(poll_once(second.as_mut(), &waker_two).is_ready());
}

#[test]
fn a_waiter_that_gives_up_in_the_line_is_passed_over() {
    let semaphore = Semaphore::new(0);
    let (mut first, mut second) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
    let (two, waker) = counted();
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), &waker).is_pending());
    drop(first);
    semaphore.release();
    assert_eq!(two.count(), 1);
    assert!(poll_once(second.as_mut(), &waker).is_ready());
}

#[test]
fn dropped_at_every_await_it_loses_no_permit_and_makes_none() {
    let semaphore = Semaphore::new(0);
    let (given, taken) = (Cell::new(0), Cell::new(0));
    let polls = cancel_at_every_await(
        || async {
            for _ in 0..3 {
                semaphore.acquire().await;
                taken.set(taken.get() + 1);
            }
        },
        |_| {
            given.set(given.get() + 1);
            semaphore.release();
        },
        |polls| {
            assert_eq!(drain(&semaphore), given.take() - taken.take(), "dropped after {polls} polls");
        },
    );
    assert_eq!(polls, 4);
}

/// Takes all permits that are free, and says how many there were.
fn drain(semaphore: &Semaphore) -> usize {
    let take = || poll_once(pin!(semaphore.acquire()), Waker::noop()).is_ready();
    std::iter::repeat_with(take).take_while(|is_taken| *is_taken).count()
}

/// Left out when you try your own work.
#[test]
#[cfg(not(feature = "mine"))]
fn the_starting_point_loses_the_permit_of_a_waiter_that_gives_up() {
    use exercises::exercise::semaphore::Semaphore;

    let semaphore = Semaphore::new(0);
    let (mut first, mut second) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    semaphore.release();
    drop(first);
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending(), "one permit, nobody has it");
}
