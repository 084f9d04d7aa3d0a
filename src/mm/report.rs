//! What procfs tells about an address space: /proc/pid/maps, smaps, statm and status.
//!
//! Next: `shared_memory.rs`.

use alloc::sync::Arc;

use fs::Inode;

use super::address_space::{AddressSpace, Inner};
use super::frames::FRAME_SIZE;
use super::page_table::Resident;
use super::vma::{Backing, MappedFile, Vma, VmaFlags};
use crate::arch::paging::Rights;

/// What an area is called.
#[derive(Clone, Copy)]
pub enum AreaName<'a> {
    /// Nothing.
    None,
    /// `[heap]`: what brk(2) gave.
    Heap,
    /// `[stack]`: the first thread's.
    Stack,
    /// `[vdso]` and the like.
    Special(&'static str),
    /// A file.
    File(&'a MappedFile),
}

/// One line of /proc/pid/maps.
#[derive(Clone, Copy)]
pub struct AreaReport<'a> {
    /// Its first address.
    pub start: usize,
    /// The address behind it.
    pub end: usize,
    /// What the program may do there.
    pub rights: Rights,
    /// What is special about it.
    pub flags: VmaFlags,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// What it is called.
    pub name: AreaName<'a>,
    /// Its pages in memory.
    pub resident: Resident,
}

/// The numbers of /proc/pid/statm and status; in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// All that is mapped (`VmSize`).
    pub mapped: usize,
    /// The most there was (`VmPeak`).
    pub peak_mapped: usize,
    /// What is in memory (`RssAnon`, `RssFile`).
    pub resident: Resident,
    /// The most there was (`VmHWM`).
    pub peak_resident: usize,
    /// What is shared with a file or with others (`RssShmem` is part of it).
    pub data: usize,
    /// `VmStk`.
    pub stack: usize,
    /// Executable pages of files (`VmExe`, `VmLib`).
    pub text: usize,
    /// `VmLck`.
    pub locked: usize,
    /// Frames in page tables (`VmPTE`).
    pub tables: usize,
}

impl AddressSpace {
    /// Reports each area from `address` on, in order, until `each` says no. The lock is held meanwhile: `each` only formats.
    pub fn for_each_area(&self, address: usize, mut each: impl FnMut(AreaReport<'_>) -> bool) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut at = inner.areas.locate(address);
        while let Some(vma) = inner.areas.at(at) {
            let mut resident = Resident::default();
            inner.table.for_each(vma.range(), |_, slot| resident.add(slot.get()));
            let offset = vma.file_page(vma.start).map_or(0, |(_, page)| page * FRAME_SIZE as u64);
            let (start, end, rights, flags) = (vma.start, vma.end, vma.rights, vma.flags);
            let name = name(vma, &inner.brk, inner.layout.stack_top);
            if !each(AreaReport { start, end, rights, flags, offset, name, resident }) {
                return;
            }
            at = inner.areas.next(at);
        }
    }

    /// The file and the byte of its content that `address` shares with whoever maps the same: what a shared futex is known by.
    /// `None` for private memory.
    pub fn shared_location(&self, address: usize) -> Option<(Arc<dyn Inode>, u64)> {
        let inner = self.inner.lock();
        let vma = inner.areas.find(address).filter(|vma| vma.is_shared())?;
        let (file, page) = vma.file_page(address)?;
        Some((file.inode.clone(), page * FRAME_SIZE as u64 + (address % FRAME_SIZE) as u64))
    }

    /// Where the heap begins that brk(2) grows.
    pub fn brk_start(&self) -> usize {
        self.inner.lock().brk.start
    }

    /// The numbers as they are now.
    pub fn usage(&self) -> Usage {
        let mut inner = self.inner.lock();
        inner.note_peak();
        let pages = |inner: &Inner, is_counted: fn(&&Vma) -> bool| {
            inner.areas.iter().filter(is_counted).map(Vma::pages).sum::<usize>()
        };
        Usage {
            mapped: inner.mapped,
            peak_mapped: inner.peak_mapped,
            resident: inner.resident,
            peak_resident: inner.peak_resident,
            data: inner.data,
            stack: pages(&inner, |vma| vma.flags.contains(VmaFlags::GROWS_DOWN)),
            text: pages(&inner, |vma| vma.rights.execute && matches!(vma.backing, Backing::File { .. })),
            locked: inner.locked,
            tables: inner.table.tables(),
        }
    }
}

fn name<'a>(vma: &'a Vma, brk: &core::ops::Range<usize>, stack_top: usize) -> AreaName<'a> {
    match &vma.backing {
        Backing::File { file, .. } => AreaName::File(file),
        Backing::Special { pages, .. } => AreaName::Special(pages.name),
        Backing::Anonymous if vma.flags.contains(VmaFlags::GROWS_DOWN) && vma.end <= stack_top => AreaName::Stack,
        Backing::Anonymous if vma.start < brk.end.next_multiple_of(FRAME_SIZE) && vma.end > brk.start => AreaName::Heap,
        Backing::Anonymous => AreaName::None,
    }
}
