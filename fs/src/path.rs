//! A place in the tree of mounted file systems, and its name.
//!
//! Next: `permission.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use executor::sync::SpinLock;

use crate::dentry::Dentry;
use crate::file_system::FileSystem;
use crate::inode::{Attributes, FileSystemStatus, Kind};
use crate::mount::{Mount, MountFlags, Superblock};
use crate::{Errno, Inode, InodeCore, PageSource, Result};

/// The longest path a program may give, with its NUL.
pub const PATH_MAX: usize = 4096;
/// The longest name of an entry.
pub const NAME_MAX: usize = 255;

/// A place: a dentry, seen through a mount. Holding one keeps the mount busy.
#[derive(Clone)]
pub struct Path {
    /// The mount it is seen through.
    pub mount: Arc<Mount>,
    /// What is there.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// What is there.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// A place for a node that has none, such as a pipe, so that `/proc/PID/fd` can lead to it.
    pub fn nowhere(inode: Arc<dyn Inode>) -> Path {
        Path { mount: nowhere(inode.core().pages.source()), dentry: Dentry::root(inode) }
    }

    /// Whether both are the same place.
    pub fn is_same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// Whether it is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.mount.root, &self.dentry)
    }

    /// Goes into whatever is mounted here, to the topmost.
    pub fn across_mounts(mut self) -> Path {
        while self.dentry.is_mount_point() {
            match self.mount.mounted_at(&self.dentry) {
                Some(mount) => self = mount.root_path(),
                None => break,
            }
        }
        self
    }

    /// One up, but not above `root`; at the root of a mount, out of it.
    pub fn parent(&self, root: &Path) -> Path {
        let mut at = self.clone();
        while !at.is_same(root) {
            if !at.is_mount_root() {
                let parent = at.dentry.parent().unwrap_or(at.dentry);
                return Path { mount: at.mount, dentry: parent }.across_mounts();
            }
            match at.mount.place() {
                Some(place) => at = place,
                None => break,
            }
        }
        at.across_mounts()
    }

    /// Its name as seen from `root`: what getcwd(2) and `/proc/PID/exe` say. It begins with `(unreachable)` if it does not lie below
    /// `root`, and ends in ` (deleted)` if it was removed.
    pub fn display(&self, root: &Path) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self.clone();
        let mut is_reachable = true;
        while !at.is_same(root) {
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => {
                        // The root of all is a fine end even for those who have a root of their own inside what covers it.
                        is_reachable = false;
                        break;
                    }
                }
                continue;
            }
            names.push(at.dentry.name());
            match at.dentry.parent() {
                Some(parent) => at.dentry = parent,
                None => {
                    is_reachable = false;
                    break;
                }
            }
        }
        let mut text = Vec::new();
        if !is_reachable {
            text.extend_from_slice(b"(unreachable)");
        }
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        if names.is_empty() {
            text.push(b'/');
        }
        if self.dentry.is_removed() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }

    /// Its name as seen from `root`, for getcwd(2).
    ///
    /// # Errors
    ///
    /// `ENOENT`: it was removed.
    pub fn name_from(&self, root: &Path) -> Result<Vec<u8>> {
        if self.dentry.is_removed() { Err(Errno::ENOENT) } else { Ok(self.display(root)) }
    }
}

/// The mount of all nodes that have no place.
fn nowhere(source: &'static dyn PageSource) -> Arc<Mount> {
    /// A file system of one empty file.
    struct Nowhere(InodeCore);
    impl Inode for Nowhere {
        fn core(&self) -> &InodeCore {
            &self.0
        }
        fn file_system(&self) -> FileSystemStatus {
            FileSystemStatus::default()
        }
    }
    impl FileSystem for Nowhere {
        fn root(&self) -> Arc<dyn Inode> {
            let core = &self.0;
            Arc::new(Nowhere(InodeCore::in_memory(core.pages.source(), 0, 0, Kind::Regular, 0, Attributes::default())))
        }
        fn type_name(&self) -> &'static str {
            "none"
        }
    }
    static NOWHERE: SpinLock<Option<Arc<Mount>>> = SpinLock::new(None);
    if let Some(known) = NOWHERE.lock().clone() {
        return known;
    }
    let file_system = Nowhere(InodeCore::in_memory(source, 0, 0, Kind::Regular, 0, Attributes::default()));
    let superblock = Superblock::new(Arc::new(file_system), b"none");
    let root = superblock.root.clone();
    let new = Mount::new(superblock, root, MountFlags::empty());
    // Whoever was faster decides.
    NOWHERE.lock().get_or_insert(new).clone()
}
