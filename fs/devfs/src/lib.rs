//! /dev: a tmpfs in which a node appears for each device that the kernel registers (devtmpfs).
//!
//! [`Devices`] is both sides of a device node: the file system with the nodes, and the table that says what opening a number
//! means. A program may make folders, links and nodes of its own in it, as in any tmpfs; a node made elsewhere with the same number
//! opens the same device.
//!
//! The devices that are only memory (null, zero, full, random) are in [`memory`].
//!
//! Next: `memory.rs`.
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod memory;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use executor::sync::SpinLock;
use fs::dentry::Cached;
use fs::environment::{DeviceTable, now};
use fs::inode::NewOwner;
use fs::mount::Superblock;
use fs::{Errno, FileOps, Inode, Kind, NewNode, OpenFlags, PageSource, Result};
use tmpfs::{Limits, Tmpfs};

/// How a device is opened.
pub type Opener = Arc<dyn Fn(OpenFlags) -> Result<Arc<dyn FileOps>> + Send + Sync>;

/// A device to register.
pub struct Device<'a> {
    /// Where its node is, below /dev: `null`, `input/event0`. Folders on the way are made.
    pub name: &'a [u8],
    /// Character or block device.
    pub kind: Kind,
    /// Its number, as `makedev` packs it.
    pub number: u64,
    /// Permission bits of the node.
    pub mode: u32,
    /// Group of the node; the owner is root.
    pub gid: u32,
}

/// See the head of this file.
pub struct Devices {
    superblock: Arc<Superblock>,
    openers: SpinLock<BTreeMap<(u8, u64), Opener>>,
}

impl Devices {
    /// An empty /dev.
    pub fn new(pages: &'static dyn PageSource) -> Devices {
        let nodes = Tmpfs::named("devtmpfs", pages, Limits::NONE, 0o755);
        Devices { superblock: Superblock::new(nodes, b"devtmpfs"), openers: SpinLock::new(BTreeMap::new()) }
    }

    /// The file system, to be mounted as often as one likes.
    pub fn superblock(&self) -> Arc<Superblock> {
        self.superblock.clone()
    }

    /// Registers a device: opening its number does `opener` from now on, and a node appears.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a node of that name, which stays as it is. `ENOTDIR`, `ENOSPC`.
    pub fn register(&self, device: &Device<'_>, opener: Opener) -> Result<()> {
        self.openers.lock().insert((device.kind as u8, device.number), opener);
        let (folder, name) = self.folder_of(device.name)?;
        let owner = NewOwner { mode: device.mode, uid: 0, gid: device.gid, time: now() };
        at_once(folder.create(name, NewNode::Special(device.kind, device.number), owner)).map(drop)
    }

    /// Says what opening a number means, without a node: for nodes that come and go, such as pseudo-terminals.
    pub fn set_opener(&self, kind: Kind, number: u64, opener: Opener) {
        self.openers.lock().insert((kind as u8, number), opener);
    }

    /// Adds a symbolic link, such as `fd` → `/proc/self/fd`.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOTDIR`, `ENOSPC`.
    pub fn link(&self, name: &[u8], target: &[u8]) -> Result<()> {
        let (folder, name) = self.folder_of(name)?;
        let owner = NewOwner { mode: 0o777, uid: 0, gid: 0, time: now() };
        at_once(folder.create(name, NewNode::Symlink(target), owner)).map(drop)
    }

    /// Makes a folder, to mount something on: `pts`, `shm`.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `ENOSPC`. That it is there already is fine.
    pub fn make_folder(&self, name: &[u8], mode: u32) -> Result<()> {
        let (folder, name) = self.folder_of(name)?;
        subfolder(&folder, name, mode).map(drop)
    }

    /// Removes a device and its node; who has it open keeps it.
    ///
    /// # Errors
    ///
    /// `ENOENT`: no such node.
    pub fn unregister(&self, device: &Device<'_>) -> Result<()> {
        self.openers.lock().remove(&(device.kind as u8, device.number));
        let (folder, name) = self.folder_of(device.name)?;
        at_once(folder.unlink(name))?;
        // The name may be cached, in the folder that the same parts lead to.
        let mut dentry = self.superblock.root.clone();
        for part in parts(device.name).filter(|part| *part != name) {
            match dentry.cached(part) {
                Cached::Present(below) => dentry = below,
                _ => return Ok(()),
            }
        }
        dentry.forget_name(name);
        Ok(())
    }

    /// The folder a name is in, made if need be, and the last part of the name.
    fn folder_of<'n>(&self, name: &'n [u8]) -> Result<(Arc<dyn Inode>, &'n [u8])> {
        let mut folder = self.superblock.root.inode().clone();
        let mut parts = parts(name).peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok((folder, part));
            }
            folder = subfolder(&folder, part, 0o755)?;
        }
        Err(Errno::ENOENT)
    }
}

fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
}

fn subfolder(folder: &Arc<dyn Inode>, name: &[u8], mode: u32) -> Result<Arc<dyn Inode>> {
    match at_once(folder.lookup(name)) {
        Err(Errno::ENOENT) => {
            at_once(folder.create(name, NewNode::Directory, NewOwner { mode, uid: 0, gid: 0, time: now() }))
        }
        found => found,
    }
}

/// A tmpfs never has to wait.
fn at_once<T>(answer: fs::Io<'_, T>) -> Result<T> {
    answer.now().unwrap_or(Err(Errno::EIO))
}

impl DeviceTable for Devices {
    fn open(&self, kind: Kind, represents: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let opener = self.openers.lock().get(&(kind as u8, represents)).cloned();
        opener.ok_or(Errno::ENXIO)?(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs::conformance::{World, pages, read_at, run, write_at};
    use fs::environment::make_device;
    use fs::{At, MountFlags, WalkFlags};

    fn fill(bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }

    fn mounted() -> (World, Devices) {
        let world = World::new(Tmpfs::new(pages(), Limits::NONE, 0o755));
        let devices = Devices::new(pages());
        memory::register(&devices, memory::Random { fill, mix: |_| () }).expect("nothing there yet");
        world.mkdir("dev").expect("made");
        let at = At::working_directory(b"dev");
        run(world.caller().mount_again(devices.superblock(), MountFlags::empty(), at)).expect("mounted");
        (world, devices)
    }

    fn null() -> Device<'static> {
        Device { name: b"a/b/null2", kind: Kind::CharacterDevice, number: make_device(1, 3), mode: 0o600, gid: 5 }
    }

    #[test]
    fn a_registered_device_has_a_node_and_loses_it_again() {
        let (world, devices) = mounted();
        let opener: Opener = Arc::new(|_| Err(Errno::ENODEV));
        devices.register(&null(), opener).expect("free");
        let metadata = world.stat("dev/a/b/null2").expect("there");
        assert_eq!((metadata.represents, metadata.attributes.mode, metadata.attributes.gid), (0x103, 0o600, 5));
        assert_eq!(devices.open(Kind::CharacterDevice, 0x103, OpenFlags::empty()).err(), Some(Errno::ENODEV));
        assert_eq!(devices.open(Kind::BlockDevice, 0x103, OpenFlags::empty()).err(), Some(Errno::ENXIO));
        devices.unregister(&null()).expect("there");
        assert_eq!(world.stat("dev/a/b/null2").err(), Some(Errno::ENOENT));
        assert_eq!(devices.open(Kind::CharacterDevice, 0x103, OpenFlags::empty()).err(), Some(Errno::ENXIO));
    }

    #[test]
    fn programs_make_their_own_nodes_in_it() {
        let (world, devices) = mounted();
        world.mkdir("dev/mine").expect("made");
        world.symlink("null", "dev/mine/link").expect("made");
        devices.link(b"fd", b"/proc/self/fd").expect("free");
        assert_eq!(world.readlink("dev/fd"), Ok("/proc/self/fd".into()));
        assert!(world.list("dev").expect("there").contains(&"mine".into()));
    }

    #[test]
    fn the_memory_devices_do_as_they_are_called() {
        let (_, devices) = mounted();
        let file = |minor| {
            let ops = devices.open(Kind::CharacterDevice, make_device(1, minor), OpenFlags::RDWR).expect("registered");
            fs::OpenFile::new(ops, None, None, OpenFlags::RDWR)
        };
        let (null, zero, full, random) = (file(3), file(5), file(7), file(9));
        assert_eq!((read_at(&null, 0, 10), write_at(&null, 0, b"gone")), (Ok(vec![]), Ok(4)));
        assert_eq!((read_at(&zero, 7, 10), write_at(&zero, 0, b"gone")), (Ok(vec![0; 10]), Ok(4)));
        assert_eq!((read_at(&full, 0, 10), write_at(&full, 0, b"x")), (Ok(vec![0; 10]), Err(Errno::ENOSPC)));
        assert_eq!((read_at(&random, 0, 600), write_at(&random, 0, b"seed")), (Ok(vec![0x5a; 600]), Ok(4)));
    }

    #[test]
    fn a_nodev_mount_opens_no_device() {
        let world = World::new(Tmpfs::new(pages(), Limits::NONE, 0o755));
        let null = At::working_directory(b"null");
        run(world.caller().mknod(null, Kind::CharacterDevice, 0o666, 0x103)).expect("root may");
        let flags = MountFlags::NODEV;
        run(world.caller().remount(At::working_directory(b"/"), flags, false)).expect("the root");
        let opened = run(world.caller().open(null, OpenFlags::empty(), 0, WalkFlags::empty()));
        assert_eq!(opened.err(), Some(Errno::EACCES));
    }
}
