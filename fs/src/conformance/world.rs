//! A small world to try a file system in: it is mounted at `/`, and there is somebody to act.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicI64, Ordering};
use core::task::{Context, Poll, Waker};
use std::boxed::Box;

use drivers::hw::HostPages;

use crate::buffer::{SliceSink, SliceSource};
use crate::context::{At, Caller, FsContext};
use crate::environment::{self, DeviceTable, Environment};
use crate::inode::{DirectoryEntry, Kind, Metadata, RenameMode, Timestamp};
use crate::mount::MountNamespace;
use crate::permission::Credentials;
use crate::walk::WalkFlags;
use crate::{Errno, FileOps, FileSystem, OpenFile, OpenFlags, Result, Stop};

/// Polls a future to its end; it may be pending only because it yields.
///
/// # Panics
///
/// If it is still pending after many polls: nobody else is here to wake it.
pub fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future waits for something that nobody does");
}

/// Pages that nobody else counts.
pub fn pages() -> &'static HostPages {
    Box::leak(Box::new(HostPages::new()))
}

/// There are no devices in the test world.
struct NoDevices;

impl DeviceTable for NoDevices {
    fn open(&self, _kind: Kind, _represents: u64, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

/// Installs a clock that goes on by a second whenever it is asked.
pub fn install() {
    static SECONDS: AtomicI64 = AtomicI64::new(1_000_000_000);
    static DEVICES: NoDevices = NoDevices;
    let now = || Timestamp { seconds: SECONDS.fetch_add(1, Ordering::Relaxed), nanoseconds: 0 };
    environment::install(Environment { now, devices: &DEVICES });
}

/// See the head of this file.
pub struct World {
    /// From where it is seen.
    pub context: FsContext,
    /// Who acts; may be changed.
    pub credentials: Credentials,
}

/// Paths are given relative to the working directory, which is the root at first.
impl World {
    /// Mounts a file system at `/` for root.
    pub fn new(file_system: Arc<dyn FileSystem>) -> World {
        install();
        let context = FsContext::new(MountNamespace::new(file_system, b"test"));
        context.set_umask(0);
        World { context, credentials: Credentials::root() }
    }

    /// The one who acts.
    pub fn caller(&self) -> Caller<'_> {
        Caller { context: &self.context, credentials: &self.credentials }
    }

    /// Acts as somebody else.
    pub fn become_user(&mut self, uid: u32, gid: u32) {
        self.credentials = Credentials::user(uid, gid);
    }

    /// open(2), without following what a FIFO waits for.
    ///
    /// # Errors
    ///
    /// Those of [`Caller::open`].
    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let at = At::working_directory(path.as_bytes());
        run(self.caller().open(at, flags, 0o644, WalkFlags::empty()))
    }

    /// Makes or replaces a file with this content.
    ///
    /// # Errors
    ///
    /// Those of open and write.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let file = self.open(path, OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC)?;
        let written = write_at(&file, 0, content)?;
        assert_eq!(written, content.len());
        Ok(())
    }

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// Those of open and read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        read_all(&*self.open(path, OpenFlags::empty())?)
    }

    /// lstat(2).
    ///
    /// # Errors
    ///
    /// Those of the walk.
    pub fn stat(&self, path: &str) -> Result<Metadata> {
        run(self.caller().stat(At::working_directory(path.as_bytes()), WalkFlags::empty()))
    }

    /// mkdir(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::mkdir`].
    pub fn mkdir(&self, path: &str) -> Result<()> {
        run(self.caller().mkdir(At::working_directory(path.as_bytes()), 0o755))
    }

    /// symlink(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::symlink`].
    pub fn symlink(&self, target: &str, path: &str) -> Result<()> {
        run(self.caller().symlink(target.as_bytes(), At::working_directory(path.as_bytes())))
    }

    /// readlink(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::readlink`].
    pub fn readlink(&self, path: &str) -> Result<String> {
        let target = run(self.caller().readlink(At::working_directory(path.as_bytes())))?;
        Ok(String::from_utf8_lossy(&target).into_owned())
    }

    /// link(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::link`].
    pub fn link(&self, old: &str, new: &str) -> Result<()> {
        let (old, new) = (At::working_directory(old.as_bytes()), At::working_directory(new.as_bytes()));
        run(self.caller().link(old, WalkFlags::empty(), new))
    }

    /// unlink(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::unlink`].
    pub fn unlink(&self, path: &str) -> Result<()> {
        run(self.caller().unlink(At::working_directory(path.as_bytes())))
    }

    /// rmdir(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::rmdir`].
    pub fn rmdir(&self, path: &str) -> Result<()> {
        run(self.caller().rmdir(At::working_directory(path.as_bytes())))
    }

    /// renameat2(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::rename`].
    pub fn rename(&self, old: &str, new: &str, mode: RenameMode) -> Result<()> {
        let (old, new) = (At::working_directory(old.as_bytes()), At::working_directory(new.as_bytes()));
        run(self.caller().rename(old, new, mode))
    }

    /// chmod(2).
    ///
    /// # Errors
    ///
    /// Those of the walk and of [`Caller::chmod`].
    pub fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        run(async {
            let path = self.caller().walk(At::working_directory(path.as_bytes()), WalkFlags::FOLLOW).await?;
            self.caller().chmod(&path, mode).await
        })
    }

    /// truncate(2).
    ///
    /// # Errors
    ///
    /// Those of [`Caller::truncate`].
    pub fn truncate(&self, path: &str, size: u64) -> Result<()> {
        run(self.caller().truncate(At::working_directory(path.as_bytes()), size))
    }

    /// The entries of a folder, sorted, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// Those of open and of reading.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .entries(path)?
            .into_iter()
            .filter(|entry| entry.name != b"." && entry.name != b"..")
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// All entries of a folder in its own order.
    ///
    /// # Errors
    ///
    /// Those of open and of reading.
    pub fn entries(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let folder = self.open(path, OpenFlags::DIRECTORY)?;
        let (mut all, mut position) = (Vec::new(), 0);
        loop {
            let entries = run(folder.ops.read_directory(position))?;
            let Some(last) = entries.last() else { return Ok(all) };
            assert!(last.next > position, "the positions of a folder must go on");
            position = last.next;
            all.extend(entries);
        }
    }
}

/// Writes all of `content` at a position, as the kernel's loop does.
///
/// # Errors
///
/// The file's, if nothing was written.
pub fn write_at(file: &OpenFile, mut position: u64, content: &[u8]) -> Result<usize> {
    let mut source = SliceSource::new(content);
    let mut done = 0;
    while done < content.len() {
        match file.ops.try_write(&mut position, file.flags(), &mut source) {
            Ok(count) => done += count,
            Err(Stop::Miss(miss)) => run(file.ops.prepare(miss))?,
            Err(_) if done > 0 => break,
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::WouldBlock) => return Err(Errno::EAGAIN),
            Err(Stop::Fault) => return Err(Errno::EFAULT),
        }
    }
    Ok(done)
}

/// Reads at most `len` bytes at a position, as the kernel's loop does.
///
/// # Errors
///
/// The file's, if nothing was read.
pub fn read_at(file: &OpenFile, mut position: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    let mut done = 0;
    while done < len {
        let mut sink = SliceSink::new(&mut bytes[done..]);
        match file.ops.try_read(&mut position, &mut sink) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Stop::Miss(miss)) => run(file.ops.prepare(miss))?,
            Err(_) if done > 0 => break,
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::WouldBlock) => return Err(Errno::EAGAIN),
            Err(Stop::Fault) => return Err(Errno::EFAULT),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Reads a file from its beginning to its end.
///
/// # Errors
///
/// The file's.
pub fn read_all(file: &OpenFile) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let part = read_at(file, all.len() as u64, 10_000)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}
