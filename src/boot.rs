//! Boot order.
//!
//! Next: `arch/x86_64/boot.rs`, what came before.

use core::fmt::Write;

use crate::arch::{self, BootInfo};

/// Starts the kernel: called on the boot CPU, on its own stack, under the final page tables, with interrupts off.
pub fn start(info: &'static BootInfo) -> ! {
    let mut out = arch::serial_emergency::Writer;
    let _ = writeln!(out, "Rouse: {} regions of memory, command line {:?}", info.memory.len(), info.command_line);
    arch::init_devices();
    arch::power::exit(0)
}
