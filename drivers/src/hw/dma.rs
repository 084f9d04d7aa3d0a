//! Memory that a device reads and writes.
//!
//! Next: `mmio.rs`.

use core::ptr::NonNull;

use super::{DmaAddr, PAGE_SIZE, PageSource, PhysAddr};

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
