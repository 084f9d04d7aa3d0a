//! Device registers in memory.
//!
//! Next: `port.rs`.

use alloc::vec;
use core::ptr::NonNull;

use super::PhysAddr;

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
