// The vDSO as an ELF shared object: what stands around its functions. `mod.rs` tells its story, `functions.s` comes in the middle.
//
// No linker sees this object: each address in it is a difference to `.Lvdso`, where it begins. All of it is one segment, readable
// and executable.

// sym NAME, BINDING, FUNCTION: an entry of the symbol table (gABI, "Symbol Table"). Binding 1: global, 2: weak.
.macro sym name, binding, function
    .long .Lname_\name - .Lstrings
    .byte \binding << 4 | 2
    .byte 0
    .short 8
    .quad .L\function - .Lvdso
    .quad .L\function\()_end - .L\function
.endm

// str NAME: a string of the string table, with a label to find it by.
.macro str name
.Lname_\name:
    .asciz "\name"
.endm

// dyn TAG, VALUE: an entry of the dynamic section.
.macro dyn tag, value
    .quad \tag, \value
.endm

// sec NAME, TYPE, FLAGS, PLACE, LINK, INFO, ALIGNMENT, ENTRY: a section header. PLACE is a label; PLACE_end is where it ends.
.macro sec name, type, flags, place, link, info, alignment, entry
    .long .Lsection_\name - .Lsection_names, \type
    .quad \flags, .L\place - .Lvdso, .L\place - .Lvdso, .L\place\()_end - .L\place
    .long \link, \info
    .quad \alignment, \entry
.endm

.macro secname name
.Lsection_\name:
    .asciz ".\name"
.endm

    .pushsection .rodata.vdso, "a", @progbits
    .balign 4096
    .globl rouse_vdso_start
    .hidden rouse_vdso_start
rouse_vdso_start:
.Lvdso:
    // The ELF header: 64 bits, little-endian, System V, a shared object for x86-64.
    .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 62
    .long 1
    .quad 0, .Lsegments - .Lvdso, .Lsections - .Lvdso
    .long 0
    .short 64, 56, 3, 64, 11, 10

.Lsegments:
    // PT_LOAD, readable and executable.
    .long 1, 5
    .quad 0, 0, 0, .Lvdso_end - .Lvdso, .Lvdso_end - .Lvdso, 4096
    // PT_DYNAMIC, readable.
    .long 2, 4
    .quad .Ldynamic - .Lvdso, .Ldynamic - .Lvdso, .Ldynamic - .Lvdso, .Ldynamic_end - .Ldynamic, .Ldynamic_end - .Ldynamic, 8
    // PT_GNU_EH_FRAME, readable.
    .long 0x6474e550, 4
    .quad .Lframe_index - .Lvdso, .Lframe_index - .Lvdso, .Lframe_index - .Lvdso
    .quad .Lframe_index_end - .Lframe_index, .Lframe_index_end - .Lframe_index, 4

    // The hash table: one bucket, whose chain goes through all symbols. So no hash value needs to be known here.
.Lhash:
    .long 1, 11
    .long 1
    .long 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0
.Lhash_end:

    .balign 8
.Lsymbols:
    .quad 0, 0, 0
    sym __vdso_clock_gettime, 1, clock_gettime
    sym __vdso_gettimeofday, 1, gettimeofday
    sym __vdso_time, 1, time
    sym __vdso_getcpu, 1, getcpu
    sym __vdso_clock_getres, 1, clock_getres
    sym clock_gettime, 2, clock_gettime
    sym gettimeofday, 2, gettimeofday
    sym time, 2, time
    sym getcpu, 2, getcpu
    sym clock_getres, 2, clock_getres
.Lsymbols_end:

.Lstrings:
    .byte 0
    str __vdso_clock_gettime
    str __vdso_gettimeofday
    str __vdso_time
    str __vdso_getcpu
    str __vdso_clock_getres
    str clock_gettime
    str gettimeofday
    str time
    str getcpu
    str clock_getres
.Lobject_name:
    .asciz "linux-vdso.so.1"
.Lversion_name:
    .asciz "LINUX_2.6"
.Lstrings_end:

    // Which version each symbol has: the second, LINUX_2.6.
    .balign 2
.Lversions:
    .short 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2
.Lversions_end:

    // The versions: the object's own name first, as always; then LINUX_2.6. Each with its ELF hash.
    .balign 8
.Lversion_definitions:
    .short 1, 1, 1, 1
    .long {object_hash}, 20, 28
    .long .Lobject_name - .Lstrings, 0
    .short 1, 0, 2, 1
    .long {version_hash}, 20, 0
    .long .Lversion_name - .Lstrings, 0
.Lversion_definitions_end:

    .balign 8
.Ldynamic:
    dyn 14, .Lobject_name - .Lstrings                        // DT_SONAME
    dyn 4, .Lhash - .Lvdso                                   // DT_HASH
    dyn 5, .Lstrings - .Lvdso                                // DT_STRTAB
    dyn 6, .Lsymbols - .Lvdso                                // DT_SYMTAB
    dyn 10, .Lstrings_end - .Lstrings                        // DT_STRSZ
    dyn 11, 24                                               // DT_SYMENT
    dyn 0x6ffffffc, .Lversion_definitions - .Lvdso           // DT_VERDEF
    dyn 0x6ffffffd, 2                                        // DT_VERDEFNUM
    dyn 0x6ffffff0, .Lversions - .Lvdso                      // DT_VERSYM
    dyn 0, 0
.Ldynamic_end:

    // How to unwind (LSB, "Exception Frames"): no function here moves the stack pointer, so one entry holds for all.
    .balign 4
.Lframe_index:
    .byte 1, 0x1b, 0x03, 0x3b
    .long .Lframes - ., 1
    .long .Lfunctions - .Lframe_index, .Lframe - .Lframe_index
.Lframe_index_end:
    .balign 8
.Lframes:
    .long .Lframe - .Lcommon
.Lcommon:
    .long 0
    .byte 1
    .asciz "zR"
    .byte 1, 0x78, 16, 1, 0x1b       // alignments 1 and -8; the return address is column 16; addresses are relative, 32 bits
    .byte 0x0c, 7, 8, 0x90, 1        // the caller's frame is at RSP + 8, the return address 8 below it
    .balign 8
.Lframe:
    .long .Lframe_end - .Lframe_body
.Lframe_body:
    .long .Lframe_body - .Lframes
    .long .Lfunctions - ., .Lfunctions_end - .Lfunctions
    .byte 0
    .balign 8
.Lframe_end:
    .long 0
.Lframes_end:
