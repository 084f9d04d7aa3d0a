//! Which file systems exist: one row each. mount(2) finds its type here.
//!
//! Next: `devices.rs`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use executor::sync::get_or_init;
use fs::inode::{NewNode, NewOwner};
use fs::mount::Superblock;
use fs::{At, BoxFuture, Credentials, FileSystem, Inode, Path, WalkFlags};

use crate::devices;
use crate::mm::{self, FRAMES};
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

/// A file system that was made for mount(2), or that is mounted elsewhere already.
type Made<'a> = BoxFuture<'a, Result<Arc<Superblock>>>;

/// A kind of file system.
pub struct Kind {
    /// Its name in mount(2).
    pub name: &'static str,
    /// Whether it is on a device: /proc/filesystems says `nodev` of the others.
    pub needs_device: bool,
    /// Makes one.
    make: for<'a> fn(&'a MountRequest<'a>) -> Made<'a>,
}

/// All kinds.
pub static KINDS: &[Kind] = &[
    Kind { name: "tmpfs", needs_device: false, make: |request| Box::pin(make_tmpfs(request)) },
    Kind { name: "devtmpfs", needs_device: false, make: |_| Box::pin(async { Ok(devices::nodes().superblock()) }) },
    Kind { name: "devpts", needs_device: false, make: |request| Box::pin(make_devpts(request)) },
    Kind { name: "proc", needs_device: false, make: |request| Box::pin(make_proc(request)) },
    Kind { name: "sysfs", needs_device: false, make: |request| Box::pin(make_sysfs(request)) },
    Kind { name: "mqueue", needs_device: false, make: |request| Box::pin(make_mqueue(request)) },
    Kind { name: "overlay", needs_device: false, make: |request| Box::pin(make_overlay(request)) },
    Kind { name: "ext4", needs_device: true, make: |request| Box::pin(make_ext4(request)) },
    Kind { name: "ext3", needs_device: true, make: |request| Box::pin(make_ext4(request)) },
    Kind { name: "ext2", needs_device: true, make: |request| Box::pin(make_ext4(request)) },
];

/// Makes a file system for mount(2).
///
/// # Errors
///
/// `ENODEV`: no such kind. What its maker says.
pub async fn make(thread: &RunningThread, kind: &[u8], source: &[u8], options: &[u8]) -> Result<Arc<Superblock>> {
    let kind = KINDS.iter().find(|known| known.name.as_bytes() == kind).ok_or(Errno::ENODEV)?;
    (kind.make)(&MountRequest { source, options, thread }).await
}

/// The value of a number with an optional suffix k, m or g.
fn size(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        _ => (text, 0),
    };
    core::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What a tmpfs may hold for which nothing else was said, as on Linux.
fn half_of_memory() -> tmpfs::Limits {
    let pages = mm::frames::total() as u64 / 2;
    tmpfs::Limits { pages, inodes: pages }
}

async fn make_tmpfs(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    let mut limits = half_of_memory();
    let mut mode = 0o1777;
    for option in request.options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match name {
            b"size" => limits.pages = size(value).ok_or(Errno::EINVAL)?.div_ceil(fs::PAGE_SIZE as u64),
            b"nr_inodes" => limits.inodes = size(value).ok_or(Errno::EINVAL)?,
            b"mode" => {
                let text = core::str::from_utf8(value).map_err(|_| Errno::EINVAL)?;
                mode = u32::from_str_radix(text, 8).map_err(|_| Errno::EINVAL)? & 0o7777;
            }
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(Superblock::new(tmpfs::Tmpfs::new(&FRAMES, limits, mode), request.source))
}

async fn make_devpts(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    Ok(Superblock::new(devices::pseudo_terminals().clone(), request.source))
}

async fn make_proc(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    Ok(Superblock::new(crate::proc::file_system(), request.source))
}

async fn make_sysfs(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    Ok(Superblock::new(crate::proc::sysfs::file_system(), request.source))
}

async fn make_mqueue(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    Ok(Superblock::new(crate::ipc::posix_queue::names::file_system(), request.source))
}

async fn walk(thread: &RunningThread, path: &[u8]) -> Result<Path> {
    thread.caller().walk(At::working_directory(path), WalkFlags::FOLLOW).await
}

async fn make_overlay(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    let text = core::str::from_utf8(request.options).map_err(|_| Errno::EINVAL)?;
    let options = overlay::Options::parse(request.options)?;
    let lower = overlay::Layer::Path(Box::pin(walk(request.thread, &options.lower)).await?);
    let upper = overlay::Layer::Path(Box::pin(walk(request.thread, &options.upper)).await?);
    let work = overlay::Layer::Path(Box::pin(walk(request.thread, &options.work)).await?);
    Ok(Superblock::new(overlay::Overlay::new(lower, upper, &work, String::from(text))?, request.source))
}

async fn make_ext4(request: &MountRequest<'_>) -> Result<Arc<Superblock>> {
    let node = Box::pin(walk(request.thread, request.source)).await?;
    let metadata = node.inode().metadata();
    if metadata.kind != fs::Kind::BlockDevice {
        return Err(Errno::ENOTBLK);
    }
    let disk = devices::disk(metadata.represents).ok_or(Errno::ENXIO)?;
    let mounted = Box::pin(ext4::mount(disk.device, &FRAMES, disk.number, ext4::Limits::default())).await?;
    Ok(Superblock::new(Arc::new(mounted), request.source))
}

/// A file in memory that has no name (memfd_create(2)): of a tmpfs that is mounted nowhere.
///
/// # Errors
///
/// `ENOMEM`, `ENOSPC`.
pub async fn unnamed_file(owner: &Credentials) -> Result<Arc<dyn Inode>> {
    static STORE: OnceCell<Arc<tmpfs::Tmpfs>> = OnceCell::uninit();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let root = get_or_init(&STORE, || tmpfs::Tmpfs::new(&FRAMES, tmpfs::Limits::NONE, 0o700)).root();
    let name = alloc::format!("{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let owner = NewOwner { mode: 0o777, uid: owner.fsuid, gid: owner.fsgid, time: crate::wall_clock::timestamp() };
    let inode = root.create(name.as_bytes(), NewNode::Regular, owner).await?;
    root.unlink(name.as_bytes()).await?;
    Ok(inode)
}

/// The first root: a tmpfs with what the initial archive holds, whose memory is free from then on.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL`: the archive is damaged.
pub fn initial(archive: Option<crate::mm::Initrd>) -> BoxFuture<'static, Result<Arc<dyn FileSystem>>> {
    Box::pin(unpack(archive))
}

async fn unpack(archive: Option<crate::mm::Initrd>) -> Result<Arc<dyn FileSystem>> {
    let Some(archive) = archive else {
        return Ok(tmpfs::Tmpfs::named("rootfs", &FRAMES, half_of_memory(), 0o755));
    };
    // The archive's memory counts, which is free soon; and its content is to find room in a small machine, with some to spare.
    let content = (archive.rest().len() / mm::FRAME_SIZE) as u64;
    let all = mm::frames::total() as u64 + content;
    let pages = (all / 2).max(content + all / 8);
    let limits = tmpfs::Limits { pages, inodes: pages };
    let root = tmpfs::Tmpfs::named("rootfs", &FRAMES, limits, 0o755);
    tmpfs::initramfs::unpack(&mut Unpacking(archive), root.root()).await?;
    Ok(root)
}

/// The initial archive, given back to the frame allocator as it is unpacked.
struct Unpacking(mm::Initrd);

impl tmpfs::initramfs::Archive for Unpacking {
    fn rest(&self) -> &[u8] {
        self.0.rest()
    }

    fn advance(&mut self, len: usize) {
        self.0.advance(len);
    }
}
