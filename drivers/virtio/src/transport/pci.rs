//! Virtio over PCI, as of Virtio 1.0: vendor capabilities say where in the BARs the register blocks lie.
//!
//! Source: Virtio 1.2, section 4.1. Next: `mmio.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use drivers::hw::{DeviceMemory, DmaAddr, Mmio};
use drivers::irq::{InterruptSource, IrqLine};
use drivers::{Errno, Result};
use pci::{Bars, Function, MsiX, capability_id};

use crate::ring::RingAddresses;
use crate::transport::{BoxedTransport, Concern, Lines, RESET_POLLS, Transport};

const VENDOR: u16 = 0x1af4;
/// Device ids from here on are the device type; those before are of the time before Virtio 1.0, whose devices may offer
/// Virtio 1.0 too ("transitional").
const FIRST_MODERN: u16 = 0x1040;
const TRANSITIONAL: core::ops::Range<u16> = 0x1000..FIRST_MODERN;

/// Types of register blocks.
mod block {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
}

/// Offsets in the common block.
mod common {
    pub(super) const OFFERED_SELECT: usize = 0;
    pub(super) const OFFERED: usize = 4;
    pub(super) const ACCEPTED_SELECT: usize = 8;
    pub(super) const ACCEPTED: usize = 12;
    pub(super) const CONFIG_VECTOR: usize = 16;
    pub(super) const QUEUE_COUNT: usize = 18;
    pub(super) const STATUS: usize = 20;
    pub(super) const GENERATION: usize = 21;
    pub(super) const QUEUE_SELECT: usize = 22;
    pub(super) const QUEUE_SIZE: usize = 24;
    pub(super) const QUEUE_VECTOR: usize = 26;
    pub(super) const QUEUE_ENABLE: usize = 28;
    pub(super) const QUEUE_NOTIFY_OFFSET: usize = 30;
    pub(super) const QUEUE_DESCRIPTORS: usize = 32;
    pub(super) const QUEUE_AVAILABLE: usize = 40;
    pub(super) const QUEUE_USED: usize = 48;
    pub(super) const LENGTH: usize = 56;
}

/// What a vector register reads when the device could not set the vector up.
const NO_VECTOR: u16 = 0xffff;

/// A virtio device on the PCI bus.
struct PciTransport {
    function: Function,
    interrupts: &'static dyn InterruptSource,
    msix: MsiX,
    common: Mmio,
    notify: Mmio,
    notify_multiplier: usize,
    /// The device's own configuration, if it has one.
    device: Option<Mmio>,
    device_type: u32,
    /// Where in `notify` each queue's doorbell is.
    doorbells: Vec<Option<usize>>,
    /// The entry of the MSI-X table for each group of queues.
    vectors: Vec<u16>,
    is_shared: bool,
}

/// Whether a function is a virtio device that [`attach`] knows how to reach.
pub fn is_virtio(function: &Function) -> bool {
    function.vendor() == VENDOR && (TRANSITIONAL.start..FIRST_MODERN + 0x40).contains(&function.device())
}

/// Takes a virtio function: maps its registers and lets it use memory.
///
/// # Errors
///
/// `ENODEV` if it is no virtio device of version 1 with MSI-X; `ENOMEM` if its registers cannot be mapped.
pub fn attach(
    function: Function,
    memory: &dyn DeviceMemory,
    interrupts: &'static dyn InterruptSource,
) -> Result<BoxedTransport> {
    if !is_virtio(&function) {
        return Err(Errno::ENODEV);
    }
    let device_type = match function.device() {
        id if TRANSITIONAL.contains(&id) => u32::from(function.subsystem().1),
        id => u32::from(id - FIRST_MODERN),
    };
    let bars = function.bars();
    let find = |kind| Block::find(&function, &bars, kind);
    let common = find(block::COMMON).ok_or(Errno::ENODEV)?;
    let notify = find(block::NOTIFY).ok_or(Errno::ENODEV)?;
    if (common.len as usize) < common::LENGTH || find(block::ISR).is_none() {
        return Err(Errno::ENODEV);
    }
    function.enable();
    let transport = PciTransport {
        msix: MsiX::new(&function, &bars, memory)?,
        common: common.map(&bars, memory)?,
        notify_multiplier: function.read32(notify.capability + 16) as usize,
        notify: notify.map(&bars, memory)?,
        device: find(block::DEVICE).map(|block| block.map(&bars, memory)).transpose()?,
        device_type,
        doorbells: Vec::new(),
        vectors: Vec::new(),
        is_shared: false,
        interrupts,
        function,
    };
    // Not before the device is silent: the firmware may have left it running.
    if !transport.stop() {
        return Err(Errno::ENODEV);
    }
    transport.function.start_bus_mastering();
    Ok(Box::new(transport))
}

/// Where a register block lies.
struct Block {
    capability: u16,
    bar: u8,
    offset: u32,
    len: u32,
}

impl Block {
    /// The first block of a kind: the device lists them in its order of preference.
    fn find(function: &Function, bars: &Bars, kind: u8) -> Option<Block> {
        let vendor = function.capabilities().filter(|capability| capability.id == capability_id::VENDOR);
        vendor.map(|capability| capability.offset).find_map(|at| {
            let [_id, _next, _len, found] = function.read32(at).to_le_bytes();
            let [bar, ..] = function.read32(at + 4).to_le_bytes();
            let is_memory = matches!(bars.get(bar), Some(pci::Bar::Memory { .. }));
            (found == kind && is_memory).then(|| Block {
                capability: at,
                bar,
                offset: function.read32(at + 8),
                len: function.read32(at + 12),
            })
        })
    }

    fn map(&self, bars: &Bars, memory: &dyn DeviceMemory) -> Result<Mmio> {
        bars.map(self.bar, u64::from(self.offset), u64::from(self.len), memory)
    }
}

impl PciTransport {
    /// Takes one interrupt and puts it at the end of the MSI-X table's used part.
    fn add_vector(&self, entry: u16) -> Option<IrqLine> {
        if entry >= self.msix.size() {
            return None;
        }
        let (line, message) = self.interrupts.allocate_message()?;
        self.msix.set(entry, message);
        Some(line)
    }

    fn write_address(&self, offset: usize, address: DmaAddr) {
        self.common.write32(offset, address.0 as u32);
        self.common.write32(offset + 4, (address.0 >> 32) as u32);
    }

    /// Writes a vector register, and says whether the device took it.
    fn set_vector(&self, register: usize, vector: u16) -> bool {
        self.common.write16(register, vector);
        self.common.read16(register) != NO_VECTOR
    }
}

impl Transport for PciTransport {
    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn offered_features(&mut self) -> u64 {
        let half = |select| {
            self.common.write32(common::OFFERED_SELECT, select);
            u64::from(self.common.read32(common::OFFERED))
        };
        half(0) | half(1) << 32
    }

    fn accept_features(&mut self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write32(common::ACCEPTED_SELECT, select);
            self.common.write32(common::ACCEPTED, half);
        }
    }

    fn status(&self) -> u8 {
        self.common.read8(common::STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(common::STATUS, status);
    }

    fn max_queue_size(&mut self, queue: u16) -> u16 {
        if queue >= self.common.read16(common::QUEUE_COUNT) {
            return 0;
        }
        self.common.write16(common::QUEUE_SELECT, queue);
        self.common.read16(common::QUEUE_SIZE)
    }

    fn connect(&mut self, groups: usize) -> Result<Lines> {
        // Entry 0 is the configuration's, the next ones are the groups'.
        let first = self.add_vector(0).ok_or(Errno::ENOSPC)?;
        let wanted = u16::try_from(groups).map_err(|_| Errno::EINVAL)?;
        let mut lines = Vec::new();
        for entry in 1..=wanted {
            let Some(line) = self.add_vector(entry) else { break };
            lines.push(line);
        }
        // Where there are too few, the groups share those there are; without any, they share the configuration's.
        let count = lines.len() as u16;
        self.is_shared = count == 0;
        self.vectors = (0..wanted).map(|group| if count == 0 { 0 } else { 1 + group % count }).collect();
        if !self.set_vector(common::CONFIG_VECTOR, 0) {
            return Err(Errno::ENOSPC);
        }
        let is_one_each = count == wanted;
        let concern = |index| if is_one_each { Concern::Group(index) } else { Concern::Everything };
        let mut lines: Vec<_> = lines.into_iter().enumerate().map(|(index, line)| (line, concern(index))).collect();
        lines.push((first, if self.is_shared { Concern::Everything } else { Concern::Configuration }));
        Ok(Lines(lines))
    }

    fn set_queue(&mut self, queue: u16, group: usize, size: u16, addresses: RingAddresses) -> Result<()> {
        self.common.write16(common::QUEUE_SELECT, queue);
        self.common.write16(common::QUEUE_SIZE, size);
        let vector = *self.vectors.get(group).ok_or(Errno::EINVAL)?;
        if !self.set_vector(common::QUEUE_VECTOR, vector) {
            return Err(Errno::EIO);
        }
        self.write_address(common::QUEUE_DESCRIPTORS, addresses.descriptors);
        self.write_address(common::QUEUE_AVAILABLE, addresses.available);
        self.write_address(common::QUEUE_USED, addresses.used);
        let doorbell = usize::from(self.common.read16(common::QUEUE_NOTIFY_OFFSET)).checked_mul(self.notify_multiplier);
        let is_inside = |at: &usize| at.is_multiple_of(2) && self.notify.part(*at, 2).is_some();
        let doorbell = doorbell.filter(is_inside).ok_or(Errno::EIO)?;
        let index = usize::from(queue);
        self.doorbells.resize(self.doorbells.len().max(index + 1), None);
        self.doorbells[index] = Some(doorbell);
        self.common.write16(common::QUEUE_ENABLE, 1);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        if let Some(Some(at)) = self.doorbells.get(usize::from(queue)) {
            drivers::hw::count_doorbell();
            self.notify.write16(*at, queue);
        }
    }

    fn acknowledge(&self) -> bool {
        // A message needs no acknowledgement; where it may mean either, the configuration is looked at each time.
        self.is_shared
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.common.read8(common::GENERATION))
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        into.fill(0);
        if let Some(part) = self.device.and_then(|device| device.part(offset, into.len())) {
            part.read_bytes(0, into);
        }
    }

    fn stop(&self) -> bool {
        self.set_status(0);
        let is_reset = (0..RESET_POLLS).any(|_| {
            core::hint::spin_loop();
            self.status() == 0
        });
        if !is_reset {
            self.function.stop_bus_mastering();
        }
        // Without bus mastering it reaches no memory, reset or not.
        true
    }
}

impl Drop for PciTransport {
    fn drop(&mut self) {
        self.stop();
        self.function.stop_bus_mastering();
    }
}
