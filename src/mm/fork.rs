//! fork: a second address space with the same content, at the price of its page tables.
//!
//! Areas are copied; page-table entries are copied too, both sides losing the right to write to private pages. Whoever writes
//! first gets a copy (`page_fault.rs`), and the last who holds a page keeps it. The frames are counted, never copied here.
//!
//! Next: `protect.rs`.

use alloc::sync::Arc;

use abi::Errno;

use super::address_space::{AddressSpace, Flushing, Inner};
use super::gate;
use super::mapper::Mappers;
use super::page_table::{Batch, PageTable, Resident};
use super::vma::{VmaFlags, VmaMap};
use crate::arch::paging::USER_END;

impl AddressSpace {
    /// A copy-on-write copy, with the same bounds. Locks on memory are not inherited.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; this address space is as it was then.
    pub fn fork(&self) -> Result<Arc<AddressSpace>, Errno> {
        gate::try_admit()?;
        self.change(|parent, batch| self.fork_with(parent, batch))
    }

    fn fork_with(&self, parent: &mut Inner, batch: &mut Batch) -> Result<Arc<AddressSpace>, Errno> {
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
            flushing: Flushing::default(),
        };
        // What was writable in the parent will not be any more, even if the copy fails half-way.
        batch.push_range(0..USER_END);
        let mut result = Ok(());
        areas.for_each_mut(|vma| {
            vma.flags.remove(VmaFlags::LOCKED);
            child.account(vma, 1);
            result = result.and_then(|()| vma.inherit_attachment());
            if result.is_ok() && !vma.flags.contains(VmaFlags::WIPE_ON_FORK) {
                let copied = child.table.copy_range(&mut parent.table, vma.range(), !vma.is_shared());
                result = copied.map_err(Errno::from).map(|copied| {
                    child.resident.anonymous += copied.anonymous;
                    child.resident.file += copied.file;
                });
            }
        });
        result?;
        child.areas = areas;
        child.note_peak();
        AddressSpace::with_inner(child, self.limits(), parent.mappers.inodes())
    }
}
