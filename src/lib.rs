//! The kernel: Linux semantics over the crates that run tasks, drive devices and keep files.
//!
//! Next: `boot.rs`, which puts it together.
#![cfg_attr(not(test), no_std)]
extern crate alloc;
#[cfg(not(target_os = "none"))]
#[macro_use]
extern crate std;

pub mod arch;
pub mod audit;
pub mod block_faults;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod buses;
pub mod counters;
pub mod devices;
pub mod files;
pub mod filesystems;
pub mod ipc;
pub mod load;
pub mod log;
pub mod memory_info;
pub mod mm;
pub mod net;
#[cfg(target_os = "none")]
pub mod panic;
pub mod ports;
pub mod proc;
pub mod process;
pub mod random;
pub mod symbols;
pub mod syscall;
pub mod tasks;
pub mod trace;
pub mod tty;
pub mod vdso;
pub mod wall_clock;
