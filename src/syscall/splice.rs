//! splice(2), tee(2), vmsplice(2): from and to a pipe, by its pages. What is moved how is in `fs/src/pipe/splice.rs`.
//!
//! Each is a loop around an attempt: what an attempt has to wait for is waited for by looking at what poll(2) would say, and then comes the next.
//!
//! Next: `path.rs`.

use abi::{Errno, Result, general};
use executor::sync::WaitQueue;
use fs::pipe::PipeEnd;
use fs::pipe::splice::Blocked;
use fs::{OpenFile, OpenFlags, PollEvents, Stop};

use super::transfer::{At, MOST, room_to_size_limit, vector};
use crate::mm::UserBuffer;
use crate::mm::user::UserPtr;
use crate::process::fd_table::Fd;
use crate::process::signal::Signal;
use crate::process::wait_event::Interruptible;
use crate::process::{RunningThread, send};

/// The flags there are.
const FLAGS: u32 =
    general::SPLICE_F_MOVE | general::SPLICE_F_NONBLOCK | general::SPLICE_F_MORE | general::SPLICE_F_GIFT;

fn pipe_of(file: &OpenFile) -> Option<&PipeEnd> {
    file.ops.as_any().downcast_ref()
}

/// Waits until poll(2) would report one of these, an error or the end of a file.
async fn until(thread: &RunningThread, file: &OpenFile, events: PollEvents, may_wait: bool) -> Result<()> {
    let Some(queue) = file.ops.wait_queue().filter(|_| may_wait) else { return Err(Errno::EAGAIN) };
    let wanted = events | PollEvents::ERR | PollEvents::HUP;
    let attempt = || file.ops.poll().intersects(wanted).then_some(());
    thread.wait_event(queue, Interruptible::BySignals, None, attempt).await
}

/// Waits until a pipe has room.
async fn until_room(thread: &RunningThread, pipe: &PipeEnd, may_wait: bool) -> Result<()> {
    if !may_wait {
        return Err(Errno::EAGAIN);
    }
    let queue: &WaitQueue = pipe.room_queue();
    let attempt = || match pipe.has_room() {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(errno) => Some(Err(errno)),
    };
    thread.wait_event(queue, Interruptible::BySignals, None, attempt).await?
}

/// A broken pipe is a signal, too.
fn with_signal(thread: &RunningThread, outcome: Result<usize>) -> Result<usize> {
    if outcome == Err(Errno::EPIPE) {
        send::to_caller(thread.shared(), Signal::SIGPIPE);
    }
    outcome
}

/// splice(2). `EAGAIN`, `EBADF`, `EINTR`; `EINVAL`: neither is a pipe, both are the same, the other appends, or has no offsets. `EPIPE` with SIGPIPE.
/// `ESPIPE`: an offset for a pipe. `ENOMEM`, `EFAULT`, and what reading and writing the file says.
pub async fn splice(
    thread: &mut RunningThread,
    from: Fd,
    from_offset: UserPtr<i64>,
    to: Fd,
    to_offset: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if len == 0 {
        return Ok(0);
    }
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (thread.files.get(from)?, thread.files.get(to)?);
    let (input, output) = (pipe_of(&from), pipe_of(&to));
    if input.is_some() && !from_offset.is_null() || output.is_some() && !to_offset.is_null() {
        return Err(Errno::ESPIPE);
    }
    let mut from_at = place(thread, &from, from_offset).await?;
    let mut to_at = place(thread, &to, to_offset).await?;
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let nonblocking = |file: &OpenFile| file.flags().contains(OpenFlags::NONBLOCK);
    let (len, may_wait) = (len.min(MOST), flags & general::SPLICE_F_NONBLOCK == 0);
    let outcome = match (input, output) {
        (Some(input), Some(output)) => {
            let may_wait = may_wait && !nonblocking(&from) && !nonblocking(&to);
            between(thread, (&from, input), output, len, may_wait, false).await
        }
        (None, Some(output)) => fill(thread, &from, &mut from_at, output, len, may_wait && !nonblocking(&to)).await,
        (Some(input), None) => {
            drain(thread, (&from, input), &to, &mut to_at, len, may_wait && !nonblocking(&from)).await
        }
        (None, None) => Err(Errno::EINVAL),
    };
    let done = with_signal(thread, outcome)?;
    for (at, pointer) in [(from_at, from_offset), (to_at, to_offset)] {
        if let At::Offset(offset) = at {
            thread.put(pointer, &(offset as i64)).await?;
        }
    }
    Ok(done)
}

/// Where in a file: at the offset that is given, or at its cursor.
async fn place(thread: &RunningThread, file: &OpenFile, offset: UserPtr<i64>) -> Result<At> {
    match offset.non_null() {
        Some(offset) => At::offset(file, thread.get(offset).await?).map_err(|_| Errno::EINVAL),
        None => Ok(At::Cursor),
    }
}

/// From a file into a pipe: as much as one attempt reads.
async fn fill(
    thread: &RunningThread,
    from: &OpenFile,
    at: &mut At,
    pipe: &PipeEnd,
    len: usize,
    may_wait: bool,
) -> Result<usize> {
    // Pages that are mapped may be shared as well.
    let shares = from.ops.mappable().is_some();
    loop {
        let mut read = |sink: &mut dyn fs::Sink| at.with(from, |position| from.ops.try_read(position, sink));
        match pipe.try_fill(len, shares, &mut read) {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => until_room(thread, pipe, may_wait).await?,
            Err(Stop::WouldBlock) => {
                let may_wait = may_wait && !from.flags().contains(OpenFlags::NONBLOCK);
                until(thread, from, PollEvents::IN | PollEvents::RDHUP, may_wait).await?;
            }
            Err(Stop::Miss(page)) => from.ops.prepare(page).await?,
            Err(Stop::Fault) => return Err(Errno::EFAULT),
            Err(Stop::Errno(errno)) => return Err(errno),
        }
    }
}

/// From a pipe into a file: until it has all, or the pipe is empty.
async fn drain(
    thread: &RunningThread,
    (from, pipe): (&OpenFile, &PipeEnd),
    to: &OpenFile,
    at: &mut At,
    len: usize,
    may_wait: bool,
) -> Result<usize> {
    let flags = to.flags();
    if flags.contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let len = len.min(room_to_size_limit(thread, to, *at)?);
    let mut done = 0;
    while done < len {
        let mut is_there = false;
        let mut write = |source: &mut dyn fs::Source| {
            is_there = true;
            at.with(to, |position| to.ops.try_write(position, flags, source))
        };
        let problem = match pipe.try_drain(len - done, &mut write) {
            Ok(0) => break,
            Ok(moved) => {
                done += moved;
                continue;
            }
            Err(Stop::WouldBlock) if is_there => {
                until(thread, to, PollEvents::OUT, !flags.contains(OpenFlags::NONBLOCK)).await
            }
            Err(Stop::WouldBlock) if done > 0 => break,
            Err(Stop::WouldBlock) => until(thread, from, PollEvents::IN, may_wait).await,
            Err(Stop::Miss(page)) => to.ops.prepare(page).await,
            Err(Stop::Fault) => Err(Errno::EFAULT),
            Err(Stop::Errno(errno)) => Err(errno),
        };
        match problem {
            Ok(()) => {}
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// From a pipe into another: as much as is there and has room, at least something.
async fn between(
    thread: &RunningThread,
    (from, input): (&OpenFile, &PipeEnd),
    output: &PipeEnd,
    len: usize,
    may_wait: bool,
    stays: bool,
) -> Result<usize> {
    loop {
        match input.try_move(output, len, stays)? {
            Ok(done) => return Ok(done),
            Err(Blocked::Input) => until(thread, from, PollEvents::IN, may_wait).await?,
            Err(Blocked::Output) => until_room(thread, output, may_wait).await?,
        }
    }
}

/// tee(2). `EAGAIN`, `EBADF`, `EINTR`; `EINVAL`: not two pipes. `ENOMEM`; `EPIPE` with SIGPIPE.
pub async fn tee(thread: &mut RunningThread, from: Fd, to: Fd, len: usize, flags: u32) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (thread.files.get(from)?, thread.files.get(to)?);
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let (Some(input), Some(output)) = (pipe_of(&from), pipe_of(&to)) else { return Err(Errno::EINVAL) };
    let is_nonblocking = (from.flags() | to.flags()).contains(OpenFlags::NONBLOCK);
    let may_wait = flags & general::SPLICE_F_NONBLOCK == 0 && !is_nonblocking;
    let outcome = between(thread, (&from, input), output, len.min(MOST), may_wait, true).await;
    with_signal(thread, outcome)
}

/// vmsplice(2): what is given to the pipe is copied, so it may be changed afterwards. `EAGAIN`, `EBADF`: also what is no pipe. `EFAULT`, `EINTR`,
/// `EINVAL`, `ENOMEM`; `EPIPE` with SIGPIPE.
pub async fn vmsplice(
    thread: &mut RunningThread,
    fd: Fd,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = thread.files.get(fd)?;
    let pipe = pipe_of(&file).ok_or(Errno::EBADF)?;
    let may_wait = flags & general::SPLICE_F_NONBLOCK == 0;
    let slices = vector(thread, vectors, count).await?;
    let mut buffer = UserBuffer::vectored(&thread.space, &slices)?;
    buffer.truncate(MOST);
    if buffer.is_empty() {
        return Ok(0);
    }
    let writes = file.flags().can_write();
    loop {
        let attempt = match writes {
            true => file.ops.try_write(&mut 0, file.flags(), &mut buffer),
            false => file.ops.try_read(&mut 0, &mut buffer),
        };
        match attempt {
            Ok(done) => return Ok(done),
            Err(Stop::WouldBlock) if writes => until_room(thread, pipe, may_wait).await?,
            Err(Stop::WouldBlock) => until(thread, &file, PollEvents::IN, may_wait).await?,
            Err(Stop::Fault) => buffer.resolve().await?,
            Err(Stop::Miss(_)) => return Err(Errno::EIO),
            Err(Stop::Errno(errno)) => return with_signal(thread, Err(errno)),
        }
    }
}
