//! Reading and writing: the loop around a file's attempts.
//!
//! A file never waits (`fs/src/file.rs`). What stopped an attempt is dealt with here, for every kind of file alike: a page
//! of user memory that is not there is brought in, a page of the file that is not cached is read, an empty pipe is waited for.
//! [`read_now`] and [`write_now`] are the fast path: one attempt, without a future.
//!
//! Next: `path.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use fs::{OpenFile, OpenFlags, Sink, Source, Stop};

use super::socket;
use crate::mm::user::{UserPtr, UserSlice};
use crate::mm::{PORTION, UserBuffer};
use crate::net;
use crate::process::fd_table::Fd;
use crate::process::signal::Signal;
use crate::process::wait_event::Interruptible;
use crate::process::{RunningThread, send};

/// The most that one call moves, as on Linux: MAX_RW_COUNT.
pub(super) const MOST: usize = 0x7fff_f000;
/// The most buffers of a vectored call.
const IOV_MAX: usize = 1024;

/// Where in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// At its cursor, which moves.
    Cursor,
    /// At this offset; the cursor stays.
    Offset(u64),
}

impl At {
    /// From the signed offset of pread(2).
    ///
    /// # Errors
    ///
    /// `EINVAL`: negative. `ESPIPE`: the file has no offsets.
    pub fn offset(file: &OpenFile, offset: i64) -> Result<At> {
        if !file.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        u64::try_from(offset).map(At::Offset).map_err(|_| Errno::EINVAL)
    }

    /// Attempts something at the place, which moves.
    #[inline(always)]
    pub(super) fn with<R>(&mut self, file: &OpenFile, attempt: impl FnOnce(&mut u64) -> R) -> R {
        match self {
            At::Cursor if file.ops.is_seekable() => file.with_position(attempt),
            At::Cursor => attempt(&mut 0),
            At::Offset(offset) => attempt(offset),
        }
    }
}

/// Which way the bytes go.
trait Direction {
    fn attempt(&mut self, file: &OpenFile, position: &mut u64) -> Result<usize, Stop>;
    fn remaining(&self) -> usize;
    /// Which way they go through a socket.
    const THROUGH_SOCKET: net::Direction;
    /// Whether an attempt that moved something, but not all, is to be followed by another.
    fn goes_on(&self, file: &OpenFile) -> bool;
    /// Brings in the page of user memory that stopped the last copy.
    fn resolve(&mut self) -> impl Future<Output = Result<()>> + Send;
}

struct Reading<'a>(UserBuffer<'a>);
struct Writing<'a>(UserBuffer<'a>);

impl Direction for Reading<'_> {
    const THROUGH_SOCKET: net::Direction = net::Direction::Receive;

    fn attempt(&mut self, file: &OpenFile, position: &mut u64) -> Result<usize, Stop> {
        file.ops.try_read(position, &mut self.0)
    }

    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn goes_on(&self, file: &OpenFile) -> bool {
        Sink::faulted(&self.0) || file.ops.reads_fully()
    }

    fn resolve(&mut self) -> impl Future<Output = Result<()>> + Send {
        self.0.resolve()
    }
}

impl Direction for Writing<'_> {
    const THROUGH_SOCKET: net::Direction = net::Direction::Send;

    fn attempt(&mut self, file: &OpenFile, position: &mut u64) -> Result<usize, Stop> {
        file.ops.try_write(position, file.flags(), &mut self.0)
    }

    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn goes_on(&self, file: &OpenFile) -> bool {
        // A blocking write is only over when all is written; a non-blocking one takes what there is room for.
        Source::faulted(&self.0) || file.ops.reads_fully() || !file.flags().contains(OpenFlags::NONBLOCK)
    }

    fn resolve(&mut self) -> impl Future<Output = Result<()>> + Send {
        self.0.resolve()
    }
}

/// Moves what is to be moved. What it changes is lent: a future that were given it would hold it twice.
async fn transfer(
    thread: &RunningThread,
    file: &OpenFile,
    at: &mut At,
    bytes: &mut (impl Direction + Send),
) -> Result<usize> {
    let mut done = 0;
    loop {
        let problem = match attempt(thread, file, at, bytes).await {
            Ok(0) => return Ok(done),
            Ok(moved) => {
                done += moved;
                if bytes.remaining() == 0 || !bytes.goes_on(file) {
                    return Ok(done);
                }
                continue;
            }
            Err(Stop::Fault) => match bytes.resolve().await {
                Ok(()) if thread.is_interrupted(Interruptible::ByKill) => Err(Errno::EINTR),
                outcome => outcome,
            },
            // What the page cache gives up makes room for what is read.
            Err(Stop::Miss(page)) => match file.ops.prepare(page).await {
                Err(Errno::ENOMEM) => crate::mm::admit().await,
                outcome => outcome,
            },
            Err(Stop::WouldBlock) => Err(Errno::EAGAIN),
            Err(Stop::Errno(errno)) => Err(errno),
        };
        match problem {
            Ok(()) => {}
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        }
    }
}

/// One attempt; waits first if there is nothing to be had and the file may block.
async fn attempt<D: Direction + Send>(
    thread: &RunningThread,
    file: &OpenFile,
    at: &mut At,
    bytes: &mut D,
) -> Result<usize, Stop> {
    let mut once = || at.with(file, |position| bytes.attempt(file, position));
    match file.ops.wait_queue() {
        Some(queue) if !file.flags().contains(OpenFlags::NONBLOCK) => {
            let blocked = || match once() {
                Err(Stop::WouldBlock) => None,
                outcome => Some(outcome),
            };
            // Only sockets have a time limit.
            let socket = net::socket_of(file).ok();
            let deadline = socket.and_then(|socket| socket::deadline(socket, D::THROUGH_SOCKET));
            let waited = thread.wait_event(queue, Interruptible::BySignals, deadline, blocked).await;
            socket::outcome(waited, deadline)
        }
        _ => once(),
    }
}

/// Attempts something with a file; where it would block, attempts it again each time something about the file has changed.
///
/// # Errors
///
/// `EAGAIN`: it would block on a file that never changes. Interrupted by signals, restarts.
pub(super) async fn until_possible<T>(
    thread: &RunningThread,
    file: &OpenFile,
    mut attempt: impl FnMut() -> Result<T, Stop>,
) -> Result<Result<T, Stop>> {
    match attempt() {
        Err(Stop::WouldBlock) => {}
        outcome => return Ok(outcome),
    }
    let Some(queue) = file.ops.wait_queue() else { return Err(Errno::EAGAIN) };
    let attempt = || match attempt() {
        Err(Stop::WouldBlock) => None,
        outcome => Some(outcome),
    };
    thread.wait_event(queue, Interruptible::BySignals, None, attempt).await
}

fn readable(thread: &RunningThread, fd: Fd) -> Result<Arc<OpenFile>> {
    let file = thread.files.get(fd)?;
    if file.flags().can_read() { Ok(file) } else { Err(Errno::EBADF) }
}

fn writable(thread: &RunningThread, fd: Fd) -> Result<Arc<OpenFile>> {
    let file = thread.files.get(fd)?;
    if file.flags().can_write() { Ok(file) } else { Err(Errno::EBADF) }
}

/// read(2), if one attempt is enough.
#[inline(always)] // called from one place, the table
pub fn read_now(thread: &mut RunningThread, fd: Fd, address: usize, len: usize) -> Option<Result<usize>> {
    let file = match readable(thread, fd) {
        Ok(file) => file,
        Err(errno) => return Some(Err(errno)),
    };
    if len > PORTION {
        return None;
    }
    let mut buffer = match UserBuffer::new(&thread.space, UserSlice::new(address, len)) {
        Ok(buffer) => buffer,
        Err(errno) => return Some(Err(errno)),
    };
    if file.ops.is_seekable() {
        return file.with_position(|position| {
            let before = *position;
            match file.ops.try_read(position, &mut buffer) {
                Ok(moved) if moved == 0 || buffer.is_empty() || !file.ops.reads_fully() => Some(Ok(moved)),
                Err(Stop::Errno(errno)) => Some(Err(errno)),
                _ => {
                    *position = before;
                    None
                }
            }
        });
    }
    match file.ops.try_read(&mut 0, &mut buffer) {
        Ok(moved) => Some(Ok(moved)),
        Err(Stop::Errno(errno)) => Some(Err(errno)),
        Err(Stop::WouldBlock) if file.flags().contains(OpenFlags::NONBLOCK) => Some(Err(Errno::EAGAIN)),
        Err(_) => None,
    }
}

/// read(2). `EBADF`: not open for reading. `EFAULT`, `EAGAIN`, `EINTR`, `EISDIR`, `EIO`.
pub async fn read(thread: &mut RunningThread, fd: Fd, address: usize, len: usize) -> Result<usize> {
    let file = readable(thread, fd)?;
    let buffer = UserBuffer::new(&thread.space, UserSlice::new(address, len.min(MOST)))?;
    transfer(thread, &file, &mut At::Cursor, &mut Reading(buffer)).await
}

/// write(2), if one attempt is enough.
#[inline(always)] // called from one place, the table
pub fn write_now(thread: &mut RunningThread, fd: Fd, address: usize, len: usize) -> Option<Result<usize>> {
    let file = match writable(thread, fd) {
        Ok(file) => file,
        Err(errno) => return Some(Err(errno)),
    };
    if size_limit(thread, &file).is_some() {
        return None;
    }
    let mut buffer = match UserBuffer::new(&thread.space, UserSlice::new(address, len.min(MOST))) {
        Ok(buffer) => buffer,
        Err(errno) => return Some(Err(errno)),
    };
    let flags = file.flags();
    match At::Cursor.with(&file, |position| file.ops.try_write(position, flags, &mut buffer)) {
        Ok(moved) if buffer.is_empty() => Some(Ok(moved)),
        Ok(moved) if flags.contains(OpenFlags::NONBLOCK) && !file.ops.reads_fully() => Some(Ok(moved)),
        // The rest is written the long way, but what was written must not be written twice.
        Ok(moved) => {
            // At most [`MOST`].
            thread.written_before = moved as u32;
            None
        }
        Err(Stop::WouldBlock) if flags.contains(OpenFlags::NONBLOCK) => Some(Err(Errno::EAGAIN)),
        // A socket reports some errors once only; a broken pipe is found again, and is a signal too.
        Err(Stop::Errno(errno)) if errno != Errno::EPIPE => Some(Err(errno)),
        Err(_) => None,
    }
}

/// write(2). `EBADF`: not open for writing. `EPIPE`, with SIGPIPE: nobody reads. `EFBIG`, with SIGXFSZ: over RLIMIT_FSIZE.
/// `EFAULT`, `EAGAIN`, `EINTR`, `ENOSPC`, `EIO`.
pub async fn write(thread: &mut RunningThread, fd: Fd, address: usize, len: usize) -> Result<usize> {
    let before = core::mem::take(&mut thread.written_before) as usize;
    let file = writable(thread, fd)?;
    let rest = UserSlice::new(address.wrapping_add(before), len.min(MOST) - before);
    let buffer = UserBuffer::new(&thread.space, rest)?;
    match write_buffer(thread, &file, &mut At::Cursor, &mut Writing(buffer)).await {
        Ok(done) => Ok(before + done),
        Err(_) if before > 0 => Ok(before),
        Err(errno) => Err(errno),
    }
}

async fn write_buffer(
    thread: &RunningThread,
    file: &OpenFile,
    at: &mut At,
    writing: &mut Writing<'_>,
) -> Result<usize> {
    if !writing.0.is_empty() {
        writing.0.truncate(room_to_size_limit(thread, file, *at)?);
    }
    let result = transfer(thread, file, at, writing).await;
    // A socket of messages has no signal for it.
    let is_silent = || net::socket_of(file).is_ok_and(|socket| socket.kind != net::Type::Stream);
    if result == Err(Errno::EPIPE) && !is_silent() {
        send::to_caller(thread.shared(), Signal::SIGPIPE);
    }
    result
}

/// RLIMIT_FSIZE, where there is one and it is about this file.
#[inline(always)]
fn size_limit(thread: &RunningThread, file: &OpenFile) -> Option<u64> {
    let inode = file.inode.as_ref()?;
    if inode.core().kind != fs::Kind::Regular {
        return None;
    }
    let limit = thread.process.limits.lock().soft(general::RLIMIT_FSIZE);
    (limit != crate::process::limits::UNLIMITED).then_some(limit)
}

/// How many bytes a write may have: it is cut at RLIMIT_FSIZE, and one that begins there is refused.
///
/// # Errors
///
/// `EFBIG`, with SIGXFSZ.
pub(super) fn room_to_size_limit(thread: &RunningThread, file: &OpenFile, at: At) -> Result<usize> {
    let Some(limit) = size_limit(thread, file) else { return Ok(usize::MAX) };
    let begin = match at {
        At::Offset(offset) => offset,
        At::Cursor if file.flags().contains(OpenFlags::APPEND) => {
            file.inode.as_ref().map_or(0, |inode| inode.core().size())
        }
        At::Cursor => file.with_position(|position| *position),
    };
    if begin >= limit {
        send::to_caller(thread.shared(), Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(usize::try_from(limit - begin).unwrap_or(usize::MAX))
}

pub(super) async fn vector(
    thread: &RunningThread,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
) -> Result<Vec<UserSlice>> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let vectors = thread.space.read_user_array(vectors, count).await?;
    Ok(vectors.into_iter().map(|[address, len]: [usize; 2]| UserSlice::new(address, len)).collect())
}

async fn read_vector(
    thread: &mut RunningThread,
    file: Arc<OpenFile>,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    mut at: At,
) -> Result<usize> {
    let slices = vector(thread, vectors, count).await?;
    let mut buffer = UserBuffer::vectored(&thread.space, &slices)?;
    buffer.truncate(MOST);
    transfer(thread, &file, &mut at, &mut Reading(buffer)).await
}

async fn write_vector(
    thread: &mut RunningThread,
    file: Arc<OpenFile>,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    mut at: At,
) -> Result<usize> {
    let slices = vector(thread, vectors, count).await?;
    let mut buffer = UserBuffer::vectored(&thread.space, &slices)?;
    buffer.truncate(MOST);
    write_buffer(thread, &file, &mut at, &mut Writing(buffer)).await
}

/// readv(2). As read(2); `EINVAL`: over 1,024 buffers, or too long.
pub async fn readv(thread: &mut RunningThread, fd: Fd, vectors: UserPtr<[usize; 2]>, count: usize) -> Result<usize> {
    let file = readable(thread, fd)?;
    read_vector(thread, file, vectors, count, At::Cursor).await
}

/// writev(2). As write(2); `EINVAL`: over 1,024 buffers, or too long.
pub async fn writev(thread: &mut RunningThread, fd: Fd, vectors: UserPtr<[usize; 2]>, count: usize) -> Result<usize> {
    let file = writable(thread, fd)?;
    write_vector(thread, file, vectors, count, At::Cursor).await
}

/// pread64(2). As read(2); `ESPIPE`, `EINVAL`: a negative offset.
pub async fn pread64(thread: &mut RunningThread, fd: Fd, address: usize, len: usize, offset: i64) -> Result<usize> {
    let file = readable(thread, fd)?;
    let mut at = At::offset(&file, offset)?;
    let buffer = UserBuffer::new(&thread.space, UserSlice::new(address, len.min(MOST)))?;
    transfer(thread, &file, &mut at, &mut Reading(buffer)).await
}

/// pwrite64(2), if one attempt is enough. Another writes the same once more.
pub fn pwrite64_now(
    thread: &mut RunningThread,
    fd: Fd,
    address: usize,
    len: usize,
    offset: i64,
) -> Option<Result<usize>> {
    let file = writable(thread, fd).ok().filter(|file| size_limit(thread, file).is_none())?;
    let mut at = At::offset(&file, offset).ok()?;
    let mut buffer = UserBuffer::new(&thread.space, UserSlice::new(address, len.min(MOST))).ok()?;
    let moved = at.with(&file, |position| file.ops.try_write(position, file.flags(), &mut buffer)).ok()?;
    buffer.is_empty().then_some(Ok(moved))
}

/// pwrite64(2). As write(2); `ESPIPE`, `EINVAL`: a negative offset.
pub async fn pwrite64(thread: &mut RunningThread, fd: Fd, address: usize, len: usize, offset: i64) -> Result<usize> {
    let file = writable(thread, fd)?;
    let mut at = At::offset(&file, offset)?;
    let buffer = UserBuffer::new(&thread.space, UserSlice::new(address, len.min(MOST)))?;
    write_buffer(thread, &file, &mut at, &mut Writing(buffer)).await
}

/// preadv(2).
pub async fn preadv(
    thread: &mut RunningThread,
    fd: Fd,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    offset: i64,
) -> Result<usize> {
    let file = readable(thread, fd)?;
    let at = At::offset(&file, offset)?;
    read_vector(thread, file, vectors, count, at).await
}

/// pwritev(2).
pub async fn pwritev(
    thread: &mut RunningThread,
    fd: Fd,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    offset: i64,
) -> Result<usize> {
    let file = writable(thread, fd)?;
    let at = At::offset(&file, offset)?;
    write_vector(thread, file, vectors, count, at).await
}

/// The flags of preadv2(2) that change nothing here: no request has a priority.
const HIGH_PRIORITY: u32 = general::RWF_HIPRI;

/// preadv2(2). `EOPNOTSUPP`: a flag other than RWF_HIPRI.
pub async fn preadv2(
    thread: &mut RunningThread,
    fd: Fd,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    offset: i64,
    _offset_high: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !HIGH_PRIORITY != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if offset == -1 {
        Box::pin(readv(thread, fd, vectors, count)).await
    } else {
        Box::pin(preadv(thread, fd, vectors, count, offset)).await
    }
}

/// pwritev2(2). `EOPNOTSUPP`: a flag other than RWF_HIPRI.
pub async fn pwritev2(
    thread: &mut RunningThread,
    fd: Fd,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    offset: i64,
    _offset_high: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !HIGH_PRIORITY != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if offset == -1 {
        Box::pin(writev(thread, fd, vectors, count)).await
    } else {
        Box::pin(pwritev(thread, fd, vectors, count, offset)).await
    }
}
