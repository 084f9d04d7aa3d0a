//! /sys: the little of it that programs read: which CPUs there are, and the disks. The other folders are there to be looked into,
//! and to be mounted on.
//!
//! Next: `system.rs`.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::environment::{major, minor};
use fs::{FileSystem, Kind};
use procfs::{Folder, Listed, Node, Procfs, Table, file};

use crate::devices::{Disk, disks};
use crate::mm::FRAMES;
use crate::tasks;

/// The magic number of sysfs (statfs(2)).
const MAGIC: u64 = 0x6265_6572;

/// A /sys to be mounted.
pub fn file_system() -> Arc<dyn FileSystem> {
    let empty = || Table::new().node();
    let cpu = Table::new()
        .with("online", file(cpus))
        .with("possible", file(cpus))
        .with("present", file(cpus))
        .with_rest(Cpus)
        .node();
    let root = Table::new()
        .with("block", Node::folder(Disks))
        .with("bus", empty())
        .with("class", Table::new().with("block", Node::folder(Disks)).with("net", empty()).with("tty", empty()).node())
        .with("dev", Table::new().with("block", empty()).with("char", empty()).node())
        .with("devices", Table::new().with("system", Table::new().with("cpu", cpu).node()).node())
        .with("firmware", empty())
        .with("fs", Table::new().with("cgroup", empty()).node())
        .with("kernel", empty())
        .with("module", empty())
        .node();
    Procfs::new("sysfs", MAGIC, &FRAMES, root)
}

/// The numbers of the CPUs, as a list of ranges.
fn cpus() -> Vec<u8> {
    match tasks::cpu_count() {
        0 | 1 => b"0\n".to_vec(),
        count => format!("0-{}\n", count - 1).into_bytes(),
    }
}

/// A folder with a folder for each CPU: `cpu0` and so on.
struct Cpus;

/// Where the numbers of CPUs' folders begin.
const CPU_NUMBERS: u64 = 1 << 61;

impl Folder for Cpus {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let is_meant = |cpu: &usize| format!("cpu{cpu}").as_bytes() == name;
        let cpu = (0..tasks::cpu_count()).find(is_meant).ok_or(Errno::ENOENT)?;
        Ok(Table::new().with("online", file(|| b"1\n".to_vec())).node().numbered(CPU_NUMBERS + cpu as u64))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        for cpu in (0..tasks::cpu_count()).skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            let (name, number) = (format!("cpu{cpu}"), CPU_NUMBERS + cpu as u64);
            let entry = Listed { position: cpu as u64 + 1, name: name.as_bytes(), number, kind: Kind::Directory };
            if !tell(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A folder with a folder for each disk.
struct Disks;

/// Where the numbers of disks' folders begin; the device's number follows.
const DISK_NUMBERS: u64 = 1 << 62;

impl Folder for Disks {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let disk = disks().into_iter().find(|disk| disk.name.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(folder_of(disk))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        for (disk, position) in disks().iter().zip(1..).skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            let number = DISK_NUMBERS + disk.number;
            if !tell(Listed { position, name: disk.name.as_bytes(), number, kind: Kind::Directory }) {
                break;
            }
        }
        Ok(())
    }
}

fn folder_of(disk: Disk) -> Node {
    let geometry = disk.device.geometry();
    let number = disk.number;
    let fixed = |text: alloc::string::String| file(move || text.clone().into_bytes());
    let queue = Table::new()
        .with("logical_block_size", fixed("512\n".into()))
        .with("physical_block_size", fixed("512\n".into()))
        .with("rotational", fixed("0\n".into()));
    Table::new()
        .with("dev", fixed(format!("{}:{}\n", major(number), minor(number))))
        .with("queue", queue.node())
        .with("removable", fixed("0\n".into()))
        .with("ro", fixed(format!("{}\n", u8::from(geometry.read_only))))
        .with("size", fixed(format!("{}\n", geometry.sectors)))
        .node()
        .numbered(DISK_NUMBERS + number)
}
