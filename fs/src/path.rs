//! A place in the tree of mounted file systems.

use alloc::sync::Arc;

use crate::inode::Inode;

/// A place: an inode reached through its name, in a mount.
#[derive(Clone)]
pub struct Path {
    /// What is there.
    pub inode: Arc<dyn Inode>,
}
