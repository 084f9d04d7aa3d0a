//! The line of those who wait for what a set does not have yet: who is served, and how a sleeper leaves.
//!
//! Next: `../undo.rs`, then `syscall/semaphore.rs`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering};

use abi::{Errno, Result};
use executor::sync::WaitQueue;

use super::values::{Attempt, Operations, Operator};
use super::{Set, State};
use crate::ipc::identifiers::now;

/// What a sleeper waits for.
pub(super) struct Pending {
    pub(super) operations: Operations,
    pub(super) operator: Operator,
    /// [`UNSETTLED`], or 0, or a number of an error. Written under the set's lock.
    pub(super) outcome: AtomicI32,
    /// It alone waits here.
    pub(super) queue: WaitQueue,
}

pub(super) const UNSETTLED: i32 = -1;

/// A place in the line.
pub(super) struct Waiting {
    pub(super) pending: Arc<Pending>,
    /// Which of its operations has to wait.
    pub(super) blocked: usize,
}

impl State {
    /// After a change of values: does what those in the line can have now, from its front, until nobody can have anything.
    #[inline]
    pub(super) fn settle(&mut self) {
        if !self.line.is_empty() {
            self.settle_line();
        }
    }

    fn settle_line(&mut self) {
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            let mut place = 0;
            while let Some(waiting) = self.line.get_mut(place) {
                let pending = &waiting.pending;
                let outcome = match self.values.attempt(pending.operations.as_slice(), pending.operator) {
                    Attempt::Blocked(blocked) => {
                        waiting.blocked = blocked;
                        place += 1;
                        continue;
                    }
                    Attempt::Done => 0,
                    Attempt::Failed(errno) => i32::from(errno.number()),
                };
                if outcome == 0 {
                    self.operated = now();
                    has_changed |= pending.operations.as_slice().iter().any(|operation| operation.change != 0);
                }
                if let Some(waiting) = self.line.remove(place) {
                    self.settle_one(waiting.pending, outcome);
                }
            }
        }
    }

    pub(super) fn settle_one(&mut self, pending: Arc<Pending>, outcome: i32) {
        pending.outcome.store(outcome, Ordering::Release);
        self.settled.push_back(pending);
    }
}

impl Pending {
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        match self.outcome.load(Ordering::Acquire) {
            UNSETTLED => None,
            0 => Some(Ok(())),
            number if number == i32::from(Errno::EIDRM.number()) => Some(Err(Errno::EIDRM)),
            number if number == i32::from(Errno::EAGAIN.number()) => Some(Err(Errno::EAGAIN)),
            _ => Some(Err(Errno::ERANGE)),
        }
    }
}

/// A sleeper's place in the line; it is given up when the wait ends, however it ends.
pub(super) struct Place<'a> {
    pub(super) set: &'a Set,
    pub(super) pending: &'a Arc<Pending>,
}

impl Place<'_> {
    /// Leaves the line; answers the outcome if there is one.
    pub(super) fn leave(&self) -> Option<Result<()>> {
        let mut state = self.set.state.lock();
        let outcome = self.pending.outcome();
        if outcome.is_none() {
            state.line.retain(|waiting| !Arc::ptr_eq(&waiting.pending, self.pending));
        }
        outcome
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.pending.outcome().is_none() {
            self.leave();
        }
    }
}
