//! Makes small ELF programs whose every byte a case decides: a header, program headers, and one of the pieces of code below.

use std::arch::global_asm;
use std::path::PathBuf;

use crate::support::{Execution, write};

pub const PT_LOAD: u32 = 1;
pub const PT_INTERP: u32 = 3;
pub const PT_PHDR: u32 = 6;
pub const PT_TLS: u32 = 7;
pub const PT_GNU_STACK: u32 = 0x6474_e551;
pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;

/// Where programs that cannot be moved are loaded.
pub const BASE: u64 = 0x40_0000;
/// Where the code lies in the file.
pub const CODE: u64 = 0x400;

// Programs without a C library. They are copied from here into files, so they must not care where they lie.
global_asm!(
    ".pushsection .rodata",
    // Ends with status 42.
    ".globl exec_code_exit",
    "exec_code_exit:",
    "    mov edi, 42",
    "    mov eax, 231",
    "    syscall",
    // Writes all registers to standard output (18 words), then 512 bytes of vector state (fxsave), then 4096 bytes of the stack.
    ".globl exec_code_dump",
    "exec_code_dump:",
    "    mov [rsp - 2048], rax",
    "    mov [rsp - 2040], rbx",
    "    mov [rsp - 2032], rcx",
    "    mov [rsp - 2024], rdx",
    "    mov [rsp - 2016], rsi",
    "    mov [rsp - 2008], rdi",
    "    mov [rsp - 2000], rbp",
    "    mov [rsp - 1992], r8",
    "    mov [rsp - 1984], r9",
    "    mov [rsp - 1976], r10",
    "    mov [rsp - 1968], r11",
    "    mov [rsp - 1960], r12",
    "    mov [rsp - 1952], r13",
    "    mov [rsp - 1944], r14",
    "    mov [rsp - 1936], r15",
    "    mov r12, rsp",
    "    pushfq",
    "    pop rax",
    "    mov [r12 - 1928], rax",
    "    mov [r12 - 1920], r12",
    "    lea rax, [rip + exec_code_dump]",
    "    mov [r12 - 1912], rax",
    "    mov edi, 0x1003", // ARCH_GET_FS
    "    lea rsi, [r12 - 1904]",
    "    mov eax, 158",
    "    syscall",
    "    mov edi, 0x1004", // ARCH_GET_GS
    "    lea rsi, [r12 - 1896]",
    "    mov eax, 158",
    "    syscall",
    "    mov rax, r12",
    "    and rax, -16",
    "    fxsave [rax - 1024]",
    "    lea rsi, [rax - 1024]",
    "    lea rdi, [r12 - 1888]",
    "    mov ecx, 512",
    "    cld",
    "    rep movsb",
    "    mov edi, 1",
    "    lea rsi, [r12 - 2048]",
    "    mov edx, 672",
    "    mov eax, 1",
    "    syscall",
    "    mov edi, 1",
    "    mov rsi, r12",
    "    mov edx, 4096",
    "    mov eax, 1",
    "    syscall",
    "    xor edi, edi",
    "    mov eax, 231",
    "    syscall",
    // Writes the thread pointer, then what lies below it, as much as the word behind this code says, and the 64 bytes above it.
    ".globl exec_code_tls",
    "exec_code_tls:",
    "    mov rax, fs:[0]",
    "    push rax",
    "    mov r12, rax",
    "    mov edi, 1",
    "    mov rsi, rsp",
    "    mov edx, 8",
    "    mov eax, 1",
    "    syscall",
    "    mov rdx, fs:[0x28]",
    "    mov fs:[0x28], rax",
    "    mov fs:[0x28], rdx",
    "    mov edi, 1",
    "    mov rdx, [rip + 4f]",
    "    mov rsi, r12",
    "    sub rsi, rdx",
    "    add rdx, 64",
    "    mov eax, 1",
    "    syscall",
    "    xor edi, edi",
    "    mov eax, 231",
    "    syscall",
    ".balign 8",
    "4:",
    // Runs two instructions on the stack: `mov al, 7; ret`; ends with what they leave.
    ".globl exec_code_on_stack",
    "exec_code_on_stack:",
    "    sub rsp, 64",
    "    mov dword ptr [rsp], 0x90c307b0",
    "    xor eax, eax",
    "    call rsp",
    "    mov edi, eax",
    "    mov eax, 231",
    "    syscall",
    // Ends with the sum of the byte at the end of the file's part of the second segment and the last one of its memory: the
    // addresses come in the file, behind this code, at its end.
    ".globl exec_code_bss",
    "exec_code_bss:",
    "    lea rbx, [rip + 2f]",
    "    mov rax, [rbx]",
    "    mov rcx, [rbx + 8]",
    "    movzx edi, byte ptr [rax]",
    "    movzx ecx, byte ptr [rcx]",
    "    add edi, ecx",
    "    mov eax, 231",
    "    syscall",
    ".balign 8",
    "2:",
    ".globl exec_code_touch",
    // Touches each page of its segment from the address behind it to 16 MiB further, then writes a byte and waits for a signal.
    "exec_code_touch:",
    "    lea rbx, [rip + exec_code_touch]",
    "    and rbx, -4096",
    "    mov ecx, 4096",
    "3:  add rbx, 4096",
    "    mov al, [rbx]",
    "    loop 3b",
    "    push rax",
    "    mov edi, 1",
    "    mov rsi, rsp",
    "    mov edx, 1",
    "    mov eax, 1",
    "    syscall",
    "    mov eax, 34",
    "    syscall",
    ".globl exec_code_end",
    "exec_code_end:",
    ".popsection",
);

unsafe extern "C" {
    static exec_code_exit: u8;
    static exec_code_dump: u8;
    static exec_code_tls: u8;
    static exec_code_on_stack: u8;
    static exec_code_bss: u8;
    static exec_code_touch: u8;
    static exec_code_end: u8;
}

/// A piece of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    Exit,
    Dump,
    Tls,
    OnStack,
    Bss,
    Touch,
}

impl Code {
    pub fn bytes(self) -> Vec<u8> {
        let (from, to) = match self {
            Code::Exit => (&raw const exec_code_exit, &raw const exec_code_dump),
            Code::Dump => (&raw const exec_code_dump, &raw const exec_code_tls),
            Code::Tls => (&raw const exec_code_tls, &raw const exec_code_on_stack),
            Code::OnStack => (&raw const exec_code_on_stack, &raw const exec_code_bss),
            Code::Bss => (&raw const exec_code_bss, &raw const exec_code_touch),
            Code::Touch => (&raw const exec_code_touch, &raw const exec_code_end),
        };
        // SAFETY: two labels of the same read-only section, in this order.
        unsafe { std::slice::from_raw_parts(from, to.addr() - from.addr()).to_vec() }
    }
}

/// A program header.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub file_len: u64,
    pub memory_len: u64,
    pub align: u64,
}

/// An ELF file to be.
#[derive(Clone, Debug)]
pub struct Elf {
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub table_offset: u64,
    pub entry_size: u16,
    pub parts: Vec<Part>,
    /// How many program headers the header tells of, if not the truth.
    pub count: Option<u16>,
    /// Bytes and where they lie.
    pub content: Vec<(u64, Vec<u8>)>,
    /// Bytes of the file that are changed at last.
    pub patches: Vec<(usize, Vec<u8>)>,
    /// Where the file is cut off.
    pub len: Option<usize>,
}

impl Elf {
    /// A program at fixed addresses.
    pub fn fixed(code: Code) -> Elf {
        Elf::new(2, BASE, code)
    }

    /// A program that can be loaded anywhere.
    pub fn relocatable(code: Code) -> Elf {
        Elf::new(3, 0, code)
    }

    /// A program that can be loaded anywhere, to interpret others: writable, because Linux zeroes what lies behind its last byte.
    pub fn interpreter(code: Code) -> Elf {
        Elf::relocatable(code).with(|elf| elf.parts[0].flags = R | W | X)
    }

    fn new(kind: u16, base: u64, code: Code) -> Elf {
        let code = code.bytes();
        let len = CODE + code.len() as u64;
        let load =
            Part { kind: PT_LOAD, flags: R | X, offset: 0, address: base, file_len: len, memory_len: len, align: 4096 };
        Elf {
            kind,
            machine: 62,
            entry: base + CODE,
            table_offset: 64,
            entry_size: 56,
            parts: vec![load],
            count: None,
            content: vec![(CODE, code)],
            patches: vec![],
            len: None,
        }
    }

    pub fn base(&self) -> u64 {
        if self.kind == 2 { BASE } else { 0 }
    }

    /// With an interpreter.
    pub fn interpreted_by(self, path: &[u8]) -> Elf {
        let path = [path, b"\0"].concat();
        self.interpreter_bytes(&path, path.len() as u64)
    }

    /// With these bytes as the interpreter's path, and a length that the header tells.
    pub fn interpreter_bytes(mut self, path: &[u8], len: u64) -> Elf {
        let part =
            Part { kind: PT_INTERP, flags: R, offset: 0x300, address: 0, file_len: len, memory_len: len, align: 1 };
        self.content.push((0x300, path.to_vec()));
        self.parts.push(part);
        self
    }

    pub fn part(mut self, part: Part) -> Elf {
        self.parts.push(part);
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Elf)) -> Elf {
        change(&mut self);
        self
    }

    /// Changes bytes of the finished file.
    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Elf {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        let count = self.count.unwrap_or(self.parts.len() as u16);
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for word in [self.entry, self.table_offset, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64, self.entry_size, count, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut table = vec![];
        for part in &self.parts {
            table.extend(part.kind.to_le_bytes());
            table.extend(part.flags.to_le_bytes());
            for word in [part.offset, part.address, part.address, part.file_len, part.memory_len, part.align] {
                table.extend(word.to_le_bytes());
            }
        }
        let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            if file.len() < at + bytes.len() {
                file.resize(at + bytes.len(), 0);
            }
            file[at..at + bytes.len()].copy_from_slice(bytes);
        };
        if self.table_offset < 1 << 20 {
            put(&mut file, self.table_offset as usize, &table);
        }
        for (at, bytes) in &self.content {
            put(&mut file, *at as usize, bytes);
        }
        for (at, bytes) in &self.patches {
            put(&mut file, *at, bytes);
        }
        file.truncate(self.len.unwrap_or(usize::MAX));
        file
    }

    pub fn write(&self, name: &str) -> PathBuf {
        write(name, &self.bytes(), 0o755)
    }

    /// An execution of it.
    pub fn execution(&self) -> Execution {
        Execution::of(self.write("program"))
    }
}

/// What [`Code::Dump`] has written.
pub struct Dump {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub registers: [u64; 15],
    pub flags: u64,
    pub stack_pointer: u64,
    /// Where the code lies.
    pub code: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// As `fxsave` stores it.
    pub vector: [u8; 512],
    /// From the stack pointer upwards.
    pub stack: Vec<u8>,
}

impl Dump {
    /// Executes a program whose code, or whose interpreter's, is [`Code::Dump`].
    pub fn of(execution: Execution) -> Result<Dump, String> {
        // So much environment that the 4096 bytes above the stack pointer are surely there.
        let padding = [b"PAD=".to_vec(), vec![b'x'; 8000]].concat();
        Dump::parse(&execution.environment([padding]).output()?)
    }

    fn parse(bytes: &[u8]) -> Result<Dump, String> {
        if bytes.len() != 672 + 4096 {
            return Err(format!("a dump of {} bytes", bytes.len()));
        }
        let word = |index: usize| u64::from_le_bytes(bytes[index * 8..index * 8 + 8].try_into().expect("eight"));
        Ok(Dump {
            registers: std::array::from_fn(word),
            flags: word(15),
            stack_pointer: word(16),
            code: word(17),
            fs_base: word(18),
            gs_base: word(19),
            vector: bytes[160..672].try_into().expect("512 bytes"),
            stack: bytes[672..].to_vec(),
        })
    }

    fn word(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.stack[index * 8..index * 8 + 8].try_into().expect("eight"))
    }

    pub fn argument_count(&self) -> u64 {
        self.word(0)
    }

    /// A value of the auxiliary vector.
    pub fn auxiliary(&self, key: u64) -> Option<u64> {
        let mut at = 1 + self.word(0) as usize + 1;
        while self.word(at) != 0 {
            at += 1;
        }
        at += 1;
        while self.word(at) != 0 {
            if self.word(at) == key {
                return Some(self.word(at + 1));
            }
            at += 2;
        }
        None
    }
}
