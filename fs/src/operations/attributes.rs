//! stat(2), readlink(2), chmod(2), chown(2), utimensat(2), truncate(2), access(2), statfs(2), getxattr(2).
//!
//! Those that a descriptor can also ask for (fchmod(2), …) take a [`Path`] or an inode: the walk is the caller's.
//!
//! Next: `places.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::context::{At, Caller};
use crate::inode::{AttributeChange, FileSystemStatus, Kind, Metadata, Timestamp};
use crate::mount::MountFlags;
use crate::path::Path;
use crate::permission::{Access, Capabilities, check};
use crate::regular_file::without_set_id;
use crate::walk::WalkFlags;
use crate::{Errno, Inode, OpenFile, Result, environment};

/// What utimensat(2) is to do with one of the times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeChange {
    /// `UTIME_OMIT`.
    Omit,
    /// `UTIME_NOW`.
    Now,
    /// This time.
    To(Timestamp),
}

impl TimeChange {
    fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            TimeChange::Omit => None,
            TimeChange::Now => Some(now),
            TimeChange::To(time) => Some(time),
        }
    }
}

impl Caller<'_> {
    /// What stat(2) tells, if nothing has to be awaited.
    pub fn try_stat(&self, at: At<'_>, walk: WalkFlags) -> Option<Result<Metadata>> {
        Some(self.try_walk(at, walk)?.map(|path| path.inode().metadata()))
    }

    /// What stat(2) tells; with [`WalkFlags::FOLLOW`] of what a symbolic link leads to.
    ///
    /// # Errors
    ///
    /// Those of the walk.
    pub async fn stat(&self, at: At<'_>, walk: WalkFlags) -> Result<Metadata> {
        Ok(self.walk(at, walk).await?.inode().metadata())
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not a symbolic link (`ENOENT` if it was named by an empty path). Those of the walk.
    pub async fn readlink(&self, at: At<'_>) -> Result<Vec<u8>> {
        let path = self.walk(at, WalkFlags::empty()).await?;
        if path.inode().core().kind != Kind::Symlink {
            return Err(if at.path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
        }
        if let Some(target) = path.dentry.cached_link() {
            return Ok(target.to_vec());
        }
        let target = path.inode().read_link().await?;
        if path.inode().magic_link().is_none() {
            path.dentry.remember_link(&target);
        }
        Ok(target)
    }

    /// Checks access as access(2) does; pass the caller with [`Credentials::as_real`](crate::permission::Credentials::as_real) unless
    /// `AT_EACCESS` is set.
    ///
    /// # Errors
    ///
    /// `EACCES`, `EROFS`; those of the walk.
    pub async fn access(&self, at: At<'_>, walk: WalkFlags, access: Access) -> Result<()> {
        let path = self.walk(at, walk).await?;
        let kind = path.inode().core().kind;
        if access.contains(Access::EXECUTE) && kind == Kind::Regular && path.mount.flags().contains(MountFlags::NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        check(self.credentials, &**path.inode(), access)?;
        if access.contains(Access::WRITE) && matches!(kind, Kind::Regular | Kind::Directory | Kind::Symlink) {
            path.mount.check_writable()?;
        }
        Ok(())
    }

    /// Sets the permission bits of what is at a place.
    ///
    /// # Errors
    ///
    /// `EPERM`: not the owner. `EROFS`. `EOPNOTSUPP`: a symbolic link.
    pub async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        path.mount.check_writable()?;
        self.chmod_inode(&**path.inode(), mode).await
    }

    /// Sets the permission bits of an open file without a place.
    ///
    /// # Errors
    ///
    /// As [`Caller::chmod`].
    pub async fn chmod_inode(&self, inode: &dyn Inode, mode: u32) -> Result<()> {
        let permissions = inode.permissions();
        if inode.core().kind == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.credentials.owns(permissions) {
            return Err(Errno::EPERM);
        }
        let may_set = self.credentials.is_in_group(permissions.gid) || self.credentials.can(Capabilities::FSETID);
        let mode = if may_set { mode & 0o7777 } else { mode & 0o5777 };
        inode
            .change(AttributeChange { mode: Some(mode), changed: Some(environment::now()), ..Default::default() })
            .await
    }

    /// Sets owner and group of what is at a place; `None` leaves one as it is.
    ///
    /// # Errors
    ///
    /// `EPERM`, `EROFS`.
    pub async fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        path.mount.check_writable()?;
        self.chown_inode(&**path.inode(), uid, gid).await
    }

    /// Sets owner and group of an open file without a place.
    ///
    /// # Errors
    ///
    /// `EPERM`.
    pub async fn chown_inode(&self, inode: &dyn Inode, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let now = inode.permissions();
        let is_owner = self.credentials.fsuid == now.uid;
        let may_any = self.credentials.can(Capabilities::CHOWN);
        let uid_is_fine = uid.is_none_or(|uid| may_any || (is_owner && uid == now.uid));
        let gid_is_fine =
            gid.is_none_or(|gid| may_any || (is_owner && (gid == now.gid || self.credentials.is_in_group(gid))));
        if !uid_is_fine || !gid_is_fine {
            return Err(Errno::EPERM);
        }
        let is_directory = inode.core().kind == Kind::Directory;
        let mode = (!is_directory).then(|| without_set_id(now.mode)).filter(|&mode| mode != now.mode);
        inode.change(AttributeChange { uid, gid, mode, changed: Some(environment::now()), ..Default::default() }).await
    }

    /// Sets the times of what is at a place.
    ///
    /// # Errors
    ///
    /// `EACCES`: both to now, neither owner nor allowed to write. `EPERM`: other times, not the owner. `EROFS`.
    pub async fn set_times(&self, path: &Path, accessed: TimeChange, modified: TimeChange) -> Result<()> {
        if (accessed, modified) == (TimeChange::Omit, TimeChange::Omit) {
            return Ok(());
        }
        path.mount.check_writable()?;
        let inode = path.inode();
        if !self.owns(&**inode) {
            if (accessed, modified) != (TimeChange::Now, TimeChange::Now) {
                return Err(Errno::EPERM);
            }
            check(self.credentials, &**inode, Access::WRITE)?;
        }
        let now = environment::now();
        let change = AttributeChange {
            accessed: accessed.at(now),
            modified: modified.at(now),
            changed: Some(now),
            ..Default::default()
        };
        inode.change(change).await
    }

    /// Cuts or extends the file at a path.
    ///
    /// # Errors
    ///
    /// As truncate(2): `EISDIR`, `EINVAL`, `EACCES`, `EROFS`, `ETXTBSY`, `EFBIG`; those of the walk.
    pub async fn truncate(&self, at: At<'_>, size: u64) -> Result<()> {
        let path = self.walk(at, WalkFlags::FOLLOW).await?;
        let inode = path.inode();
        match inode.core().kind {
            Kind::Directory => return Err(Errno::EISDIR),
            Kind::Regular => {}
            _ => return Err(Errno::EINVAL),
        }
        check(self.credentials, &**inode, Access::WRITE)?;
        path.mount.check_writable()?;
        inode.prepare_writing(size).await?;
        inode.core().begin_writing()?;
        let _writer = Writer(&**inode);
        self.resize(&**inode, size).await
    }

    /// Cuts or extends an open file.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not open for writing, or not a regular file. `EFBIG`. Whatever the file system says.
    pub async fn truncate_file(&self, file: &OpenFile, size: u64) -> Result<()> {
        match &file.inode {
            Some(inode) if inode.core().kind == Kind::Regular && file.flags().can_write() => {
                self.resize(&**inode, size).await
            }
            _ => Err(Errno::EINVAL),
        }
    }

    async fn resize(&self, inode: &dyn Inode, size: u64) -> Result<()> {
        if size > inode.max_size() {
            return Err(Errno::EFBIG);
        }
        let now = environment::now();
        let mode = self.mode_after_write(inode.permissions().mode);
        let change =
            AttributeChange { size: Some(size), mode, modified: Some(now), changed: Some(now), ..Default::default() };
        inode.change(change).await
    }

    /// The mode that a file gets because its content was changed, if that is another.
    pub(super) fn mode_after_write(&self, mode: u32) -> Option<u32> {
        let keeps = self.credentials.can(Capabilities::FSETID);
        Some(without_set_id(mode)).filter(|&after| after != mode && !keeps)
    }

    /// What statfs(2) tells, with the flags of the mount.
    ///
    /// # Errors
    ///
    /// Those of the walk.
    pub async fn statfs(&self, at: At<'_>) -> Result<(FileSystemStatus, MountFlags)> {
        let path = self.walk(at, WalkFlags::FOLLOW).await?;
        Ok((path.inode().file_system(), path.mount.flags()))
    }

    /// An extended attribute. None can be set yet, and file systems without any say `EOPNOTSUPP`.
    ///
    /// # Errors
    ///
    /// `ENODATA`, `EOPNOTSUPP`; those of the walk.
    pub async fn extended_attribute(&self, at: At<'_>, walk: WalkFlags, name: &[u8]) -> Result<Vec<u8>> {
        let path = self.walk(at, walk).await?;
        let inode = path.inode().clone();
        Box::pin(async move { inode.extended_attribute(name).await }).await
    }
}

/// A writer for a moment.
struct Writer<'a>(&'a dyn Inode);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.core().end_writing();
    }
}
