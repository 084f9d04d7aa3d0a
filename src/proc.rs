//! /proc: what the kernel tells about processes and itself. (procfs, proc(5).)

use alloc::sync::Arc;

use fs::FileSystem;
use procfs::{Procfs, Table};

use crate::mm::FRAMES;

/// The magic number of procfs (statfs(2)).
const MAGIC: u64 = 0x9fa0;

/// A /proc to be mounted.
pub fn file_system() -> Arc<dyn FileSystem> {
    let root = Table::new().with("uptime", procfs::file(uptime)).node();
    Procfs::new("proc", MAGIC, &FRAMES, root)
}

fn uptime() -> alloc::vec::Vec<u8> {
    let up = crate::arch::clock::now().as_nanos() / 10_000_000;
    alloc::format!("{}.{:02} 0.00\n", up / 100, up % 100).into_bytes()
}
