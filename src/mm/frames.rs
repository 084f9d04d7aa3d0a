//! Frames: physical memory, four kilobytes at a time, each with a count of its owners.
//!
//! [`Frame`] is one counted reference, as small as a number; [`drivers::hw::Page`] is the same thing for drivers and file
//! systems. A frame that is freed goes to its CPU's own cache, and in batches from there to the buddy allocator
//! (`frames/buddy.rs`), which alone takes a lock.
//!
//! ```text
//!   Frame::allocate ──► this CPU's cache ──batch──► buddy lists ──► dormant sections
//!   drop of the last ─►       (no lock)   ◄──────
//! ```
//!
//! **Reserve.** Memory that programs ask for ([`Purpose::User`]) is refused while less than the reserve is free; what the
//! kernel needs to go on ([`Purpose::Kernel`]) may use it up. System calls and faults that will allocate pass `gate.rs` before,
//! so that a shortage is met there, where one can wait or say `ENOMEM`.
//!
//! Next: `frames/metadata.rs`. Exercise: how many instructions does the second of two pairs of allocate and drop take?

mod buddy;
mod metadata;
mod per_cpu;
mod poison;

use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use drivers::hw::{Page, PageSource, PhysAddr};
use executor::sync::SpinLock;

use super::gate;
use crate::arch::{self, BootInfo, MemoryKind};
use buddy::Buddy;
use metadata::Sections;
pub(super) use metadata::{Metadata, State};
pub(super) use per_cpu::{Initial, PerCpu};

/// Bytes in a frame.
pub const FRAME_SIZE: usize = drivers::hw::PAGE_SIZE;
/// Frames a CPU's cache holds.
const CACHE: usize = 128;
/// Frames that move between a cache and the buddy allocator at once.
const BATCH: usize = 32;
const BATCH_ORDER: usize = BATCH.ilog2() as usize;

static SECTIONS: Sections = Sections::new();
static BUDDY: SpinLock<Buddy> = SpinLock::ordered(super::rank::FRAMES, Buddy::new(&SECTIONS));
static CACHES: PerCpu<Cache> = PerCpu::new();
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static RESERVE: AtomicUsize = AtomicUsize::new(0);
/// What the buddy allocator has free: its own count, readable without its lock.
static FREE: AtomicUsize = AtomicUsize::new(0);

/// What memory is for: whether it may come out of the kernel's reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A program asked for it: refused when only the reserve is left.
    User,
    /// The kernel needs it to go on.
    Kernel,
}

/// Frames that are free but belong to one CPU.
struct Cache {
    count: usize,
    frames: [u32; CACHE],
}

impl Initial for Cache {
    const INITIAL: Cache = Cache { count: 0, frames: [0; CACHE] };
}

/// Takes over the memory that the boot loader calls usable. Called once, before the first allocation.
///
/// # Panics
///
/// If it is called again.
pub fn init(info: &BootInfo) {
    assert_eq!(total(), 0, "memory is taken over once");
    let usable = info.memory.iter().filter(|region| region.kind == MemoryKind::Usable);
    let ram = info.memory.iter().filter(|region| region.kind.is_ram());
    let end = ram.map(|region| region.end).max().unwrap_or(0);
    let mut buddy = BUDDY.lock();
    // SAFETY: the boot code vouches for its memory map: usable regions do not overlap, nobody uses them, and the direct map
    // covers them; this happens once, as asserted.
    let frames = unsafe { buddy.add_memory(usable.map(|region| region.start..region.end), end) };
    FREE.store(buddy.free(), Ordering::Relaxed);
    TOTAL.store(frames, Ordering::Relaxed);
    set_reserve();
}

/// The reserve is a part of the memory, which grows once, when the initial archive is given back.
fn set_reserve() {
    RESERVE.store((total() / 64).clamp(32, 4096), Ordering::Relaxed);
}

/// The initial file system as the boot loader left it in memory: what is passed or dropped is free memory from then on.
pub struct Initrd {
    range: Range<u64>,
    /// The first frame that is not free yet.
    kept: u32,
}

impl Initrd {
    /// Takes it, if the boot loader brought one and nobody has taken it yet.
    pub fn take(info: &BootInfo) -> Option<Initrd> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let range = info.initrd.clone().filter(|range| range.start < range.end)?;
        let kept = range.start.div_ceil(FRAME_SIZE as u64) as u32;
        (!TAKEN.swap(true, Ordering::AcqRel)).then_some(Initrd { range, kept })
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &[u8] {
        let len = (self.range.end - self.range.start) as usize;
        // SAFETY: the range is RAM behind the direct map, marked as the initrd's, so the allocator never gave it to anyone; frames
        // are freed only when the range, which the slice borrows, does not hold them any more; nobody writes to it.
        unsafe { core::slice::from_raw_parts(arch::direct_map(self.range.start), len) }
    }

    /// Passes the first `len` bytes, or all if there are fewer: the frames that hold nothing of the rest are free.
    pub fn advance(&mut self, len: usize) {
        self.range.start = self.range.start.saturating_add(len as u64).min(self.range.end);
        let end = (self.range.start / FRAME_SIZE as u64) as u32;
        if self.kept < end {
            let mut buddy = BUDDY.lock();
            let freed = buddy.add_range(self.kept, end);
            FREE.store(buddy.free(), Ordering::Relaxed);
            TOTAL.fetch_add(freed, Ordering::Relaxed);
            self.kept = end;
            drop(buddy);
            set_reserve();
        }
    }
}

impl Drop for Initrd {
    fn drop(&mut self) {
        self.advance(self.rest().len());
    }
}

/// Frames under the allocator's rule.
pub fn total() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

/// Frames that are free now, those in the CPUs' caches included.
pub fn free() -> usize {
    // SAFETY: the pointer is valid for ever; the number is read as one word, whatever its CPU does to it meanwhile.
    FREE.load(Ordering::Relaxed) + CACHES.sum(|cache| unsafe { (&raw const (*cache).count).read_volatile() })
}

/// Frames that this CPU can have now: all that are free but what other CPUs keep for themselves.
pub fn free_here() -> usize {
    FREE.load(Ordering::Relaxed) + CACHES.with(|cache| cache.count)
}

/// At least so many frames are free: all but what CPUs keep for themselves. Cheaper than [`free`].
#[inline]
pub fn surely_free() -> usize {
    FREE.load(Ordering::Relaxed)
}

/// Frames that programs cannot have.
#[inline]
pub fn reserve() -> usize {
    RESERVE.load(Ordering::Relaxed)
}

/// One reference to a frame; dropping the last one frees it.
///
/// Its bytes may be changed at any time by a program that has mapped it, or by a device: they are copied, never lent.
#[derive(PartialEq, Eq, Debug)]
pub struct Frame(core::num::NonZeroU32);

impl Frame {
    /// Takes a frame whose content is unspecified.
    #[inline]
    pub fn allocate(purpose: Purpose) -> Option<Frame> {
        if faults::strikes() {
            return None;
        }
        let number = CACHES.with(|cache| {
            if cache.count == 0 {
                cache.refill(purpose);
            }
            cache.count = cache.count.checked_sub(1)?;
            Some(cache.frames[cache.count])
        })?;
        faults::count(1);
        // SAFETY: the allocator just gave out `number`, as below.
        unsafe { poison::taken(number, 1) };
        // SAFETY: as above.
        unsafe { SECTIONS.of(number) }.references.store(1, Ordering::Relaxed);
        core::num::NonZeroU32::new(number).map(Frame)
    }

    /// Takes a frame filled with zeros.
    #[inline]
    pub fn allocate_zeroed(purpose: Purpose) -> Option<Frame> {
        let frame = Frame::allocate(purpose)?;
        frame.zero();
        Some(frame)
    }

    /// Another reference to the same frame.
    #[inline]
    pub fn share(&self) -> Frame {
        // Relaxed: a new reference comes from one that exists, as with Arc.
        self.metadata().references.fetch_add(1, Ordering::Relaxed);
        Frame(self.0)
    }

    /// How many references there are now: only a hint unless the caller excludes new ones.
    #[inline]
    pub fn references(&self) -> u32 {
        self.metadata().references.load(Ordering::Acquire)
    }

    /// Its physical address.
    #[inline]
    pub fn physical(&self) -> u64 {
        u64::from(self.0.get()) * FRAME_SIZE as u64
    }

    /// Where the kernel sees its bytes.
    #[inline]
    pub fn pointer(&self) -> NonNull<u8> {
        NonNull::new(arch::direct_map(self.physical())).expect("the direct map does not begin at zero")
    }

    /// Fills it with zeros.
    #[inline]
    pub fn zero(&self) {
        // SAFETY: a frame is FRAME_SIZE bytes of RAM; its bytes are never lent as references.
        unsafe { self.pointer().as_ptr().cast::<u64>().write_bytes(0, FRAME_SIZE / 8) }
    }

    /// Copies the whole content of `from`.
    #[inline]
    pub fn copy_from(&self, from: &Frame) {
        debug_assert_ne!(self.0, from.0);
        // SAFETY: as in `zero`; two frames do not overlap.
        unsafe {
            core::ptr::copy_nonoverlapping(
                from.pointer().as_ptr().cast::<u64>(),
                self.pointer().as_ptr().cast::<u64>(),
                FRAME_SIZE / 8,
            )
        }
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If the range leaves the frame.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= FRAME_SIZE && into.len() <= FRAME_SIZE - offset, "range leaves the frame");
        // SAFETY: as in `zero`, the range was checked; `into` is borrowed memory, which a frame never is.
        unsafe { core::ptr::copy_nonoverlapping(self.pointer().as_ptr().add(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If the range leaves the frame.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= FRAME_SIZE && bytes.len() <= FRAME_SIZE - offset, "range leaves the frame");
        // SAFETY: as in `zero`, the range was checked; `bytes` is borrowed memory, which a frame never is.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer().as_ptr().add(offset), bytes.len()) }
    }

    /// The same reference as a `Page`, for drivers and file systems.
    pub fn into_page(self) -> Page {
        let physical = self.into_raw();
        // SAFETY: the frame is ours, and the reference is given up here.
        unsafe { Page::from_frame(PhysAddr(physical), &FRAMES) }
    }

    /// The same reference as a frame, if the page is one of this allocator's.
    ///
    /// # Errors
    ///
    /// The page, if it comes from elsewhere (a test's own source).
    pub fn from_page(page: Page) -> Result<Frame, Page> {
        let PhysAddr(physical) = page.frame();
        let is_ours = u32::try_from(physical / FRAME_SIZE as u64).is_ok_and(|number| SECTIONS.get(number).is_some());
        if !is_ours {
            return Err(page);
        }
        // SAFETY: the page is a frame of this allocator, and its reference is given up.
        Ok(unsafe { Frame::from_raw(page.into_frame().0) })
    }

    /// Another reference to a page's frame; `None` if the page comes from elsewhere.
    #[inline]
    pub fn of_page(page: &Page) -> Option<Frame> {
        let PhysAddr(physical) = page.frame();
        SECTIONS.get(u32::try_from(physical / FRAME_SIZE as u64).ok()?)?;
        // SAFETY: the page is a frame of this allocator and keeps its own reference: the value here is not dropped.
        Some(ManuallyDrop::new(unsafe { Frame::from_raw(physical) }).share())
    }

    /// Gives up the value but keeps the reference counted.
    #[inline]
    pub(super) fn into_raw(self) -> u64 {
        let physical = self.physical();
        core::mem::forget(self);
        physical
    }

    /// The inverse of [`Frame::into_raw`].
    ///
    /// # Safety
    ///
    /// `physical` is a frame of this allocator, and the caller gives up one counted reference.
    #[inline]
    pub(super) unsafe fn from_raw(physical: u64) -> Frame {
        // SAFETY: frame 0 is never given out.
        Frame(unsafe { core::num::NonZeroU32::new_unchecked((physical / FRAME_SIZE as u64) as u32) })
    }

    #[inline]
    fn metadata(&self) -> &'static Metadata {
        // SAFETY: a `Frame` is an allocated frame.
        unsafe { SECTIONS.of(self.0.get()) }
    }

    #[cold]
    #[inline(never)]
    fn free(&self) {
        free_number(self.0.get());
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        // AcqRel: what other owners did to the frame comes before its reuse. A sole owner needs no atomic step.
        let references = &self.metadata().references;
        if references.load(Ordering::Acquire) == 1 || references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.free();
        }
    }
}

fn free_number(number: u32) {
    faults::count(-1);
    // SAFETY: as below.
    unsafe { poison::given_back(number, 1) };
    // SAFETY: the frame was allocated, and its last owner frees it.
    unsafe { SECTIONS.of(number) }.references.store(0, Ordering::Relaxed);
    CACHES.with(|cache| {
        if cache.count == CACHE {
            cache.drain(BATCH);
        }
        cache.frames[cache.count] = number;
        cache.count += 1;
    });
}

impl Cache {
    /// Takes a batch from the buddy allocator.
    #[cold]
    fn refill(&mut self, purpose: Purpose) {
        let mut buddy = BUDDY.lock();
        if purpose == Purpose::User && buddy.free() <= reserve() {
            drop(buddy);
            gate::note_shortage();
            return;
        }
        if let Some(block) = buddy.allocate(BATCH_ORDER) {
            for number in (block..block + BATCH as u32).rev() {
                self.push(number);
            }
        } else {
            while self.count < BATCH
                && let Some(number) = buddy.allocate(0)
            {
                self.push(number);
            }
        }
        let free = buddy.free();
        FREE.store(free, Ordering::Relaxed);
        drop(buddy);
        if free < gate::low_watermark() {
            gate::note_shortage();
        }
    }

    fn push(&mut self, number: u32) {
        self.frames[self.count] = number;
        self.count += 1;
    }

    /// Gives the oldest `count` frames back to the buddy allocator.
    #[cold]
    fn drain(&mut self, count: usize) {
        let mut buddy = BUDDY.lock();
        for &number in &self.frames[..count] {
            buddy.free_block(number, 0);
        }
        FREE.store(buddy.free(), Ordering::Relaxed);
        self.frames.copy_within(count..self.count, 0);
        self.count -= count;
    }
}

/// Takes `count` contiguous frames, each with one reference; below 4 GiB if there is such memory. Content unspecified.
pub(super) fn allocate_contiguous(count: usize) -> Option<u64> {
    // Slabs come from here, and what is in them cannot fail softly: in the kernel only the tests on the host let it fail.
    if count == 0 || cfg!(test) && faults::strikes() {
        return None;
    }
    let take = || {
        let mut buddy = BUDDY.lock();
        let block = buddy.allocate_contiguous(count);
        FREE.store(buddy.free(), Ordering::Relaxed);
        block
    };
    let block = take().or_else(|| {
        // What this CPU hoards may be the missing piece.
        CACHES.with(|cache| cache.drain(cache.count));
        take()
    })?;
    // SAFETY: just allocated.
    unsafe { poison::taken(block, count) };
    for number in block..block + count as u32 {
        // SAFETY: just allocated.
        unsafe { SECTIONS.of(number) }.references.store(1, Ordering::Relaxed);
    }
    faults::count(count as isize);
    Some(u64::from(block) * FRAME_SIZE as u64)
}

/// Frees `count` frames from `physical` on, each the last reference.
///
/// # Safety
///
/// They came from [`allocate_contiguous`], and nobody uses them any more.
pub(super) unsafe fn free_contiguous(physical: u64, count: usize) {
    let first = (physical / FRAME_SIZE as u64) as u32;
    faults::count(-(count as isize));
    // SAFETY: the caller's promise.
    unsafe { poison::given_back(first, count) };
    for number in first..first + count as u32 {
        // SAFETY: the caller's promise.
        unsafe { SECTIONS.of(number) }.references.store(0, Ordering::Relaxed);
    }
    let mut buddy = BUDDY.lock();
    buddy.free_range(first, first + count as u32);
    FREE.store(buddy.free(), Ordering::Relaxed);
}

/// The metadata of an allocated frame, for the heap's slabs.
///
/// # Safety
///
/// The frame at `physical` was given out by this allocator.
#[inline]
pub(super) unsafe fn metadata(physical: u64) -> &'static Metadata {
    // SAFETY: the caller's promise.
    unsafe { SECTIONS.of((physical / FRAME_SIZE as u64) as u32) }
}

/// The kernel's frames as drivers and file systems ask for them. See [`FRAMES`].
pub struct Frames;

/// The one [`Frames`].
pub static FRAMES: Frames = Frames;

// SAFETY: frames come from the buddy allocator with a count of one, lie behind the direct map in physical order, and return to the
// allocator when the count comes down to zero.
unsafe impl PageSource for Frames {
    fn allocate(&self) -> Option<PhysAddr> {
        Frame::allocate(Purpose::User).map(|frame| PhysAddr(frame.into_raw()))
    }

    fn allocate_contiguous(&self, count: usize) -> Option<PhysAddr> {
        let physical = allocate_contiguous(count)?;
        // SAFETY: just allocated, `count` frames behind each other.
        unsafe { arch::direct_map(physical).write_bytes(0, count * FRAME_SIZE) };
        Some(PhysAddr(physical))
    }

    fn retain(&self, frame: PhysAddr) {
        // SAFETY: a `Page` holds a reference, so the frame is allocated; the borrowed value must not drop it.
        core::mem::forget(ManuallyDrop::new(unsafe { Frame::from_raw(frame.0) }).share());
    }

    fn release(&self, frame: PhysAddr) {
        // SAFETY: the caller gives up a reference.
        drop(unsafe { Frame::from_raw(frame.0) });
    }

    fn references(&self, frame: PhysAddr) -> u32 {
        // SAFETY: a `Page` holds a reference, so the frame is allocated.
        ManuallyDrop::new(unsafe { Frame::from_raw(frame.0) }).references()
    }

    fn address(&self, frame: PhysAddr) -> NonNull<u8> {
        NonNull::new(arch::direct_map(frame.0)).expect("the direct map does not begin at zero")
    }
}

/// Allocations that go well before one fails on demand; `NO_DEMAND` if none is to.
static UNTIL_FAILURE: AtomicUsize = AtomicUsize::new(NO_DEMAND);
const NO_DEMAND: usize = usize::MAX;
/// Says whether an allocation counts.
static CONCERNS: SpinLock<Option<fn() -> bool>> = SpinLock::new(None);

/// Lets an allocation fail, once: the one after `countdown` others among those for which `concerns` is true. In a kernel with debug
/// assertions, for tests; elsewhere without effect. What can fail softly counts: frames of programs, page tables, `try_box`, the gate.
pub fn demand_failure(countdown: Option<usize>, concerns: fn() -> bool) {
    *CONCERNS.lock() = Some(concerns);
    UNTIL_FAILURE.store(countdown.unwrap_or(NO_DEMAND), Ordering::Relaxed);
}

/// After how many more allocations the one that was asked for fails; `None` if it has, or none was asked for.
pub fn demanded_failure() -> Option<usize> {
    Some(UNTIL_FAILURE.load(Ordering::Relaxed)).filter(|left| *left != NO_DEMAND)
}

/// Whether this allocation is the one that is to fail.
#[inline]
pub(super) fn strikes_on_demand() -> bool {
    cfg!(debug_assertions) && UNTIL_FAILURE.load(Ordering::Relaxed) != NO_DEMAND && count_down()
}

#[cold]
fn count_down() -> bool {
    let concerns = *CONCERNS.lock();
    if !concerns.is_some_and(|concerns| concerns()) {
        return false;
    }
    let left = UNTIL_FAILURE.load(Ordering::Relaxed);
    UNTIL_FAILURE.store(left.checked_sub(1).unwrap_or(NO_DEMAND), Ordering::Relaxed);
    left == 0
}

/// Fault injection and a balance, for tests: what a thread allocates and frees, and when its allocations fail.
pub(super) mod faults {
    #[cfg(test)]
    #[allow(clippy::items_after_test_module, reason = "it holds no tests")]
    mod tested {
        use std::cell::Cell;

        thread_local! {
            static UNTIL_FAILURE: Cell<Option<usize>> = const { Cell::new(None) };
            static BALANCE: Cell<isize> = const { Cell::new(0) };
        }

        /// Makes this thread's allocation number `countdown` from now fail (0: the next), once.
        pub fn fail_after(countdown: Option<usize>) {
            UNTIL_FAILURE.set(countdown);
        }

        /// Whether the failure asked for is still to come.
        pub fn is_armed() -> bool {
            UNTIL_FAILURE.get().is_some()
        }

        /// Frames this thread has allocated and not freed.
        pub fn balance() -> isize {
            BALANCE.get()
        }

        pub fn strikes() -> bool {
            let now = UNTIL_FAILURE.get();
            UNTIL_FAILURE.set(now.and_then(|countdown| countdown.checked_sub(1)));
            now == Some(0)
        }

        pub fn count(frames: isize) {
            BALANCE.set(BALANCE.get() + frames);
        }
    }

    #[cfg(test)]
    pub use tested::*;

    /// In a kernel with checks, a failure that /proc/rouse/allocation-fault has asked for; else never.
    #[cfg(not(test))]
    #[inline(always)]
    pub fn strikes() -> bool {
        cfg!(debug_assertions) && super::strikes_on_demand()
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub fn count(_frames: isize) {}
}
