//! File locks: flock(2), and the record locks of fcntl(2) with their two kinds of owner.
//!
//! The locks of one file are two short lists under a spin lock. An attempt either succeeds or says [`Stop::WouldBlock`]; who may
//! wait does so on [`FileLocks::released`], as for any blocking call, and tries again.
//!
//! Next: `environment.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use executor::sync::{SpinLock, WaitQueue};

use crate::inode::InodeCore;
use crate::{Errno, OpenFile, Result, Stop};

/// Who holds a record lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOwner {
    /// A process (`F_SETLK`): identified by its descriptor table, as CLONE_FILES shares locks too.
    Process(usize),
    /// An open file description (`F_OFD_SETLK`).
    OpenFile(usize),
}

impl LockOwner {
    /// The owner that an open file is.
    pub fn open_file(file: &Arc<OpenFile>) -> LockOwner {
        LockOwner::OpenFile(Arc::as_ptr(file) as usize)
    }
}

/// A lock on a range of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordLock {
    /// Who holds it.
    pub owner: LockOwner,
    /// Which bytes; up to `u64::MAX` is "to the end, however far it moves".
    pub bytes: Range<u64>,
    /// Whether others are kept from reading too.
    pub is_exclusive: bool,
    /// The process to report with F_GETLK; -1 for open files.
    pub pid: i32,
}

impl RecordLock {
    fn conflicts(&self, other: &RecordLock) -> bool {
        self.owner != other.owner
            && (self.is_exclusive || other.is_exclusive)
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

/// The locks of one file.
pub struct FileLocks {
    lists: SpinLock<Lists>,
    /// Woken whenever a lock is given up or weakened.
    pub released: WaitQueue,
}

impl Default for FileLocks {
    fn default() -> FileLocks {
        FileLocks { lists: SpinLock::new(Lists::default()), released: WaitQueue::new() }
    }
}

#[derive(Default)]
struct Lists {
    /// Whole-file locks: the open file that holds it, and whether it is exclusive.
    whole: Vec<(usize, bool)>,
    records: Vec<RecordLock>,
}

impl FileLocks {
    /// The locks of an inode, made if it has none yet.
    pub fn of(core: &InodeCore) -> Arc<FileLocks> {
        core.with_extras(|extras| extras.locks.get_or_insert_default().clone())
    }

    /// flock(2): takes the lock, or changes its strength, which is not atomic: it is given up first.
    ///
    /// # Errors
    ///
    /// [`Stop::WouldBlock`]: another open file holds one that conflicts. `ENOLCK`: no memory.
    pub fn lock_whole(&self, file: &Arc<OpenFile>, is_exclusive: bool) -> Result<(), Stop> {
        let holder = Arc::as_ptr(file) as usize;
        let mut lists = self.lists.lock();
        if lists.whole.contains(&(holder, is_exclusive)) {
            return Ok(());
        }
        let before = lists.whole.len();
        lists.whole.retain(|&(other, _)| other != holder);
        let gave_up = lists.whole.len() < before;
        let is_taken = lists.whole.iter().any(|&(_, exclusive)| exclusive || is_exclusive);
        let result = if is_taken {
            Err(Stop::WouldBlock)
        } else {
            lists.whole.try_reserve(1).map_err(|_| Errno::ENOLCK).map(|()| lists.whole.push((holder, is_exclusive)))?;
            Ok(())
        };
        drop(lists);
        if gave_up {
            self.released.wake_all();
        }
        result
    }

    /// Gives the lock of an open file up: flock(2) with `LOCK_UN`, and its last close.
    pub fn unlock_whole(&self, holder: *const OpenFile) {
        let holder = holder as usize;
        let mut lists = self.lists.lock();
        let before = lists.whole.len();
        lists.whole.retain(|&(other, _)| other != holder);
        let gave_up = lists.whole.len() < before;
        drop(lists);
        if gave_up {
            self.released.wake_all();
        }
    }

    /// The first lock that keeps `wanted` from being taken (`F_GETLK`).
    pub fn conflicting(&self, wanted: &RecordLock) -> Option<RecordLock> {
        self.lists.lock().records.iter().find(|held| held.conflicts(wanted)).cloned()
    }

    /// Takes a record lock; what its owner held of the same bytes is replaced.
    ///
    /// # Errors
    ///
    /// [`Stop::WouldBlock`]: another holds one that conflicts. `ENOLCK`: no memory.
    pub fn lock_record(&self, wanted: RecordLock) -> Result<(), Stop> {
        let mut lists = self.lists.lock();
        if lists.records.iter().any(|held| held.conflicts(&wanted)) {
            return Err(Stop::WouldBlock);
        }
        // Cutting a hole into one lock makes two; the new one is the third.
        lists.records.try_reserve(2).map_err(|_| Errno::ENOLCK)?;
        let weakened = lists.cut(wanted.owner, &wanted.bytes);
        lists.add(wanted);
        drop(lists);
        if weakened {
            self.released.wake_all();
        }
        Ok(())
    }

    /// Gives up what an owner holds of these bytes.
    ///
    /// # Errors
    ///
    /// `ENOLCK`: no memory to cut a lock in two.
    pub fn unlock_record(&self, owner: LockOwner, bytes: &Range<u64>) -> Result<()> {
        let mut lists = self.lists.lock();
        lists.records.try_reserve(1).map_err(|_| Errno::ENOLCK)?;
        let gave_up = lists.cut(owner, bytes);
        drop(lists);
        if gave_up {
            self.released.wake_all();
        }
        Ok(())
    }

    /// Gives up all record locks of an owner: a process that closes any descriptor of the file, an open file that goes.
    pub fn release(&self, owner: LockOwner) {
        let mut lists = self.lists.lock();
        let before = lists.records.len();
        lists.records.retain(|held| held.owner != owner);
        let gave_up = lists.records.len() < before;
        drop(lists);
        if gave_up {
            self.released.wake_all();
        }
    }

    /// All locks, for /proc/locks: whole-file ones as records over everything.
    pub fn all(&self) -> Vec<RecordLock> {
        let lists = self.lists.lock();
        let whole = lists.whole.iter().map(|&(holder, is_exclusive)| RecordLock {
            owner: LockOwner::OpenFile(holder),
            bytes: 0..u64::MAX,
            is_exclusive,
            pid: -1,
        });
        whole.chain(lists.records.iter().cloned()).collect()
    }
}

impl Lists {
    /// Cuts a range out of an owner's locks; whether there was anything to cut.
    fn cut(&mut self, owner: LockOwner, bytes: &Range<u64>) -> bool {
        let mut was_cut = false;
        let mut at = 0;
        while at < self.records.len() {
            let held = &mut self.records[at];
            if held.owner != owner || held.bytes.start >= bytes.end || bytes.start >= held.bytes.end {
                at += 1;
                continue;
            }
            was_cut = true;
            let whole = held.clone();
            self.records.swap_remove(at);
            for rest in [whole.bytes.start..bytes.start, bytes.end..whole.bytes.end] {
                if rest.start < rest.end {
                    self.records.push(RecordLock { bytes: rest, ..whole.clone() });
                }
            }
            // What was pushed does not overlap any more, so it may be looked at again.
        }
        was_cut
    }

    /// Adds a lock, joined with those of the same owner and strength that it touches.
    fn add(&mut self, mut lock: RecordLock) {
        self.records.retain(|held| {
            let touches = held.owner == lock.owner
                && held.is_exclusive == lock.is_exclusive
                && held.bytes.start <= lock.bytes.end
                && lock.bytes.start <= held.bytes.end;
            if touches {
                lock.bytes = held.bytes.start.min(lock.bytes.start)..held.bytes.end.max(lock.bytes.end);
            }
            !touches
        });
        self.records.push(lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: usize, bytes: Range<u64>, is_exclusive: bool) -> RecordLock {
        RecordLock { owner: LockOwner::Process(owner), bytes, is_exclusive, pid: owner as i32 }
    }

    fn held(locks: &FileLocks) -> Vec<(Range<u64>, bool)> {
        let mut all: Vec<_> = locks.all().into_iter().map(|lock| (lock.bytes, lock.is_exclusive)).collect();
        all.sort_by_key(|(bytes, _)| bytes.start);
        all
    }

    #[test]
    fn shared_locks_overlap_and_exclusive_ones_do_not() {
        let locks = FileLocks::default();
        assert_eq!(locks.lock_record(lock(1, 0..10, false)), Ok(()));
        assert_eq!(locks.lock_record(lock(2, 5..15, false)), Ok(()));
        assert_eq!(locks.lock_record(lock(2, 0..5, true)), Err(Stop::WouldBlock));
        assert_eq!(locks.lock_record(lock(2, 10..20, true)), Ok(()));
        assert_eq!(locks.conflicting(&lock(1, 19..30, false)).map(|held| held.pid), Some(2));
        assert_eq!(locks.conflicting(&lock(1, 20..30, false)), None);
    }

    #[test]
    fn unlocking_the_middle_leaves_two_locks_and_joining_makes_one_again() {
        let locks = FileLocks::default();
        locks.lock_record(lock(1, 0..30, true)).expect("free");
        locks.unlock_record(LockOwner::Process(1), &(10..20)).expect("memory");
        assert_eq!(held(&locks), [(0..10, true), (20..30, true)]);
        locks.lock_record(lock(1, 10..20, true)).expect("free");
        assert_eq!(held(&locks), [(0..30, true)]);
        locks.lock_record(lock(1, 5..10, false)).expect("its own");
        assert_eq!(held(&locks), [(0..5, true), (5..10, false), (10..30, true)]);
        locks.release(LockOwner::Process(1));
        assert_eq!(held(&locks), []);
    }
}
