//! Virtio over MMIO: one small window of registers and one interrupt line, as QEMU's microvm has them.
//!
//! Such devices cannot be enumerated. The kernel is told of them on its command line ([`parse_parameter`]) or by ACPI. Version 1 of
//! the registers, from before Virtio 1.0, is what QEMU offers unless told `virtio-mmio.force-legacy=false`; it differs in how a
//! queue's address is given and is understood here too.
//!
//! Source: Virtio 1.2, section 4.2. Next: `ring.rs`.

use alloc::boxed::Box;
use alloc::vec;

use drivers::hw::{DmaAddr, Mmio, PAGE_SIZE, PhysAddr};
use drivers::irq::IrqLine;
use drivers::{Errno, Result};

use crate::features::VERSION_1;
use crate::ring::RingAddresses;
use crate::transport::{BoxedTransport, Concern, Lines, Transport};

/// Offsets of registers.
mod register {
    pub(super) const MAGIC: usize = 0x000;
    pub(super) const VERSION: usize = 0x004;
    pub(super) const DEVICE_TYPE: usize = 0x008;
    pub(super) const OFFERED: usize = 0x010;
    pub(super) const OFFERED_SELECT: usize = 0x014;
    pub(super) const ACCEPTED: usize = 0x020;
    pub(super) const ACCEPTED_SELECT: usize = 0x024;
    pub(super) const LEGACY_PAGE_SIZE: usize = 0x028;
    pub(super) const QUEUE_SELECT: usize = 0x030;
    pub(super) const QUEUE_MAX_SIZE: usize = 0x034;
    pub(super) const QUEUE_SIZE: usize = 0x038;
    pub(super) const LEGACY_QUEUE_ALIGNMENT: usize = 0x03c;
    pub(super) const LEGACY_QUEUE_PAGE: usize = 0x040;
    pub(super) const QUEUE_READY: usize = 0x044;
    pub(super) const NOTIFY: usize = 0x050;
    pub(super) const INTERRUPT_STATUS: usize = 0x060;
    pub(super) const INTERRUPT_ACKNOWLEDGE: usize = 0x064;
    pub(super) const STATUS: usize = 0x070;
    pub(super) const QUEUE_DESCRIPTORS: usize = 0x080;
    pub(super) const QUEUE_AVAILABLE: usize = 0x090;
    pub(super) const QUEUE_USED: usize = 0x0a0;
    pub(super) const GENERATION: usize = 0x0fc;
    pub(super) const CONFIG: usize = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const LEGACY: u32 = 1;
const MODERN: u32 = 2;
const CONFIG_CHANGED: u32 = 2;

/// What the command line says of one device: `virtio_mmio.device=SIZE@ADDRESS:IRQ[:ID]`, as Linux has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// The length of its window in bytes.
    pub size: usize,
    /// Where its window lies.
    pub address: PhysAddr,
    /// Its interrupt line.
    pub irq: u32,
}

/// Reads what follows `virtio_mmio.device=`, such as `512@0xfeb00000:5`; `None` if it makes no sense.
pub fn parse_parameter(value: &str) -> Option<Parameter> {
    let (size, rest) = value.split_once('@')?;
    let mut rest = rest.split(':');
    let (address, irq) = (rest.next()?, rest.next()?);
    let size = parse_size(size)?;
    let irq = u32::try_from(parse_number(irq)?).ok()?;
    (size > register::CONFIG as u64).then_some(())?;
    Some(Parameter { size: usize::try_from(size).ok()?, address: PhysAddr(parse_number(address)?), irq })
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    parse_number(digits)?.checked_mul(1 << shift)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A virtio device behind a window of registers.
struct MmioTransport {
    window: Mmio,
    line: Option<IrqLine>,
    is_legacy: bool,
}

/// Takes the device behind a window; `None` if the window is empty, as most of microvm's are.
///
/// # Errors
///
/// `ENODEV` if the window is no virtio device, or of a version that is not known.
pub fn attach(window: Mmio, line: IrqLine) -> Result<Option<BoxedTransport>> {
    if window.len() <= register::CONFIG || window.read32(register::MAGIC) != MAGIC {
        return Err(Errno::ENODEV);
    }
    let is_legacy = match window.read32(register::VERSION) {
        LEGACY => true,
        MODERN => false,
        _ => return Err(Errno::ENODEV),
    };
    if window.read32(register::DEVICE_TYPE) == 0 {
        return Ok(None);
    }
    Ok(Some(Box::new(MmioTransport { window, line: Some(line), is_legacy })))
}

impl MmioTransport {
    fn write_address(&self, register: usize, address: DmaAddr) {
        self.window.write32(register, address.0 as u32);
        self.window.write32(register + 4, (address.0 >> 32) as u32);
    }
}

impl Transport for MmioTransport {
    fn device_type(&self) -> u32 {
        self.window.read32(register::DEVICE_TYPE)
    }

    fn offered_features(&mut self) -> u64 {
        let half = |select| {
            self.window.write32(register::OFFERED_SELECT, select);
            u64::from(self.window.read32(register::OFFERED))
        };
        if self.is_legacy { half(0) & !VERSION_1 } else { half(0) | half(1) << 32 }
    }

    fn accept_features(&mut self, features: u64) {
        let halves = [(0, features as u32), (1, (features >> 32) as u32)];
        for (select, half) in halves.into_iter().take(if self.is_legacy { 1 } else { 2 }) {
            self.window.write32(register::ACCEPTED_SELECT, select);
            self.window.write32(register::ACCEPTED, half);
        }
        if self.is_legacy {
            self.window.write32(register::LEGACY_PAGE_SIZE, PAGE_SIZE as u32);
        }
    }

    fn status(&self) -> u8 {
        self.window.read32(register::STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.window.write32(register::STATUS, u32::from(status));
    }

    fn used_alignment(&self) -> usize {
        if self.is_legacy { PAGE_SIZE } else { 4 }
    }

    fn max_queue_size(&mut self, queue: u16) -> u16 {
        self.window.write32(register::QUEUE_SELECT, u32::from(queue));
        u16::try_from(self.window.read32(register::QUEUE_MAX_SIZE)).unwrap_or(1 << 15)
    }

    fn connect(&mut self, _groups: usize) -> Result<Lines> {
        let line = self.line.take().ok_or(Errno::ENOSPC)?;
        Ok(Lines(vec![(line, Concern::Everything)]))
    }

    fn set_queue(&mut self, queue: u16, _group: usize, size: u16, addresses: RingAddresses) -> Result<()> {
        self.window.write32(register::QUEUE_SELECT, u32::from(queue));
        self.window.write32(register::QUEUE_SIZE, u32::from(size));
        if self.is_legacy {
            let page = addresses.descriptors.0 / PAGE_SIZE as u64;
            self.window.write32(register::LEGACY_QUEUE_ALIGNMENT, PAGE_SIZE as u32);
            self.window.write32(register::LEGACY_QUEUE_PAGE, u32::try_from(page).map_err(|_| Errno::EIO)?);
            return Ok(());
        }
        self.write_address(register::QUEUE_DESCRIPTORS, addresses.descriptors);
        self.write_address(register::QUEUE_AVAILABLE, addresses.available);
        self.write_address(register::QUEUE_USED, addresses.used);
        self.window.write32(register::QUEUE_READY, 1);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        self.window.write32(register::NOTIFY, u32::from(queue));
    }

    fn acknowledge(&self) -> bool {
        let reasons = self.window.read32(register::INTERRUPT_STATUS);
        self.window.write32(register::INTERRUPT_ACKNOWLEDGE, reasons);
        reasons & CONFIG_CHANGED != 0
    }

    fn config_generation(&self) -> u32 {
        if self.is_legacy { 0 } else { self.window.read32(register::GENERATION) }
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        into.fill(0);
        let start = register::CONFIG.checked_add(offset);
        if let Some(part) = start.and_then(|start| self.window.part(start, into.len())) {
            part.read_bytes(0, into);
        }
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_that_qemu_appends_is_understood() {
        let expected = Parameter { size: 512, address: PhysAddr(0xfeb0_0e00), irq: 12 };
        assert_eq!(parse_parameter("512@0xfeb00e00:12"), Some(expected));
        assert_eq!(parse_parameter("1K@0xfeb00e00:12:3"), Some(Parameter { size: 1024, ..expected }));
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for value in
            ["", "512", "512@", "512@0xfeb00000", "@0:1", "512@x:1", "64@0xfeb00000:5", "512@0:99999999999", "é@1:1"]
        {
            assert_eq!(parse_parameter(value), None, "{value}");
        }
    }
}
