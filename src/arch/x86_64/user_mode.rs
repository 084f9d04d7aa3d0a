//! Into ring 3 and back: [`enter_user`], the one call around which a thread's life turns.
//!
//! The caller sees a plain function: it returns when the thread wants something, or when something wants the thread. Device
//! interrupts that arrive meanwhile are served in here and the thread goes on, unless `leave` now says otherwise. `leave` is
//! always asked with interrupts off, after which only the exit instruction turns them on: a wake that comes later finds this CPU
//! in user mode and sends an interrupt, so none is lost.
//!
//! Next: `src/process/thread.rs`, the caller.

use super::cpu::{Cpu, FS_BASE, KERNEL_GS_BASE, with_cpu};
use super::instructions::{disable_interrupts, enable_interrupts, read_cr2, wrmsr};
use super::irq;
use super::trap_entry::{Exit, SYSCALL, enter_user_mode};
use super::user_context::{Exception, PageFault, Trap, USER_END, UserContext, vector};

/// In a page fault's error code: the program itself made the access.
const USER_ACCESS: u64 = 4;

/// Runs the thread whose registers are `context` until it traps, or until `leave` answers true.
///
/// The caller has loaded the thread's address space and its vector state. Interrupts are on before and after.
#[inline]
pub fn enter_user(context: &mut UserContext, leave: impl Fn() -> bool) -> Trap {
    disable_interrupts();
    let trap = loop {
        if leave() {
            break Trap::Kick;
        }
        with_cpu(|cpu| load_segment_bases(cpu, context));
        if context.rip >= USER_END {
            // What the CPU would say, but in ring 0.
            break general_protection(context);
        }
        // SAFETY: interrupts are off; RIP was checked; the context is exclusively borrowed until the trap stored it; the caller
        // loaded the address space, and every address space maps the kernel.
        let exit = unsafe { enter_user_mode(context) };
        if exit.reason == SYSCALL {
            break Trap::Syscall;
        }
        if let Some(trap) = trap_of(&exit, context) {
            break trap;
        }
    };
    // SAFETY: the kernel runs with interrupts on, and the tables are loaded.
    unsafe { enable_interrupts() };
    trap
}

fn general_protection(context: &UserContext) -> Trap {
    Trap::Error(Exception { vector: vector::GENERAL_PROTECTION, code: 0, address: context.rip as usize })
}

/// Loads FS and GS base if this CPU does not hold them already. RDFSBASE and its kin stay disabled for programs (CR4.FSGSBASE):
/// so the bases change through the kernel only, and nothing needs to be saved when the thread comes back.
#[inline(always)]
fn load_segment_bases(cpu: &Cpu, context: &UserContext) {
    if cpu.loaded_fs_base.get() != context.fs_base || cpu.loaded_gs_base.get() != context.gs_base {
        load_other_segment_bases(cpu, context);
    }
}

#[cold]
fn load_other_segment_bases(cpu: &Cpu, context: &UserContext) {
    cpu.loaded_fs_base.set(context.fs_base);
    cpu.loaded_gs_base.set(context.gs_base);
    // A base in the kernel's half would deceive the stubs that look at GS base, and one in between is refused by the CPU.
    let user = |base: u64| if base < USER_END { base } else { 0 };
    // SAFETY: both registers exist on every 64-bit CPU and take any canonical address; the kernel uses neither FS nor this GS.
    unsafe {
        wrmsr(FS_BASE, user(context.fs_base));
        wrmsr(KERNEL_GS_BASE, user(context.gs_base));
    }
}

/// What an exception or interrupt in user mode means for the thread; `None`: nothing, go on.
#[cold]
fn trap_of(exit: &Exit, context: &UserContext) -> Option<Trap> {
    // Before anything that may fault.
    let address = read_cr2();
    with_cpu(|cpu| cpu.traps.set(cpu.traps.get() + 1));
    match exit.reason as u8 {
        // An access of the CPU's own, as for a far return into the kernel's segment: no page that comes in would help.
        vector::PAGE_FAULT if exit.code & USER_ACCESS == 0 => {
            Some(Trap::Error(Exception { vector: vector::PAGE_FAULT, code: exit.code, address: context.rip as usize }))
        }
        vector::PAGE_FAULT => Some(Trap::PageFault(PageFault::decode(address, exit.code))),
        vector::NMI => {
            irq::non_maskable();
            None
        }
        vector::DOUBLE_FAULT | vector::MACHINE_CHECK => {
            panic!("the CPU reports exception {} in user mode, code {:#x}", exit.reason, exit.code)
        }
        number if number >= irq::FIRST_VECTOR => irq::dispatch(number).is_alarm().then_some(Trap::Tick),
        number => Some(Trap::Error(Exception { vector: number, code: exit.code, address: context.rip as usize })),
    }
}
