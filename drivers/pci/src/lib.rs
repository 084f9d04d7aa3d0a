//! The PCI bus: which devices there are, where their registers lie, and how they interrupt.
//!
//! [`fn@enumerate`] walks the buses and returns a [`Function`] for each device it finds. A driver that wants one maps its registers
//! ([`Bars::map`]), sets its interrupts up ([`MsiX`], [`Msi`]) and lets it use memory ([`Function::start_bus_mastering`]).
//! Addresses and bus numbers are those that the firmware assigned; this crate assigns none.
//!
//! `config.rs` reaches configuration space through ports or through memory (ECAM); all else is built on its [`ConfigSpace`].
//!
//! Written here rather than over the `pci_types` crate, whose access trait is `unsafe` to implement and whose capability list
//! follows a loop for ever.
//!
//! Next: `config.rs`. Exercise: why must a device's decoding be off while the size of a BAR is asked for?
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

mod bar;
mod capability;
mod config;
mod enumerate;
#[cfg(test)]
mod fake;
mod function;
mod msi;
mod msix;

pub use bar::{Bar, Bars};
pub use capability::{Capability, capability_id};
pub use config::{Address, ConfigPorts, ConfigSpace, Ecam};
pub use enumerate::enumerate;
pub use function::{Class, Function};
pub use msi::Msi;
pub use msix::MsiX;
