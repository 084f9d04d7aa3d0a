//! The first instruction: from 32-bit protected mode, paging off, to Rust in the higher half.
//!
//! ```text
//! PVH (QEMU -kernel):  EBX = start information      Multiboot2 (GRUB):  EAX = magic, EBX = information
//!           pvh_entry ────────┐                            ┌──────── multiboot2_entry
//!                             ▼                            ▼
//!              boot tables: the low 4 GiB at 0, at DIRECT_MAP, and its first 2 GiB at KERNEL_BASE
//!              PAE, long mode, paging, far jump ──► boot.rs: boot_entry(protocol, information)
//! ```
//!
//! The boot tables map everything writable and executable with 2 MiB pages; they live until `boot_paging.rs` has built the real
//! ones. Everything in here lies in `.boot`, linked at the address it is loaded to.
//!
//! Next: `boot.rs`.

use core::arch::global_asm;

/// Where the kernel image is linked; physical address 0 would be here.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Physical memory seen from the kernel: byte `p` of RAM is at `DIRECT_MAP + p`.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// The first argument of `boot_entry` when QEMU started us.
pub const PROTOCOL_PVH: u32 = 0;
/// The first argument of `boot_entry` when a Multiboot2 loader started us.
pub const PROTOCOL_MULTIBOOT2: u32 = 1;

// Multiboot2 specification 2.0, section 3.1: the header lies within the first 32 KiB of the file, on 8 bytes. Tags: entry
// address (3), framebuffer (5, optional: flag 1), module alignment (6), end. No Multiboot1 header: QEMU would try it before PVH.
global_asm!(
    r#"
    .section .boot.multiboot2, "a"
    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    .balign 8
    .short 3, 0
    .long 12
    .long multiboot2_entry
    .balign 8
    .short 5, 1
    .long 20
    .long 1024, 768, 32
    .balign 8
    .short 6, 0
    .long 8
    .balign 8
    .short 0, 0
    .long 8
multiboot2_header_end:

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # name size, payload size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .boot.text, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    movl ${pvh}, %edi
    jmp boot_common

    .global multiboot2_entry
multiboot2_entry:
    movl ${multiboot2}, %edi
    cmpl ${magic}, %eax
    jne boot_halt
boot_common:
    cli
    cld
    movl $boot_stack_top, %esp
    movl %ebx, %esi

    # A CPU with long mode? CPUID 0x80000001, EDX bit 29; bit 20 is no-execute.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb boot_not_64_bit
    movl $0x80000001, %eax
    cpuid
    testl $0x20000000, %edx
    jz boot_not_64_bit
    movl %edx, %ebp

    # Four page directories: 2,048 pages of 2 MiB, present, writable.
    movl $boot_directories, %ebx
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, (%ebx, %ecx, 8)
    movl $0, 4(%ebx, %ecx, 8)
    incl %ecx
    cmpl $2048, %ecx
    jne 1b

    movl $(boot_directories + 0x0003), %eax
    movl %eax, boot_low_pointers
    movl %eax, boot_high_pointers + 510 * 8
    addl $0x1000, %eax
    movl %eax, boot_low_pointers + 8
    movl %eax, boot_high_pointers + 511 * 8
    addl $0x1000, %eax
    movl %eax, boot_low_pointers + 16
    addl $0x1000, %eax
    movl %eax, boot_low_pointers + 24
    movl $(boot_low_pointers + 3), %eax
    movl %eax, boot_root
    movl %eax, boot_root + 256 * 8
    movl $(boot_high_pointers + 3), %eax
    movl %eax, boot_root + 511 * 8

    movl $1f, %ebx
    jmp boot_enable_paging
1:  lgdtl boot_gdt_pointer
    ljmpl $0x10, $boot_long_mode

    # Loads the boot tables and turns on paging, in long mode; all CPUs come by here. EBP: what CPUID 0x80000001 says in EDX;
    # EBX: where to go on.
    .global boot_enable_paging
boot_enable_paging:
    movl $boot_root, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax             # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx      # EFER
    rdmsr
    orl $0x100, %eax            # LME
    btl $20, %ebp
    jnc 2f
    orl $0x800, %eax            # NXE
2:  wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax      # caches on
    orl $0x80010001, %eax       # PG, WP, PE
    movl %eax, %cr0
    jmp *%ebx

    # Says so on the first serial port and at the top of a text screen, and stops.
boot_not_64_bit:
    movl $boot_message, %ebx
    movl $0xb8000, %ecx
3:  movb (%ebx), %al
    testb %al, %al
    jz boot_halt
    movw $0x3f8, %dx
    outb %al, %dx
    movb %al, (%ecx)
    movb $0x4f, 1(%ecx)
    incl %ebx
    addl $2, %ecx
    jmp 3b
boot_halt:
    cli
    hlt
    jmp boot_halt
boot_message:
    .asciz "Rouse needs a 64-bit CPU.\r\n"

    .balign 8
boot_gdt:
    .quad 0
    .quad 0
    .quad 0x00af9a000000ffff    # 0x10: 64-bit code
    .quad 0x00cf92000000ffff    # 0x18: data
boot_gdt_pointer:
    .short 31
    .long boot_gdt
    .long 0

    .code64
boot_long_mode:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movabsq ${direct_map}, %rax
    leaq boot_stack_top, %rsp   # the boot stack, seen through the direct map, which survives the change of tables
    addq %rax, %rsp
    xorl %ebp, %ebp
    pushq $0
    movabsq $boot_entry, %rax
    jmp *%rax

    .section .boot.bss, "aw", @nobits
    .balign 4096
    .global boot_root
boot_root:          .skip 4096
boot_low_pointers:  .skip 4096
boot_high_pointers: .skip 4096
boot_directories:   .skip 4 * 4096
boot_stack:         .skip 65536
boot_stack_top:
    .text
    "#,
    pvh = const PROTOCOL_PVH,
    multiboot2 = const PROTOCOL_MULTIBOOT2,
    magic = const super::multiboot2::MAGIC,
    direct_map = const DIRECT_MAP,
    options(att_syntax)
);
