//! From where a program sees the files: root, working directory, umask; and on whose behalf a call is made.
//!
//! Every operation on names is a method of [`Caller`]: `caller.open(..)`, `caller.rename(..)`; they are in `operations/`.
//!
//! Next: `operations/mod.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use executor::sync::SpinLock;

use crate::mount::MountNamespace;
use crate::path::Path;
use crate::permission::Credentials;
use crate::{Inode, Result};

/// What clone(2) with `CLONE_FS` shares: root, working directory and umask.
pub struct FsContext {
    mounts: Arc<MountNamespace>,
    places: SpinLock<Places>,
    umask: AtomicU32,
}

#[derive(Clone)]
struct Places {
    root: Path,
    working_directory: Path,
}

impl FsContext {
    /// Root and working directory are the root of the tree of mounts.
    pub fn new(mounts: Arc<MountNamespace>) -> FsContext {
        let root = mounts.root();
        FsContext {
            mounts,
            places: SpinLock::new(Places { working_directory: root.clone(), root }),
            umask: AtomicU32::new(0o022),
        }
    }

    /// A copy of its own, as fork(2) makes.
    pub fn fork(&self) -> FsContext {
        FsContext {
            mounts: self.mounts.clone(),
            places: SpinLock::new(self.places.lock().clone()),
            umask: AtomicU32::new(self.umask()),
        }
    }

    /// The tree of mounts.
    pub fn mounts(&self) -> &Arc<MountNamespace> {
        &self.mounts
    }

    /// Where `/` is.
    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    /// Where relative paths begin.
    pub fn working_directory(&self) -> Path {
        self.places.lock().working_directory.clone()
    }

    /// Moves `/`: chroot(2) after its checks.
    pub fn set_root(&self, root: Path) {
        let before = core::mem::replace(&mut self.places.lock().root, root);
        drop(before);
    }

    /// Moves the working directory: chdir(2) after its checks.
    pub fn set_working_directory(&self, place: Path) {
        let before = core::mem::replace(&mut self.places.lock().working_directory, place);
        drop(before);
    }

    /// The permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the umask; returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }

    /// The name of the working directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`: it was removed.
    pub fn current_directory_name(&self) -> Result<Vec<u8>> {
        let places = self.places.lock().clone();
        places.working_directory.name_from(&places.root)
    }

    /// Takes root and working directory from `old` to `new` where they are `old`, as pivot_root(2) does.
    pub fn replace(&self, old: &Path, new: &Path) {
        let mut places = self.places.lock();
        if places.root.is_same(old) {
            places.root = new.clone();
        }
        if places.working_directory.is_same(old) {
            places.working_directory = new.clone();
        }
    }
}

/// On whose behalf something is done: the receiver of all operations on names.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// From where it sees the files.
    pub context: &'a FsContext,
    /// Who it is.
    pub credentials: &'a Credentials,
}

/// A path and where it begins if it is relative: what the `*at` calls take.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The folder; `None` is the working directory (`AT_FDCWD`).
    pub folder: Option<&'a Path>,
    /// The path; empty with [`At::place`] means the folder itself (`AT_EMPTY_PATH`).
    pub path: &'a [u8],
    /// Whether an empty path is allowed.
    pub may_be_empty: bool,
}

impl<'a> At<'a> {
    /// A path from the working directory.
    pub fn working_directory(path: &'a [u8]) -> At<'a> {
        At { folder: None, path, may_be_empty: false }
    }

    /// A path from a folder.
    pub fn folder(folder: &'a Path, path: &'a [u8]) -> At<'a> {
        At { folder: Some(folder), path, may_be_empty: false }
    }

    /// The place itself.
    pub fn place(place: &'a Path) -> At<'a> {
        At { folder: Some(place), path: b"", may_be_empty: true }
    }
}

impl Caller<'_> {
    /// Whether it owns the node, or may act as if.
    pub(crate) fn owns(&self, inode: &dyn Inode) -> bool {
        self.credentials.owns(inode.permissions())
    }
}
