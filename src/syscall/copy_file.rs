//! Moving bytes between two open files: sendfile(2) and copy_file_range(2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::buffer::{SliceSink, SliceSource};
use fs::{OpenFile, OpenFlags, Stop};

use super::transfer::{MOST, until_possible};
use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// Bytes that one step between two files moves.
const STEP: usize = 16 * 1024;

/// Moves up to `count` bytes from one open file to another, through a buffer in the kernel. A cursor that is not given moves.
async fn copy_between(
    thread: &mut RunningThread,
    from: &OpenFile,
    mut from_at: Option<u64>,
    to: &OpenFile,
    mut to_at: Option<u64>,
    count: usize,
) -> Result<(usize, Option<u64>, Option<u64>)> {
    let mut bytes = Vec::new();
    bytes.make_exact_room(STEP.min(count))?;
    bytes.resize(STEP.min(count), 0);
    let mut done = 0;
    while done < count {
        let step = STEP.min(count - done);
        let start = from_at.unwrap_or_else(|| from.with_position(|position| *position));
        let mut position = start;
        let read = match read_some(thread, from, &mut position, &mut bytes[..step], done == 0).await {
            Ok(read) => read,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        };
        if read == 0 {
            break;
        }
        let written = match write_all(thread, to, &mut to_at, &bytes[..read]).await {
            Ok(written) => written,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        };
        done += written;
        match &mut from_at {
            Some(at) => *at = start + written as u64,
            None => from.with_position(|position| *position = start + written as u64),
        }
        if written < read {
            break;
        }
    }
    Ok((done, from_at, to_at))
}

async fn read_some(
    thread: &RunningThread,
    file: &OpenFile,
    position: &mut u64,
    bytes: &mut [u8],
    may_wait: bool,
) -> Result<usize> {
    let may_wait = may_wait && !file.flags().contains(OpenFlags::NONBLOCK);
    loop {
        let mut attempt = || file.ops.try_read(position, &mut SliceSink::new(bytes));
        let outcome = if may_wait { until_possible(thread, file, attempt).await? } else { attempt() };
        match outcome {
            Ok(read) => return Ok(read),
            Err(Stop::Miss(page)) => file.ops.prepare(page).await?,
            Err(Stop::WouldBlock) => return Err(Errno::EAGAIN),
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Fault) => return Err(Errno::EFAULT),
        }
    }
}

async fn write_all(thread: &RunningThread, file: &OpenFile, at: &mut Option<u64>, bytes: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let flags = file.flags();
        let mut attempt = || {
            let mut source = SliceSource::new(&bytes[done..]);
            match at {
                Some(at) => file.ops.try_write(at, flags, &mut source),
                None => file.with_position(|position| file.ops.try_write(position, flags, &mut source)),
            }
        };
        let outcome = if flags.contains(OpenFlags::NONBLOCK) {
            Ok(attempt())
        } else {
            until_possible(thread, file, attempt).await
        };
        let problem = match outcome {
            Ok(Ok(written)) => {
                done += written;
                continue;
            }
            Ok(Err(Stop::Miss(page))) => file.ops.prepare(page).await,
            Ok(Err(Stop::WouldBlock)) => Err(Errno::EAGAIN),
            Ok(Err(Stop::Errno(errno))) | Err(errno) => Err(errno),
            Ok(Err(Stop::Fault)) => Err(Errno::EFAULT),
        };
        match problem {
            Ok(()) => {}
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// sendfile(2). `EBADF`; `EINVAL`: a source without positions; `EAGAIN`, `EFAULT`, `EIO`.
pub async fn sendfile(
    thread: &mut RunningThread,
    to: Fd,
    from: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> Result<usize> {
    let (from, to) = (thread.files.get(from)?, thread.files.get(to)?);
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if !from.ops.reads_fully() {
        return Err(Errno::EINVAL);
    }
    let at = if offset.is_null() {
        None
    } else {
        Some(u64::try_from(thread.get(offset).await?).map_err(|_| Errno::EINVAL)?)
    };
    let (done, at, _) = copy_between(thread, &from, at, &to, None, count.min(MOST)).await?;
    if let Some(at) = at {
        thread.put(offset, &(at as i64)).await?;
    }
    Ok(done)
}

/// copy_file_range(2). `EBADF`; `EINVAL`: not files, flags, or ranges that overlap; `EISDIR`, `ENOSPC`, `EFBIG`, `EFAULT`, `EIO`.
pub async fn copy_file_range(
    thread: &mut RunningThread,
    from: Fd,
    from_offset: UserPtr<i64>,
    to: Fd,
    to_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> Result<usize> {
    let (from, to) = (thread.files.get(from)?, thread.files.get(to)?);
    if !from.flags().can_read() || !to.flags().can_write() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    let is_regular = |file: &OpenFile| file.inode.as_ref().is_some_and(|inode| inode.core().kind == fs::Kind::Regular);
    if flags != 0 || !is_regular(&from) || !is_regular(&to) {
        return Err(Errno::EINVAL);
    }
    let mut places = [None, None];
    for (place, pointer) in places.iter_mut().zip([from_offset, to_offset]) {
        if !pointer.is_null() {
            *place = Some(u64::try_from(thread.get(pointer).await?).map_err(|_| Errno::EINVAL)?);
        }
    }
    let count = count.min(MOST);
    let same = from.inode.as_ref().zip(to.inode.as_ref()).is_some_and(|(from, to)| Arc::ptr_eq(from, to));
    let begin = |place: Option<u64>, file: &OpenFile| place.unwrap_or_else(|| file.with_position(|position| *position));
    if same && begin(places[0], &from).abs_diff(begin(places[1], &to)) < count as u64 {
        return Err(Errno::EINVAL);
    }
    let (done, from_at, to_at) = copy_between(thread, &from, places[0], &to, places[1], count).await?;
    for (at, pointer) in [(from_at, from_offset), (to_at, to_offset)] {
        if let Some(at) = at {
            thread.put(pointer, &(at as i64)).await?;
        }
    }
    Ok(done)
}
