//! The two 8259 interrupt controllers of the first PCs: moved out of the way of the exceptions, and silenced.
//!
//! After a reset they raise vectors 8 to 15 and 112 to 119. Even a silenced one may raise a spurious interrupt, so first its
//! vectors move to a place where nothing else is.
//!
//! Next: `apic.rs`, what is used instead.

use super::instructions::outb;

const FIRST: u16 = 0x20;
const SECOND: u16 = 0xa0;
/// The vectors 0x20 to 0x2f are theirs, and mean nothing.
pub const VECTORS: core::ops::Range<u8> = 0x20..0x30;

/// Moves and masks both.
pub fn silence() {
    // Initialisation words 1 to 4 (Intel 8259A data sheet): cascade mode, first vector, wiring, 8086 mode.
    for (command, vector, wiring) in [(FIRST, VECTORS.start, 4), (SECOND, VECTORS.start + 8, 2)] {
        outb(command, 0x11);
        for word in [vector, wiring, 1] {
            outb(command + 1, word);
        }
        outb(command + 1, 0xff);
    }
}
