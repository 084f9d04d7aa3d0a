//! Folders: their entries, and where a process stands among them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::{At, DirectoryEntry};

use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// How an entry lies in the buffer of getdents(2) or getdents64(2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `struct linux_dirent`: the kind is the last byte.
    Old,
    /// `struct linux_dirent64`: the kind stands before the name.
    New,
}

impl Layout {
    fn len(self, entry: &DirectoryEntry) -> usize {
        let fixed = match self {
            Layout::Old => 18 + 2, // NUL and kind
            Layout::New => 19 + 1, // NUL
        };
        (fixed + entry.name.len()).next_multiple_of(8)
    }

    fn encode(self, entry: &DirectoryEntry, bytes: &mut Vec<u8>) {
        let len = self.len(entry);
        let begin = bytes.len();
        bytes.extend_from_slice(&entry.number.to_ne_bytes());
        bytes.extend_from_slice(&entry.next.to_ne_bytes());
        bytes.extend_from_slice(&(len as u16).to_ne_bytes());
        if self == Layout::New {
            bytes.push(entry.kind as u8);
        }
        bytes.extend_from_slice(&entry.name);
        bytes.resize(begin + len, 0);
        if self == Layout::Old
            && let Some(last) = bytes.last_mut()
        {
            *last = entry.kind as u8;
        }
    }
}

/// The most that one call returns, in bytes, however large the buffer is.
const MOST: usize = 64 * 1024;

async fn entries(thread: &mut RunningThread, fd: Fd, buffer: usize, size: usize, layout: Layout) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    let size = size.min(MOST);
    let mut bytes = Vec::new();
    let mut position = file.with_position(|position| *position);
    'all: loop {
        let batch = file.ops.read_directory(position).await?;
        if batch.is_empty() {
            break;
        }
        for entry in &batch {
            if bytes.len() + layout.len(entry) > size {
                if bytes.is_empty() {
                    return Err(Errno::EINVAL);
                }
                break 'all;
            }
            bytes.make_room(layout.len(entry))?;
            layout.encode(entry, &mut bytes);
            position = entry.next;
        }
    }
    thread.space.write_user_bytes(buffer, &bytes).await?;
    file.with_position(|now| *now = position);
    Ok(bytes.len())
}

/// getdents64(2). `EBADF`, `ENOTDIR`, `EINVAL`: room for not even one. `EFAULT`, `EIO`.
pub async fn getdents64(thread: &mut RunningThread, fd: Fd, buffer: usize, size: u32) -> Result<usize> {
    entries(thread, fd, buffer, size as usize, Layout::New).await
}

/// getdents(2). As getdents64(2).
pub async fn getdents(thread: &mut RunningThread, fd: Fd, buffer: usize, size: u32) -> Result<usize> {
    entries(thread, fd, buffer, size as usize, Layout::Old).await
}

/// getcwd(2): returns the length with the NUL. `ERANGE`: no room. `ENOENT`: it was removed. `EFAULT`.
pub async fn getcwd(thread: &mut RunningThread, buffer: usize, size: usize) -> Result<usize> {
    let mut name = thread.fs.current_directory_name()?;
    name.push(0);
    if name.len() > size {
        return Err(Errno::ERANGE);
    }
    thread.space.write_user_bytes(buffer, &name).await?;
    Ok(name.len())
}

/// chdir(2).
pub async fn chdir(thread: &mut RunningThread, path: UserPtr<u8>) -> Result<usize> {
    let path = thread.path(path).await?;
    Box::pin(thread.caller().chdir(At::working_directory(&path))).await?;
    Ok(0)
}

/// fchdir(2). `EBADF`, `ENOTDIR`, `EACCES`.
pub fn fchdir(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let place = thread.files.get(fd)?.path.clone().ok_or(Errno::ENOTDIR)?;
    thread.caller().enter(place)?;
    Ok(0)
}

/// chroot(2). `EPERM`; others as chdir(2).
pub async fn chroot(thread: &mut RunningThread, path: UserPtr<u8>) -> Result<usize> {
    let path = thread.path(path).await?;
    Box::pin(thread.caller().chroot(At::working_directory(&path))).await?;
    Ok(0)
}

/// umask(2).
pub fn umask(thread: &mut RunningThread, mask: u32) -> Result<usize> {
    Ok(thread.fs.set_umask(mask) as usize)
}
