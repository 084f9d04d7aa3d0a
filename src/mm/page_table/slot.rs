//! A leaf table: 512 slots, each the owner of one reference on the frame it maps.
//!
//! Next: `raw.rs`.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Resident, ZERO_FRAME};
use crate::arch::paging::{ENTRIES, Entry, Rights, index};
use crate::mm::frames::{FRAME_SIZE, Frame};

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
    pub(super) fn set(&mut self, entry: Entry) {
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
pub(super) type Leaf = [Slot; ENTRIES];

#[inline]
pub(super) fn for_each_used(leaf: &mut Leaf, start: usize, end: usize, work: &mut impl FnMut(usize, &mut Slot)) {
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
pub(super) fn are_empty(eight: &[Slot]) -> bool {
    eight.iter().fold(0, |bits, slot| bits | slot.0.load(Relaxed)) == 0
}

/// Maps in `to` what `from` maps.
#[inline]
pub(super) fn copy_slots(from: &mut [Slot], to: &mut [Slot], copy_on_write: bool, copied: &mut Resident) {
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
