//! An address space: what a program sees as its memory.
//!
//! Two things behind one lock: the map of areas ([`VmaMap`], what the program asked for) and the page table (what it has touched).
//! Nothing is mapped eagerly: a page appears when it is first touched, in `page_fault.rs`.
//!
//! ```text
//!   map, unmap, protect, remap, brk ──► areas        (inner.rs, protect.rs, remap.rs)
//!   a touch ──► page_fault.rs ──► area? rights? ──► page table
//!   fork.rs: the same areas, the same frames, write-protected on both sides
//!   mapper.rs: a file was cut or is written back: its pages leave the page table, or become read-only
//! ```
//!
//! The lock is a spin lock and is never held over an await. It comes before the page cache's locks.
//!
//! Next: `inner.rs`, then `page_fault.rs`.

mod inner;
mod limits;
mod request;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU64;

use abi::Errno;
use executor::sync::{SpinGuard, SpinLock};
use fs::Inode;

use super::frames::FRAME_SIZE;
use super::gate;
use super::layout::Layout;
use super::mapper::Mappers;
use super::page_table::{Batch, LEAF_SPAN, OutOfMemory, PageTable, Resident};
use super::rank;
use super::shootdown::SHOOTDOWN;
use super::vma::{Backing, Vma, VmaFlags, VmaMap};
use crate::arch::paging::{ENTRIES, Rights, USER_END};
use crate::mm::MakeRoom;

pub(super) use inner::{Flushing, Inner};
pub(super) use limits::AtomicLimits;
pub use limits::Limits;
pub use request::{MapRequest, Placement, Source};

/// How many leaf tables are emptied before others have their turn: up to 16 MiB.
const LEAVES_AT_ONCE: usize = 8;
/// The longest range that is unmapped at once in any case, in bytes.
pub const UNMAPPED_AT_ONCE: usize = LEAVES_AT_ONCE * LEAF_SPAN;

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Errno {
        Errno::ENOMEM
    }
}

/// A program's memory. Threads share it through the [`Arc`].
pub struct AddressSpace {
    root: u64,
    /// How often translations were taken away: see `shootdown.rs`.
    generation: AtomicU64,
    pub(super) me: Weak<AddressSpace>,
    pub(super) limits: AtomicLimits,
    pub(super) inner: SpinLock<Inner>,
}

impl AddressSpace {
    /// An address space with nothing in it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(layout: Layout, limits: Limits) -> Result<Arc<AddressSpace>, Errno> {
        gate::try_admit()?;
        let inner = Inner {
            areas: VmaMap::default(),
            table: PageTable::new()?,
            resident: Resident::default(),
            peak_resident: 0,
            peak_mapped: 0,
            mapped: 0,
            data: 0,
            locked: 0,
            layout,
            brk: 0..0,
            locks_new: false,
            mappers: Mappers::default(),
            flushing: Flushing::default(),
        };
        AddressSpace::with_inner(inner, limits, core::iter::empty())
    }

    /// Makes an address space of its content, and registers it with the files it maps.
    pub(super) fn with_inner<'a>(
        mut inner: Inner,
        limits: Limits,
        files: impl Iterator<Item = &'a Arc<dyn Inode>>,
    ) -> Result<Arc<AddressSpace>, Errno> {
        let mut registered = Ok(());
        let space = Arc::new_cyclic(|me| {
            for file in files {
                registered = registered.and_then(|()| inner.mappers.add(me, file));
            }
            AddressSpace {
                root: inner.table.root(),
                generation: AtomicU64::new(0),
                me: me.clone(),
                limits: AtomicLimits::new(limits),
                inner: SpinLock::ordered(rank::ADDRESS_SPACE, inner),
            }
        });
        registered?;
        Ok(space)
    }

    /// Makes it the one that user addresses mean on this CPU; costs nothing if it is that already.
    #[inline]
    pub fn activate(&self) {
        SHOOTDOWN.activate(self.root, &self.generation);
    }

    /// Whether it is the one that user addresses mean on this CPU.
    #[inline]
    pub fn is_active(&self) -> bool {
        crate::arch::paging::active_root() == self.root
    }

    /// Whether its one thread, which is here, is all that can use it: then what changes needs to be flushed on this CPU only.
    #[inline]
    pub(super) fn is_exclusive(&self) -> bool {
        crate::arch::cpus_online() == 1 || self.has_one_thread()
    }

    #[cold]
    fn has_one_thread(&self) -> bool {
        // A thread's two halves.
        const HALVES: usize = 2;
        SHOOTDOWN.is_here(self.root) && self.me.strong_count() <= HALVES && !SHOOTDOWN.is_elsewhere(self.root)
    }

    /// Works on areas and page table, for a thread of the address space's own; then flushes what has changed, and only then frees what
    /// was taken out. No lock is held by the caller.
    #[inline]
    pub(super) fn change<R>(&self, work: impl FnOnce(&mut Inner, &mut Batch) -> R) -> R {
        self.change_with(Batch::new(self.root, !self.is_exclusive()), work)
    }

    /// The same for somebody else, while its threads may be running.
    pub(super) fn change_from_outside<R>(&self, work: impl FnOnce(&mut Inner, &mut Batch) -> R) -> R {
        self.change_with(Batch::new(self.root, crate::arch::cpus_online() > 1), work)
    }

    #[inline]
    fn change_with<R>(&self, mut batch: Batch, work: impl FnOnce(&mut Inner, &mut Batch) -> R) -> R {
        let mut inner = self.inner.lock();
        let result = work(&mut inner, &mut batch);
        if let Some(hull) = inner.flushing.hull() {
            // Somebody's changes are still being told: what we say of the same place holds only when they are known.
            batch.push_range(hull);
        }
        if batch.is_pending() {
            self.tell_other_cpus(inner, batch);
        } else {
            // Flushed before anybody else can have the lock.
            drop(batch);
        }
        result
    }

    #[cold]
    pub(super) fn tell_other_cpus(&self, mut inner: SpinGuard<'_, Inner>, batch: Batch) {
        inner.flushing.begin(batch.hull());
        drop(inner);
        executor::sync::assert_no_lock_held();
        batch.flush(self.root, &self.generation);
        self.inner.lock().flushing.end();
    }

    /// Lets every CPU that runs one of its threads pass a memory barrier.
    pub fn barrier(&self) {
        SHOOTDOWN.barrier(Some(self.root));
    }

    /// The physical address of its root table: what tells two address spaces apart.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Its bounds.
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// New bounds (setrlimit); what is mapped stays.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// The bases it was laid out with.
    pub fn layout(&self) -> Layout {
        self.inner.lock().layout
    }

    /// Maps something; returns where.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no length, or an address or offset that is not a multiple of the page size. `ENOMEM`: no room, no memory, too many
    /// areas, or over `RLIMIT_AS` or `RLIMIT_DATA`. `EEXIST`: [`Placement::FixedNoReplace`] and something is there. `EPERM`: below the
    /// lowest address allowed. `EAGAIN`: over `RLIMIT_MEMLOCK`. `EOVERFLOW`: the file's offset goes too far.
    pub fn map(&self, request: MapRequest) -> Result<usize, Errno> {
        let len = page_up(request.len)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let backing = request.backing(len)?;
        gate::try_admit()?;
        self.change(|inner, batch| {
            let start = inner.place(request.placement, len)?;
            let mut flags = request.flags;
            if inner.locks_new {
                flags |= VmaFlags::LOCKED;
            }
            let vma = Vma { start, end: start + len, rights: request.rights, flags, backing };
            let replaced = inner.mapped_in(vma.range());
            inner.check_limits(&vma, replaced, &self.limits.get())?;
            inner.areas.reserve()?;
            inner.reserve_batch(vma.range(), batch)?;
            if let Backing::File { file, .. } = &vma.backing {
                inner.mappers.add(&self.me, &file.inode)?;
            }
            if replaced > 0 {
                inner.unmap(vma.range(), batch);
            }
            inner.insert(vma);
            Ok(start)
        })
    }

    /// Unmaps whatever is in the range.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no length, an address that is not a multiple of the page size, or beyond the user half. `ENOMEM`: cutting an
    /// area in two would make too many, or there is no memory to remember both.
    pub fn unmap(&self, address: usize, len: usize) -> Result<(), Errno> {
        let range = user_range(address, len)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.change(|inner, batch| {
            let cuts = inner.areas.find(address).is_some_and(|vma| vma.start < range.start && range.end < vma.end);
            if cuts && inner.areas.count() >= super::vma::areas_at_most() {
                return Err(Errno::ENOMEM);
            }
            inner.areas.reserve()?;
            inner.reserve_batch(range.clone(), batch)?;
            inner.unmap(range, batch);
            Ok(())
        })
    }

    /// The same for a long range, a part at a time, so that it does not hold up the CPU.
    ///
    /// # Errors
    ///
    /// As [`AddressSpace::unmap`].
    ///
    /// # Cancel safety
    ///
    /// What is left stays mapped.
    pub async fn unmap_in_parts(&self, address: usize, len: usize) -> Result<(), Errno> {
        let mut rest = user_range(address, len)?;
        loop {
            let end = self.inner.lock().table.end_of_part(rest.clone(), LEAVES_AT_ONCE);
            self.unmap(rest.start, end - rest.start)?;
            rest.start = end;
            if rest.is_empty() {
                return Ok(());
            }
            executor::yield_now().await;
        }
    }

    /// Says where brk begins: behind the program's last page, and chance's gap.
    pub fn set_brk_start(&self, address: usize) {
        let address = address.next_multiple_of(FRAME_SIZE);
        self.inner.lock().brk = address..address;
    }

    /// Moves brk(2) to `wanted`, if it can be moved there; returns where it is then.
    pub fn brk(&self, wanted: usize) -> usize {
        self.change(|inner, batch| self.move_brk(inner, batch, wanted))
    }

    fn move_brk(&self, inner: &mut Inner, batch: &mut Batch, wanted: usize) -> usize {
        let Range { start, end } = inner.brk.clone();
        if wanted < start || wanted >= USER_END {
            return end;
        }
        let (old, new) = (end.next_multiple_of(FRAME_SIZE), wanted.next_multiple_of(FRAME_SIZE));
        if inner.areas.reserve().is_err() || inner.reserve_batch(new.min(old)..old, batch).is_err() {
            return end;
        }
        if new < old {
            inner.unmap(new..old, batch);
        } else if new > old {
            // One page stays free below the next area, so that the heap never runs into it unseen.
            let next = inner.areas.at(inner.areas.locate(old)).map_or(USER_END, Vma::guarded_start);
            let rights = Rights { read: true, write: true, execute: false };
            let mut flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXECUTE;
            if inner.locks_new {
                flags |= VmaFlags::LOCKED;
            }
            let vma = Vma { start: old, end: new, rights, flags, backing: Backing::Anonymous };
            if new.saturating_add(FRAME_SIZE) > next || inner.check_limits(&vma, 0, &self.limits.get()).is_err() {
                return end;
            }
            inner.insert(vma);
        }
        inner.brk.end = wanted;
        wanted
    }

    /// Gives it up. If nobody else uses it, what it maps is freed a part at a time, so that a large program's end does not hold up its
    /// CPU; dropping does the same at once.
    ///
    /// # Cancel safety
    ///
    /// What is left is freed with the address space.
    pub async fn free(self: Arc<Self>) {
        if Arc::strong_count(&self) > 1 || self.inner.lock().resident.total() <= LEAVES_AT_ONCE * ENTRIES {
            return;
        }
        SHOOTDOWN.evict(self.root);
        while self.inner.lock().table.free_part(LEAVES_AT_ONCE) {
            executor::yield_now().await;
        }
    }
}

/// `len` rounded up to pages.
pub(super) fn page_up(len: usize) -> Result<usize, Errno> {
    len.checked_next_multiple_of(FRAME_SIZE).filter(|len| *len <= USER_END).ok_or(Errno::ENOMEM)
}

/// The pages from `address` on that `len` bytes take, if they lie in the user half.
pub(super) fn user_range(address: usize, len: usize) -> Result<Range<usize>, Errno> {
    if !address.is_multiple_of(FRAME_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).map_err(|_| Errno::EINVAL)?;
    let end = address.checked_add(len).filter(|end| *end <= USER_END).ok_or(Errno::EINVAL)?;
    Ok(address..end)
}

/// A list that may not find room for one more.
pub(super) fn try_push<T>(list: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    list.make_room(1).map_err(|_| OutOfMemory)?;
    list.push(value);
    Ok(())
}
