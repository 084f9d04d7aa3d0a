//! Descriptor tables: the small numbers behind which a process keeps its open files.
//!
//! Shared by the threads of a process (CLONE_FILES), copied by fork(2). The lowest free number is always given first, found in
//! a bitmap.
//!
//! Next: `clone.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::mm::MakeRoom;
use abi::{Errno, Result};
use executor::sync::SpinLock;
use fs::OpenFile;

/// A descriptor number as a program gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fd(pub i32);

#[derive(Clone)]
struct Descriptor {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

/// What the descriptors of a process refer to.
pub struct FdTable {
    slots: SpinLock<Slots>,
}

#[derive(Default, Clone)]
struct Slots {
    descriptors: Vec<Option<Descriptor>>,
    /// One bit a slot, set if it is taken; as long as `descriptors`, rounded up to words.
    taken: Vec<u64>,
}

impl Slots {
    fn lowest_free(&self, from: usize) -> usize {
        let mut word = from / 64;
        let mut mask = !0u64 << (from % 64);
        while let Some(bits) = self.taken.get(word) {
            let free = !bits & mask;
            if free != 0 {
                return word * 64 + free.trailing_zeros() as usize;
            }
            word += 1;
            mask = !0;
        }
        (word * 64).max(from)
    }

    fn reach(&mut self, number: usize) -> Result<()> {
        // Most processes have a handful.
        let (slots, words) = ((number + 1).next_multiple_of(8), number / 64 + 1);
        if slots > self.descriptors.len() {
            self.taken.make_room(words.saturating_sub(self.taken.len()))?;
            self.descriptors.make_room(slots - self.descriptors.len())?;
            self.taken.resize(words, 0);
            self.descriptors.resize(slots, None);
        }
        Ok(())
    }

    fn put(&mut self, number: usize, descriptor: Descriptor) -> Result<Option<Descriptor>> {
        self.reach(number)?;
        self.taken[number / 64] |= 1 << (number % 64);
        Ok(self.descriptors[number].replace(descriptor))
    }

    fn take(&mut self, number: usize) -> Option<Descriptor> {
        let descriptor = self.descriptors.get_mut(number)?.take()?;
        self.taken[number / 64] &= !(1 << (number % 64));
        Some(descriptor)
    }
}

impl Default for FdTable {
    fn default() -> FdTable {
        FdTable { slots: SpinLock::new(Slots::default()) }
    }
}

impl FdTable {
    /// The open file behind a number.
    ///
    /// # Errors
    ///
    /// `EBADF`: none.
    pub fn get(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        self.get_with_flag(fd).map(|(file, _)| file)
    }

    /// The open file, and whether exec closes it.
    ///
    /// # Errors
    ///
    /// `EBADF`: none.
    pub fn get_with_flag(&self, fd: Fd) -> Result<(Arc<OpenFile>, bool)> {
        let slots = self.slots.lock();
        match usize::try_from(fd.0).ok().and_then(|number| slots.descriptors.get(number)) {
            Some(Some(descriptor)) => Ok((descriptor.file.clone(), descriptor.close_on_exec)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Gives an open file the lowest free number that is at least `from` and below `limit`.
    ///
    /// # Errors
    ///
    /// `EMFILE`: none free. `ENOMEM`. The file is dropped then.
    pub fn insert(&self, file: Arc<OpenFile>, close_on_exec: bool, from: usize, limit: u64) -> Result<Fd> {
        let mut slots = self.slots.lock();
        let number = slots.lowest_free(from);
        if number as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        slots.put(number, Descriptor { file, close_on_exec })?;
        Ok(Fd(number as i32))
    }

    /// Gives an open file this number; returns what had it before.
    ///
    /// # Errors
    ///
    /// `EBADF`: negative, or not below `limit`. `ENOMEM`.
    pub fn replace(
        &self,
        fd: Fd,
        file: Arc<OpenFile>,
        close_on_exec: bool,
        limit: u64,
    ) -> Result<Option<Arc<OpenFile>>> {
        let number = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        if number as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let old = self.slots.lock().put(number, Descriptor { file, close_on_exec })?;
        Ok(old.map(|descriptor| descriptor.file))
    }

    /// Frees a number; returns what it referred to.
    ///
    /// # Errors
    ///
    /// `EBADF`: it was free.
    pub fn remove(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        let number = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.slots.lock().take(number).map(|descriptor| descriptor.file).ok_or(Errno::EBADF)
    }

    /// Frees the first number in a range that is taken; for close_range(2) and the end of a process, which close one at a time.
    pub fn remove_first(&self, first: usize, last: usize) -> Option<Arc<OpenFile>> {
        let mut slots = self.slots.lock();
        let end = last.saturating_add(1).min(slots.descriptors.len());
        let number = (first..end).find(|number| slots.descriptors[*number].is_some())?;
        slots.take(number).map(|descriptor| descriptor.file)
    }

    /// Frees the first number that exec closes.
    pub fn remove_first_close_on_exec(&self) -> Option<Arc<OpenFile>> {
        let mut slots = self.slots.lock();
        let number = slots.descriptors.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.close_on_exec))?;
        slots.take(number).map(|descriptor| descriptor.file)
    }

    /// Says whether exec closes a number.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: Fd, close_on_exec: bool) -> Result<()> {
        let mut slots = self.slots.lock();
        match usize::try_from(fd.0).ok().and_then(|number| slots.descriptors.get_mut(number)) {
            Some(Some(descriptor)) => {
                descriptor.close_on_exec = close_on_exec;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Lets exec close all numbers of a range (close_range(2) with CLOSE_RANGE_CLOEXEC).
    pub fn set_close_on_exec_range(&self, first: usize, last: usize) {
        let mut slots = self.slots.lock();
        let end = last.saturating_add(1).min(slots.descriptors.len());
        for slot in slots.descriptors.iter_mut().take(end).skip(first).flatten() {
            slot.close_on_exec = true;
        }
    }

    /// A copy, as fork(2) makes it: the same open files behind the same numbers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn copy(&self) -> Result<FdTable> {
        let slots = self.slots.lock();
        let mut copy = Slots::default();
        let used = slots.descriptors.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if used > 0 {
            copy.reach(used - 1)?;
            copy.descriptors[..used].clone_from_slice(&slots.descriptors[..used]);
            let words = copy.taken.len();
            copy.taken.copy_from_slice(&slots.taken[..words]);
        }
        Ok(FdTable { slots: SpinLock::new(copy) })
    }

    /// The numbers that are taken, from `from` on, for /proc/PID/fd.
    pub fn numbers(&self, from: usize) -> Vec<usize> {
        let slots = self.slots.lock();
        (from..slots.descriptors.len()).filter(|number| slots.descriptors[*number].is_some()).collect()
    }
}
