//! MSI-X: a table, in the function's own memory, of the messages it sends as interrupts.
//!
//! Source: PCI Local Bus 3.0, section 6.8.2. Next: `msi.rs`.

use drivers::hw::{DeviceMemory, Mmio};
use drivers::irq::MsiMessage;
use drivers::{Errno, Result};

use crate::bar::Bars;
use crate::capability::capability_id;
use crate::function::Function;

/// A function's MSI-X table. Dropping it turns the function's interrupts off.
pub struct MsiX {
    function: Function,
    /// Where the capability lies in configuration space.
    offset: u16,
    table: Mmio,
    size: u16,
}

const ENTRY: usize = 16;
const ENTRY_MASKED: u32 = 1;
const ENABLED: u32 = 1 << 31;
const ALL_MASKED: u32 = 1 << 30;

impl MsiX {
    /// Maps a function's table, with every entry masked, and turns MSI-X on.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the function has none, or one that lies nowhere; `ENOMEM` if it cannot be mapped.
    pub fn new(function: &Function, bars: &Bars, memory: &dyn DeviceMemory) -> Result<MsiX> {
        let offset = function.capability(capability_id::MSIX).ok_or(Errno::ENODEV)?.offset;
        let size = (function.read16(offset + 2) & 0x7ff) + 1;
        let place = function.read32(offset + 4);
        let (bar, start) = ((place & 7) as u8, u64::from(place & !7));
        let table = bars.map(bar, start, u64::from(size) * ENTRY as u64, memory)?;
        let msix = MsiX { function: function.clone(), offset, table, size };
        // The table counts only while MSI-X is on, so it goes on with all entries held back.
        msix.control(ENABLED | ALL_MASKED);
        (0..size).for_each(|entry| msix.mask(entry));
        msix.control(ENABLED);
        Ok(msix)
    }

    /// How many entries the table has; at least 1.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Makes entry `entry` send `message`, and unmasks it.
    ///
    /// # Panics
    ///
    /// If the table has no such entry.
    pub fn set(&self, entry: u16, message: MsiMessage) {
        let at = self.entry(entry);
        self.mask(entry);
        self.table.write32(at, message.address as u32);
        self.table.write32(at + 4, (message.address >> 32) as u32);
        self.table.write32(at + 8, message.data);
        self.table.write32(at + 12, 0);
    }

    /// Holds entry `entry` back; what it would have sent is sent when it is set again.
    ///
    /// # Panics
    ///
    /// If the table has no such entry.
    pub fn mask(&self, entry: u16) {
        self.table.write32(self.entry(entry) + 12, ENTRY_MASKED);
    }

    fn entry(&self, entry: u16) -> usize {
        assert!(entry < self.size, "an entry outside the MSI-X table");
        usize::from(entry) * ENTRY
    }

    fn control(&self, bits: u32) {
        let rest = self.function.read32(self.offset) & !(ENABLED | ALL_MASKED);
        self.function.write32(self.offset, rest | bits);
    }
}

impl Drop for MsiX {
    fn drop(&mut self) {
        (0..self.size).for_each(|entry| self.mask(entry));
        self.control(ALL_MASKED);
    }
}
