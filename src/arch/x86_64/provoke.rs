//! Crashes on request: `rouse.crash=KIND` on the kernel's command line, so that tests can see how the kernel dies.
//!
//! Each kind breaks one promise of this folder (a guard page, a read-only mapping, a mapping without execution); the report that
//! follows is what `tests/crash.rs` looks at. A line on the command line is as good as a debugger: whoever sets it owns the machine.
//!
//! Next: `src/panic.rs`.

use core::hint::black_box;

use super::entry::{DIRECT_MAP, KERNEL_BASE};
use crate::arch::boot_info::BootInfo;

const OPTION: &[u8] = b"rouse.crash=";

/// Crashes, if the command line asks for it.
pub(super) fn if_asked(info: &BootInfo) {
    let asked = info.command_line.split(|&byte| byte == b' ').find_map(|word| word.strip_prefix(OPTION));
    if let Some(kind) = asked {
        crash(kind, info);
    }
}

fn crash(kind: &[u8], info: &BootInfo) {
    let text = if_asked as *const () as u64;
    match kind {
        b"panic" => panic!("provoked"),
        b"stack" => {
            black_box(recurse(u64::MAX));
        }
        b"null" => write(8),
        b"text" => write(text),
        b"alias" => write(text - KERNEL_BASE + DIRECT_MAP),
        b"constant" => write(OPTION.as_ptr() as u64),
        b"data" => {
            let data: [u8; 1] = black_box([0xc3]);
            // SAFETY: none: the call is meant to fault, because the stack is not executable.
            let function: extern "C" fn() = unsafe { core::mem::transmute(data.as_ptr()) };
            function();
        }
        b"memory" => {
            for region in info.memory.iter().filter(|region| region.kind.is_ram()) {
                // SAFETY: the direct map shows all RAM; a read changes nothing.
                black_box(unsafe { ((DIRECT_MAP + region.end - 8) as *const u64).read_volatile() });
            }
            let end =
                info.memory.iter().filter(|region| region.kind.is_ram()).map(|region| region.end).max().unwrap_or(0);
            panic!("provoked: memory ends at {} MiB", end >> 20)
        }
        _ => panic!("provoked, but no such kind"),
    }
}

fn write(address: u64) {
    // SAFETY: none: the write is meant to fault.
    unsafe { (address as *mut u8).write_volatile(0) };
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == 0 { 0 } else { recurse(depth - 1) + frame[3] }
}
