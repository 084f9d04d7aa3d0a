//! From a file to the page tables that map it.
//!
//! Each address space registers one [`SpaceMapper`] per file with the file's page cache. Truncation and write-back call it; it
//! looks through the address space's areas for those of that file.
//!
//! Next: `fork.rs`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use fs::{Inode, Mapper};

use super::address_space::{AddressSpace, Inner, try_push};
use super::frames::FRAME_SIZE;
use super::page_table::{Batch, OutOfMemory};
use super::vma::Vma;

/// What tells inodes apart: the address of the inode, which the areas that map it keep alive.
type InodeId = usize;

fn id(inode: &Arc<dyn Inode>) -> InodeId {
    Arc::as_ptr(inode).cast::<()>().addr()
}

/// One address space as a file sees it.
struct SpaceMapper {
    space: Weak<AddressSpace>,
    inode: InodeId,
}

/// The registrations of one address space; dropping them ends them.
#[derive(Default)]
pub(super) struct Mappers {
    list: Vec<(Arc<dyn Inode>, Arc<dyn Mapper>)>,
}

impl Mappers {
    /// Registers with a file, unless that was done before.
    pub fn add(&mut self, space: &Weak<AddressSpace>, inode: &Arc<dyn Inode>) -> Result<(), OutOfMemory> {
        if self.list.iter().any(|(known, _)| Arc::ptr_eq(known, inode)) {
            return Ok(());
        }
        let mapper: Arc<dyn Mapper> = Arc::new(SpaceMapper { space: space.clone(), inode: id(inode) });
        try_push(&mut self.list, (inode.clone(), mapper.clone()))?;
        inode.core().pages.add_mapper(&mapper);
        Ok(())
    }

    /// Forgets the files that `is_mapped` denies.
    pub fn retain(&mut self, is_mapped: impl Fn(&Arc<dyn Inode>) -> bool) {
        self.list.retain(|(inode, _)| is_mapped(inode));
    }

    /// What is registered with a file.
    #[cfg(test)]
    pub fn of(&self, inode: &Arc<dyn Inode>) -> Option<Arc<dyn Mapper>> {
        self.list.iter().find(|(known, _)| Arc::ptr_eq(known, inode)).map(|(_, mapper)| mapper.clone())
    }

    /// The files.
    pub fn inodes(&self) -> impl Iterator<Item = &Arc<dyn Inode>> {
        self.list.iter().map(|(inode, _)| inode)
    }
}

impl SpaceMapper {
    /// Works on each part of the page table that maps some of the file's `pages`; `work` says where it had to stop if the batch was full,
    /// and goes on there when it has been flushed.
    fn for_each(&self, pages: Range<u64>, mut work: impl FnMut(&mut Inner, Range<usize>, &mut Batch) -> Option<usize>) {
        let Some(space) = self.space.upgrade() else { return };
        let mut from = Some(0);
        while let Some(start) = from {
            from = space.change_from_outside(|inner, batch| {
                let mut at = inner.areas.locate(start);
                while let Some(vma) = inner.areas.at(at) {
                    if let Some(part) = self.part(vma, &pages)
                        && let Some(stopped) = work(inner, part.start.max(start)..part.end.max(start), batch)
                    {
                        return Some(stopped);
                    }
                    at = inner.areas.next(at);
                }
                None
            });
        }
    }

    /// Where `vma` maps some of the file's `pages`.
    fn part(&self, vma: &Vma, pages: &Range<u64>) -> Option<Range<usize>> {
        let (file, first) = vma.file_page(vma.start)?;
        let last = first + vma.pages() as u64;
        if id(&file.inode) != self.inode || pages.end <= first || last <= pages.start {
            return None;
        }
        let address = |page: u64| vma.start + (page.clamp(first, last) - first) as usize * FRAME_SIZE;
        Some(address(pages.start)..address(pages.end))
    }
}

impl Mapper for SpaceMapper {
    fn unmap(&self, pages: Range<u64>) {
        self.for_each(pages, |inner, range, batch| {
            inner.note_peak();
            let mut unmapped = 0;
            let mut stopped = None;
            inner.table.for_each(range, |address, slot| {
                // A private copy stays: it is not the file's, and the program has nothing else of what it wrote.
                if stopped.is_some() || slot.get().is_anonymous() {
                    return;
                }
                if batch.room() == 0 {
                    stopped = Some(address);
                    return;
                }
                unmapped += usize::from(slot.get().is_counted());
                batch.push(address, slot.take());
            });
            inner.resident.file -= unmapped;
            stopped
        });
    }

    fn write_protect(&self, pages: Range<u64>) {
        self.for_each(pages, |inner, range, batch| {
            inner.table.for_each(range, |address, slot| {
                // A private copy stays writable: it is not the file's.
                if slot.get().is_writable() && !slot.get().is_anonymous() {
                    slot.write_protect();
                    batch.push(address, None);
                }
            });
            None
        });
    }
}
