//! mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rmdir(2).
//!
//! Next: `rename.rs`.

use crate::context::{At, Caller};
use crate::dentry::Doubt;
use crate::inode::{Kind, NewNode};
use crate::path::{PATH_MAX, Path};
use crate::permission::{Access, Capabilities, check, check_removal};
use crate::walk::{Outcome, WalkFlags, Walker};
use crate::{Errno, Inode, Result};

/// Whether a last name is one that every folder has.
fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

impl Caller<'_> {
    /// Walks to the folder of the last name.
    pub(super) async fn walk_to_parent<'w>(&'w self, at: At<'w>) -> Result<(Walker<'w>, Path)> {
        let (walker, outcome) = self.walk_to_last(at, WalkFlags::PARENT).await?;
        let (Outcome::Found(parent) | Outcome::Last(parent)) = outcome;
        Ok((walker, parent))
    }

    /// Makes a folder.
    ///
    /// # Errors
    ///
    /// As mkdir(2): `EEXIST`, `ENOENT`, `EACCES`, `EROFS`, `ENOSPC`, `EMLINK`, …
    pub async fn mkdir(&self, at: At<'_>, mode: u32) -> Result<()> {
        self.make(at, NewNode::Directory, mode & 0o1777).await.map(drop)
    }

    /// Makes a node of any kind but a folder or a symbolic link; returns its place (bind(2) wants it).
    ///
    /// # Errors
    ///
    /// As mknod(2): `EEXIST`, `EPERM` for a device without `CAP_MKNOD`, …
    pub async fn mknod(&self, at: At<'_>, kind: Kind, mode: u32, represents: u64) -> Result<Path> {
        let node = match kind {
            Kind::Regular => NewNode::Regular,
            Kind::Directory | Kind::Symlink => return Err(Errno::EPERM),
            Kind::CharacterDevice | Kind::BlockDevice if !self.credentials.can(Capabilities::MKNOD) => {
                return Err(Errno::EPERM);
            }
            kind => NewNode::Special(kind, represents),
        };
        self.make(at, node, mode).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// As symlink(2): `EEXIST`, `ENOENT` for an empty target, `ENAMETOOLONG`, …
    pub async fn symlink(&self, target: &[u8], at: At<'_>) -> Result<()> {
        match target.len() {
            0 => Err(Errno::ENOENT),
            PATH_MAX.. => Err(Errno::ENAMETOOLONG),
            _ => self.make(at, NewNode::Symlink(target), 0o777).await.map(drop),
        }
    }

    async fn make(&self, at: At<'_>, node: NewNode<'_>, mode: u32) -> Result<Path> {
        let (walker, parent) = self.walk_to_parent(at).await?;
        let name = walker.last();
        if name.is_empty() || is_dots(name) {
            return Err(Errno::EEXIST);
        }
        let kind = match node {
            NewNode::Regular => Kind::Regular,
            NewNode::Directory => Kind::Directory,
            NewNode::Symlink(_) => Kind::Symlink,
            NewNode::Special(kind, _) => kind,
        };
        let lock = parent.dentry.lock().await?;
        match parent.dentry.lookup_locked(&lock, name).await {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) if walker.ends_in_slash() && kind != Kind::Directory => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.check_may_add(&parent)?;
        let owner = self.new_owner(&parent, kind, mode);
        parent.dentry.adding(name);
        let inode = parent.inode().create(name, node, owner).await?;
        let dentry = parent.dentry.adopt(name, inode);
        drop(lock);
        Ok(Path { mount: parent.mount, dentry })
    }

    /// Gives a file another name; a symbolic link at the end of `old` is followed if the flags say so (`AT_SYMLINK_FOLLOW`).
    ///
    /// # Errors
    ///
    /// As link(2): `EEXIST`, `EXDEV`, `EPERM` for a folder, `ENOENT`, `EMLINK`, `EROFS`, …
    pub async fn link(&self, old: At<'_>, follow: WalkFlags, new: At<'_>) -> Result<()> {
        let old = self.walk(old, follow).await?;
        let (walker, parent) = self.walk_to_parent(new).await?;
        let name = walker.last();
        if name.is_empty() || is_dots(name) {
            return Err(Errno::EEXIST);
        }
        let lock = parent.dentry.lock().await?;
        match parent.dentry.lookup_locked(&lock, name).await {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) if walker.ends_in_slash() => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        if !alloc::sync::Arc::ptr_eq(&old.mount.superblock, &parent.mount.superblock) || old.mount.id != parent.mount.id
        {
            return Err(Errno::EXDEV);
        }
        if old.dentry.is_directory() || !self.may_link(&**old.inode()) {
            return Err(Errno::EPERM);
        }
        let core = old.inode().core();
        if core.attributes.lock().links == 0 && !core.with_extras(|extras| extras.may_get_first_name) {
            return Err(Errno::ENOENT);
        }
        self.check_may_add(&parent)?;
        parent.dentry.adding(name);
        parent.inode().link(name, old.inode()).await?;
        parent.dentry.adopt(name, old.inode().clone());
        drop(lock);
        Ok(())
    }

    /// As /proc/sys/fs/protected_hardlinks is by default: others' files only if they are harmless and could be written anyway.
    fn may_link(&self, inode: &dyn Inode) -> bool {
        let mode = inode.permissions().mode;
        let is_harmless = inode.core().kind == Kind::Regular && mode & 0o4000 == 0 && mode & 0o2010 != 0o2010;
        self.owns(inode) || (is_harmless && check(self.credentials, inode, Access::READ | Access::WRITE).is_ok())
    }

    /// Removes a name of something that is not a folder. Its inode goes with its last name and its last open file.
    ///
    /// # Errors
    ///
    /// As unlink(2): `ENOENT`, `EISDIR`, `EACCES`, `EPERM`, `EBUSY`, `EROFS`, …
    pub async fn unlink(&self, at: At<'_>) -> Result<()> {
        let (walker, parent) = self.walk_to_parent(at).await?;
        let name = walker.last();
        if name.is_empty() || is_dots(name) {
            return Err(Errno::EISDIR);
        }
        let lock = parent.dentry.lock().await?;
        let entry = parent.dentry.lookup_locked(&lock, name).await?;
        if walker.ends_in_slash() {
            return Err(if entry.is_directory() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        parent.mount.check_writable()?;
        check_removal(self.credentials, &**parent.inode(), &**entry.inode())?;
        if entry.is_directory() {
            return Err(Errno::EISDIR);
        }
        if entry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        let doubt = Doubt::about(&entry, None);
        parent.inode().unlink(name).await?;
        parent.dentry.removed(name);
        doubt.settle();
        drop(lock);
        Ok(())
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// As rmdir(2): `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EINVAL` for `.`, `EBUSY`, `EACCES`, `EPERM`, `EROFS`, …
    pub async fn rmdir(&self, at: At<'_>) -> Result<()> {
        let (walker, parent) = self.walk_to_parent(at).await?;
        let name = walker.last();
        match name {
            b"" => return Err(Errno::EBUSY),
            b"." => return Err(Errno::EINVAL),
            b".." => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let lock = parent.dentry.lock().await?;
        let entry = parent.dentry.lookup_locked(&lock, name).await?;
        parent.mount.check_writable()?;
        check_removal(self.credentials, &**parent.inode(), &**entry.inode())?;
        if !entry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if entry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        // Nobody adds an entry while it is being removed.
        let entry_lock = entry.lock().await?;
        let doubt = Doubt::about(&entry, None);
        parent.inode().remove_directory(name).await?;
        parent.dentry.removed(name);
        doubt.settle();
        drop(entry_lock);
        drop(lock);
        Ok(())
    }
}
