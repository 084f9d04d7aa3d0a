//! Calls that take a path.
//!
//! A path is copied in once, to a buffer of the call's own; where it begins (`AT_FDCWD`, a folder's descriptor, or with
//! `AT_EMPTY_PATH` the descriptor's own place) is [`Start`]. Everything else is `fs::Caller`'s work.
//!
//! Next: `descriptor.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use drivers::hw::PAGE_SIZE;
use fs::inode::RenameMode;
use fs::permission::Access;
use fs::{At, Caller, Kind, Metadata, OpenFile, OpenFlags, Path, TimeChange, WalkFlags};

use super::time;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::wait_event::Interruptible;

/// The longest path, with its NUL.
const PATH_MAX: usize = 4096;
/// Most paths are shorter; those need no memory.
const SHORT_PATH: usize = 64;
/// The working directory instead of a descriptor.
pub const AT_FDCWD: i32 = general::AT_FDCWD;

/// Where a path begins.
pub struct Start {
    folder: Option<Path>,
}

impl Start {
    /// The path from here.
    pub fn at<'a>(&'a self, path: &'a [u8], may_be_empty: bool) -> At<'a> {
        At { folder: self.folder.as_ref(), path, may_be_empty }
    }
}

impl RunningThread {
    /// On whose behalf file systems are asked.
    pub fn caller(&self) -> Caller<'_> {
        Caller { context: &self.fs, credentials: &self.credentials }
    }

    /// Copies a path in.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `ENAMETOOLONG`: over 4,095 bytes.
    pub async fn path(&self, address: UserPtr<u8>) -> Result<Vec<u8>> {
        self.space.read_c_string(address, PATH_MAX - 1).await
    }

    /// Copies a path in, if it is short and its memory is there.
    fn short_path<'a>(&self, address: UserPtr<u8>, into: &'a mut [u8; SHORT_PATH]) -> Option<&'a [u8]> {
        // Not beyond the page: the next one need not be there.
        let len = SHORT_PATH.min(PAGE_SIZE - address.address() % PAGE_SIZE);
        let into = &mut into[..len];
        self.space.active().read_bytes(address.address(), into).ok()?;
        let end = into.iter().position(|byte| *byte == 0)?;
        Some(&into[..end])
    }

    /// Where a path begins that is relative to a descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF`: the path is relative, and there is no such descriptor. `ENOTDIR`: it has no place.
    pub fn start(&self, fd: i32, path: &[u8]) -> Result<Start> {
        if fd == AT_FDCWD || path.first() == Some(&b'/') {
            return Ok(Start { folder: None });
        }
        let file = self.files.get(Fd(fd))?;
        let folder = match &file.path {
            Some(path) => path.clone(),
            // A pipe or a socket has an inode but no place: it can be asked about, not walked from.
            None => match &file.inode {
                Some(inode) if path.is_empty() => Path::nowhere(inode.clone()),
                _ => return Err(Errno::ENOTDIR),
            },
        };
        Ok(Start { folder: Some(folder) })
    }
}

fn walk_flags(flags: u32) -> WalkFlags {
    if flags & general::AT_SYMLINK_NOFOLLOW != 0 { WalkFlags::empty() } else { WalkFlags::FOLLOW }
}

fn check_flags(flags: u32, known: u32) -> Result<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// open(2).
pub async fn open(thread: &mut RunningThread, path: UserPtr<u8>, flags: u32, mode: u32) -> Result<usize> {
    openat(thread, AT_FDCWD, path, flags, mode).await
}

/// creat(2).
pub async fn creat(thread: &mut RunningThread, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    openat(thread, AT_FDCWD, path, general::O_CREAT | general::O_WRONLY | general::O_TRUNC, mode).await
}

/// openat(2).
pub async fn openat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, flags: u32, mode: u32) -> Result<usize> {
    let path = thread.path(path).await?;
    open_path(thread, fd, &path, OpenFlags::from_bits_truncate(flags), mode, WalkFlags::empty()).await
}

async fn open_path(
    thread: &mut RunningThread,
    fd: i32,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
    walk: WalkFlags,
) -> Result<usize> {
    let start = thread.start(fd, path)?;
    let file = Box::pin(thread.caller().open(start.at(path, false), flags, mode & 0o7777, walk)).await?;
    if let Some(queue) = file.ops.wait_queue() {
        finish_opening(thread, &file, queue).await?;
    }
    thread.new_descriptor(file, flags.contains(OpenFlags::CLOEXEC)).map(|fd| fd.0 as usize)
}

/// A FIFO waits for its other end.
async fn finish_opening(thread: &RunningThread, file: &OpenFile, queue: &executor::sync::WaitQueue) -> Result<()> {
    let attempt = || match file.ops.try_open() {
        Err(fs::Stop::WouldBlock) => None,
        Err(fs::Stop::Errno(errno)) => Some(Err(errno)),
        Err(_) => Some(Err(Errno::EIO)),
        Ok(()) => Some(Ok(())),
    };
    thread.wait_event(queue, Interruptible::BySignals, None, attempt).await?
}

/// openat2(2). `EINVAL`: unknown flags, or a mode without need. `E2BIG`: unknown fields. Others as open(2) and by RESOLVE_*.
pub async fn openat2(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    how: UserPtr<[u64; 3]>,
    size: usize,
) -> Result<usize> {
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > 24 {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve] = thread.get(how).await?;
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let creates = flags.contains(OpenFlags::CREAT) || flags.contains(OpenFlags::TMPFILE);
    if mode & !0o7777 != 0 || mode != 0 && !creates {
        return Err(Errno::EINVAL);
    }
    let mut walk = WalkFlags::empty();
    let mut left = resolve;
    for (bit, flag) in [
        (general::RESOLVE_NO_XDEV, WalkFlags::NO_CROSSING),
        (general::RESOLVE_NO_MAGICLINKS, WalkFlags::NO_MAGIC_LINKS),
        (general::RESOLVE_NO_SYMLINKS, WalkFlags::NO_SYMLINKS),
        (general::RESOLVE_BENEATH, WalkFlags::BENEATH),
        (general::RESOLVE_IN_ROOT, WalkFlags::IN_ROOT),
    ] {
        if left & u64::from(bit) != 0 {
            walk |= flag;
            left &= !u64::from(bit);
        }
    }
    if left & u64::from(general::RESOLVE_CACHED) != 0 {
        return Err(Errno::EAGAIN);
    }
    if left != 0 {
        return Err(Errno::EINVAL);
    }
    let path = thread.path(path).await?;
    open_path(thread, fd, &path, flags, mode as u32, walk).await
}

/// `struct stat`, as x86_64 has it, in words of eight bytes.
pub fn stat_words(node: &Metadata) -> [u64; 18] {
    let attributes = &node.attributes;
    let time = |time: fs::inode::Timestamp| [time.seconds as u64, u64::from(time.nanoseconds)];
    let [accessed, modified, changed] = [attributes.accessed, attributes.modified, attributes.changed].map(time);
    [
        node.device,
        node.number,
        u64::from(attributes.links),
        u64::from(node.mode()) | u64::from(attributes.uid) << 32,
        u64::from(attributes.gid),
        node.represents,
        attributes.size,
        u64::from(node.block_size),
        attributes.blocks,
        accessed[0],
        accessed[1],
        modified[0],
        modified[1],
        changed[0],
        changed[1],
        0,
        0,
        0,
    ]
}

async fn stat_at(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    result: UserPtr<[u64; 18]>,
    flags: u32,
) -> Result<usize> {
    let node = metadata(thread, fd, path, flags).await?;
    thread.put(result, &stat_words(&node)).await?;
    Ok(0)
}

async fn metadata(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, flags: u32) -> Result<Metadata> {
    let may_be_empty = flags & general::AT_EMPTY_PATH != 0;
    let path = thread.path(path).await?;
    if path.is_empty() && may_be_empty && fd != AT_FDCWD {
        return super::attributes::metadata_of(&*thread.files.get(Fd(fd))?);
    }
    let start = thread.start(fd, &path)?;
    let at = start.at(&path, may_be_empty);
    let walk = walk_flags(flags);
    match thread.caller().try_stat(at, walk) {
        Some(result) => result,
        None => Box::pin(thread.caller().stat(at, walk)).await,
    }
}

/// What the calls of the stat(2) family have in common, if the walk meets nothing to wait for.
fn stat_at_now(
    thread: &RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    result: UserPtr<[u64; 18]>,
    flags: u32,
) -> Option<Result<usize>> {
    let mut short = [0; SHORT_PATH];
    let path = thread.short_path(path, &mut short)?;
    // An empty path has rules of its own.
    if path.is_empty() {
        return None;
    }
    let start = match thread.start(fd, path) {
        Ok(start) => start,
        Err(errno) => return Some(Err(errno)),
    };
    match thread.caller().try_stat(start.at(path, false), walk_flags(flags))? {
        Ok(node) => thread.try_put(result, &stat_words(&node)).then_some(Ok(0)),
        Err(errno) => Some(Err(errno)),
    }
}

/// stat(2), without a future and without memory.
pub fn stat_now(thread: &mut RunningThread, path: UserPtr<u8>, result: UserPtr<[u64; 18]>) -> Option<Result<usize>> {
    stat_at_now(thread, AT_FDCWD, path, result, 0)
}

/// lstat(2), likewise.
pub fn lstat_now(thread: &mut RunningThread, path: UserPtr<u8>, result: UserPtr<[u64; 18]>) -> Option<Result<usize>> {
    stat_at_now(thread, AT_FDCWD, path, result, general::AT_SYMLINK_NOFOLLOW)
}

/// newfstatat(2), likewise.
pub fn newfstatat_now(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    result: UserPtr<[u64; 18]>,
    flags: u32,
) -> Option<Result<usize>> {
    // Other flags are for those who do it thoroughly.
    if flags & !general::AT_SYMLINK_NOFOLLOW != 0 { None } else { stat_at_now(thread, fd, path, result, flags) }
}

/// stat(2).
pub async fn stat(thread: &mut RunningThread, path: UserPtr<u8>, result: UserPtr<[u64; 18]>) -> Result<usize> {
    stat_at(thread, AT_FDCWD, path, result, 0).await
}

/// lstat(2).
pub async fn lstat(thread: &mut RunningThread, path: UserPtr<u8>, result: UserPtr<[u64; 18]>) -> Result<usize> {
    stat_at(thread, AT_FDCWD, path, result, general::AT_SYMLINK_NOFOLLOW).await
}

/// newfstatat(2). `EINVAL`: unknown flags. Others as stat(2).
pub async fn newfstatat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    result: UserPtr<[u64; 18]>,
    flags: u32,
) -> Result<usize> {
    check_flags(flags, general::AT_SYMLINK_NOFOLLOW | general::AT_NO_AUTOMOUNT | general::AT_EMPTY_PATH)?;
    stat_at(thread, fd, path, result, flags).await
}

/// statx(2). `EINVAL`: unknown flags, or the reserved bit of the mask. Others as stat(2).
pub async fn statx(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mask: u32,
    result: UserPtr<[u64; 32]>,
) -> Result<usize> {
    let sync = general::AT_STATX_FORCE_SYNC | general::AT_STATX_DONT_SYNC;
    check_flags(flags, general::AT_SYMLINK_NOFOLLOW | general::AT_NO_AUTOMOUNT | general::AT_EMPTY_PATH | sync)?;
    if mask & general::STATX__RESERVED != 0 || flags & sync == sync {
        return Err(Errno::EINVAL);
    }
    let node = metadata(thread, fd, path, flags).await?;
    thread.put(result, &statx_words(&node)).await?;
    Ok(0)
}

/// `struct statx`, in words of eight bytes.
fn statx_words(node: &Metadata) -> [u64; 32] {
    let attributes = &node.attributes;
    let low_high = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut words = [0; 32];
    words[0] = low_high(general::STATX_BASIC_STATS, node.block_size);
    words[2] = low_high(attributes.links, attributes.uid);
    words[3] = low_high(attributes.gid, node.mode() & 0xffff);
    words[4] = node.number;
    words[5] = attributes.size;
    words[6] = attributes.blocks;
    let times = [(8, attributes.accessed), (12, attributes.changed), (14, attributes.modified)];
    for (place, time) in times {
        words[place] = time.seconds as u64;
        words[place + 1] = u64::from(time.nanoseconds);
    }
    let device = |device: u64| low_high(fs::environment::major(device), fs::environment::minor(device));
    words[16] = device(node.represents);
    words[17] = device(node.device);
    words
}

/// access(2).
pub async fn access(thread: &mut RunningThread, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    faccessat2(thread, AT_FDCWD, path, mode, 0).await
}

/// faccessat(2), which has no flags in the kernel.
pub async fn faccessat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    faccessat2(thread, fd, path, mode, 0).await
}

/// faccessat2(2). `EINVAL`: unknown mode or flags. `EACCES`, `EROFS`; others as of a walk.
pub async fn faccessat2(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    mode: u32,
    flags: u32,
) -> Result<usize> {
    check_flags(flags, general::AT_EACCESS | general::AT_SYMLINK_NOFOLLOW | general::AT_EMPTY_PATH)?;
    let access = Access::from_bits(mode).ok_or(Errno::EINVAL)?;
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    let real;
    let credentials = if flags & general::AT_EACCESS != 0 {
        &*thread.credentials
    } else {
        real = thread.credentials.as_real();
        &real
    };
    let caller = Caller { context: &thread.fs, credentials };
    let at = start.at(&path, flags & general::AT_EMPTY_PATH != 0);
    Box::pin(caller.access(at, walk_flags(flags), access)).await?;
    Ok(0)
}

/// readlink(2).
pub async fn readlink(thread: &mut RunningThread, path: UserPtr<u8>, buffer: usize, len: usize) -> Result<usize> {
    readlinkat(thread, AT_FDCWD, path, buffer, len).await
}

/// readlinkat(2). `EINVAL`: no room, or not a link. Others as of a walk.
pub async fn readlinkat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    buffer: usize,
    len: usize,
) -> Result<usize> {
    if len == 0 || len > i32::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    let target = Box::pin(thread.caller().readlink(start.at(&path, true))).await?;
    let len = len.min(target.len());
    thread.space.write_user_bytes(buffer, &target[..len]).await?;
    Ok(len)
}

/// mkdir(2).
pub async fn mkdir(thread: &mut RunningThread, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    mkdirat(thread, AT_FDCWD, path, mode).await
}

/// mkdirat(2).
pub async fn mkdirat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    Box::pin(thread.caller().mkdir(start.at(&path, false), mode & 0o7777)).await?;
    Ok(0)
}

/// mknod(2).
pub async fn mknod(thread: &mut RunningThread, path: UserPtr<u8>, mode: u32, device: u64) -> Result<usize> {
    mknodat(thread, AT_FDCWD, path, mode, device).await
}

/// mknodat(2). `EPERM`: a device without CAP_MKNOD, or a folder. `EINVAL`: an unknown kind. Others as of a walk.
pub async fn mknodat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, mode: u32, device: u64) -> Result<usize> {
    let kind = match mode >> 12 {
        0 => Kind::Regular,
        _ => Kind::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    match kind {
        Kind::Directory => return Err(Errno::EPERM),
        Kind::Symlink => return Err(Errno::EINVAL),
        _ => {}
    }
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    Box::pin(thread.caller().mknod(start.at(&path, false), kind, mode & 0o7777, u64::from(device as u32))).await?;
    Ok(0)
}

/// symlink(2).
pub async fn symlink(thread: &mut RunningThread, target: UserPtr<u8>, path: UserPtr<u8>) -> Result<usize> {
    symlinkat(thread, target, AT_FDCWD, path).await
}

/// symlinkat(2). `ENOENT`: an empty target. Others as of a walk.
pub async fn symlinkat(thread: &mut RunningThread, target: UserPtr<u8>, fd: i32, path: UserPtr<u8>) -> Result<usize> {
    let target = thread.path(target).await?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    Box::pin(thread.caller().symlink(&target, start.at(&path, false))).await?;
    Ok(0)
}

/// link(2).
pub async fn link(thread: &mut RunningThread, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<usize> {
    linkat(thread, AT_FDCWD, old, AT_FDCWD, new, 0).await
}

/// linkat(2). `EINVAL`: unknown flags. `ENOENT`: an empty path without CAP_DAC_READ_SEARCH. Others as link(2).
pub async fn linkat(
    thread: &mut RunningThread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    check_flags(flags, general::AT_SYMLINK_FOLLOW | general::AT_EMPTY_PATH)?;
    let may_be_empty = flags & general::AT_EMPTY_PATH != 0;
    if may_be_empty && !thread.credentials.can(fs::permission::Capabilities::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let follow = if flags & general::AT_SYMLINK_FOLLOW != 0 { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    let old = thread.path(old).await?;
    let new = thread.path(new).await?;
    let old_start = thread.start(old_fd, &old)?;
    let new_start = thread.start(new_fd, &new)?;
    let (from, to) = (old_start.at(&old, may_be_empty), new_start.at(&new, false));
    Box::pin(thread.caller().link(from, follow, to)).await?;
    Ok(0)
}

/// unlink(2).
pub async fn unlink(thread: &mut RunningThread, path: UserPtr<u8>) -> Result<usize> {
    unlinkat(thread, AT_FDCWD, path, 0).await
}

/// rmdir(2).
pub async fn rmdir(thread: &mut RunningThread, path: UserPtr<u8>) -> Result<usize> {
    unlinkat(thread, AT_FDCWD, path, general::AT_REMOVEDIR).await
}

/// unlinkat(2). `EINVAL`: unknown flags. Others as unlink(2) and rmdir(2).
pub async fn unlinkat(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, flags: u32) -> Result<usize> {
    check_flags(flags, general::AT_REMOVEDIR)?;
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    let at = start.at(&path, false);
    if flags & general::AT_REMOVEDIR != 0 {
        Box::pin(thread.caller().rmdir(at)).await?;
    } else {
        Box::pin(thread.caller().unlink(at)).await?;
    }
    Ok(0)
}

/// rename(2).
pub async fn rename(thread: &mut RunningThread, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<usize> {
    renameat2(thread, AT_FDCWD, old, AT_FDCWD, new, 0).await
}

/// renameat(2).
pub async fn renameat(
    thread: &mut RunningThread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
) -> Result<usize> {
    renameat2(thread, old_fd, old, new_fd, new, 0).await
}

/// renameat2(2). `EINVAL`: unknown flags, RENAME_WHITEOUT among them. Others as rename(2).
pub async fn renameat2(
    thread: &mut RunningThread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    let mode = match flags {
        0 => RenameMode::Replace,
        general::RENAME_NOREPLACE => RenameMode::NoReplace,
        general::RENAME_EXCHANGE => RenameMode::Exchange,
        _ => return Err(Errno::EINVAL),
    };
    let old = thread.path(old).await?;
    let new = thread.path(new).await?;
    let old_start = thread.start(old_fd, &old)?;
    let new_start = thread.start(new_fd, &new)?;
    Box::pin(thread.caller().rename(old_start.at(&old, false), new_start.at(&new, false), mode)).await?;
    Ok(0)
}

/// Walks to a place on behalf of a call that changes its attributes.
pub async fn place(thread: &mut RunningThread, fd: i32, path: UserPtr<u8>, flags: u32) -> Result<Path> {
    let path = thread.path(path).await?;
    let start = thread.start(fd, &path)?;
    let at = start.at(&path, flags & general::AT_EMPTY_PATH != 0);
    match thread.caller().try_walk(at, walk_flags(flags)) {
        Some(result) => result,
        None => Box::pin(thread.caller().walk(at, walk_flags(flags))).await,
    }
}

/// What a `timespec` of utimensat(2) asks for.
///
/// # Errors
///
/// `EINVAL`: nanoseconds out of range.
pub fn time_change([seconds, nanoseconds]: time::Timespec) -> Result<TimeChange> {
    match nanoseconds {
        nanoseconds if nanoseconds == i64::from(general::UTIME_NOW) => Ok(TimeChange::Now),
        nanoseconds if nanoseconds == i64::from(general::UTIME_OMIT) => Ok(TimeChange::Omit),
        0..1_000_000_000 => Ok(TimeChange::To(fs::inode::Timestamp { seconds, nanoseconds: nanoseconds as u32 })),
        _ => Err(Errno::EINVAL),
    }
}
