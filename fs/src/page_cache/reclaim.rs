//! Giving memory back: forgetting clean pages that can be read again.
//!
//! The files that have such pages stand in a list; each keeps a hand that goes around its pages (second chance). Pages that were
//! used since the hand last passed lose their mark and stay; those that somebody holds, and those with room reserved for a write,
//! stay anyway.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use executor::sync::SpinLock;

use super::{File, State};

/// So many pages of one file are looked at under its lock at once.
const LOOKS_AT_ONCE: usize = 2048;

/// The files that have pages which could be read again.
static RECLAIMABLE: SpinLock<VecDeque<Weak<File>>> = SpinLock::new(VecDeque::new());

impl File {
    /// Lists the file among those that have pages which could be read again.
    pub(super) fn list(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            RECLAIMABLE.lock().push_back(Arc::downgrade(self));
        }
    }

    /// Drops up to `wanted` clean pages from the hand on; a page that others hold, or that was used since, stays.
    fn reclaim(&self, wanted: usize) -> usize {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        let start = state.hand;
        let mut last = None;
        let mut victims = Vec::new();
        let mut looks = 0;
        let State { pages, .. } = &mut *state;
        for pass in 0..2 {
            let range = if pass == 0 { start..u64::MAX } else { 0..start };
            for (&index, slot) in pages.range_mut(range) {
                if victims.len() == wanted || looks == LOOKS_AT_ONCE {
                    break;
                }
                looks += 1;
                last = Some(index);
                if slot.is_reserved || slot.page.references() > 1 {
                    continue;
                }
                if core::mem::take(&mut slot.was_used) {
                    continue;
                }
                victims.push(index);
            }
        }
        for index in victims {
            dropped.extend(state.pages.remove(&index));
        }
        state.hand = last.map_or(0, |last| last + 1);
        drop(state);
        self.uncount(dropped.len(), 0);
        dropped.len()
    }
}

/// Gives up to `wanted` pages of memory back by forgetting clean pages that can be read again; returns how many. Does not wait.
/// If those that nobody maps do not suffice, mapped ones are taken out of their mappings, and names that nobody uses are forgotten
/// with their inodes.
pub fn reclaim(wanted: usize) -> usize {
    let freed = reclaim_pages(wanted);
    if freed < wanted {
        // A name with its inode takes about a quarter of a page, and may take the last hold on pages with it.
        crate::dentry::shrink((wanted - freed).saturating_mul(4));
    }
    freed
}

fn reclaim_pages(wanted: usize) -> usize {
    // Three times around: pages used since lose their mark the first time; the third time mappings give way.
    let mut freed = 0;
    for round in 0..3 {
        let files = RECLAIMABLE.lock().len();
        for _ in 0..files {
            if freed >= wanted {
                return freed;
            }
            let next = RECLAIMABLE.lock().pop_front();
            let Some(file) = next.as_ref().and_then(Weak::upgrade) else { continue };
            if round == 2 {
                file.for_mappers(|mapper| mapper.unmap(0..u64::MAX));
            }
            freed += file.reclaim(wanted - freed);
            let is_empty = file.state.lock().pages.is_empty();
            if is_empty {
                file.is_listed.store(false, Ordering::Release);
            }
            if !is_empty || (!file.state.lock().pages.is_empty() && !file.is_listed.swap(true, Ordering::AcqRel)) {
                RECLAIMABLE.lock().push_back(Arc::downgrade(&file));
            }
        }
    }
    freed
}
