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
//! Next: `undo.rs`, then `syscall/semaphore.rs`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use abi::{Errno, Result, ipc};
use executor::Instant;
use executor::sync::{SpinLock, WaitQueue};
use fs::Credentials;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::identifiers::{Identified, Identifiers, Ownership};
use crate::mm::MakeRoom;
use crate::process::RunningThread;
use crate::process::wait_event::Interruptible;
use crate::wall_clock;

/// The most semaphores of a set: SEMMSL.
pub const MOST_IN_A_SET: usize = 32_000;
/// The most sets: SEMMNI.
pub const MOST_SETS: usize = 32_000;
/// The most semaphores: SEMMNS.
pub const MOST_SEMAPHORES: usize = MOST_IN_A_SET * MOST_SETS;
/// The most operations of a call: SEMOPM.
pub const MOST_OPERATIONS: usize = 500;
/// The right to read a set, of whichever class.
pub const READ: u32 = 0o444;
/// The right to alter it.
pub const ALTER: u32 = 0o222;
/// The largest value: SEMVMX.
pub const LARGEST_VALUE: i32 = 32_767;

/// All sets.
pub static SETS: SpinLock<Identifiers<Set>> = SpinLock::new(Identifiers::empty());

/// How many semaphores all sets together have.
static SEMAPHORES: AtomicUsize = AtomicUsize::new(0);

/// `struct sembuf`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Operation {
    /// Which semaphore of the set.
    pub number: u16,
    /// What is added to it; 0 waits until it is 0.
    pub change: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: u16,
}

impl Operation {
    /// Whether it is to be taken back when the process ends.
    pub fn is_undone(self) -> bool {
        u32::from(self.flags) & ipc::SEM_UNDO != 0
    }
}

/// The operations of a call: mostly one, which needs no memory of its own.
#[derive(PartialEq, Eq, Debug)]
pub enum Operations {
    /// One.
    One(Operation),
    /// Several.
    Several(Vec<Operation>),
}

impl Operations {
    /// All of them.
    pub fn as_slice(&self) -> &[Operation] {
        match self {
            Operations::One(operation) => core::slice::from_ref(operation),
            Operations::Several(operations) => operations,
        }
    }
}

/// Who operates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operator {
    /// The process.
    pub pid: i32,
    /// Which list takes back what it does ([`super::undo::UndoList::name`]).
    pub undo: Option<usize>,
}

/// One semaphore.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Semaphore {
    /// From 0 to [`LARGEST_VALUE`].
    pub value: i32,
    /// Who operated last.
    pub pid: i32,
}

/// What is to be added to a set's values when the threads of a list have ended.
struct Adjustments {
    list: usize,
    each: Vec<i16>,
}

/// What became of an attempt at a call's operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attempt {
    /// All are done.
    Done,
    /// None is done: this one has to wait.
    Blocked(usize),
    /// None is done, nor will be.
    Failed(Errno),
}

/// The values of a set.
struct Values {
    semaphores: Vec<Semaphore>,
    adjustments: Vec<Adjustments>,
}

/// What a sleeper waits for.
struct Pending {
    operations: Operations,
    operator: Operator,
    /// [`UNSETTLED`], or 0, or a number of an error. Written under the set's lock.
    outcome: AtomicI32,
    /// It alone waits here.
    queue: WaitQueue,
}

const UNSETTLED: i32 = -1;

/// A place in the line.
struct Waiting {
    pending: Arc<Pending>,
    /// Which of its operations has to wait.
    blocked: usize,
}

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

/// The rights that operations need.
fn rights(operations: &[Operation]) -> u32 {
    if operations.iter().any(|operation| operation.change != 0) { ALTER } else { READ }
}

/// Nanoseconds since 1970: they are divided when somebody asks.
fn now() -> u64 {
    wall_clock::offset().saturating_add(crate::arch::clock::now().as_nanos())
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
        let seconds = |nanoseconds: u64| nanoseconds / 1_000_000_000;
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

    /// Changes owner and permissions: IPC_SET.
    ///
    /// # Errors
    ///
    /// `EIDRM`: the set has just been removed.
    pub fn set_ownership(&self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        self.change(|state| {
            state.ownership = Ownership { uid, gid, mode: mode & 0o777, ..state.ownership };
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

impl State {
    /// After a change of values: does what those in the line can have now, from its front, until nobody can have anything.
    #[inline]
    fn settle(&mut self) {
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

    fn settle_one(&mut self, pending: Arc<Pending>, outcome: i32) {
        pending.outcome.store(outcome, Ordering::Release);
        self.settled.push_back(pending);
    }
}

impl Values {
    fn place_of(&self, list: usize) -> Option<usize> {
        self.adjustments.iter().position(|adjustments| adjustments.list == list)
    }

    /// Does all of the operations or none.
    fn attempt(&mut self, operations: &[Operation], operator: Operator) -> Attempt {
        let list = operator.undo.and_then(|list| self.place_of(list));
        for (index, operation) in operations.iter().enumerate() {
            if let Err(stopped) = self.apply(*operation, index, list) {
                operations[..index].iter().rev().for_each(|done| self.take_back(*done, list));
                return stopped;
            }
        }
        for operation in operations {
            self.semaphores[usize::from(operation.number)].pid = operator.pid;
        }
        Attempt::Done
    }

    fn apply(&mut self, operation: Operation, index: usize, list: Option<usize>) -> Result<(), Attempt> {
        let number = usize::from(operation.number);
        let Some(semaphore) = self.semaphores.get_mut(number) else { return Err(Attempt::Failed(Errno::EFBIG)) };
        let value = semaphore.value + i32::from(operation.change);
        if value < 0 || operation.change == 0 && value != 0 {
            let may_wait = u32::from(operation.flags) & ipc::IPC_NOWAIT == 0;
            return Err(if may_wait { Attempt::Blocked(index) } else { Attempt::Failed(Errno::EAGAIN) });
        }
        if value > LARGEST_VALUE {
            return Err(Attempt::Failed(Errno::ERANGE));
        }
        if let Some(adjustment) = adjustment(&mut self.adjustments, operation, list) {
            *adjustment = adjustment.checked_sub(operation.change).ok_or(Attempt::Failed(Errno::ERANGE))?;
        }
        semaphore.value = value;
        Ok(())
    }

    /// The opposite of [`Values::apply`], in the opposite order: so all stays within its limits.
    fn take_back(&mut self, operation: Operation, list: Option<usize>) {
        self.semaphores[usize::from(operation.number)].value -= i32::from(operation.change);
        if let Some(adjustment) = adjustment(&mut self.adjustments, operation, list) {
            *adjustment = adjustment.wrapping_add(operation.change);
        }
    }
}

/// Where it is noted what to take back of an operation, if it is.
fn adjustment(adjustments: &mut [Adjustments], operation: Operation, list: Option<usize>) -> Option<&mut i16> {
    if !operation.is_undone() {
        return None;
    }
    adjustments.get_mut(list?)?.each.get_mut(usize::from(operation.number))
}

impl Pending {
    fn outcome(&self) -> Option<Result<()>> {
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
struct Place<'a> {
    set: &'a Set,
    pending: &'a Arc<Pending>,
}

impl Place<'_> {
    /// Leaves the line; answers the outcome if there is one.
    fn leave(&self) -> Option<Result<()>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATOR: Operator = Operator { pid: 9, undo: Some(1) };

    fn values(values: &[i32]) -> Values {
        let semaphores = values.iter().map(|value| Semaphore { value: *value, pid: 0 }).collect();
        Values { semaphores, adjustments: vec![Adjustments { list: 1, each: vec![0; values.len()] }] }
    }

    fn operation(number: u16, change: i16, flags: u32) -> Operation {
        Operation { number, change, flags: flags as u16 }
    }

    fn seen(values: &Values) -> Vec<i32> {
        values.semaphores.iter().map(|semaphore| semaphore.value).collect()
    }

    #[test]
    fn operations_are_done_all_or_none_with_what_is_taken_back_of_them() {
        let mut set = values(&[2, 0]);
        let (down, undone) = (operation(0, -2, ipc::SEM_UNDO), operation(1, -1, 0));
        assert_eq!(set.attempt(&[down, undone], OPERATOR), Attempt::Blocked(1));
        assert_eq!((seen(&set), &set.adjustments[0].each), (vec![2, 0], &vec![0, 0]));
        let nowait = operation(1, -1, ipc::IPC_NOWAIT);
        assert_eq!(set.attempt(&[down, nowait], OPERATOR), Attempt::Failed(Errno::EAGAIN));
        assert_eq!(set.attempt(&[down, operation(0, 0, 0), operation(1, 3, 0)], OPERATOR), Attempt::Done);
        assert_eq!((seen(&set), &set.adjustments[0].each), (vec![0, 3], &vec![2, 0]));
        assert_eq!(set.semaphores.iter().map(|semaphore| semaphore.pid).collect::<Vec<_>>(), [9, 9]);
    }

    #[test]
    fn values_and_what_is_taken_back_have_limits() {
        let mut set = values(&[LARGEST_VALUE - 1]);
        assert_eq!(set.attempt(&[operation(0, 2, 0)], OPERATOR), Attempt::Failed(Errno::ERANGE));
        assert_eq!(set.attempt(&[operation(0, -LARGEST_VALUE as i16 + 1, ipc::SEM_UNDO)], OPERATOR), Attempt::Done);
        assert_eq!(set.attempt(&[operation(0, 32_767, 0)], OPERATOR), Attempt::Done);
        assert_eq!(set.attempt(&[operation(0, -2, ipc::SEM_UNDO)], OPERATOR), Attempt::Failed(Errno::ERANGE));
        assert_eq!(seen(&set), [32_767]);
    }
}
