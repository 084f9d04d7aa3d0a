//! Access to the entries of a table, by its physical address: what everything about page tables stands on.
//!
//! Next: `spare.rs`.

use core::sync::atomic::Ordering::Relaxed;

use super::slot::Leaf;
use crate::arch::direct_map;
use crate::arch::paging::Entry;
use crate::mm::frames;

/// Changes the number of entries of a table above the leaves; returns the new number.
///
/// # Safety
///
/// `table` is such a table, and the caller's.
#[inline]
pub unsafe fn count_entries(table: u64, by: i16) -> u16 {
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
pub unsafe fn set_entry_count(table: u64, count: u16) {
    // SAFETY: a table is an allocated frame.
    unsafe { frames::metadata(table).used.store(count, Relaxed) };
}

/// # Safety
///
/// `table` is a table nobody else changes; `index` is below [`ENTRIES`](crate::arch::paging::ENTRIES).
#[inline]
pub unsafe fn entry_at(table: u64, index: usize) -> Entry {
    // SAFETY: the caller's promise; a table is a whole frame. The hardware may set bits, so the access is volatile.
    unsafe { direct_map(table).cast::<Entry>().add(index).read_volatile() }
}

/// # Safety
///
/// As for [`entry_at`]; what the entry pointed to is taken care of.
#[inline]
pub unsafe fn set_entry_at(table: u64, index: usize, entry: Entry) {
    // SAFETY: as in `entry_at`.
    unsafe { direct_map(table).cast::<Entry>().add(index).write_volatile(entry) }
}

/// # Safety
///
/// `table` is a leaf table, and the caller has it for itself for `'a`.
#[inline]
pub unsafe fn leaf_at<'a>(table: u64) -> &'a mut Leaf {
    // SAFETY: the caller's promise; a leaf is a whole frame of 512 words, each accessed atomically since the hardware may set
    // bits in them.
    unsafe { &mut *direct_map(table).cast::<Leaf>() }
}
