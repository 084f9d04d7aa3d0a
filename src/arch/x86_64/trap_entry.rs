//! The assembly at the border between user mode and the kernel: three entries and one exit.
//!
//! ```text
//!                 enter_user_mode(context)                      callee-saved registers → the kernel stack, its pointer → CPU
//!                        │ sysretq / iretq
//!   ─────────────────────┼───────────────────────────────────── ring 3
//!      syscall           │            exception, interrupt
//!         ▼              │                   ▼
//!   syscall_entry        │             trap_stubs[vector] ──► from ring 3 ──► user registers → context
//!   user registers       │                   │ from ring 0
//!   → context            │                   ▼
//!         │              │             kernel_trap(frame), iretq
//!         └──► the kernel stack again; `ret` from enter_user_mode, with the reason in RAX and the error code in RDX
//! ```
//!
//! Interrupts are off throughout. GS: user mode's base and the kernel's are exchanged exactly once on each crossing. NMI, #DF,
//! #MC and #DB may come between the crossing and the exchange, so for them ring 0 proves nothing, and the stub looks at the
//! base itself: a kernel address is negative.
//!
//! Next: `user_mode.rs` and `trap.rs`, the Rust on either side.

use core::arch::{global_asm, naked_asm};
use core::mem::offset_of;

use super::cpu::{CONTEXT, GS_BASE, KERNEL_STACK, SCRATCH};
use super::descriptors::{USER_CODE, USER_DATA};
use super::trap::kernel_trap;
use super::user_context::{FIXED_FLAGS, GeneralRegisters, USER_FLAGS, UserContext};

/// Bytes between two stubs.
pub const STUB_SIZE: usize = 16;
/// What [`enter_user_mode`] returns for a system call; other values are vectors.
pub const SYSCALL: u64 = 256;
/// TF and RF: SYSRET would lose them.
const NOT_BY_SYSRET: u64 = 0x1_0100;

/// What [`enter_user_mode`] returns, in RAX and RDX.
#[repr(C)]
pub struct Exit {
    /// The vector, or [`SYSCALL`].
    pub reason: u64,
    /// The exception's error code, or 0.
    pub code: u64,
}

unsafe extern "C" {
    /// The first of 256 stubs, [`STUB_SIZE`] bytes each.
    pub fn trap_stubs();
}

// Each stub pushes an error code where the CPU did not (Intel SDM volume 3, table 6-1), and its number.
global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set number, 0
    .rept 256
    .balign 16
    .if number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21 || number == 29 || number == 30
    .else
    pushq $0
    .endif
    pushq $number
    .if number == 1 || number == 2 || number == 8 || number == 18
    jmp {distrustful}
    .else
    jmp {ordinary}
    .endif
    .set number, number + 1
    .endr
    "#,
    ordinary = sym ordinary_trap,
    distrustful = sym distrustful_trap,
    options(att_syntax)
);

const RAX: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rax);
const RBX: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rbx);
const RCX: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rcx);
const RDX: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rdx);
const RSI: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rsi);
const RDI: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rdi);
const RBP: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, rbp);
const R8: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r8);
const R9: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r9);
const R10: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r10);
const R11: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r11);
const R12: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r12);
const R13: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r13);
const R14: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r14);
const R15: usize = offset_of!(UserContext, general) + offset_of!(GeneralRegisters, r15);
const RIP: usize = offset_of!(UserContext, rip);
const RSP: usize = offset_of!(UserContext, rsp);
const RFLAGS: usize = offset_of!(UserContext, rflags);

/// Leaves for user mode, and returns when it traps.
///
/// SYSRET takes RIP from RCX and RFLAGS from R11, so it is used when the context agrees with that, as it does after a system call
/// that changed neither.
///
/// # Safety
/// Interrupts are off, GS is the kernel's, `context` is valid and its RIP lies below `USER_END`; the loaded address space maps the
/// kernel; the segment bases and the vector registers are the thread's.
#[unsafe(naked)]
pub unsafe extern "C" fn enter_user_mode(context: *mut UserContext) -> Exit {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov gs:[{kernel_stack}], rsp",
        "mov gs:[{context}], rdi",
        "mov rcx, [rdi + {rip}]",
        "mov r11, [rdi + {rflags}]",
        "and r11d, {sysret_flags}",
        "or r11d, {fixed_flags}",
        "cmp rcx, [rdi + {rcx}]",
        "jne 2f",
        // Differs, too, if the program has TF or RF set, which SYSRET would lose.
        "cmp r11, [rdi + {r11}]",
        "jne 2f",
        "mov rax, [rdi + {rax}]", "mov rbx, [rdi + {rbx}]", "mov rdx, [rdi + {rdx}]", "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]", "mov r8, [rdi + {r8}]", "mov r9, [rdi + {r9}]", "mov r10, [rdi + {r10}]",
        "mov r12, [rdi + {r12}]", "mov r13, [rdi + {r13}]", "mov r14, [rdi + {r14}]", "mov r15, [rdi + {r15}]",
        "mov rsp, [rdi + {rsp}]",
        "mov rdi, [rdi + {rdi}]",
        "swapgs",
        "sysretq",
        "2:",
        "mov r11, [rdi + {rflags}]",
        "and r11d, {user_flags}",
        "or r11d, {fixed_flags}",
        "push {user_data}",
        "push [rdi + {rsp}]",
        "push r11",
        "push {user_code}",
        "push rcx",
        "mov rax, [rdi + {rax}]", "mov rbx, [rdi + {rbx}]", "mov rcx, [rdi + {rcx}]", "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]", "mov rbp, [rdi + {rbp}]", "mov r8, [rdi + {r8}]", "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]", "mov r11, [rdi + {r11}]", "mov r12, [rdi + {r12}]", "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]", "mov r15, [rdi + {r15}]", "mov rdi, [rdi + {rdi}]",
        "swapgs",
        "iretq",
        kernel_stack = const KERNEL_STACK, context = const CONTEXT,
        rip = const RIP, rsp = const RSP, rflags = const RFLAGS,
        user_flags = const USER_FLAGS, fixed_flags = const FIXED_FLAGS, sysret_flags = const USER_FLAGS & !NOT_BY_SYSRET,
        user_data = const USER_DATA, user_code = const USER_CODE,
        rax = const RAX, rbx = const RBX, rcx = const RCX, rdx = const RDX, rsi = const RSI, rdi = const RDI, rbp = const RBP,
        r8 = const R8, r9 = const R9, r10 = const R10, r11 = const R11, r12 = const R12, r13 = const R13, r14 = const R14,
        r15 = const R15,
    )
}

/// Where SYSCALL lands: RCX holds the user's RIP, R11 its flags, RSP is still the user's.
///
/// # Safety
/// Reached only through LSTAR.
#[unsafe(naked)]
pub unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov gs:[{scratch}], rsp",
        "mov rsp, gs:[{context}]",
        "mov [rsp + {rax}], rax", "mov [rsp + {rbx}], rbx", "mov [rsp + {rcx}], rcx", "mov [rsp + {rdx}], rdx",
        "mov [rsp + {rsi}], rsi", "mov [rsp + {rdi}], rdi", "mov [rsp + {rbp}], rbp", "mov [rsp + {r8}], r8",
        "mov [rsp + {r9}], r9", "mov [rsp + {r10}], r10", "mov [rsp + {r11}], r11", "mov [rsp + {r12}], r12",
        "mov [rsp + {r13}], r13", "mov [rsp + {r14}], r14", "mov [rsp + {r15}], r15",
        "mov [rsp + {rip}], rcx",
        "mov [rsp + {rflags}], r11",
        "mov rax, gs:[{scratch}]",
        "mov [rsp + {rsp}], rax",
        "mov rsp, gs:[{kernel_stack}]",
        "mov eax, {syscall}",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        scratch = const SCRATCH, kernel_stack = const KERNEL_STACK, context = const CONTEXT, syscall = const SYSCALL,
        rip = const RIP, rsp = const RSP, rflags = const RFLAGS,
        rax = const RAX, rbx = const RBX, rcx = const RCX, rdx = const RDX, rsi = const RSI, rdi = const RDI, rbp = const RBP,
        r8 = const R8, r9 = const R9, r10 = const R10, r11 = const R11, r12 = const R12, r13 = const R13, r14 = const R14,
        r15 = const R15,
    )
}

/// A trap from ring 3, on whatever stack the CPU chose: [RSP] = vector, error code, RIP, CS, RFLAGS, RSP, SS.
///
/// # Safety
/// Jumped to by the two below.
#[unsafe(naked)]
unsafe extern "C" fn trap_from_user() {
    naked_asm!(
        "swapgs",
        "push rax",
        "mov rax, gs:[{context}]",
        "mov [rax + {rbx}], rbx", "mov [rax + {rcx}], rcx", "mov [rax + {rdx}], rdx", "mov [rax + {rsi}], rsi",
        "mov [rax + {rdi}], rdi", "mov [rax + {rbp}], rbp", "mov [rax + {r8}], r8", "mov [rax + {r9}], r9",
        "mov [rax + {r10}], r10", "mov [rax + {r11}], r11", "mov [rax + {r12}], r12", "mov [rax + {r13}], r13",
        "mov [rax + {r14}], r14", "mov [rax + {r15}], r15",
        "pop rbx", "mov [rax + {rax}], rbx",
        "mov rbx, [rsp + 16]", "mov [rax + {rip}], rbx",
        "mov rbx, [rsp + 32]", "mov [rax + {rflags}], rbx",
        "mov rbx, [rsp + 40]", "mov [rax + {rsp}], rbx",
        "mov rdx, [rsp + 8]",
        "mov rax, [rsp]",
        "mov rsp, gs:[{kernel_stack}]",
        // The user's DF and AC (with SMAP, AC opens user memory) stop here.
        "push 2", "popfq",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        kernel_stack = const KERNEL_STACK, context = const CONTEXT,
        rip = const RIP, rsp = const RSP, rflags = const RFLAGS,
        rax = const RAX, rbx = const RBX, rcx = const RCX, rdx = const RDX, rsi = const RSI, rdi = const RDI, rbp = const RBP,
        r8 = const R8, r9 = const R9, r10 = const R10, r11 = const R11, r12 = const R12, r13 = const R13, r14 = const R14,
        r15 = const R15,
    )
}

/// The registers that a trap in the kernel leaves on the stack.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The common part of most stubs: ring 0 proves that GS is the kernel's.
///
/// # Safety
/// Reached only from a stub.
#[unsafe(naked)]
unsafe extern "C" fn ordinary_trap() {
    naked_asm!(
        "test byte ptr [rsp + 24], 3",
        "jnz {from_user}",
        "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp",
        "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "push 2", "popfq",
        "mov rdi, rsp",
        "call {kernel_trap}",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
        "pop rbp", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rbx", "pop rax",
        "add rsp, 16",
        "iretq",
        from_user = sym trap_from_user,
        kernel_trap = sym kernel_trap,
    )
}

/// The common part of the stubs of #DB, NMI, #DF and #MC: looks at GS base before it relies on it.
///
/// # Safety
/// Reached only from a stub.
#[unsafe(naked)]
unsafe extern "C" fn distrustful_trap() {
    naked_asm!(
        "test byte ptr [rsp + 24], 3",
        "jnz {from_user}",
        "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp",
        "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "push 2", "popfq",
        "xor ebx, ebx",
        "mov ecx, {gs_base}",
        "rdmsr",
        "test edx, edx",
        "js 2f",
        "swapgs",
        "inc ebx",
        "2:",
        "mov rdi, rsp",
        "call {kernel_trap}",
        "test ebx, ebx",
        "jz 3f",
        "swapgs",
        "3:",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
        "pop rbp", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rbx", "pop rax",
        "add rsp, 16",
        "iretq",
        from_user = sym trap_from_user,
        kernel_trap = sym kernel_trap,
        gs_base = const GS_BASE,
    )
}
