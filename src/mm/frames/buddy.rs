//! The buddy allocator: free memory as blocks of 2^order frames, each aligned to its size.
//!
//! A block that is freed joins its buddy (the block whose number differs in one bit) as long as that one is free too. Free
//! blocks of one order form a list through their heads' metadata. Memory of sections that nobody needed yet is *dormant*:
//! counted as free, but its metadata does not exist; [`Buddy::wake`] makes the next section when the lists run dry.
//!
//! ```text
//!   add_memory ──► dormant ──wake──► free lists ──allocate──► in use
//!                                        ▲──────free───────────┘
//! ```
//!
//! The allocator knows nothing of reference counts. Next: `../frames.rs`.

use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

use super::metadata::{SECTION_FRAMES, SECTION_SHIFT, Sections, State};

/// Block sizes: 2^0 … 2^10 frames, 4 KiB … 4 MiB.
pub const ORDERS: usize = 11;
/// Ranges of usable memory that are remembered; firmware reports a few dozen at most.
const MAX_RANGES: usize = 128;
const FRAME_SIZE: usize = 4096;
/// The first frame that a device with 32 address bits cannot reach.
const BELOW_4_GIB: u32 = 1 << 20;

/// The allocator's state, behind one lock.
pub struct Buddy {
    sections: &'static Sections,
    /// The first block of each order; 0 when there is none (frame 0 is never handed out).
    heads: [u32; ORDERS],
    /// Usable memory in frames, in ascending order.
    ranges: [(u32, u32); MAX_RANGES],
    range_count: usize,
    /// The next section to wake, and one past the last.
    next_section: u32,
    end_section: u32,
    ram_end: u32,
    free: usize,
    dormant: usize,
}

impl Buddy {
    /// An allocator with no memory.
    pub const fn new(sections: &'static Sections) -> Buddy {
        Buddy {
            sections,
            heads: [0; ORDERS],
            ranges: [(0, 0); MAX_RANGES],
            range_count: 0,
            next_section: 0,
            end_section: 0,
            ram_end: 0,
            free: 0,
            dormant: 0,
        }
    }

    /// Frames that are free, in the lists or dormant.
    pub fn free(&self) -> usize {
        self.free + self.dormant
    }

    /// Takes over usable memory, given as physical ranges in any order; RAM that may be added later ends at `ram_end`. Called
    /// once. Returns the number of frames.
    ///
    /// # Safety
    ///
    /// The ranges are RAM behind the direct map that nobody else uses, and do not overlap.
    pub unsafe fn add_memory(&mut self, usable: impl Iterator<Item = Range<u64>>, ram_end: u64) -> usize {
        for range in usable {
            let start = range.start.div_ceil(FRAME_SIZE as u64).max(1) as u32;
            let end = (range.end / FRAME_SIZE as u64).min(u64::from(u32::MAX)) as u32;
            if start < end && self.range_count < MAX_RANGES {
                self.ranges[self.range_count] = (start, end);
                self.range_count += 1;
            }
        }
        self.ranges[..self.range_count].sort_unstable();
        let Some(&(_, end)) = self.ranges[..self.range_count].last() else { return 0 };
        let end = end.max((ram_end / FRAME_SIZE as u64).min(u64::from(u32::MAX)) as u32);
        self.ram_end = end;
        self.end_section = end.div_ceil(SECTION_FRAMES);
        let table_frames = Sections::table_size(end).div_ceil(FRAME_SIZE) as u32;
        let ranges = &mut self.ranges[..self.range_count];
        let Some(home) = ranges.iter_mut().max_by_key(|(start, end)| end - start) else { return 0 };
        let table = home.0;
        home.0 += table_frames;
        // SAFETY: these frames were just taken out of the largest range, which the caller gave.
        unsafe { self.sections.place_table(u64::from(table) * FRAME_SIZE as u64, end) };
        self.dormant = ranges.iter().map(|(start, end)| (end - start) as usize).sum();
        self.dormant
    }

    /// Puts the memory of the next dormant section into the lists; false when there is none.
    fn wake(&mut self) -> bool {
        while self.next_section < self.end_section {
            let section = self.next_section;
            self.next_section += 1;
            if self.wake_section(section) {
                return true;
            }
        }
        false
    }

    fn wake_section(&mut self, section: u32) -> bool {
        let first = section << SECTION_SHIFT;
        let last = first + SECTION_FRAMES;
        let part = |&(start, end): &(u32, u32)| (start.max(first), end.min(last).max(start.max(first)));
        let parts = || self.ranges[..self.range_count].iter().map(part).filter(|(start, end)| start < end);
        let total: u32 = parts().map(|(start, end)| end - start).sum();
        self.dormant -= total as usize;
        let count = last.min(self.ram_end) - first;
        let metadata_frames = Sections::metadata_size(count).div_ceil(FRAME_SIZE) as u32;
        let Some(home) = parts().max_by_key(|(start, end)| end - start) else { return false };
        if home.1 - home.0 <= metadata_frames {
            return false; // a section in splinters: its memory is not worth its metadata
        }
        // SAFETY: these frames are free memory of this section; they are left out below.
        unsafe { self.sections.place_section(section, u64::from(home.0) * FRAME_SIZE as u64, count) };
        for index in 0..self.range_count {
            let (mut start, end) = part(&self.ranges[index]);
            if start == home.0 && start < end {
                start += metadata_frames;
            }
            if start < end {
                self.free_range(start, end);
            }
        }
        true
    }

    /// Frees frames `start..end`, as the largest aligned blocks they hold.
    pub fn free_range(&mut self, mut start: u32, end: u32) {
        while start < end {
            let aligned = start.trailing_zeros().min(ORDERS as u32 - 1);
            let order = aligned.min((end - start).ilog2());
            self.free_block(start, order as usize);
            start += 1 << order;
        }
    }

    /// Takes a block of 2^order frames.
    pub fn allocate(&mut self, order: usize) -> Option<u32> {
        loop {
            if let Some(found) = (order..ORDERS).find(|&order| self.heads[order] != 0) {
                let block = self.heads[found];
                self.unlink(block, found);
                for half in (order..found).rev() {
                    self.link(block + (1 << half), half);
                }
                self.free -= 1 << order;
                return Some(block);
            }
            if !self.wake() {
                return None;
            }
        }
    }

    /// Takes `count` contiguous frames, below 4 GiB if possible; what rounding up adds is given back at once.
    pub fn allocate_contiguous(&mut self, count: usize) -> Option<u32> {
        let order = count.checked_next_power_of_two()?.ilog2() as usize;
        if order >= ORDERS {
            return None;
        }
        let mut block = self.allocate(order)?;
        if block >= BELOW_4_GIB
            && let Some(low) = self.allocate_below(order, BELOW_4_GIB)
        {
            self.free_block(block, order);
            block = low;
        }
        self.free_range(block + count as u32, block + (1 << order));
        Some(block)
    }

    /// Takes over `start..end`, which was not part of what [`Buddy::add_memory`] got. Returns how many frames it could use.
    pub fn add_range(&mut self, start: u32, end: u32) -> usize {
        let mut added = 0;
        for frame in start..end {
            let section = frame >> SECTION_SHIFT;
            while self.next_section <= section && self.wake() {}
            // A frame above the last usable one of its section has no metadata, and stays out.
            if self.sections.get(frame).is_some() {
                self.free_block(frame, 0);
                added += 1;
            }
        }
        added
    }

    /// Looks through the lists for a block that lies low enough: rare, for devices with short addresses.
    fn allocate_below(&mut self, order: usize, limit: u32) -> Option<u32> {
        for found in order..ORDERS {
            let mut block = self.heads[found];
            while block != 0 {
                if block + (1 << order) <= limit {
                    self.unlink(block, found);
                    for half in (order..found).rev() {
                        self.link(block + (1 << half), half);
                    }
                    self.free -= 1 << order;
                    return Some(block);
                }
                block = self.metadata(block).next.load(Relaxed);
            }
        }
        None
    }

    /// Frees a block of 2^order frames and joins it with its free buddies.
    pub fn free_block(&mut self, mut block: u32, mut order: usize) {
        self.free += 1 << order;
        while order < ORDERS - 1 {
            let buddy = block ^ (1 << order);
            let joins = self.sections.get(buddy).is_some_and(|metadata| {
                metadata.is(State::FreeBlock) && usize::from(metadata.order.load(Relaxed)) == order
            });
            if !joins {
                break;
            }
            self.unlink(buddy, order);
            block &= !(1 << order);
            order += 1;
        }
        self.link(block, order);
    }

    fn metadata(&self, frame: u32) -> &'static super::metadata::Metadata {
        self.sections.get(frame).expect("the lists hold only memory whose section was made")
    }

    fn link(&mut self, block: u32, order: usize) {
        let metadata = self.metadata(block);
        debug_assert!(!metadata.is(State::FreeBlock), "frame {block:#x} is freed twice");
        metadata.set(State::FreeBlock);
        metadata.order.store(order as u8, Relaxed);
        metadata.previous.store(0, Relaxed);
        metadata.next.store(self.heads[order], Relaxed);
        if self.heads[order] != 0 {
            self.metadata(self.heads[order]).previous.store(block, Relaxed);
        }
        self.heads[order] = block;
    }

    fn unlink(&mut self, block: u32, order: usize) {
        let metadata = self.metadata(block);
        let (next, previous) = (metadata.next.load(Relaxed), metadata.previous.load(Relaxed));
        metadata.set(State::Other);
        if previous == 0 {
            self.heads[order] = next;
        } else {
            self.metadata(previous).next.store(next, Relaxed);
        }
        if next != 0 {
            self.metadata(next).previous.store(previous, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::host;

    /// An allocator over memory of its own: `holes` are frames, counted from the start, that are not usable.
    fn allocator(frames: u32, holes: &[(u32, u32)]) -> (Buddy, u32, usize) {
        let memory = host::private_memory(u64::from(frames) * FRAME_SIZE as u64);
        let first = (memory.start / FRAME_SIZE as u64) as u32;
        let sections: &'static Sections = Box::leak(Box::new(Sections::new()));
        let mut buddy = Buddy::new(sections);
        let mut usable = Vec::new();
        let mut start = first;
        for (hole, end) in holes {
            usable.push(start..first + hole);
            start = first + end;
        }
        usable.push(start..first + frames);
        let bytes = |range: Range<u32>| u64::from(range.start) * 4096..u64::from(range.end) * 4096;
        // SAFETY: the memory is this test's alone.
        let total = unsafe { buddy.add_memory(usable.into_iter().map(bytes), u64::from(first + frames) * 4096) };
        (buddy, first, total)
    }

    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn blocks_are_aligned_never_overlap_and_all_come_back() {
        let (mut buddy, first, total) = allocator(4096, &[(100, 200), (2047, 2049)]);
        assert!(total > 3900);
        let mut owner = vec![false; 4096];
        let mut held: Vec<(u32, usize)> = Vec::new();
        let mut state = 7;
        for _ in 0..20_000 {
            if random(&mut state).is_multiple_of(2) {
                let order = (random(&mut state) % 6) as usize;
                if let Some(block) = buddy.allocate(order) {
                    assert!(block.is_multiple_of(1 << order));
                    for frame in block..block + (1 << order) {
                        let index = (frame - first) as usize;
                        assert!(!owner[index] && !(100..200).contains(&index) && !(2047..2049).contains(&index));
                        owner[index] = true;
                    }
                    held.push((block, order));
                }
            } else if !held.is_empty() {
                let (block, order) = held.swap_remove(random(&mut state) as usize % held.len());
                (block..block + (1 << order)).for_each(|frame| owner[(frame - first) as usize] = false);
                buddy.free_block(block, order);
            }
        }
        let in_use: usize = held.iter().map(|(_, order)| 1 << order).sum();
        let before = buddy.free();
        for (block, order) in held {
            buddy.free_block(block, order);
        }
        assert_eq!(buddy.free(), before + in_use);
        // Everything has been joined again: the largest block is to be had although single frames were handed out.
        assert!(buddy.allocate(ORDERS - 1).is_some());
    }

    #[test]
    fn exactly_the_usable_frames_can_be_taken_and_then_none() {
        let (mut buddy, first, total) = allocator(2500, &[]);
        let taken: Vec<u32> = core::iter::from_fn(|| buddy.allocate(0)).collect();
        let covered = first + 2500 - (first & !(SECTION_FRAMES - 1));
        assert_eq!(taken.len(), total - Sections::metadata_size(covered).div_ceil(FRAME_SIZE));
        assert_eq!((buddy.free(), buddy.allocate(0)), (0, None));
        taken.into_iter().for_each(|frame| buddy.free_block(frame, 0));
        assert!(buddy.allocate(ORDERS - 1).is_some());
    }

    #[test]
    fn contiguous_frames_take_no_more_than_asked_for() {
        let (mut buddy, _, _) = allocator(2048, &[]);
        let woken = buddy.allocate(0).expect("memory");
        buddy.free_block(woken, 0);
        let before = buddy.free();
        let run = buddy.allocate_contiguous(37).expect("memory");
        assert_eq!(buddy.free(), before - 37);
        buddy.free_range(run, run + 37);
        assert_eq!(buddy.free(), before);
        assert_eq!(buddy.allocate_contiguous(1025), None);
    }

    #[test]
    fn memory_that_comes_later_is_used_too() {
        let (mut buddy, first, _) = allocator(1024, &[(512, 1024)]);
        while buddy.allocate(0).is_some() {}
        assert_eq!(buddy.add_range(first + 600, first + 720), 120);
        assert_eq!(buddy.free(), 120);
        assert!(buddy.allocate(6).is_some_and(|block| (first + 600..first + 720).contains(&block)));
    }
}
