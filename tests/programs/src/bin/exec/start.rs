//! How a program starts: registers, stack, vector, thread-local storage.

use crate::elf::{BASE, CODE, Code, Dump, Elf, PT_TLS, Part, R};
use crate::support::{Case, End, Execution, Outcome, SELF, case_in_child, ensure, is_rouse, number, same, value};

pub const CASES: &[Case] = &[
    ("registers are zero and the vector state is fresh", registers_are_zero),
    ("the auxiliary vector is complete and right", the_vector),
    ("sixteen bytes of chance differ between two runs", bytes_of_chance),
    ("without arguments there is one, and it is empty", without_arguments),
    ("a program without storage starts with no thread pointer", no_thread_pointer),
    ("a program with thread-local storage finds it below its thread pointer", thread_local_storage),
    ("the stack grows to its limit and no further", the_stack_grows),
    ("the stack is not for code", the_stack_is_not_for_code),
];

fn registers_are_zero() -> Outcome {
    // The program before leaves traces in all of them.
    let dirty = || {
        // SAFETY: registers that the code around does not keep anything in; the direction flag is not called with.
        unsafe {
            std::arch::asm!(
                "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15", "fldpi", "fldpi",
                "push 0x9f80", "ldmxcsr [rsp]", "pop rax",
                out("rax") _, out("xmm0") _, out("xmm7") _, out("xmm15") _,
            );
            libc::syscall(libc::SYS_arch_prctl, 0x1001, 0x1234_5000_usize); // ARCH_SET_GS
        }
    };
    for elf in [Elf::fixed(Code::Dump), Elf::relocatable(Code::Dump)] {
        let dump = Dump::of(elf.execution().before(dirty))?;
        same!(dump.registers, [0; 15]);
        same!(dump.flags & 0xcd5, 0); // no arithmetic flags, no direction flag
        same!(dump.flags & 0x4_0000, 0); // nor alignment checks
        same!((dump.fs_base, dump.gs_base), (0, 0));
        same!(dump.stack_pointer % 16, 0);
        same!(u16::from_le_bytes([dump.vector[0], dump.vector[1]]), 0x37f);
        same!(dump.vector[4], 0); // no register of the x87 stack is in use
        same!(u32::from_le_bytes([dump.vector[24], dump.vector[25], dump.vector[26], dump.vector[27]]), 0x1f80);
        ensure!(dump.vector[32..416].iter().all(|byte| *byte == 0));
    }
    Ok(())
}

fn the_vector() -> Outcome {
    let text = Execution::role("vector").text()?;
    for line in text.lines() {
        if line.ends_with("false") {
            return Err(line.to_owned());
        }
    }
    for (key, wanted) in [
        (libc::AT_PHENT, 56),
        (libc::AT_PAGESZ, 4096),
        (libc::AT_BASE, 0),
        (libc::AT_FLAGS, 0),
        (libc::AT_UID, 0),
        (libc::AT_EUID, 0),
        (libc::AT_CLKTCK, 100),
        (libc::AT_SECURE, 0),
    ] {
        same!(number(&text, &format!("value {key}"))?, wanted);
    }
    same!(value(&text, "name")?, SELF);
    same!(value(&text, "platform")?, "x86_64");
    Ok(())
}

fn bytes_of_chance() -> Outcome {
    let (one, other) = (Execution::role("vector").text()?, Execution::role("vector").text()?);
    let (one, other) = (value(&one, "random")?, value(&other, "random")?);
    ensure!(one != other);
    // No byte stays the same in a dozen runs.
    let mut seen = vec![std::collections::BTreeSet::new(); 16];
    for _ in 0..12 {
        let text = Execution::role("vector").text()?;
        for (byte, seen) in value(&text, "random")?.trim_matches(['[', ']']).split(", ").zip(&mut seen) {
            seen.insert(byte.to_owned());
        }
    }
    ensure!(seen.iter().all(|values| values.len() > 3));
    Ok(())
}

fn without_arguments() -> Outcome {
    let text = Execution::of(SELF).arguments::<&str>([]).environment(["A=1"]).text()?;
    same!(value(&text, "arguments")?, "");
    same!(value(&text, "environment")?, "A=1");
    let dump = Dump::of(Elf::fixed(Code::Dump).execution().arguments::<&str>([]))?;
    same!(dump.argument_count(), 1);
    // A list that is no list counts as an empty one.
    let null = Execution::of(SELF).by(|_, environment| {
        // SAFETY: Linux takes a null pointer for an empty list.
        unsafe { libc::syscall(libc::SYS_execve, c"/tmp/exec-test/self".as_ptr(), 0, environment) };
    });
    same!(value(&null.text()?, "arguments")?, "");
    Ok(())
}

fn no_thread_pointer() -> Outcome {
    same!(Elf::fixed(Code::Tls).execution().end(), End::Killed(libc::SIGSEGV));
    same!(Dump::of(Elf::fixed(Code::Dump).execution())?.fs_base, 0);
    Ok(())
}

/// A program that tells so many bytes below its thread pointer.
fn with_storage(file_len: u64, memory_len: u64, align: u64, told: u64) -> Elf {
    Elf::fixed(Code::Tls).with(|elf| {
        elf.content[0].1.extend(told.to_le_bytes());
        let len = CODE + elf.content[0].1.len() as u64;
        (elf.parts[0].file_len, elf.parts[0].memory_len) = (len, len);
        let address = BASE + 0x2000;
        elf.parts.push(Part { kind: PT_TLS, flags: R, offset: 0x2000, address, file_len, memory_len, align });
        elf.content.push((0x2000, (1..=255).cycle().take(file_len as usize).collect()));
    })
}

fn thread_local_storage() -> Outcome {
    if !is_rouse() {
        return Ok(()); // Linux leaves it to the C library
    }
    for (file_len, memory_len, align) in [
        (16, 200, 64),
        (0, 8, 8),
        (1, 1, 1),
        (100, 100, 4096),
        (300, 900, 0),
        (24, 64, 16384),
        (0, 0, 8),
        (5, 9, 2 << 20),
        (9000, 20_000, 32),
    ] {
        let len = u64::next_multiple_of(memory_len, align.max(1)).min(30_000) as usize;
        let bytes = with_storage(file_len, memory_len, align, len as u64).execution().output()?;
        same!(bytes.len(), 8 + len + 64);
        let pointer = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
        same!(pointer % align.max(1), 0);
        let block = &bytes[8..];
        same!(u64::from_le_bytes(block[len..len + 8].try_into().expect("eight")), pointer);
        ensure!(block[len + 8..].iter().all(|byte| *byte == 0));
        let start = len as i64 - u64::next_multiple_of(memory_len, align.max(1)) as i64;
        for (index, byte) in block[..len].iter().enumerate() {
            let within = index as i64 - start;
            let wanted = if (0..file_len as i64).contains(&within) { (within % 255 + 1) as u8 } else { 0 };
            if *byte != wanted {
                return Err(format!("{file_len} of {memory_len}, aligned to {align}: byte {index} is {byte}"));
            }
        }
    }
    // Storage that makes no sense is an error.
    for elf in [with_storage(16, 8, 8, 0), with_storage(16, 32, 24, 0), with_storage(16, 1 << 60, 8, 0)] {
        same!(elf.execution().end(), End::Refused(libc::ENOEXEC));
    }
    Ok(())
}

fn limit_stack(kib: u64) {
    let limit = libc::rlimit { rlim_cur: kib << 10, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) };
}

fn the_stack_grows() -> Outcome {
    for kib in [256, 1024, 8192, 20_000] {
        let text = Execution::role("deep").before(move || limit_stack(kib)).text()?;
        let used = number(&text, "used")?;
        ensure!(used <= kib && used + 200 >= kib);
        same!(value(&text, "code")?, "1");
        same!(value(&text, "just below")?, "true");
    }
    case_in_child(|| {
        limit_stack(8192);
        let text = Execution::role("places").text()?;
        let area = value(&text, "stack area")?;
        let (from, to) = area.split_once(' ').and_then(|(range, _)| range.split_once('-')).ok_or("no range")?;
        let at = |text| u64::from_str_radix(text, 16).map_err(|_| "no address");
        // What is not used is not there.
        ensure!(at(to)? - at(from)? < 512 << 10);
        ensure!(area.contains("rw-p"));
        Ok(())
    })
}

fn the_stack_is_not_for_code() -> Outcome {
    same!(Execution::role("stack-code").end(), End::Killed(libc::SIGSEGV));
    Ok(())
}
