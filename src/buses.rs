//! Where devices are found: the PCI bus, and the places of virtio devices that are on no bus.
//!
//! Next: `ports.rs`, then `drivers/pci/src/lib.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::Result;
use drivers::hw::{DeviceMemory, PhysAddr, Port};
use pci::{ConfigPorts, ConfigSpace, Ecam};
use virtio::BoxedTransport;
use virtio::transport::mmio::{self, Place};

use crate::arch::acpi::{Route, platform};
use crate::arch::irq::{Vectors, global_line};
use crate::arch::madt::Signal;
use crate::arch::{Ports, Registers};

/// The ports through which every PC shows PCI configuration space.
const CONFIG_PORTS: u16 = 0xcf8;

/// Every function on the PCI buses.
pub fn pci_functions() -> Vec<pci::Function> {
    let config: Arc<dyn ConfigSpace> = match platform().pci_regions().find(|region| region.segment == 0) {
        Some(region) => Arc::new(Ecam::new(PhysAddr(region.address), region.first_bus, region.last_bus, &Registers)),
        None => Arc::new(ConfigPorts::new(Port::new(&Ports, CONFIG_PORTS, 8))),
    };
    pci::enumerate(&config)
}

/// The ways to all virtio devices: those among `functions`, those that the command line names
/// (`virtio_mmio.device=512@0xfeb00000:5`), and those that ACPI describes, as a microvm's.
pub fn virtio_transports(functions: &[pci::Function], command_line: &[u8]) -> Vec<BoxedTransport> {
    let mut found = Vec::new();
    for function in functions.iter().filter(|function| virtio::transport::pci::is_virtio(function)) {
        match virtio::transport::pci::attach(function.clone(), &Registers, &Vectors) {
            Ok(transport) => found.push(transport),
            Err(errno) => log::error!("pci {function:?}: {errno:?}"),
        }
    }
    let words = command_line.split(u8::is_ascii_whitespace).filter_map(|word| core::str::from_utf8(word).ok());
    let named = words.filter_map(|word| mmio::parse_parameter(word.strip_prefix("virtio_mmio.device=")?));
    let described = mmio::described_by_acpi(platform().dsdt);
    for place in named.chain(described) {
        match attach(place) {
            Ok(transport) => found.extend(transport),
            Err(errno) => log::error!("virtio device at {:?}: {errno:?}", place.address),
        }
    }
    found
}

/// The device at a place, if there is one: most places of a microvm are empty, so this is found out before a line is taken.
fn attach(place: Place) -> Result<Option<BoxedTransport>> {
    let window = Registers.map(place.address, place.size).ok_or(abi::Errno::ENOMEM)?;
    if !mmio::is_occupied(&window)? {
        return Ok(None);
    }
    let signal = Signal { is_level: place.is_level_triggered, is_active_low: false };
    let line = global_line(Route { global: place.irq, signal }).ok_or(abi::Errno::ENOSPC)?;
    mmio::attach(window, line).map(Some)
}
