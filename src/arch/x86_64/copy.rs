//! The only instructions that touch user memory.
//!
//! Each routine opens user memory (`stac`), accesses it, and closes it (`clac`); each instruction that may fault has an entry in the
//! exception table, and a fault continues at its fixup, which reports how far the routine came. Copies go eight bytes at a
//! time; when such a step faults, the rest is tried byte by byte, so that the count is exact and the first byte not copied is one
//! that cannot be.
//!
//! Values of a few words have a routine of their own, which the caller repeats by the general one if it faults. Vector registers go
//! to signal frames and back without a copy: what makes the CPU refuse them is a fault like any other.
//!
//! On a CPU without SMAP the two instructions do not exist: they are three-byte no-ops in the image, and [`patch_smap`] writes
//! the real ones while the text is still writable.
//!
//! Next: `src/mm/user.rs`, the only caller.

use core::arch::global_asm;

use super::user_context::USER_END;

global_asm!(
    r#"
    .macro open_user
901:
    .byte 0x0f, 0x1f, 0x00
    .pushsection .smap_patches, "a"
    .quad 901b, 0xcb
    .popsection
    .endm

    .macro close_user
902:
    .byte 0x0f, 0x1f, 0x00
    .pushsection .smap_patches, "a"
    .quad 902b, 0xca
    .popsection
    .endm

    .macro on_fault instruction, fixup
    .pushsection .exception_table, "a"
    .quad \instruction, \fixup
    .popsection
    .endm

    .text
    # rdi = to, rsi = from, rdx = bytes; returns in rax how many were not copied
user_copy:
    open_user
    movq %rdx, %rcx
    shrq $3, %rcx
    jz 2f
    andl $7, %edx
1:  rep movsq
2:  movq %rdx, %rcx
3:  rep movsb
    xorl %eax, %eax
    close_user
    ret
4:  leaq (%rdx, %rcx, 8), %rcx
5:  rep movsb
6:  movq %rcx, %rax
    close_user
    ret
    on_fault 1b, 4b
    on_fault 3b, 6b
    on_fault 5b, 6b

    # rdi = to, rsi = from, rdx = words; returns in rax how many were not copied, the one at which it faulted among them. Its callers
    # are compiled wherever values are copied, so the name is known outside.
    .global user_copy_words
user_copy_words:
    open_user
    movq %rdx, %rcx
1:  rep movsq
2:  movq %rcx, %rax
    close_user
    ret
    on_fault 1b, 2b

    # rdi = to, rsi = bytes; returns in rax how many were not cleared
user_zero:
    open_user
    xorl %eax, %eax
    movq %rsi, %rcx
    shrq $3, %rcx
    jz 2f
    andl $7, %esi
1:  rep stosq
2:  movq %rsi, %rcx
3:  rep stosb
    close_user
    ret
4:  leaq (%rsi, %rcx, 8), %rcx
5:  rep stosb
6:  movq %rcx, %rax
    close_user
    ret
    on_fault 1b, 4b
    on_fault 3b, 6b
    on_fault 5b, 6b

    # rdi = address; returns the word in rax, and in rdx whether it faulted
user_load_u32:
    open_user
    xorl %edx, %edx
1:  movl (%rdi), %eax
    close_user
    ret
2:  movl $1, %edx
    close_user
    ret
    on_fault 1b, 2b

    # rdi = address, esi = expected, edx = new; returns the word found in rax, and in rdx whether it faulted
user_compare_exchange_u32:
    open_user
    movl %esi, %eax
    movl %edx, %ecx
    xorl %edx, %edx
1:  lock cmpxchgl %ecx, (%rdi)
    close_user
    ret
2:  movl $1, %edx
    close_user
    ret
    on_fault 1b, 2b

    # rdi = address of an area; returns in rax whether it faulted
    .macro user_vector name, instruction
\name:
    open_user
    movl $-1, %eax
    movl $-1, %edx
1:  \instruction (%rdi)
    xorl %eax, %eax
    close_user
    ret
2:  movl $1, %eax
    close_user
    ret
    on_fault 1b, 2b
    .endm

    user_vector user_fxsave, fxsave64
    user_vector user_xsave, xsave64
    user_vector user_fxrstor, fxrstor64
    user_vector user_xrstor, xrstor64
    "#,
    options(att_syntax)
);

/// A word and whether reaching for it faulted, as RAX and RDX hold them.
#[repr(C)]
struct Word {
    value: u64,
    faulted: u64,
}

unsafe extern "C" {
    fn user_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn user_copy_words(to: *mut u8, from: *const u8, words: usize) -> usize;
    fn user_zero(to: *mut u8, len: usize) -> usize;
    fn user_load_u32(address: *const u32) -> Word;
    fn user_compare_exchange_u32(address: *mut u32, expected: u32, new: u32) -> Word;
    fn user_fxsave(area: *mut u8) -> usize;
    fn user_xsave(area: *mut u8) -> usize;
    fn user_fxrstor(area: *const u8) -> usize;
    fn user_xrstor(area: *const u8) -> usize;
    static exception_table_start: [u64; 2];
    static exception_table_end: [u64; 2];
    static smap_patches_start: [u64; 2];
    static smap_patches_end: [u64; 2];
}

/// Bytes of a word.
const WORD: usize = 8;

/// How many of the `len` bytes from `address` on lie in the user half, which is all that may be tried.
fn within_user(address: usize, len: usize) -> usize {
    len.min((USER_END as usize).saturating_sub(address))
}

/// Copies `len` bytes of user memory at `from`; returns how many bytes at the end were not copied.
///
/// # Safety
/// `into` is valid for writes of `len` bytes of kernel memory.
pub unsafe fn from_user(into: *mut u8, from: usize, len: usize) -> usize {
    let possible = within_user(from, len);
    // SAFETY: the caller vouches for `into`; the source lies in the user half, where every fault has a fixup.
    len - possible + unsafe { user_copy(into, from as *const u8, possible) }
}

/// Copies `len` bytes to user memory at `to`; returns how many bytes at the end were not copied.
///
/// # Safety
/// `from` is valid for reads of `len` bytes of kernel memory.
pub unsafe fn to_user(to: usize, from: *const u8, len: usize) -> usize {
    let possible = within_user(to, len);
    // SAFETY: the caller vouches for `from`; the target lies in the user half, which holds no object of the kernel's, and where
    // every fault has a fixup.
    len - possible + unsafe { user_copy(to as *mut u8, from, possible) }
}

/// Reads `len` bytes of user memory, a number that the compiler knows; says whether all could be read.
///
/// # Safety
/// `into` is valid for writes of `len` bytes of kernel memory.
#[inline(always)]
pub unsafe fn value_from_user(into: *mut u8, from: usize, len: usize) -> bool {
    if !len.is_multiple_of(WORD) {
        // SAFETY: as the caller vouches.
        return unsafe { from_user(into, from, len) } == 0;
    }
    // SAFETY: the caller vouches for `into`; the source lies in the user half, where every fault has a fixup.
    is_user(from, len) && unsafe { user_copy_words(into, from as *const u8, len / WORD) } == 0
}

/// Writes `len` bytes to user memory, a number that the compiler knows; says whether all could be written.
///
/// # Safety
/// `from` is valid for reads of `len` bytes of kernel memory.
#[inline(always)]
pub unsafe fn value_to_user(to: usize, from: *const u8, len: usize) -> bool {
    if !len.is_multiple_of(WORD) {
        // SAFETY: as the caller vouches.
        return unsafe { to_user(to, from, len) } == 0;
    }
    // SAFETY: the caller vouches for `from`; the target lies in the user half, which holds no object of the kernel's, and where
    // every fault has a fixup.
    is_user(to, len) && unsafe { user_copy_words(to as *mut u8, from, len / WORD) } == 0
}

/// Whether all of the `len` bytes, far fewer than there are, lie in the user half.
fn is_user(address: usize, len: usize) -> bool {
    address <= USER_END as usize - len
}

/// Clears `len` bytes of user memory; returns how many bytes at the end were not cleared.
pub fn zero_user(to: usize, len: usize) -> usize {
    let possible = within_user(to, len);
    // SAFETY: the target lies in the user half, which holds no object of the kernel's; every fault has a fixup.
    len - possible + unsafe { user_zero(to as *mut u8, possible) }
}

/// Reads a 32-bit word of user memory; `None`: it faulted. The address must be a multiple of four, or it counts as a fault.
pub fn load_u32_user(address: usize) -> Option<u32> {
    if !is_user_word(address) {
        return None;
    }
    // SAFETY: the word lies in the user half; a fault has a fixup.
    let word = unsafe { user_load_u32(address as *const u32) };
    (word.faulted == 0).then_some(word.value as u32)
}

/// Replaces a 32-bit word of user memory by `new` if it is `expected`, atomically. `Ok`: it was; `Err`: what it was instead;
/// `None`: it faulted.
pub fn compare_exchange_u32_user(address: usize, expected: u32, new: u32) -> Option<Result<u32, u32>> {
    if !is_user_word(address) {
        return None;
    }
    // SAFETY: the word lies in the user half, which holds no object of the kernel's; a fault has a fixup.
    let word = unsafe { user_compare_exchange_u32(address as *mut u32, expected, new) };
    let found = word.value as u32;
    (word.faulted == 0).then_some(if found == expected { Ok(found) } else { Err(found) })
}

/// Replaces a 32-bit word of user memory by what `change` makes of it, atomically; returns what it was. `None`: it faulted.
pub fn fetch_op_u32_user(address: usize, change: impl Fn(u32) -> u32) -> Option<u32> {
    let mut expected = load_u32_user(address)?;
    loop {
        match compare_exchange_u32_user(address, expected, change(expected))? {
            Ok(old) => return Some(old),
            Err(found) => expected = found,
        }
        core::hint::spin_loop();
    }
}

/// Writes this CPU's vector registers to an area of `len` bytes in user memory; says whether it could. Part may have been written if
/// not.
///
/// # Safety
/// The CPU has XSAVE if `has_xsave`, and the area that it writes is no longer than `len`.
pub(super) unsafe fn save_vector_user(to: usize, len: usize, has_xsave: bool) -> bool {
    let routine = if has_xsave { user_xsave } else { user_fxsave };
    // SAFETY: the area lies in the user half, which holds no object of the kernel's; a fault has a fixup; the instruction exists.
    within_user(to, len) == len && unsafe { routine(to as *mut u8) } == 0
}

/// Loads this CPU's vector registers from an area of `len` bytes in user memory; says whether it could. If not, it was not there, or
/// the CPU refuses what it holds, and what the registers hold is not known.
///
/// # Safety
/// The CPU has XSAVE if `has_xsave`, and the area that it reads is no longer than `len`. Whose the registers are reckons with a change.
pub(super) unsafe fn load_vector_user(from: usize, len: usize, has_xsave: bool) -> bool {
    let routine = if has_xsave { user_xrstor } else { user_fxrstor };
    // SAFETY: the area lies in the user half, where every fault has a fixup; so has the refusal of what no register can hold; the
    // instruction exists, and the soft-float kernel has nothing in these registers.
    within_user(from, len) == len && unsafe { routine(from as *const u8) } == 0
}

fn is_user_word(address: usize) -> bool {
    address.is_multiple_of(4) && within_user(address, 4) == 4
}

/// Where to go on when the instruction at `rip` has faulted.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let (start, end) = (&raw const exception_table_start, &raw const exception_table_end);
    // SAFETY: the linker script puts both symbols around an array of such pairs.
    let table = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    table.iter().find(|[instruction, _]| *instruction == rip).map(|[_, fixup]| *fixup)
}

/// Writes `stac` and `clac` over their placeholders.
///
/// # Safety
/// The kernel's text is mapped writable, the CPU has SMAP, and none of these routines is running.
pub(super) unsafe fn patch_smap() {
    let (start, end) = (&raw const smap_patches_start, &raw const smap_patches_end);
    // SAFETY: the linker script puts both symbols around an array of such pairs.
    let table = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    for &[address, last_byte] in table {
        // SAFETY: each address names three bytes of placeholder in the text, which the caller says is writable.
        unsafe { (address as *mut [u8; 3]).write_volatile([0x0f, 0x01, last_byte as u8]) };
    }
}
