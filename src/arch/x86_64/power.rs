//! The ways out: power off, restart, leave the emulator, halt.
//!
//! Each tries what ACPI describes, then what PCs have always had; when all fails the CPU halts, so none returns.
//!
//! Next: `acpi.rs`, where the registers come from.

use core::arch::asm;

use super::acpi::{Register, platform};
use super::boot_paging::map_device;
use super::instructions::{disable_interrupts, halt as hlt, inb, inw, outb, outl, outw};
use super::serial_emergency;

/// QEMU's `isa-debug-exit` device as xtask sets it up.
const DEBUG_EXIT: u16 = 0xf4;
const SLEEP_ENABLE: u16 = 1 << 13;
const SCI_ENABLE: u16 = 1;

/// Turns the machine off.
pub fn off() -> ! {
    disable_interrupts();
    let ways = platform().power_off;
    if let Some((register, kind)) = ways.sleep_control {
        // ACPI 6.5, section 4.8.3.7: SLP_EN is bit 5, SLP_TYP begins at bit 2.
        write8(register, 1 << 5 | kind << 2);
    }
    if let Some((pm1a, kind)) = ways.pm1a {
        if inw(pm1a) & SCI_ENABLE == 0
            && let Some((port, value)) = ways.enable
        {
            outb(port, value);
            wait_for(|| inw(pm1a) & SCI_ENABLE != 0);
        }
        // SLP_TYP begins at bit 10 of the PM1 control register.
        outw(pm1a, inw(pm1a) & !0x3c00 | u16::from(kind) << 10 | SLEEP_ENABLE);
        if let Some((pm1b, kind)) = ways.pm1b {
            outw(pm1b, inw(pm1b) & !0x3c00 | u16::from(kind) << 10 | SLEEP_ENABLE);
        }
    }
    pause();
    log::error!("this machine cannot be turned off by software");
    halt()
}

/// Restarts the machine, and says so on the serial port: whoever watches cannot tell it from being switched off.
pub fn reboot() -> ! {
    disable_interrupts();
    serial_emergency::write(b"reboot: Restarting system\n");
    if let Some((register, value)) = platform().reset {
        write8(register, value);
        pause();
    }
    // The keyboard controller pulses the CPU's reset line.
    wait_for(|| inb(0x64) & 2 == 0);
    outb(0x64, 0xfe);
    pause();
    // The reset control register of PCI chip sets: a full reset.
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    pause();
    triple_fault()
}

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

/// An exception without a table of handlers is a shutdown, which every PC answers with a reset.
fn triple_fault() -> ! {
    // SAFETY: the CPU resets; nothing continues.
    unsafe {
        asm!("push 0", "push 0", "lidt [rsp]", "int3", options(noreturn));
    }
}

fn write8(register: Register, value: u8) {
    match register {
        Register::Port(port) => outb(port, value),
        Register::Memory(address) => {
            if let Some(at) = map_device(address, 1) {
                // SAFETY: just mapped; it is the register that ACPI says turns the machine off or resets it.
                unsafe { at.as_ptr().write_volatile(value) };
            }
        }
    }
}

fn wait_for(is_so: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if is_so() {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Time for a reset to take effect.
fn pause() {
    for _ in 0..100_000 {
        inb(0x80);
    }
}
