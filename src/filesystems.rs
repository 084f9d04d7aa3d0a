//! Which file systems exist: one row each. mount(2) finds its type here.
//!
//! Next: `devices.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use fs::inode::{NewNode, NewOwner};
use fs::{BoxFuture, Credentials, FileSystem, Inode};

use crate::mm::FRAMES;
use crate::process::RunningThread;

/// What mount(2) is given for a new file system.
pub struct MountRequest<'a> {
    /// What is to be mounted: a device, or a name that only /proc/mounts shows.
    pub source: &'a [u8],
    /// The text of options.
    pub options: &'a [u8],
    /// Who asks.
    pub thread: &'a RunningThread,
}

/// A kind of file system.
pub struct Kind {
    /// Its name in mount(2).
    pub name: &'static str,
    /// Whether it is on a device: /proc/filesystems says `nodev` of the others.
    pub needs_device: bool,
    /// Makes one.
    pub make: for<'a> fn(&'a MountRequest<'a>) -> BoxFuture<'a, Result<Arc<dyn FileSystem>>>,
}

/// All kinds.
pub static KINDS: &[Kind] =
    &[Kind { name: "tmpfs", needs_device: false, make: |request| alloc::boxed::Box::pin(make_tmpfs(request)) }];

/// Makes a file system for mount(2).
///
/// # Errors
///
/// `ENODEV`: no such kind. What its maker says.
pub async fn make(thread: &RunningThread, kind: &[u8], source: &[u8], options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let kind = KINDS.iter().find(|known| known.name.as_bytes() == kind).ok_or(Errno::ENODEV)?;
    (kind.make)(&MountRequest { source, options, thread }).await
}

async fn make_tmpfs(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let _ = request;
    Ok(tmpfs::Tmpfs::new(&FRAMES, tmpfs::Limits::NONE, 0o1777))
}

/// A file in memory that has no name (memfd_create(2)): of a tmpfs that is mounted nowhere.
///
/// # Errors
///
/// `ENOMEM`, `ENOSPC`.
pub async fn unnamed_file(owner: &Credentials) -> Result<Arc<dyn Inode>> {
    static STORE: OnceCell<Arc<tmpfs::Tmpfs>> = OnceCell::uninit();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let root = STORE.get_or_init(|| tmpfs::Tmpfs::new(&FRAMES, tmpfs::Limits::NONE, 0o700)).root();
    let name = alloc::format!("{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let owner = NewOwner { mode: 0o777, uid: owner.fsuid, gid: owner.fsgid, time: crate::wall_clock::timestamp() };
    let inode = root.create(name.as_bytes(), NewNode::Regular, owner).await?;
    root.unlink(name.as_bytes()).await?;
    Ok(inode)
}

/// The first root: a tmpfs with what the initial archive holds.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL`: the archive is damaged.
pub fn initial(archive: Option<&'static [u8]>) -> BoxFuture<'static, Result<Arc<dyn FileSystem>>> {
    Box::pin(unpack(archive))
}

async fn unpack(archive: Option<&'static [u8]>) -> Result<Arc<dyn FileSystem>> {
    let root = tmpfs::Tmpfs::named("rootfs", &FRAMES, tmpfs::Limits::NONE, 0o755);
    if let Some(archive) = archive {
        tmpfs::initramfs::unpack(archive, root.root()).await?;
    }
    Ok(root)
}
