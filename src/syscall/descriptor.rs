//! Descriptors: closing, duplicating, their flags and positions; pipes.
//!
//! Next: `ioctl.rs`, `file_lock.rs`, `sync.rs`, `copy_file.rs`.

use alloc::sync::Arc;

use abi::{Errno, Result, general};
use fs::locks::LockOwner;
use fs::{FileOps, OpenFile, OpenFlags};

use super::file_lock::record_lock;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

impl RunningThread {
    /// Gives an open file the lowest free descriptor.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENOMEM`.
    pub fn new_descriptor(&self, file: Arc<OpenFile>, close_on_exec: bool) -> Result<Fd> {
        self.files.insert(file, close_on_exec, 0, self.descriptor_limit())
    }

    fn descriptor_limit(&self) -> u64 {
        self.process.limits.lock().soft(general::RLIMIT_NOFILE)
    }

    /// Lets go of an open file that a descriptor referred to. The last one to do so awaits what is left to do.
    ///
    /// # Errors
    ///
    /// What the file says: `EIO`, `ENOSPC`.
    pub async fn close_file(&self, file: Arc<OpenFile>) -> Result<()> {
        if let Some(inode) = &file.inode
            && let Some(locks) = inode.core().locks()
        {
            // POSIX: any close of a file by a process drops all its record locks on that file.
            locks.release(LockOwner::Process(Arc::as_ptr(&self.files) as usize));
        }
        match Arc::into_inner(file) {
            Some(last) => last.ops.release().await,
            None => Ok(()),
        }
    }

    /// Makes open files of the kernel's own (pipes, sockets, event files) and gives them descriptors.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENOMEM`.
    pub fn new_file(&self, ops: Arc<dyn FileOps>, flags: OpenFlags) -> Result<Fd> {
        let file = Arc::new(OpenFile::new(ops, None, None, flags));
        self.new_descriptor(file, flags.contains(OpenFlags::CLOEXEC))
    }
}

/// close(2). `EBADF`; `EIO`, `ENOSPC` of what was still to be written.
pub async fn close(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.remove(fd)?;
    thread.close_file(file).await?;
    Ok(0)
}

/// Flags of close_range(2), from `linux/close_range.h`.
const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// close_range(2). `EINVAL`: last before first, or unknown flags. `ENOMEM`.
pub async fn close_range(thread: &mut RunningThread, first: u32, last: u32, flags: u32) -> Result<usize> {
    if first > last || flags & !(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        thread.unshare_files()?;
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        thread.files.set_close_on_exec_range(first as usize, last as usize);
        return Ok(0);
    }
    while let Some(file) = thread.files.remove_first(first as usize, last as usize) {
        let _ = thread.close_file(file).await;
    }
    Ok(0)
}

/// dup(2). `EBADF`, `EMFILE`.
pub fn dup(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    thread.new_descriptor(file, false).map(|fd| fd.0 as usize)
}

/// dup2(2). `EBADF`.
pub async fn dup2(thread: &mut RunningThread, old: Fd, new: Fd) -> Result<usize> {
    if old == new {
        thread.files.get(old)?;
        return Ok(new.0 as usize);
    }
    duplicate(thread, old, new, false).await
}

/// dup3(2). `EBADF`; `EINVAL`: unknown flags, or the same number twice.
pub async fn dup3(thread: &mut RunningThread, old: Fd, new: Fd, flags: u32) -> Result<usize> {
    if flags & !general::O_CLOEXEC != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    duplicate(thread, old, new, flags & general::O_CLOEXEC != 0).await
}

async fn duplicate(thread: &mut RunningThread, old: Fd, new: Fd, close_on_exec: bool) -> Result<usize> {
    let file = thread.files.get(old)?;
    let replaced = thread.files.replace(new, file, close_on_exec, thread.descriptor_limit())?;
    if let Some(replaced) = replaced {
        // As dup2(2) says, an error of this close is lost.
        let _ = thread.close_file(replaced).await;
    }
    Ok(new.0 as usize)
}

/// pipe(2).
pub async fn pipe(thread: &mut RunningThread, result: UserPtr<[i32; 2]>) -> Result<usize> {
    pipe2(thread, result, 0).await
}

/// pipe2(2). `EINVAL`: unknown flags. `EMFILE`, `ENFILE`, `EFAULT`.
pub async fn pipe2(thread: &mut RunningThread, result: UserPtr<[i32; 2]>, flags: u32) -> Result<usize> {
    if flags & !(general::O_CLOEXEC | general::O_NONBLOCK | general::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = OpenFlags::from_bits_truncate(flags);
    let (reader, writer) = fs::pipe::pipe(&crate::mm::FRAMES, &thread.credentials, flags)?;
    let close_on_exec = flags.contains(OpenFlags::CLOEXEC);
    let reader = thread.new_descriptor(Arc::new(reader), close_on_exec)?;
    let writer = match thread.new_descriptor(Arc::new(writer), close_on_exec) {
        Ok(writer) => writer,
        Err(errno) => {
            drop(thread.files.remove(reader));
            return Err(errno);
        }
    };
    if let Err(errno) = thread.put(result, &[reader.0, writer.0]).await {
        drop(thread.files.remove(reader));
        drop(thread.files.remove(writer));
        return Err(errno);
    }
    Ok(0)
}

/// lseek(2). `ESPIPE`: no positions. `EINVAL`: unknown `whence`, or before the beginning. `ENXIO`: no data, or no hole. `EBADF`.
#[inline(always)] // called from one place, the table
pub fn lseek(thread: &mut RunningThread, fd: Fd, offset: i64, whence: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let position = match whence {
        general::SEEK_SET => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
        general::SEEK_CUR => {
            return file.with_position(|now| {
                *now = moved(*now, offset)?;
                Ok(*now as usize)
            });
        }
        general::SEEK_END => moved(file.inode.as_ref().map_or(0, |inode| inode.metadata().attributes.size), offset)?,
        general::SEEK_DATA | general::SEEK_HOLE => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            file.ops.seek_data(from, whence == general::SEEK_HOLE)?
        }
        _ => return Err(Errno::EINVAL),
    };
    file.with_position(|now| *now = position);
    Ok(position as usize)
}

fn moved(from: u64, by: i64) -> Result<u64> {
    from.checked_add_signed(by).filter(|position| i64::try_from(*position).is_ok()).ok_or(if by < 0 {
        Errno::EINVAL
    } else {
        Errno::EOVERFLOW
    })
}

/// fcntl(2). `EBADF`; `EINVAL`: an unknown command or argument; others by command.
pub async fn fcntl(thread: &mut RunningThread, fd: Fd, command: u32, argument: usize) -> Result<usize> {
    let (file, close_on_exec) = thread.files.get_with_flag(fd)?;
    if file.flags().contains(OpenFlags::PATH)
        && !matches!(
            command,
            general::F_DUPFD | general::F_DUPFD_CLOEXEC | general::F_GETFD | general::F_SETFD | general::F_GETFL
        )
    {
        return Err(Errno::EBADF);
    }
    match command {
        general::F_DUPFD | general::F_DUPFD_CLOEXEC => {
            let limit = thread.descriptor_limit();
            let from = argument as u32 as usize;
            if from as u64 >= limit {
                return Err(Errno::EINVAL);
            }
            let copy = thread.files.insert(file, command == general::F_DUPFD_CLOEXEC, from, limit)?;
            Ok(copy.0 as usize)
        }
        general::F_GETFD => Ok(usize::from(close_on_exec)),
        general::F_SETFD => {
            thread.files.set_close_on_exec(fd, argument & general::FD_CLOEXEC as usize != 0)?;
            Ok(0)
        }
        general::F_GETFL => Ok(file.flags().bits() as usize),
        general::F_SETFL => {
            file.set_flags(OpenFlags::from_bits_truncate(argument as u32));
            Ok(0)
        }
        general::F_SETPIPE_SZ | general::F_GETPIPE_SZ => pipe_size(&file, command, argument),
        general::F_GETLK | general::F_SETLK | general::F_SETLKW => {
            let owner = LockOwner::Process(Arc::as_ptr(&thread.files) as usize);
            record_lock(thread, &file, owner, command, UserPtr::new(argument)).await
        }
        general::F_OFD_GETLK | general::F_OFD_SETLK | general::F_OFD_SETLKW => {
            let owner = LockOwner::open_file(&file);
            let command = command - general::F_OFD_GETLK + general::F_GETLK;
            record_lock(thread, &file, owner, command, UserPtr::new(argument)).await
        }
        general::F_GETOWN => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn pipe_size(file: &OpenFile, command: u32, argument: usize) -> Result<usize> {
    let end = file.ops.as_any().downcast_ref::<fs::pipe::PipeEnd>().ok_or(Errno::EBADF)?;
    if command == general::F_GETPIPE_SZ { Ok(end.pipe().capacity()) } else { end.pipe().set_capacity(argument) }
}
