//! Base address registers: where a function's own registers lie.
//!
//! A function tells how much a register decodes when all ones are written to it. It then forgets its address for a moment, so its
//! decoding is off meanwhile; and as switching that is slow, most of all in a virtual machine, all six are asked at once.
//!
//! Next: `capability.rs`.

use drivers::hw::{DeviceMemory, Mmio, PhysAddr};
use drivers::{Errno, Result};

use crate::function::{Command, Function, register};

/// What a base address register decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// A range of memory addresses.
    Memory {
        /// Where it begins; 0 if the firmware assigned none.
        address: u64,
        /// Its length in bytes.
        size: u64,
        /// Whether reads have no side effects.
        is_prefetchable: bool,
    },
    /// A range of I/O ports.
    Ports {
        /// The first port.
        first: u16,
        /// How many there are.
        count: u32,
    },
}

const IS_PORTS: u32 = 1;
const IS_PREFETCHABLE: u32 = 1 << 3;
const WIDTH: u32 = 3 << 1;
const WIDTH_64: u32 = 2 << 1;

/// What a function's six base address registers decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bars([Option<Bar>; 6]);

impl Bars {
    /// What BAR `index` decodes; `None` if it is absent, or is the upper half of the one before.
    pub fn get(&self, index: u8) -> Option<Bar> {
        self.0.get(usize::from(index)).copied().flatten()
    }

    /// Maps a part of the memory that BAR `index` decodes.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is no memory BAR, has no address, or is smaller; `ENOMEM` if it cannot be mapped.
    pub fn map(&self, index: u8, offset: u64, len: u64, memory: &dyn DeviceMemory) -> Result<Mmio> {
        let Some(Bar::Memory { address, size, .. }) = self.get(index) else { return Err(Errno::ENODEV) };
        let end = offset.checked_add(len).filter(|end| *end <= size).ok_or(Errno::ENODEV)?;
        if address == 0 || len == 0 || address.checked_add(end).is_none() {
            return Err(Errno::ENODEV);
        }
        let len = usize::try_from(len).map_err(|_| Errno::ENODEV)?;
        memory.map(PhysAddr(address + offset), len).ok_or(Errno::ENOMEM)
    }
}

impl Function {
    /// Its base address registers. For functions that are no bridges, and that nobody uses yet.
    pub fn bars(&self) -> Bars {
        let before = self.change_command(|command| command - Command::MEMORY_SPACE - Command::IO_SPACE);
        let mut bars = [None; 6];
        let mut index = 0;
        while index < 6 {
            bars[usize::from(index)] = self.decode(index);
            index += if self.is_wide(index) { 2 } else { 1 };
        }
        self.change_command(|_| before);
        Bars(bars)
    }

    fn register(index: u8) -> u16 {
        register::BARS + 4 * u16::from(index)
    }

    fn is_wide(&self, index: u8) -> bool {
        self.read32(Function::register(index)) & (IS_PORTS | WIDTH) == WIDTH_64
    }

    fn decode(&self, index: u8) -> Option<Bar> {
        let (low, low_mask) = self.value_and_mask(index);
        if low & IS_PORTS != 0 {
            let mask = low_mask & 0xfffc;
            let count = 1 << mask.trailing_zeros();
            return (mask != 0).then_some(Bar::Ports { first: (low & 0xfffc) as u16, count });
        }
        let (high, high_mask) = match low & WIDTH {
            WIDTH_64 if index < 5 => self.value_and_mask(index + 1),
            WIDTH_64 => return None,
            _ => (0, u32::MAX),
        };
        if low_mask & !0xf == 0 && (high_mask == 0 || high_mask == u32::MAX) {
            return None;
        }
        let mask = u64::from(high_mask) << 32 | u64::from(low_mask & !0xf);
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        Some(Bar::Memory { address, size: 1 << mask.trailing_zeros(), is_prefetchable: low & IS_PREFETCHABLE != 0 })
    }

    /// A register's value, and which of its bits can be set.
    fn value_and_mask(&self, index: u8) -> (u32, u32) {
        let at = Function::register(index);
        let value = self.read32(at);
        self.write32(at, u32::MAX);
        let mask = self.read32(at);
        self.write32(at, value);
        (value, mask)
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::config::{Address, ConfigSpace};
    use crate::fake::FakeConfig;

    fn bars(bars: &[(u8, u32, u32)]) -> Bars {
        let address = Address { bus: 0, device: 1, function: 0 };
        let mut config = FakeConfig::default();
        config.add(address, 0x1af4, 0x1042, 0);
        for (index, value, writable) in bars {
            config.set_with_mask(address, Function::register(*index), *value, *writable);
        }
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        let function = Function::probe(&config, address).expect("just added");
        let bars = function.bars();
        assert_eq!(function.bars(), bars, "asking changes nothing");
        bars
    }

    #[test]
    fn a_32_bit_memory_bar_is_sized_and_keeps_its_address() {
        let bars = bars(&[(1, 0xfebd_1000, 0xffff_f000)]);
        let bar = Bar::Memory { address: 0xfebd_1000, size: 0x1000, is_prefetchable: false };
        assert_eq!([bars.get(0), bars.get(1), bars.get(6)], [None, Some(bar), None]);
    }

    #[test]
    fn a_64_bit_bar_takes_two_registers_of_which_the_second_is_none() {
        let bars = bars(&[(4, 0x0000_000c, 0xffff_c000), (5, 0x80, u32::MAX)]);
        assert_eq!(bars.get(4), Some(Bar::Memory { address: 0x80_0000_0000, size: 0x4000, is_prefetchable: true }));
        assert_eq!(bars.get(5), None);
    }

    #[test]
    fn a_bar_larger_than_4_gib_is_sized_by_its_upper_half() {
        let bars = bars(&[(0, 0x4, 0), (1, 0x40, 0xffff_fff8)]);
        assert_eq!(bars.get(0), Some(Bar::Memory { address: 0x40_0000_0000, size: 1 << 35, is_prefetchable: false }));
    }

    #[test]
    fn a_port_bar_tells_its_first_port_and_their_count() {
        assert_eq!(bars(&[(0, 0xc041, 0xffc0)]).get(0), Some(Bar::Ports { first: 0xc040, count: 64 }));
    }

    #[test]
    fn a_bar_is_mapped_only_inside_its_size_and_if_it_has_an_address() {
        struct Nothing;
        impl DeviceMemory for Nothing {
            fn map(&self, start: PhysAddr, len: usize) -> Option<Mmio> {
                assert_eq!((start, len), (PhysAddr(0xfebd_1800), 0x800));
                None
            }
        }
        let bars = bars(&[(0, 0xc041, 0xffc0), (1, 0xfebd_1000, 0xffff_f000), (2, 0, 0xffff_f000)]);
        let map = |index, offset, len| bars.map(index, offset, len, &Nothing).err();
        assert_eq!(map(1, 0x800, 0x800), Some(Errno::ENOMEM));
        for (index, offset, len) in [(0, 0, 4), (1, 0x800, 0x801), (1, u64::MAX, 2), (1, 0, 0), (2, 0, 4), (7, 0, 4)] {
            assert_eq!(map(index, offset, len), Some(Errno::ENODEV));
        }
    }

    #[test]
    fn a_64_bit_bar_in_the_last_register_is_refused() {
        assert_eq!(bars(&[(5, 0x4, 0xffff_f000)]).get(5), None);
    }
}
