//! x86_64: boot, descriptor tables, traps, user mode, interrupts, clock, power.
//!
//! Only this folder holds assembly or names a register. Files that are pure data or arithmetic compile on every host and are
//! tested there; those that execute privileged instructions exist on the bare machine only.
//!
//! Next: `entry.rs` (the first instruction), `user_mode.rs` (ring 3 and back), `trap.rs`.

// Pure: compiled and tested on the host too.
pub mod descriptors;
pub mod madt;
pub mod memory_map;
pub mod multiboot2;
pub mod page_size;
pub mod paging;
pub mod pvh;
pub mod rtc;
pub mod signal_frame;
pub mod stacks;
pub mod tsc_scale;
pub mod user_context;
pub mod vdso;
pub mod vector_layout;

#[cfg(target_os = "none")]
mod machine {
    //! What exists on the bare machine only.
    pub use super::boot::{boot_info, init_devices, symbol_table};
    pub use super::boot_paging::{kernel_root, map_device, map_framebuffer};
    pub use super::cpu::{cpu_id, idle, interrupts_off, start_interrupts, with_cpu};
    pub use super::cpu_features::{cpu_features, hardware_capabilities};
    pub use super::entry::{DIRECT_MAP, KERNEL_BASE};
    pub use super::instructions::interrupts_are_on;
    pub use super::ports::{Ports, Registers, frame_buffer};
    pub use super::random::random_seed;
    pub use super::smp::online as cpus_online;
    pub use super::stacks::MAX_CPUS;
    pub use super::user_mode::enter_user;
    pub use super::vector::{VectorState, smallest_signal_stack};
}
#[cfg(target_os = "none")]
pub mod acpi;
#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
pub mod backtrace;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
pub mod boot_paging;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod copy;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
pub mod cpu_features;
#[cfg(target_os = "none")]
pub mod cpu_info;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub mod instructions;
#[cfg(target_os = "none")]
mod io_apic;
#[cfg(target_os = "none")]
pub mod irq;
#[cfg(target_os = "none")]
pub mod pic;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
mod provoke;
#[cfg(target_os = "none")]
mod random;
#[cfg(target_os = "none")]
mod reference;
#[cfg(target_os = "none")]
pub mod serial_emergency;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod stack_depth;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
pub mod trap_entry;
#[cfg(target_os = "none")]
mod user_mode;
#[cfg(target_os = "none")]
pub mod vector;

#[cfg(target_os = "none")]
pub use machine::*;
pub use signal_frame::FaultRecord;
pub use user_context::{Exception, GeneralRegisters, PageFault, Trap, UserContext};
