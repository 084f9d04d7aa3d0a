//! A file system as a whole: what mount(2) makes available.
//!
//! Next: `inode.rs`.

use alloc::string::String;
use alloc::sync::Arc;

use crate::{Inode, Io};

/// A file system, with everything it needs to work: for one on a disk, the device. Mounting it gives its root a place.
pub trait FileSystem: Send + Sync {
    /// Its root folder.
    fn root(&self) -> Arc<dyn Inode>;

    /// Its type, as /proc/mounts names it: `tmpfs`, `ext4`.
    fn type_name(&self) -> &'static str;

    /// Its own options as /proc/mounts shows them, such as `size=64k`; empty if there is nothing to say.
    fn options(&self) -> String {
        String::new()
    }

    /// Whether nothing in it can be changed, whatever the mount says.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Brings everything to stable storage (sync(2), syncfs(2), and before it is unmounted for good).
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC`.
    fn sync(&self) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }
}
