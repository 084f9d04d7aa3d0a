//! The cache of names: which name in which folder leads to which inode, as far as is known.
//!
//! A [`Dentry`] is an inode with a name. A folder's dentry remembers the names that were asked for, also that a name is *not*
//! there, so that a walk along known names touches no file system and waits for nothing.
//!
//! ```text
//!   cached(name) ──► Present(dentry)           known
//!                ├─► Absent                    known not to be there
//!                └─► Unknown ── lookup(name) ──► takes the folder's lock, asks the inode, remembers the answer
//! ```
//!
//! - The folder's lock (`changes`) is an async mutex: one asks or changes the folder at a time, and may wait for a device.
//!   Folders are locked from the root downwards; a rename that needs two takes the file system's rename lock first (`rename.rs`).
//! - The table of names is under a spin lock, which is never held together with another dentry's.
//! - A dentry keeps its parent alive, a table its entries. [`shrink`] takes entries that nobody uses out of their tables, oldest
//!   first, each with a second chance; a file system that is no longer mounted forgets its whole tree ([`Dentry::forget`]).
//!
//! Next: `mount.rs`. Exercise: why does a folder whose answers come at once not remember that a name is absent?

mod doubt;
mod eviction;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use executor::sync::{Mutex, MutexGuard, SpinLock};
use hashbrown::HashMap;

use crate::inode::Kind;
use crate::{Errno, Inode, Io, Result};

pub(crate) use doubt::Doubt;
pub use eviction::shrink;
use eviction::{LIVE, enqueue};

/// So many names of one folder are remembered as absent.
const ABSENT_AT_MOST: usize = 256;

/// An inode with the name it was reached by. See the head of this file.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    place: SpinLock<Place>,
    /// Its name is gone (unlink, rmdir, replaced by rename).
    is_removed: AtomicBool,
    was_used: AtomicBool,
    /// A change of it was begun and not seen to end: the file system is asked again. See [`Doubt`].
    is_doubtful: AtomicBool,
    /// How many mounts have it as their place.
    mounts: AtomicU32,
    /// Whether what was found in it is remembered: it stands in a table itself (or is a root), and its inode allows it. A folder that is
    /// looked up anew each time must not be kept alive by what was found in it.
    keeps_names: bool,
    content: Content,
}

struct Place {
    /// `None` for the root of a file system.
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

enum Content {
    Folder(Box<Folder>),
    /// Where the link points, once it was read.
    Link(SpinLock<Option<Arc<[u8]>>>),
    Other,
}

struct Folder {
    names: SpinLock<Names>,
    changes: Mutex<()>,
}

#[derive(Default)]
struct Names {
    /// `None`: known to be absent.
    entries: HashMap<Arc<[u8]>, Option<Arc<Dentry>>>,
    absent: usize,
}

impl Names {
    fn set(&mut self, name: Arc<[u8]>, entry: Option<Arc<Dentry>>) {
        if entry.is_none() {
            if self.absent >= ABSENT_AT_MOST {
                self.entries.retain(|_, entry| entry.is_some());
                self.absent = 0;
            }
            self.absent += 1;
        }
        if let Some(None) = self.entries.insert(name, entry) {
            self.absent -= 1;
        }
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Dentry>> {
        let entry = self.entries.remove(name)?;
        self.absent -= usize::from(entry.is_none());
        entry
    }
}

/// What the cache knows of a name.
pub enum Cached {
    /// It is there.
    Present(Arc<Dentry>),
    /// It is not there.
    Absent,
    /// Nobody asked yet.
    Unknown,
}

/// The right to change a folder's entries, or to ask its inode for one.
pub type FolderGuard<'a> = MutexGuard<'a, ()>;

impl Dentry {
    /// The root of a file system, or a node without a place (a pipe).
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(inode, None, Arc::from(&b"/"[..]))
    }

    fn new(inode: Arc<dyn Inode>, parent: Option<Arc<Dentry>>, name: Arc<[u8]>) -> Arc<Dentry> {
        let content = match inode.core().kind {
            Kind::Directory => {
                Content::Folder(Box::new(Folder { names: SpinLock::new(Names::default()), changes: Mutex::new(()) }))
            }
            Kind::Symlink => Content::Link(SpinLock::new(None)),
            _ => Content::Other,
        };
        LIVE.fetch_add(1, Ordering::Relaxed);
        let keeps_names = parent.as_ref().is_none_or(|parent| parent.keeps_names) && inode.names_are_stable();
        Arc::new(Dentry {
            inode,
            place: SpinLock::new(Place { parent, name }),
            is_removed: AtomicBool::new(false),
            was_used: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            mounts: AtomicU32::new(0),
            keeps_names,
            content,
        })
    }

    /// What is there.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// Whether it is a folder.
    pub fn is_directory(&self) -> bool {
        matches!(self.content, Content::Folder(_))
    }

    /// Its name; `/` for a root.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    /// The folder it is in; `None` for the root of a file system.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// Whether its name is gone.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Whether something is mounted on it, somewhere.
    pub fn is_mount_point(&self) -> bool {
        self.mounts.load(Ordering::Acquire) > 0
    }

    pub(crate) fn count_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn uncount_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether `self` is `other` or a folder above it, in the same file system.
    pub fn is_above(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(other.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, self) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    fn folder(&self) -> Result<&Folder> {
        match &self.content {
            Content::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What the cache knows of a name in this folder.
    pub fn cached(&self, name: &[u8]) -> Cached {
        let Ok(folder) = self.folder() else { return Cached::Unknown };
        match folder.names.lock().entries.get(name) {
            Some(Some(dentry)) if dentry.is_doubtful.load(Ordering::Acquire) => Cached::Unknown,
            Some(Some(dentry)) => {
                dentry.was_used.store(true, Ordering::Relaxed);
                Cached::Present(dentry.clone())
            }
            Some(None) => Cached::Absent,
            None => Cached::Unknown,
        }
    }

    /// Locks the folder, to change its entries.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`; `ENOENT` if the folder itself was removed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the queue for the lock.
    pub async fn lock(&self) -> Result<FolderGuard<'_>> {
        let guard = self.folder()?.changes.lock().await;
        if self.is_removed() { Err(Errno::ENOENT) } else { Ok(guard) }
    }

    /// Finds an entry: at once if the cache knows or the file system can say without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`Inode::lookup`].
    pub fn lookup<'a>(self: &'a Arc<Self>, name: &'a [u8]) -> Io<'a, Arc<Dentry>> {
        let folder = match self.folder() {
            Ok(folder) => folder,
            Err(errno) => return Io::ready(Err(errno)),
        };
        match self.cached(name) {
            Cached::Present(dentry) => return Io::ready(Ok(dentry)),
            Cached::Absent => return Io::ready(Err(Errno::ENOENT)),
            Cached::Unknown => {}
        }
        match folder.changes.try_lock() {
            Some(guard) => match self.ask(name).now() {
                Ok(answer) => Io::ready(answer),
                Err(waiting) => Io::wait(async move {
                    let answer = waiting.await;
                    drop(guard);
                    answer
                }),
            },
            None => Io::wait(async move {
                let guard = folder.changes.lock().await;
                self.lookup_locked(&guard, name).await
            }),
        }
    }

    /// Finds an entry for somebody who holds the folder's lock.
    ///
    /// # Errors
    ///
    /// Those of [`Inode::lookup`].
    pub fn lookup_locked<'a>(self: &'a Arc<Self>, _lock: &FolderGuard<'_>, name: &'a [u8]) -> Io<'a, Arc<Dentry>> {
        match self.cached(name) {
            Cached::Present(dentry) => Io::ready(Ok(dentry)),
            Cached::Absent => Io::ready(Err(Errno::ENOENT)),
            Cached::Unknown => self.ask(name),
        }
    }

    /// Asks the inode; the folder's lock is held.
    fn ask<'a>(self: &'a Arc<Self>, name: &'a [u8]) -> Io<'a, Arc<Dentry>> {
        match self.inode.lookup(name).now() {
            Ok(answer) => Io::ready(self.answered(name, answer, false)),
            Err(waiting) => Io::wait(async move {
                let answer = waiting.await;
                self.answered(name, answer, true)
            }),
        }
    }

    /// Remembers what the inode said; that a name is absent only if it had to be waited for.
    fn answered(self: &Arc<Self>, name: &[u8], answer: Result<Arc<dyn Inode>>, was_late: bool) -> Result<Arc<Dentry>> {
        if let Some(doubtful) = self.doubtful(name) {
            match &answer {
                Ok(inode) if inode.core().number == doubtful.inode.core().number => {
                    doubtful.is_doubtful.store(false, Ordering::Release);
                    return Ok(doubtful);
                }
                Ok(_) | Err(Errno::ENOENT) => self.removed(name),
                Err(_) => {}
            }
        }
        if let Err(Errno::ENOENT) = answer
            && was_late
            && self.keeps_names
        {
            self.remember(Arc::from(name), None);
        }
        answer.map(|inode| self.adopt(name, inode))
    }

    fn doubtful(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let folder = self.folder().ok()?;
        let entry = folder.names.lock().entries.get(name).cloned().flatten();
        entry.filter(|entry| entry.is_doubtful.load(Ordering::Acquire))
    }

    /// Begins to add a name: that it is absent is not certain any more. The folder's lock is held.
    pub(crate) fn adding(&self, name: &[u8]) {
        let Ok(folder) = self.folder() else { return };
        let mut names = folder.names.lock();
        if let Some(None) = names.entries.get(name) {
            names.remove(name);
        }
    }

    /// Gives an inode its dentry in this folder. The folder's lock is held.
    pub(crate) fn adopt(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let name: Arc<[u8]> = Arc::from(name);
        let dentry = Dentry::new(inode, Some(self.clone()), name.clone());
        if self.keeps_names {
            self.remember(name, Some(dentry.clone()));
            enqueue(&dentry);
        }
        dentry
    }

    /// A dentry for a file of this folder's file system that has no name: it is seen as removed.
    pub(crate) fn nameless_child(self: &Arc<Self>, inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let name = alloc::format!("#{}", inode.core().number);
        let dentry = Dentry::new(inode, Some(self.clone()), Arc::from(name.as_bytes()));
        dentry.is_removed.store(true, Ordering::Release);
        dentry
    }

    fn remember(&self, name: Arc<[u8]>, entry: Option<Arc<Dentry>>) {
        if let Ok(folder) = self.folder() {
            folder.names.lock().set(name, entry);
        }
    }

    /// Notes that a name was removed. The folder's lock is held.
    pub(crate) fn removed(&self, name: &[u8]) {
        let Ok(folder) = self.folder() else { return };
        let entry = folder.names.lock().remove(name);
        if let Some(dentry) = entry {
            dentry.is_removed.store(true, Ordering::Release);
        }
    }

    /// Forgets what is known of a name that its file system removed by itself.
    pub fn forget_name(&self, name: &[u8]) {
        self.removed(name);
    }

    /// Notes that `entry` moved from this folder to `to`; what was there before is gone. Both folders' locks are held.
    pub(crate) fn moved(&self, entry: &Arc<Dentry>, to: &Arc<Dentry>, new_name: &[u8]) {
        let old_name = entry.name();
        if let Ok(folder) = self.folder() {
            folder.names.lock().remove(&old_name);
        }
        to.removed(new_name);
        entry.put(to, new_name);
    }

    /// Notes that two entries changed places. Both folders' locks are held.
    pub(crate) fn exchanged(one: &Arc<Dentry>, two: &Arc<Dentry>) {
        let (Some(one_parent), Some(two_parent)) = (one.parent(), two.parent()) else { return };
        let (one_name, two_name) = (one.name(), two.name());
        one.put(&two_parent, &two_name);
        two.put(&one_parent, &one_name);
    }

    fn put(self: &Arc<Self>, parent: &Arc<Dentry>, name: &[u8]) {
        let name: Arc<[u8]> = Arc::from(name);
        let before = {
            let mut place = self.place.lock();
            core::mem::replace(&mut *place, Place { parent: Some(parent.clone()), name: name.clone() })
        };
        parent.remember(name, Some(self.clone()));
        drop(before);
    }

    /// Where a symbolic link points, if it was read before.
    pub(crate) fn cached_link(&self) -> Option<Arc<[u8]>> {
        match &self.content {
            Content::Link(target) => target.lock().clone(),
            _ => None,
        }
    }

    /// Remembers where a symbolic link points.
    pub(crate) fn remember_link(&self, target: &[u8]) -> Arc<[u8]> {
        let target: Arc<[u8]> = Arc::from(target);
        if let Content::Link(cached) = &self.content
            && self.keeps_names
        {
            *cached.lock() = Some(target.clone());
        }
        target
    }

    /// Forgets all names below, so that nothing keeps the tree alive but its users. For a file system that is mounted no more.
    pub fn forget(self: &Arc<Self>) {
        let mut todo = Vec::from([self.clone()]);
        while let Some(dentry) = todo.pop() {
            if let Ok(folder) = dentry.folder() {
                let names = core::mem::take(&mut *folder.names.lock());
                todo.extend(names.entries.into_values().flatten());
            }
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        // The last user of a deep place would drop its parents recursively, one stack frame a level: do it in a loop instead.
        let mut parent = self.place.lock().parent.take();
        while let Some(last) = parent.and_then(Arc::into_inner) {
            parent = last.place.lock().parent.take();
        }
    }
}
