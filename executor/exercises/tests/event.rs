//! Exercise 2: the interrupt comes at each step in turn.

use executor::testing::{WakeCounter, poll_once};
use exercises::world::interrupt::interrupted_at;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

type Wait = Box<dyn Future<Output = ()> + Unpin>;

/// Makes an event; answers what waits for it, and the handler that sets it.
type Make = fn() -> (Wait, Box<dyn FnOnce()>);

macro_rules! maker {
    ($name:ident, $event:ty) => {
        fn $name() -> (Wait, Box<dyn FnOnce()>) {
            let event = Arc::new(<$event>::default());
            let waited = Arc::clone(&event);
            (Box::new(Box::pin(async move { waited.wait().await })), Box::new(move || event.set()))
        }
    };
}

#[cfg(feature = "mine")]
maker!(subject, exercises::exercise::event::Event);
#[cfg(not(feature = "mine"))]
maker!(subject, exercises::solution::event::Event);

/// The first step at which an interrupt is lost: the task is neither ready nor woken.
fn lost_at(make: Make) -> Option<usize> {
    for step in 0.. {
        let (mut wait, set) = make();
        let woken = Arc::new(WakeCounter::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (poll, has_come) = interrupted_at(step, set, || poll_once(Pin::new(&mut wait), &waker));
        if !has_come {
            assert!(step > 1, "there are steps at which to interrupt");
            return None;
        }
        if poll.is_pending() && woken.count() == 0 {
            return Some(step);
        }
        if poll.is_pending() {
            assert!(poll_once(Pin::new(&mut wait), &waker).is_ready(), "it was woken, and it is so");
        }
    }
    unreachable!("the steps come to an end")
}

#[test]
fn an_interrupt_at_any_step_of_the_poll_ends_the_wait() {
    assert_eq!(lost_at(subject), None);
}

#[test]
fn an_interrupt_after_the_poll_wakes_the_task_once() {
    let (mut wait, set) = subject();
    let woken = Arc::new(WakeCounter::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(poll_once(Pin::new(&mut wait), &waker).is_pending());
    assert_eq!(woken.count(), 0, "a wait costs nothing until it is over");
    set();
    assert_eq!(woken.count(), 1);
    assert!(poll_once(Pin::new(&mut wait), &waker).is_ready());
}

/// Left out when you try your own work.
#[test]
#[cfg(not(feature = "mine"))]
fn the_starting_point_loses_an_interrupt_between_look_and_registration() {
    maker!(naive, exercises::exercise::event::Event);
    assert_eq!(lost_at(naive), Some(1));
}
