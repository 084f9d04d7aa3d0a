//! What the lock of an address space protects: areas and page table, changed together.
//!
//! Next: `../vma.rs`.

use alloc::sync::Arc;
use core::ops::Range;

use abi::Errno;

use super::{Limits, Placement, user_range};
use crate::arch::paging::USER_END;
use crate::mm::frames::{self, FRAME_SIZE};
use crate::mm::layout::{LOWEST, Layout};
use crate::mm::mapper::Mappers;
use crate::mm::page_table::{Batch, LEAF_SPAN, OutOfMemory, PageTable, Resident};
use crate::mm::vma::{self, Backing, Vma, VmaFlags, VmaMap};

/// What the lock protects.
pub struct Inner {
    pub areas: VmaMap,
    pub table: PageTable,
    pub resident: Resident,
    /// The most pages there ever were in memory, and mapped.
    pub peak_resident: usize,
    pub peak_mapped: usize,
    /// Pages mapped, those of them that are data, and those that are locked.
    pub mapped: usize,
    pub data: usize,
    pub locked: usize,
    pub layout: Layout,
    /// Where brk began, and where it is.
    pub brk: Range<usize>,
    /// Every new mapping is locked (`mlockall(MCL_FUTURE)`).
    pub locks_new: bool,
    pub mappers: Mappers,
    pub flushing: Flushing,
}

/// The changes that other CPUs are being told of at this moment, without the lock. Where they are, nothing new is mapped meanwhile: a
/// CPU that still has the old translation would not see it.
#[derive(Default)]
pub struct Flushing {
    count: usize,
    hull: Range<usize>,
}

impl Flushing {
    pub fn begin(&mut self, hull: Range<usize>) {
        self.hull = if self.count == 0 { hull } else { self.hull.start.min(hull.start)..self.hull.end.max(hull.end) };
        self.count += 1;
    }

    pub fn end(&mut self) {
        self.count -= 1;
    }

    /// Where they are, if there are any.
    #[inline]
    pub fn hull(&self) -> Option<Range<usize>> {
        (self.count > 0).then(|| self.hull.clone())
    }

    /// Whether any of the range is concerned.
    #[inline]
    pub fn touches(&self, range: Range<usize>) -> bool {
        self.count > 0 && range.start < self.hull.end && self.hull.start < range.end
    }
}

impl Inner {
    /// Chooses the address for `len` bytes.
    pub fn place(&mut self, placement: Placement, len: usize) -> Result<usize, Errno> {
        match placement {
            Placement::Fixed(address) | Placement::FixedNoReplace(address) => {
                let range = user_range(address, len)
                    .map_err(|error| if address.is_multiple_of(FRAME_SIZE) { Errno::ENOMEM } else { error })?;
                if address < LOWEST {
                    return Err(Errno::EPERM);
                }
                if matches!(placement, Placement::FixedNoReplace(_)) && self.mapped_in(range) > 0 {
                    return Err(Errno::EEXIST);
                }
                Ok(address)
            }
            Placement::Hint(address) => {
                let address = (address & !(FRAME_SIZE - 1)).max(LOWEST);
                match user_range(address, len) {
                    Ok(range) if self.is_free(range.clone()) => Ok(address),
                    _ => self.place(Placement::Anywhere, len),
                }
            }
            Placement::Anywhere => {
                let base = self.layout.mmap_base;
                let below = self.areas.gap_below(base, LOWEST, len);
                below.or_else(|| self.areas.gap_above(base, USER_END, len)).ok_or(Errno::ENOMEM)
            }
        }
    }

    /// Whether nothing is mapped in the range, nor is it a stack's guard gap.
    #[inline]
    pub fn is_free(&self, range: Range<usize>) -> bool {
        let at = self.areas.locate(range.start);
        self.areas.at(at).is_none_or(|next| range.end <= next.guarded_start())
    }

    /// How many pages are mapped in the range.
    #[inline]
    pub fn mapped_in(&self, range: Range<usize>) -> usize {
        let part = |vma: &Vma| (vma.end.min(range.end) - vma.start.max(range.start)) / FRAME_SIZE;
        self.areas.overlapping(range.clone()).map(part).sum()
    }

    /// Whether `vma` may come in place of `replaced` pages.
    pub fn check_limits(&self, vma: &Vma, replaced: usize, limits: &Limits) -> Result<(), Errno> {
        let pages = |bytes: u64| usize::try_from(bytes / FRAME_SIZE as u64).unwrap_or(usize::MAX);
        if self.areas.count() + 2 > vma::areas_at_most()
            || self.mapped - replaced + vma.pages() > pages(limits.address_space)
        {
            return Err(Errno::ENOMEM);
        }
        if vma.is_data() {
            if self.data + vma.pages() > pages(limits.data) {
                return Err(Errno::ENOMEM);
            }
            // What can never come true is refused now: Linux's heuristic overcommit.
            if !vma.flags.contains(VmaFlags::NO_RESERVE) && vma.pages() > frames::total() {
                return Err(Errno::ENOMEM);
            }
        }
        if vma.flags.contains(VmaFlags::LOCKED) && self.locked + vma.pages() > pages(limits.locked) {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Adds an area where there is none.
    #[inline]
    pub fn insert(&mut self, vma: Vma) {
        self.account(&vma, 1);
        self.areas.insert(vma);
    }

    /// Counts an area in (`sign` = 1) or out (-1).
    #[inline]
    pub fn account(&mut self, vma: &Vma, sign: isize) {
        let pages = vma.pages() as isize * sign;
        self.mapped = self.mapped.wrapping_add_signed(pages);
        self.peak_mapped = self.peak_mapped.max(self.mapped);
        if vma.is_data() {
            self.data = self.data.wrapping_add_signed(pages);
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked = self.locked.wrapping_add_signed(pages);
        }
    }

    /// Makes room in `batch` for all that may be mapped in the range, and the tables that map it.
    #[inline]
    pub fn reserve_batch(&self, range: Range<usize>, batch: &mut Batch) -> Result<(), OutOfMemory> {
        let (pages, resident) = (range.len() / FRAME_SIZE, self.resident.total());
        // Each level has one table more than it has whole ones in the range, and the range may begin and end within one.
        let tables = (range.len() / LEAF_SPAN + 6 + range.len() / (LEAF_SPAN << 9)).min(self.table.tables());
        batch.reserve(pages.min(resident), tables)
    }

    /// Unmaps the range, areas and pages. Room for two more areas was reserved, and room in `batch`.
    pub fn unmap(&mut self, range: Range<usize>, batch: &mut Batch) {
        let mut areas = core::mem::take(&mut self.areas);
        let mut forgets_file = false;
        areas.remove(range.clone(), |vma| {
            self.account(&vma, -1);
            self.zap(vma.range(), batch);
            forgets_file |= matches!(vma.backing, Backing::File { .. });
        });
        self.areas = areas;
        if forgets_file {
            self.forget_unmapped_files();
        }
        let (floor, ceiling) = self.areas.neighbours(range.start);
        self.table.free_tables(range, floor, ceiling, batch);
    }

    /// Lets go of files that no area maps any more; with very many areas only from time to time.
    fn forget_unmapped_files(&mut self) {
        if self.areas.count() > 256 && !self.areas.count().is_multiple_of(64) {
            return;
        }
        let areas = &self.areas;
        let files = || areas.iter().filter_map(|vma| vma.file_page(vma.start));
        self.mappers.retain(|inode| files().any(|(file, _)| Arc::ptr_eq(&file.inode, inode)));
    }

    /// Takes all pages of the range out of the page table.
    pub fn zap(&mut self, range: Range<usize>, batch: &mut Batch) {
        self.note_peak();
        let zapped = self.table.zap(range, batch);
        self.resident.anonymous -= zapped.anonymous;
        self.resident.file -= zapped.file;
    }

    /// Unmaps everything, area by area: cheaper than looking for it in the page table.
    fn unmap_all(&mut self) {
        // Nobody holds it: everything goes at once.
        let mut batch = Batch::new(self.table.root(), false);
        for vma in self.areas.iter() {
            self.table.zap(vma.range(), &mut batch);
        }
        for vma in self.areas.iter() {
            self.table.free_tables(vma.range(), 0, USER_END, &mut batch);
        }
    }

    /// Remembers the most memory there ever was. Called before it becomes less.
    pub fn note_peak(&mut self) {
        self.peak_resident = self.peak_resident.max(self.resident.total());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.table.deactivate();
        self.unmap_all();
    }
}
