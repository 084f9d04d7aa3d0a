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
//! Next: `shootdown.rs`, `vma.rs`. Exercise: why may `Drop` skip the flush?

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::frames::{self, FRAME_SIZE, Frame, Initial, PerCpu, Purpose};
use super::shootdown::{Hardware, Pages, Shootdown};
use crate::arch::paging::{self, ENTRIES, Entry, KERNEL_ROOT_INDEX, LEVELS, Rights, entry_span, index};
use crate::arch::{self, direct_map};

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

    /// Keeps the page, but lets nobody touch it: the next touch faults. Wants a flush.
    #[inline]
    pub fn hide(&mut self) {
        self.set_rights(Rights { read: false, write: false, execute: false });
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
        if freed > 0 && !batch.is_shared && self.is_active() {
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
        // Whoever unmapped everything before has left nothing to look for.
        // SAFETY: the root and all that hangs from its user half are this PageTable's, and are not used again.
        unsafe {
            if count_entries(self.root.physical(), 0) > 0 {
                for index in 0..KERNEL_ROOT_INDEX {
                    let entry = entry_at(self.root.physical(), index);
                    if entry.is_present() {
                        set_entry_at(self.root.physical(), index, Entry::EMPTY);
                        free_tree(entry.physical(), LEVELS - 2);
                    }
                }
                set_entry_count(self.root.physical(), 0);
            }
            recycle(self.root.share(), |spare| &mut spare.roots);
        }
        TABLES.fetch_sub(1, Relaxed);
    }
}

/// Tables without use that are full of zeros, and roots of which only the kernel's half is filled, of one CPU.
struct Spare {
    tables: Stack<24>,
    roots: Stack<4>,
}

impl Initial for Spare {
    const INITIAL: Spare = Spare { tables: Stack::EMPTY, roots: Stack::EMPTY };
}

/// A few frames.
struct Stack<const N: usize> {
    frames: [Option<Frame>; N],
    count: usize,
}

impl<const N: usize> Stack<N> {
    const EMPTY: Stack<N> = Stack { frames: [const { None }; N], count: 0 };

    fn pop(&mut self) -> Option<Frame> {
        self.count = self.count.checked_sub(1)?;
        self.frames[self.count].take()
    }

    /// The frame comes back if there is no room.
    fn push(&mut self, frame: Frame) -> Option<Frame> {
        match self.frames.get_mut(self.count) {
            Some(place) => {
                self.count += 1;
                *place = Some(frame);
                None
            }
            None => Some(frame),
        }
    }
}

static SPARE: PerCpu<Spare> = PerCpu::new();

/// Which CPU has which table loaded.
pub static SHOOTDOWN: Shootdown<ThisMachine> = Shootdown::new(ThisMachine);

/// This machine, as the shoot-down knows it.
pub struct ThisMachine;

impl Hardware for ThisMachine {
    #[inline]
    fn here(&self) -> usize {
        arch::cpu_id()
    }

    #[inline]
    fn count(&self) -> usize {
        arch::cpus_online()
    }

    fn loaded(&self) -> u64 {
        paging::active_root()
    }

    fn load(&self, root: u64) {
        paging::activate(root);
    }

    fn flush_page(&self, address: usize) {
        paging::flush_page(address);
    }

    fn kernel_root(&self) -> u64 {
        kernel_root()
    }

    fn interrupt(&self, cpu: usize) {
        arch::apic::send_shootdown(cpu);
    }

    fn pause(&self) {
        debug_assert!(arch::interrupts_are_on(), "a CPU waits for others with interrupts off");
        executor::sync::assert_no_lock_held();
        core::hint::spin_loop();
    }
}

/// What was taken out of a page table and may be freed only when no translation leads to it any more.
///
/// If one thread alone uses the address space, it flushes and frees when it is full or dropped. If others may use it at the same time
/// (*shared*), it only collects: [`Batch::flush`] does the rest, when the lock has been given up.
pub struct Batch {
    is_shared: bool,
    is_active: bool,
    frees_tables: bool,
    pages: Pages,
    /// What has changed lies in here.
    hull: Range<usize>,
    /// The first `frame_count` of them are there.
    frames: [MaybeUninit<Frame>; Batch::FRAMES],
    frame_count: usize,
    /// Those that found no room there, and tables: physical addresses that own a reference, with [`Batch::TABLE`] for tables.
    more: Vec<u64>,
}

impl Batch {
    const FRAMES: usize = 64;
    /// In an entry of `more`: a table, full of zeros.
    const TABLE: u64 = 1;

    /// Nothing yet, for changes of the tables below `root`, which the executing thread alone uses unless they are `is_shared`.
    pub fn new(root: u64, is_shared: bool) -> Batch {
        Batch {
            is_shared,
            is_active: paging::active_root() == root,
            frees_tables: false,
            pages: Pages::NONE,
            hull: 0..0,
            frames: [const { MaybeUninit::uninit() }; Batch::FRAMES],
            frame_count: 0,
            more: Vec::new(),
        }
    }

    /// Makes room for so many frames and tables.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn reserve(&mut self, frames: usize, tables: usize) -> Result<(), OutOfMemory> {
        if !self.is_shared {
            return Ok(());
        }
        let further = (self.frame_count + frames).saturating_sub(Batch::FRAMES) + tables;
        self.more.try_reserve_exact(further).map_err(|_| OutOfMemory)
    }

    /// How many frames it takes without having reserved room.
    pub fn room(&self) -> usize {
        if self.is_shared { Batch::FRAMES - self.frame_count } else { usize::MAX }
    }

    /// The translation of `address` has changed, and `frame` is no longer mapped there.
    #[inline]
    pub fn push(&mut self, address: usize, frame: Option<Frame>) {
        if !self.is_active && !self.is_shared {
            // Nobody can have a translation: the frame may go at once.
            return;
        }
        self.note(address..address + FRAME_SIZE);
        self.pages.push(address);
        if let Some(frame) = frame {
            if self.frame_count == Batch::FRAMES {
                return self.push_further(frame);
            }
            self.frames[self.frame_count].write(frame);
            self.frame_count += 1;
        }
    }

    #[cold]
    fn push_further(&mut self, frame: Frame) {
        if self.is_shared {
            debug_assert!(self.more.len() < self.more.capacity(), "room for what is taken out was reserved");
            self.more.push(frame.into_raw());
        } else {
            self.finish();
            self.frames[0].write(frame);
            self.frame_count = 1;
        }
    }

    /// Many translations in a range have changed.
    pub fn push_range(&mut self, range: Range<usize>) {
        if self.is_active || self.is_shared {
            self.note(range);
            self.pages.push_all();
        }
    }

    #[inline]
    fn note(&mut self, range: Range<usize>) {
        self.hull = match self.hull.is_empty() {
            true => range,
            false => self.hull.start.min(range.start)..self.hull.end.max(range.end),
        };
    }

    /// Whether it waits for [`Batch::flush`].
    pub fn is_pending(&self) -> bool {
        self.is_shared && (!self.pages.is_empty() || self.frees_tables)
    }

    /// Where the changes are.
    pub fn hull(&self) -> Range<usize> {
        self.hull.clone()
    }

    /// Has all CPUs flush, and frees. No lock is held, and interrupts are on.
    pub fn flush(mut self, root: u64, generation: &AtomicU64) {
        SHOOTDOWN.flush(root, generation, &self.pages, self.frees_tables);
        self.pages = Pages::NONE;
        self.frees_tables = false;
    }

    /// Flushes, unless that has been done, then frees.
    fn finish(&mut self) {
        if !self.is_shared && !self.pages.is_empty() {
            match self.pages.named() {
                None => paging::flush_all(),
                Some(pages) => pages.iter().for_each(|&page| paging::flush_page(page)),
            }
            self.pages = Pages::NONE;
        }
        let count = core::mem::take(&mut self.frame_count);
        for frame in &mut self.frames[..count] {
            // SAFETY: so many were written, and are forgotten by the count that was set to zero.
            unsafe { frame.assume_init_drop() };
        }
        for entry in self.more.drain(..) {
            // SAFETY: the entry owns a reference, and was taken out of the list; a table is full of zeros and in no use.
            unsafe {
                match entry & Batch::TABLE {
                    0 => drop(Frame::from_raw(entry)),
                    _ => free_table(entry & !Batch::TABLE),
                }
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        debug_assert!(!self.is_pending(), "what other CPUs may still use is not freed");
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
        if !are_empty(eight) {
            for (index, slot) in eight.iter_mut().enumerate() {
                if !slot.is_empty() {
                    work(address + index * FRAME_SIZE, slot);
                }
            }
        }
        address += 8 * FRAME_SIZE;
    }
}

/// Most of a table is empty: eight entries are looked at with one test.
#[inline]
fn are_empty(eight: &[Slot]) -> bool {
    eight.iter().fold(0, |bits, slot| bits | slot.0.load(Relaxed)) == 0
}

/// Maps in `to` what `from` maps.
#[inline]
fn copy_slots(from: &mut [Slot], to: &mut [Slot], copy_on_write: bool, copied: &mut Resident) {
    for (from, to) in from.iter_mut().zip(to) {
        let mut entry = from.get();
        if entry.is_empty() {
            continue;
        }
        if copy_on_write && entry.is_writable() {
            from.write_protect();
            entry = from.get();
        }
        if let Some(frame) = from.share() {
            // The reference belongs to the new entry.
            frame.into_raw();
        }
        copied.add(entry);
        to.set(entry);
    }
}

fn allocate_table() -> Result<Frame, OutOfMemory> {
    let table = match reuse(|spare| &mut spare.tables)? {
        Some(table) => table,
        None => Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?,
    };
    // SAFETY: the table was just allocated.
    unsafe { set_entry_count(table.physical(), 0) };
    TABLES.fetch_add(1, Relaxed);
    Ok(table)
}

fn allocate_root() -> Result<Frame, OutOfMemory> {
    let root = match reuse(|spare| &mut spare.roots)? {
        Some(root) => root,
        None => {
            let root = Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?;
            // SAFETY: both are whole tables; the kernel's half of the boot table never changes after boot.
            unsafe {
                let from = direct_map(kernel_root()).cast::<u64>().add(KERNEL_ROOT_INDEX);
                let to = root.pointer().as_ptr().cast::<u64>().add(KERNEL_ROOT_INDEX);
                core::ptr::copy_nonoverlapping(from, to, ENTRIES - KERNEL_ROOT_INDEX);
            }
            root
        }
    };
    // SAFETY: the table was just allocated.
    unsafe { set_entry_count(root.physical(), 0) };
    TABLES.fetch_add(1, Relaxed);
    Ok(root)
}

/// A table that this CPU has kept, if there is one.
fn reuse<const N: usize>(kept: impl Fn(&mut Spare) -> &mut Stack<N>) -> Result<Option<Frame>, OutOfMemory> {
    let table = SPARE.with(|spare| kept(spare).pop());
    if table.is_some() {
        frames::faults::count(1);
        if frames::faults::strikes() {
            return Err(OutOfMemory);
        }
    }
    Ok(table)
}

/// Keeps a table for the next who needs one, or frees it.
///
/// # Safety
///
/// The table is in no use, and full of zeros (a root: in its user half).
unsafe fn recycle<const N: usize>(table: Frame, kept: impl Fn(&mut Spare) -> &mut Stack<N>) {
    let refused = SPARE.with(|spare| kept(spare).push(table));
    if refused.is_none() {
        frames::faults::count(-1);
    }
}

/// Frames that CPUs keep as spare tables.
pub fn spare_tables() -> usize {
    // SAFETY: the pointer is valid for ever; each count is read as one word, whatever its CPU does to it meanwhile.
    SPARE.sum(|spare| unsafe {
        (&raw const (*spare).tables.count).read_volatile() + (&raw const (*spare).roots.count).read_volatile()
    })
}

/// Changes the number of entries of a table above the leaves; returns the new number.
///
/// # Safety
///
/// `table` is such a table, and the caller's.
#[inline]
unsafe fn count_entries(table: u64, by: i16) -> u16 {
    // SAFETY: a table is an allocated frame.
    let used = unsafe { &frames::metadata(table).used };
    let count = used.load(Relaxed).wrapping_add_signed(by);
    used.store(count, Relaxed);
    count
}

/// # Safety
///
/// As for [`count_entries`].
#[inline]
unsafe fn set_entry_count(table: u64, count: u16) {
    // SAFETY: a table is an allocated frame.
    unsafe { frames::metadata(table).used.store(count, Relaxed) };
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

/// Frees a table, the tables below it, and the frames they map.
///
/// # Safety
///
/// Nobody uses them any more.
unsafe fn free_tree(table: u64, level: usize) {
    if level == 0 {
        // SAFETY: the caller's promise.
        let leaf = unsafe { leaf_at(table) };
        for_each_used(leaf, 0, LEAF_SPAN, &mut |_, slot| drop(slot.take()));
    } else {
        for index in 0..ENTRIES {
            // SAFETY: the caller's promise.
            unsafe {
                let entry = entry_at(table, index);
                if entry.is_present() {
                    set_entry_at(table, index, Entry::EMPTY);
                    free_tree(entry.physical(), level - 1);
                }
            }
        }
    }
    // SAFETY: the entry that led here is gone, and nothing is left in the table.
    unsafe { free_table(table) };
}

/// # Safety
///
/// The table maps nothing, and the entry that led to it is gone: its reference passes to this call.
unsafe fn free_table(table: u64) {
    TABLES.fetch_sub(1, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { recycle(Frame::from_raw(table), |spare| &mut spare.tables) };
}

/// Which tables are to be freed.
struct Scope {
    /// What was unmapped.
    range: Range<usize>,
    /// What is free around it.
    free: Range<usize>,
}

/// Frees the tables below `table` (which begins at `base`) that `scope` speaks of; returns how many.
///
/// # Safety
///
/// The table is the caller's, and maps nothing in the free range.
unsafe fn free_below(table: u64, level: usize, base: usize, scope: &Scope, batch: &mut Batch) -> usize {
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
        let (below, start) = (entry.physical(), base + index * span);
        // SAFETY: the same table, one level down; a table above the leaves knows when it has no entry left, and a leaf has
        // none if all it covers is free.
        let is_empty = unsafe {
            if level > 1 {
                freed += free_below(below, level - 1, start, scope, batch);
                count_entries(below, 0) == 0
            } else {
                scope.free.start <= start && start + span <= scope.free.end
            }
        };
        if is_empty {
            // SAFETY: nothing is mapped through this entry any more.
            unsafe {
                debug_assert!(level > 1 || leaf_at(below).iter().all(Slot::is_empty));
                set_entry_at(table, index, Entry::EMPTY);
                count_entries(table, -1);
                if batch.is_shared {
                    batch.frees_tables = true;
                    batch.more.push(below | Batch::TABLE);
                } else {
                    free_table(below);
                }
            }
            freed += 1;
        }
    }
    freed
}
