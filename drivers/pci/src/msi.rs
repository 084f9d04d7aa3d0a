//! MSI: one message, kept in configuration space, for functions that have no MSI-X.
//!
//! Source: PCI Local Bus 3.0, section 6.8.1. Next: `drivers/virtio/src/transport/pci.rs`.

use drivers::irq::MsiMessage;
use drivers::{Errno, Result};

use crate::capability::capability_id;
use crate::function::Function;

/// A function's message. Dropping it turns the function's interrupts off.
pub struct Msi {
    function: Function,
    offset: u16,
}

const ENABLED: u32 = 1 << 16;
/// How many messages of those it could send the function may send, as a power of two.
const MESSAGES: u32 = 7 << 20;
const IS_64_BIT: u32 = 1 << 23;

impl Msi {
    /// Makes a function send `message` for all its interrupts.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the function has no MSI; `EINVAL` if it cannot reach the message's address.
    pub fn new(function: &Function, message: MsiMessage) -> Result<Msi> {
        let offset = function.capability(capability_id::MSI).ok_or(Errno::ENODEV)?.offset;
        let data = u32::from(u16::try_from(message.data).map_err(|_| Errno::EINVAL)?);
        let control = function.read32(offset) & !(ENABLED | MESSAGES);
        let (low, high) = (message.address as u32, (message.address >> 32) as u32);
        function.write32(offset, control);
        function.write32(offset + 4, low);
        if control & IS_64_BIT != 0 {
            function.write32(offset + 8, high);
            function.write32(offset + 12, data);
        } else if high == 0 {
            function.write32(offset + 8, data);
        } else {
            return Err(Errno::EINVAL);
        }
        function.write32(offset, control | ENABLED);
        Ok(Msi { function: function.clone(), offset })
    }
}

impl Drop for Msi {
    fn drop(&mut self) {
        self.function.write32(self.offset, self.function.read32(self.offset) & !ENABLED);
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::config::{Address, ConfigSpace};
    use crate::fake::FakeConfig;
    use crate::function::register;

    fn function(control: u32) -> Function {
        let address = Address { bus: 0, device: 1, function: 0 };
        let mut config = FakeConfig::default();
        config.add(address, 0x8086, 0x10d3, 0);
        config.set(address, register::COMMAND, 1 << 20);
        config.set(address, register::CAPABILITIES, 0x50);
        config.set(address, 0x50, control | u32::from(capability_id::MSI));
        [0x54, 0x58, 0x5c].into_iter().for_each(|offset| config.set(address, offset, 0));
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        Function::probe(&config, address).expect("just added")
    }

    #[test]
    fn a_64_bit_function_has_its_data_one_dword_further() {
        let function = function(IS_64_BIT);
        let message = MsiMessage { address: 0x1_fee0_0000, data: 0x41 };
        let msi = Msi::new(&function, message).expect("it has MSI");
        assert_eq!([0x54, 0x58, 0x5c].map(|at| function.read32(at)), [0xfee0_0000, 1, 0x41]);
        assert_ne!(function.read32(0x50) & ENABLED, 0);
        drop(msi);
        assert_eq!(function.read32(0x50) & ENABLED, 0);
    }

    #[test]
    fn a_32_bit_function_refuses_an_address_it_cannot_reach() {
        let function = function(0);
        assert!(Msi::new(&function, MsiMessage { address: 1 << 32, data: 0 }).is_err());
        assert!(Msi::new(&function, MsiMessage { address: 0xfee0_0000, data: 0x41 }).is_ok());
        assert_eq!(function.read32(0x58), 0x41);
    }
}
