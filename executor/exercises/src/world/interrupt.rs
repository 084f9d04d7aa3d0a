//! One CPU with interrupts: between any two steps of a task an interrupt handler may run, from its beginning to its end.
//!
//! What task and handler share is a [`Flag`] and a [`Slot`] for a waker. Each use of them is a step, and a test says before which step
//! the interrupt comes. Tried for every step, that is all that can happen on one CPU.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

/// A handler, and how many steps are left until it runs.
type Pending = (usize, Box<dyn FnOnce()>);

thread_local! {
    static INTERRUPT: RefCell<Option<Pending>> = const { RefCell::new(None) };
}

/// Runs `task`, and `handler` before its step number `step`, counted from 0. Says whether the task had that many.
pub fn interrupted_at<R>(step: usize, handler: impl FnOnce() + 'static, task: impl FnOnce() -> R) -> (R, bool) {
    INTERRUPT.with(|interrupt| *interrupt.borrow_mut() = Some((step, Box::new(handler))));
    let result = task();
    let is_left = INTERRUPT.with(|interrupt| interrupt.borrow_mut().take()).is_some();
    (result, !is_left)
}

/// Between two steps.
fn step() {
    let due = INTERRUPT.with(|interrupt| {
        let mut interrupt = interrupt.borrow_mut();
        match interrupt.as_mut() {
            Some((0, _)) => interrupt.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    });
    if let Some((_, handler)) = due {
        handler();
    }
}

/// Something that has happened, or not.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// It has happened.
    pub fn raise(&self) {
        step();
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it has happened.
    pub fn is_raised(&self) -> bool {
        step();
        self.0.load(Ordering::SeqCst)
    }
}

/// Room for one waker.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<Waker>>);

impl Slot {
    /// Puts a waker in, in place of the one that is there.
    pub fn put(&self, waker: Waker) {
        step();
        *self.0.lock().expect("nobody panics in here") = Some(waker);
    }

    /// Takes the waker out.
    pub fn take(&self) -> Option<Waker> {
        step();
        self.0.lock().expect("nobody panics in here").take()
    }
}
