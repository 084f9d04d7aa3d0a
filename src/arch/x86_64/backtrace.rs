//! Who called: the chain of saved frame pointers.
//!
//! The kernel is built with frame pointers, so each frame begins with the caller's RBP and the return address. The walk believes
//! nothing: it stops at the first pointer that does not lie on a kernel stack, is not aligned, or does not go upwards.
//!
//! Next: `src/panic.rs`.

use core::arch::asm;

use super::stacks::stack_at;

/// Return addresses, innermost first.
pub struct Frames {
    frame: u64,
}

impl Frames {
    /// From the caller of this function on.
    #[inline(always)]
    pub fn from_here() -> Frames {
        let frame: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
        Frames { frame }
    }

    /// From a saved frame pointer on.
    pub fn from(frame: u64) -> Frames {
        Frames { frame }
    }
}

impl Iterator for Frames {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let on_a_stack = |address: u64| stack_at(address).is_some_and(|stack| !stack.is_guard);
        if !self.frame.is_multiple_of(8) || !on_a_stack(self.frame) || !on_a_stack(self.frame + 8) {
            return None;
        }
        // SAFETY: both words lie on a kernel stack, all of which are mapped (another CPU's may not be; then nobody points there).
        let (next, address) = unsafe { (*(self.frame as *const u64), *((self.frame + 8) as *const u64)) };
        self.frame = if next > self.frame { next } else { 0 };
        (address != 0).then_some(address)
    }
}
