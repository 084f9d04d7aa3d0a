//! What the CPU refuses a program becomes the signal that Linux sends for it, and what it allows leaves the registers alone.
//!
//! Each case is a program of a few machine instructions in an ELF file made here, so nothing but the kernel stands between the
//! instruction and the outcome. Left out is what QEMU's emulator does not raise: alignment checks, stack faults on non-canonical
//! addresses, unmasked SSE exceptions. `ROUSE_TEST_KERNEL=linux` runs the same table on Linux, which is where its last column comes from.

use std::path::{Path, PathBuf};
use user_programs::protocol::End::{self, Exited, Killed};
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;

const SIGILL: End = Killed(4);
const SIGTRAP: End = Killed(5);
const SIGFPE: End = Killed(8);
const SIGSEGV: End = Killed(11);

/// `mov eax, 60; syscall`: exit with what EDI holds.
const EXIT: &[u8] = &[0xb8, 60, 0, 0, 0, 0x0f, 0x05];
/// `xor edi, edi`.
const ZERO: &[u8] = &[0x31, 0xff];
/// `mov rax, imm64` without the number.
const MOV_RAX: &[u8] = &[0x48, 0xb8];

/// A name, the instructions (what follows them is `exit(0)`), and how the program must end.
type Case = (&'static str, &'static [&'static [u8]], End);

const KERNEL_TEXT: &[u8] = &[0, 0, 0x10, 0x80, 0xff, 0xff, 0xff, 0xff];
const NON_CANONICAL: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0x80];
const FIRST_NON_CANONICAL: &[u8] = &[0, 0, 0, 0, 0, 0x80, 0, 0];

const REFUSED: &[Case] = &[
    ("divide-by-zero", &[&[0x31, 0xc9, 0xf7, 0xf1]], SIGFPE),
    ("undefined-instruction", &[&[0x0f, 0x0b]], SIGILL),
    ("lock-without-memory", &[&[0xf0, 0x90]], SIGILL),
    ("breakpoint", &[&[0xcc]], SIGTRAP),
    ("single-step", &[&[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90]], SIGTRAP),
    ("halt", &[&[0xf4]], SIGSEGV),
    ("interrupts-off", &[&[0xfa]], SIGSEGV),
    ("port-input", &[&[0xec]], SIGSEGV),
    ("unknown-software-interrupt", &[&[0xcd, 0x81]], SIGSEGV),
    ("software-interrupt-of-an-exception", &[&[0xcd, 0x0e]], SIGSEGV),
    ("control-register", &[&[0x0f, 0x20, 0xc0]], SIGSEGV),
    ("model-specific-register", &[&[0x0f, 0x32]], SIGSEGV),
    ("swapgs", &[&[0x0f, 0x01, 0xf8]], SIGSEGV),
    ("sysret", &[&[0x48, 0x0f, 0x07]], SIGSEGV),
    ("read-kernel-memory", &[MOV_RAX, KERNEL_TEXT, &[0x8a, 0x00]], SIGSEGV),
    ("jump-into-the-kernel", &[MOV_RAX, KERNEL_TEXT, &[0xff, 0xe0]], SIGSEGV),
    ("read-non-canonical", &[MOV_RAX, NON_CANONICAL, &[0x8a, 0x00]], SIGSEGV),
    ("jump-non-canonical", &[MOV_RAX, NON_CANONICAL, &[0xff, 0xe0]], SIGSEGV),
    ("jump-behind-the-user-half", &[MOV_RAX, FIRST_NON_CANONICAL, &[0xff, 0xe0]], SIGSEGV),
    ("read-nothing", &[&[0x31, 0xc0, 0x8a, 0x00]], SIGSEGV),
    // lea rax, [rip]; mov [rax], al
    ("write-text", &[&[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0x88, 0x00]], SIGSEGV),
    // push 0xc3; jmp rsp
    ("execute-the-stack", &[&[0x68, 0xc3, 0, 0, 0, 0xff, 0xe4]], SIGSEGV),
    // push 0x10; lea rax, [rip]; push rax; retfq: the kernel's code segment
    ("kernel-code-segment", &[&[0x6a, 0x10, 0x48, 0x8d, 0x05, 0, 0, 0, 0, 0x50, 0x48, 0xcb]], SIGSEGV),
    // mov eax, 0x48; mov gs, eax
    ("segment-that-is-none", &[&[0xb8, 0x48, 0, 0, 0, 0x8e, 0xe8]], SIGSEGV),
    // push 0x33b; fldcw [rsp]; fld1; fldz; fdivp; fwait
    (
        "x87-divide-by-zero",
        &[&[0x68, 0x3b, 0x03, 0, 0, 0xd9, 0x2c, 0x24, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b]],
        SIGFPE,
    ),
];

const ALLOWED: &[Case] = &[
    ("nothing", &[], Exited(0)),
    ("time-stamp-counter", &[&[0x0f, 0x31]], Exited(0)),
    // xor esp, esp: the kernel leaves the user's stack alone
    ("no-stack", &[&[0x31, 0xe4]], Exited(0)),
    ("kernel-stack-pointer", &[&[0x48, 0xbc], KERNEL_TEXT], Exited(0)),
    // std; mov eax, 39; syscall; pushf; pop rdi; not edi; and edi, 0x400: DF survives a call, and the kernel runs without it
    (
        "direction-flag",
        &[
            &[0xfd, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x9c, 0x5f, 0xfc, 0xf7, 0xd7, 0x81, 0xe7, 0, 4, 0, 0],
            &[0xc1, 0xef, 10],
            EXIT,
        ],
        Exited(0),
    ),
    // mov ebx, 7; mov r12d, 9; mov r15d, 11; getpid; lea edi, [rbx + r12 - 16]; lea edi, [rdi + r15 - 11]
    (
        "registers-over-a-call",
        &[
            &[0xbb, 7, 0, 0, 0, 0x41, 0xbc, 9, 0, 0, 0, 0x41, 0xbf, 11, 0, 0, 0, 0xb8, 39, 0, 0, 0, 0x0f, 0x05],
            &[0x42, 0x8d, 0x7c, 0x23, 0xf0, 0x42, 0x8d, 0x7c, 0x3f, 0xf5],
            EXIT,
        ],
        Exited(0),
    ),
    // mov eax, 0x2b; mov ds, eax; mov es, eax; mov fs, eax; mov gs, eax
    ("user-data-segments", &[&[0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8]], Exited(0)),
    // pcmpeqd xmm5, xmm5; sched_yield; movd edi, xmm5; inc edi
    (
        "vector-registers-over-a-call",
        &[&[0x66, 0x0f, 0x76, 0xed, 0xb8, 24, 0, 0, 0, 0x0f, 0x05, 0x66, 0x0f, 0x7e, 0xef, 0xff, 0xc7], EXIT],
        Exited(0),
    ),
    // pcmpeqd xmm5, xmm5; a struct sigaction on the stack; rt_sigaction(SIGUSR1); kill(getpid(), SIGUSR1); movd edi, xmm5; inc edi;
    // exit; the handler: pxor xmm5, xmm5; ret; and what it returns to: rt_sigreturn
    (
        "vector-registers-over-a-handler",
        &[
            &[0x66, 0x0f, 0x76, 0xed],
            &[0x6a, 0, 0x48, 0x8d, 5, 0x4c, 0, 0, 0, 0x50, 0x68, 0, 0, 0, 4, 0x48, 0x8d, 5, 0x3a, 0, 0, 0, 0x50],
            &[0xbf, 0x0a, 0, 0, 0, 0x48, 0x89, 0xe6, 0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0xb8, 0x0d, 0, 0, 0, 0x0f, 5],
            &[0xb8, 0x27, 0, 0, 0, 0x0f, 5, 0x89, 0xc7, 0xbe, 0x0a, 0, 0, 0, 0xb8, 0x3e, 0, 0, 0, 0x0f, 5],
            &[0x66, 0x0f, 0x7e, 0xef, 0xff, 0xc7, 0xb8, 0x3c, 0, 0, 0, 0x0f, 5],
            &[0x66, 0x0f, 0xef, 0xed, 0xc3],
            &[0xb8, 0x0f, 0, 0, 0, 0x0f, 5],
        ],
        Exited(0),
    ),
    // mov eax, 9999; syscall; lea edi, [rax + 38]: ENOSYS
    ("unknown-call", &[&[0xb8, 0x0f, 0x27, 0, 0, 0x0f, 0x05, 0x8d, 0x78, 38], EXIT], Exited(0)),
    // mov rax, -1; syscall; lea edi, [rax + 38]
    ("call-minus-one", &[&[0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x05, 0x8d, 0x78, 38], EXIT], Exited(0)),
    // sub rsp, 8; push 42; mov edi, ARCH_SET_FS; mov rsi, rsp; arch_prctl; mov edi, fs:[0]; sub edi, 42
    (
        "fs-base",
        &[
            &[0x48, 0x83, 0xec, 8, 0x6a, 42, 0xbf, 2, 0x10, 0, 0, 0x48, 0x89, 0xe6, 0xb8, 158, 0, 0, 0, 0x0f, 0x05],
            &[0x64, 0x8b, 0x3c, 0x25, 0, 0, 0, 0, 0x83, 0xef, 42],
            EXIT,
        ],
        Exited(0),
    ),
    // The same for GS, over a sched_yield.
    (
        "gs-base",
        &[
            &[0x48, 0x83, 0xec, 8, 0x6a, 42, 0xbf, 1, 0x10, 0, 0, 0x48, 0x89, 0xe6, 0xb8, 158, 0, 0, 0, 0x0f, 0x05],
            &[0xb8, 24, 0, 0, 0, 0x0f, 0x05, 0x65, 0x8b, 0x3c, 0x25, 0, 0, 0, 0, 0x83, 0xef, 42],
            EXIT,
        ],
        Exited(0),
    ),
    // mov edi, ARCH_SET_FS; mov rsi, a kernel address; arch_prctl; lea edi, [rax + 1]: EPERM
    (
        "fs-base-in-the-kernel",
        &[&[0xbf, 2, 0x10, 0, 0, 0x48, 0xbe], KERNEL_TEXT, &[0xb8, 158, 0, 0, 0, 0x0f, 0x05, 0x8d, 0x78, 1], EXIT],
        Exited(0),
    ),
];

/// A static program: one readable, executable segment at 4 MiB, and a stack that is not executable.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 2 * 56;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0];
    [BASE + HEADERS, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let size = HEADERS + code.len() as u64;
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    [0, BASE, BASE, size, size, 4096].iter().for_each(|word| file.extend(word.to_le_bytes()));
    // PT_GNU_STACK, readable and writable.
    file.extend([0x51, 0xe5, 0x74, 0x64, 6, 0, 0, 0]);
    [0_u64, 0, 0, 0, 0, 16].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(code);
    file
}

fn write(folder: &Path, (name, parts, _): &Case) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let mut code = parts.concat();
    code.extend(ZERO);
    code.extend(EXIT);
    let path = folder.join(name);
    std::fs::write(&path, elf(&code)).expect("a small file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

#[test]
fn the_cpu_s_refusals_become_signals_and_nothing_else_does() {
    let folder = std::env::temp_dir().join(format!("rouse-exceptions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let cases: Vec<&Case> = REFUSED.iter().chain(ALLOWED).collect();
    let add: Vec<std::ffi::OsString> =
        cases.iter().map(|case| format!("{}=/exceptions/{}", write(&folder, case).display(), case.0).into()).collect();
    for cpu in [None, Some("max")] {
        let options = under_test(Options { add: add.clone(), cpu: cpu.map(str::to_owned), ..Options::default() });
        let mut guest = Guest::start(&options).expect("a machine");
        let mut wrong = Vec::new();
        for (name, _, expected) in &cases {
            let end = guest.run(&[format!("/exceptions/{name}")]).expect("the machine lives on").end;
            if end != *expected {
                wrong.push(format!("{name}: {end:?} instead of {expected:?}"));
            }
        }
        guest.stop();
        assert!(wrong.is_empty(), "on {cpu:?}: {wrong:#?}");
    }
    std::fs::remove_dir_all(&folder).expect("our own folder");
}
