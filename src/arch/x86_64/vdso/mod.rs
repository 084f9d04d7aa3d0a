//! The vDSO: a small shared object that the kernel maps into every program, so that it learns the time without a system call.
//!
//! ```text
//!   [vvar]   one page of `Data`, the same frame in all programs, readable only     the kernel writes ──► sequence counter
//!   [vdso]   the image: an ELF object with clock_gettime and four others           reads, or makes the system call
//! ```
//!
//! The image is assembled into the kernel's read-only data, ELF headers and all (`image.s`, `functions.s`, `tail.s`); there is no other
//! linker and no build step. A program finds it through AT_SYSINFO_EHDR; the C library looks its symbols up by the version
//! `LINUX_2.6` (vdso(7)). Its arithmetic is that of `tsc_scale.rs`, with the same numbers, so a program and the kernel
//! agree to the nanosecond, whichever it asks.
//!
//! Next: `../../../vdso.rs`, which maps it. Exercise: why may the reader not simply read the fields one after the other?

mod data;
#[cfg(test)]
mod tests;

use core::arch::global_asm;
use core::mem::offset_of;

pub use data::Data;

use super::descriptors::CPU_NUMBER;
use super::tsc_scale::SHIFT;

/// A bit for each clock that has no other clock's time here: all that are wall clocks, or run since boot.
const KNOWN_CLOCKS: u32 = WALL_CLOCKS | 1 << 1 | 1 << 4 | 1 << 6 | 1 << 7;
/// CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI.
const WALL_CLOCKS: u32 = 1 | 1 << 5 | 1 << 11;

/// The hash of a name, for its place in a version table (gABI, "Hash Table").
const fn elf_hash(name: &[u8]) -> u32 {
    let (mut hash, mut index) = (0_u32, 0);
    while index < name.len() {
        hash = (hash << 4).wrapping_add(name[index] as u32);
        let high = hash & 0xf000_0000;
        hash = (hash ^ high >> 24) & !high;
        index += 1;
    }
    hash
}

global_asm!(
    include_str!("image.s"),
    include_str!("functions.s"),
    include_str!("tail.s"),
    object_hash = const elf_hash(b"linux-vdso.so.1"),
    version_hash = const elf_hash(b"LINUX_2.6"),
    known_clocks = const KNOWN_CLOCKS,
    wall_clocks = const WALL_CLOCKS,
    cpu_segment = const CPU_NUMBER,
    shift = const SHIFT,
    sequence = const offset_of!(Data, sequence),
    is_tsc = const offset_of!(Data, is_tsc),
    tsc_at_boot = const offset_of!(Data, tsc_at_boot),
    multiplier = const offset_of!(Data, multiplier),
    wall_at_boot = const offset_of!(Data, wall_at_boot),
);

unsafe extern "C" {
    static rouse_vdso_start: u8;
    static rouse_vdso_end: u8;
}

/// The image: whole pages.
pub fn image() -> &'static [u8] {
    let (start, end) = (&raw const rouse_vdso_start, &raw const rouse_vdso_end);
    // SAFETY: the assembler has put both labels around one piece of read-only data that lives for ever.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
