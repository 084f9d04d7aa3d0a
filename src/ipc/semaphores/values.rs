//! The values of a set, and operations on them: all of a call's or none.
//!
//! Next: `line.rs`.

use alloc::vec::Vec;

use abi::{Errno, Result, ipc};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ipc::identifiers::{ALTER, READ};

/// The most operations of a call: SEMOPM.
pub const MOST_OPERATIONS: usize = 500;
/// The largest value: SEMVMX.
pub const LARGEST_VALUE: i32 = 32_767;

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
    /// Which list takes back what it does ([`crate::ipc::undo::UndoList::name`]).
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
pub(super) struct Adjustments {
    pub(super) list: usize,
    pub(super) each: Vec<i16>,
}

/// What became of an attempt at a call's operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// All are done.
    Done,
    /// None is done: this one has to wait.
    Blocked(usize),
    /// None is done, nor will be.
    Failed(Errno),
}

/// The values of a set.
pub(super) struct Values {
    pub(super) semaphores: Vec<Semaphore>,
    pub(super) adjustments: Vec<Adjustments>,
}

/// The rights that operations need.
pub(super) fn rights(operations: &[Operation]) -> u32 {
    if operations.iter().any(|operation| operation.change != 0) { ALTER } else { READ }
}

impl Values {
    pub(super) fn place_of(&self, list: usize) -> Option<usize> {
        self.adjustments.iter().position(|adjustments| adjustments.list == list)
    }

    /// Does all of the operations or none.
    pub(super) fn attempt(&mut self, operations: &[Operation], operator: Operator) -> Attempt {
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
