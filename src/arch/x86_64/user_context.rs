//! A thread's user-mode registers, and the reasons for which it comes back.
//!
//! The trap stubs in `trap_entry.rs` store every user register straight into a [`UserContext`] and load it back from there, so
//! this is both the thread's saved state and the layout the assembly knows (by `offset_of!`). Nothing in here runs
//! privileged code: the file compiles and is tested on the host too.
//!
//! Next: `user_mode.rs`, which crosses into ring 3 and back.

/// The sixteen general registers but RSP, in the order in which this kernel stores them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// Everything that user mode can see of the CPU but its vector registers.
///
/// Any value is safe to enter user mode with: `enter_user` masks the flags and refuses an instruction
/// pointer outside the user half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserContext {
    /// RAX to R15.
    pub general: GeneralRegisters,
    /// The next instruction.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// RFLAGS, of which user mode owns [`USER_FLAGS`].
    pub rflags: u64,
    /// Base of the FS segment: thread-local storage.
    pub fs_base: u64,
    /// Base of the GS segment.
    pub gs_base: u64,
}

/// The flags that belong to user mode: CF PF AF ZF SF TF DF OF NT RF AC ID.
pub const USER_FLAGS: u64 = 0x0025_4dd5;
/// What is always set in user mode: the reserved bit 1 and IF.
pub const FIXED_FLAGS: u64 = 0x202;
/// One past the highest address that user mode may use; the last page below 2⁴⁷ stays unmapped, as on Linux, because
/// `syscall` as the last instruction there would return to a non-canonical address.
pub const USER_END: u64 = 0x7fff_ffff_f000;

impl UserContext {
    /// A fresh thread: starts at `entry` with `stack` in RSP, all other registers zero.
    pub fn new(entry: u64, stack: u64) -> UserContext {
        UserContext { rip: entry, rsp: stack, rflags: FIXED_FLAGS, ..UserContext::default() }
    }

    /// The number of the system call that the registers ask for.
    #[inline]
    pub fn call_number(&self) -> usize {
        self.general.rax as usize
    }

    /// Its arguments. They stay in the registers until one asks: most calls have few.
    #[inline]
    pub fn call_arguments(&self) -> [usize; 6] {
        let g = &self.general;
        [g.rdi, g.rsi, g.rdx, g.r10, g.r8, g.r9].map(|register| register as usize)
    }

    /// What the system call returns.
    pub fn return_value(&self) -> isize {
        self.general.rax as isize
    }

    /// Sets what the system call returns.
    pub fn set_return_value(&mut self, value: isize) {
        self.general.rax = value as u64;
    }
}

/// Why a thread came back from user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It made a system call: its registers say which.
    Syscall,
    /// It touched memory that is not there, or not for this.
    PageFault(PageFault),
    /// This CPU's alarm rang while it ran.
    Tick,
    /// Something is to be looked at before it may go on; it may not have run at all.
    Kick,
    /// It did what the CPU refuses, or hit a breakpoint or a single step.
    Error(Exception),
}

/// A page fault, decoded (Intel SDM volume 3, section 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The address that was touched (CR2).
    pub address: usize,
    /// It was written to.
    pub write: bool,
    /// It was executed.
    pub execute: bool,
    /// The page was there: the access was refused, not missed.
    pub present: bool,
}

impl PageFault {
    /// Decodes the CPU's error code.
    pub const fn decode(address: u64, code: u64) -> PageFault {
        PageFault { address: address as usize, write: code & 2 != 0, execute: code & 16 != 0, present: code & 1 != 0 }
    }
}

/// An exception other than a page fault (Intel SDM volume 3, table 6-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its number, one of [`vector`].
    pub vector: u8,
    /// The CPU's error code, 0 for those that have none.
    pub code: u64,
    /// Where the instruction pointer stood.
    pub address: usize,
}

/// The numbers of the exceptions.
#[allow(missing_docs, reason = "the names are those of the manual")]
pub mod vector {
    pub const DIVIDE_ERROR: u8 = 0;
    pub const DEBUG: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const BOUND_RANGE: u8 = 5;
    pub const INVALID_OPCODE: u8 = 6;
    pub const DEVICE_NOT_AVAILABLE: u8 = 7;
    pub const DOUBLE_FAULT: u8 = 8;
    pub const INVALID_TSS: u8 = 10;
    pub const SEGMENT_NOT_PRESENT: u8 = 11;
    pub const STACK_FAULT: u8 = 12;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const X87: u8 = 16;
    pub const ALIGNMENT_CHECK: u8 = 17;
    pub const MACHINE_CHECK: u8 = 18;
    pub const SIMD: u8 = 19;
    pub const CONTROL_PROTECTION: u8 = 21;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_call_come_in_the_order_of_the_abi() {
        let mut context = UserContext::new(0x40_1000, 0x7fff_0000);
        context.general =
            GeneralRegisters { rax: 9, rdi: 1, rsi: 2, rdx: 3, r10: 4, r8: 5, r9: 6, rcx: 77, ..Default::default() };
        assert_eq!((context.call_number(), context.call_arguments()), (9, [1, 2, 3, 4, 5, 6]));
        context.set_return_value(-2);
        assert_eq!(context.return_value(), -2);
        assert_eq!(context.general.rax, 0xffff_ffff_ffff_fffe);
    }

    #[test]
    fn a_user_thread_can_neither_mask_interrupts_nor_reach_ports() {
        assert_eq!(USER_FLAGS & (1 << 9), 0, "IF");
        assert_eq!(USER_FLAGS & (3 << 12), 0, "IOPL");
        assert_eq!(FIXED_FLAGS & (1 << 9), 1 << 9);
    }

    #[test]
    fn page_fault_codes_are_decoded_by_bit() {
        let fault = PageFault::decode(0x1234, 0b1_0101);
        assert_eq!(fault, PageFault { address: 0x1234, write: false, execute: true, present: true });
        assert!(PageFault::decode(0, 2).write);
    }
}
