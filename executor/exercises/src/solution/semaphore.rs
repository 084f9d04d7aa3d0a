//! Solution 3: who is dropped leaves the line; if it was granted a permit that it has not looked at, it passes it on.
//!
//! The starting point loses a permit where it grants one to a claim that nobody waits with any more, and where a granted claim is
//! dropped without a look. With this `Drop` the first cannot happen, and the second releases the permit. Granting happens under the
//! line's lock, so that a claim either stands in the line or is granted when `drop` looks.

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

impl Claim {
    /// Grants it a permit; who is to be woken.
    fn grant(&self) -> Option<Waker> {
        let mut progress = self.progress.lock().expect("nobody panics in here");
        progress.is_granted = true;
        progress.waker.take()
    }
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
        let mut state = self.state();
        let Some(claim) = state.waiting.pop_front() else {
            state.free += 1;
            return;
        };
        let waker = claim.grant();
        drop(state);
        // Woken without a lock: a waker may be anybody's code.
        if let Some(waker) = waker {
            waker.wake();
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

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let mut state = self.semaphore.state();
        state.waiting.retain(|waiting| !Arc::ptr_eq(waiting, &claim));
        let was_granted = claim.progress.lock().expect("nobody panics in here").is_granted;
        drop(state);
        if was_granted {
            self.semaphore.release();
        }
    }
}
