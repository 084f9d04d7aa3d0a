//! File locks: record locks of fcntl(2), and flock(2). What they mean is in `fs/src/locks.rs`; here they are waited for.

use alloc::sync::Arc;

use abi::{Errno, Result, general};
use fs::locks::{FileLocks, LockOwner, RecordLock};
use fs::{OpenFile, Stop};

use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::wait_event::Interruptible;

/// `struct flock`: kind and whence, start, length, process.
type Flock = [u64; 4];

/// F_GETLK, F_SETLK and F_SETLKW of fcntl(2), for this owner.
///
/// # Errors
///
/// `EBADF`: not a file, or open the wrong way. `EINVAL`, `EOVERFLOW`: a bad range. `EAGAIN`: somebody has it. `EDEADLK`, `ENOLCK`,
/// `EFAULT`; interrupted by signals, restarts.
pub async fn record_lock(
    thread: &mut RunningThread,
    file: &Arc<OpenFile>,
    owner: LockOwner,
    command: u32,
    pointer: UserPtr<Flock>,
) -> Result<usize> {
    let [head, start, len, _] = thread.get(pointer).await?;
    let (kind, whence) = (head as u16, (head >> 16) as u16);
    let inode = file.inode.as_ref().ok_or(Errno::EBADF)?;
    let bytes = locked_range(file, u32::from(whence), start as i64, len as i64)?;
    let locks = FileLocks::of(inode.core());
    let is_exclusive = match u32::from(kind) {
        general::F_RDLCK => false,
        general::F_WRLCK => true,
        general::F_UNLCK if command != general::F_GETLK => {
            locks.unlock_record(owner, &bytes)?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let wanted = RecordLock { owner, pid: thread.process.pid, is_exclusive, bytes };
    if command == general::F_GETLK {
        let answer = match locks.conflicting(&wanted) {
            None => [head & !0xffff | u64::from(general::F_UNLCK), start, len, 0],
            Some(other) => {
                let kind = if other.is_exclusive { general::F_WRLCK } else { general::F_RDLCK };
                let len = if other.bytes.end == u64::MAX { 0 } else { other.bytes.end - other.bytes.start };
                let pid = if matches!(other.owner, LockOwner::Process(_)) { other.pid } else { -1 };
                [u64::from(kind), other.bytes.start, len, pid as u32 as u64]
            }
        };
        thread.put(pointer, &answer).await?;
        return Ok(0);
    }
    let may = if is_exclusive { file.flags().can_write() } else { file.flags().can_read() };
    if !may {
        return Err(Errno::EBADF);
    }
    lock(thread, &locks, command == general::F_SETLKW, || locks.lock_record(wanted.clone())).await
}

async fn lock(
    thread: &RunningThread,
    locks: &FileLocks,
    may_wait: bool,
    mut attempt: impl FnMut() -> Result<(), Stop>,
) -> Result<usize> {
    let answer = |result: Result<(), Stop>| match result {
        Ok(()) => Some(Ok(0)),
        Err(Stop::Errno(errno)) => Some(Err(errno)),
        Err(_) => None,
    };
    if !may_wait {
        return answer(attempt()).unwrap_or(Err(Errno::EAGAIN));
    }
    thread.wait_event(&locks.released, Interruptible::BySignals, None, || answer(attempt())).await?
}

fn locked_range(file: &OpenFile, whence: u32, start: i64, len: i64) -> Result<core::ops::Range<u64>> {
    let base = match whence {
        general::SEEK_SET => 0,
        general::SEEK_CUR => file.with_position(|position| *position),
        general::SEEK_END => file.inode.as_ref().map_or(0, |inode| inode.core().size()),
        _ => return Err(Errno::EINVAL),
    };
    let begin = base.checked_add_signed(start).ok_or(Errno::EINVAL)?;
    match len {
        0 => Ok(begin..u64::MAX),
        len if len > 0 => Ok(begin..begin.checked_add_signed(len).ok_or(Errno::EOVERFLOW)?),
        len => Ok(begin.checked_add_signed(len).ok_or(Errno::EINVAL)?..begin),
    }
}

/// flock(2). `EBADF`, `EINVAL`; `EWOULDBLOCK`; interrupted by signals, restarts.
pub async fn flock(thread: &mut RunningThread, fd: Fd, operation: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let inode = file.inode.as_ref().ok_or(Errno::EBADF)?;
    let locks = FileLocks::of(inode.core());
    let is_exclusive = match operation & !general::LOCK_NB {
        general::LOCK_SH => false,
        general::LOCK_EX => true,
        general::LOCK_UN => {
            locks.unlock_whole(Arc::as_ptr(&file));
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let may_wait = operation & general::LOCK_NB == 0;
    lock(thread, &locks, may_wait, || locks.lock_whole(&file, is_exclusive)).await
}
