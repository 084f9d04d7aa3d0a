//! Single privileged instructions as functions.
//!
//! Each is as safe as its argument: those that can break memory safety by themselves are `unsafe`; reading a port, a
//! counter or a control register is not.
//!
//! Next: whoever brought you here.

use core::arch::asm;

/// Reads a byte from an I/O port.
pub fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: a port read touches no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to an I/O port. Only ports of devices that cannot write to memory are passed here: serial, PIC, PIT, RTC.
pub fn outb(port: u16, value: u8) {
    // SAFETY: see above: no device behind these ports masters the bus.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads 16 bits from an I/O port.
pub fn inw(port: u16) -> u16 {
    let value: u16;
    // SAFETY: a port read touches no memory.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 16 bits to an I/O port; the same restriction as [`outb`].
pub fn outw(port: u16, value: u16) {
    // SAFETY: as outb.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads 32 bits from an I/O port.
pub fn inl(port: u16) -> u32 {
    let value: u32;
    // SAFETY: a port read touches no memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 32 bits to an I/O port; the same restriction as [`outb`].
pub fn outl(port: u16, value: u32) {
    // SAFETY: as outb.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// The time stamp counter.
#[inline(always)]
pub fn rdtsc() -> u64 {
    // SAFETY: RDTSC exists on every 64-bit CPU and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The time stamp counter, read after all earlier loads are done.
#[inline(always)]
pub fn rdtsc_ordered() -> u64 {
    // SAFETY: LFENCE is part of SSE2, which every 64-bit CPU has; it touches no register (a soft-float build may use it).
    unsafe { asm!("lfence", options(nostack, preserves_flags)) };
    rdtsc()
}

/// Reads a model-specific register.
///
/// # Safety
/// The CPU has this register.
#[inline(always)]
pub unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches that the register exists; reading it touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The CPU has this register, takes this value, and the value keeps memory safe.
#[inline(always)]
pub unsafe fn wrmsr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller vouches for register and value.
    unsafe { asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// The address of the last page fault.
#[inline(always)]
pub fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads CR3: the root table's address, and a few flags.
pub fn read_cr3() -> u64 {
    let value: u64;
    // SAFETY: reading CR3 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Loads CR3.
///
/// # Safety
/// It names a valid root table that maps all the kernel uses.
pub unsafe fn write_cr3(value: u64) {
    // SAFETY: the caller vouches for the table.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads CR0.
pub fn read_cr0() -> u64 {
    let value: u64;
    // SAFETY: reading CR0 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR0.
///
/// # Safety
/// Paging and protection stay on.
pub unsafe fn write_cr0(value: u64) {
    // SAFETY: the caller vouches for the bits.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads CR4.
pub fn read_cr4() -> u64 {
    let value: u64;
    // SAFETY: reading CR4 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR4.
///
/// # Safety
/// The CPU has every feature that is turned on, and PAE stays on.
pub unsafe fn write_cr4(value: u64) {
    // SAFETY: the caller vouches for the bits.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Turns interrupts off.
#[inline(always)]
pub fn disable_interrupts() {
    // SAFETY: an interrupt that comes later breaks nothing. Not `nomem`: what an interrupt handler shares is not moved across.
    unsafe { asm!("cli", options(nostack)) };
}

/// Turns interrupts on.
///
/// # Safety
/// The descriptor tables are loaded, and the caller does not rely on interrupts being off.
#[inline(always)]
pub unsafe fn enable_interrupts() {
    // SAFETY: the caller vouches for it.
    unsafe { asm!("sti", options(nostack)) };
}

/// Whether interrupts are on.
#[inline(always)]
pub fn interrupts_are_on() -> bool {
    let flags: u64;
    // SAFETY: reads the flags by way of the stack, below which nothing lives (the kernel has no red zone).
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & 0x200 != 0
}

/// Stops until an interrupt comes; with interrupts off, only an NMI ends it.
pub fn halt() {
    // SAFETY: touches nothing.
    unsafe { asm!("hlt", options(nostack, preserves_flags)) };
}

/// Turns interrupts on and stops, as one: an interrupt that is pending ends the halt at once, because `sti` holds interrupts
/// back for one instruction.
///
/// # Safety
/// As [`enable_interrupts`].
pub unsafe fn enable_interrupts_and_halt() {
    // SAFETY: the caller vouches for it.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}
