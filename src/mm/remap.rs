//! mremap: a mapping that grows, shrinks or moves, with its pages.
//!
//! Next: `remote.rs`.

use core::ops::Range;

use abi::{Errno, general};

use super::address_space::{AddressSpace, Inner, Placement, page_up, user_range};
use super::page_table::Batch;
use super::vma::{Vma, VmaFlags};
use crate::arch::paging::USER_END;

impl AddressSpace {
    /// Changes the size of a mapping, moving it if it may be moved; returns where it is. `to` is the new address if
    /// `MREMAP_FIXED` is set.
    ///
    /// # Errors
    ///
    /// `EINVAL`: bad addresses, lengths or flags, or a part of the vDSO. `EFAULT`: the old range is not one mapping, or the vDSO were to grow. `ENOMEM`: no room, no memory, or over a limit.
    /// `EAGAIN`: over `RLIMIT_MEMLOCK`.
    pub fn remap(&self, old: usize, old_len: usize, new_len: usize, flags: u32, to: usize) -> Result<usize, Errno> {
        let (may_move, is_fixed) = (flags & general::MREMAP_MAYMOVE != 0, flags & general::MREMAP_FIXED != 0);
        let keeps_old = flags & general::MREMAP_DONTUNMAP != 0;
        let known = general::MREMAP_MAYMOVE | general::MREMAP_FIXED | general::MREMAP_DONTUNMAP;
        if flags & !known != 0 || (is_fixed || keeps_old) && !may_move || new_len == 0 {
            return Err(Errno::EINVAL);
        }
        let source = user_range(old, old_len)?;
        let (old_len, new_len) = (source.end - source.start, page_up(new_len).map_err(|_| Errno::EINVAL)?);
        if keeps_old && old_len != new_len {
            return Err(Errno::EINVAL);
        }
        if is_fixed {
            let target = user_range(to, new_len)?;
            if target.start < source.end && source.start < target.end {
                return Err(Errno::EINVAL);
            }
        }
        self.change(|inner, batch| {
            inner.areas.reserve()?;
            if old_len > new_len && !is_fixed {
                inner.the_area(old, old_len)?;
                inner.reserve_batch(old + new_len..old + old_len, batch)?;
                inner.unmap(old + new_len..old + old_len, batch);
                return Ok(old);
            }
            let vma = inner.the_area(old, old_len.min(new_len))?.clone();
            if old_len == 0 && !vma.is_shared() {
                return Err(Errno::EINVAL);
            }
            if vma.flags.contains(VmaFlags::SPECIAL) {
                if new_len > old_len {
                    return Err(Errno::EFAULT);
                }
                if keeps_old || source != vma.range() || new_len != old_len {
                    return Err(Errno::EINVAL);
                }
            }
            // What is to be added is checked as a mapping of its own.
            let part = |start: usize, len: usize| Vma { start, end: start + len, ..vma.clone() };
            let added = if keeps_old { new_len } else { new_len.saturating_sub(old_len) };
            inner.check_limits(&part(old, added), 0, &self.limits())?;
            if !is_fixed && !keeps_old && old_len > 0 {
                if added == 0 {
                    return Ok(old);
                }
                let end = old + old_len;
                if vma.end == end && end + added <= USER_END && inner.is_free(end..end + added) {
                    let mut tail = vma.clone();
                    tail.end = end + added;
                    inner.insert(tail.split_off(end));
                    return Ok(old);
                }
                if !may_move {
                    return Err(Errno::ENOMEM);
                }
            }
            let placement = match (is_fixed, to) {
                (true, to) => Placement::Fixed(to),
                (false, 0) => Placement::Anywhere,
                (false, hint) => Placement::Hint(hint),
            };
            let target = inner.place(placement, new_len)?;
            inner.move_area(old..old + old_len, target..target + new_len, keeps_old, batch)?;
            Ok(target)
        })
    }
}

impl Inner {
    /// The one area that holds the range.
    fn the_area(&self, address: usize, len: usize) -> Result<&Vma, Errno> {
        let vma = self.areas.find(address).ok_or(Errno::EFAULT)?;
        if vma.end - address < len { Err(Errno::EFAULT) } else { Ok(vma) }
    }

    fn move_area(
        &mut self,
        from: Range<usize>,
        to: Range<usize>,
        keeps_old: bool,
        batch: &mut Batch,
    ) -> Result<(), Errno> {
        let (old, old_len, len) = (from.start, from.len(), to.len());
        self.reserve_batch(to.clone(), batch)?;
        if self.mapped_in(to.clone()) > 0 {
            self.unmap(to.clone(), batch);
            self.areas.reserve()?;
        }
        self.reserve_batch(from.clone(), batch)?;
        let mut moved = self.the_area(old, old_len.min(len))?.clone();
        if moved.start < old {
            moved = moved.split_off(old);
        }
        moved.start = to.start;
        moved.end = to.end;
        let carried = old_len.min(len);
        if let Err(error) = self.table.move_range(old..old + carried, to.start) {
            // Tables that were made for the move map nothing.
            self.reserve_batch(to.clone(), batch)?;
            let (floor, ceiling) = self.areas.neighbours(to.start);
            self.table.free_tables(to, floor, ceiling, batch);
            return Err(error.into());
        }
        if carried > 0 {
            batch.push_range(from.clone());
        }
        if !keeps_old && old_len > 0 {
            let mut areas = core::mem::take(&mut self.areas);
            areas.remove(from.clone(), |vma| self.account(&vma, -1));
            self.areas = areas;
            // What a shrinking move leaves behind.
            self.zap(from.clone(), batch);
        }
        // Taking the old area out took at most two of the three places that were reserved.
        self.insert(moved);
        if !keeps_old && old_len > 0 {
            // Only now: the new area may be the neighbour whose tables must stay.
            let (floor, ceiling) = self.areas.neighbours(old);
            self.table.free_tables(from, floor, ceiling, batch);
        }
        Ok(())
    }
}
