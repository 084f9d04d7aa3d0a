//! Configuration space: 256 bytes (4 KiB with ECAM) for each function of each device, read and written as dwords.
//!
//! Next: `enumerate.rs`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;

use drivers::hw::{DeviceMemory, Mmio, PhysAddr, Port};
use executor::sync::SpinLock;

/// Where a function sits: bus, device (0–31), function (0–7). Printed as `00:1f.2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The bus.
    pub bus: u8,
    /// The device on the bus, below 32.
    pub device: u8,
    /// The function of the device, below 8.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A way to configuration space. Where there is nothing, reads give all ones and writes do nothing.
pub trait ConfigSpace: Send + Sync {
    /// Reads the dword at `offset`, a multiple of 4.
    fn read(&self, address: Address, offset: u16) -> u32;
    /// Writes the dword at `offset`, a multiple of 4.
    fn write(&self, address: Address, offset: u16, value: u32);
}

/// Configuration space through the ports 0xcf8 (address) and 0xcfc (data): on every PC, the first 256 bytes of a function.
pub struct ConfigPorts {
    ports: SpinLock<Port>,
}

const ADDRESS: u16 = 0;
const DATA: u16 = 4;
const ENABLE: u32 = 1 << 31;

impl ConfigPorts {
    /// Takes the eight ports from 0xcf8 on.
    pub fn new(ports: Port) -> ConfigPorts {
        ConfigPorts { ports: SpinLock::new(ports) }
    }

    fn select(address: Address, offset: u16) -> u32 {
        let Address { bus, device, function } = address;
        ENABLE
            | u32::from(bus) << 16
            | u32::from(device & 31) << 11
            | u32::from(function & 7) << 8
            | u32::from(offset & 0xfc)
    }
}

impl ConfigSpace for ConfigPorts {
    fn read(&self, address: Address, offset: u16) -> u32 {
        if offset >= 256 {
            return u32::MAX;
        }
        let ports = self.ports.lock();
        ports.write32(ADDRESS, ConfigPorts::select(address, offset));
        ports.read32(DATA)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if offset >= 256 {
            return;
        }
        let ports = self.ports.lock();
        ports.write32(ADDRESS, ConfigPorts::select(address, offset));
        ports.write32(DATA, value);
    }
}

/// Configuration space in memory: 4 KiB a function, 1 MiB a bus. The ACPI table MCFG says where.
///
/// A bus is mapped when it is first looked at, so that a machine with two buses does not pay for 256.
pub struct Ecam {
    base: PhysAddr,
    first_bus: u8,
    last_bus: u8,
    memory: &'static dyn DeviceMemory,
    buses: SpinLock<BTreeMap<u8, Mmio>>,
}

const BUS_SIZE: usize = 1 << 20;

impl Ecam {
    /// The window whose `base` is where bus 0 would lie, for the buses `first_bus` to `last_bus`.
    pub fn new(base: PhysAddr, first_bus: u8, last_bus: u8, memory: &'static dyn DeviceMemory) -> Ecam {
        Ecam { base, first_bus, last_bus, memory, buses: SpinLock::new(BTreeMap::new()) }
    }

    fn window(&self, bus: u8) -> Option<Mmio> {
        if !(self.first_bus..=self.last_bus).contains(&bus) {
            return None;
        }
        if let Some(window) = self.buses.lock().get(&bus) {
            return Some(*window);
        }
        let start = self.base.0.checked_add(u64::from(bus) << 20)?;
        let window = self.memory.map(PhysAddr(start), BUS_SIZE)?;
        self.buses.lock().insert(bus, window);
        Some(window)
    }

    fn offset(address: Address, offset: u16) -> usize {
        let function = usize::from(address.device & 31) << 3 | usize::from(address.function & 7);
        function << 12 | usize::from(offset & 0xffc)
    }
}

impl ConfigSpace for Ecam {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.window(address.bus).map_or(u32::MAX, |window| window.read32(Ecam::offset(address, offset)))
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if let Some(window) = self.window(address.bus) {
            window.write32(Ecam::offset(address, offset), value);
        }
    }
}

impl<C: ConfigSpace + ?Sized> ConfigSpace for Box<C> {
    fn read(&self, address: Address, offset: u16) -> u32 {
        (**self).read(address, offset)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        (**self).write(address, offset, value);
    }
}
