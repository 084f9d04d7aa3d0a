//! The list of capabilities in configuration space.
//!
//! Next: `msix.rs`.

use crate::function::{Function, register};

/// Ids of capabilities.
pub mod capability_id {
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Whatever the vendor defines.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Message-signalled interrupts with a table.
    pub const MSIX: u8 = 0x11;
}

/// One entry of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// What it is; see [`capability_id`].
    pub id: u8,
    /// Where in configuration space it begins.
    pub offset: u16,
}

const HAS_LIST: u16 = 1 << 4;
/// As many as fit between the header and the end of the 256 bytes: a list that is longer has a loop.
const MOST: usize = (256 - 64) / 4;

impl Function {
    /// Its capabilities, in the order of the list.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> + '_ {
        let has_list = self.read16(register::STATUS) & HAS_LIST != 0;
        let mut next = if has_list { self.read8(register::CAPABILITIES) & !3 } else { 0 };
        core::iter::from_fn(move || {
            if next < 64 {
                return None;
            }
            let offset = u16::from(next);
            let [id, following, ..] = self.read32(offset).to_le_bytes();
            next = following & !3;
            Some(Capability { id, offset })
        })
        .take(MOST)
    }

    /// The first capability with this id.
    pub fn capability(&self, id: u8) -> Option<Capability> {
        self.capabilities().find(|capability| capability.id == id)
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use super::*;
    use crate::config::{Address, ConfigSpace};
    use crate::fake::FakeConfig;

    fn function(list: &[(u16, u32)]) -> Function {
        let address = Address { bus: 0, device: 1, function: 0 };
        let mut config = FakeConfig::default();
        config.add(address, 0x1af4, 0x1042, 0);
        config.set(address, register::COMMAND, u32::from(HAS_LIST) << 16);
        config.set(address, register::CAPABILITIES, 0x40);
        for (offset, value) in list {
            config.set(address, *offset, *value);
        }
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        Function::probe(&config, address).expect("just added")
    }

    #[test]
    fn the_list_is_followed_to_its_end() {
        let function = function(&[(0x40, 0x0000_5011), (0x50, 0x0000_0009)]);
        assert_eq!(function.capabilities().map(|capability| capability.id).collect::<Vec<_>>(), [0x11, 0x09]);
        assert_eq!(function.capability(capability_id::VENDOR), Some(Capability { id: 9, offset: 0x50 }));
    }

    #[test]
    fn a_list_that_loops_comes_to_an_end() {
        assert_eq!(function(&[(0x40, 0x0000_4009)]).capabilities().count(), MOST);
    }

    #[test]
    fn a_pointer_into_the_header_ends_the_list() {
        assert_eq!(function(&[(0x40, 0x0000_1009)]).capabilities().count(), 1);
    }
}
