//! Attributes of files: modes, owners, times, lengths, extended attributes, and what fstat(2) and statfs(2) tell.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use fs::inode::FileSystemStatus;
use fs::{At, MountFlags, OpenFile, Path, TimeChange, WalkFlags};

use super::path::{AT_FDCWD, place, stat_words, time_change};
use super::time;
use crate::mm::user::UserPtr;
use crate::process::fd_table::Fd;
use crate::process::{RunningThread, Signal, send};

/// What fstat(2) tells of an open file.
///
/// # Errors
///
/// `EBADF`: it has no inode to tell of.
pub fn metadata_of(file: &OpenFile) -> Result<fs::Metadata> {
    file.inode.as_ref().map(|inode| inode.metadata()).ok_or(Errno::EBADF)
}

/// fstat(2), if the result's memory is there.
#[inline(always)] // called from one place, the table
pub fn fstat_now(thread: &mut RunningThread, fd: Fd, result: UserPtr<[u64; 18]>) -> Option<Result<usize>> {
    match thread.files.get(fd).and_then(|file| metadata_of(&file)) {
        Ok(node) => thread.try_put(result, &stat_words(&node)).then_some(Ok(0)),
        Err(errno) => Some(Err(errno)),
    }
}

/// fstat(2). `EBADF`, `EFAULT`.
pub async fn fstat(thread: &mut RunningThread, fd: Fd, result: UserPtr<[u64; 18]>) -> Result<usize> {
    let node = metadata_of(&*thread.files.get(fd)?)?;
    thread.put(result, &stat_words(&node)).await?;
    Ok(0)
}

/// The place behind a descriptor, for the calls that change attributes. `EBADF` if it was opened with O_PATH.
fn place_of(thread: &RunningThread, fd: Fd) -> Result<Path> {
    let file = thread.files.get(fd)?;
    if file.flags().contains(fs::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    match (&file.path, &file.inode) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(inode)) => Ok(Path::nowhere(inode.clone())),
        (None, None) => Err(Errno::EINVAL),
    }
}

/// chmod(2).
pub async fn chmod(thread: &mut RunningThread, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    fchmodat(thread, AT_FDCWD, path, mode).await
}

/// fchmodat(2), which has no flags in the kernel.
pub async fn fchmodat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let place = place(thread, fd, path, 0).await?;
    Box::pin(thread.caller().chmod(&place, mode & 0o7777)).await?;
    Ok(0)
}

/// fchmod(2).
pub async fn fchmod(thread: &mut RunningThread, fd: Fd, mode: u32) -> Result<usize> {
    let place = place_of(thread, fd)?;
    Box::pin(thread.caller().chmod(&place, mode & 0o7777)).await?;
    Ok(0)
}

fn id(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// chown(2).
pub async fn chown(thread: &mut RunningThread, path: UserPtr<u8>, uid: u32, gid: u32) -> Result<usize> {
    fchownat(thread, AT_FDCWD, path, uid, gid, 0).await
}

/// lchown(2).
pub async fn lchown(thread: &mut RunningThread, path: UserPtr<u8>, uid: u32, gid: u32) -> Result<usize> {
    fchownat(thread, AT_FDCWD, path, uid, gid, general::AT_SYMLINK_NOFOLLOW).await
}

/// fchownat(2). `EINVAL`: unknown flags.
pub async fn fchownat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    uid: u32,
    gid: u32,
    flags: u32,
) -> Result<usize> {
    if flags & !(general::AT_SYMLINK_NOFOLLOW | general::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let place = place(thread, fd, path, flags).await?;
    Box::pin(thread.caller().chown(&place, id(uid), id(gid))).await?;
    Ok(0)
}

/// fchown(2).
pub async fn fchown(thread: &mut RunningThread, fd: Fd, uid: u32, gid: u32) -> Result<usize> {
    let place = place_of(thread, fd)?;
    Box::pin(thread.caller().chown(&place, id(uid), id(gid))).await?;
    Ok(0)
}

/// utimensat(2). `EINVAL`: unknown flags or times out of range. Others as of a walk.
pub async fn utimensat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[time::Timespec; 2]>,
    flags: u32,
) -> Result<usize> {
    if flags & !(general::AT_SYMLINK_NOFOLLOW | general::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let changes = if times.is_null() {
        [TimeChange::Now, TimeChange::Now]
    } else {
        let [accessed, modified] = thread.get(times).await?;
        [time_change(accessed)?, time_change(modified)?]
    };
    let place = if path.is_null() && fd != AT_FDCWD {
        place_of(thread, Fd(fd))?
    } else {
        place(thread, fd, path, flags).await?
    };
    Box::pin(thread.caller().set_times(&place, changes[0], changes[1])).await?;
    Ok(0)
}

async fn set_timevals(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
) -> Result<usize> {
    let changes = if times.is_null() {
        [TimeChange::Now, TimeChange::Now]
    } else {
        let mut changes = [TimeChange::Now; 2];
        for (change, [seconds, micros]) in changes.iter_mut().zip(thread.get(times).await?) {
            if !(0..1_000_000).contains(&micros) {
                return Err(Errno::EINVAL);
            }
            *change = time_change([seconds, micros * 1000])?;
        }
        changes
    };
    let place = place(thread, fd, path, 0).await?;
    Box::pin(thread.caller().set_times(&place, changes[0], changes[1])).await?;
    Ok(0)
}

/// utimes(2). `EINVAL`: times out of range. Others as of a walk.
pub async fn utimes(thread: &mut RunningThread, path: UserPtr<u8>, times: UserPtr<[[i64; 2]; 2]>) -> Result<usize> {
    set_timevals(thread, AT_FDCWD, path, times).await
}

/// futimesat(2). As utimes(2).
pub async fn futimesat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
) -> Result<usize> {
    set_timevals(thread, fd, path, times).await
}

/// utime(2): whole seconds.
pub async fn utime(thread: &mut RunningThread, path: UserPtr<u8>, times: UserPtr<[i64; 2]>) -> Result<usize> {
    let changes = if times.is_null() {
        [TimeChange::Now, TimeChange::Now]
    } else {
        let [accessed, modified] = thread.get(times).await?;
        [time_change([accessed, 0])?, time_change([modified, 0])?]
    };
    let place = place(thread, AT_FDCWD, path, 0).await?;
    Box::pin(thread.caller().set_times(&place, changes[0], changes[1])).await?;
    Ok(0)
}

fn length(len: i64) -> Result<u64> {
    u64::try_from(len).map_err(|_| Errno::EINVAL)
}

fn check_size_limit(thread: &RunningThread, len: u64) -> Result<()> {
    if len <= thread.process.limits.lock().soft(general::RLIMIT_FSIZE) {
        return Ok(());
    }
    send::to_caller(thread.shared(), Signal::SIGXFSZ);
    Err(Errno::EFBIG)
}

/// truncate(2). `EINVAL`: negative, or not a file. `EFBIG`: over RLIMIT_FSIZE. Others as of a walk.
pub async fn truncate(thread: &mut RunningThread, path: UserPtr<u8>, len: i64) -> Result<usize> {
    let len = length(len)?;
    check_size_limit(thread, len)?;
    let path = thread.path(path).await?;
    Box::pin(thread.caller().truncate(At::working_directory(&path), len)).await?;
    Ok(0)
}

/// ftruncate(2). `EINVAL`: negative, not a file, or not open for writing. `EFBIG`, `EBADF`.
pub async fn ftruncate(thread: &mut RunningThread, fd: Fd, len: i64) -> Result<usize> {
    let len = length(len)?;
    check_size_limit(thread, len)?;
    let file = thread.files.get(fd)?;
    Box::pin(thread.caller().truncate_file(&file, len)).await?;
    Ok(0)
}

/// `struct statfs`, in words of eight bytes.
fn statfs_words(status: &FileSystemStatus, flags: MountFlags) -> [u64; 15] {
    // ST_VALID says that the flags are there; ST_RDONLY, ST_NOSUID, ST_NODEV and ST_NOEXEC have the bits of mount(2).
    const ST_VALID: u64 = 0x20;
    let mut words = [0; 15];
    words[0] = status.magic;
    words[1] = status.block_size;
    words[2] = status.blocks;
    words[3] = status.blocks_free;
    words[4] = status.blocks_free;
    words[5] = status.files;
    words[6] = status.files_free;
    words[8] = status.name_length;
    words[9] = status.block_size;
    words[10] = ST_VALID | u64::from(flags.bits() & 0xf);
    words
}

/// statfs(2).
pub async fn statfs(thread: &mut RunningThread, path: UserPtr<u8>, result: UserPtr<[u64; 15]>) -> Result<usize> {
    let path = thread.path(path).await?;
    let (status, flags) = Box::pin(thread.caller().statfs(At::working_directory(&path))).await?;
    thread.put(result, &statfs_words(&status, flags)).await?;
    Ok(0)
}

/// fstatfs(2). `EBADF`, `EFAULT`.
pub async fn fstatfs(thread: &mut RunningThread, fd: Fd, result: UserPtr<[u64; 15]>) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let inode = file.inode.as_ref().ok_or(Errno::EBADF)?;
    let flags = file.path.as_ref().map_or(MountFlags::empty(), |path| path.mount.flags());
    thread.put(result, &statfs_words(&inode.file_system(), flags)).await?;
    Ok(0)
}

/// The longest name and value of an extended attribute.
const XATTR_NAME_MAX: usize = 255;

async fn give(thread: &mut RunningThread, value: Result<Vec<u8>>, buffer: usize, size: usize) -> Result<usize> {
    let value = value?;
    if size == 0 {
        return Ok(value.len());
    }
    if value.len() > size {
        return Err(Errno::ERANGE);
    }
    thread.space.write_user_bytes(buffer, &value).await?;
    Ok(value.len())
}

async fn attribute_name(thread: &mut RunningThread, name: UserPtr<u8>) -> Result<Vec<u8>> {
    match thread.space.read_c_string(name, XATTR_NAME_MAX).await {
        Ok(name) if !name.is_empty() => Ok(name),
        Ok(_) | Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        Err(errno) => Err(errno),
    }
}

async fn get_by_path(
    thread: &mut RunningThread,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    buffer: usize,
    size: usize,
    walk: WalkFlags,
) -> Result<usize> {
    let path = thread.path(path).await?;
    let name = attribute_name(thread, name).await?;
    let value = Box::pin(thread.caller().extended_attribute(At::working_directory(&path), walk, &name)).await;
    give(thread, value, buffer, size).await
}

/// getxattr(2). `ENODATA`, `EOPNOTSUPP`, `ERANGE`: no room, or a name of a wrong length. Others as of a walk.
pub async fn getxattr(
    thread: &mut RunningThread,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    buffer: usize,
    size: usize,
) -> Result<usize> {
    get_by_path(thread, path, name, buffer, size, WalkFlags::FOLLOW).await
}

/// lgetxattr(2). As getxattr(2), of a link itself.
pub async fn lgetxattr(
    thread: &mut RunningThread,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    buffer: usize,
    size: usize,
) -> Result<usize> {
    get_by_path(thread, path, name, buffer, size, WalkFlags::empty()).await
}

/// fgetxattr(2). As getxattr(2), of an open file.
pub async fn fgetxattr(
    thread: &mut RunningThread,
    fd: Fd,
    name: UserPtr<u8>,
    buffer: usize,
    size: usize,
) -> Result<usize> {
    let name = attribute_name(thread, name).await?;
    let place = place_of(thread, fd)?;
    let value = Box::pin(thread.caller().extended_attribute(At::place(&place), WalkFlags::FOLLOW, &name)).await;
    give(thread, value, buffer, size).await
}

/// fadvise64(2): the page cache reads ahead by itself; what is advised here changes nothing. `EBADF`, `ESPIPE`: a pipe; `EINVAL`.
pub fn fadvise64(thread: &mut RunningThread, fd: Fd, _offset: i64, len: i64, advice: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if file.inode.as_ref().is_some_and(|inode| inode.core().kind == fs::Kind::Fifo) {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || advice > general::POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// readahead(2): as fadvise64(2). `EBADF`; `EINVAL`: not a file.
pub fn readahead(thread: &mut RunningThread, fd: Fd, _offset: i64, _count: usize) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    if file.ops.mappable().is_none() { Err(Errno::EINVAL) } else { Ok(0) }
}

/// fallocate(2), mode 0: the file is at least so long. `EOPNOTSUPP`: any other mode. `EBADF`, `EINVAL`, `ENODEV`, `EFBIG`, `ENOSPC`.
pub async fn fallocate(thread: &mut RunningThread, fd: Fd, mode: u32, offset: i64, len: i64) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    if mode != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let inode = file.inode.clone().filter(|inode| inode.core().kind == fs::Kind::Regular).ok_or(Errno::ENODEV)?;
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)? as u64;
    check_size_limit(thread, end)?;
    if inode.core().size() < end {
        Box::pin(thread.caller().truncate_file(&file, end)).await?;
    }
    Ok(0)
}

/// The longest name of memfd_create(2).
const MEMFD_NAME_MAX: usize = 249;

/// memfd_create(2). `EINVAL`: unknown flags, seals among them, or a name that is too long. `EMFILE`, `ENOMEM`, `EFAULT`.
pub async fn memfd_create(thread: &mut RunningThread, name: UserPtr<u8>, flags: u32) -> Result<usize> {
    if flags & !general::MFD_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let _ = thread.space.read_c_string(name, MEMFD_NAME_MAX).await.map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    let inode = Box::pin(crate::filesystems::unnamed_file(&thread.credentials)).await?;
    let path = Path::nowhere(inode);
    let file = Box::pin(thread.caller().open_path(path, fs::OpenFlags::RDWR)).await?;
    thread.new_descriptor(file, flags & general::MFD_CLOEXEC != 0).map(|fd| fd.0 as usize)
}
