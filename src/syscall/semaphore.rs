//! System V semaphores: semget(2), semop(2), semctl(2). What they do is in `ipc/semaphores.rs`.
//!
//! Next: `ipc/semaphores.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, ipc};
use zerocopy::IntoBytes;

use super::time::{self, Timespec};
use crate::ipc::identifiers::{ALTER, Identified, Ownership, READ};
use crate::ipc::semaphores::{
    LARGEST_VALUE, MOST_IN_A_SET, MOST_OPERATIONS, MOST_SEMAPHORES, MOST_SETS, Operation, Operations, Operator, SETS,
    Set, semaphore_count,
};
use crate::ipc::undo::UndoList;
use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;

/// How many operations a call may have that is answered without a future; most have one.
const FEW: usize = 4;

/// `struct semid64_ds`.
type SetInformation = [u64; 13];

/// `struct seminfo`.
type Limits = [i32; 10];

/// semget(2). `EACCES`, `EEXIST`, `EINVAL`, `ENOENT`, `ENOMEM`, `ENOSPC`.
pub fn semget(thread: &mut RunningThread, key: i32, count: i32, flags: u32) -> Result<usize> {
    let count = usize::try_from(count).ok().filter(|count| *count <= MOST_IN_A_SET).ok_or(Errno::EINVAL)?;
    let found = SETS.lock().find(key);
    if let Some(set) = found {
        return open(thread, &set, count, flags);
    }
    if key != ipc::IPC_PRIVATE && flags & ipc::IPC_CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let semaphores = Set::zeros(count)?;
    let mut sets = SETS.lock();
    // Somebody may have been faster.
    match sets.find(key) {
        Some(set) => {
            drop(sets);
            open(thread, &set, count, flags)
        }
        None => {
            let ownership = Ownership::new(key, flags, &thread.credentials);
            Set::make(&mut sets, ownership, semaphores).map(|id| id as usize)
        }
    }
}

/// The identifier of a set that is there, as semget(2) answers it.
fn open(thread: &RunningThread, set: &Set, count: usize, flags: u32) -> Result<usize> {
    if flags & ipc::IPC_CREAT != 0 && flags & ipc::IPC_EXCL != 0 {
        return Err(Errno::EEXIST);
    }
    if count > set.count() {
        return Err(Errno::EINVAL);
    }
    set.ownership().check(&thread.credentials, flags & 0o777)?;
    Ok(set.id() as usize)
}

/// As [`semop`], without waiting.
pub fn semop_now(
    thread: &mut RunningThread,
    id: i32,
    operations: UserPtr<Operation>,
    count: u32,
) -> Option<Result<usize>> {
    let mut room = [Operation::default(); FEW];
    let few = room.get_mut(..count as usize).filter(|few| !few.is_empty())?;
    for (index, operation) in few.iter_mut().enumerate() {
        *operation = thread.try_get(operations.element(index))?;
    }
    let outcome =
        begin(thread, id, few).and_then(|(set, operator)| set.try_operate(&thread.credentials, few, operator));
    match outcome {
        Ok(true) => Some(Ok(0)),
        Ok(false) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// semop(2). `E2BIG`, `EACCES`, `EAGAIN`, `EFAULT`, `EFBIG`, `EIDRM`, `EINTR`, `EINVAL`, `ENOMEM`, `ERANGE`. Signals interrupt it for good.
pub async fn semop(thread: &mut RunningThread, id: i32, operations: UserPtr<Operation>, count: u32) -> Result<usize> {
    semtimedop(thread, id, operations, count, UserPtr::new(0)).await
}

/// As [`semtimedop`] without a time limit, without waiting.
pub fn semtimedop_now(
    thread: &mut RunningThread,
    id: i32,
    operations: UserPtr<Operation>,
    count: u32,
    timeout: UserPtr<Timespec>,
) -> Option<Result<usize>> {
    if timeout.is_null() { semop_now(thread, id, operations, count) } else { None }
}

/// semtimedop(2). As [`semop`]; `EAGAIN` also when the time is over, `EINVAL` also for a time that is none.
pub async fn semtimedop(
    thread: &mut RunningThread,
    id: i32,
    operations: UserPtr<Operation>,
    count: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let timeout = match timeout.non_null() {
        Some(timeout) => Some(thread.get(timeout).await?),
        None => None,
    };
    let count = count as usize;
    if count > MOST_OPERATIONS {
        return Err(Errno::E2BIG);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let operations = match count {
        1 => Operations::One(thread.get(operations).await?),
        _ => Operations::Several(thread.space.read_user_array(operations, count).await?),
    };
    let deadline = match timeout {
        Some(timeout) => Some(time::after(time::duration(timeout)?)),
        None => None,
    };
    let (set, operator) = begin(thread, id, operations.as_slice())?;
    set.operate(thread, operations, operator, deadline).await.map(|()| 0)
}

/// Finds the set, and prepares what is to be taken back.
fn begin(thread: &mut RunningThread, id: i32, operations: &[Operation]) -> Result<(Arc<Set>, Operator)> {
    let set = SETS.lock().get(id)?;
    if operations.iter().any(|operation| usize::from(operation.number) >= set.count()) {
        return Err(Errno::EFBIG);
    }
    let undo = if operations.iter().any(|operation| operation.is_undone()) {
        let list = thread.semaphore_undo.get_or_insert_with(UndoList::new);
        list.prepare(&set)?;
        Some(list.name())
    } else {
        None
    };
    Ok((set, Operator { pid: thread.process.pid, undo }))
}

/// semctl(2). `EACCES`, `EFAULT`, `EIDRM`, `EINVAL`, `ENOMEM`, `EPERM`, `ERANGE`.
pub async fn semctl(
    thread: &mut RunningThread,
    id: i32,
    number: i32,
    command: u32,
    argument: UserPtr<u8>,
) -> Result<usize> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        ipc::IPC_INFO | ipc::SEM_INFO => {
            let (limits, largest) = limits(command == ipc::SEM_INFO);
            thread.put(argument.cast(), &limits).await?;
            Ok(largest)
        }
        ipc::IPC_STAT | ipc::SEM_STAT | ipc::SEM_STAT_ANY => {
            let is_by_index = command != ipc::IPC_STAT;
            let set = if is_by_index { SETS.lock().at(id)? } else { SETS.lock().get(id)? };
            if command != ipc::SEM_STAT_ANY {
                set.ownership().check(&thread.credentials, READ)?;
            }
            thread.put(argument.cast(), &information(&set)).await?;
            Ok(if is_by_index { set.id() as usize } else { 0 })
        }
        // The argument is a number here, of which an int is meant.
        ipc::SETVAL => set_value(thread, id, number, argument.address() as i32),
        ipc::SETALL | ipc::GETALL => all_values(thread, id, command == ipc::SETALL, argument.cast()).await,
        ipc::GETVAL | ipc::GETPID | ipc::GETNCNT | ipc::GETZCNT => ask(thread, id, number, command),
        ipc::IPC_SET => {
            let wanted: SetInformation = thread.get(argument.cast()).await?;
            let set = controlled(thread, id)?;
            set.set_ownership(&wanted).map(|()| 0)
        }
        ipc::IPC_RMID => {
            controlled(thread, id)?;
            let removed = SETS.lock().remove(id).ok_or(Errno::EIDRM)?;
            removed.retire();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The set, if the caller may change or remove it.
fn controlled(thread: &RunningThread, id: i32) -> Result<Arc<Set>> {
    let set = SETS.lock().get(id)?;
    set.ownership().check_control(&thread.credentials)?;
    Ok(set)
}

fn set_value(thread: &RunningThread, id: i32, number: i32, value: i32) -> Result<usize> {
    if !(0..=LARGEST_VALUE).contains(&value) {
        return Err(Errno::ERANGE);
    }
    let set = SETS.lock().get(id)?;
    let number = place(&set, number)?;
    set.ownership().check(&thread.credentials, ALTER)?;
    set.set_values(number, &[value as u16], thread.process.pid).map(|()| 0)
}

fn place(set: &Set, number: i32) -> Result<usize> {
    usize::try_from(number).ok().filter(|number| *number < set.count()).ok_or(Errno::EINVAL)
}

async fn all_values(thread: &RunningThread, id: i32, sets_them: bool, array: UserPtr<u16>) -> Result<usize> {
    let set = SETS.lock().get(id)?;
    set.ownership().check(&thread.credentials, if sets_them { ALTER } else { READ })?;
    if sets_them {
        let values: Vec<u16> = thread.space.read_user_array(array, set.count()).await?;
        if values.iter().any(|value| i32::from(*value) > LARGEST_VALUE) {
            return Err(Errno::ERANGE);
        }
        set.set_values(0, &values, thread.process.pid)?;
    } else {
        let mut values: Vec<u16> = Vec::new();
        values.make_exact_room(set.count())?;
        values.resize(set.count(), 0);
        set.copy_values(&mut values);
        thread.space.write_user_bytes(array.address(), values.as_bytes()).await?;
    }
    Ok(0)
}

fn ask(thread: &RunningThread, id: i32, number: i32, command: u32) -> Result<usize> {
    let set = SETS.lock().get(id)?;
    set.ownership().check(&thread.credentials, READ)?;
    let number = place(&set, number)?;
    let semaphore = set.semaphore(number).ok_or(Errno::EINVAL)?;
    Ok(match command {
        ipc::GETVAL => semaphore.value as usize,
        ipc::GETPID => semaphore.pid as usize,
        ipc::GETNCNT => set.waiters(number).0,
        _ => set.waiters(number).1,
    })
}

/// IPC_INFO, or SEM_INFO, which tells in two of the places how much there is; and the largest index in use.
fn limits(tells_use: bool) -> (Limits, usize) {
    /// SEMUSZ: what an undo structure once took.
    const UNDO_SIZE: usize = 20;
    let sets = SETS.lock();
    let (in_two_places, largest) = match tells_use {
        true => ([sets.len(), semaphore_count()], sets.largest_index()),
        false => ([UNDO_SIZE, LARGEST_VALUE as usize], sets.largest_index()),
    };
    let limits = [
        MOST_SEMAPHORES,
        MOST_SETS,
        MOST_SEMAPHORES,
        MOST_SEMAPHORES,
        MOST_IN_A_SET,
        MOST_OPERATIONS,
        MOST_OPERATIONS,
        in_two_places[0],
        LARGEST_VALUE as usize,
        in_two_places[1],
    ];
    (limits.map(|limit| limit as i32), largest)
}

fn information(set: &Set) -> SetInformation {
    let about = set.describe();
    let [a, b, c, d, e, f] = about.ownership.words(set.sequence());
    [a, b, c, d, e, f, about.operated, 0, about.changed, 0, about.count as u64, 0, 0]
}
