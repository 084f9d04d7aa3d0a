//! Sets of System V semaphores (semop(2)).
//!
//! A call's operations are done all at once or not at all. Who cannot go on stands in the set's line with what it wants; whoever
//! changes a value does, under the same lock, what others in the line can now have, first come first served, and wakes them with the
//! outcome. So a sleeper that was served cannot be overtaken, and a wake-up cannot be lost: to be woken is to be done.
//!
//! ```text
//!   waiter                                   whoever changes a value
//!   lock; attempt: blocked                   lock; change
//!   join the line; unlock                    settle: attempt for each in the line; note outcomes
//!   wait_event until there is an outcome     unlock; wake those with an outcome
//! ```
//!
//! A signal, a time limit or the removal of the set ends the wait otherwise; what was settled before that holds.
//!
//! Next: `semaphores/values.rs`.

mod line;
mod values;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use abi::{Errno, Result};
use executor::Instant;
use executor::sync::{SpinLock, WaitQueue};
use fs::Credentials;

use self::line::{Pending, Place, UNSETTLED, Waiting};
use self::values::{Adjustments, Attempt, Values, rights};
pub use self::values::{LARGEST_VALUE, MOST_OPERATIONS, Operation, Operations, Operator, Semaphore};
use super::identifiers::{Identified, Identifiers, Ownership, now, seconds};
use crate::mm::MakeRoom;
use crate::process::RunningThread;
use crate::process::wait_event::Interruptible;

/// The most semaphores of a set: SEMMSL.
pub const MOST_IN_A_SET: usize = 32_000;
/// The most sets: SEMMNI.
pub const MOST_SETS: usize = 32_000;
/// The most semaphores: SEMMNS.
pub const MOST_SEMAPHORES: usize = MOST_IN_A_SET * MOST_SETS;
/// All sets.
pub static SETS: SpinLock<Identifiers<Set>> = SpinLock::new(Identifiers::empty());

/// How many semaphores all sets together have.
static SEMAPHORES: AtomicUsize = AtomicUsize::new(0);

/// What changes of a set.
struct State {
    ownership: Ownership,
    values: Values,
    line: VecDeque<Waiting>,
    /// Those with an outcome who were not woken yet. There is always room for the whole line.
    settled: VecDeque<Arc<Pending>>,
    /// When somebody last operated, and when somebody last changed the set, in nanoseconds since 1970.
    operated: u64,
    changed: u64,
    is_removed: bool,
}

/// A set of semaphores.
pub struct Set {
    id: i32,
    key: i32,
    count: usize,
    state: SpinLock<State>,
}

/// What IPC_STAT tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Owner and permissions.
    pub ownership: Ownership,
    /// When somebody last operated, in seconds since 1970; 0 for never.
    pub operated: u64,
    /// When the set was last changed.
    pub changed: u64,
    /// How many semaphores there are.
    pub count: usize,
}

impl Identified for Set {
    fn id(&self) -> i32 {
        self.id
    }

    fn key(&self) -> i32 {
        self.key
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        SEMAPHORES.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// How many semaphores there are in all sets.
pub fn semaphore_count() -> usize {
    SEMAPHORES.load(Ordering::Relaxed)
}

impl Set {
    /// Memory for a set of so many semaphores, all 0: taken before the table is locked.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn zeros(count: usize) -> Result<Vec<Semaphore>> {
        let mut semaphores = Vec::new();
        semaphores.make_exact_room(count)?;
        semaphores.resize(count, Semaphore::default());
        Ok(semaphores)
    }

    /// Makes a set and answers its identifier.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are too many sets or semaphores. `ENOMEM`.
    pub fn make(sets: &mut Identifiers<Set>, ownership: Ownership, semaphores: Vec<Semaphore>) -> Result<i32> {
        let count = semaphores.len();
        if count > MOST_SEMAPHORES - semaphore_count() {
            return Err(Errno::ENOSPC);
        }
        let state = State {
            ownership,
            values: Values { semaphores, adjustments: Vec::new() },
            line: VecDeque::new(),
            settled: VecDeque::new(),
            operated: 0,
            changed: now(),
            is_removed: false,
        };
        sets.add(MOST_SETS, |id| {
            SEMAPHORES.fetch_add(count, Ordering::Relaxed);
            Arc::new(Set { id, key: ownership.key, count, state: SpinLock::new(state) })
        })
    }

    /// How many semaphores it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its owner and permissions.
    #[inline]
    pub fn ownership(&self) -> Ownership {
        self.state.lock().ownership
    }

    /// What there is to tell.
    pub fn describe(&self) -> Description {
        let state = self.state.lock();
        let (operated, changed) = (seconds(state.operated), seconds(state.changed));
        Description { ownership: state.ownership, operated, changed, count: self.count }
    }

    /// One semaphore, if there are so many.
    pub fn semaphore(&self, number: usize) -> Option<Semaphore> {
        self.state.lock().values.semaphores.get(number).copied()
    }

    /// How many wait for one semaphore: until it is larger, and until it is 0.
    pub fn waiters(&self, number: usize) -> (usize, usize) {
        let state = self.state.lock();
        let blocking =
            state.line.iter().filter_map(|waiting| waiting.pending.operations.as_slice().get(waiting.blocked));
        let here = blocking.filter(|operation| usize::from(operation.number) == number);
        here.fold(
            (0, 0),
            |(larger, zero), operation| {
                if operation.change == 0 { (larger, zero + 1) } else { (larger + 1, zero) }
            },
        )
    }

    /// All values, into a list of that length.
    pub fn copy_values(&self, into: &mut [u16]) {
        let state = self.state.lock();
        // Values are at most 32,767.
        into.iter_mut().zip(&state.values.semaphores).for_each(|(into, semaphore)| *into = semaphore.value as u16);
    }

    /// Sets values from number `first` on: SETVAL, SETALL. Nobody takes back what was done to them before.
    ///
    /// # Errors
    ///
    /// `EIDRM`: the set has just been removed.
    pub fn set_values(&self, first: usize, values: &[u16], pid: i32) -> Result<()> {
        self.change(|state| {
            let range = first..(first + values.len()).min(self.count);
            for (semaphore, value) in state.values.semaphores[range.clone()].iter_mut().zip(values) {
                *semaphore = Semaphore { value: i32::from(*value), pid };
            }
            for adjustments in &mut state.values.adjustments {
                adjustments.each[range.clone()].fill(0);
            }
            state.changed = now();
            state.settle();
            Ok(())
        })
    }

    /// Changes owner and permissions to those of a `struct ipc64_perm`: IPC_SET.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no such user or group. `EIDRM`: the set has just been removed.
    pub fn set_ownership(&self, words: &[u64]) -> Result<()> {
        self.change(|state| {
            state.ownership = state.ownership.changed(words)?;
            state.changed = now();
            Ok(())
        })
    }

    /// Ends all waits: the set has been taken out of the table.
    pub fn retire(&self) {
        {
            let mut state = self.state.lock();
            state.is_removed = true;
            state.values.adjustments.clear();
            while let Some(waiting) = state.line.pop_front() {
                state.settle_one(waiting.pending, i32::from(Errno::EIDRM.number()));
            }
        }
        self.wake_settled();
    }

    /// Whether it has been removed.
    pub fn is_removed(&self) -> bool {
        self.state.lock().is_removed
    }

    /// Does all operations if that is possible now. False: one has to wait, and none is done.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: one would have to wait and must not. `ERANGE`: a value, or what is to be taken back, would be too large. `EACCES`: the
    /// set is not the caller's to read, or to alter. `EIDRM`.
    #[inline]
    pub fn try_operate(&self, credentials: &Credentials, operations: &[Operation], operator: Operator) -> Result<bool> {
        self.change(|state| {
            state.ownership.check(credentials, rights(operations))?;
            match state.values.attempt(operations, operator) {
                Attempt::Done => {
                    state.operated = now();
                    state.settle();
                    Ok(true)
                }
                Attempt::Blocked(_) => Ok(false),
                Attempt::Failed(errno) => Err(errno),
            }
        })
    }

    /// Does all operations, as soon as that is possible.
    ///
    /// # Errors
    ///
    /// As [`Set::try_operate`]; `EAGAIN` also if the deadline passes; `EINTR`: a signal came; `EIDRM`: the set was removed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the line. Operations may have been done that nobody hears of.
    pub async fn operate(
        &self,
        thread: &RunningThread,
        operations: Operations,
        operator: Operator,
        deadline: Option<Instant>,
    ) -> Result<()> {
        // Small, and bounded by the number of threads, which the gate has admitted.
        let outcome = AtomicI32::new(UNSETTLED);
        let pending = Arc::new(Pending { operations, operator, outcome, queue: WaitQueue::new() });
        let is_done = self.change(|state| {
            state.ownership.check(&thread.credentials, rights(pending.operations.as_slice()))?;
            match state.values.attempt(pending.operations.as_slice(), operator) {
                Attempt::Done => {
                    state.operated = now();
                    state.settle();
                    Ok(true)
                }
                Attempt::Blocked(blocked) => {
                    let places = state.line.len() + 1;
                    state.line.make_room(1)?;
                    let room = places.saturating_sub(state.settled.len());
                    state.settled.make_room(room)?;
                    state.line.push_back(Waiting { pending: pending.clone(), blocked });
                    Ok(false)
                }
                Attempt::Failed(errno) => Err(errno),
            }
        })?;
        if is_done {
            return Ok(());
        }
        let place = Place { set: self, pending: &pending };
        let waited = thread.wait_event(&pending.queue, Interruptible::BySignals, deadline, || pending.outcome()).await;
        match waited {
            Ok(outcome) => outcome,
            // It may have been served meanwhile.
            Err(why) => {
                place.leave().unwrap_or(Err(if why == Errno::ETIMEDOUT { Errno::EAGAIN } else { Errno::EINTR }))
            }
        }
    }

    /// Makes sure that there are adjustments for a list, and says whether it has them from now on (and had none before).
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIDRM`.
    pub(super) fn prepare_undo(&self, list: usize) -> Result<bool> {
        if self.state.lock().values.place_of(list).is_some() {
            return Ok(false);
        }
        let mut each = Vec::new();
        each.make_exact_room(self.count)?;
        each.resize(self.count, 0);
        let mut state = self.state.lock();
        if state.is_removed {
            return Err(Errno::EIDRM);
        }
        if state.values.place_of(list).is_some() {
            return Ok(false); // another thread was faster
        }
        state.values.adjustments.make_room(1)?;
        state.values.adjustments.push(Adjustments { list, each });
        Ok(true)
    }

    /// Takes back what the threads of a list did.
    pub(super) fn undo(&self, list: usize, pid: i32) {
        // One that has been removed has no adjustments.
        let _ = self.change(|state| {
            let values = &mut state.values;
            let Some(place) = values.place_of(list) else { return Ok(()) };
            let adjustments = values.adjustments.swap_remove(place);
            for (semaphore, adjustment) in values.semaphores.iter_mut().zip(adjustments.each) {
                if adjustment != 0 {
                    let value = (semaphore.value + i32::from(adjustment)).clamp(0, LARGEST_VALUE);
                    *semaphore = Semaphore { value, pid };
                }
            }
            state.operated = now();
            state.settle();
            Ok(())
        });
    }

    /// Changes the set, and wakes those whose waiting that has settled.
    #[inline]
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let (result, has_settled) = {
            let mut state = self.state.lock();
            if state.is_removed {
                return Err(Errno::EIDRM);
            }
            let result = change(&mut state);
            (result, !state.settled.is_empty())
        };
        if has_settled {
            self.wake_settled();
        }
        result
    }

    /// One at a time, so that nothing is allocated and no waker runs under the lock.
    fn wake_settled(&self) {
        let mut is_more = true;
        while is_more {
            let pending = {
                let mut state = self.state.lock();
                let first = state.settled.pop_front();
                is_more = !state.settled.is_empty();
                first
            };
            if let Some(pending) = pending {
                pending.queue.wake_all();
            }
        }
    }
}
