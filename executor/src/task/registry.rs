//! All tasks of an executor, for those who want to list them: /proc, the debugger, a report on a deadlock.
//!
//! A list through every cell, behind a lock that is held for a few instructions at a spawn and when a cell is freed. A walk
//! goes in portions, so that it does not hold the lock for long. next: current.rs.

use core::{
    mem::offset_of,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Dead, Header, TaskRef};
use crate::{
    list::{Link, List},
    sync::{Rank, SpinLock},
};

/// The list of all cells that have been registered, and not freed.
pub(crate) struct Registry {
    all: SpinLock<All>,
    /// How many are in the list. Written under its lock, so that it takes no locked instruction of its own.
    count: AtomicUsize,
}

struct All {
    cells: List,
    /// The number of the youngest; they grow along the list.
    last_id: u64,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            all: SpinLock::ordered(Rank::REGISTRY, All { cells: List::new(), last_id: 0 }),
            count: AtomicUsize::new(0),
        }
    }

    /// How many cells have been registered, and not freed.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes a new task in, and gives it its number.
    pub(crate) fn enter(&self, task: &TaskRef) {
        let mut all = self.all.lock();
        all.last_id += 1;
        task.facts().id.store(all.last_id, Ordering::Relaxed);
        // SAFETY: the second links of a cell are used by this list only; the cell is here once, since `enter` is called once, by
        // `spawn`, and `leave` is called before it is freed.
        unsafe { all.cells.push_back(link_of(task.0)) };
        self.count.store(self.count() + 1, Ordering::Relaxed);
    }

    /// Takes out a task that is about to be freed.
    pub(crate) fn leave(&self, task: &Dead) {
        let mut all = self.all.lock();
        // SAFETY: it was entered when it was spawned, and is freed once.
        unsafe { all.cells.remove(link_of(task.0)) };
        self.count.store(self.count() - 1, Ordering::Relaxed);
    }

    /// Shows all tasks to `look`, oldest first; without the lock, so it may take its time. Tasks that are spawned or freed
    /// meanwhile may be shown, or not.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&TaskRef)) {
        let mut shown = 0;
        loop {
            let mut portion: [Option<TaskRef>; 16] = [const { None }; 16];
            let mut places = portion.iter_mut();
            {
                let all = self.all.lock();
                // The number of the last one shown tells where to go on.
                let mut next = all.cells.first();
                while let Some(link) = next {
                    // SAFETY: the lock is held, so what is in the list is neither freed nor changed.
                    let header = unsafe {
                        next = (*link.as_ptr()).next();
                        cell_of(link)
                    };
                    // SAFETY: as above. Only atomics and constants are looked at.
                    let (id, state) =
                        unsafe { ((*header.as_ptr()).facts.id.load(Ordering::Relaxed), &(*header.as_ptr()).state) };
                    if id <= shown {
                        continue;
                    }
                    let Some(place) = places.next() else { break };
                    shown = id;
                    // A cell to which no reference is left is only waiting to be freed.
                    *place = state.try_add_reference().then(|| TaskRef(header));
                }
            }
            // Full or not: an empty portion ends it.
            let is_last = places.next().is_some();
            portion.iter().flatten().for_each(&mut look);
            if is_last {
                return;
            }
        }
    }
}

fn link_of(task: NonNull<Header>) -> Link {
    // SAFETY: `registered` lies within the cell.
    unsafe { task.byte_add(offset_of!(Header, registered)).cast() }
}

/// # Safety
/// `link` was made by `link_of`.
unsafe fn cell_of(link: Link) -> NonNull<Header> {
    // SAFETY: `registered` lies within the cell, by contract, and the pointer was made from one to the whole cell.
    unsafe { link.byte_sub(offset_of!(Header, registered)).cast() }
}
