//! The first serial port, polled: for the first lines and the last.
//!
//! The real console driver is interrupt-driven and lives in `drivers/`. This one needs nothing: no memory, no lock, no
//! interrupt; it may cut into the driver's output, which is what a dying kernel wants.
//!
//! Next: `src/panic.rs`, its chief user.

use core::fmt;

use super::instructions::{inb, outb};

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// A port that does not drain within this many looks is given up: a byte takes 87 µs at 115,200 baud.
const PATIENCE: u32 = 20_000;

/// Writes `bytes` to COM1, `\n` as `\r\n`; returns at once where there is no such port.
pub fn write(bytes: &[u8]) {
    // A missing port reads as all ones.
    if inb(LINE_STATUS) == 0xff {
        return;
    }
    for &byte in bytes {
        if byte == b'\n' {
            send(b'\r');
        }
        send(byte);
    }
}

fn send(byte: u8) {
    for _ in 0..PATIENCE {
        if inb(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            break;
        }
        core::hint::spin_loop();
    }
    outb(BASE, byte);
}

/// Sets 115,200 baud, 8 data bits, no parity, one stop bit, with queues and without interrupts.
pub fn init() {
    for (register, value) in [(1, 0x00), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0x07), (4, 0x0b)] {
        outb(BASE + register, value);
    }
}

/// [`write`], for `write!`.
pub struct Writer;

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}
