//! Taking names out of the cache that nobody uses.
//!
//! All dentries that stand in a table are in one queue, oldest first. Whoever adds one looks at the two that have waited longest, so
//! that those which are gone leave the queue, and when there are too many, those that nobody has used since their last turn leave
//! the cache.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

use executor::sync::SpinLock;

use super::Dentry;

/// More dentries than this are kept only while they are in use.
const CACHED_AT_MOST: usize = 32_768;

/// How many dentries there are.
pub(super) static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Those that stand in a table, oldest first, to be taken out again.
static QUEUE: SpinLock<VecDeque<Weak<Dentry>>> = SpinLock::new(VecDeque::new());

/// Lines a new dentry up, and looks at the two that have waited longest: keeps the queue about as long as the cache.
pub(super) fn enqueue(dentry: &Arc<Dentry>) {
    QUEUE.lock().push_back(Arc::downgrade(dentry));
    let is_too_many = LIVE.load(Ordering::Relaxed) > CACHED_AT_MOST;
    for _ in 0..2 {
        let oldest = QUEUE.lock().pop_front();
        let Some(oldest) = oldest else { return };
        if oldest.strong_count() > 0 && !(is_too_many && evict(&oldest)) {
            QUEUE.lock().push_back(oldest);
        }
    }
}

/// Takes at least `wanted` unused dentries out of the cache if it can; returns how many.
pub fn shrink(wanted: usize) -> usize {
    let mut evicted = 0;
    // Twice around: the first time a dentry that was used since gets its second chance.
    let mut looks = 2 * QUEUE.lock().len();
    while evicted < wanted && looks > 0 {
        looks -= 1;
        let oldest = QUEUE.lock().pop_front();
        let Some(oldest) = oldest else { break };
        if oldest.strong_count() == 0 {
            continue;
        }
        if evict(&oldest) {
            evicted += 1;
        } else {
            QUEUE.lock().push_back(oldest);
        }
    }
    evicted
}

fn evict(dentry: &Weak<Dentry>) -> bool {
    let Some(dentry) = dentry.upgrade() else { return true };
    if dentry.was_used.swap(false, Ordering::Relaxed) {
        return false;
    }
    let Some(parent) = dentry.parent() else { return true };
    let Ok(folder) = parent.folder() else { return true };
    let name = dentry.name();
    let mut names = folder.names.lock();
    match names.entries.get(&name) {
        Some(Some(entry)) if Arc::ptr_eq(entry, &dentry) => {
            let is_unused = dentry.is_unused();
            let entry = if is_unused { names.remove(&name) } else { None };
            drop(names);
            drop(entry);
            is_unused
        }
        // It left its table by another way.
        _ => true,
    }
}

impl Dentry {
    /// Whether nobody but its folder's table and one more holds it. The table's lock is held.
    fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 2
    }
}
