//! Virtio over MMIO: one small window of registers and one interrupt line, as QEMU's microvm has them.
//!
//! Such devices cannot be enumerated. The kernel is told of them on its command line ([`parse_parameter`]) or by ACPI
//! ([`described_by_acpi`]). Version 1 of
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

/// Where a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The length of its window in bytes.
    pub size: usize,
    /// Where its window lies.
    pub address: PhysAddr,
    /// Its interrupt line, by global number.
    pub irq: u32,
    /// Whether the line is level-triggered (active high), rather than edge-triggered.
    pub is_level_triggered: bool,
}

/// Reads what follows `virtio_mmio.device=` on the command line, `SIZE@ADDRESS:IRQ[:ID]` as Linux has it, such as
/// `512@0xfeb00000:5`; `None` if it makes no sense.
pub fn parse_parameter(value: &str) -> Option<Place> {
    let (size, rest) = value.split_once('@')?;
    let mut rest = rest.split(':');
    let (address, irq) = (rest.next()?, rest.next()?);
    let size = parse_size(size)?;
    let irq = u32::try_from(parse_number(irq)?).ok()?;
    (size > register::CONFIG as u64).then_some(())?;
    let address = PhysAddr(parse_number(address)?);
    Some(Place { size: usize::try_from(size).ok()?, address, irq, is_level_triggered: false })
}

/// The devices that the ACPI table DSDT describes: those with the hardware id `LNRO0005`.
///
/// The table is a program for an interpreter that this kernel does not have. But a device's resources are a constant in it, a
/// template of a memory range and an interrupt (ACPI 6.4, sections 6.4.3.4 and 6.4.3.6) that follows the id, so it is looked for.
pub fn described_by_acpi(dsdt: &[u8]) -> impl Iterator<Item = Place> + '_ {
    const ID: &[u8] = b"LNRO0005\0";
    let ids = dsdt.windows(ID.len()).enumerate().filter(|(_, bytes)| *bytes == ID);
    ids.filter_map(|(at, _)| parse_resources(&dsdt[at + ID.len()..]))
}

fn parse_resources(bytes: &[u8]) -> Option<Place> {
    const MEMORY: &[u8] = &[0x86, 9, 0];
    const INTERRUPT: &[u8] = &[0x89, 6, 0];
    const IS_EDGE: u8 = 1 << 1;
    /// How far behind the id a template may lie.
    const REACH: usize = 64;
    let number = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let start = bytes.windows(MEMORY.len()).take(REACH).position(|bytes| bytes == MEMORY)?;
    let (memory, rest) = bytes[start..].split_at_checked(12)?;
    let interrupt = rest.get(..9).filter(|interrupt| interrupt.starts_with(INTERRUPT))?;
    Some(Place {
        address: PhysAddr(number(memory, 4)?.into()),
        size: number(memory, 8)? as usize,
        irq: number(interrupt, 5)?,
        is_level_triggered: interrupt[3] & IS_EDGE == 0,
    })
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

/// Whether there is a device behind a window: most of a microvm's are empty.
///
/// # Errors
///
/// `ENODEV` if the window is none of virtio registers, or of a version that is not known.
pub fn is_occupied(window: &Mmio) -> Result<bool> {
    if window.len() <= register::CONFIG || window.read32(register::MAGIC) != MAGIC {
        return Err(Errno::ENODEV);
    }
    match window.read32(register::VERSION) {
        LEGACY | MODERN => Ok(window.read32(register::DEVICE_TYPE) != 0),
        _ => Err(Errno::ENODEV),
    }
}

/// Takes the device behind a window.
///
/// # Errors
///
/// `ENODEV` if there is none.
pub fn attach(window: Mmio, line: IrqLine) -> Result<BoxedTransport> {
    if !is_occupied(&window)? {
        return Err(Errno::ENODEV);
    }
    let is_legacy = window.read32(register::VERSION) == LEGACY;
    Ok(Box::new(MmioTransport { window, line: Some(line), is_legacy }))
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
        drivers::hw::count_doorbell();
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
        let expected = Place { size: 512, address: PhysAddr(0xfeb0_0e00), irq: 12, is_level_triggered: false };
        assert_eq!(parse_parameter("512@0xfeb00e00:12"), Some(expected));
        assert_eq!(parse_parameter("1K@0xfeb00e00:12:3"), Some(Place { size: 1024, ..expected }));
    }

    /// A piece of the table that QEMU's microvm has.
    const DSDT: &[u8] = b"[\x82B\x04VR23\x08_HID\rLNRO0005\0\x08_UID\n\x17\x08_CCA\x01\x08_CRS\x11\x1a\n\x17\
        \x86\t\0\x01\0.\xb0\xfe\0\x02\0\0\x89\x06\0\x01\x01/\0\0\0y\0[\x82B\x04VR22\x08_HID\rLNRO0005\0\x08_UID\n\x16\x08_CCA\x01\
        \x08_CRS\x11\x1a\n\x17\x86\t\0\x01\0,\xb0\xfe\0\x02\0\0\x89\x06\0\x01\x01.\0\0\0y\0";

    #[test]
    fn the_devices_of_qemus_microvm_are_found_in_its_acpi_table() {
        let first = Place { size: 512, address: PhysAddr(0xfeb0_2e00), irq: 47, is_level_triggered: true };
        let second = Place { address: PhysAddr(0xfeb0_2c00), irq: 46, ..first };
        assert!(described_by_acpi(DSDT).eq([first, second]));
    }

    #[test]
    fn a_table_that_is_cut_off_anywhere_describes_fewer_devices() {
        for len in 0..DSDT.len() {
            assert!(described_by_acpi(&DSDT[..len]).count() <= 2);
        }
        assert_eq!(described_by_acpi(&[0x86; 100]).count(), 0);
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
