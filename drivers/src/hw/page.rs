//! Counted frames of memory.
//!
//! Next: `dma.rs`.

use core::fmt;
use core::ptr::NonNull;

use super::{DmaAddr, PAGE_SIZE, PhysAddr};

/// Where counted frames come from. The kernel implements it over its frame allocator, [`HostPages`](super::HostPages) over the host's heap.
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
    pub(super) frame: PhysAddr,
    pub(super) source: &'static dyn PageSource,
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
