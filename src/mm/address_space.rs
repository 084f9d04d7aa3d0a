//! An address space: what a program sees as its memory.
//!
//! Two things behind one lock: the map of areas ([`VmaMap`], what the program asked for) and the page table (what it has touched).
//! Nothing is mapped eagerly: a page appears when it is first touched, in `page_fault.rs`.
//!
//! ```text
//!   map, unmap, protect, remap, brk ──► areas        (this file, protect.rs, remap.rs)
//!   a touch ──► page_fault.rs ──► area? rights? ──► page table
//!   fork.rs: the same areas, the same frames, write-protected on both sides
//!   mapper.rs: a file was cut or is written back: its pages leave the page table, or become read-only
//! ```
//!
//! The lock is a spin lock and is never held over an await. It comes before the page cache's locks.
//!
//! Next: `page_fault.rs`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abi::Errno;
use executor::sync::{SpinGuard, SpinLock};
use fs::Inode;

use super::frames::{self, FRAME_SIZE};
use super::gate;
use super::layout::{LOWEST, Layout};
use super::mapper::Mappers;
use super::page_table::{Batch, LEAF_SPAN, OutOfMemory, PageTable, Resident};
use super::rank;
use super::shootdown::SHOOTDOWN;
use super::vma::{Backing, MappedFile, SpecialPages, Vma, VmaFlags, VmaMap};
use crate::arch::paging::{Rights, USER_END};

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Errno {
        Errno::ENOMEM
    }
}

/// What bounds an address space; `u64::MAX` is no bound. In bytes, as setrlimit(2) has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `RLIMIT_AS`: all that is mapped.
    pub address_space: u64,
    /// `RLIMIT_DATA`: what is private and writable.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, locked: 8 << 20 }
    }
}

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Wherever there is room.
    Anywhere,
    /// Here if there is room, else anywhere.
    Hint(usize),
    /// Here, in place of whatever is there (`MAP_FIXED`).
    Fixed(usize),
    /// Here, or not at all (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(usize),
}

/// What is mapped.
#[derive(Clone)]
pub enum Source {
    /// Zeros, private.
    Anonymous,
    /// A file from a byte offset on; the flags say whether it is shared.
    File {
        /// The file.
        file: Arc<MappedFile>,
        /// A multiple of the page size.
        offset: u64,
    },
    /// The kernel's own pages.
    Special(Arc<SpecialPages>),
}

/// What mmap(2) asks for.
#[derive(Clone)]
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// How many bytes; rounded up to pages.
    pub len: usize,
    /// What the program may do there.
    pub rights: Rights,
    /// What is special about it.
    pub flags: VmaFlags,
    /// What.
    pub source: Source,
}

impl MapRequest {
    /// Private zeros, wherever there is room.
    pub fn anonymous(len: usize, rights: Rights) -> MapRequest {
        let flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXECUTE;
        MapRequest { placement: Placement::Anywhere, len, rights, flags, source: Source::Anonymous }
    }

    /// A private mapping of a file from `offset` on.
    pub fn private_file(file: Arc<MappedFile>, offset: u64, len: usize, rights: Rights) -> MapRequest {
        MapRequest { source: Source::File { file, offset }, ..MapRequest::anonymous(len, rights) }
    }

    /// The same, somewhere in particular.
    pub fn at(self, placement: Placement) -> MapRequest {
        MapRequest { placement, ..self }
    }

    /// The same, with more flags.
    pub fn with(mut self, flags: VmaFlags) -> MapRequest {
        self.flags |= flags;
        self
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

/// [`Limits`] that can change under way.
pub(super) struct AtomicLimits {
    address_space: AtomicU64,
    data: AtomicU64,
    pub(super) stack: AtomicU64,
    locked: AtomicU64,
}

/// What the lock protects.
pub(super) struct Inner {
    pub areas: VmaMap,
    pub table: PageTable,
    pub resident: Resident,
    /// The most pages there ever were in memory, and mapped.
    pub peak_resident: usize,
    pub peak_mapped: usize,
    /// Pages mapped, those of them that are data, and those that are locked.
    pub mapped: usize,
    pub data: usize,
    pub locked: usize,
    pub layout: Layout,
    /// Where brk began, and where it is.
    pub brk: Range<usize>,
    /// Every new mapping is locked (`mlockall(MCL_FUTURE)`).
    pub locks_new: bool,
    pub mappers: Mappers,
    pub flushing: Flushing,
}

/// The changes that other CPUs are being told of at this moment, without the lock. Where they are, nothing new is mapped meanwhile: a
/// CPU that still has the old translation would not see it.
#[derive(Default)]
pub(super) struct Flushing {
    count: usize,
    hull: Range<usize>,
}

impl Flushing {
    fn begin(&mut self, hull: Range<usize>) {
        self.hull = if self.count == 0 { hull } else { self.hull.start.min(hull.start)..self.hull.end.max(hull.end) };
        self.count += 1;
    }

    fn end(&mut self) {
        self.count -= 1;
    }

    /// Whether any of the range is concerned.
    #[inline]
    pub fn touches(&self, range: Range<usize>) -> bool {
        self.count > 0 && range.start < self.hull.end && self.hull.start < range.end
    }
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
        if inner.flushing.count > 0 {
            // Somebody's changes are still being told: what we say of the same place holds only when they are known.
            batch.push_range(inner.flushing.hull.clone());
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

    /// Frees all it maps, a part at a time, so that a large program's end does not hold up its CPU: for the reaper. Dropping does
    /// the same at once.
    ///
    /// # Cancel safety
    ///
    /// What is left is freed when the address space is dropped.
    pub async fn clear(&self) {
        const PART: usize = 1 << 30;
        loop {
            let rest = self.change_from_outside(|inner, batch| {
                let first = inner.areas.at(inner.areas.locate(0)).map(Vma::range);
                let range = first.map(|range| range.start..range.end.min(range.start.saturating_add(PART)))?;
                inner.areas.reserve().ok()?;
                inner.reserve_batch(range.clone(), batch).ok()?;
                inner.unmap(range, batch);
                Some(())
            });
            if rest.is_none() {
                return;
            }
            executor::yield_now().await;
        }
    }
}

impl MapRequest {
    fn backing(&self, len: usize) -> Result<Backing, Errno> {
        match &self.source {
            Source::Anonymous => Ok(Backing::Anonymous),
            Source::File { file, offset } => {
                if !offset.is_multiple_of(FRAME_SIZE as u64) {
                    return Err(Errno::EINVAL);
                }
                offset.checked_add(len as u64).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
                Ok(Backing::File { file: file.clone(), page: offset / FRAME_SIZE as u64 })
            }
            Source::Special(pages) => Ok(Backing::Special { pages: pages.clone(), page: 0 }),
        }
    }
}

impl Inner {
    /// Chooses the address for `len` bytes.
    pub fn place(&mut self, placement: Placement, len: usize) -> Result<usize, Errno> {
        match placement {
            Placement::Fixed(address) | Placement::FixedNoReplace(address) => {
                let range = user_range(address, len)
                    .map_err(|error| if address.is_multiple_of(FRAME_SIZE) { Errno::ENOMEM } else { error })?;
                if address < LOWEST {
                    return Err(Errno::EPERM);
                }
                if matches!(placement, Placement::FixedNoReplace(_)) && self.mapped_in(range) > 0 {
                    return Err(Errno::EEXIST);
                }
                Ok(address)
            }
            Placement::Hint(address) => {
                let address = (address & !(FRAME_SIZE - 1)).max(LOWEST);
                match user_range(address, len) {
                    Ok(range) if self.is_free(range.clone()) => Ok(address),
                    _ => self.place(Placement::Anywhere, len),
                }
            }
            Placement::Anywhere => {
                let base = self.layout.mmap_base;
                let below = self.areas.gap_below(base, LOWEST, len);
                below.or_else(|| self.areas.gap_above(base, USER_END, len)).ok_or(Errno::ENOMEM)
            }
        }
    }

    /// Whether nothing is mapped in the range, nor is it a stack's guard gap.
    pub fn is_free(&self, range: Range<usize>) -> bool {
        let at = self.areas.locate(range.start);
        self.areas.at(at).is_none_or(|next| range.end <= next.guarded_start())
    }

    /// How many pages are mapped in the range.
    pub fn mapped_in(&self, range: Range<usize>) -> usize {
        let part = |vma: &Vma| (vma.end.min(range.end) - vma.start.max(range.start)) / FRAME_SIZE;
        self.areas.overlapping(range.clone()).map(part).sum()
    }

    /// Whether `vma` may come in place of `replaced` pages.
    pub fn check_limits(&self, vma: &Vma, replaced: usize, limits: &Limits) -> Result<(), Errno> {
        let pages = |bytes: u64| usize::try_from(bytes / FRAME_SIZE as u64).unwrap_or(usize::MAX);
        if self.areas.count() + 2 > super::vma::areas_at_most()
            || self.mapped - replaced + vma.pages() > pages(limits.address_space)
        {
            return Err(Errno::ENOMEM);
        }
        if vma.is_data() {
            if self.data + vma.pages() > pages(limits.data) {
                return Err(Errno::ENOMEM);
            }
            // What can never come true is refused now: Linux's heuristic overcommit.
            if !vma.flags.contains(VmaFlags::NO_RESERVE) && vma.pages() > frames::total() {
                return Err(Errno::ENOMEM);
            }
        }
        if vma.flags.contains(VmaFlags::LOCKED) && self.locked + vma.pages() > pages(limits.locked) {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Adds an area where there is none.
    pub fn insert(&mut self, vma: Vma) {
        self.account(&vma, 1);
        self.areas.insert(vma);
    }

    /// Counts an area in (`sign` = 1) or out (-1).
    pub fn account(&mut self, vma: &Vma, sign: isize) {
        let pages = vma.pages() as isize * sign;
        self.mapped = self.mapped.wrapping_add_signed(pages);
        self.peak_mapped = self.peak_mapped.max(self.mapped);
        if vma.is_data() {
            self.data = self.data.wrapping_add_signed(pages);
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked = self.locked.wrapping_add_signed(pages);
        }
    }

    /// Makes room in `batch` for all that may be mapped in the range, and the tables that map it.
    pub fn reserve_batch(&self, range: Range<usize>, batch: &mut Batch) -> Result<(), OutOfMemory> {
        let (pages, resident) = (range.len() / FRAME_SIZE, self.resident.anonymous + self.resident.file);
        // Each level has one table more than it has whole ones in the range, and the range may begin and end within one.
        let tables = (range.len() / LEAF_SPAN + 6 + range.len() / (LEAF_SPAN << 9)).min(self.table.tables());
        batch.reserve(pages.min(resident), tables)
    }

    /// Unmaps the range, areas and pages. Room for two more areas was reserved, and room in `batch`.
    pub fn unmap(&mut self, range: Range<usize>, batch: &mut Batch) {
        let mut areas = core::mem::take(&mut self.areas);
        let mut forgets_file = false;
        areas.remove(range.clone(), |vma| {
            self.account(&vma, -1);
            self.zap(vma.range(), batch);
            forgets_file |= matches!(vma.backing, Backing::File { .. });
        });
        self.areas = areas;
        if forgets_file {
            self.forget_unmapped_files();
        }
        let (floor, ceiling) = self.areas.neighbours(range.start);
        self.table.free_tables(range, floor, ceiling, batch);
    }

    /// Lets go of files that no area maps any more; with very many areas only from time to time.
    fn forget_unmapped_files(&mut self) {
        if self.areas.count() > 256 && !self.areas.count().is_multiple_of(64) {
            return;
        }
        let areas = &self.areas;
        let files = || areas.iter().filter_map(|vma| vma.file_page(vma.start));
        self.mappers.retain(|inode| files().any(|(file, _)| Arc::ptr_eq(&file.inode, inode)));
    }

    /// Takes all pages of the range out of the page table.
    pub fn zap(&mut self, range: Range<usize>, batch: &mut Batch) {
        self.note_peak();
        let zapped = self.table.zap(range, batch);
        self.resident.anonymous -= zapped.anonymous;
        self.resident.file -= zapped.file;
    }

    /// Unmaps everything, area by area: cheaper than looking for it in the page table.
    fn unmap_all(&mut self) {
        // Nobody holds it: everything goes at once.
        let mut batch = Batch::new(self.table.root(), false);
        for vma in self.areas.iter() {
            self.table.zap(vma.range(), &mut batch);
        }
        for vma in self.areas.iter() {
            self.table.free_tables(vma.range(), 0, USER_END, &mut batch);
        }
    }

    /// Remembers the most memory there ever was. Called before it becomes less.
    pub fn note_peak(&mut self) {
        self.peak_resident = self.peak_resident.max(self.resident.anonymous + self.resident.file);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.table.deactivate();
        self.unmap_all();
    }
}

impl AtomicLimits {
    fn new(limits: Limits) -> AtomicLimits {
        AtomicLimits {
            address_space: AtomicU64::new(limits.address_space),
            data: AtomicU64::new(limits.data),
            stack: AtomicU64::new(limits.stack),
            locked: AtomicU64::new(limits.locked),
        }
    }

    pub fn get(&self) -> Limits {
        Limits {
            address_space: self.address_space.load(Relaxed),
            data: self.data.load(Relaxed),
            stack: self.stack.load(Relaxed),
            locked: self.locked.load(Relaxed),
        }
    }

    fn set(&self, limits: Limits) {
        self.address_space.store(limits.address_space, Relaxed);
        self.data.store(limits.data, Relaxed);
        self.stack.store(limits.stack, Relaxed);
        self.locked.store(limits.locked, Relaxed);
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
    list.try_reserve(1).map_err(|_| OutOfMemory)?;
    list.push(value);
    Ok(())
}
