//! Segments of System V shared memory (shmget(2), shmat(2)).
//!
//! A segment is an inode without a name, whose content is its page cache; attaching maps it shared. Each mapping holds an
//! `Attached`, and the segment counts those. One that has been removed lives on, without its key, until the last is gone.
//!
//! The table's lock comes before a segment's, and is held while mappings are counted: what is found in the table is not going.
//!
//! Next: `syscall/shared_memory.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::{Errno, Result, ipc};
use executor::sync::SpinLock;
use fs::permission::Capabilities;
use fs::{Credentials, Inode, PAGE_SIZE};

use super::identifiers::{Identified, Identifiers, Ownership, now, seconds};
use crate::mm::attachment::Attachment;
use crate::mm::shared_memory::shared_inode;
use crate::mm::{self, MappedFile, try_box};
use crate::process::current;

/// The most segments: SHMMNI.
pub const MOST_SEGMENTS: usize = 4096;
/// The most bytes of a segment, and pages of all: SHMMAX, SHMALL.
pub const MOST_BYTES: usize = usize::MAX - (1 << 24);

/// All segments.
pub static SEGMENTS: SpinLock<Identifiers<Segment>> = SpinLock::new(Identifiers::empty());

/// How many pages all segments together have.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// What changes of a segment.
struct State {
    ownership: Ownership,
    attached: usize,
    /// When somebody last attached it, detached it and changed it, in nanoseconds since 1970.
    attached_at: u64,
    detached_at: u64,
    changed_at: u64,
    /// Who did the last of the first two.
    last_pid: i32,
}

/// A segment.
pub struct Segment {
    id: i32,
    /// The key that it was made with.
    key: i32,
    size: usize,
    creator_pid: i32,
    inode: Arc<dyn Inode>,
    state: SpinLock<State>,
}

/// What IPC_STAT tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Owner and permissions; [`ipc::SHM_DEST`] and [`ipc::SHM_LOCKED`] are among them.
    pub ownership: Ownership,
    /// How many bytes it has.
    pub size: usize,
    /// How many mappings there are.
    pub attached: usize,
    /// When somebody last attached it, in seconds since 1970; 0 for never.
    pub attached_at: u64,
    /// When somebody last detached it.
    pub detached_at: u64,
    /// When it was made or changed.
    pub changed_at: u64,
    /// Who made it.
    pub creator_pid: i32,
    /// Who last attached or detached it; 0 for nobody.
    pub last_pid: i32,
    /// How many of its pages are in memory.
    pub resident: usize,
}

impl Identified for Segment {
    fn id(&self) -> i32 {
        self.id
    }

    /// No key finds what goes with its last mapping.
    fn key(&self) -> i32 {
        self.state.lock().ownership.key
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        PAGES.fetch_sub(pages(self.size), Ordering::Relaxed);
    }
}

fn pages(size: usize) -> usize {
    size.div_ceil(PAGE_SIZE)
}

/// How many pages all segments together have.
pub fn page_count() -> usize {
    PAGES.load(Ordering::Relaxed)
}

impl Segment {
    /// The memory of a segment: taken before the table is locked.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there is too much already. `ENOMEM`: also if it is larger than the machine's.
    pub fn zeros(size: usize) -> Result<Arc<dyn Inode>> {
        if pages(size) > MOST_BYTES - page_count() {
            return Err(Errno::ENOSPC);
        }
        // What can never come true is refused now: Linux's heuristic overcommit.
        if pages(size) > mm::statistics().total {
            return Err(Errno::ENOMEM);
        }
        shared_inode(pages(size) * PAGE_SIZE)
    }

    /// Makes a segment and answers its identifier.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are too many. `ENOMEM`.
    pub fn make(
        segments: &mut Identifiers<Segment>,
        ownership: Ownership,
        size: usize,
        inode: Arc<dyn Inode>,
        pid: i32,
    ) -> Result<i32> {
        let state = State { ownership, attached: 0, attached_at: 0, detached_at: 0, changed_at: now(), last_pid: 0 };
        segments.add(MOST_SEGMENTS, |id| {
            PAGES.fetch_add(pages(size), Ordering::Relaxed);
            Arc::new(Segment { id, key: ownership.key, size, creator_pid: pid, inode, state: SpinLock::new(state) })
        })
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Its owner and permissions.
    pub fn ownership(&self) -> Ownership {
        self.state.lock().ownership
    }

    /// What there is to tell.
    pub fn describe(&self) -> Description {
        let resident = self.inode.core().pages.count();
        let state = self.state.lock();
        Description {
            ownership: state.ownership,
            size: self.size,
            attached: state.attached,
            attached_at: seconds(state.attached_at),
            detached_at: seconds(state.detached_at),
            changed_at: seconds(state.changed_at),
            creator_pid: self.creator_pid,
            last_pid: state.last_pid,
            resident,
        }
    }

    /// Changes owner and permissions to those of a `struct ipc64_perm`: IPC_SET.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no such user or group.
    pub fn set_ownership(&self, words: &[u64]) -> Result<()> {
        let mut state = self.state.lock();
        state.ownership = state.ownership.changed(words)?;
        state.changed_at = now();
        Ok(())
    }

    /// SHM_LOCK and SHM_UNLOCK: nothing takes its pages out of memory anyway; the mode tells of the wish.
    ///
    /// # Errors
    ///
    /// `EPERM`: it is not the caller's, or the caller may lock nothing. `ENOMEM`: it is larger than the caller may lock.
    pub fn set_locked(&self, is_locked: bool, credentials: &Credentials, limit: u64) -> Result<()> {
        let mut state = self.state.lock();
        if !credentials.can(Capabilities::IPC_LOCK) {
            let Ownership { uid, creator_uid, .. } = state.ownership;
            if ![uid, creator_uid].contains(&credentials.euid) || is_locked && limit == 0 {
                return Err(Errno::EPERM);
            }
            if is_locked && self.size as u64 > limit {
                return Err(Errno::ENOMEM);
            }
        }
        let mode = state.ownership.mode & !ipc::SHM_LOCKED;
        state.ownership.mode = mode | if is_locked { ipc::SHM_LOCKED } else { 0 };
        Ok(())
    }

    /// It goes with its last mapping, or now if there is none.
    pub fn remove(id: i32) -> Result<()> {
        let gone = {
            let mut segments = SEGMENTS.lock();
            let segment = segments.get(id)?;
            let mut state = segment.state.lock();
            state.ownership.key = ipc::IPC_PRIVATE;
            state.ownership.mode |= ipc::SHM_DEST;
            let is_unused = state.attached == 0;
            drop(state);
            if is_unused { segments.remove(id) } else { None }
        };
        drop(gone);
        Ok(())
    }

    /// What a mapping of it holds, if the caller has these rights.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none with this identifier. `EACCES`. `ENOMEM`.
    pub fn attach(id: i32, credentials: &Credentials, wanted: u32) -> Result<MappedFile> {
        let segments = SEGMENTS.lock();
        let segment = segments.get(id)?;
        segment.ownership().check(credentials, wanted)?;
        let inode = segment.inode.clone();
        let attached = try_box(Attached { segment: segment.clone() })?;
        segment.count_in();
        Ok(MappedFile { inode, path: None, attachment: Some(attached) })
    }

    /// One more mapping: the caller sees to it that the segment is not going.
    fn count_in(&self) {
        let pid = current::get().map(|thread| thread.process.pid);
        let mut state = self.state.lock();
        state.attached += 1;
        state.attached_at = now();
        state.last_pid = pid.unwrap_or(state.last_pid);
    }
}

/// A mapping of a segment.
struct Attached {
    segment: Arc<Segment>,
}

impl Attachment for Attached {
    fn inherit(&self) -> Result<Box<dyn Attachment>> {
        // This mapping keeps the segment.
        let attached = try_box(Attached { segment: self.segment.clone() })?;
        self.segment.count_in();
        Ok(attached)
    }

    fn size(&self) -> usize {
        self.segment.size
    }

    fn key_and_id(&self) -> (i32, i32) {
        (self.segment.key, self.segment.id)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let pid = current::get().map(|thread| thread.process.pid);
        let gone = {
            let mut segments = SEGMENTS.lock();
            let mut state = self.segment.state.lock();
            state.attached -= 1;
            state.detached_at = now();
            state.last_pid = pid.unwrap_or(state.last_pid);
            let is_unused = state.attached == 0 && state.ownership.mode & ipc::SHM_DEST != 0;
            drop(state);
            if is_unused { segments.remove(self.segment.id) } else { None }
        };
        drop(gone);
    }
}
