//! The kernel: Linux semantics over the crates that run tasks, drive devices and keep files.
//!
//! Next: `boot.rs`, which puts it together.
#![cfg_attr(not(test), no_std)]
extern crate alloc;
#[cfg(not(target_os = "none"))]
#[macro_use]
extern crate std;

pub mod arch;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod buses;
pub mod log;
pub mod mm;
#[cfg(target_os = "none")]
pub mod panic;
pub mod ports;
pub mod symbols;
pub mod tty;
