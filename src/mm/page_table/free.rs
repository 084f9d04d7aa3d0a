//! Freeing tables: those below which nothing is mapped any more, or all of them, a part at a time, with all they map.
//!
//! Next: `batch.rs`.

use core::ops::Range;

use super::raw::{count_entries, entry_at, leaf_at, set_entry_at};
use super::slot::{Slot, for_each_used};
use super::spare::free_table;
use super::{Batch, LEAF_SPAN};
use crate::arch::paging::{ENTRIES, Entry, entry_span};

/// Frees up to `leaves` leaf tables below `table` with the frames they map, and the tables between that have no entry left then; counts
/// `leaves` down. Returns whether the table maps nothing any more. It looks at the first `entries` entries: a root's user half.
///
/// # Safety
///
/// The table is the caller's, and no CPU uses it.
pub unsafe fn free_some(table: u64, level: usize, entries: usize, leaves: &mut usize) -> bool {
    // SAFETY: the caller's promise, for this table and, as they hang from it alone, for all below it.
    unsafe {
        if count_entries(table, 0) == 0 {
            return true;
        }
        for index in 0..entries {
            let entry = entry_at(table, index);
            if !entry.is_present() {
                continue;
            }
            if *leaves == 0 {
                return false;
            }
            let below = entry.physical();
            if level == 1 {
                for_each_used(leaf_at(below), 0, LEAF_SPAN, &mut |_, slot| drop(slot.take()));
                *leaves -= 1;
            } else if !free_some(below, level - 1, ENTRIES, leaves) {
                return false;
            }
            set_entry_at(table, index, Entry::EMPTY);
            free_table(below);
            if count_entries(table, -1) == 0 {
                return true;
            }
        }
        debug_assert!(false, "a table's entries are counted");
        true
    }
}

/// Which tables are to be freed.
pub struct Scope {
    /// What was unmapped.
    pub range: Range<usize>,
    /// What is free around it.
    pub free: Range<usize>,
}

/// Frees the tables below `table` (which begins at `base`) that `scope` speaks of; returns how many.
///
/// # Safety
///
/// The table is the caller's, and maps nothing in the free range.
pub unsafe fn free_below(table: u64, level: usize, base: usize, scope: &Scope, batch: &mut Batch) -> usize {
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
                batch.push_table(below);
            }
            freed += 1;
        }
    }
    freed
}
