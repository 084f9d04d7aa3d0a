//! Exercise 3: a semaphore whose waiters may give up.
//!
//! Permits are handed out in the order in which they were asked for. A future may be dropped at any time, as a read that is interrupted by
//! a signal is: before its first poll, while it waits, and after it was granted a permit that it has not looked at yet. Whichever it is,
//! no permit is lost, and the next one gets it.
//!
//! The starting point does not notice that a waiter is gone. Which two of its lines lose a permit then?
//!
//! Compare: `executor/src/sync/semaphore.rs`, which needs no memory for a waiter. Test: `tests/semaphore.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Permits that tasks wait for, first come, first served.
#[derive(Debug)]
pub struct Semaphore(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<Arc<Claim>>,
}

/// Somebody who waits.
#[derive(Debug, Default)]
struct Claim {
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    is_granted: bool,
    waker: Option<Waker>,
}

impl Semaphore {
    /// A semaphore with so many free permits.
    pub fn new(permits: usize) -> Semaphore {
        Semaphore(Mutex::new(State { free: permits, waiting: VecDeque::new() }))
    }

    /// Waits for a permit. It is the caller's until it is released.
    pub fn acquire(&self) -> Acquire<'_> {
        Acquire { semaphore: self, claim: None }
    }

    /// Gives a permit back.
    pub fn release(&self) {
        let first = {
            let mut state = self.state();
            let first = state.waiting.pop_front();
            if first.is_none() {
                state.free += 1;
            }
            first
        };
        if let Some(claim) = first {
            let mut progress = claim.progress.lock().expect("nobody panics in here");
            progress.is_granted = true;
            if let Some(waker) = progress.waker.take() {
                drop(progress);
                waker.wake();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics in here")
    }
}

/// Waits for a permit: see [`Semaphore::acquire`].
#[derive(Debug)]
pub struct Acquire<'s> {
    semaphore: &'s Semaphore,
    /// Its place in the line, once it stands there.
    claim: Option<Arc<Claim>>,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let semaphore = self.semaphore;
        let mut state = semaphore.state();
        let claim = match &self.claim {
            Some(claim) => Arc::clone(claim),
            None if state.free > 0 => {
                state.free -= 1;
                return Poll::Ready(());
            }
            None => {
                let claim = Arc::<Claim>::default();
                state.waiting.push_back(Arc::clone(&claim));
                self.claim = Some(Arc::clone(&claim));
                claim
            }
        };
        let mut progress = claim.progress.lock().expect("nobody panics in here");
        if progress.is_granted {
            self.claim = None;
            return Poll::Ready(());
        }
        progress.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
