//! Page faults: how a page appears when it is first touched.
//!
//! [`AddressSpace::try_fault`] is plain code and answers all that needs no waiting: zeros, a copy of a shared page, a page that the
//! cache holds. What has to wait (a page on disk, memory) it names, and [`AddressSpace::fault_in`] waits and tries again:
//!
//! ```text
//!   touch ──► try_fault ──► Ok                          go on
//!                 ▲     ├─► Stop::Fault(f)              SIGSEGV, SIGBUS
//!                 │     ├─► Stop::Page(file, index)     load it into the page cache ─┐
//!                 │     ├─► Stop::Memory                pass the gate ───────────────┤
//!                 │     └─► Stop::OtherCpus             let them forget the page ────┤
//!                 └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | area | first read | first write | write after read |
//! |---|---|---|---|
//! | anonymous | the frame of zeros; a fresh frame while other CPUs use the space | a fresh frame | a fresh frame |
//! | private file | the cache's page | a copy of it | a copy, unless nobody else holds the page |
//! | shared file | the cache's page, read-only | the cache's page, marked dirty | marked dirty |
//!
//! Where other CPUs may remember the page that a copy is to replace, it is hidden first and they are told (`shootdown.rs`), so that
//! nobody reads the old one after somebody has written to the new; the fault is then answered anew. Meanwhile, and wherever else a
//! change is being told, faults wait.
//!
//! A page that was waited for is held until it is mapped, so that it cannot be lost again before: progress is made.
//!
//! Next: `user.rs`. Exercise: why is a shared page mapped read-only at first?

use alloc::sync::Arc;
use core::ops::Range;

use abi::Errno;
use drivers::hw::Page;
use executor::sync::SpinGuard;

use super::address_space::{AddressSpace, AtomicLimits, Inner, Limits};
use super::frames::{FRAME_SIZE, Frame, Purpose};
use super::gate;
use super::page_table::{Batch, LEAF_SPAN, OutOfMemory, Slot};
use super::shootdown::SHOOTDOWN;
use super::vma::{Backing, MappedFile, Position, STACK_GUARD, Vma, VmaFlags};
use crate::arch::PageFault;
use crate::arch::paging::{self, Rights, USER_END, index};

/// Cached neighbours of a file page are mapped along with it: so many pages, aligned.
const AROUND: usize = 16;
/// A page that must be read from a device brings so many with it: 128 KiB, as Linux reads ahead.
const AHEAD: usize = 32;

/// How often a fault finds no memory, although the gate was open, before the program is killed.
const PATIENCE: usize = 100;

/// What a program was about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Fetch an instruction.
    Execute,
}

impl From<&PageFault> for Access {
    fn from(fault: &PageFault) -> Access {
        match (fault.write, fault.execute) {
            (true, _) => Access::Write,
            (_, true) => Access::Execute,
            _ => Access::Read,
        }
    }
}

/// Why it may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing is mapped there: SIGSEGV, `SEGV_MAPERR`.
    Unmapped,
    /// The area does not allow it: SIGSEGV, `SEGV_ACCERR`.
    Refused,
    /// Beyond the end of the file, or the device failed: SIGBUS, `BUS_ADRERR`.
    Bus,
    /// There is no memory, and none can be had: the program is to be killed.
    OutOfMemory,
}

/// Why a fault could not be answered at once.
pub enum Stop {
    /// It is refused.
    Fault(Fault),
    /// This page of a file must be brought into the page cache; `true`: for writing to it.
    Page(Arc<MappedFile>, u64, Access),
    /// There is no memory now.
    Memory,
    /// Other CPUs must forget the page before.
    OtherCpus,
}

impl From<OutOfMemory> for Stop {
    fn from(_: OutOfMemory) -> Stop {
        Stop::Memory
    }
}

/// A page of a file that was waited for.
struct Loaded {
    file: Arc<MappedFile>,
    index: u64,
    page: Page,
    is_reserved: bool,
}

impl AddressSpace {
    /// Makes the page at `address` accessible, if that needs no waiting.
    ///
    /// # Errors
    ///
    /// [`Stop`] says what is in the way.
    #[inline]
    pub fn try_fault(&self, address: usize, access: Access) -> Result<(), Stop> {
        self.fault(address, access, None, Lock::MayBeHeld)
    }

    /// Makes the page at `address` accessible, waiting for the disk and for memory.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the program may not do that.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: the page comes, or does not, and the next touch faults again.
    pub async fn fault_in(&self, address: usize, access: Access) -> Result<(), Fault> {
        let mut loaded = None;
        let mut shortages = 0;
        loop {
            match self.fault(address, access, loaded.as_ref(), Lock::NoneHeld) {
                Ok(()) => return Ok(()),
                Err(Stop::Fault(fault)) => return Err(fault),
                Err(Stop::OtherCpus) => {
                    executor::yield_now().await;
                    continue;
                }
                Err(Stop::Page(file, index, access)) => match Loaded::wait_for(&file, index, access).await {
                    Ok(page) => {
                        loaded = Some(page);
                        continue;
                    }
                    Err(Errno::ENOMEM) => {}
                    Err(_) => return Err(Fault::Bus),
                },
                Err(Stop::Memory) => {}
            }
            shortages += 1;
            if shortages > PATIENCE || gate::admit().await.is_err() {
                return Err(Fault::OutOfMemory);
            }
        }
    }

    fn fault(&self, address: usize, access: Access, loaded: Option<&Loaded>, lock: Lock) -> Result<(), Stop> {
        let page = address & !(FRAME_SIZE - 1);
        loop {
            let mut inner = self.inner.lock();
            if inner.flushing.touches(window(address)) {
                return Err(Stop::OtherCpus);
            }
            let at = inner.area_for(address, &self.limits).map_err(Stop::Fault)?;
            match inner.fault(at, page, access, loaded, self.is_exclusive()) {
                Err(Stop::OtherCpus) if lock == Lock::NoneHeld => self.hide(inner, page),
                result => return result,
            }
        }
    }

    /// Keeps everybody from the page, until it is touched again.
    #[cold]
    fn hide(&self, mut inner: SpinGuard<'_, Inner>, page: usize) {
        let mut batch = Batch::new(self.root(), true);
        if let Some(slot) = inner.table.slot(page) {
            slot.hide();
            batch.push(page, None);
        }
        self.tell_other_cpus(inner, batch);
    }
}

/// Whether other CPUs can be waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// A copy from or to user memory may be made under any lock.
    MayBeHeld,
    NoneHeld,
}

/// The pages that a fault may map.
#[inline]
fn window(address: usize) -> Range<usize> {
    let start = address & !(AROUND * FRAME_SIZE - 1);
    start..start.saturating_add(AROUND * FRAME_SIZE)
}

impl Fault {
    /// What a file system's answer means for the program.
    fn from_errno(errno: Errno) -> Fault {
        if errno == Errno::ENOMEM { Fault::OutOfMemory } else { Fault::Bus }
    }
}

impl Loaded {
    async fn wait_for(file: &Arc<MappedFile>, index: u64, access: Access) -> Result<Loaded, Errno> {
        let pages = &file.inode.core().pages;
        let is_reserved = access == Access::Write;
        let page = if is_reserved {
            pages.load_for_write(&*file.inode, index).await?
        } else {
            pages.load_ahead(&*file.inode, index, AHEAD).await?
        };
        Ok(Loaded { file: file.clone(), index, page, is_reserved })
    }

    fn is(&self, file: &MappedFile, index: u64) -> bool {
        Arc::ptr_eq(&self.file.inode, &file.inode) && self.index == index
    }
}

impl Inner {
    /// The area that `address` belongs to; a stack grows to it if it may.
    #[inline]
    pub(super) fn area_for(&mut self, address: usize, limits: &AtomicLimits) -> Result<Position, Fault> {
        if address >= USER_END {
            return Err(Fault::Unmapped);
        }
        let at = self.areas.locate(address);
        match self.areas.at(at) {
            Some(vma) if vma.start <= address => Ok(at),
            Some(vma) if vma.flags.contains(VmaFlags::GROWS_DOWN) => self.grow_stack(at, address, &limits.get()),
            _ => Err(Fault::Unmapped),
        }
    }

    #[cold]
    fn grow_stack(&mut self, at: Position, address: usize, limits: &Limits) -> Result<Position, Fault> {
        let start = address & !(FRAME_SIZE - 1);
        let below = self.areas.previous(at).and_then(|at| self.areas.at(at));
        // What cannot be touched is as good as a gap.
        let floor = below.map_or(0, |vma| if vma.rights.read { vma.end + STACK_GUARD } else { vma.end });
        let vma = self.areas.at(at).ok_or(Fault::Unmapped)?;
        if start < floor || (vma.end - start) as u64 > limits.stack {
            return Err(Fault::Unmapped);
        }
        let grown = Vma { start, end: vma.start, ..vma.clone() };
        self.check_limits(&grown, 0, limits).map_err(|_| Fault::Unmapped)?;
        self.account(&grown, 1);
        self.areas.at_mut(at).ok_or(Fault::Unmapped)?.start = start;
        Ok(at)
    }

    #[inline]
    fn fault(
        &mut self,
        at: Position,
        address: usize,
        access: Access,
        loaded: Option<&Loaded>,
        is_exclusive: bool,
    ) -> Result<(), Stop> {
        let vma = self.areas.at(at).ok_or(Stop::Fault(Fault::Unmapped))?;
        let is_allowed = match access {
            Access::Read => vma.rights.read,
            Access::Write => vma.rights.write,
            Access::Execute => vma.rights.execute,
        };
        if !is_allowed {
            return Err(Stop::Fault(Fault::Refused));
        }
        let writes = access == Access::Write;
        let (is_active, root) = (self.table.is_active(), self.table.root());
        let leaf = self.table.leaf_or_new(address)?;
        let slot = &mut leaf[index(address, 0)];
        let entry = slot.get();
        if entry.is_resident() {
            if !entry.is_present() && !writes {
                // It was hidden while the other CPUs forgot it.
                slot.set_rights(Rights { write: false, ..vma.rights });
            } else if writes && !entry.is_writable() {
                if !is_exclusive && entry.is_present() && wants_copy(vma, slot) {
                    return Err(Stop::OtherCpus);
                }
                let replaced = make_writable(vma, slot, address, loaded)?;
                if !entry.is_anonymous() && slot.get().is_anonymous() {
                    self.resident.anonymous += 1;
                    self.resident.file -= usize::from(entry.is_counted());
                }
                // The frame goes only when no translation leads to it any more.
                if is_active {
                    paging::flush_page(address);
                }
                drop(replaced);
            } else if is_active {
                // Somebody else was faster, or this CPU remembered what was.
                paging::flush_page(address);
            }
            return Ok(());
        }
        match &vma.backing {
            // A page of zeros that another CPU may remember too would have to be taken from it again before the first write, by an interrupt.
            Backing::Anonymous if writes || !is_exclusive && SHOOTDOWN.is_elsewhere(root) => {
                slot.install_anonymous(Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?, vma.rights);
                self.resident.anonymous += 1;
            }
            Backing::Anonymous => slot.install_zeros(vma.rights),
            Backing::Special { pages, page } => {
                let number = page + (address - vma.start) / FRAME_SIZE;
                let page = pages.pages.get(number).ok_or(Stop::Fault(Fault::Bus))?;
                let frame = Frame::of_page(page).ok_or(Stop::Fault(Fault::Bus))?;
                slot.install(frame, Rights { write: false, ..vma.rights });
                self.resident.file += 1;
            }
            Backing::File { file, page } => {
                let number = page + ((address - vma.start) / FRAME_SIZE) as u64;
                let frame = cached(file, number, access_to_cache(vma, access), loaded)?;
                if !vma.is_shared() && writes {
                    let copy = Frame::allocate(Purpose::User).ok_or(OutOfMemory)?;
                    copy.copy_from(&frame);
                    slot.install_anonymous(copy, vma.rights);
                    self.resident.anonymous += 1;
                } else {
                    if writes {
                        file.inode.core().pages.mark_dirty(number);
                    }
                    slot.install(frame, Rights { write: writes, ..vma.rights });
                    self.resident.file += 1;
                    if !writes {
                        self.resident.file += map_around(vma, file, leaf, address);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A private area never writes to the cache's page.
fn access_to_cache(vma: &Vma, access: Access) -> Access {
    if vma.is_shared() { access } else { Access::Read }
}

/// The cache's page, if it can be had without waiting; with room for it reserved if it is to be written.
fn cached(file: &Arc<MappedFile>, number: u64, access: Access, loaded: Option<&Loaded>) -> Result<Frame, Stop> {
    let core = file.inode.core();
    if number >= core.size().div_ceil(FRAME_SIZE as u64) {
        return Err(Stop::Fault(Fault::Bus));
    }
    let writes = access == Access::Write;
    let page = match loaded.filter(|loaded| loaded.is(file, number) && (loaded.is_reserved || !writes)) {
        // The cache's own if it still has it: a page that was waited for may have been cut off meanwhile.
        Some(loaded) => Ok(Ok(core.pages.get(number).unwrap_or_else(|| loaded.page.clone()))),
        None if writes => core.pages.load_for_write(&*file.inode, number).now(),
        None => core.pages.load(&*file.inode, number).now(),
    };
    match page {
        Ok(Ok(page)) => Frame::from_page(page).map_err(|_| Stop::Fault(Fault::Bus)),
        Ok(Err(Errno::ENOMEM)) => Err(Stop::Memory),
        Ok(Err(errno)) => Err(Stop::Fault(Fault::from_errno(errno))),
        Err(_waits) => Err(Stop::Page(file.clone(), number, access)),
    }
}

/// Whether a write to a page that may only be read gets a copy of it.
fn wants_copy(vma: &Vma, slot: &Slot) -> bool {
    let is_its_own = || slot.get().is_anonymous() && slot.with_frame(Frame::references) == Some(1);
    !vma.is_shared() && !is_its_own()
}

/// A write to a page that is there, but may only be read; returns the frame that a copy has replaced.
#[inline]
fn make_writable(vma: &Vma, slot: &mut Slot, address: usize, loaded: Option<&Loaded>) -> Result<Option<Frame>, Stop> {
    if vma.is_shared() {
        if let Some((file, number)) = vma.file_page(address) {
            cached(file, number, Access::Write, loaded)?;
            file.inode.core().pages.mark_dirty(number);
        }
        slot.set_rights(vma.rights);
        return Ok(None);
    }
    if !wants_copy(vma, slot) {
        slot.set_rights(vma.rights);
        return Ok(None);
    }
    let copy = Frame::allocate(Purpose::User).ok_or(OutOfMemory)?;
    if slot.with_frame(|frame| copy.copy_from(frame)).is_none() {
        copy.zero();
    }
    let replaced = slot.take();
    slot.install_anonymous(copy, vma.rights);
    Ok(replaced)
}

/// Maps the cached neighbours of a page too; returns how many.
fn map_around(vma: &Vma, file: &Arc<MappedFile>, leaf: &mut [Slot], address: usize) -> usize {
    let window = AROUND * FRAME_SIZE;
    let start = (address & !(window - 1)).max(vma.start);
    let end = ((address & !(window - 1)) + window).min(vma.end);
    debug_assert_eq!(start / LEAF_SPAN, (end - 1) / LEAF_SPAN);
    let Some((_, first)) = vma.file_page(start) else { return 0 };
    let core = file.inode.core();
    let pages = ((end - start) / FRAME_SIZE) as u64;
    let last = (first + pages).min(core.size().div_ceil(FRAME_SIZE as u64));
    let rights = Rights { write: false, ..vma.rights };
    let mut mapped = 0;
    core.pages.for_each_cached(first..last.max(first), |number, page| {
        let slot = &mut leaf[index(start, 0) + (number - first) as usize];
        if slot.is_empty()
            && let Some(frame) = Frame::of_page(page)
        {
            slot.install(frame, rights);
            mapped += 1;
        }
    });
    mapped
}
