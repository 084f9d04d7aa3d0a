//! Traps that arrive while the kernel runs.
//!
//! An interrupt is served at once. A page fault (or, for a non-canonical address, a general protection fault) at one of the
//! instructions that may touch user memory continues at that instruction's fixup. Everything else is a bug in the kernel, and is
//! reported as one.
//!
//! Next: `copy.rs`, which fills the table of fixups; `irq.rs`; `src/panic.rs`.

use super::copy;
use super::cpu::with_cpu;
use super::instructions::read_cr2;
use super::irq;
use super::trap_entry::TrapFrame;
use super::user_context::vector;

const TRAP_FLAG: u64 = 1 << 8;

/// Called by the stubs, with interrupts off.
pub(super) extern "C" fn kernel_trap(frame: &mut TrapFrame) {
    with_cpu(|cpu| cpu.traps.set(cpu.traps.get() + 1));
    match frame.vector as u8 {
        number if number >= irq::FIRST_VECTOR => {
            irq::dispatch(number);
        }
        vector::PAGE_FAULT | vector::GENERAL_PROTECTION => match copy::fixup(frame.rip) {
            Some(fixup) => frame.rip = fixup,
            None => crate::panic::unexpected_trap(frame, read_cr2()),
        },
        vector::NMI => irq::non_maskable(),
        // A breakpoint that user mode had set up strikes in the entry code: not the kernel's concern.
        vector::DEBUG => frame.rflags &= !TRAP_FLAG,
        _ => crate::panic::unexpected_trap(frame, read_cr2()),
    }
}
