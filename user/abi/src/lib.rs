//! The Linux x86_64 ABI as data: error numbers, system call numbers, structures and flags.
//!
//! Nothing here has behaviour, so every crate may depend on it. The constants and most `repr(C)` structures come from
//! `linux-raw-sys`, which is generated from the kernel's own headers; this crate adds the [`Errno`] newtype, so that an error
//! is never a bare integer, and what `linux-raw-sys` lacks.
//!
//! Next: `executor/src/task.rs`, where the kernel's own story begins.
#![no_std]

pub mod errno;
pub mod ipc;

pub use errno::Errno;
pub use linux_raw_sys::{auxvec, general, ioctl, net, prctl, ptrace, system};

/// Either a value or the reason there is none, as a system call reports it.
pub type Result<T, E = Errno> = core::result::Result<T, E>;
