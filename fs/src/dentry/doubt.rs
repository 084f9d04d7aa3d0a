//! What to do when a change of names is not seen to end.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::Dentry;

/// Entries that are about to be removed or moved. An operation may be dropped, or fail, when the file system has done part of it: then
/// nobody knows whether the names are still there, and they are asked for again.
pub(crate) struct Doubt<'a> {
    entries: [Option<&'a Arc<Dentry>>; 2],
}

impl<'a> Doubt<'a> {
    /// The folders' locks are held.
    pub(crate) fn about(one: &'a Arc<Dentry>, other: Option<&'a Arc<Dentry>>) -> Doubt<'a> {
        Doubt { entries: [Some(one), other] }
    }

    /// All was done, and the names are noted as they are now.
    pub(crate) fn settle(mut self) {
        self.entries = [None, None];
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        for entry in self.entries.into_iter().flatten() {
            entry.is_doubtful.store(true, Ordering::Release);
        }
    }
}
