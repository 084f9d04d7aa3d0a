//! The hardware a driver may touch, as values: holding one is the permission to use it.
//!
//! - [`Mmio`]: a window of device registers. - [`Port`]: a range of I/O ports. - [`Page`]: one counted frame of memory.
//! - [`Dma`]: the right to hand memory to a device, and [`DmaBuffer`], memory that driver and device share for long.
//!
//! This file is the only one in this crate with `unsafe`: the kernel makes the values, with `unsafe` constructors whose
//! obligations are stated; using them is safe.
//!
//! A frame's bytes may be changed at any time by a device, or by a program that has mapped it. They are therefore never lent
//! as a `&[u8]`; they are copied in and out.
//!
//! Next: `irq.rs`.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use executor::sync::SpinLock;

/// The size of a page and of a frame, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// A physical address: what the CPU's page tables hold. What a device is told is a [`DmaAddr`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysAddr({:#x})", self.0)
    }
}

/// An address as a device sees it on its bus. Behind an IOMMU it differs from the [`PhysAddr`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmaAddr(pub u64);

impl fmt::Debug for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaAddr({:#x})", self.0)
    }
}

/// Where counted frames come from. The kernel implements it over its frame allocator, [`HostPages`] over the host's heap.
///
/// # Safety
///
/// - `allocate` and `allocate_contiguous` return frames that nobody else uses, with a count of one each.
/// - `address` of a frame points to [`PAGE_SIZE`] readable and writable bytes, aligned to a page, as long as its count is not zero;
///   frames of one contiguous allocation lie behind each other there too.
/// - A frame is reused only when its count has come down to zero.
pub unsafe trait PageSource: Sync {
    /// Takes one frame, its content unspecified; `None` when memory is short.
    fn allocate(&self) -> Option<PhysAddr>;
    /// Takes `count` frames that are physically contiguous, zeroed, below 4 GiB if possible; `None` when there are none.
    fn allocate_contiguous(&self, count: usize) -> Option<PhysAddr>;
    /// Adds one to the frame's count.
    fn retain(&self, frame: PhysAddr);
    /// Takes one from the frame's count, and frees it at zero.
    fn release(&self, frame: PhysAddr);
    /// How many references there are now.
    fn references(&self, frame: PhysAddr) -> u32;
    /// Where the kernel sees the frame.
    fn address(&self, frame: PhysAddr) -> NonNull<u8>;
    /// Where a device sees the frame.
    fn device_address(&self, frame: PhysAddr) -> DmaAddr {
        DmaAddr(frame.0)
    }
}

/// One counted frame. Cloning it adds a reference; dropping the last one frees it.
///
/// The page cache, I/O requests and mappings of user memory hold the same frame through their own `Page`.
pub struct Page {
    frame: PhysAddr,
    source: &'static dyn PageSource,
}

impl Page {
    /// Takes a frame whose content is unspecified; `None` when memory is short.
    pub fn allocate(source: &'static dyn PageSource) -> Option<Page> {
        Some(Page { frame: source.allocate()?, source })
    }

    /// Takes a frame filled with zeros; `None` when memory is short.
    pub fn allocate_zeroed(source: &'static dyn PageSource) -> Option<Page> {
        let page = Page::allocate(source)?;
        page.zero(0, PAGE_SIZE);
        Some(page)
    }

    /// Makes a `Page` of a reference that the caller owns (such as one kept in a page-table entry).
    ///
    /// # Safety
    ///
    /// `frame` is a frame of `source`, and the caller gives up one counted reference to it.
    pub unsafe fn from_frame(frame: PhysAddr, source: &'static dyn PageSource) -> Page {
        Page { frame, source }
    }

    /// Gives up the `Page` but keeps its reference counted: the inverse of [`Page::from_frame`].
    pub fn into_frame(self) -> PhysAddr {
        let frame = self.frame;
        core::mem::forget(self);
        frame
    }

    /// Its physical address.
    pub fn frame(&self) -> PhysAddr {
        self.frame
    }

    /// Its address for a device.
    pub fn device_address(&self) -> DmaAddr {
        self.source.device_address(self.frame)
    }

    /// How many references to the frame there are now; only a hint unless the caller excludes new ones.
    pub fn references(&self) -> u32 {
        self.source.references(self.frame)
    }

    /// Where the kernel sees its [`PAGE_SIZE`] bytes: for copy routines that take raw pointers.
    pub fn pointer(&self) -> NonNull<u8> {
        self.source.address(self.frame)
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If the range leaves the page.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && into.len() <= PAGE_SIZE - offset, "range leaves the page");
        // SAFETY: the source promises PAGE_SIZE bytes at `pointer`, the range was checked, `into` is exclusively borrowed and
        // so cannot overlap a frame, which is never lent as a slice.
        unsafe { core::ptr::copy_nonoverlapping(self.pointer().as_ptr().add(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// If the range leaves the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= PAGE_SIZE && bytes.len() <= PAGE_SIZE - offset, "range leaves the page");
        // SAFETY: as in `read`; a frame's bytes are only ever accessed through raw copies like this one.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer().as_ptr().add(offset), bytes.len()) }
    }

    /// Sets `len` bytes from `offset` on to zero.
    ///
    /// # Panics
    ///
    /// If the range leaves the page.
    pub fn zero(&self, offset: usize, len: usize) {
        assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset, "range leaves the page");
        // SAFETY: as in `write`.
        unsafe { core::ptr::write_bytes(self.pointer().as_ptr().add(offset), 0, len) }
    }

    /// Copies the whole of `from` into this page.
    pub fn copy_from(&self, from: &Page) {
        // SAFETY: both pointers are good for PAGE_SIZE bytes; `copy` allows them to be the same frame.
        unsafe { core::ptr::copy(from.pointer().as_ptr(), self.pointer().as_ptr(), PAGE_SIZE) }
    }

    /// Reads a little-endian number at `offset`, as disk formats have them.
    pub fn read_u16(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Reads a little-endian number at `offset`, as disk formats have them.
    pub fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

impl Clone for Page {
    fn clone(&self) -> Page {
        self.source.retain(self.frame);
        Page { frame: self.frame, source: self.source }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.source.release(self.frame);
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({:#x})", self.frame.0)
    }
}

/// The right to let devices read and write memory.
#[derive(Clone, Copy)]
pub struct Dma {
    source: &'static dyn PageSource,
}

impl Dma {
    /// Hands out the right; the kernel gives it to the drivers of bus-mastering devices.
    pub fn new(source: &'static dyn PageSource) -> Dma {
        Dma { source }
    }

    /// Where its pages come from.
    pub fn pages(&self) -> &'static dyn PageSource {
        self.source
    }

    /// Memory that driver and device share for long, such as a ring: at least `len` bytes, contiguous, zeroed, page-aligned.
    pub fn allocate(&self, len: usize) -> Option<DmaBuffer> {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        Some(DmaBuffer { first: self.source.allocate_contiguous(pages)?, pages, source: self.source })
    }
}

/// Reads and writes of single volatile cells, for a type whose `checked(offset, size)` proves a cell to lie in its memory.
macro_rules! volatile_access {
    ($($read:ident $write:ident $type:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($type), "` at a byte offset.\n\n# Panics\n\nIf the offset is misaligned or out of range.")]
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            let pointer = self.checked(offset, size_of::<$type>()).cast::<$type>();
            // SAFETY: `checked` proved the address inside this value's memory and aligned; that memory is there as long as the value.
            unsafe { pointer.read_volatile() }
        }

        #[doc = concat!("Writes a `", stringify!($type), "` at a byte offset.\n\n# Panics\n\nIf the offset is misaligned or out of range.")]
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            let pointer = self.checked(offset, size_of::<$type>()).cast::<$type>();
            // SAFETY: as in the read.
            unsafe { pointer.write_volatile(value) }
        }
    )*};
}

/// Contiguous memory that a driver and its device share: rings, descriptors, mailboxes.
///
/// Dropping it frees it, so a driver drops it only when the device can no longer reach it.
pub struct DmaBuffer {
    first: PhysAddr,
    pages: usize,
    source: &'static dyn PageSource,
}

impl DmaBuffer {
    /// Its length in bytes: a multiple of the page size.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.pages * PAGE_SIZE
    }

    /// The address of its first byte for the device.
    pub fn device_address(&self) -> DmaAddr {
        self.source.device_address(self.first)
    }

    #[inline]
    fn checked(&self, offset: usize, size: usize) -> NonNull<u8> {
        assert!(offset <= self.len() && size <= self.len() - offset, "offset outside its buffer");
        assert!(offset.is_multiple_of(size), "misaligned cell");
        // SAFETY: just checked to lie inside the buffer, which the source promises to be contiguous.
        unsafe { self.source.address(self.first).add(offset) }
    }

    volatile_access! {
        read8 write8 u8;
        read16 write16 u16;
        read32 write32 u32;
        read64 write64 u64;
    }

    /// Copies bytes out, from `offset` on, in no particular order: for contents, once the device has said that they are there.
    ///
    /// # Panics
    ///
    /// If the range leaves the buffer.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.len() && into.len() <= self.len() - offset, "range leaves the buffer");
        let from = self.source.address(self.first).as_ptr();
        // SAFETY: inside the buffer, as checked; `into` is exclusively borrowed and so cannot overlap a frame, which is never lent.
        unsafe { core::ptr::copy_nonoverlapping(from.add(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in, from `offset` on, in no particular order: for contents, before the device is told that they are there.
    ///
    /// # Panics
    ///
    /// If the range leaves the buffer.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len() && bytes.len() <= self.len() - offset, "range leaves the buffer");
        let to = self.source.address(self.first).as_ptr();
        // SAFETY: as in `read`; a buffer's bytes are only ever accessed through raw copies like this one.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.add(offset), bytes.len()) }
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        for page in 0..self.pages {
            self.source.release(PhysAddr(self.first.0 + (page * PAGE_SIZE) as u64));
        }
    }
}

/// A window of device registers, accessed with volatile reads and writes of the size asked for.
///
/// Offsets are in bytes, checked against the window, and must be aligned to the access.
#[derive(Clone, Copy)]
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the window is plain addresses; the accesses are volatile and single, and what racing accesses mean is the device's matter.
unsafe impl Send for Mmio {}
// SAFETY: as for Send.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Makes a window of `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// The range stays mapped, readable and writable for as long as the window or a copy of it is used, and any value may be
    /// read from or written to it without breaking memory safety elsewhere.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Mmio {
        Mmio { base, len }
    }

    /// A window over ordinary memory, zeroed, that is never given back: for tests and models of devices.
    pub fn leaked(len: usize) -> Mmio {
        let words: &'static mut [u64] = vec![0; len.div_ceil(8).max(1)].leak();
        // SAFETY: the memory is valid for ever, is reached through this window and its copies only, and holds plain numbers.
        unsafe { Mmio::new(NonNull::from(words).cast(), len) }
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a window of no length has no use")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The part of the window from `offset` on, `len` bytes long; `None` if it does not lie inside.
    pub fn part(&self, offset: usize, len: usize) -> Option<Mmio> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: the part lies inside this window, which holds the obligation.
        Some(unsafe { Mmio::new(self.base.add(offset), len) })
    }

    #[inline]
    fn checked(&self, offset: usize, size: usize) -> NonNull<u8> {
        assert!(offset <= self.len && size <= self.len - offset, "register outside its window");
        assert!((self.base.as_ptr() as usize + offset).is_multiple_of(size), "misaligned register");
        // SAFETY: just checked to lie inside the window.
        unsafe { self.base.add(offset) }
    }

    volatile_access! {
        read8 write8 u8;
        read16 write16 u16;
        read32 write32 u32;
        read64 write64 u64;
    }

    /// Copies bytes out, one volatile byte each.
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = self.read8(offset + index);
        }
    }

    /// Copies bytes in, one volatile byte each.
    pub fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.write8(offset + index, *byte);
        }
    }

    /// Copies `bytes` in with ordinary wide stores: for frame buffers, where the order of stores means nothing.
    ///
    /// # Panics
    ///
    /// If the range leaves the window.
    pub fn blit(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset, "range leaves the window");
        // SAFETY: inside the window, as checked; `bytes` is ordinary memory that the window does not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) }
    }

    /// Moves bytes inside the window, as scrolling a frame buffer does.
    ///
    /// # Panics
    ///
    /// If a range leaves the window.
    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        assert!(from.max(to) <= self.len && len <= self.len - from.max(to), "range leaves the window");
        // SAFETY: both ranges lie inside the window, as checked; `copy` allows them to overlap.
        unsafe { core::ptr::copy(self.base.as_ptr().add(from), self.base.as_ptr().add(to), len) }
    }
}

/// How device registers are reached: the kernel implements it with uncached mappings.
pub trait DeviceMemory: Sync {
    /// Maps `len` bytes of registers at `start`, which need not be aligned to a page, for as long as the system runs; `None` when
    /// there is no room, or when the range is ordinary memory.
    fn map(&self, start: PhysAddr, len: usize) -> Option<Mmio>;
}

/// How I/O ports are reached: the kernel implements it with `in` and `out`, a test with a model of the device.
pub trait PortSpace: Sync {
    /// Reads one byte.
    fn read8(&self, port: u16) -> u8;
    /// Writes one byte.
    fn write8(&self, port: u16, value: u8);
    /// Reads two bytes.
    fn read16(&self, port: u16) -> u16;
    /// Writes two bytes.
    fn write16(&self, port: u16, value: u16);
    /// Reads four bytes.
    fn read32(&self, port: u16) -> u32;
    /// Writes four bytes.
    fn write32(&self, port: u16, value: u32);
}

/// A range of I/O ports that a driver may use. Offsets count from its first port.
#[derive(Clone, Copy)]
pub struct Port {
    space: &'static dyn PortSpace,
    first: u16,
    count: u16,
}

impl Port {
    /// Hands out `count` ports from `first` on.
    pub const fn new(space: &'static dyn PortSpace, first: u16, count: u16) -> Port {
        Port { space, first, count }
    }

    fn checked(&self, offset: u16, size: u16) -> u16 {
        assert!(offset < self.count && size <= self.count - offset, "port outside its range");
        self.first + offset
    }

    /// Reads one byte.
    pub fn read8(&self, offset: u16) -> u8 {
        self.space.read8(self.checked(offset, 1))
    }

    /// Writes one byte.
    pub fn write8(&self, offset: u16, value: u8) {
        self.space.write8(self.checked(offset, 1), value);
    }

    /// Reads two bytes.
    pub fn read16(&self, offset: u16) -> u16 {
        self.space.read16(self.checked(offset, 2))
    }

    /// Writes two bytes.
    pub fn write16(&self, offset: u16, value: u16) {
        self.space.write16(self.checked(offset, 2), value);
    }

    /// Reads four bytes.
    pub fn read32(&self, offset: u16) -> u32 {
        self.space.read32(self.checked(offset, 4))
    }

    /// Writes four bytes.
    pub fn write32(&self, offset: u16, value: u32) {
        self.space.write32(self.checked(offset, 4), value);
    }
}

/// Frames on the developer's machine, for tests: a frame's physical address is its pointer.
///
/// `set_limit` makes allocation fail after so many live frames: tests inject failures with it.
pub struct HostPages {
    state: SpinLock<HostState>,
}

struct HostState {
    /// First address of each block taken from the heap → its pages, and how many of them are still counted.
    blocks: BTreeMap<usize, HostBlock>,
    live: usize,
    limit: usize,
}

struct HostBlock {
    counts: Vec<u32>,
    live: usize,
}

impl HostPages {
    /// A source without a limit.
    pub const fn new() -> HostPages {
        HostPages { state: SpinLock::new(HostState { blocks: BTreeMap::new(), live: 0, limit: usize::MAX }) }
    }

    /// How many frames are in use.
    pub fn live(&self) -> usize {
        self.state.lock().live
    }

    /// Lets at most so many frames be in use at once from now on.
    pub fn set_limit(&self, frames: usize) {
        self.state.lock().limit = frames;
    }

    /// The frame that a device would reach at `address`, kept alive while it looks; `None` if nobody has a frame there.
    ///
    /// Fakes of bus-mastering devices use it, and so a test sees when a device is told an address that is already free.
    pub fn page_at(&'static self, address: DmaAddr) -> Option<Page> {
        let mut state = self.state.lock();
        let frame = usize::try_from(address.0).ok()? & !(PAGE_SIZE - 1);
        let (base, block) = state.blocks.range_mut(..=frame).next_back()?;
        let count = block.counts.get_mut((frame - base) / PAGE_SIZE).filter(|count| **count > 0)?;
        *count += 1;
        Some(Page { frame: PhysAddr(frame as u64), source: self })
    }

    fn layout(count: usize) -> Layout {
        Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("a few pages fit a layout")
    }

    fn with_count<R>(&self, frame: PhysAddr, work: impl FnOnce(&mut HostState, usize, usize) -> R) -> R {
        let mut state = self.state.lock();
        let address = frame.0 as usize;
        let base = *state.blocks.range(..=address).next_back().expect("a frame of this source").0;
        work(&mut state, base, (address - base) / PAGE_SIZE)
    }
}

impl Default for HostPages {
    fn default() -> HostPages {
        HostPages::new()
    }
}

// SAFETY: each block comes zeroed from the heap with the page's alignment, is found again by its address, counts each of its
// frames, and returns to the heap when the last of them has come down to zero.
unsafe impl PageSource for HostPages {
    fn allocate(&self) -> Option<PhysAddr> {
        self.allocate_contiguous(1)
    }

    fn allocate_contiguous(&self, count: usize) -> Option<PhysAddr> {
        let mut state = self.state.lock();
        if count == 0 || state.live.checked_add(count)? > state.limit {
            return None;
        }
        // SAFETY: the layout is not of size zero.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(HostPages::layout(count)) })?;
        state.live += count;
        state.blocks.insert(base.as_ptr() as usize, HostBlock { counts: vec![1; count], live: count });
        Some(PhysAddr(base.as_ptr() as u64))
    }

    fn retain(&self, frame: PhysAddr) {
        self.with_count(frame, |state, base, index| {
            state.blocks.get_mut(&base).expect("found just now").counts[index] += 1;
        });
    }

    fn release(&self, frame: PhysAddr) {
        self.with_count(frame, |state, base, index| {
            let block = state.blocks.get_mut(&base).expect("found just now");
            assert!(block.counts[index] > 0, "a frame is released more often than it was retained");
            block.counts[index] -= 1;
            if block.counts[index] > 0 {
                return;
            }
            block.live -= 1;
            let (empty, pages) = (block.live == 0, block.counts.len());
            state.live -= 1;
            if empty {
                state.blocks.remove(&base);
                // SAFETY: the block came from `alloc_zeroed` with this layout, and no frame of it is counted any more.
                unsafe { alloc::alloc::dealloc(base as *mut u8, HostPages::layout(pages)) };
            }
        });
    }

    fn references(&self, frame: PhysAddr) -> u32 {
        self.with_count(frame, |state, base, index| state.blocks[&base].counts[index])
    }

    fn address(&self, frame: PhysAddr) -> NonNull<u8> {
        NonNull::new(frame.0 as *mut u8).expect("a frame of this source is a pointer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PAGES: HostPages = HostPages::new();

    #[test]
    fn a_page_lives_as_long_as_its_last_clone() {
        let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
        let page = Page::allocate_zeroed(pages).expect("no limit");
        page.write(4090, b"abcdef");
        let clone = page.clone();
        drop(page);
        let mut bytes = [0; 6];
        clone.read(4090, &mut bytes);
        assert_eq!(&bytes, b"abcdef");
        assert_eq!(pages.live(), 1);
        drop(clone);
        assert_eq!(pages.live(), 0);
    }

    #[test]
    fn contiguous_memory_is_one_window_and_is_given_back_whole() {
        let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
        let buffer = Dma::new(pages).allocate(PAGE_SIZE + 1).expect("no limit");
        assert_eq!(buffer.len(), 2 * PAGE_SIZE);
        buffer.write32(PAGE_SIZE, 7);
        assert_eq!(buffer.read8(PAGE_SIZE), 7);
        drop(buffer);
        assert_eq!(pages.live(), 0);
    }

    #[test]
    fn a_device_finds_only_frames_that_are_in_use() {
        let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
        let page = Page::allocate_zeroed(pages).expect("no limit");
        let address = DmaAddr(page.device_address().0 + 100);
        pages.page_at(address).expect("in use").write(100, b"x");
        let mut byte = [0];
        page.read(100, &mut byte);
        assert_eq!((&byte, page.references()), (b"x", 1));
        drop(page);
        assert!(pages.page_at(address).is_none());
    }

    #[test]
    fn a_limit_makes_allocation_fail() {
        let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
        pages.set_limit(1);
        let first = Page::allocate(pages);
        assert!(first.is_some() && Page::allocate(pages).is_none());
    }

    #[test]
    #[should_panic(expected = "range leaves the page")]
    fn a_copy_beyond_the_page_is_refused() {
        Page::allocate(&PAGES).expect("no limit").write(4095, b"ab");
    }
}
