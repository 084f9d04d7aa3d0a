//! How memory is used, for /proc/meminfo and sysinfo(2). In bytes.

use crate::mm::frames;

/// The figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryInfo {
    /// All that the kernel manages.
    pub total: u64,
    /// Not used for anything.
    pub free: u64,
    /// In files that live in memory only.
    pub shared: u64,
    /// Used by block devices' own caches.
    pub buffers: u64,
}

/// The figures now.
pub fn read() -> MemoryInfo {
    let page = fs::PAGE_SIZE as u64;
    MemoryInfo { total: frames::total() as u64 * page, free: frames::free() as u64 * page, shared: 0, buffers: 0 }
}
