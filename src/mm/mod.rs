//! Memory management.
//!
//! ```text
//!   user.rs              copies from and to user memory: the only door
//!   address_space.rs     what a program has mapped; vma.rs, layout.rs, protect.rs, remap.rs, fork.rs, mapper.rs, report.rs
//!   page_fault.rs        how a page appears when it is touched
//!   page_table.rs        the tables that the MMU reads: unsafe shell
//!   heap.rs              Box, Vec and Arc in the kernel
//!   gate.rs              memory is admitted, not hoped for
//!   frames.rs            physical memory, counted
//! ```
//!
//! Unsafe code is in `frames`, `heap`, `page_table` and `user` only; what decides what is mapped where is safe code above them.
//!
//! Next: `frames.rs`, or from the top: `user.rs`, `address_space.rs`.

pub mod address_space;
pub mod attachment;
mod fork;
#[allow(unsafe_code, reason = "owns physical memory: invariant 9 of ARCHITECTURE.md")]
pub mod frames;
pub mod gate;
#[allow(unsafe_code, reason = "the global allocator: invariant 9 of ARCHITECTURE.md")]
pub mod heap;
mod identity;
pub mod layout;
mod make_room;
mod mapper;
pub mod page_fault;
#[allow(unsafe_code, reason = "the tables that the MMU reads: invariant 9 of ARCHITECTURE.md")]
pub mod page_table;
mod protect;
mod remap;
mod remote;
pub mod report;
pub mod shared_memory;
mod shootdown;
#[cfg(test)]
mod tests;
#[allow(unsafe_code, reason = "the only door to user memory: invariants 3 and 9 of ARCHITECTURE.md")]
pub mod user;
pub mod vma;

use crate::arch::BootInfo;

pub use crate::arch::paging::{Rights, USER_END};
pub use address_space::{AddressSpace, Limits, MapRequest, Placement, Source};
pub use frames::{FRAME_SIZE, FRAMES, Frames, Initrd};
pub use gate::{admit, try_admit};
pub use heap::try_box;
pub use layout::Layout;
pub use make_room::MakeRoom;
pub use page_fault::{Access, Fault, Stop};
pub use shared_memory::shared_memory;
pub use user::{ActiveSpace, PORTION, UserBuffer, UserPtr, UserSlice};
pub use vma::{MappedFile, SpecialPages, VmaFlags, areas_at_most, set_areas_at_most};

/// Takes over the machine's memory: frames first, then the heap works, then page tables for programs can be made. Called once,
/// before anything is allocated, with the boot page table active.
pub fn init(info: &BootInfo) {
    frames::init(info);
    page_table::init();
}

/// Forgets translations for other CPUs that ask for it: the handler of their interrupt.
pub fn serve_shootdown() {
    shootdown::SHOOTDOWN.serve();
}

/// Lets every CPU pass a memory barrier.
pub fn barrier_everywhere() {
    shootdown::SHOOTDOWN.barrier(None);
}

/// This CPU is about to sleep: the address space it holds is not in use here any more, though it may soon be again.
pub fn hold_lazily() {
    shootdown::SHOOTDOWN.idle();
}

/// So many contiguous frames full of zeros, which are never given back: their physical address.
pub fn contiguous_for_ever(frames: u64) -> Option<u64> {
    use drivers::hw::PageSource;
    FRAMES.allocate_contiguous(usize::try_from(frames).ok()?).map(|address| address.0)
}

/// Where memory is, in frames: for /proc/meminfo and sysinfo(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// All that the kernel manages.
    pub total: usize,
    /// In no use.
    pub free: usize,
    /// What programs could have: free, or in the page cache and not written yet, without the reserve.
    pub available: usize,
    /// In page tables of programs.
    pub page_tables: usize,
    /// In the heap's slabs.
    pub slab: usize,
    /// In large objects of the heap.
    pub large: usize,
    /// In the page cache.
    pub cache: fs::page_cache::Statistics,
}

/// Where memory is now.
pub fn statistics() -> Statistics {
    let free = frames::free() + page_table::spare_tables();
    let cache = fs::page_cache::statistics();
    let (slab, large) = heap::frames_held();
    Statistics {
        total: frames::total(),
        free,
        available: (free + cache.cached.saturating_sub(cache.dirty)).saturating_sub(frames::reserve()),
        page_tables: page_table::tables_in_use(),
        slab,
        large,
        cache,
    }
}

/// As [`init`], on the developer's machine: once however many tests ask for it.
#[cfg(not(target_os = "none"))]
pub fn init_on_host() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| init(crate::arch::host::boot_info()));
}

/// The order of this module's locks. The page cache's locks are taken inside an address space's.
mod rank {
    use executor::sync::Rank;

    /// Areas and page table of one program.
    pub const ADDRESS_SPACE: Rank = Rank::new(20);
    /// The heap's window for large objects, whose own list is in the heap.
    #[cfg(target_os = "none")]
    pub const VMAP: Rank = Rank::new(57);
    /// A size class of the heap: anybody may allocate under any lock but the frames'.
    pub const HEAP: Rank = Rank::new(58);
    /// Free frames.
    pub const FRAMES: Rank = Rank::new(60);
}
