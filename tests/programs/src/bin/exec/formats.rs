//! What can be executed: ELF programs of each kind, and headers that are wrong in each way.
//!
//! Linux finds some mistakes only after the old program is gone, and then kills; here they are errors like all others. For those
//! the cases demand only that the program does not run.

use crate::elf::{BASE, CODE, Code, Dump, Elf, PT_GNU_STACK, PT_LOAD, PT_PHDR, Part, R, W, X};
use crate::support::{Case, End, Execution, Outcome, ensure, is_rouse, same, write};

pub const CASES: &[Case] = &[
    ("programs of each kind run", programs_of_each_kind),
    ("a dynamic program runs, and its interpreter by itself", a_dynamic_program),
    ("headers that are wrong are refused by their names", wrong_headers),
    ("an interpreter must be a program of the right kind", wrong_interpreters),
    ("the vector tells where a program and its interpreter lie", the_vector_of_each_kind),
    ("what the file does not give is zero", what_the_file_does_not_give),
    ("a stack is executable only if the program asks for it", executable_stacks),
    ("later segments lie over earlier ones", overlapping_segments),
    ("a program's pages are shared by all who run it", pages_are_shared),
];

fn programs_of_each_kind() -> Outcome {
    same!(Elf::fixed(Code::Exit).execution().end(), End::Exited(42));
    same!(Elf::relocatable(Code::Exit).execution().end(), End::Exited(42));
    let interpreter = Elf::interpreter(Code::Exit).write("interpreter");
    let path = interpreter.to_str().unwrap_or_default().as_bytes().to_vec();
    // The interpreter gets control, whatever the program's code is.
    for program in [Elf::fixed(Code::Touch), Elf::relocatable(Code::Touch)] {
        same!(program.interpreted_by(&path).execution().end(), End::Exited(42));
    }
    let fixed = Elf::fixed(Code::Exit).with(|elf| {
        elf.parts[0].flags = R | W | X;
        elf.parts[0].address = 0x1000_0000;
        elf.entry = 0x1000_0000 + CODE;
    });
    let path = fixed.write("fixed-interpreter").to_str().unwrap_or_default().as_bytes().to_vec();
    same!(Elf::relocatable(Code::Touch).interpreted_by(&path).execution().end(), End::Exited(42));
    // A path is resolved against the working directory.
    same!(Elf::relocatable(Code::Touch).interpreted_by(b"interpreter").execution().end(), End::Exited(42));
    // An interpreter may not need to be executable by itself, but must be by permission.
    write("interpreter", &Elf::interpreter(Code::Exit).bytes(), 0o644);
    same!(Elf::relocatable(Code::Touch).interpreted_by(b"interpreter").execution().end(), End::Refused(libc::EACCES));
    Ok(())
}

/// Where the test puts a dynamic program of the host's, with its libraries.
const DYNAMIC: &str = "/tests/dynamic";
const INTERPRETER: &str = "/lib64/ld-linux-x86-64.so.2";

fn a_dynamic_program() -> Outcome {
    if !std::path::Path::new(DYNAMIC).exists() {
        return Ok(()); // on a machine without one
    }
    same!(Execution::of(DYNAMIC).environment(["A=1", "B=2"]).text()?, "A=1\nB=2\n");
    let direct = Execution::of(INTERPRETER).argument(DYNAMIC).argument("B").environment(["A=1", "B=2"]);
    same!(direct.text()?, "2\n");
    same!(Execution::of(DYNAMIC).argument("LACKING").end(), End::Exited(1));
    Ok(())
}

/// What a case demands of a wrong header.
enum Wanted {
    /// This error.
    Error(i32),
    /// That the program does not run: an error, or on Linux a death.
    NotRun,
    /// ENOEXEC here; Linux does not look.
    RefusedHere,
    /// That it runs.
    Runs,
}
use Wanted::{Error, NotRun, RefusedHere, Runs};

fn wrong_headers() -> Outcome {
    let fixed = || Elf::fixed(Code::Exit);
    let load = |offset: u64, address: u64, file_len: u64, memory_len: u64| Part {
        kind: PT_LOAD,
        flags: R | W,
        offset,
        address,
        file_len,
        memory_len,
        align: 4096,
    };
    let no_exec = libc::ENOEXEC;
    let path = b"/tmp/exec-test/interpreter";
    Elf::interpreter(Code::Exit).write("interpreter");
    let rows: Vec<(&str, Elf, Wanted)> = vec![
        ("a wrong magic", fixed().patch(0, b"\x7fELG"), Error(no_exec)),
        ("a cut header", fixed().with(|elf| elf.len = Some(40)), Error(no_exec)),
        ("32 bits", fixed().patch(4, &[1]), RefusedHere),
        ("another byte order", fixed().patch(5, &[2]), RefusedHere),
        ("another machine", fixed().with(|elf| elf.machine = 183), Error(no_exec)),
        ("an object file", fixed().with(|elf| elf.kind = 1), Error(no_exec)),
        ("a core file", fixed().with(|elf| elf.kind = 4), Error(no_exec)),
        ("entries of another size", fixed().with(|elf| elf.entry_size = 57), Error(no_exec)),
        ("entries of size 0", fixed().with(|elf| elf.entry_size = 0), Error(no_exec)),
        ("no program headers", fixed().with(|elf| elf.count = Some(0)), Error(no_exec)),
        ("too many program headers", fixed().with(|elf| elf.count = Some(2000)), Error(no_exec)),
        ("a table beyond the file", fixed().with(|elf| elf.table_offset = 1 << 30), NotRun),
        ("a table at the end of numbers", fixed().with(|elf| elf.table_offset = u64::MAX - 10), NotRun),
        ("a table that the file cuts", fixed().with(|elf| elf.len = Some(100)), NotRun),
        ("nothing to load", fixed().with(|elf| elf.parts[0].kind = 4), NotRun),
        ("more in the file than in memory", fixed().with(|elf| elf.parts[0].memory_len = 64), NotRun),
        ("an offset that overflows", fixed().part(load(u64::MAX - 0xfff, BASE + 0x10000, 0x2000, 0x2000)), NotRun),
        ("an address that overflows", fixed().part(load(0, u64::MAX - 0xfff, 0x2000, 0x2000)), NotRun),
        ("an address of the kernel", fixed().part(load(0, 0xffff_8000_0000_0000, 0x100, 0x100)), NotRun),
        ("an address above the user's", fixed().part(load(0, 0x7fff_ffff_f000, 0x100, 0x100)), NotRun),
        ("a length beyond the user's memory", fixed().part(load(0, BASE + 0x10000, 0x100, 1 << 47)), NotRun),
        ("an offset out of step with the address", fixed().part(load(0x10, BASE + 0x10000, 0x100, 0x100)), NotRun),
        ("a path of one byte", fixed().interpreter_bytes(b"\0", 1), Error(no_exec)),
        ("an empty path", fixed().interpreter_bytes(b"\0\0", 2), NotRun),
        ("a path that is not ended", fixed().interpreter_bytes(b"/tmp/exec-test/x", 10), Error(no_exec)),
        ("a path that is too long", fixed().interpreter_bytes(path, 4097), Error(no_exec)),
        ("a path beyond the file", fixed().interpreted_by(path).with(|elf| elf.parts[1].offset = 1 << 30), NotRun),
        ("a path that is ended twice", fixed().interpreter_bytes(b"/tmp/exec-test/interpreter\0x\0", 29), Runs),
        (
            "an unknown program header",
            fixed().with(|elf| elf.parts.push(Part { kind: 0x7000_0001, ..elf.parts[0] })),
            Runs,
        ),
        ("an unknown version", fixed().patch(20, &[9]), Runs),
        ("an unknown operating system", fixed().patch(7, &[99]), Runs),
        ("an empty segment", fixed().part(load(0, BASE + 0x10000, 0, 0)), Runs),
    ];
    for (what, elf, wanted) in rows {
        let end = elf.execution().end();
        let holds = match wanted {
            Error(errno) => end == End::Refused(errno),
            NotRun if is_rouse() => matches!(end, End::Refused(libc::ENOEXEC | libc::ENOMEM)),
            RefusedHere => end == if is_rouse() { End::Refused(no_exec) } else { End::Exited(42) },
            NotRun => matches!(end, End::Refused(_) | End::Killed(_)),
            Runs => end == End::Exited(42),
        };
        if !holds {
            return Err(format!("{what}: {}", end.words()));
        }
    }
    if is_rouse() {
        // Linux takes the first of two interpreters, and finds out while it runs that a file is too short.
        same!(fixed().interpreted_by(path).interpreted_by(path).execution().end(), End::Refused(no_exec));
        let cut = fixed().part(load(0x2000, BASE + 0x10000, 0x100, 0x100));
        same!(cut.execution().end(), End::Refused(no_exec));
    }
    Ok(())
}

fn wrong_interpreters() -> Outcome {
    let by = |path: &str| Elf::fixed(Code::Exit).interpreted_by(path.as_bytes()).execution().end();
    same!(by("/tmp/exec-test/nowhere"), End::Refused(libc::ENOENT));
    same!(by("/tmp/exec-test"), End::Refused(libc::EACCES));
    same!(by("/tmp/exec-test/self/x"), End::Refused(libc::ENOTDIR));
    same!(by(&"x".repeat(300)), End::Refused(libc::ENAMETOOLONG));
    write("other", &vec![b'x'; 5000], 0o755);
    same!(by("/tmp/exec-test/other"), End::Refused(libc::ELIBBAD));
    for elf in [
        Elf::relocatable(Code::Exit).with(|elf| elf.machine = 183),
        Elf::relocatable(Code::Exit).with(|elf| elf.entry_size = 1),
        Elf::relocatable(Code::Exit).with(|elf| elf.count = Some(0)),
    ] {
        write("other", &elf.bytes(), 0o755);
        same!(by("/tmp/exec-test/other"), End::Refused(libc::ELIBBAD));
    }
    write("other", b"short", 0o755);
    ensure!(matches!(by("/tmp/exec-test/other"), End::Refused(libc::EIO | libc::ELIBBAD)));
    // A script is no interpreter of a program.
    write("other", &[&b"#!/tmp/exec-test/show\n"[..], &[b'\n'; 100]].concat(), 0o755);
    same!(by("/tmp/exec-test/other"), End::Refused(libc::ELIBBAD));
    Ok(())
}

fn the_vector_of_each_kind() -> Outcome {
    const AT_PHDR: u64 = 3;
    const AT_PHENT: u64 = 4;
    const AT_PHNUM: u64 = 5;
    const AT_BASE: u64 = 7;
    const AT_ENTRY: u64 = 9;
    let headers = |elf: Elf| {
        let base = elf.base();
        // A second header, so that the count means something.
        elf.part(Part {
            kind: PT_PHDR,
            flags: R,
            offset: 64,
            address: base + 64,
            file_len: 112,
            memory_len: 112,
            align: 8,
        })
    };
    let dump = Dump::of(headers(Elf::fixed(Code::Dump)).execution())?;
    same!(dump.auxiliary(AT_PHDR), Some(BASE + 64));
    same!(dump.auxiliary(AT_PHNUM), Some(2));
    same!(dump.auxiliary(AT_PHENT), Some(56));
    same!(dump.auxiliary(AT_BASE), Some(0));
    same!(dump.auxiliary(AT_ENTRY), Some(BASE + CODE));
    same!(dump.code, BASE + CODE);

    let dump = Dump::of(headers(Elf::relocatable(Code::Dump)).execution())?;
    let base = dump.code - CODE;
    ensure!(base.is_multiple_of(4096) && base > 0x1_0000);
    same!(dump.auxiliary(AT_PHDR), Some(base + 64));
    same!(dump.auxiliary(AT_PHNUM), Some(2));
    same!(dump.auxiliary(AT_BASE), Some(0));
    same!(dump.auxiliary(AT_ENTRY), Some(dump.code));

    // The table is elsewhere than behind the header, in another segment.
    let moved = Elf::relocatable(Code::Dump).with(|elf| {
        elf.table_offset = 0x2040;
        elf.len = None;
        elf.parts.push(Part {
            kind: PT_LOAD,
            flags: R,
            offset: 0x2000,
            address: 0x5000,
            file_len: 0x200,
            memory_len: 0x200,
            align: 4096,
        });
        elf.content.push((0x2200, vec![0]));
    });
    let dump = Dump::of(moved.execution())?;
    same!(dump.auxiliary(AT_PHDR), Some(dump.code - CODE + 0x5040));

    Elf::interpreter(Code::Dump).write("interpreter");
    let program = headers(Elf::relocatable(Code::Exit)).interpreted_by(b"/tmp/exec-test/interpreter");
    let dump = Dump::of(program.execution())?;
    let interpreter = dump.code - CODE;
    same!(dump.auxiliary(AT_BASE), Some(interpreter));
    let entry = dump.auxiliary(AT_ENTRY).unwrap_or(0);
    let base = entry - CODE;
    ensure!(base.is_multiple_of(4096) && base != interpreter && base > 0x1_0000);
    same!(dump.auxiliary(AT_PHDR), Some(base + 64));
    same!(dump.auxiliary(AT_PHNUM), Some(3));

    let program = headers(Elf::fixed(Code::Exit)).interpreted_by(b"/tmp/exec-test/interpreter");
    let dump = Dump::of(program.execution())?;
    same!(dump.auxiliary(AT_BASE), Some(dump.code - CODE));
    same!(dump.auxiliary(AT_ENTRY), Some(BASE + CODE));
    same!(dump.auxiliary(AT_PHDR), Some(BASE + 64));
    Ok(())
}

fn what_the_file_does_not_give() -> Outcome {
    // The second segment's page is full of ones in the file, but the file gives only its first 16 bytes to the segment; then come
    // zeros, for several pages.
    let (start, file_len, memory_len) = (BASE + 0x10000 + 0x100, 0x10, 0x3000);
    for (at, last) in [(file_len, memory_len - 1), (file_len - 1, 0xf00), (0xeff, 0x1000)] {
        let elf = Elf::fixed(Code::Bss).with(|elf| {
            let code = &mut elf.content[0].1;
            for address in [start + at, start + last] {
                code.extend(address.to_le_bytes());
            }
            let len = code.len() as u64 + CODE;
            (elf.parts[0].file_len, elf.parts[0].memory_len) = (len, len);
            elf.parts.push(Part {
                kind: PT_LOAD,
                flags: R | W,
                offset: 0x1100,
                address: start,
                file_len,
                memory_len,
                align: 4096,
            });
            elf.content.push((0x1000, vec![1; 0x1000]));
        });
        same!(elf.execution().end(), End::Exited(i32::from(at < file_len)));
    }
    Ok(())
}

fn executable_stacks() -> Outcome {
    let stack = |flags| {
        let part = Part { kind: PT_GNU_STACK, flags, offset: 0, address: 0, file_len: 0, memory_len: 0, align: 16 };
        Elf::fixed(Code::OnStack).part(part).execution().end()
    };
    same!(stack(R | W), End::Killed(libc::SIGSEGV));
    same!(stack(R | W | X), End::Exited(7));
    Ok(())
}

fn overlapping_segments() -> Outcome {
    // The second segment lies over the first one's page, with other code in it.
    let elf = Elf::fixed(Code::Touch).with(|elf| {
        let code = Code::Exit.bytes();
        let len = CODE + code.len() as u64;
        elf.parts.push(Part { offset: 0x1000, file_len: len, memory_len: len, ..elf.parts[0] });
        elf.content.push((0x1000 + CODE, code));
    });
    same!(elf.execution().end(), End::Exited(42));
    Ok(())
}

fn free_memory() -> u64 {
    // SAFETY: room for the answer.
    unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        libc::sysinfo(&raw mut info);
        info.freeram * u64::from(info.mem_unit)
    }
}

fn pages_are_shared() -> Outcome {
    const LEN: u64 = 17 << 20;
    let elf = Elf::fixed(Code::Touch).with(|elf| {
        (elf.parts[0].file_len, elf.parts[0].memory_len) = (LEN, LEN);
        elf.content.push((0x2000, vec![0x90; LEN as usize - 0x2000]));
    });
    let path = elf.write("large");
    let start = || -> Result<(i32, std::fs::File), String> {
        let (mut from, to) = crate::support::pipe();
        let execution = Execution::of(&path);
        // SAFETY: this program has one thread; the child only executes.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the child's own descriptors.
            unsafe { libc::dup2(to, 1) };
            execution.here();
            // SAFETY: the child ends without unwinding.
            unsafe { libc::_exit(1) };
        }
        // SAFETY: nobody uses it here.
        unsafe { libc::close(to) };
        let mut byte = [0];
        std::io::Read::read_exact(&mut from, &mut byte).map_err(|error| error.to_string())?;
        Ok((child, from))
    };
    let mut running = vec![start()?]; // the first brings the pages into memory
    let before = free_memory();
    for _ in 0..6 {
        running.push(start()?);
    }
    let taken = before.saturating_sub(free_memory());
    for (child, _) in running {
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        same!(crate::support::wait(child), End::Killed(libc::SIGKILL));
    }
    let _ = std::fs::remove_file(&path);
    // Six copies would be 102 MiB; page tables and stacks are far less.
    ensure!(taken < 16 << 20);
    Ok(())
}
