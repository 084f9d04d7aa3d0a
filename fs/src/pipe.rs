//! Pipes and FIFOs (pipe(7), fifo(7)).
//!
//! A [`Pipe`] is a queue of pages with bytes in them. Writers fill the last page and add new ones, up to the capacity; readers
//! empty the first. Both copy straight between the program's memory and the page, under the pipe's spin lock: a reader's bytes are
//! consumed only as far as they have arrived, and a write of at most [`PIPE_BUF`] bytes that cannot be copied whole is undone.
//!
//! Who waits for bytes is in `readable`, who waits for room in `writable`. A wake goes to one of those who can use it; if
//! something is left, the one who was woken wakes the next.
//!
//! The two ends are [`PipeEnd`]s. A FIFO is the same: its inode leads to the pipe while somebody has it open, and
//! [`FileOps::try_open`] waits for the other side. A pipe without a name that is opened again, through `/proc/PID/fd`, waits for
//! nobody: its other side may have come and gone, and what it wrote is still to be read.
//!
//! Next: `pipe/splice.rs`. Exercise: why must a reader that leaves bytes behind wake another?

pub mod splice;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::sync::{SpinLock, WaitQueue};

use crate::inode::{Attributes, FileSystemStatus, Inode, InodeCore, Kind};
use crate::permission::Credentials;
use crate::{
    Errno, FileOps, IoctlArgument, OpenFile, OpenFlags, PAGE_SIZE, Page, PageSource, PollEvents, Result, Sink, Source,
    Stop, environment,
};

/// Writes up to this long are never mixed with others.
pub const PIPE_BUF: usize = 4096;
/// The capacity of a new pipe in pages.
const DEFAULT_CAPACITY: usize = 16;
/// The greatest capacity in bytes that an unprivileged program may ask for (/proc/sys/fs/pipe-max-size).
pub const PIPE_MAX_SIZE: usize = 1 << 20;

/// A queue of bytes between writers and readers.
pub struct Pipe {
    source: &'static dyn PageSource,
    is_fifo: bool,
    state: SpinLock<State>,
    readable: WaitQueue,
    writable: WaitQueue,
}

struct State {
    buffers: VecDeque<Buffer>,
    /// A page kept for the next write, so that a pipe in use allocates nothing.
    spare: Option<Page>,
    /// How many pages there may be.
    capacity: usize,
    readers: u32,
    writers: u32,
    /// How many ends can do both, and so wait in `readable` for either.
    both: u32,
    /// How many readers, writers there have ever been: who waits for one to come must not miss one that came and left.
    readers_ever: u32,
    writers_ever: u32,
}

/// Bytes in a page.
struct Buffer {
    page: Page,
    start: usize,
    end: usize,
    /// Nobody else has the page: more may be written to it, and it may be kept for the next write.
    is_own: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.buffers.len() >= self.capacity
    }

    fn len(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.end - buffer.start).sum()
    }

    /// Moves bytes to the sink, and consumes those that arrived.
    fn read(&mut self, sink: &mut dyn Sink) -> usize {
        let mut done = 0;
        while let Some(buffer) = self.buffers.front_mut() {
            let len = (buffer.end - buffer.start).min(sink.remaining());
            let moved = sink.put_page(&buffer.page, buffer.start, len);
            buffer.start += moved;
            done += moved;
            if buffer.start < buffer.end {
                break;
            }
            if let Some(Buffer { page, is_own: true, .. }) = self.buffers.pop_front() {
                self.spare = Some(page);
            }
        }
        done
    }

    /// Moves bytes from the source, all or none if there are at most [`PIPE_BUF`].
    fn write(&mut self, pages: &'static dyn PageSource, source: &mut dyn Source) -> Result<usize, Stop> {
        let is_whole = source.remaining() <= PIPE_BUF;
        let mut done = 0;
        let mut has_faulted = false;
        while source.remaining() > 0 {
            let wanted = source.remaining();
            let needed = if is_whole { wanted } else { 1 };
            let is_full = self.is_full();
            let (moved, room) = match self.buffers.back_mut() {
                Some(last) if last.is_own && PAGE_SIZE - last.end >= needed => {
                    let room = (PAGE_SIZE - last.end).min(wanted);
                    let moved = source.take_page(&last.page, last.end, room);
                    if moved == room || !is_whole {
                        last.end += moved;
                    }
                    (moved, room)
                }
                _ if is_full => break,
                _ => {
                    let Some(page) = self.spare.take().or_else(|| Page::allocate(pages)) else {
                        return if done > 0 { Ok(done) } else { Err(Errno::ENOMEM.into()) };
                    };
                    let room = PAGE_SIZE.min(wanted);
                    let moved = source.take_page(&page, 0, room);
                    if moved == room || (moved > 0 && !is_whole) {
                        self.buffers.push_back(Buffer { page, start: 0, end: moved, is_own: true });
                    } else {
                        self.spare = Some(page);
                    }
                    (moved, room)
                }
            };
            if moved < room {
                has_faulted = true;
                if is_whole {
                    source.give_back(moved);
                } else {
                    done += moved;
                }
                break;
            }
            done += moved;
        }
        match done {
            0 if has_faulted => Err(Stop::Fault),
            0 => Err(Stop::WouldBlock),
            _ => Ok(done),
        }
    }
}

impl Pipe {
    /// An empty pipe without a name, whose pages come from `source`.
    pub fn new(source: &'static dyn PageSource) -> Pipe {
        Pipe {
            source,
            is_fifo: false,
            state: SpinLock::new(State {
                buffers: VecDeque::new(),
                spare: None,
                capacity: DEFAULT_CAPACITY,
                readers: 0,
                writers: 0,
                both: 0,
                readers_ever: 0,
                writers_ever: 0,
            }),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        }
    }

    /// The pipe of a FIFO: the one that others have open, or a new one.
    pub fn of_fifo(inode: &Arc<dyn Inode>, source: &'static dyn PageSource) -> Arc<Pipe> {
        inode.core().with_extras(|extras| {
            extras.pipe.upgrade().unwrap_or_else(|| {
                let pipe = Arc::new(Pipe { is_fifo: true, ..Pipe::new(source) });
                extras.pipe = Arc::downgrade(&pipe);
                pipe
            })
        })
    }

    /// How many bytes it can hold (`F_GETPIPE_SZ`).
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity * PAGE_SIZE
    }

    /// Changes how many bytes it can hold (`F_SETPIPE_SZ`); returns what it became.
    ///
    /// # Errors
    ///
    /// `EINVAL`: too much. `EBUSY`: it holds more now.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        let pages = bytes.max(PAGE_SIZE).checked_next_power_of_two().ok_or(Errno::EINVAL)? / PAGE_SIZE;
        if pages > (1 << 31) / PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        if state.buffers.len() > pages {
            return Err(Errno::EBUSY);
        }
        state.capacity = pages;
        drop(state);
        self.writable.wake_all();
        Ok(pages * PAGE_SIZE)
    }

    /// Tells one of those who wait for room, and those who wait for either.
    fn wake_writer(&self, both: u32) {
        self.writable.wake_one();
        if both > 0 {
            self.readable.wake_all();
        }
    }
}

/// An end of a pipe: for reading, for writing, or (a FIFO opened `O_RDWR`) both.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// Does not wait for the other side when it is opened.
    is_open_at_once: bool,
    /// How many of the other side there had been when this end came.
    others_before: u32,
    number: u64,
}

impl PipeEnd {
    /// Opens an end.
    ///
    /// # Errors
    ///
    /// `ENXIO`: a FIFO, only for writing, without waiting, and nobody reads.
    fn open(pipe: Arc<Pipe>, flags: OpenFlags, number: u64) -> Result<PipeEnd> {
        let (reads, writes) = (flags.can_read(), flags.can_write());
        let others_before = {
            let mut state = pipe.state.lock();
            if pipe.is_fifo && flags.contains(OpenFlags::NONBLOCK) && !reads && state.readers == 0 {
                return Err(Errno::ENXIO);
            }
            let before = if reads { state.writers_ever } else { state.readers_ever };
            state.readers += u32::from(reads);
            state.writers += u32::from(writes);
            state.both += u32::from(reads && writes);
            state.readers_ever = state.readers_ever.wrapping_add(u32::from(reads));
            state.writers_ever = state.writers_ever.wrapping_add(u32::from(writes));
            before
        };
        pipe.readable.wake_all();
        pipe.writable.wake_all();
        let is_open_at_once = !pipe.is_fifo || flags.contains(OpenFlags::NONBLOCK) || (reads && writes);
        Ok(PipeEnd { pipe, reads, writes, is_open_at_once, others_before, number })
    }

    /// Opens a FIFO.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn open_fifo(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<PipeEnd> {
        let pipe = Pipe::of_fifo(inode, inode.core().pages.source());
        PipeEnd::open(pipe, flags, inode.core().number)
    }

    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        {
            let mut state = self.pipe.state.lock();
            state.readers -= u32::from(self.reads);
            state.writers -= u32::from(self.writes);
            state.both -= u32::from(self.reads && self.writes);
        }
        self.pipe.readable.wake_all();
        self.pipe.writable.wake_all();
    }
}

impl FileOps for PipeEnd {
    fn try_open(&self) -> Result<(), Stop> {
        let state = self.pipe.state.lock();
        let (now, ever) =
            if self.reads { (state.writers, state.writers_ever) } else { (state.readers, state.readers_ever) };
        if self.is_open_at_once || now > 0 || ever != self.others_before { Ok(()) } else { Err(Stop::WouldBlock) }
    }

    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if !self.reads {
            return Err(Errno::EBADF.into());
        }
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state.lock();
        let was_full = state.is_full();
        let done = state.read(sink);
        if done == 0 {
            return match state.writers {
                _ if sink.faulted() => Err(Stop::Fault),
                0 => Ok(0),
                _ => Err(Stop::WouldBlock),
            };
        }
        let (has_room_now, is_left, both) = (was_full && !state.is_full(), !state.buffers.is_empty(), state.both);
        drop(state);
        if has_room_now {
            self.pipe.wake_writer(both);
        }
        if is_left {
            self.pipe.readable.wake_one();
        }
        Ok(done)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        if !self.writes {
            return Err(Errno::EBADF.into());
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE.into());
        }
        let done = state.write(self.pipe.source, source)?;
        let (is_full, both) = (state.is_full(), state.both);
        drop(state);
        self.pipe.readable.wake_one();
        if !is_full && source.remaining() == 0 {
            self.pipe.wake_writer(both);
        }
        Ok(done)
    }

    fn poll(&self) -> PollEvents {
        let state = self.pipe.state.lock();
        let mut events = PollEvents::empty();
        if self.reads {
            events.set(PollEvents::IN | PollEvents::RDNORM, !state.buffers.is_empty());
            events.set(PollEvents::HUP, state.writers == 0 && state.writers_ever != 0);
        }
        if self.writes {
            events.set(PollEvents::OUT | PollEvents::WRNORM, !state.is_full());
            events.set(PollEvents::ERR, state.readers == 0);
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(if self.reads { &self.pipe.readable } else { &self.pipe.writable })
    }

    fn ioctl(&self, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        match command {
            abi::ioctl::FIONREAD => {
                let len = self.pipe.state.lock().len() as u32;
                argument.put(&len.to_le_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn name(&self) -> String {
        format!("pipe:[{}]", self.number)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The inode of a pipe without a name: what fstat(2) reports on, and what `/proc/PID/fd/N` opens again.
struct PipeInode {
    core: InodeCore,
    pipe: Arc<Pipe>,
}

impl Inode for PipeInode {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        Ok(Some(Arc::new(PipeEnd::open(self.pipe.clone(), flags, self.core.number)?)))
    }

    fn change(&self, change: crate::inode::AttributeChange) -> crate::Io<'_, ()> {
        self.core.apply(&change);
        crate::Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus {
            magic: u64::from(abi::general::PIPEFS_MAGIC),
            block_size: PAGE_SIZE as u64,
            name_length: 255,
            ..FileSystemStatus::default()
        }
    }
}

/// Makes a pipe: the end to read from and the end to write to. `flags` may have NONBLOCK and DIRECT.
///
/// # Errors
///
/// `ENFILE`: none so far; for the kernel's own limits.
pub fn pipe(source: &'static dyn PageSource, owner: &Credentials, flags: OpenFlags) -> Result<(OpenFile, OpenFile)> {
    static DEVICE: AtomicU64 = AtomicU64::new(0);
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    // Whoever is first decides; a number that another was faster with stays unused.
    let device = match DEVICE.load(Ordering::Relaxed) {
        0 => {
            let new = environment::anonymous_device();
            DEVICE.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(new)
        }
        known => known,
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let attributes = Attributes::anonymous(0o600, owner);
    let pipe = Arc::new(Pipe::new(source));
    let core = InodeCore::in_memory(source, device, number, Kind::Fifo, 0, attributes);
    let inode: Arc<dyn Inode> = Arc::new(PipeInode { core, pipe: pipe.clone() });
    let keep = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    let reader = PipeEnd::open(pipe.clone(), OpenFlags::empty(), number)?;
    let writer = PipeEnd::open(pipe, OpenFlags::WRONLY, number)?;
    Ok((
        OpenFile::new(Arc::new(reader), None, Some(inode.clone()), keep),
        OpenFile::new(Arc::new(writer), None, Some(inode), keep | OpenFlags::WRONLY),
    ))
}
