//! A configuration space for tests: dwords, each with the bits that can be written.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::config::{Address, ConfigSpace};
use crate::function::register;

#[derive(Default)]
pub(crate) struct FakeConfig {
    /// (address, offset) → (value, bits that can be written).
    dwords: Mutex<HashMap<(Address, u16), (u32, u32)>>,
}

impl FakeConfig {
    pub(crate) fn add(&mut self, address: Address, vendor: u16, device: u16, header_type: u8) {
        self.set_with_mask(address, register::VENDOR, u32::from(device) << 16 | u32::from(vendor), 0);
        self.set_with_mask(address, register::HEADER_TYPE & !3, u32::from(header_type) << 16, 0);
    }

    pub(crate) fn add_bridge(&mut self, address: Address, secondary: u8) {
        self.add(address, 0x1b36, 0x000c, 1);
        self.set(address, register::SECONDARY_BUS & !3, u32::from(secondary) << 8);
    }

    pub(crate) fn set(&mut self, address: Address, offset: u16, value: u32) {
        self.set_with_mask(address, offset, value, u32::MAX);
    }

    pub(crate) fn set_with_mask(&mut self, address: Address, offset: u16, value: u32, writable: u32) {
        self.dwords.lock().expect("no panic").insert((address, offset), (value, writable));
    }

    fn exists(&self, address: Address) -> bool {
        self.dwords.lock().expect("no panic").contains_key(&(address, register::VENDOR))
    }
}

impl ConfigSpace for FakeConfig {
    fn read(&self, address: Address, offset: u16) -> u32 {
        if !self.exists(address) {
            return u32::MAX;
        }
        self.dwords.lock().expect("no panic").get(&(address, offset)).map_or(0, |(value, _)| *value)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if let Some((old, writable)) = self.dwords.lock().expect("no panic").get_mut(&(address, offset)) {
            *old = *old & !*writable | value & *writable;
        }
    }
}
