//! The walk over the buses.
//!
//! Next: `function.rs`.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::config::{Address, ConfigSpace};
use crate::function::{Function, register};

/// Finds every function, behind bridges too, in the order of their addresses on each bus.
///
/// A bus is visited once, whatever the bridges say, so that bridges in a circle do no harm.
pub fn enumerate(config: &Arc<dyn ConfigSpace>) -> Vec<Function> {
    let mut found = Vec::new();
    let mut is_known = [false; 256];
    let mut buses = vec![0];
    is_known[0] = true;
    while let Some(bus) = buses.pop() {
        for device in 0..32 {
            let first = Address { bus, device, function: 0 };
            let Some(function) = Function::probe(config, first) else { continue };
            let others = if function.has_siblings() { 1..8 } else { 1..1 };
            let siblings = others
                .filter_map(|function| Function::probe(config, Address { function, ..first }))
                .collect::<Vec<_>>();
            for function in core::iter::once(function).chain(siblings) {
                if let Some(behind) = function.secondary_bus()
                    && !core::mem::replace(&mut is_known[usize::from(behind)], true)
                {
                    buses.push(behind);
                }
                log::debug!("pci {function:?}");
                found.push(function);
            }
        }
    }
    found.sort_by_key(Function::address);
    found
}

impl Function {
    fn has_siblings(&self) -> bool {
        self.read8(register::HEADER_TYPE) & 0x80 != 0
    }

    /// The bus behind a bridge, if this is one and the firmware gave the bus a number.
    fn secondary_bus(&self) -> Option<u8> {
        const BRIDGE: u8 = 1;
        let is_bridge = self.read8(register::HEADER_TYPE) & 0x7f == BRIDGE;
        is_bridge.then(|| self.read8(register::SECONDARY_BUS)).filter(|bus| *bus != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeConfig;

    fn address(bus: u8, device: u8, function: u8) -> Address {
        Address { bus, device, function }
    }

    fn found(config: FakeConfig) -> Vec<Address> {
        let config: Arc<dyn ConfigSpace> = Arc::new(config);
        enumerate(&config).iter().map(Function::address).collect()
    }

    #[test]
    fn an_empty_bus_has_no_functions() {
        assert!(found(FakeConfig::default()).is_empty());
    }

    #[test]
    fn functions_above_zero_are_looked_for_only_when_the_header_says_so() {
        let mut config = FakeConfig::default();
        config.add(address(0, 3, 0), 0x8086, 1, 0x80);
        config.add(address(0, 3, 5), 0x8086, 2, 0);
        config.add(address(0, 4, 0), 0x8086, 3, 0);
        config.add(address(0, 4, 1), 0x8086, 4, 0);
        assert_eq!(found(config), [address(0, 3, 0), address(0, 3, 5), address(0, 4, 0)]);
    }

    #[test]
    fn devices_behind_bridges_are_found_even_if_the_bridges_form_a_circle() {
        let mut config = FakeConfig::default();
        config.add_bridge(address(0, 1, 0), 2);
        config.add_bridge(address(2, 0, 0), 3);
        config.add_bridge(address(3, 0, 0), 2);
        config.add(address(3, 7, 0), 0x1af4, 0x1042, 0);
        let all = [address(0, 1, 0), address(2, 0, 0), address(3, 0, 0), address(3, 7, 0)];
        assert_eq!(found(config), all);
    }
}
