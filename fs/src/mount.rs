//! The tree of mounts: which file system is seen where.
//!
//! A [`Mount`] shows a folder of a file system (mostly its root) at a place in another mount; the one without a place is the root.
//! Each mount keeps a list of those that stand in it, so crossing into one is a look at a short list, and only for dentries that
//! are known to have one (`Dentry::is_mount_point`). Mounting on top of a mount is mounting at its root.
//!
//! ```text
//!   Mount (tmpfs, root)  ◄── place ── Mount (ext4 at /mnt)  ◄── place ── Mount (proc at /mnt/proc)
//!        │ children ────────────────►      │ children ────────────────►
//!   Superblock                        Superblock                    Superblock      shared by bind mounts
//! ```
//!
//! All changes of the tree are plain functions of [`MountNamespace`] under one spin lock; nothing here waits.
//!
//! Next: `path.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::general;
use bitflags::bitflags;
use executor::sync::{Mutex, SpinLock};

use crate::dentry::Dentry;
use crate::file_system::FileSystem;
use crate::path::Path;
use crate::{Errno, Result};

bitflags! {
    /// The flags of one mount; the bits are those of mount(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// Nothing can be changed through it.
        const READ_ONLY = general::MS_RDONLY;
        /// set-user-ID and set-group-ID bits do not count.
        const NOSUID = general::MS_NOSUID;
        /// Device nodes cannot be opened.
        const NODEV = general::MS_NODEV;
        /// Programs cannot be executed.
        const NOEXEC = general::MS_NOEXEC;
        /// Access times are left alone.
        const NOATIME = general::MS_NOATIME;
        /// Access times of folders are left alone.
        const NODIRATIME = general::MS_NODIRATIME;
        /// Access times are kept no older than the modification.
        const RELATIME = general::MS_RELATIME;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = general::MS_NOSYMFOLLOW;
    }
}

/// A file system that is mounted at least once, and what all its mounts share.
pub struct Superblock {
    /// The file system.
    pub file_system: Arc<dyn FileSystem>,
    /// The dentry of its root.
    pub root: Arc<Dentry>,
    /// What it was mounted from, as /proc/mounts shows it.
    pub source: Arc<[u8]>,
    /// Held by a rename between two folders, so that the tree keeps its shape meanwhile.
    pub(crate) renames: Mutex<()>,
    is_read_only: AtomicBool,
}

impl Superblock {
    /// Makes a file system ready to be mounted.
    pub fn new(file_system: Arc<dyn FileSystem>, source: &[u8]) -> Arc<Superblock> {
        let root = Dentry::root(file_system.root());
        let is_read_only = AtomicBool::new(file_system.is_read_only());
        Arc::new(Superblock { file_system, root, source: Arc::from(source), renames: Mutex::new(()), is_read_only })
    }

    /// Whether nothing in it can be changed.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Relaxed)
    }

    /// Forbids or allows changes (remount).
    ///
    /// # Errors
    ///
    /// `EROFS`: the file system cannot be written at all.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        if !read_only && self.file_system.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.is_read_only.store(read_only, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Superblock {
    fn drop(&mut self) {
        self.root.forget();
    }
}

/// A part of a file system, seen at a place.
pub struct Mount {
    /// Its number, unique for all time.
    pub id: u32,
    /// The file system it shows.
    pub superblock: Arc<Superblock>,
    /// The folder (or file) of it that is seen.
    pub root: Arc<Dentry>,
    flags: AtomicU32,
    place: SpinLock<Option<Path>>,
    children: SpinLock<Vec<Arc<Mount>>>,
}

impl Mount {
    /// A mount without a place: the first of a namespace, or one for nodes that have no place (pipes).
    pub fn new(superblock: Arc<Superblock>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Arc::new(Mount {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            superblock,
            root,
            flags: AtomicU32::new(flags.bits()),
            place: SpinLock::new(None),
            children: SpinLock::new(Vec::new()),
        })
    }

    /// Its flags; READ_ONLY also if the file system is.
    pub fn flags(&self) -> MountFlags {
        let flags = MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed));
        if self.superblock.is_read_only() { flags | MountFlags::READ_ONLY } else { flags }
    }

    /// Checks that something may be changed through it.
    ///
    /// # Errors
    ///
    /// `EROFS`.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::READ_ONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Where it is mounted; `None` for the root and for what was taken away.
    pub fn place(&self) -> Option<Path> {
        self.place.lock().clone()
    }

    /// Its root as a path.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mount: self.clone(), dentry: self.root.clone() }
    }

    /// What is mounted at a dentry of this mount.
    pub fn mounted_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.children.lock().iter().find(|child| child.is_at(dentry)).cloned()
    }

    fn is_at(&self, dentry: &Arc<Dentry>) -> bool {
        self.place.lock().as_ref().is_some_and(|place| Arc::ptr_eq(&place.dentry, dentry))
    }

    fn attach(self: &Arc<Self>, at: &Path) {
        at.dentry.count_mount();
        *self.place.lock() = Some(at.clone());
        at.mount.children.lock().push(self.clone());
    }

    fn detach(self: &Arc<Self>) {
        let Some(place) = self.place.lock().take() else { return };
        place.dentry.uncount_mount();
        place.mount.children.lock().retain(|child| !Arc::ptr_eq(child, self));
    }

    fn children(&self) -> Vec<Arc<Mount>> {
        self.children.lock().clone()
    }

    /// Whether `self` is `other` or contains it.
    fn contains(self: &Arc<Self>, other: &Arc<Mount>) -> bool {
        let mut at = Some(other.clone());
        while let Some(mount) = at {
            if Arc::ptr_eq(&mount, self) {
                return true;
            }
            at = mount.place().map(|place| place.mount);
        }
        false
    }

    /// Itself and all mounts below, each before those below it.
    pub fn tree(self: &Arc<Self>) -> Vec<Arc<Mount>> {
        let mut all = Vec::from([self.clone()]);
        let mut next = 0;
        while let Some(mount) = all.get(next).cloned() {
            all.extend(mount.children());
            next += 1;
        }
        all
    }
}

/// The tree of mounts that a process sees.
pub struct MountNamespace {
    root: SpinLock<Arc<Mount>>,
    /// Held while the tree changes.
    changes: SpinLock<()>,
}

impl MountNamespace {
    /// A tree of one mount.
    pub fn new(file_system: Arc<dyn FileSystem>, source: &[u8]) -> Arc<MountNamespace> {
        let superblock = Superblock::new(file_system, source);
        let root = superblock.root.clone();
        Arc::new(MountNamespace {
            root: SpinLock::new(Mount::new(superblock, root, MountFlags::empty())),
            changes: SpinLock::new(()),
        })
    }

    /// The root of the tree.
    pub fn root(&self) -> Path {
        self.root.lock().root_path()
    }

    /// All mounts, each before those in it: for /proc/mounts.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let root = self.root.lock().clone();
        root.tree()
    }

    /// Writes everything back, in all file systems (sync(2)).
    ///
    /// # Errors
    ///
    /// The first that one had; the others are written all the same.
    pub async fn sync(&self) -> Result<()> {
        let mut result = crate::page_cache::write_back_all().await;
        for mount in self.mounts() {
            result = result.and(mount.superblock.file_system.sync().await);
        }
        result
    }

    /// Mounts a file system at a place.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`: one is a folder, the other is not. `ENOENT`: the place was removed. `EBUSY`: it is mounted right there already.
    pub fn mount(&self, superblock: Arc<Superblock>, flags: MountFlags, at: &Path) -> Result<Arc<Mount>> {
        let root = superblock.root.clone();
        self.add(Mount::new(superblock, root, flags), at)
    }

    /// Makes what is seen at `from` visible at `to` too; `recursive`: with all that is mounted below.
    ///
    /// # Errors
    ///
    /// As [`MountNamespace::mount`].
    pub fn bind(&self, from: &Path, to: &Path, recursive: bool) -> Result<Arc<Mount>> {
        let copy = copy_of(&from.mount, &from.dentry);
        let below = if recursive { from.mount.children() } else { Vec::new() };
        let mount = self.add(copy, to)?;
        let _changes = self.changes.lock();
        for child in below {
            copy_tree(&child, &from.dentry, &mount);
        }
        Ok(mount)
    }

    fn add(&self, mount: Arc<Mount>, at: &Path) -> Result<Arc<Mount>> {
        let _changes = self.changes.lock();
        if mount.root.is_directory() != at.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if at.dentry.is_removed() {
            return Err(Errno::ENOENT);
        }
        mount.attach(&at.clone().across_mounts());
        Ok(mount)
    }

    /// Moves a mount to another place (`mount --move`).
    ///
    /// # Errors
    ///
    /// `EINVAL`: `from` is not a mounted root, or is the root of all. `ELOOP`: `to` lies inside `from`. `ENOTDIR`, `ENOENT` as above.
    pub fn move_mount(&self, from: &Path, to: &Path) -> Result<()> {
        let _changes = self.changes.lock();
        if !from.is_mount_root() || from.mount.place().is_none() {
            return Err(Errno::EINVAL);
        }
        if from.dentry.is_directory() != to.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if to.dentry.is_removed() {
            return Err(Errno::ENOENT);
        }
        if from.mount.contains(&to.mount) {
            return Err(Errno::ELOOP);
        }
        from.mount.detach();
        from.mount.attach(to);
        Ok(())
    }

    /// Takes a mount away. Takes the path by value: it counts as a use otherwise. Returns the file system, to be synced.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not a mounted root, or the root of all. `EBUSY`: still in use, unless `lazy` (`MNT_DETACH`): then it disappears from
    /// sight with all mounts below, and goes when its last user goes.
    pub fn unmount(&self, path: Path, lazy: bool) -> Result<Arc<Superblock>> {
        let _changes = self.changes.lock();
        let is_root = path.is_mount_root();
        let Path { mount, dentry } = path;
        drop(dentry);
        if !is_root || mount.place.lock().is_none() {
            return Err(Errno::EINVAL);
        }
        // The list of the mount it stands in holds one reference, this function the other.
        if !lazy && (Arc::strong_count(&mount) > 2 || !mount.children.lock().is_empty()) {
            return Err(Errno::EBUSY);
        }
        for mount in mount.tree().into_iter().rev() {
            mount.detach();
        }
        Ok(mount.superblock.clone())
    }

    /// Changes the flags of a mount.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not a mounted root. `EROFS`: the file system cannot be written.
    pub fn remount(&self, path: &Path, flags: MountFlags, whole_file_system: bool) -> Result<()> {
        if !path.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        let read_only = flags.contains(MountFlags::READ_ONLY);
        if whole_file_system || !read_only {
            path.mount.superblock.set_read_only(read_only)?;
        }
        let own = if whole_file_system { flags - MountFlags::READ_ONLY } else { flags };
        path.mount.flags.store(own.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes `new_root` the root of the tree, and moves the old one to `put_old`, which lies in it (pivot_root(2)).
    ///
    /// # Errors
    ///
    /// `EINVAL`: `new_root` or `root` is not a mounted root, or `put_old` does not lie below `new_root`. `EBUSY`: they are on the same
    /// mount.
    pub fn pivot_root(&self, root: &Path, new_root: &Path, put_old: &Path) -> Result<()> {
        let _changes = self.changes.lock();
        if Arc::ptr_eq(&new_root.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        if !new_root.is_mount_root() || !root.is_mount_root() || !new_root.mount.contains(&put_old.mount) {
            return Err(Errno::EINVAL);
        }
        let before = root.mount.place();
        new_root.mount.detach();
        root.mount.detach();
        match before {
            Some(place) => new_root.mount.attach(&place),
            None => *self.root.lock() = new_root.mount.clone(),
        }
        root.mount.attach(put_old);
        Ok(())
    }
}

fn copy_of(mount: &Arc<Mount>, root: &Arc<Dentry>) -> Arc<Mount> {
    Mount::new(
        mount.superblock.clone(),
        root.clone(),
        MountFlags::from_bits_truncate(mount.flags.load(Ordering::Relaxed)),
    )
}

/// Copies `child` and what is mounted in it into `parent`, if its place lies below `root`.
fn copy_tree(child: &Arc<Mount>, root: &Arc<Dentry>, parent: &Arc<Mount>) {
    let mut todo = Vec::from([(child.clone(), parent.clone())]);
    while let Some((mount, parent)) = todo.pop() {
        let Some(place) = mount.place() else { continue };
        let is_first = Arc::ptr_eq(&mount, child);
        if is_first && !root.is_above(&place.dentry) {
            return;
        }
        let copy = copy_of(&mount, &mount.root);
        copy.attach(&Path { mount: parent, dentry: place.dentry });
        todo.extend(mount.children().into_iter().map(|child| (child, copy.clone())));
    }
}
