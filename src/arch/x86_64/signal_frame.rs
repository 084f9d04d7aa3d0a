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

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::user_context::{Exception, GeneralRegisters, PageFault, USER_END, USER_FLAGS, UserContext, vector};

/// Bytes of `struct ucontext` as the kernel lays it out.
const UCONTEXT: usize = size_of::<FrameContext>();
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

/// A frame's bytes, without the vector state.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
pub struct FrameImage {
    restorer: u64,
    context: FrameContext,
    information: [u8; SIGINFO],
}

/// `struct ucontext`: all that a frame's end takes back from it.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub struct FrameContext {
    flags: u64,
    link: u64,
    /// Base, flags and size.
    stack: [u64; 3],
    r8_to_r15: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    segments: u64,
    error: u64,
    trap: u64,
    old_mask: u64,
    cr2: u64,
    vector_address: u64,
    reserved: [u64; 8],
    mask: u64,
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
    pub const SIZE: usize = size_of::<FrameImage>();

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
    #[inline]
    pub fn encode(&self, content: &FrameContent<'_>) -> FrameImage {
        let g = &content.context.general;
        let (base, flags, size) = content.alternate_stack;
        FrameImage {
            restorer: content.restorer as u64,
            context: FrameContext {
                flags: UC_FLAGS,
                link: 0,
                stack: [base as u64, u64::from(flags), size as u64],
                r8_to_r15: [g.r8, g.r9, g.r10, g.r11, g.r12, g.r13, g.r14, g.r15],
                rdi: g.rdi,
                rsi: g.rsi,
                rbp: g.rbp,
                rbx: g.rbx,
                rdx: g.rdx,
                rax: g.rax,
                rcx: g.rcx,
                rsp: content.context.rsp,
                rip: content.context.rip,
                rflags: content.context.rflags,
                segments: USER_CS | USER_SS << 48,
                error: content.fault.error.into(),
                trap: content.fault.trap.into(),
                old_mask: content.mask,
                cr2: content.fault.address,
                vector_address: self.vector_address as u64,
                reserved: [0; 8],
                mask: content.mask,
            },
            information: content.information,
        }
    }

    /// Where its `struct ucontext` lies.
    pub fn context_address(&self) -> usize {
        self.address.wrapping_add(8)
    }

    /// Lets the thread begin in the handler.
    pub fn enter_handler(&self, context: &mut UserContext, signal: usize, handler: usize) {
        let ucontext = self.context_address() as u64;
        context.general.rdi = signal as u64;
        context.general.rsi = ucontext + UCONTEXT as u64;
        context.general.rdx = ucontext;
        context.general.rax = 0;
        context.rsp = self.address as u64;
        context.rip = handler as u64;
        context.rflags &= !HANDLER_CLEARS;
    }
}

impl FrameContext {
    /// Takes registers back. Whatever the bytes say, they are fit for user mode.
    #[inline]
    pub fn restore(&self, context: &mut UserContext) {
        let [r8, r9, r10, r11, r12, r13, r14, r15] = self.r8_to_r15;
        let FrameContext { rdi, rsi, rbp, rbx, rdx, rax, rcx, .. } = *self;
        context.general = GeneralRegisters { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15 };
        context.rsp = self.rsp;
        context.rip = self.rip.min(USER_END);
        context.rflags = self.rflags & USER_FLAGS | context.rflags & !USER_FLAGS;
    }

    /// The signal mask that comes back.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Where the vector state lies; 0 for none.
    pub fn vector_address(&self) -> usize {
        self.vector_address as usize
    }

    /// Base, flags and size of the alternative stack.
    pub fn alternate_stack(&self) -> (usize, u32, usize) {
        let [base, flags, size] = self.stack;
        (base as usize, flags as u32, size as usize)
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
        let image = frame.encode(&content(&before)).context;
        let mut after = UserContext::new(0, 0);
        image.restore(&mut after);
        assert_eq!((image.mask(), image.vector_address()), (0xff, frame.vector_address));
        assert_eq!(image.alternate_stack(), (0x6000, 2, 0x800));
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
    fn a_frame_is_laid_out_as_the_c_library_reads_it() {
        let context = UserContext { rsp: 0x4444, rip: 0x5555, ..context() };
        let image = SignalFrame::place(0x7ffe_ff80, 512).unwrap().encode(&content(&context));
        let word = |offset: usize| u64::from_le_bytes(image.as_bytes()[offset..offset + 8].try_into().unwrap());
        assert_eq!(SignalFrame::SIZE, 440);
        assert_eq!((word(0), word(8)), (0x5000, UC_FLAGS));
        // gregs, REG_R15, REG_RBX, REG_RAX, REG_RSP and REG_RIP of <sys/ucontext.h>, then uc_sigmask.
        let registers = |number: usize| word(8 + 40 + number * 8);
        assert_eq!([7, 11, 13, 15, 16].map(registers), [0x3333, 0x1111, 0x2222, 0x4444, 0x5555]);
        assert_eq!(word(8 + 296), 0xff);
        assert_eq!(image.as_bytes()[8 + 304..], [9; SIGINFO]);
    }

    #[test]
    fn a_forged_frame_cannot_raise_privileges() {
        let frame = SignalFrame::place(0x7ffe_ff80, 0).unwrap();
        let forged = UserContext { rflags: !0, rip: 0xffff_ffff_8000_0000, ..UserContext::default() };
        let mut after = UserContext::new(0, 0);
        frame.encode(&content(&forged)).context.restore(&mut after);
        assert_eq!(after.rflags & 3 << 12, 0, "IOPL");
        assert!(after.rflags & 1 << 9 != 0, "interrupts stay on");
        assert!(after.rip <= USER_END);
    }

    #[test]
    fn a_stack_without_room_has_no_frame() {
        assert_eq!(SignalFrame::place(100, 512), None);
    }
}
