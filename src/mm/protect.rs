//! mprotect, madvise, mlock, mincore: changes to what is mapped, without moving it.
//!
//! Next: `remap.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use abi::{Errno, general};

use super::address_space::{AddressSpace, Inner, try_push, user_range};
use super::frames::{FRAME_SIZE, Frame};
use super::page_fault::{Access, Fault};
use super::page_table::Batch;
use super::vma::{Backing, MappedFile, Vma, VmaFlags};
use crate::arch::paging::Rights;

impl AddressSpace {
    /// Changes what the program may do in a range (mprotect).
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address is not a multiple of the page size. `ENOMEM`: part of the range is not mapped (what comes before it was
    /// changed), or there would be too many areas. `EACCES`: a shared file is not open for writing, or the mount is `noexec`.
    pub fn protect(&self, address: usize, len: usize, rights: Rights) -> Result<(), Errno> {
        let range = checked(address, len)?;
        let len = super::address_space::page_up(len)?;
        self.change(|inner, batch| {
            let covered = inner.covered(&range);
            let range = range.start..covered.min(range.end);
            let refuses = |vma: &Vma| {
                rights.write && !vma.flags.contains(VmaFlags::MAY_WRITE)
                    || rights.execute && !vma.flags.contains(VmaFlags::MAY_EXECUTE)
            };
            if inner.areas.overlapping(range.clone()).any(refuses) {
                return Err(Errno::EACCES);
            }
            inner.change(range.clone(), |vma| vma.rights = rights)?;
            inner.apply_rights(range.clone(), batch);
            if range.len() < len { Err(Errno::ENOMEM) } else { Ok(()) }
        })
    }

    /// Takes a program's advice (madvise).
    ///
    /// # Errors
    ///
    /// `EINVAL`: bad address, unknown advice, or one that this kind of area does not take. `ENOMEM`: part of the range is not mapped
    /// (the rest was advised).
    pub fn advise(&self, address: usize, len: usize, advice: u32) -> Result<(), Errno> {
        let range = checked(address, len)?;
        self.change(|inner, batch| inner.advise(range, advice, batch))
    }

    /// Locks a range in memory, or unlocks it (mlock, munlock). The caller populates what was locked.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: part of the range is not mapped, or over `RLIMIT_MEMLOCK`.
    pub fn lock(&self, address: usize, len: usize, is_locked: bool) -> Result<(), Errno> {
        let start = address & !(FRAME_SIZE - 1);
        let range = checked(start, len.checked_add(address - start).ok_or(Errno::EINVAL)?)?;
        let mut inner = self.inner.lock();
        if inner.has_hole(&range) {
            return Err(Errno::ENOMEM);
        }
        let limit = self.limits().locked / FRAME_SIZE as u64;
        if is_locked && (inner.locked + inner.unlocked_in(&range)) as u64 > limit {
            return Err(Errno::ENOMEM);
        }
        inner.change(range, |vma| vma.flags.set(VmaFlags::LOCKED, is_locked))
    }

    /// Locks all memory, now or what comes, or unlocks it (mlockall, munlockall). The caller populates.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: over `RLIMIT_MEMLOCK`.
    pub fn lock_all(&self, now: bool, future: bool) -> Result<(), Errno> {
        let mut inner = self.inner.lock();
        if now && (inner.mapped as u64) > self.limits().locked / FRAME_SIZE as u64 {
            return Err(Errno::ENOMEM);
        }
        inner.locks_new = future;
        if now || !future {
            let everything = 0..crate::arch::paging::USER_END;
            inner.change(everything, |vma| {
                vma.flags.set(VmaFlags::LOCKED, now && !vma.flags.contains(VmaFlags::SPECIAL));
            })?;
        }
        Ok(())
    }

    /// Touches every page of a range, as `MAP_POPULATE`, mlock(2) and `MADV_POPULATE_*` do; stops at the first that cannot be had.
    ///
    /// # Errors
    ///
    /// [`Fault`]: why not.
    ///
    /// # Cancel safety
    ///
    /// What was populated stays.
    pub async fn populate(&self, range: Range<usize>, access: Option<Access>) -> Result<(), Fault> {
        for (count, address) in range.step_by(FRAME_SIZE).enumerate() {
            let access = match access {
                Some(access) => access,
                None => self.natural_access(address)?,
            };
            if self.inner.lock().is_populated(address, access) {
                continue;
            }
            self.fault_in(address, access).await?;
            if count % 256 == 255 {
                executor::yield_now().await;
            }
        }
        Ok(())
    }

    /// What populating does at `address`: it writes where that makes a private page.
    fn natural_access(&self, address: usize) -> Result<Access, Fault> {
        let inner = self.inner.lock();
        let vma = inner.areas.find(address).ok_or(Fault::Unmapped)?;
        Ok(if vma.rights.write && !vma.is_shared() { Access::Write } else { Access::Read })
    }

    /// Says of each page from `address` on whether it is in memory (mincore).
    ///
    /// # Errors
    ///
    /// `EINVAL`: a bad address. `ENOMEM`: part of the range is not mapped.
    pub fn resident_pages(&self, address: usize, into: &mut [u8]) -> Result<(), Errno> {
        let range = checked(address, into.len() * FRAME_SIZE)?;
        let mut inner = self.inner.lock();
        if inner.has_hole(&range) {
            return Err(Errno::ENOMEM);
        }
        for (resident, address) in into.iter_mut().zip(range.step_by(FRAME_SIZE)) {
            let is_mapped = inner.table.entry(address).is_resident();
            let is_cached = || {
                let (file, number) = inner.areas.find(address)?.file_page(address)?;
                Some(file.inode.core().pages.get(number).is_some())
            };
            *resident = u8::from(is_mapped || is_cached().unwrap_or(false));
        }
        Ok(())
    }

    /// The files that are mapped shared in a range, for msync(2) to sync.
    ///
    /// # Errors
    ///
    /// `EINVAL`: a bad address. `ENOMEM`: part of the range is not mapped, or no memory for the list.
    pub fn shared_files(&self, address: usize, len: usize) -> Result<Vec<Arc<MappedFile>>, Errno> {
        let range = checked(address, len)?;
        let inner = self.inner.lock();
        if inner.has_hole(&range) {
            return Err(Errno::ENOMEM);
        }
        let mut files: Vec<Arc<MappedFile>> = Vec::new();
        for vma in inner.areas.overlapping(range).filter(|vma| vma.is_shared()) {
            if let Some((file, _)) = vma.file_page(vma.start)
                && !files.iter().any(|known| Arc::ptr_eq(&known.inode, &file.inode))
            {
                try_push(&mut files, file.clone())?;
            }
        }
        Ok(files)
    }
}

/// As [`user_range`], but a range beyond the user half is one that is not mapped.
fn checked(address: usize, len: usize) -> Result<Range<usize>, Errno> {
    user_range(address, len).map_err(|errno| if address.is_multiple_of(FRAME_SIZE) { Errno::ENOMEM } else { errno })
}

impl Inner {
    /// Where the first hole from the start of the range on begins; the range's end if there is none.
    fn covered(&self, range: &Range<usize>) -> usize {
        let mut end = range.start;
        for vma in self.areas.overlapping(range.clone()) {
            if vma.start > end {
                break;
            }
            end = vma.end;
        }
        end.min(range.end)
    }

    fn has_hole(&self, range: &Range<usize>) -> bool {
        self.covered(range) < range.end
    }

    /// Changes the areas in a range, cutting them where it begins and ends, and keeps the accounts.
    fn change(&mut self, range: Range<usize>, mut change: impl FnMut(&mut Vma)) -> Result<(), Errno> {
        if self.areas.count() + 2 > super::vma::areas_at_most() {
            return Err(Errno::ENOMEM);
        }
        self.areas.reserve()?;
        let mut areas = core::mem::take(&mut self.areas);
        areas.change(range, |vma| {
            self.account(vma, -1);
            change(vma);
            self.account(vma, 1);
        });
        self.areas = areas;
        Ok(())
    }

    fn advise(&mut self, range: Range<usize>, advice: u32, batch: &mut Batch) -> Result<(), Errno> {
        let flag = |flag, is_set: bool| move |vma: &mut Vma| vma.flags.set(flag, is_set);
        match advice {
            general::MADV_DONTNEED | general::MADV_DONTNEED_LOCKED => {
                let keeps = if advice == general::MADV_DONTNEED { VmaFlags::LOCKED } else { VmaFlags::empty() };
                self.discard(&range, |vma| !vma.flags.intersects(keeps | VmaFlags::SPECIAL), batch)?;
            }
            general::MADV_FREE => {
                let is_private = |vma: &Vma| matches!(vma.backing, Backing::Anonymous) && !vma.is_shared();
                self.discard(&range, is_private, batch)?;
            }
            general::MADV_DONTFORK => self.change(range.clone(), flag(VmaFlags::DONT_FORK, true))?,
            general::MADV_DOFORK => self.change(range.clone(), flag(VmaFlags::DONT_FORK, false))?,
            general::MADV_WIPEONFORK => {
                let is_other = |vma: &Vma| !matches!(vma.backing, Backing::Anonymous) || vma.is_shared();
                if self.areas.overlapping(range.clone()).any(is_other) {
                    return Err(Errno::EINVAL);
                }
                self.change(range.clone(), flag(VmaFlags::WIPE_ON_FORK, true))?;
            }
            general::MADV_KEEPONFORK => self.change(range.clone(), flag(VmaFlags::WIPE_ON_FORK, false))?,
            general::MADV_DONTDUMP => self.change(range.clone(), flag(VmaFlags::DONT_DUMP, true))?,
            general::MADV_DODUMP => self.change(range.clone(), flag(VmaFlags::DONT_DUMP, false))?,
            // Hints about speed: there is no swap, no huge page and no read-ahead that they could steer.
            general::MADV_NORMAL
            | general::MADV_RANDOM
            | general::MADV_SEQUENTIAL
            | general::MADV_WILLNEED
            | general::MADV_MERGEABLE
            | general::MADV_UNMERGEABLE
            | general::MADV_HUGEPAGE
            | general::MADV_NOHUGEPAGE
            | general::MADV_COLD
            | general::MADV_PAGEOUT
            | general::MADV_POPULATE_READ
            | general::MADV_POPULATE_WRITE => {}
            _ => return Err(Errno::EINVAL),
        }
        if self.covered(&range) < range.end && self.has_hole(&range) { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Brings the page table in line with the areas' rights. A right to write comes back by a fault, where it must be asked for.
    fn apply_rights(&mut self, range: Range<usize>, batch: &mut Batch) {
        for vma in self.areas.overlapping(range.clone()) {
            let part = vma.start.max(range.start)..vma.end.min(range.end);
            self.table.for_each(part, |address, slot| {
                let entry = slot.get();
                let is_own = if vma.is_shared() {
                    entry.is_writable()
                } else {
                    entry.is_anonymous() && slot.with_frame(Frame::references) == Some(1)
                };
                slot.set_rights(Rights { write: vma.rights.write && is_own, ..vma.rights });
                batch.push(address, None);
            });
        }
    }

    /// Throws away the pages of a range, as if they had never been touched.
    fn discard(
        &mut self,
        range: &Range<usize>,
        is_allowed: impl Fn(&Vma) -> bool,
        batch: &mut Batch,
    ) -> Result<(), Errno> {
        if !self.areas.overlapping(range.clone()).all(is_allowed) {
            return Err(Errno::EINVAL);
        }
        self.reserve_batch(range.clone(), batch)?;
        self.zap(range.clone(), batch);
        Ok(())
    }

    /// How many pages of the range are not locked yet.
    fn unlocked_in(&self, range: &Range<usize>) -> usize {
        let part = |vma: &Vma| (vma.end.min(range.end) - vma.start.max(range.start)) / FRAME_SIZE;
        let unlocked = |vma: &&Vma| !vma.flags.contains(VmaFlags::LOCKED);
        self.areas.overlapping(range.clone()).filter(unlocked).map(part).sum()
    }

    fn is_populated(&mut self, address: usize, access: Access) -> bool {
        let entry = self.table.entry(address);
        if access == Access::Write { entry.is_writable() } else { entry.is_present() }
    }
}
