//! What every inode has, in whatever file system it is.
//!
//! Next: `file.rs`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicI32, Ordering};

use executor::sync::SpinLock;

use super::{AttributeChange, Attributes, Kind, Metadata, Permissions};
use crate::locks::FileLocks;
use crate::page_cache::PageCache;
use crate::pipe::Pipe;
use crate::{Errno, PageSource, Result};

/// What every inode has. Embedded in a file system's own inode type.
pub struct InodeCore {
    /// The device number of the file system.
    pub device: u64,
    /// The inode's number, unique in its file system.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// For device nodes, which device (as `makedev` packs it).
    pub represents: u64,
    /// What can change.
    pub attributes: SpinLock<Attributes>,
    /// The cached pages of its content.
    pub pages: PageCache,
    /// Positive: so many writers have it open; negative: so many programs are being executed from it. Decides `ETXTBSY`.
    writers: AtomicI32,
    /// Held while an attempt to write copies and moves the end of the file, so that appends do not mix, and by truncation.
    pub writing: SpinLock<()>,
    /// What few inodes have; made when first needed.
    extras: SpinLock<Option<Box<Extras>>>,
}

/// What hangs on an inode besides its content.
#[derive(Default)]
pub struct Extras {
    /// File locks.
    pub locks: Option<Arc<FileLocks>>,
    /// The pipe behind a FIFO while somebody has it open.
    pub pipe: Weak<Pipe>,
    /// What is bound to it: the listening end of an AF_UNIX socket.
    pub bound: Option<Weak<dyn Any + Send + Sync>>,
    /// Made by O_TMPFILE, so it may be given a name although it has none.
    pub may_get_first_name: bool,
}

impl InodeCore {
    /// A new core, whose cached pages come from `pages`.
    pub fn new(
        pages: &'static dyn PageSource,
        device: u64,
        number: u64,
        kind: Kind,
        represents: u64,
        attributes: Attributes,
    ) -> InodeCore {
        InodeCore {
            device,
            number,
            kind,
            represents,
            attributes: SpinLock::new(attributes),
            pages: PageCache::new(pages),
            writers: AtomicI32::new(0),
            writing: SpinLock::new(()),
            extras: SpinLock::new(None),
        }
    }

    /// A core of an inode that lives in memory only: the page cache is where its content is, and is never given up.
    pub fn in_memory(
        pages: &'static dyn PageSource,
        device: u64,
        number: u64,
        kind: Kind,
        represents: u64,
        attributes: Attributes,
    ) -> InodeCore {
        let core = InodeCore::new(pages, device, number, kind, represents, attributes);
        InodeCore { pages: PageCache::in_memory(pages), ..core }
    }

    /// What decides who may do what.
    pub fn permissions(&self) -> Permissions {
        let attributes = self.attributes.lock();
        Permissions { mode: attributes.mode, uid: attributes.uid, gid: attributes.gid }
    }

    /// Works with what few inodes have. The work does not wait.
    pub fn with_extras<R>(&self, work: impl FnOnce(&mut Extras) -> R) -> R {
        work(self.extras.lock().get_or_insert_default())
    }

    /// Its file locks, if it ever had any.
    pub fn locks(&self) -> Option<Arc<FileLocks>> {
        self.extras.lock().as_ref()?.locks.clone()
    }

    /// Applies a change that needs no storage: what a memory-only file system does for all of it, and others when they have stored
    /// it. A new size takes pages beyond it out of the cache and out of every mapping; returns how many pages were dropped.
    pub fn apply(&self, change: &AttributeChange) -> usize {
        let dropped = change.size.map_or(0, |size| self.resize(size));
        let mut attributes = self.attributes.lock();
        let now = &mut *attributes;
        now.mode = change.mode.unwrap_or(now.mode);
        now.uid = change.uid.unwrap_or(now.uid);
        now.gid = change.gid.unwrap_or(now.gid);
        now.accessed = change.accessed.unwrap_or(now.accessed);
        now.modified = change.modified.unwrap_or(now.modified);
        now.changed = change.changed.unwrap_or(now.changed);
        dropped
    }

    /// Shrink, unmap, free; then zero the tail of the last page, so that growing again shows zeros.
    fn resize(&self, size: u64) -> usize {
        let _writing = self.writing.lock();
        let before = core::mem::replace(&mut self.attributes.lock().size, size);
        if size < before { self.pages.cut(size) } else { 0 }
    }

    /// A snapshot for stat(2).
    pub fn metadata(&self) -> Metadata {
        Metadata {
            device: self.device,
            number: self.number,
            kind: self.kind,
            represents: self.represents,
            block_size: 4096,
            attributes: *self.attributes.lock(),
        }
    }

    /// Its length in bytes now.
    pub fn size(&self) -> u64 {
        self.attributes.lock().size
    }

    /// Counts one more writer.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` while a program is being executed from it.
    pub fn begin_writing(&self) -> Result<()> {
        self.step(1, |now| now >= 0)
    }

    /// Counts one writer less.
    pub fn end_writing(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Counts one more execution.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` while somebody has it open for writing.
    pub fn begin_executing(&self) -> Result<()> {
        self.step(-1, |now| now <= 0)
    }

    /// Counts one execution less.
    pub fn end_executing(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Moves the count of writers and executions to another core, which stands for the same file from now on: those who are counted
    /// will take their count back there.
    pub fn hand_over_users(&self, to: &InodeCore) {
        let users = self.writers.swap(0, Ordering::AcqRel);
        to.writers.fetch_add(users, Ordering::AcqRel);
    }

    fn step(&self, by: i32, is_allowed: impl Fn(i32) -> bool) -> Result<()> {
        self.writers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| is_allowed(now).then_some(now + by))
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }
}
