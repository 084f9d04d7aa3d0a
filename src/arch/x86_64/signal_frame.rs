//! What a signal handler finds on its stack (`struct rt_sigframe`, as `asm/sigframe.h` and `asm/sigcontext.h` lay it out).
//!
//! ```text
//!   interrupted RSP ─►
//!                      red zone, 128 bytes               (not on the alternative stack)
//!                      vector state, 64-byte aligned     ◄─ fpstate
//!                      siginfo_t                         ◄─ RSI
//!                      ucontext_t                        ◄─ RDX
//!   handler's RSP ──►  address of the restorer           RSP + 8 is a multiple of 16
//! ```
//!
//! Pure data: compiled and tested on the host too.

use super::user_context::{Exception, GeneralRegisters, PageFault, USER_END, USER_FLAGS, UserContext, vector};

/// Bytes of `struct ucontext` as the kernel lays it out.
const UCONTEXT: usize = 304;
/// Bytes of `siginfo_t`.
const SIGINFO: usize = 128;
/// Bytes below RSP that belong to the interrupted function.
const RED_ZONE: usize = 128;
/// uc_flags: UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;
/// The user code and stack segments.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// Direction, trap and resume flag: clear when a handler begins.
const HANDLER_CLEARS: u64 = 1 << 10 | 1 << 8 | 1 << 16;

/// The fault behind a fault signal, for the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultRecord {
    trap: u32,
    /// The CPU's error code, of which it defines 32 bits.
    error: u32,
    address: u64,
}

impl FaultRecord {
    /// Of an exception other than a page fault.
    pub fn from_exception(exception: &Exception) -> FaultRecord {
        FaultRecord { trap: u32::from(exception.vector), error: exception.code as u32, address: 0 }
    }

    /// Of a page fault.
    pub fn from_page_fault(fault: &PageFault) -> FaultRecord {
        const USER: u32 = 4;
        let error = u32::from(fault.present) | u32::from(fault.write) << 1 | USER | u32::from(fault.execute) << 4;
        FaultRecord { trap: u32::from(vector::PAGE_FAULT), error, address: fault.address as u64 }
    }
}

impl Exception {
    /// The signal that Linux sends for it, and its `si_code`, if it has one of its own.
    pub fn signal(&self) -> (usize, Option<i32>) {
        use abi::general as g;
        let (signal, code) = match self.vector {
            vector::DIVIDE_ERROR => (g::SIGFPE, Some(g::FPE_INTDIV)),
            vector::DEBUG => (g::SIGTRAP, Some(g::TRAP_TRACE)),
            vector::BREAKPOINT => (g::SIGTRAP, None),
            vector::OVERFLOW | vector::BOUND_RANGE => (g::SIGSEGV, None),
            vector::INVALID_OPCODE => (g::SIGILL, Some(g::ILL_ILLOPN)),
            vector::X87 | vector::SIMD => (g::SIGFPE, Some(g::FPE_FLTINV)),
            vector::ALIGNMENT_CHECK => (g::SIGBUS, Some(g::BUS_ADRALN)),
            vector::SEGMENT_NOT_PRESENT | vector::STACK_FAULT => (g::SIGBUS, None),
            _ => (g::SIGSEGV, None),
        };
        (signal as usize, code.map(|code| code as i32))
    }
}

/// What goes into a frame.
pub struct FrameContent<'a> {
    /// The interrupted registers.
    pub context: &'a UserContext,
    /// The last fault.
    pub fault: FaultRecord,
    /// Where the handler returns to.
    pub restorer: usize,
    /// The signal mask that comes back.
    pub mask: u64,
    /// Base, flags and size of the alternative stack.
    pub alternate_stack: (usize, u32, usize),
    /// `siginfo_t`.
    pub information: [u8; SIGINFO],
}

/// Where a frame lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignalFrame {
    /// Its lowest address: the handler's stack pointer.
    pub address: usize,
    /// Where the vector state lies; 0 for none.
    pub vector_address: usize,
}

impl SignalFrame {
    /// Its length without the vector state.
    pub const SIZE: usize = 8 + UCONTEXT + SIGINFO;

    /// Where a frame may begin on an ordinary stack.
    pub fn below_red_zone(stack_pointer: usize) -> usize {
        stack_pointer.wrapping_sub(RED_ZONE)
    }

    /// Finds the place below `top`, with room for so many bytes of vector state. `None`: there is no room at all.
    pub fn place(top: usize, vector_len: usize) -> Option<SignalFrame> {
        let vector_address = top.checked_sub(vector_len)? & !63;
        let address = (vector_address.checked_sub(SignalFrame::SIZE)? & !15).checked_sub(8)?;
        Some(SignalFrame { address, vector_address })
    }

    /// The frame that rt_sigreturn(2) means: the handler has popped the restorer's address.
    pub fn of_return(context: &UserContext) -> SignalFrame {
        SignalFrame { address: (context.rsp as usize).wrapping_sub(8), vector_address: 0 }
    }

    /// Its bytes.
    pub fn encode(&self, content: &FrameContent<'_>) -> [u8; SignalFrame::SIZE] {
        let g = &content.context.general;
        let (base, flags, size) = content.alternate_stack;
        let words: [u64; (8 + UCONTEXT) / 8] = [
            content.restorer as u64,
            UC_FLAGS,
            0,
            base as u64,
            u64::from(flags),
            size as u64,
            g.r8,
            g.r9,
            g.r10,
            g.r11,
            g.r12,
            g.r13,
            g.r14,
            g.r15,
            g.rdi,
            g.rsi,
            g.rbp,
            g.rbx,
            g.rdx,
            g.rax,
            g.rcx,
            content.context.rsp,
            content.context.rip,
            content.context.rflags,
            USER_CS | USER_SS << 48,
            content.fault.error.into(),
            content.fault.trap.into(),
            content.mask,
            content.fault.address,
            self.vector_address as u64,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            content.mask,
        ];
        let mut bytes = [0; SignalFrame::SIZE];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[8 + UCONTEXT..].copy_from_slice(&content.information);
        bytes
    }

    /// Takes registers back from a frame's bytes; returns the signal mask, where the vector state lies, and the alternative stack.
    /// Whatever the bytes say, the registers are fit for user mode.
    pub fn decode(
        &self,
        bytes: &[u8; SignalFrame::SIZE],
        context: &mut UserContext,
    ) -> (u64, usize, (usize, u32, usize)) {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            u64::from_le_bytes(word)
        };
        context.general = GeneralRegisters {
            r8: word(6),
            r9: word(7),
            r10: word(8),
            r11: word(9),
            r12: word(10),
            r13: word(11),
            r14: word(12),
            r15: word(13),
            rdi: word(14),
            rsi: word(15),
            rbp: word(16),
            rbx: word(17),
            rdx: word(18),
            rax: word(19),
            rcx: word(20),
        };
        context.rsp = word(21);
        context.rip = word(22).min(USER_END);
        context.rflags = word(23) & USER_FLAGS | context.rflags & !USER_FLAGS;
        (word(38), word(29) as usize, (word(3) as usize, word(4) as u32, word(5) as usize))
    }

    /// Lets the thread begin in the handler.
    pub fn enter_handler(&self, context: &mut UserContext, signal: usize, handler: usize) {
        let ucontext = self.address as u64 + 8;
        context.general.rdi = signal as u64;
        context.general.rsi = ucontext + UCONTEXT as u64;
        context.general.rdx = ucontext;
        context.general.rax = 0;
        context.rsp = self.address as u64;
        context.rip = handler as u64;
        context.rflags &= !HANDLER_CLEARS;
    }
}

impl UserContext {
    /// Lets the thread make a system call again: back to the `syscall` instruction, two bytes long, with this number.
    pub fn repeat_call(&mut self, number: usize) {
        self.rip = self.rip.wrapping_sub(2);
        self.general.rax = number as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> UserContext {
        let mut context = UserContext::new(0x40_1000, 0x7fff_0000);
        context.general.rbx = 0x1111;
        context.general.rax = 0x2222;
        context.general.r15 = 0x3333;
        context.rflags |= 1;
        context
    }

    fn content(context: &UserContext) -> FrameContent<'_> {
        FrameContent {
            context,
            fault: FaultRecord::default(),
            restorer: 0x5000,
            mask: 0xff,
            alternate_stack: (0x6000, 2, 0x800),
            information: [9; SIGINFO],
        }
    }

    #[test]
    fn a_frame_brings_back_what_it_saved() {
        let before = context();
        let frame = SignalFrame::place(0x7ffe_ff80, 512).unwrap();
        let bytes = frame.encode(&content(&before));
        let mut after = UserContext::new(0, 0);
        let (mask, vector, stack) = frame.decode(&bytes, &mut after);
        assert_eq!((mask, vector, stack), (0xff, frame.vector_address, (0x6000, 2, 0x800)));
        assert_eq!(after.general, before.general);
        assert_eq!((after.rip, after.rsp, after.rflags), (before.rip, before.rsp, before.rflags));
    }

    #[test]
    fn the_handler_begins_with_an_aligned_stack_and_its_three_arguments() {
        for top in 0x7ffe_0000..0x7ffe_0040 {
            let frame = SignalFrame::place(top, 600).unwrap();
            let mut context = context();
            frame.enter_handler(&mut context, 11, 0x9000);
            assert_eq!((context.rsp + 8) % 16, 0);
            assert_eq!(frame.vector_address % 64, 0);
            assert!(frame.vector_address + 600 <= top && frame.address + SignalFrame::SIZE <= frame.vector_address);
            assert_eq!((context.general.rdi, context.rip), (11, 0x9000));
            assert_eq!(context.general.rdx, context.rsp + 8);
            assert_eq!(context.general.rsi, context.rsp + 8 + 304);
        }
    }

    #[test]
    fn a_forged_frame_cannot_raise_privileges() {
        let frame = SignalFrame::place(0x7ffe_ff80, 0).unwrap();
        let forged = UserContext { rflags: !0, rip: 0xffff_ffff_8000_0000, ..UserContext::default() };
        let bytes = frame.encode(&content(&forged));
        let mut after = UserContext::new(0, 0);
        frame.decode(&bytes, &mut after);
        assert_eq!(after.rflags & 3 << 12, 0, "IOPL");
        assert!(after.rflags & 1 << 9 != 0, "interrupts stay on");
        assert!(after.rip <= USER_END);
    }

    #[test]
    fn a_stack_without_room_has_no_frame() {
        assert_eq!(SignalFrame::place(100, 512), None);
    }
}
