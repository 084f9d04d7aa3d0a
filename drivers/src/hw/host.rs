//! Frames on the developer's machine.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use executor::sync::SpinLock;

use super::{DmaAddr, PAGE_SIZE, Page, PageSource, PhysAddr};

/// Frames on the developer's machine, for tests: a frame's physical address is its pointer.
///
/// `set_limit` makes allocation fail after so many live frames: tests inject failures with it.
pub struct HostPages {
    state: SpinLock<HostState>,
}

struct HostState {
    /// First address of each block taken from the heap → its pages, and how many of them are still counted.
    blocks: BTreeMap<usize, HostBlock>,
    live: usize,
    limit: usize,
}

struct HostBlock {
    counts: Vec<u32>,
    live: usize,
}

impl HostPages {
    /// A source without a limit.
    pub const fn new() -> HostPages {
        HostPages { state: SpinLock::new(HostState { blocks: BTreeMap::new(), live: 0, limit: usize::MAX }) }
    }

    /// How many frames are in use.
    pub fn live(&self) -> usize {
        self.state.lock().live
    }

    /// Lets at most so many frames be in use at once from now on.
    pub fn set_limit(&self, frames: usize) {
        self.state.lock().limit = frames;
    }

    /// The frame that a device would reach at `address`, kept alive while it looks; `None` if nobody has a frame there.
    ///
    /// Fakes of bus-mastering devices use it, and so a test sees when a device is told an address that is already free.
    pub fn page_at(&'static self, address: DmaAddr) -> Option<Page> {
        let mut state = self.state.lock();
        let frame = usize::try_from(address.0).ok()? & !(PAGE_SIZE - 1);
        let (base, block) = state.blocks.range_mut(..=frame).next_back()?;
        let count = block.counts.get_mut((frame - base) / PAGE_SIZE).filter(|count| **count > 0)?;
        *count += 1;
        Some(Page { frame: PhysAddr(frame as u64), source: self })
    }

    fn layout(count: usize) -> Layout {
        Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("a few pages fit a layout")
    }

    fn with_count<R>(&self, frame: PhysAddr, work: impl FnOnce(&mut HostState, usize, usize) -> R) -> R {
        let mut state = self.state.lock();
        let address = frame.0 as usize;
        let base = *state.blocks.range(..=address).next_back().expect("a frame of this source").0;
        work(&mut state, base, (address - base) / PAGE_SIZE)
    }
}

impl Default for HostPages {
    fn default() -> HostPages {
        HostPages::new()
    }
}

// SAFETY: each block comes zeroed from the heap with the page's alignment, is found again by its address, counts each of its
// frames, and returns to the heap when the last of them has come down to zero.
unsafe impl PageSource for HostPages {
    fn allocate(&self) -> Option<PhysAddr> {
        self.allocate_contiguous(1)
    }

    fn allocate_contiguous(&self, count: usize) -> Option<PhysAddr> {
        let mut state = self.state.lock();
        if count == 0 || state.live.checked_add(count)? > state.limit {
            return None;
        }
        // SAFETY: the layout is not of size zero.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(HostPages::layout(count)) })?;
        state.live += count;
        state.blocks.insert(base.as_ptr() as usize, HostBlock { counts: vec![1; count], live: count });
        Some(PhysAddr(base.as_ptr() as u64))
    }

    fn retain(&self, frame: PhysAddr) {
        self.with_count(frame, |state, base, index| {
            state.blocks.get_mut(&base).expect("found just now").counts[index] += 1;
        });
    }

    fn release(&self, frame: PhysAddr) {
        self.with_count(frame, |state, base, index| {
            let block = state.blocks.get_mut(&base).expect("found just now");
            assert!(block.counts[index] > 0, "a frame is released more often than it was retained");
            block.counts[index] -= 1;
            if block.counts[index] > 0 {
                return;
            }
            block.live -= 1;
            let (empty, pages) = (block.live == 0, block.counts.len());
            state.live -= 1;
            if empty {
                state.blocks.remove(&base);
                // SAFETY: the block came from `alloc_zeroed` with this layout, and no frame of it is counted any more.
                unsafe { alloc::alloc::dealloc(base as *mut u8, HostPages::layout(pages)) };
            }
        });
    }

    fn references(&self, frame: PhysAddr) -> u32 {
        self.with_count(frame, |state, base, index| state.blocks[&base].counts[index])
    }

    fn address(&self, frame: PhysAddr) -> NonNull<u8> {
        NonNull::new(frame.0 as *mut u8).expect("a frame of this source is a pointer")
    }
}
