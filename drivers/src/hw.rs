//! The hardware a driver may touch, as values: holding one is the permission to use it.
//!
//! - [`Mmio`]: a window of device registers. - [`Port`]: a range of I/O ports. - [`Page`]: one counted frame of memory.
//! - [`Dma`]: the right to hand memory to a device, and [`DmaBuffer`], memory that driver and device share for long.
//!
//! This file and those below it are the only ones in this crate with `unsafe`: the kernel makes the values, with `unsafe` constructors whose
//! obligations are stated; using them is safe.
//!
//! A frame's bytes may be changed at any time by a device, or by a program that has mapped it. They are therefore never lent
//! as a `&[u8]`; they are copied in and out.
//!
//! Next: `hw/page.rs`, then `irq.rs`.

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

mod dma;
mod host;
mod mmio;
mod page;
#[deny(unsafe_code)]
mod port;
#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub use dma::{Dma, DmaBuffer};
pub use host::HostPages;
pub use mmio::{DeviceMemory, Mmio};
pub use page::{Page, PageSource};
pub use port::{Port, PortSpace};

static DOORBELLS: AtomicU64 = AtomicU64::new(0);

/// Takes note that a device was told to look at its memory: costly on a virtual machine, and no instruction count shows it.
pub fn count_doorbell() {
    // Relaxed: a count.
    DOORBELLS.fetch_add(1, Ordering::Relaxed);
}

/// How often devices were told to look at their memory.
pub fn doorbells() -> u64 {
    DOORBELLS.load(Ordering::Relaxed)
}

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
