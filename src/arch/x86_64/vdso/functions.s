// The vDSO's functions: C's calling convention, no stack, no call. What cannot be answered here becomes the system call.
//
// The page of data (`struct Data` in mod.rs) lies just below the image.

.set .Ldata, .Lvdso - 4096

// now FALLBACK: RAX becomes nanoseconds since boot, plus those from 1970 to boot if R10 is all ones (and not if it is zero).
// Changes RCX, RDX, R8, R9. The reader's side of the sequence counter: odd while the kernel writes, changed after it has.
.macro now fallback
2:  mov r8d, dword ptr [rip + .Ldata + {sequence}]
    test r8d, 1
    jnz 3f
    cmp dword ptr [rip + .Ldata + {is_tsc}], 0
    je \fallback
    lfence                          // the counter is read neither before the page nor before an earlier reading of it
    rdtsc
    shl rdx, 32
    or rax, rdx
    xor ecx, ecx
    sub rax, qword ptr [rip + .Ldata + {tsc_at_boot}]
    cmovb rax, rcx
    mul qword ptr [rip + .Ldata + {multiplier}]
    shrd rax, rdx, {shift}
    mov r9, qword ptr [rip + .Ldata + {wall_at_boot}]
    and r9, r10
    add rax, r9
    cmp r8d, dword ptr [rip + .Ldata + {sequence}]
    je 4f
3:  pause
    jmp 2b
4:
.endm

// seconds: RAX becomes seconds, RDX the nanoseconds beyond them. Changes RCX.
.macro seconds
    xor edx, edx
    mov ecx, 1000000000
    div rcx
.endm

    .balign 16
.Lfunctions:

// int clock_gettime(clockid_t clock, struct timespec *time)
.Lclock_gettime:
    cmp edi, 11
    ja 5f
    mov eax, {known_clocks}
    bt eax, edi
    jnc 5f
    mov eax, {wall_clocks}
    bt eax, edi
    sbb r10, r10
    now 5f
    seconds
    mov qword ptr [rsi], rax
    mov qword ptr [rsi + 8], rdx
    xor eax, eax
    ret
5:  mov eax, 228
    syscall
    ret
.Lclock_gettime_end:

    .balign 16, 0x90
// int gettimeofday(struct timeval *time, struct timezone *zone)
.Lgettimeofday:
    test rdi, rdi
    jz 6f
    mov r10, -1
    now 5f
    seconds
    mov qword ptr [rdi], rax
    mov eax, edx
    xor edx, edx
    mov ecx, 1000
    div ecx
    mov qword ptr [rdi + 8], rax
6:  xor eax, eax
    test rsi, rsi
    jz 7f
    mov qword ptr [rsi], rax
7:  ret
5:  mov eax, 96
    syscall
    ret
.Lgettimeofday_end:

    .balign 16, 0x90
// time_t time(time_t *time)
.Ltime:
    mov r10, -1
    now 5f
    seconds
    test rdi, rdi
    jz 6f
    mov qword ptr [rdi], rax
6:  ret
5:  mov eax, 201
    syscall
    ret
.Ltime_end:

    .balign 16, 0x90
// int getcpu(unsigned *cpu, unsigned *node, void *unused)
//
// The limit of a segment that is never used tells the CPU's number: bits 0 to 11, above them the node's.
.Lgetcpu:
    mov eax, {cpu_segment}
    lsl eax, eax
    jnz 5f
    mov ecx, eax
    and ecx, 0xfff
    shr eax, 12
    test rdi, rdi
    jz 6f
    mov dword ptr [rdi], ecx
6:  test rsi, rsi
    jz 7f
    mov dword ptr [rsi], eax
7:  xor eax, eax
    ret
5:  mov eax, 309
    syscall
    ret
.Lgetcpu_end:

    .balign 16, 0x90
// int clock_getres(clockid_t clock, struct timespec *resolution)
.Lclock_getres:
    cmp edi, 11
    ja 5f
    mov eax, {known_clocks}
    bt eax, edi
    jnc 5f
    xor eax, eax
    test rsi, rsi
    jz 6f
    mov qword ptr [rsi], rax
    mov qword ptr [rsi + 8], 1
6:  ret
5:  mov eax, 229
    syscall
    ret
.Lclock_getres_end:
.Lfunctions_end:
