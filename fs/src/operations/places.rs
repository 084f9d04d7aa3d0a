//! chdir(2), chroot(2), mount(2), umount2(2), pivot_root(2).

use alloc::sync::Arc;

use crate::context::{At, Caller};
use crate::file_system::FileSystem;
use crate::mount::{Mount, MountFlags, Superblock};
use crate::path::Path;
use crate::permission::{Access, Capabilities, check};
use crate::walk::WalkFlags;
use crate::{Errno, Result};

const TO_FOLDER: WalkFlags = WalkFlags::FOLLOW.union(WalkFlags::DIRECTORY);

impl Caller<'_> {
    fn check_can(&self, capability: Capabilities) -> Result<()> {
        if self.credentials.can(capability) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Moves the working directory to a path.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `EACCES`; those of the walk.
    pub async fn chdir(&self, at: At<'_>) -> Result<()> {
        let path = self.walk(at, TO_FOLDER).await?;
        self.enter(path)
    }

    /// Moves the working directory to a place (fchdir(2)).
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `EACCES`.
    pub fn enter(&self, place: Path) -> Result<()> {
        if !place.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        check(self.credentials, &**place.inode(), Access::EXECUTE)?;
        self.context.set_working_directory(place);
        Ok(())
    }

    /// Moves `/`.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_CHROOT`, `ENOTDIR`, `EACCES`; those of the walk.
    pub async fn chroot(&self, at: At<'_>) -> Result<()> {
        let path = self.walk(at, TO_FOLDER).await?;
        check(self.credentials, &**path.inode(), Access::EXECUTE)?;
        self.check_can(Capabilities::SYS_CHROOT)?;
        self.context.set_root(path);
        Ok(())
    }

    /// Mounts a file system, which the kernel made from the arguments of mount(2).
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN`; those of the walk and of [`MountNamespace::mount`](crate::mount::MountNamespace::mount).
    pub async fn mount(
        &self,
        file_system: Arc<dyn FileSystem>,
        source: &[u8],
        flags: MountFlags,
        at: At<'_>,
    ) -> Result<Arc<Mount>> {
        let superblock = Superblock::new(file_system, source);
        self.mount_again(superblock, flags, at).await
    }

    /// Mounts a file system that may be mounted elsewhere too: the same device twice, or /dev.
    ///
    /// # Errors
    ///
    /// As [`Caller::mount`].
    pub async fn mount_again(&self, superblock: Arc<Superblock>, flags: MountFlags, at: At<'_>) -> Result<Arc<Mount>> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let place = self.walk(at, WalkFlags::FOLLOW).await?;
        if flags.contains(MountFlags::READ_ONLY) {
            superblock.set_read_only(true)?;
        }
        self.context.mounts().mount(superblock, flags - MountFlags::READ_ONLY, &place)
    }

    /// Makes what is at `from` visible at `to` too (`MS_BIND`, with `MS_REC` `recursive`).
    ///
    /// # Errors
    ///
    /// As [`Caller::mount`].
    pub async fn bind_mount(&self, from: At<'_>, to: At<'_>, recursive: bool) -> Result<()> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let from = self.walk(from, WalkFlags::FOLLOW).await?;
        let to = self.walk(to, WalkFlags::FOLLOW).await?;
        self.context.mounts().bind(&from, &to, recursive).map(drop)
    }

    /// Moves a mount (`MS_MOVE`).
    ///
    /// # Errors
    ///
    /// As [`MountNamespace::move_mount`](crate::mount::MountNamespace::move_mount).
    pub async fn move_mount(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let from = self.walk(from, WalkFlags::FOLLOW).await?;
        let to = self.walk(to, WalkFlags::FOLLOW).await?;
        self.context.mounts().move_mount(&from, &to)
    }

    /// Changes the flags of a mount (`MS_REMOUNT`); with `MS_BIND` too only of this mount, else READ_ONLY of the whole file system.
    ///
    /// # Errors
    ///
    /// As [`MountNamespace::remount`](crate::mount::MountNamespace::remount).
    pub async fn remount(&self, at: At<'_>, flags: MountFlags, whole_file_system: bool) -> Result<()> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let path = self.walk(at, WalkFlags::FOLLOW).await?;
        self.context.mounts().remount(&path, flags, whole_file_system)
    }

    /// Takes a mount away (umount2(2)): `lazy` is `MNT_DETACH`; the walk without FOLLOW is `UMOUNT_NOFOLLOW`. What was written is
    /// brought to the disk before it returns.
    ///
    /// # Errors
    ///
    /// `EPERM`; as [`MountNamespace::unmount`](crate::mount::MountNamespace::unmount); `EIO`.
    pub async fn unmount(&self, at: At<'_>, walk: WalkFlags, lazy: bool) -> Result<()> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let path = self.walk(at, walk).await?;
        let superblock = self.context.mounts().unmount(path, lazy)?;
        superblock.file_system.sync().await
    }

    /// Makes `new_root` the root of the tree, and shows the old one at `put_old`.
    ///
    /// # Errors
    ///
    /// As [`MountNamespace::pivot_root`](crate::mount::MountNamespace::pivot_root).
    pub async fn pivot_root(&self, new_root: At<'_>, put_old: At<'_>) -> Result<()> {
        self.check_can(Capabilities::SYS_ADMIN)?;
        let new_root = self.walk(new_root, TO_FOLDER).await?;
        let put_old = self.walk(put_old, TO_FOLDER).await?;
        let old_root = self.context.root();
        self.context.mounts().pivot_root(&old_root, &new_root, &put_old)?;
        self.context.replace(&old_root, &new_root);
        Ok(())
    }
}
