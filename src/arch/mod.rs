//! The machine: everything that names x86, and the same names on the developer's machine.
//!
//! The kernel proper says `crate::arch::enter_user`, `crate::arch::clock::now` and so on. On the bare machine these are the
//! names of `x86_64/`; under `cargo test` they are those of `host.rs` and `host_machine.rs`, where RAM is a vector and programs are
//! lists of steps. What is pure data or arithmetic (`boot_info`, the user context, descriptor encodings, parsers of what the firmware
//! hands over) compiles on both sides, so its tests run on the host.
//!
//! Next: `boot_info.rs`, then `x86_64/entry.rs`, where the first instruction runs.

pub mod boot_info;
#[cfg(not(target_os = "none"))]
#[allow(unsafe_code, reason = "stands in for the MMU: a software page walk over the host's RAM vector")]
pub mod host;
#[cfg(not(target_os = "none"))]
pub mod host_machine;
#[allow(unsafe_code, reason = "the processor is programmed here: invariant 9 of ARCHITECTURE.md")]
pub mod x86_64;

pub use boot_info::{BootInfo, FramebufferInfo, MemoryKind, MemoryRegion};

#[cfg(not(target_os = "none"))]
pub use host::*;
#[cfg(not(target_os = "none"))]
pub use host_machine::*;
pub use x86_64::paging::{self, direct_map, direct_map_physical};
pub use x86_64::*;
