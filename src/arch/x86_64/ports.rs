//! I/O ports and device memory, as drivers get them.
//!
//! Next: `drivers/src/hw.rs`.

use drivers::display::{FrameBuffer, PixelFormat};
use drivers::hw::{DeviceMemory, Mmio, PhysAddr, PortSpace};

use super::boot_paging::{map_device, map_framebuffer};
use super::instructions::{inb, inl, inw, outb, outl, outw};
use crate::arch::FramebufferInfo;
use crate::counters::DEVICE_ACCESSES;

/// The CPU's I/O ports.
pub struct Ports;

impl PortSpace for Ports {
    fn read8(&self, port: u16) -> u8 {
        DEVICE_ACCESSES.add();
        inb(port)
    }

    fn write8(&self, port: u16, value: u8) {
        DEVICE_ACCESSES.add();
        outb(port, value);
    }

    fn read16(&self, port: u16) -> u16 {
        DEVICE_ACCESSES.add();
        inw(port)
    }

    fn write16(&self, port: u16, value: u16) {
        DEVICE_ACCESSES.add();
        outw(port, value);
    }

    fn read32(&self, port: u16) -> u32 {
        DEVICE_ACCESSES.add();
        inl(port)
    }

    fn write32(&self, port: u16, value: u32) {
        DEVICE_ACCESSES.add();
        outl(port, value);
    }
}

/// Device registers in physical memory, mapped uncached.
pub struct Registers;

impl DeviceMemory for Registers {
    fn map(&self, start: PhysAddr, len: usize) -> Option<Mmio> {
        let end = start.0.checked_add(len as u64)?;
        let is_ram =
            |region: &&crate::arch::MemoryRegion| region.kind.is_ram() && region.start < end && start.0 < region.end;
        if crate::arch::boot_info().memory.iter().any(|region| is_ram(&region)) {
            return None;
        }
        let base = map_device(start.0, len as u64)?;
        // SAFETY: `len` bytes from there were just mapped for ever, and they are not ordinary memory.
        Some(unsafe { Mmio::new(base, len) })
    }
}

/// The frame buffer that the loader has set up, as drivers get it. `None`: there is no room to map it, or it lies in ordinary memory.
pub fn frame_buffer(info: &FramebufferInfo) -> Option<FrameBuffer> {
    let (start, len) = (info.phys, info.len());
    let end = start.checked_add(len)?;
    let memory = crate::arch::boot_info().memory;
    if memory.iter().any(|region| region.kind.is_ram() && region.start < end && start < region.end) {
        return None;
    }
    let base = map_framebuffer(start, len)?;
    // SAFETY: `len` bytes from there were just mapped for ever, are not ordinary memory, and any number is a pixel.
    let pixels = unsafe { Mmio::new(base, usize::try_from(len).ok()?) };
    let format = PixelFormat {
        bytes: usize::from(info.bits_per_pixel).div_ceil(8),
        red: info.red,
        green: info.green,
        blue: info.blue,
    };
    let (width, height, pitch) = (info.width as usize, info.height as usize, info.pitch as usize);
    Some(FrameBuffer { pixels, width, height, pitch, format })
}
