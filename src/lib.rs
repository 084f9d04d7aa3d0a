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
pub mod audit;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod buses;
pub mod counters;
#[cfg(target_os = "none")]
pub mod devices;
#[cfg(target_os = "none")]
pub mod files;
#[cfg(target_os = "none")]
pub mod filesystems;
#[cfg(target_os = "none")]
pub mod load;
pub mod log;
#[cfg(target_os = "none")]
pub mod memory_info;
pub mod mm;
pub mod net;
#[cfg(target_os = "none")]
pub mod panic;
pub mod ports;
#[cfg(target_os = "none")]
pub mod proc;
#[cfg(target_os = "none")]
pub mod process;
#[cfg(target_os = "none")]
pub mod random;
pub mod symbols;
#[cfg(target_os = "none")]
pub mod syscall;
#[cfg(target_os = "none")]
pub mod tasks;
pub mod tty;
#[cfg(target_os = "none")]
pub mod vdso;
#[cfg(target_os = "none")]
pub mod wall_clock;
