//! Open files.
//!
//! [`FileOps`] is what can be done with an open file, as attempts that never wait; [`OpenFile`] is an open file description
//! (open(2)): operations, flags and cursor, shared by all descriptors that dup(2) and fork(2) made of it.
//!
//! ```text
//!   read(2):  loop { try_read ──► Ok(n)              done (or more, for a regular file)
//!                             ├─► Stop::Fault        bring the user page in, again
//!                             ├─► Stop::Miss(page)   prepare(page).await, again
//!                             ├─► Stop::WouldBlock   EAGAIN if O_NONBLOCK, else wait on wait_queue(), again
//!                             └─► Stop::Errno(e)     that is the answer }
//! ```
//!
//! The loop is the kernel's (`src/syscall/transfer.rs`).
//!
//! Next: `path.rs`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use abi::general;
use bitflags::bitflags;
use executor::sync::{SpinLock, WaitQueue};

use crate::inode::{DirectoryEntry, Inode, Kind};
use crate::locks::LockOwner;
use crate::path::Path;
use crate::{Errno, Io, Result, Sink, Source};

/// Why an attempt could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It is refused.
    Errno(Errno),
    /// Nothing to read or no room to write now; [`FileOps::wait_queue`] is woken when that may have changed.
    WouldBlock,
    /// A page of user memory is not there; the sink or source knows which.
    Fault,
    /// This page of the file's content must be brought into the cache, by [`FileOps::prepare`].
    Miss(u64),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

bitflags! {
    /// What poll(2) can report; the bits are Linux's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PollEvents: u32 {
        /// There is something to read, or the end.
        const IN = general::POLLIN;
        /// There is something urgent to read.
        const PRI = general::POLLPRI;
        /// A write would not block.
        const OUT = general::POLLOUT;
        /// Something is wrong.
        const ERR = general::POLLERR;
        /// The other side has gone.
        const HUP = general::POLLHUP;
        /// Not an open descriptor.
        const NVAL = general::POLLNVAL;
        /// The other side will write no more.
        const RDHUP = general::POLLRDHUP;
        /// The same as IN.
        const RDNORM = general::POLLRDNORM;
        /// The same as OUT.
        const WRNORM = general::POLLWRNORM;
    }

    /// The flags of open(2); the bits are Linux's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct OpenFlags: u32 {
        /// Only for writing.
        const WRONLY = general::O_WRONLY;
        /// For reading and writing.
        const RDWR = general::O_RDWR;
        /// Create it if it is not there.
        const CREAT = general::O_CREAT;
        /// With CREAT: it must not be there.
        const EXCL = general::O_EXCL;
        /// A terminal does not become the controlling one.
        const NOCTTY = general::O_NOCTTY;
        /// Cut it to nothing.
        const TRUNC = general::O_TRUNC;
        /// Write at the end.
        const APPEND = general::O_APPEND;
        /// Never block.
        const NONBLOCK = general::O_NONBLOCK;
        /// Writes reach the disk, data only.
        const DSYNC = general::O_DSYNC;
        /// SIGIO when ready.
        const ASYNC = general::FASYNC;
        /// Around the page cache.
        const DIRECT = general::O_DIRECT;
        /// Large files; always on here.
        const LARGEFILE = general::O_LARGEFILE;
        /// It must be a folder.
        const DIRECTORY = general::O_DIRECTORY;
        /// It must not be a symbolic link.
        const NOFOLLOW = general::O_NOFOLLOW;
        /// The access time stays.
        const NOATIME = general::O_NOATIME;
        /// Closed by exec.
        const CLOEXEC = general::O_CLOEXEC;
        /// Writes reach the disk. (Includes DSYNC.)
        const SYNC = general::O_SYNC;
        /// Only a place, not the content.
        const PATH = general::O_PATH;
        /// A file without a name. (Includes DIRECTORY.)
        const TMPFILE = general::O_TMPFILE;
    }
}

impl OpenFlags {
    /// Whether reading is allowed.
    pub fn can_read(self) -> bool {
        !self.contains(OpenFlags::PATH) && !self.contains(OpenFlags::WRONLY)
    }

    /// Whether writing is allowed.
    pub fn can_write(self) -> bool {
        !self.contains(OpenFlags::PATH)
            && self.intersects(OpenFlags::WRONLY | OpenFlags::RDWR)
            && !self.is_for_control_only()
    }

    /// Whether both bits of the access mode are set: as on Linux, the file may then be neither read nor written, but who opens it
    /// must be allowed to do both.
    pub fn is_for_control_only(self) -> bool {
        self.contains(OpenFlags::WRONLY | OpenFlags::RDWR)
    }
}

/// The argument of an ioctl(2): a number that may be the address of user memory.
///
/// A fault of user memory returns [`Stop::Fault`]; the kernel brings the page in and calls `ioctl` again, so an implementation copies
/// in first, acts, and copies out last.
pub trait IoctlArgument {
    /// The number itself.
    fn value(&self) -> usize;
    /// Copies bytes from the memory it points to.
    ///
    /// # Errors
    ///
    /// [`Stop::Fault`].
    fn get(&mut self, into: &mut [u8]) -> Result<(), Stop>;
    /// Copies bytes to the memory it points to.
    ///
    /// # Errors
    ///
    /// [`Stop::Fault`].
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop>;
    /// Makes sure that `len` bytes can be written there, before something is done that cannot be undone.
    ///
    /// # Errors
    ///
    /// [`Stop::Fault`].
    fn check_writable(&mut self, len: usize) -> Result<(), Stop>;
}

/// What can be done with an open file. Each method has the default that a file which cannot do it wants.
pub trait FileOps: Any + Send + Sync {
    /// Attempts to read at `position` (streams ignore it), and moves `position` behind what was read. `Ok(0)` with room in the
    /// sink is the end of the file. Copies first and consumes then, so that a fault loses nothing.
    ///
    /// # Errors
    ///
    /// A [`Stop`], only if nothing was read.
    fn try_read(&self, _position: &mut u64, _sink: &mut dyn Sink) -> Result<usize, Stop> {
        Err(Stop::Errno(Errno::EINVAL))
    }

    /// Attempts to write at `position`, or at the end if `flags` has APPEND, and moves `position` behind what was written.
    ///
    /// # Errors
    ///
    /// A [`Stop`], only if nothing was written. `EPIPE` also means SIGPIPE, which the kernel sends.
    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, _source: &mut dyn Source) -> Result<usize, Stop> {
        Err(Stop::Errno(Errno::EINVAL))
    }

    /// Attempts to finish opening: a FIFO waits here for its other end. Asked once after open(2) made the file; `WouldBlock` means
    /// wait on [`FileOps::wait_queue`] and ask again (a signal ends it with `EINTR`, and the file is dropped).
    ///
    /// # Errors
    ///
    /// A [`Stop`].
    fn try_open(&self) -> Result<(), Stop> {
        Ok(())
    }

    /// Does what [`Stop::Miss`] asked for.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOMEM`, `ENOSPC`.
    fn prepare(&self, _miss: u64) -> Io<'_, ()> {
        Io::ready(Err(Errno::EIO))
    }

    /// Whether it has positions: `lseek`, `pread` and `pwrite` make sense. (`ESPIPE` otherwise.)
    fn is_seekable(&self) -> bool {
        false
    }

    /// lseek(2) on a file that is not seekable but has places of its own to go to, as /dev/kmsg. `whence` is `SEEK_SET` and its like.
    ///
    /// # Errors
    ///
    /// `ESPIPE`: it has none. `EINVAL`: no such `whence`.
    fn seek(&self, _offset: i64, _whence: u32) -> Result<u64> {
        Err(Errno::ESPIPE)
    }

    /// The next byte from `position` on that is content, or that is in a hole (`SEEK_DATA`, `SEEK_HOLE` of lseek(2)).
    ///
    /// # Errors
    ///
    /// `ENXIO`: there is none. `EINVAL`: the file knows no holes.
    fn seek_data(&self, _position: u64, _want_hole: bool) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    /// Entries of a folder from `position` on, `.` and `..` among them; no entries at the end.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`; `EIO`.
    fn read_directory(&self, _position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        Io::ready(Err(Errno::ENOTDIR))
    }

    /// Whether a read goes on until it has all it was asked for, as for regular files, and not just what is there now.
    fn reads_fully(&self) -> bool {
        false
    }

    /// What is possible now.
    fn poll(&self) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// Woken whenever [`FileOps::poll`] may have changed. `None`: it is always ready.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// ioctl(2).
    ///
    /// # Errors
    ///
    /// `ENOTTY`: it knows no such command. [`Stop::Fault`], [`Stop::WouldBlock`] as for a read.
    fn ioctl(&self, _command: u32, _argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        Err(Stop::Errno(Errno::ENOTTY))
    }

    /// The inode whose pages mmap(2) maps. `None`: `ENODEV`.
    fn mappable(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// fsync(2), fdatasync(2).
    ///
    /// # Errors
    ///
    /// `EINVAL`: nothing to sync, as a pipe. `EIO`, `ENOSPC`.
    fn sync(&self, _data_only: bool) -> Io<'_, ()> {
        Io::ready(Err(Errno::EINVAL))
    }

    /// Called when the last descriptor is gone; awaited by close(2), which returns its error.
    ///
    /// # Errors
    ///
    /// `EIO`.
    fn release(&self) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    /// For the links of /proc/PID/fd when there is no path, such as `pipe:[42]` or `anon_inode:[eventpoll]`.
    fn name(&self) -> alloc::string::String {
        "anon_inode:[file]".into()
    }

    /// Itself, to find the concrete type: epoll, sockets, terminals.
    fn as_any(&self) -> &dyn Any;
}

/// An open file description: what open(2) makes and descriptors refer to.
pub struct OpenFile {
    /// What can be done with it.
    pub ops: Arc<dyn FileOps>,
    /// Where it was opened, for files with a path.
    pub path: Option<Path>,
    /// Its inode, where there is one: what fstat(2) reports on.
    pub inode: Option<Arc<dyn Inode>>,
    flags: AtomicU32,
    position: SpinLock<u64>,
    watchers: SpinLock<Vec<Weak<dyn Watcher>>>,
}

/// Somebody who watches an open file and lets go of it when its last descriptor is closed: epoll.
pub trait Watcher: Send + Sync {
    /// The file is gone, but for its operations, which the watcher holds.
    fn file_closed(&self);
}

impl OpenFile {
    /// Opens.
    pub fn new(ops: Arc<dyn FileOps>, path: Option<Path>, inode: Option<Arc<dyn Inode>>, flags: OpenFlags) -> OpenFile {
        let keep =
            flags - (OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC | OpenFlags::CLOEXEC);
        OpenFile {
            ops,
            path,
            inode,
            flags: AtomicU32::new(keep.bits()),
            position: SpinLock::new(0),
            watchers: SpinLock::new(Vec::new()),
        }
    }

    /// Its flags now.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Sets what F_SETFL may set: APPEND, ASYNC, DIRECT, NOATIME, NONBLOCK.
    pub fn set_flags(&self, flags: OpenFlags) {
        let may = OpenFlags::APPEND | OpenFlags::ASYNC | OpenFlags::DIRECT | OpenFlags::NOATIME | OpenFlags::NONBLOCK;
        let _ = self
            .flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some((now & !may.bits()) | (flags & may).bits()));
    }

    /// Has a watcher told when the file is closed for good.
    pub fn add_watcher(&self, watcher: &Arc<dyn Watcher>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|old| old.strong_count() > 0);
        watchers.push(Arc::downgrade(watcher));
    }

    /// Works with the cursor, which nobody else moves meanwhile. The work does not wait.
    pub fn with_position<R>(&self, work: impl FnOnce(&mut u64) -> R) -> R {
        work(&mut self.position.lock())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        for watcher in core::mem::take(self.watchers.get_mut()) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.file_closed();
            }
        }
        let Some(inode) = &self.inode else { return };
        let core = inode.core();
        if let Some(locks) = core.locks() {
            locks.unlock_whole(self);
            locks.release(LockOwner::OpenFile(&raw const *self as usize));
        }
        if self.flags().can_write() && core.kind == Kind::Regular {
            core.end_writing();
        }
    }
}
