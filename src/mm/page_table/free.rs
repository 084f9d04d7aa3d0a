//! Freeing tables: those below which nothing is mapped any more, or a whole tree with all it maps.
//!
//! Next: `batch.rs`.

use core::ops::Range;

use super::raw::{count_entries, entry_at, leaf_at, set_entry_at};
use super::slot::{Slot, for_each_used};
use super::spare::free_table;
use super::{Batch, LEAF_SPAN};
use crate::arch::paging::{ENTRIES, Entry, entry_span};

/// Frees a table, the tables below it, and the frames they map.
///
/// # Safety
///
/// Nobody uses them any more.
pub unsafe fn free_tree(table: u64, level: usize) {
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
