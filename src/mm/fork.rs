//! fork: a second address space with the same content, at the price of its page tables.
//!
//! Areas are copied; page-table entries are copied too, both sides losing the right to write to private pages. Whoever writes
//! first gets a copy (`page_fault.rs`), and the last who holds a page keeps it. The frames are counted, never copied here.
//!
//! Next: `protect.rs`.

use alloc::sync::Arc;

use abi::Errno;

use super::address_space::{AddressSpace, Inner};
use super::gate;
use super::mapper::Mappers;
use super::page_table::{PageTable, Resident};
use super::vma::{VmaFlags, VmaMap};
use crate::arch::paging;

impl AddressSpace {
    /// A copy-on-write copy, with the same bounds. Locks on memory are not inherited.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; this address space is as it was then.
    pub fn fork(&self) -> Result<Arc<AddressSpace>, Errno> {
        gate::try_admit()?;
        let mut parent = self.inner.lock();
        let mut areas = parent.areas.try_clone(|vma| !vma.flags.contains(VmaFlags::DONT_FORK))?;
        let mut child = Inner {
            areas: VmaMap::default(),
            table: PageTable::new()?,
            resident: Resident::default(),
            peak_resident: 0,
            peak_mapped: 0,
            mapped: 0,
            data: 0,
            locked: 0,
            layout: parent.layout,
            brk: parent.brk.clone(),
            locks_new: false,
            mappers: Mappers::default(),
        };
        let mut result = Ok(());
        areas.for_each_mut(|vma| {
            vma.flags.remove(VmaFlags::LOCKED);
            child.account(vma, 1);
            if result.is_ok() && !vma.flags.contains(VmaFlags::WIPE_ON_FORK) {
                let copied = child.table.copy_range(&mut parent.table, vma.range(), !vma.is_shared());
                result = copied.map(|copied| {
                    child.resident.anonymous += copied.anonymous;
                    child.resident.file += copied.file;
                });
            }
        });
        // What was writable in the parent is not any more, even if the copy failed half-way.
        if parent.table.is_active() {
            paging::flush_all();
        }
        result?;
        child.areas = areas;
        child.note_peak();
        AddressSpace::with_inner(child, self.limits(), parent.mappers.inodes())
    }
}
