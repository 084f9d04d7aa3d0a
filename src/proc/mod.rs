//! /proc: what the kernel tells about processes and itself, in the texts of proc(5) as Linux 6.1 writes them.
//!
//! procfs (the crate) turns texts and folders into inodes; the files here make the texts. `system.rs` is about the machine,
//! `sys.rs` holds the settings of /proc/sys, `process.rs` finds the folder of a process, `status.rs`, `memory.rs` and
//! `descriptors.rs` fill it, `mounts.rs` tells of mounts, and `rouse.rs` and `rouse_tasks.rs` of the kernel's own tasks and counters. `sysvipc.rs` tells of System V objects. `sysfs.rs` is /sys.
//!
//! Next: `process.rs`.

pub mod access;
pub mod descriptors;
pub mod memory;
pub mod mounts;
pub mod process;
pub mod rouse;
pub mod rouse_tasks;
pub mod status;
pub mod sys;
pub mod sysfs;
pub mod system;
pub mod sysvipc;
pub mod text;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::FileSystem;
use procfs::{Procfs, Table, file, link};

use crate::mm::FRAMES;

/// The magic number of procfs (statfs(2)).
const MAGIC: u64 = 0x9fa0;

/// A /proc to be mounted.
pub fn file_system() -> Arc<dyn FileSystem> {
    let root = Table::new()
        .with("cmdline", file(system::command_line))
        .with("cpuinfo", file(system::cpu_info))
        .with("devices", file(system::devices))
        .with("filesystems", file(mounts::file_systems))
        .with("interrupts", file(system::interrupts))
        .with("loadavg", file(system::load_averages))
        .with("meminfo", file(system::memory))
        .with("mounts", link(|| Ok(b"self/mounts".to_vec())))
        .with("partitions", file(system::partitions))
        .with("rouse", rouse::folder())
        .with("self", link(own_process))
        .with("stat", file(system::statistics))
        .with("swaps", file(system::swaps))
        .with("sys", sys::folder())
        .with("sysvipc", sysvipc::folder())
        .with("thread-self", link(own_thread))
        .with("tty", Table::new().with("drivers", file(system::terminal_drivers)).node())
        .with("uptime", file(system::uptime))
        .with("version", file(system::version))
        .with_rest(process::Processes);
    Procfs::new("proc", MAGIC, &FRAMES, root.node())
}

fn own_process() -> Result<Vec<u8>> {
    let thread = crate::process::current::get().ok_or(Errno::ENOENT)?;
    Ok(format!("{}", thread.process.pid).into_bytes())
}

fn own_thread() -> Result<Vec<u8>> {
    let thread = crate::process::current::get().ok_or(Errno::ENOENT)?;
    Ok(format!("{}/task/{}", thread.process.pid, thread.tid()).into_bytes())
}
