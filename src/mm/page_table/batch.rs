//! What was taken out of a page table, until no CPU can use it any more.
//!
//! Next: `../shootdown.rs`.

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::AtomicU64;

use super::OutOfMemory;
use super::spare::free_table;
use crate::arch::paging;
use crate::mm::MakeRoom;
use crate::mm::frames::{FRAME_SIZE, Frame};
use crate::mm::shootdown::{Pages, SHOOTDOWN};

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
        self.more.make_exact_room(further).map_err(|_| OutOfMemory)
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

    /// Frees a table, or keeps it until all CPUs have flushed.
    ///
    /// # Safety
    ///
    /// As for [`free_table`].
    pub(super) unsafe fn push_table(&mut self, table: u64) {
        if self.is_shared {
            self.frees_tables = true;
            self.more.push(table | Batch::TABLE);
        } else {
            // SAFETY: the caller's promise.
            unsafe { free_table(table) };
        }
    }

    /// Whether others may use the address space at the same time.
    pub fn is_shared(&self) -> bool {
        self.is_shared
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
