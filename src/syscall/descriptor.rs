//! Descriptors: closing, duplicating, their flags and positions; pipes; ioctl; locks; moving bytes between two files.

use alloc::sync::Arc;
use alloc::vec;

use abi::{Errno, Result, general};
use fs::buffer::{SliceSink, SliceSource};
use fs::locks::{FileLocks, LockOwner, RecordLock};
use fs::{FileOps, IoctlArgument, OpenFile, OpenFlags, Stop};

use crate::mm::user::{Stopped, UserPtr};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::wait_event::Interruptible;

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

/// `struct flock`: kind and whence, start, length, process.
type Flock = [u64; 4];

async fn record_lock(
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

/// The argument of an ioctl, over user memory. A copy that stops leaves what stopped it.
struct Argument<'a> {
    thread: &'a RunningThread,
    value: usize,
    stopped: Option<Stopped>,
}

impl Argument<'_> {
    fn note(&mut self, result: Result<(), Stopped>) -> Result<(), Stop> {
        result.map_err(|stopped| {
            self.stopped = Some(stopped);
            Stop::Fault
        })
    }
}

impl IoctlArgument for Argument<'_> {
    fn value(&self) -> usize {
        self.value
    }

    fn get(&mut self, into: &mut [u8]) -> Result<(), Stop> {
        let result = self.thread.space.active().read_bytes(self.value, into);
        self.note(result)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let result = self.thread.space.active().write_bytes(self.value, bytes);
        self.note(result)
    }

    fn check_writable(&mut self, len: usize) -> Result<(), Stop> {
        let result = self.thread.space.active().check_writable(self.value, len);
        self.note(result)
    }
}

/// ioctl(2). `EBADF`; `ENOTTY`: the file knows no such command; others by file.
pub async fn ioctl(thread: &mut RunningThread, fd: Fd, command: u32, argument: usize) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    match command {
        abi::ioctl::FIOCLEX | abi::ioctl::FIONCLEX => {
            thread.files.set_close_on_exec(fd, command == abi::ioctl::FIOCLEX)?;
            return Ok(0);
        }
        abi::ioctl::FIONBIO => {
            let on: i32 = thread.get(UserPtr::new(argument)).await?;
            let flags = file.flags() - OpenFlags::NONBLOCK;
            file.set_flags(if on != 0 { flags | OpenFlags::NONBLOCK } else { flags });
            return Ok(0);
        }
        _ => {}
    }
    loop {
        let mut over = Argument { thread, value: argument, stopped: None };
        let attempt = file.ops.ioctl(command, &mut over);
        let stopped = over.stopped.take();
        match attempt {
            Ok(value) => return Ok(value),
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Fault) => match stopped {
                Some(stopped) => thread.space.resolve(stopped.why).await?,
                None => return Err(Errno::EFAULT),
            },
            Err(Stop::Miss(page)) => file.ops.prepare(page).await?,
            Err(Stop::WouldBlock) => wait_for_change(thread, &file).await?,
        }
    }
}

async fn wait_for_change(thread: &RunningThread, file: &OpenFile) -> Result<()> {
    let Some(queue) = file.ops.wait_queue() else { return Err(Errno::EAGAIN) };
    let mut is_first = true;
    let attempt = || if core::mem::take(&mut is_first) { None } else { Some(()) };
    thread.wait_event(queue, Interruptible::BySignals, None, attempt).await
}

/// fsync(2). `EBADF`, `EINVAL`, `EIO`, `ENOSPC`.
pub async fn fsync(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    file.ops.sync(false).await?;
    Ok(0)
}

/// fdatasync(2). As fsync(2).
pub async fn fdatasync(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    file.ops.sync(true).await?;
    Ok(0)
}

/// sync(2).
pub async fn sync(thread: &mut RunningThread) -> Result<usize> {
    for mount in thread.fs.mounts().mounts() {
        // sync(2) reports no errors; fsync(2) does.
        let _ = mount.superblock.file_system.sync().await;
    }
    Ok(0)
}

/// syncfs(2). `EBADF`, `EIO`, `ENOSPC`.
pub async fn syncfs(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if let Some(path) = &file.path {
        path.mount.superblock.file_system.sync().await?;
    }
    Ok(0)
}

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
    let mut bytes = vec::Vec::new();
    bytes.try_reserve_exact(STEP.min(count)).map_err(|_| Errno::ENOMEM)?;
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
    loop {
        match file.ops.try_read(position, &mut SliceSink::new(bytes)) {
            Ok(read) => return Ok(read),
            Err(Stop::Miss(page)) => file.ops.prepare(page).await?,
            Err(Stop::WouldBlock) if may_wait && !file.flags().contains(OpenFlags::NONBLOCK) => {
                wait_for_change(thread, file).await?;
            }
            Err(Stop::WouldBlock) => return Err(Errno::EAGAIN),
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Fault) => return Err(Errno::EFAULT),
        }
    }
}

async fn write_all(thread: &RunningThread, file: &OpenFile, at: &mut Option<u64>, bytes: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let mut source = SliceSource::new(&bytes[done..]);
        let flags = file.flags();
        let attempt = match at {
            Some(at) => file.ops.try_write(at, flags, &mut source),
            None => file.with_position(|position| file.ops.try_write(position, flags, &mut source)),
        };
        let problem = match attempt {
            Ok(written) => {
                done += written;
                continue;
            }
            Err(Stop::Miss(page)) => file.ops.prepare(page).await,
            Err(Stop::WouldBlock) if !flags.contains(OpenFlags::NONBLOCK) => wait_for_change(thread, file).await,
            Err(Stop::WouldBlock) => Err(Errno::EAGAIN),
            Err(Stop::Errno(errno)) => Err(errno),
            Err(Stop::Fault) => Err(Errno::EFAULT),
        };
        match problem {
            Ok(()) => {}
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// The most that sendfile(2) and copy_file_range(2) move in one call.
const MOST: usize = 0x7fff_f000;

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

/// sync_file_range(2): brings the file's data to the disk, all of it. `EBADF`, `EINVAL`, `ESPIPE`, `EIO`, `ENOSPC`.
pub async fn sync_file_range(thread: &mut RunningThread, fd: Fd, offset: i64, len: i64, flags: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if flags > 7 || offset < 0 || len < 0 {
        return Err(Errno::EINVAL);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    file.ops.sync(true).await?;
    Ok(0)
}
