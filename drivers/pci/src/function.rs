//! One function of one device: its identity and its command register.
//!
//! Source: PCI Local Bus 3.0, chapter 6. Next: `bar.rs`.

use alloc::sync::Arc;
use core::fmt;

use crate::config::{Address, ConfigSpace};

/// Offsets in configuration space.
pub(crate) mod register {
    pub(crate) const VENDOR: u16 = 0x00;
    pub(crate) const DEVICE: u16 = 0x02;
    pub(crate) const COMMAND: u16 = 0x04;
    pub(crate) const STATUS: u16 = 0x06;
    pub(crate) const REVISION: u16 = 0x08;
    pub(crate) const HEADER_TYPE: u16 = 0x0e;
    pub(crate) const BARS: u16 = 0x10;
    pub(crate) const SECONDARY_BUS: u16 = 0x19;
    pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x2c;
    pub(crate) const SUBSYSTEM: u16 = 0x2e;
    pub(crate) const CAPABILITIES: u16 = 0x34;
    pub(crate) const INTERRUPT_LINE: u16 = 0x3c;
}

bitflags::bitflags! {
    /// The command register: what the function may do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Command: u16 {
        const IO_SPACE = 1 << 0;
        const MEMORY_SPACE = 1 << 1;
        const BUS_MASTER = 1 << 2;
        const NO_PIN_INTERRUPT = 1 << 10;
        const _ = !0;
    }
}

/// What kind of thing a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// The class, such as 1 for mass storage.
    pub base: u8,
    /// The sub-class, such as 8 for non-volatile memory.
    pub sub: u8,
    /// The programming interface, such as 2 for NVMe.
    pub interface: u8,
}

/// A function that was found: the right to configure it.
#[derive(Clone)]
pub struct Function {
    config: Arc<dyn ConfigSpace>,
    address: Address,
}

impl Function {
    /// The function at `address`, if there is one.
    pub fn probe(config: &Arc<dyn ConfigSpace>, address: Address) -> Option<Function> {
        let function = Function { config: config.clone(), address };
        (function.vendor() != u16::MAX).then_some(function)
    }

    /// Where it sits.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Who made it.
    pub fn vendor(&self) -> u16 {
        self.read16(register::VENDOR)
    }

    /// Which of its maker's devices it is.
    pub fn device(&self) -> u16 {
        self.read16(register::DEVICE)
    }

    /// Vendor and device of the board it sits on.
    pub fn subsystem(&self) -> (u16, u16) {
        (self.read16(register::SUBSYSTEM_VENDOR), self.read16(register::SUBSYSTEM))
    }

    /// What kind of thing it is.
    pub fn class(&self) -> Class {
        let [_revision, interface, sub, base] = self.read32(register::REVISION).to_le_bytes();
        Class { base, sub, interface }
    }

    /// The interrupt line that the firmware routed its pin to, for functions without message-signalled interrupts.
    pub fn interrupt_line(&self) -> Option<u8> {
        let [line, pin, ..] = self.read32(register::INTERRUPT_LINE).to_le_bytes();
        (pin != 0 && line != u8::MAX).then_some(line)
    }

    /// Reads a dword of its configuration space, at a multiple of 4.
    pub fn read32(&self, offset: u16) -> u32 {
        self.config.read(self.address, offset & !3)
    }

    /// Writes a dword of its configuration space, at a multiple of 4.
    pub fn write32(&self, offset: u16, value: u32) {
        self.config.write(self.address, offset & !3, value);
    }

    /// Reads a word of its configuration space, at a multiple of 2.
    pub fn read16(&self, offset: u16) -> u16 {
        (self.read32(offset) >> (8 * u32::from(offset & 2))) as u16
    }

    /// Reads a byte of its configuration space.
    pub fn read8(&self, offset: u16) -> u8 {
        (self.read32(offset) >> (8 * u32::from(offset & 3))) as u8
    }

    /// Changes the command register. The status register beside it clears bits that are written as 1, so zeros are written there.
    pub(crate) fn change_command(&self, change: impl FnOnce(Command) -> Command) -> Command {
        let before = Command::from_bits_retain(self.read16(register::COMMAND));
        let after = change(before);
        if after != before {
            self.write32(register::COMMAND, u32::from(after.bits()));
        }
        before
    }

    /// Lets the function answer at its registers, and silences its interrupt pin, which drivers of message-signalled interrupts do not
    /// use.
    pub fn enable(&self) {
        self.change_command(|command| command | Command::MEMORY_SPACE | Command::IO_SPACE | Command::NO_PIN_INTERRUPT);
    }

    /// Lets the function read and write memory.
    pub fn start_bus_mastering(&self) {
        self.change_command(|command| command | Command::BUS_MASTER);
    }

    /// Stops the function from reading and writing memory (and from signalling interrupts by message): the way to abandon it.
    pub fn stop_bus_mastering(&self) {
        self.change_command(|command| command - Command::BUS_MASTER);
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Class { base, sub, interface } = self.class();
        let (vendor, device) = (self.vendor(), self.device());
        write!(f, "{} [{vendor:04x}:{device:04x}] class {base:02x}.{sub:02x}.{interface:02x}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeConfig;

    #[test]
    fn bus_mastering_is_switched_without_touching_other_bits_or_the_status() {
        let address = Address { bus: 0, device: 1, function: 0 };
        let mut config = FakeConfig::default();
        config.add(address, 0x1af4, 0x1042, 0);
        config.set(address, register::COMMAND, 0xffff_0003);
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        let function = Function::probe(&config, address).expect("just added");
        function.start_bus_mastering();
        assert_eq!(function.read32(register::COMMAND), 0x0000_0007);
        function.stop_bus_mastering();
        assert_eq!(function.read32(register::COMMAND), 0x0000_0003);
    }

    #[test]
    fn identity_is_read_from_the_header() {
        let address = Address { bus: 0, device: 1, function: 0 };
        let mut config = FakeConfig::default();
        config.add(address, 0x1af4, 0x1042, 0);
        config.set(address, register::REVISION, 0x0108_0201);
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        let function = Function::probe(&config, address).expect("just added");
        assert_eq!((function.vendor(), function.device()), (0x1af4, 0x1042));
        assert_eq!(function.class(), Class { base: 1, sub: 8, interface: 2 });
        assert!(Function::probe(&config, Address { device: 2, ..address }).is_none());
    }
}
