//! The ways out: power off, restart, leave the emulator, halt.
//!
//! Next: `acpi.rs`.

use super::instructions::{disable_interrupts, halt as hlt, outl};

/// QEMU's `isa-debug-exit` device as xtask sets it up.
const DEBUG_EXIT: u16 = 0xf4;

/// Leaves QEMU with status `2 * status + 1` if it has the exit device; halts otherwise.
pub fn exit(status: u8) -> ! {
    outl(DEBUG_EXIT, status.into());
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    disable_interrupts();
    loop {
        hlt();
    }
}
