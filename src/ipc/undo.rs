//! What is taken back of operations on semaphores when a process ends: SEM_UNDO of semop(2).
//!
//! Threads that were made with CLONE_SYSVSEM, those of a process as a rule, share one list; when the last of them ends, each set that
//! the list names adds what it has noted for it. A list is made with the first operation that wants one, or with the first thread
//! that is to share it.
//!
//! Next: `syscall/semaphore.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::Result;
use executor::sync::SpinLock;

use super::semaphores::Set;
use crate::mm::MakeRoom;

/// The sets that have something to take back.
pub struct UndoList {
    sets: SpinLock<Vec<Arc<Set>>>,
}

impl UndoList {
    /// Nothing to take back.
    pub fn new() -> Arc<UndoList> {
        // Two words for a process.
        Arc::new(UndoList { sets: SpinLock::new(Vec::new()) })
    }

    /// What sets know it by.
    pub fn name(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// Prepares a set for operations that are taken back.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIDRM`: the set has just been removed.
    pub fn prepare(self: &Arc<Self>, set: &Arc<Set>) -> Result<()> {
        let mut sets = self.sets.lock();
        sets.make_room(1)?;
        if set.prepare_undo(self.name())? {
            sets.retain(|other| !other.is_removed());
            sets.push(set.clone());
        }
        Ok(())
    }

    /// Lets go of a list; the last to do so takes everything back.
    pub fn release(self: Arc<Self>, pid: i32) {
        let name = self.name();
        let Some(list) = Arc::into_inner(self) else { return };
        for set in list.sets.into_inner() {
            set.undo(name, pid);
        }
    }
}
