//! Which file systems exist: one row each. mount(2) finds its type here.
//!
//! Next: `devices.rs`.

use alloc::sync::Arc;

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
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
pub static KINDS: &[Kind] = &[
    Kind { name: "tmpfs", needs_device: false, make: |request| alloc::boxed::Box::pin(make_tmpfs(request)) },
];

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
    Ok(tmpfs::Tmpfs::new(&FRAMES, tmpfs::Limits::default(), 0o1777))
}

/// Memory without a name that several processes map (MAP_SHARED | MAP_ANONYMOUS, memfd): a file of a tmpfs that is mounted nowhere.
///
/// # Errors
///
/// `ENOMEM`, `ENOSPC`.
pub fn shared_memory(len: u64, owner: &Credentials) -> Result<Arc<dyn Inode>> {
    static STORE: OnceCell<Arc<tmpfs::Tmpfs>> = OnceCell::uninit();
    let store = STORE.get_or_init(|| tmpfs::Tmpfs::new(&FRAMES, tmpfs::Limits::default(), 0o700));
    store.unnamed_file(len, owner.fsuid, owner.fsgid)
}
