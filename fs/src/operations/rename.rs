//! rename(2), renameat2(2).
//!
//! Locks, in this order: the file system's rename lock (only if the folders differ: it keeps the shape of the tree), then the
//! folders, the upper one first, or in the order of their addresses if neither is above the other.
//!
//! Next: `attributes.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::context::{At, Caller};
use crate::dentry::{Dentry, Doubt, FolderGuard};
use crate::inode::RenameMode;
use crate::path::Path;
use crate::permission::{Access, check, check_removal};
use crate::walk::Walker;
use crate::{Errno, Result};

impl Caller<'_> {
    /// Moves an entry.
    ///
    /// # Errors
    ///
    /// As rename(2): `EBUSY`, `EINVAL` into itself, `EISDIR`, `ENOTDIR`, `ENOTEMPTY`, `EEXIST`, `EXDEV`, `EROFS`, `EPERM`, …
    pub async fn rename(&self, old: At<'_>, new: At<'_>, mode: RenameMode) -> Result<()> {
        let old = self.end(old).await?;
        let new = self.end(new).await?;
        if old.folder.mount.id != new.folder.mount.id {
            return Err(Errno::EXDEV);
        }
        for name in [old.name(), new.name()] {
            if matches!(name, b"" | b"." | b"..") {
                return Err(if mode == RenameMode::NoReplace { Errno::EEXIST } else { Errno::EBUSY });
            }
        }
        if !Arc::ptr_eq(&old.folder.dentry, &new.folder.dentry) {
            return Box::pin(self.rename_between(&old, &new, mode)).await;
        }
        let lock = old.folder.dentry.lock().await?;
        Box::pin(self.rename_locked(&old, &new, mode, (&lock, &lock))).await
    }

    async fn end<'w>(&'w self, at: At<'w>) -> Result<End<'w>> {
        let (walker, folder) = self.walk_to_parent(at).await?;
        Ok(End { walker, folder })
    }

    async fn rename_between(&self, old: &End<'_>, new: &End<'_>, mode: RenameMode) -> Result<()> {
        let tree = old.folder.mount.superblock.renames.lock().await;
        let (old_dentry, new_dentry) = (&old.folder.dentry, &new.folder.dentry);
        let old_first = old_dentry.is_above(new_dentry)
            || (!new_dentry.is_above(old_dentry) && Arc::as_ptr(old_dentry) < Arc::as_ptr(new_dentry));
        let (first, second) = if old_first { (old_dentry, new_dentry) } else { (new_dentry, old_dentry) };
        let first = first.lock().await?;
        let second = second.lock().await?;
        let locks = if old_first { (&first, &second) } else { (&second, &first) };
        let result = self.rename_locked(old, new, mode, locks).await;
        drop((second, first, tree));
        result
    }

    async fn rename_locked(
        &self,
        old: &End<'_>,
        new: &End<'_>,
        mode: RenameMode,
        (old_lock, new_lock): (&FolderGuard<'_>, &FolderGuard<'_>),
    ) -> Result<()> {
        let source = old.folder.dentry.lookup_locked(old_lock, old.name()).await?;
        let target = match new.folder.dentry.lookup_locked(new_lock, new.name()).await {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if mode == RenameMode::Exchange && target.is_none() {
            return Err(Errno::ENOENT);
        }
        let must_be = old.walker.ends_in_slash() || (new.walker.ends_in_slash() && mode != RenameMode::Exchange);
        if must_be && !source.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        // A folder cannot move below itself; nor can what is there be above.
        if source.is_above(&new.folder.dentry) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = &target
            && target.is_above(&old.folder.dentry)
        {
            return Err(if mode == RenameMode::Exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        old.folder.mount.check_writable()?;
        self.check_may_move(old, &source, new)?;
        let Some(target) = target else {
            self.check_may_add(&new.folder)?;
            new.folder.dentry.adding(new.name());
            let doubt = Doubt::about(&source, None);
            old.folder.inode().rename(old.name(), new.folder.inode(), new.name(), mode).await?;
            old.folder.dentry.moved(&source, &new.folder.dentry, new.name());
            doubt.settle();
            return Ok(());
        };
        check_removal(self.credentials, &**new.folder.inode(), &**target.inode())?;
        if mode == RenameMode::Exchange {
            self.check_may_move(new, &target, old)?;
        } else {
            match (source.is_directory(), target.is_directory()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        // Two names of one file: nothing is to be done, and both stay.
        if Arc::ptr_eq(source.inode(), target.inode()) {
            return Ok(());
        }
        if source.is_mount_point() || target.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        if mode == RenameMode::Exchange {
            let doubt = Doubt::about(&source, Some(&target));
            old.folder.inode().rename(old.name(), new.folder.inode(), new.name(), mode).await?;
            Dentry::exchanged(&source, &target);
            doubt.settle();
            return Ok(());
        }
        // Nobody adds an entry to a folder while it is being replaced.
        let doubt = Doubt::about(&source, Some(&target));
        let target_lock = if target.is_directory() { Some(target.lock().await?) } else { None };
        old.folder.inode().rename(old.name(), new.folder.inode(), new.name(), mode).await?;
        old.folder.dentry.moved(&source, &new.folder.dentry, new.name());
        doubt.settle();
        drop(target_lock);
        Ok(())
    }

    /// A folder that moves gets a new `..`, which is a change of the folder itself.
    fn check_may_move(&self, from: &End<'_>, entry: &Arc<Dentry>, to: &End<'_>) -> Result<()> {
        check_removal(self.credentials, &**from.folder.inode(), &**entry.inode())?;
        if entry.is_directory() && !Arc::ptr_eq(&from.folder.dentry, &to.folder.dentry) {
            check(self.credentials, &**entry.inode(), Access::WRITE)?;
        }
        if entry.is_mount_point() { Err(Errno::EBUSY) } else { Ok(()) }
    }
}

/// One end of a rename.
struct End<'a> {
    walker: Walker<'a>,
    folder: Path,
}

impl End<'_> {
    fn name(&self) -> &[u8] {
        self.walker.last()
    }
}
