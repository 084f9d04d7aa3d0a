//! The small devices that every PC has, or pretends to have.
//!
//! - [`serial`]: the 16550 serial port. - [`keyboard`]: a PS/2 keyboard behind its controller. - [`rtc`]: the battery-backed clock.
//!
//! All three live behind I/O ports; tests put a model of the device there. `cargo test -p pc` runs them against those models.
//!
//! Next: `serial.rs`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[cfg(test)]
mod fake_uart;
pub mod keyboard;
pub mod rtc;
pub mod serial;
