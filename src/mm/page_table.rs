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
//! **Order of unmapping**: clear the entry, flush the translation, then free the frame. [`Batch`] keeps that order: it collects
//! what was taken out and lets go of it only after the flush. One CPU flushes its own translations today; other CPUs are to
//! be told at the same place.
//!
//! Next: `vma.rs`. Exercise: why may `Drop` skip the flush?

use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::frames::{FRAME_SIZE, Frame, Purpose};
use crate::arch::direct_map;
use crate::arch::paging::{self, ENTRIES, Entry, KERNEL_ROOT_INDEX, LEVELS, Rights, entry_span, index};

/// Bytes that one leaf table maps.
pub const LEAF_SPAN: usize = ENTRIES * FRAME_SIZE;

/// The root table that the kernel booted with: what its upper half says, every root says.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);
/// The frame of zeros that every first read of anonymous memory sees.
static ZERO_FRAME: AtomicU64 = AtomicU64::new(0);
/// Frames in page tables of programs.
static TABLES: AtomicUsize = AtomicUsize::new(0);

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

/// Frames in page tables of programs, for /proc/meminfo.
pub fn tables_in_use() -> usize {
    TABLES.load(Relaxed)
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

/// One entry of a leaf table, and the owner of the reference it holds.
#[repr(transparent)]
pub struct Slot(AtomicU64);

impl Slot {
    /// What it says now.
    #[inline]
    pub fn get(&self) -> Entry {
        Entry::from_bits(self.0.load(Relaxed))
    }

    /// Whether it maps nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.get().is_empty()
    }

    #[inline]
    fn set(&mut self, entry: Entry) {
        self.0.store(entry.bits(), Relaxed);
    }

    /// Maps a page of a file in an empty slot.
    #[inline]
    pub fn install(&mut self, frame: Frame, rights: Rights) {
        debug_assert!(self.is_empty());
        self.set(Entry::user_page(frame.into_raw(), rights));
    }

    /// Maps memory that belongs to no file in an empty slot.
    #[inline]
    pub fn install_anonymous(&mut self, frame: Frame, rights: Rights) {
        debug_assert!(self.is_empty());
        self.set(Entry::user_page(frame.into_raw(), rights).anonymous());
    }

    /// Maps the frame of zeros, to be read only, in an empty slot.
    #[inline]
    pub fn install_zeros(&mut self, rights: Rights) {
        debug_assert!(self.is_empty());
        let rights = Rights { write: false, ..rights };
        self.set(Entry::user_page(ZERO_FRAME.load(Relaxed), rights).uncounted());
    }

    /// Empties the slot: the frame it held, unless it held none or the shared one of zeros.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let entry = self.get();
        self.set(Entry::EMPTY);
        // SAFETY: a counted, resident entry owns one reference, and has just been cleared.
        (entry.is_resident() && entry.is_counted()).then(|| unsafe { Frame::from_raw(entry.physical()) })
    }

    /// Another reference to the frame it maps, the frame of zeros excepted.
    #[inline]
    pub fn share(&self) -> Option<Frame> {
        let entry = self.get();
        if !entry.is_resident() || !entry.is_counted() {
            return None;
        }
        // SAFETY: the entry owns a reference and keeps it: the value here is not dropped.
        Some(core::mem::ManuallyDrop::new(unsafe { Frame::from_raw(entry.physical()) }).share())
    }

    /// Works on the frame it maps, the frame of zeros excepted.
    #[inline]
    pub fn with_frame<R>(&self, work: impl FnOnce(&Frame) -> R) -> Option<R> {
        let entry = self.get();
        if !entry.is_resident() || !entry.is_counted() {
            return None;
        }
        // SAFETY: as in `share`.
        Some(work(&core::mem::ManuallyDrop::new(unsafe { Frame::from_raw(entry.physical()) })))
    }

    /// Gives the page other rights. Taking rights away wants a flush.
    #[inline]
    pub fn set_rights(&mut self, rights: Rights) {
        self.set(self.get().with_rights(rights));
    }

    /// Makes the next write fault. Wants a flush.
    #[inline]
    pub fn write_protect(&mut self) {
        self.set(self.get().write_protected());
    }
}

/// The slots of one leaf table.
type Leaf = [Slot; ENTRIES];

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
        let root = allocate_table()?;
        // SAFETY: both are whole tables; the kernel's half of the boot table never changes after boot.
        unsafe {
            let from = direct_map(kernel_root()).cast::<u64>().add(KERNEL_ROOT_INDEX);
            let to = root.pointer().as_ptr().cast::<u64>().add(KERNEL_ROOT_INDEX);
            core::ptr::copy_nonoverlapping(from, to, ENTRIES - KERNEL_ROOT_INDEX);
        }
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
        unsafe { set_entry_at(table, index(address, level), Entry::table(new)) };
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
            if from[slots.clone()].iter().all(Slot::is_empty) {
                address = end;
                continue;
            }
            let to = self.leaf_or_new(address)?;
            for (from, to) in from[slots.clone()].iter_mut().zip(&mut to[slots]) {
                let entry = from.get();
                if entry.is_empty() {
                    continue;
                }
                let entry = if copy_on_write && entry.is_writable() {
                    from.write_protect();
                    from.get()
                } else {
                    entry
                };
                if let Some(frame) = from.share() {
                    frame.into_raw();
                }
                copied.add(entry);
                // The reference just counted belongs to the new entry.
                to.set(entry);
            }
            address = end;
        }
        Ok(copied)
    }

    /// Frees the tables that map part of `range` and nothing but addresses in `floor..ceiling`, where nothing is mapped any more.
    pub fn free_tables(&mut self, range: Range<usize>, floor: usize, ceiling: usize) {
        // The last table of the user half covers the page above USER_END too.
        let ceiling = if ceiling >= paging::USER_END { KERNEL_ROOT_INDEX * entry_span(LEVELS - 1) } else { ceiling };
        let scope = Scope { range, free: floor..ceiling, is_active: self.is_active() };
        // SAFETY: the root is this PageTable's, and the range lies in the user half.
        self.tables -= unsafe { free_below(self.root.physical(), LEVELS - 1, 0, &scope) };
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

    /// Loads this table, unless this CPU uses it already.
    #[inline]
    pub fn activate(&self) {
        activate(self.root());
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
        if self.is_active() {
            paging::activate(kernel_root());
        }
        // SAFETY: the root and all that hangs from its user half are this PageTable's, and are not used again.
        unsafe {
            for_each_table(self.root.physical(), 0..KERNEL_ROOT_INDEX, |below| {
                free_tree(below, LEVELS - 2);
            });
        }
        TABLES.fetch_sub(1, Relaxed);
    }
}

/// Loads a root table, unless this CPU uses it already.
#[inline]
pub fn activate(root: u64) {
    if paging::active_root() != root {
        paging::activate(root);
    }
}

/// What was taken out of a page table and may be freed only when no translation leads to it any more.
///
/// Dropping it flushes what this CPU may hold, then frees.
pub struct Batch {
    is_active: bool,
    frames: [Option<Frame>; Batch::FRAMES],
    frame_count: usize,
    pages: [usize; Batch::PAGES],
    page_count: usize,
}

impl Batch {
    const FRAMES: usize = 64;
    /// Above so many pages, everything is flushed at once.
    const PAGES: usize = 16;

    /// Nothing yet, for changes of `table`.
    pub fn new(table: &PageTable) -> Batch {
        Batch {
            is_active: table.is_active(),
            frames: [const { None }; Batch::FRAMES],
            frame_count: 0,
            pages: [0; Batch::PAGES],
            page_count: 0,
        }
    }

    /// The translation of `address` has changed, and `frame` is no longer mapped there.
    #[inline]
    pub fn push(&mut self, address: usize, frame: Option<Frame>) {
        if self.is_active {
            if self.page_count < Batch::PAGES {
                self.pages[self.page_count] = address;
            }
            self.page_count += 1;
        } else {
            // Nobody can have a translation: the frame may go at once.
            return;
        }
        if frame.is_some() {
            self.frames[self.frame_count] = frame;
            self.frame_count += 1;
            if self.frame_count == Batch::FRAMES {
                self.finish();
            }
        }
    }

    /// Flushes, then frees.
    fn finish(&mut self) {
        if self.page_count > Batch::PAGES {
            paging::flush_all();
        } else {
            for &page in &self.pages[..self.page_count] {
                paging::flush_page(page);
            }
        }
        self.page_count = 0;
        for frame in &mut self.frames[..self.frame_count] {
            drop(frame.take());
        }
        self.frame_count = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The address behind the last that the leaf table of `address` maps.
#[inline]
fn leaf_end(address: usize) -> usize {
    (address & !(LEAF_SPAN - 1)) + LEAF_SPAN
}

#[inline]
fn for_each_used(leaf: &mut Leaf, start: usize, end: usize, work: &mut impl FnMut(usize, &mut Slot)) {
    let first = index(start, 0);
    let slots = &mut leaf[first..first + (end - start) / FRAME_SIZE];
    let mut address = start;
    for eight in slots.chunks_mut(8) {
        // Most of a table is empty: look at eight entries with one test.
        if eight.iter().fold(0, |bits, slot| bits | slot.0.load(Relaxed)) != 0 {
            for (index, slot) in eight.iter_mut().enumerate() {
                if !slot.is_empty() {
                    work(address + index * FRAME_SIZE, slot);
                }
            }
        }
        address += 8 * FRAME_SIZE;
    }
}

fn allocate_table() -> Result<Frame, OutOfMemory> {
    let table = Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?;
    TABLES.fetch_add(1, Relaxed);
    Ok(table)
}

/// # Safety
///
/// `table` is a table nobody else changes; `index` is below [`ENTRIES`].
#[inline]
unsafe fn entry_at(table: u64, index: usize) -> Entry {
    // SAFETY: the caller's promise; a table is a whole frame. The hardware may set bits, so the access is volatile.
    unsafe { direct_map(table).cast::<Entry>().add(index).read_volatile() }
}

/// # Safety
///
/// As for [`entry_at`]; what the entry pointed to is taken care of.
#[inline]
unsafe fn set_entry_at(table: u64, index: usize, entry: Entry) {
    // SAFETY: as in `entry_at`.
    unsafe { direct_map(table).cast::<Entry>().add(index).write_volatile(entry) }
}

/// # Safety
///
/// `table` is a leaf table, and the caller has it for itself for `'a`.
#[inline]
unsafe fn leaf_at<'a>(table: u64) -> &'a mut Leaf {
    // SAFETY: the caller's promise; a leaf is a whole frame of 512 words, each accessed atomically since the hardware may set
    // bits in them.
    unsafe { &mut *direct_map(table).cast::<Leaf>() }
}

/// Frees a table, the tables below it, and the frames they map; returns how many tables.
///
/// # Safety
///
/// Nobody uses them any more.
unsafe fn free_tree(table: u64, level: usize) -> usize {
    let mut freed = 1;
    if level == 0 {
        // SAFETY: the caller's promise.
        let leaf = unsafe { leaf_at(table) };
        for_each_used(leaf, 0, LEAF_SPAN, &mut |_, slot| drop(slot.take()));
    } else {
        // SAFETY: the caller's promise.
        unsafe { for_each_table(table, 0..ENTRIES, |below| freed += free_tree(below, level - 1)) };
    }
    TABLES.fetch_sub(1, Relaxed);
    // SAFETY: the table's frame was kept alive by the entry that led here, and goes with it.
    drop(unsafe { Frame::from_raw(table) });
    freed
}

/// Visits the tables that a table above the leaves points to.
///
/// # Safety
///
/// As for [`entry_at`].
#[inline]
unsafe fn for_each_table(table: u64, indices: Range<usize>, mut work: impl FnMut(u64)) {
    for first in indices.step_by(8) {
        // SAFETY: the caller's promise; a table's entries come in multiples of eight.
        let eight = unsafe { direct_map(table).cast::<[u64; 8]>().add(first / 8).read_volatile() };
        // Most of a table is empty: look at eight entries with one test.
        if eight.iter().fold(0, |bits, entry| bits | entry) != 0 {
            for entry in eight.map(Entry::from_bits) {
                if entry.is_present() {
                    work(entry.physical());
                }
            }
        }
    }
}

/// Which tables are to be freed.
struct Scope {
    /// What was unmapped.
    range: Range<usize>,
    /// What is free around it.
    free: Range<usize>,
    is_active: bool,
}

/// Frees the tables below `table` (which begins at `base`) that `scope` speaks of; returns how many.
///
/// # Safety
///
/// The table is the caller's, and maps nothing in the free range.
unsafe fn free_below(table: u64, level: usize, base: usize, scope: &Scope) -> usize {
    let span = entry_span(level);
    let first = scope.range.start.saturating_sub(base) / span;
    let last = scope.range.end.saturating_sub(base).div_ceil(span).min(ENTRIES);
    let mut freed = 0;
    for index in first..last {
        // SAFETY: the caller's promise.
        let entry = unsafe { entry_at(table, index) };
        if !entry.is_present() {
            continue;
        }
        let start = base + index * span;
        if scope.free.start <= start && start + span <= scope.free.end {
            // SAFETY: all that this entry leads to lies in the range. The CPU forgets the entry before the table is freed.
            unsafe {
                set_entry_at(table, index, Entry::EMPTY);
                if scope.is_active {
                    paging::flush_all();
                }
                freed += free_tree(entry.physical(), level - 1);
            }
        } else if level > 1 {
            // SAFETY: the same table, one level down.
            freed += unsafe { free_below(entry.physical(), level - 1, start, scope) };
        }
    }
    freed
}
