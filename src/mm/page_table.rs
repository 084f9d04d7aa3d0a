//! Page tables: four levels of 512 entries, the unsafe shell below `address_space.rs`.
//!
//! A [`PageTable`] owns its tables and, through the entries of the last level, one reference on each frame it maps. All of that
//! is expressed in owned values: [`Slot::install`] takes a [`Frame`], [`Slot::take`] gives it back. So the code above, which
//! decides what is mapped where, needs no `unsafe`.
//!
//! ```text
//!   root (level 3) ──► level 2 ──► level 1 ──► leaf (level 0): 512 Slots ──► frames
//!     256..512: the kernel's half, the same tables in every root
//! ```
//!
//! **Tables are recycled.** A table that is freed maps nothing any more, so it is full of zeros; each CPU keeps a few such tables, and
//! roots with the kernel's half filled in, for the next fork. A table above the leaves counts its entries (in its frame's
//! metadata), and goes when it has none.
//!
//! **Order of unmapping**: clear the entry, flush the translation, then free the frame. [`Batch`] keeps that order: it collects
//! what was taken out, frames and tables, and lets go of it only after the flush. An address space that only its one thread uses is
//! flushed on the spot; for others `AddressSpace::change` gives up the lock and has all CPUs flush (`shootdown.rs`).
//!
//! This file finds the way through the tables. `slot.rs` is an entry of the last level, `raw.rs` access to any entry, `spare.rs` where
//! tables come from and go to, `free.rs` frees them, `batch.rs` keeps what was taken out.
//!
//! Next: `shootdown.rs`, `vma.rs`. Exercise: why may `Drop` skip the flush?

mod batch;
mod free;
mod raw;
mod slot;
mod spare;

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::frames::{FRAME_SIZE, Frame, Purpose};
use super::shootdown::SHOOTDOWN;
use crate::arch::paging::{self, ENTRIES, Entry, KERNEL_ROOT_INDEX, LEVELS, entry_span, index};
use free::{Scope, free_below, free_some};
use raw::{count_entries, entry_at, leaf_at, set_entry_at};
use slot::{Leaf, are_empty, copy_slots, for_each_used};
use spare::{allocate_root, allocate_table, free_root};

pub use batch::Batch;
pub use slot::Slot;
pub use spare::{spare_tables, tables_in_use};

/// Bytes that one leaf table maps.
pub const LEAF_SPAN: usize = ENTRIES * FRAME_SIZE;

/// The root table that the kernel booted with: what its upper half says, every root says.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);
/// The frame of zeros that every first read of anonymous memory sees.
static ZERO_FRAME: AtomicU64 = AtomicU64::new(0);

/// Remembers the kernel's root table, and makes the frame of zeros. Called once at boot.
pub fn init() {
    let root = match paging::active_root() {
        // The developer's machine boots without tables.
        0 => Frame::allocate_zeroed(Purpose::Kernel).expect("memory at boot").into_raw(),
        root => root,
    };
    KERNEL_ROOT.store(root, Relaxed);
    ZERO_FRAME.store(Frame::allocate_zeroed(Purpose::Kernel).expect("memory at boot").into_raw(), Relaxed);
}

/// The root table with nothing in its user half.
pub fn kernel_root() -> u64 {
    KERNEL_ROOT.load(Relaxed)
}

/// There is no memory for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// How many pages of which kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// Pages of memory that belongs to no file.
    pub anonymous: usize,
    /// Pages of files.
    pub file: usize,
}

impl Resident {
    /// Pages of both kinds.
    pub fn total(&self) -> usize {
        self.anonymous + self.file
    }

    /// Counts what `entry` maps.
    #[inline]
    pub fn add(&mut self, entry: Entry) {
        if entry.is_anonymous() {
            self.anonymous += 1;
        } else if entry.is_counted() {
            self.file += 1;
        }
    }
}

/// The tables of one address space.
pub struct PageTable {
    root: Frame,
    tables: usize,
}

impl PageTable {
    /// A table that maps the kernel's half and nothing else.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new() -> Result<PageTable, OutOfMemory> {
        let root = allocate_root()?;
        Ok(PageTable { root, tables: 1 })
    }

    /// The physical address of the root.
    pub fn root(&self) -> u64 {
        self.root.physical()
    }

    /// How many frames the tables take.
    pub fn tables(&self) -> usize {
        self.tables
    }

    /// The slots of the leaf table that maps `address`, if there is one.
    #[inline]
    pub fn leaf(&mut self, address: usize) -> Option<&mut Leaf> {
        let mut table = self.root.physical();
        for level in (1..LEVELS).rev() {
            // SAFETY: `table` is a table of this PageTable, exclusively borrowed.
            let entry = unsafe { entry_at(table, index(address, level)) };
            if !entry.is_present() {
                return None;
            }
            table = entry.physical();
        }
        // SAFETY: `table` is a leaf of this PageTable; the borrow lasts as long as that of `self`.
        Some(unsafe { leaf_at(table) })
    }

    /// The same, with missing tables made.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; tables made on the way stay, empty.
    #[inline]
    pub fn leaf_or_new(&mut self, address: usize) -> Result<&mut Leaf, OutOfMemory> {
        debug_assert!(address < paging::USER_END);
        let mut table = self.root.physical();
        for level in (1..LEVELS).rev() {
            // SAFETY: as in `leaf`.
            let entry = unsafe { entry_at(table, index(address, level)) };
            table = if entry.is_present() { entry.physical() } else { self.add_table(table, address, level)? };
        }
        // SAFETY: as in `leaf`.
        Ok(unsafe { leaf_at(table) })
    }

    #[cold]
    fn add_table(&mut self, table: u64, address: usize, level: usize) -> Result<u64, OutOfMemory> {
        let new = allocate_table()?.into_raw();
        self.tables += 1;
        // SAFETY: the entry is empty and of this PageTable; the new table, all zeros, belongs to it from now on.
        unsafe {
            set_entry_at(table, index(address, level), Entry::table(new));
            count_entries(table, 1);
        }
        Ok(new)
    }

    /// The slot for `address`, if its leaf table exists.
    #[inline]
    pub fn slot(&mut self, address: usize) -> Option<&mut Slot> {
        self.leaf(address).map(|leaf| &mut leaf[index(address, 0)])
    }

    /// The slot for `address`, its tables made if they are missing.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    #[inline]
    pub fn slot_or_new(&mut self, address: usize) -> Result<&mut Slot, OutOfMemory> {
        self.leaf_or_new(address).map(|leaf| &mut leaf[index(address, 0)])
    }

    /// What maps `address`.
    pub fn entry(&mut self, address: usize) -> Entry {
        self.slot(address).map_or(Entry::EMPTY, |slot| slot.get())
    }

    /// Visits the slots in use in a page-aligned range, with their addresses; tables that do not exist cost nothing.
    #[inline]
    pub fn for_each(&mut self, range: Range<usize>, mut work: impl FnMut(usize, &mut Slot)) {
        let mut address = range.start;
        while address < range.end {
            let end = leaf_end(address).min(range.end);
            match self.leaf(address) {
                Some(leaf) => for_each_used(leaf, address, end, &mut work),
                None => {
                    address = self.skip(address).min(range.end);
                    continue;
                }
            }
            address = end;
        }
    }

    /// The first address behind `address` that a missing table does not cover.
    fn skip(&mut self, address: usize) -> usize {
        let mut table = self.root.physical();
        for level in (1..LEVELS).rev() {
            // SAFETY: as in `leaf`.
            let entry = unsafe { entry_at(table, index(address, level)) };
            if !entry.is_present() {
                return (address & !(entry_span(level) - 1)).saturating_add(entry_span(level));
            }
            table = entry.physical();
        }
        leaf_end(address)
    }

    /// Where the first part of the range ends that has so many leaf tables.
    pub fn end_of_part(&mut self, range: Range<usize>, mut leaves: usize) -> usize {
        let mut address = range.start;
        while address < range.end && leaves > 0 {
            leaves -= usize::from(self.leaf(address).is_some());
            address = self.skip(address);
        }
        address.min(range.end)
    }

    /// Takes out whatever is mapped in the range; returns what it was.
    pub fn zap(&mut self, range: Range<usize>, batch: &mut Batch) -> Resident {
        let mut zapped = Resident::default();
        self.for_each(range, |address, slot| {
            zapped.add(slot.get());
            batch.push(address, slot.take());
        });
        zapped
    }

    /// Maps in this table what `parent` maps in the range; with `copy_on_write`, neither may write to it any more, and the
    /// caller flushes the parent's translations.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; what was copied until then stays.
    pub fn copy_range(
        &mut self,
        parent: &mut PageTable,
        range: Range<usize>,
        copy_on_write: bool,
    ) -> Result<Resident, OutOfMemory> {
        let mut copied = Resident::default();
        let mut address = range.start;
        while address < range.end {
            let end = leaf_end(address).min(range.end);
            let Some(from) = parent.leaf(address) else {
                address = parent.skip(address);
                continue;
            };
            let slots = index(address, 0)..index(address, 0) + (end - address) / FRAME_SIZE;
            if from[slots.clone()].chunks(8).all(are_empty) {
                address = end;
                continue;
            }
            let to = self.leaf_or_new(address)?;
            for (from, to) in from[slots.clone()].chunks_mut(8).zip(to[slots].chunks_mut(8)) {
                if !are_empty(from) {
                    copy_slots(from, to, copy_on_write, &mut copied);
                }
            }
            address = end;
        }
        Ok(copied)
    }

    /// Frees the tables that map part of `range` and nothing but addresses in `floor..ceiling`, where nothing is mapped any more.
    pub fn free_tables(&mut self, range: Range<usize>, floor: usize, ceiling: usize, batch: &mut Batch) {
        // The last table of the user half covers the page above USER_END too.
        let ceiling = if ceiling >= paging::USER_END { KERNEL_ROOT_INDEX * entry_span(LEVELS - 1) } else { ceiling };
        let scope = Scope { range, free: floor..ceiling };
        // SAFETY: the root is this PageTable's, and the range lies in the user half.
        let freed = unsafe { free_below(self.root.physical(), LEVELS - 1, 0, &scope, batch) };
        self.tables -= freed;
        // The CPU may remember the way through a table that is gone. Nothing used its frame in between: this CPU is here.
        if freed > 0 && !batch.is_shared() && self.is_active() {
            paging::flush_all();
        }
    }

    /// Moves what is mapped in `from` to the addresses from `to` on; the two do not overlap. The caller flushes.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; nothing was moved then.
    pub fn move_range(&mut self, from: Range<usize>, to: usize) -> Result<(), OutOfMemory> {
        // Make all tables first, so that the move itself cannot fail.
        let mut address = from.start;
        while address < from.end {
            let end = leaf_end(address).min(from.end);
            if self.leaf(address).is_some() {
                self.leaf_or_new(to + (address - from.start))?;
                self.leaf_or_new(to + (end - FRAME_SIZE - from.start))?;
                address = end;
            } else {
                address = self.skip(address);
            }
        }
        let mut address = from.start;
        while address < from.end {
            let Some(slot) = self.slot(address) else {
                address = self.skip(address);
                continue;
            };
            let entry = slot.get();
            if !entry.is_empty() {
                // The reference moves along with the bits.
                slot.set(Entry::EMPTY);
                let target = self.slot_or_new(to + (address - from.start)).expect("made above");
                debug_assert!(target.is_empty());
                target.set(entry);
            }
            address += FRAME_SIZE;
        }
        Ok(())
    }

    /// Stops using it on all CPUs: what is unmapped from now on needs no flush. No thread uses it any more. If some CPU still holds it, this
    /// waits: no lock is held then, and interrupts are on.
    pub fn deactivate(&self) {
        SHOOTDOWN.evict(self.root());
    }

    /// Frees up to `leaves` leaf tables with what they map. False: nothing is mapped any more. For one that was deactivated.
    pub fn free_part(&mut self, mut leaves: usize) -> bool {
        // SAFETY: the root and all that hangs from its user half are this PageTable's, exclusively borrowed; no CPU uses it.
        unsafe { !free_some(self.root.physical(), LEVELS - 1, KERNEL_ROOT_INDEX, &mut leaves) }
    }

    /// Whether this CPU uses it.
    #[inline]
    pub fn is_active(&self) -> bool {
        paging::active_root() == self.root()
    }
}

impl Drop for PageTable {
    /// Frees every table and every frame. No translation has to be flushed: the table is in no CPU's CR3 any more.
    fn drop(&mut self) {
        self.deactivate();
        self.free_part(usize::MAX);
        // SAFETY: nothing hangs from the user half any more, and the root is not used again.
        unsafe {
            free_root(self.root.share());
        }
    }
}

/// The address behind the last that the leaf table of `address` maps.
#[inline]
fn leaf_end(address: usize) -> usize {
    (address & !(LEAF_SPAN - 1)) + LEAF_SPAN
}
