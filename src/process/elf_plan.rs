//! What an ELF file asks for: its headers, checked, as a plan to load it by.
//!
//! The `elf` crate takes the bytes apart; the checks are here. A plan that comes out is safe to carry out: every number in it
//! was checked against the others, against overflow, and against the user half of the address space.
//!
//! Reading the file is the caller's: the first page is enough for most, and [`Header`] says what else is wanted.

use alloc::vec::Vec;
use core::ops::Range;

use crate::mm::MakeRoom;
use abi::{Errno, Result};
use elf::abi as elf_abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;

/// Bytes of an ELF64 header.
pub const HEADER_LEN: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER_LEN: u64 = 56;
/// The longest table of program headers, as Linux has it.
const TABLE_MAX: u64 = 65_536;
/// The longest path of an interpreter, with its NUL.
const INTERPRETER_MAX: u64 = 4096;
/// The strictest alignment of thread-local storage: more would be room thrown away.
const TLS_ALIGNMENT_MAX: u64 = 1 << 30;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// One past the highest user address.
const USER_END: u64 = crate::arch::user_context::USER_END;

/// What the file header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether it can be loaded anywhere (ET_DYN) rather than at its own addresses (ET_EXEC).
    pub is_relocatable: bool,
    /// Where it begins to run.
    entry: u64,
    /// Where the table of program headers lies in the file.
    pub table_offset: u64,
    /// How many there are.
    pub table_count: u16,
}

impl Header {
    /// Takes the first bytes of a file.
    ///
    /// # Errors
    ///
    /// `ENOEXEC`: not an ELF64 program for x86-64 that this kernel can execute.
    pub fn parse(file: &[u8]) -> Result<Header> {
        let header = file.get(..HEADER_LEN).ok_or(Errno::ENOEXEC)?;
        let identity =
            elf::file::parse_ident::<LittleEndian>(&header[..elf_abi::EI_NIDENT]).map_err(|_| Errno::ENOEXEC)?;
        let header = FileHeader::parse_tail(identity, &header[elf_abi::EI_NIDENT..]).map_err(|_| Errno::ENOEXEC)?;
        let is_relocatable = match header.e_type {
            elf_abi::ET_EXEC => false,
            elf_abi::ET_DYN => true,
            _ => return Err(Errno::ENOEXEC),
        };
        let is_for_us = header.class == Class::ELF64 && header.e_machine == elf_abi::EM_X86_64;
        let has_table = u64::from(header.e_phentsize) == PROGRAM_HEADER_LEN && header.e_phnum != 0;
        if !is_for_us || !has_table || u64::from(header.e_phnum) * PROGRAM_HEADER_LEN > TABLE_MAX {
            return Err(Errno::ENOEXEC);
        }
        header.e_phoff.checked_add(TABLE_MAX).ok_or(Errno::ENOEXEC)?;
        Ok(Header { is_relocatable, entry: header.e_entry, table_offset: header.e_phoff, table_count: header.e_phnum })
    }

    /// How long the table of program headers is, in bytes.
    pub fn table_len(&self) -> usize {
        usize::from(self.table_count) * PROGRAM_HEADER_LEN as usize
    }
}

/// A part of the file that is to be in memory. Addresses are the file's own; of a relocatable one they count from its base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it begins.
    pub address: u64,
    /// How long it is in memory; what the file does not give is zero.
    pub memory_len: u64,
    /// Where it lies in the file. In step with `address` by pages.
    pub offset: u64,
    /// How much of it the file gives.
    pub file_len: u64,
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

/// Thread-local storage that every thread starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadLocal {
    /// Where its initial content lies in the file.
    pub offset: u64,
    /// How much of it the file gives.
    pub file_len: u64,
    /// How long it is.
    pub memory_len: u64,
    /// Its alignment: a power of two.
    pub alignment: u64,
}

/// How a program is to be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whether it can be loaded anywhere.
    pub is_relocatable: bool,
    /// Where it begins to run.
    pub entry: u64,
    /// What is loaded, in the order of the file.
    pub segments: Vec<Segment>,
    /// Where the path of its interpreter lies in the file, with its NUL.
    pub interpreter: Option<Range<u64>>,
    /// Its thread-local storage.
    pub thread_local: Option<ThreadLocal>,
    /// It asks for a stack that can be executed.
    pub stack_is_executable: bool,
    /// Where its program headers are in memory once it is loaded.
    pub table_address: u64,
    /// How many there are.
    pub table_count: u16,
}

impl Plan {
    /// Takes the table of program headers.
    ///
    /// # Errors
    ///
    /// `ENOEXEC`: numbers that overflow or contradict each other, nothing to load, or two interpreters. `ENOMEM`: addresses that no
    /// program may have.
    pub fn new(header: Header, table: &[u8]) -> Result<Plan> {
        let mut plan = Plan {
            is_relocatable: header.is_relocatable,
            entry: header.entry,
            segments: Vec::new(),
            interpreter: None,
            thread_local: None,
            stack_is_executable: false,
            table_address: 0,
            table_count: header.table_count,
        };
        for header in ParsingTable::<LittleEndian, ProgramHeader>::new(LittleEndian, Class::ELF64, table).iter() {
            plan.add(&header)?;
        }
        if plan.segments.is_empty() || plan.span().is_none() {
            return Err(Errno::ENOEXEC);
        }
        plan.table_address = plan.address_of_offset(header.table_offset);
        Ok(plan)
    }

    fn add(&mut self, header: &ProgramHeader) -> Result<()> {
        match header.p_type {
            elf_abi::PT_LOAD => self.add_segment(header),
            elf_abi::PT_INTERP => self.add_interpreter(header),
            elf_abi::PT_TLS => self.add_thread_local(header),
            elf_abi::PT_GNU_STACK => {
                self.stack_is_executable = header.p_flags & elf_abi::PF_X != 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add_segment(&mut self, header: &ProgramHeader) -> Result<()> {
        if header.p_memsz == 0 {
            return Ok(());
        }
        let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(Errno::ENOEXEC)?;
        let file_end = header.p_offset.checked_add(header.p_filesz).ok_or(Errno::ENOEXEC)?;
        let in_step = header.p_vaddr % PAGE == header.p_offset % PAGE;
        let too_far = i64::try_from(file_end).is_err();
        if header.p_filesz > header.p_memsz || !in_step || too_far {
            return Err(Errno::ENOEXEC);
        }
        if end > USER_END {
            return Err(Errno::ENOMEM);
        }
        self.segments.make_room(1)?;
        self.segments.push(Segment {
            address: header.p_vaddr,
            memory_len: header.p_memsz,
            offset: header.p_offset,
            file_len: header.p_filesz,
            read: header.p_flags & elf_abi::PF_R != 0,
            write: header.p_flags & elf_abi::PF_W != 0,
            execute: header.p_flags & elf_abi::PF_X != 0,
        });
        Ok(())
    }

    fn add_interpreter(&mut self, header: &ProgramHeader) -> Result<()> {
        let end = header.p_offset.checked_add(header.p_filesz).ok_or(Errno::ENOEXEC)?;
        let is_path = (2..=INTERPRETER_MAX).contains(&header.p_filesz);
        if self.interpreter.is_some() || !is_path || i64::try_from(end).is_err() {
            return Err(Errno::ENOEXEC);
        }
        self.interpreter = Some(header.p_offset..end);
        Ok(())
    }

    fn add_thread_local(&mut self, header: &ProgramHeader) -> Result<()> {
        let alignment = header.p_align.max(1);
        let file_end = header.p_offset.checked_add(header.p_filesz);
        let is_sane = file_end.is_some_and(|end| i64::try_from(end).is_ok())
            && header.p_filesz <= header.p_memsz
            && header.p_memsz < USER_END
            && alignment.is_power_of_two()
            && alignment <= TLS_ALIGNMENT_MAX;
        if !is_sane {
            return Err(Errno::ENOEXEC);
        }
        self.thread_local = Some(ThreadLocal {
            offset: header.p_offset,
            file_len: header.p_filesz,
            memory_len: header.p_memsz,
            alignment,
        });
        Ok(())
    }

    /// From the first page of the lowest segment to the last of the highest. `None` if that is not a range of user addresses.
    pub fn span(&self) -> Option<Range<u64>> {
        let start = self.segments.iter().map(|segment| segment.address & !(PAGE - 1)).min()?;
        let end = self.segments.iter().filter_map(|segment| segment.address.checked_add(segment.memory_len)).max()?;
        let end = end.checked_next_multiple_of(PAGE)?;
        (end <= USER_END).then_some(start..end)
    }

    /// Whether a file of this length has all pages that the plan takes from it. (The last page may be cut: the rest of it is zero.)
    pub fn fits_file(&self, len: u64) -> bool {
        let pages = len.next_multiple_of(PAGE);
        let ends = self.segments.iter().map(|segment| (segment.offset, segment.file_len));
        let ends = ends.chain(self.thread_local.iter().map(|storage| (storage.offset, storage.file_len)));
        ends.filter(|(_, file_len)| *file_len > 0).all(|(offset, file_len)| offset + file_len <= pages)
    }

    /// Where a byte of the file is in memory; 0 if it is not loaded.
    fn address_of_offset(&self, offset: u64) -> u64 {
        let holds = |segment: &&Segment| segment.offset <= offset && offset - segment.offset < segment.file_len;
        self.segments.iter().find(holds).map_or(0, |segment| segment.address + (offset - segment.offset))
    }
}

/// The path in the bytes of a PT_INTERP: without its NUL.
///
/// # Errors
///
/// `ENOEXEC`: empty, or not ended by a NUL.
pub fn interpreter_path(bytes: &[u8]) -> Result<&[u8]> {
    let path = bytes.strip_suffix(b"\0").ok_or(Errno::ENOEXEC)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    if path.is_empty() { Err(Errno::ENOEXEC) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn plan_of(file: &[u8]) -> Result<Plan> {
        let header = Header::parse(file)?;
        let start = usize::try_from(header.table_offset).map_err(|_| Errno::ENOEXEC)?;
        let end = start.checked_add(header.table_len()).ok_or(Errno::ENOEXEC)?;
        Plan::new(header, file.get(start..end).ok_or(Errno::ENOEXEC)?)
    }

    fn this_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_real_program_has_a_plan() {
        let file = this_program();
        let plan = plan_of(&file).unwrap();
        assert!(plan.is_relocatable && plan.segments.len() >= 2 && plan.table_address == 64);
        let path = plan.interpreter.clone().unwrap();
        let path = interpreter_path(&file[path.start as usize..path.end as usize]).unwrap();
        assert_eq!(path, b"/lib64/ld-linux-x86-64.so.2");
        assert!(plan.thread_local.is_some() && !plan.stack_is_executable);
        assert!(plan.segments.iter().any(|segment| segment.execute && !segment.write));
    }

    /// The same numbers in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            self.next() as usize % bound
        }

        /// A number of the kind that breaks arithmetic.
        fn nasty(&mut self) -> u64 {
            let edge = [0, 1, 0x7f, 0xfff, 0x1000, USER_END, i64::MAX as u64, 1 << 63, u64::MAX][self.below(9)];
            edge.wrapping_add(self.next() % 5).wrapping_sub(2)
        }
    }

    /// What the machine that runs the tests has of programs and libraries, the first bytes of each, and how long it is.
    fn real_files() -> Vec<(Vec<u8>, u64)> {
        let exe = std::env::current_exe().unwrap();
        let others = [
            "/bin/true",
            "/bin/sh",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/sbin/ldconfig",
        ];
        let files = others.iter().map(std::path::PathBuf::from).chain([exe]);
        let mut found: Vec<_> = files.filter_map(|path| std::fs::read(path).ok()).collect();
        found.retain(|file| plan_of(file).is_ok());
        found.into_iter().map(|file| (file[..4096].to_vec(), file.len() as u64)).collect()
    }

    /// All that `load.rs` counts on, counted.
    fn check(plan: &Plan, file_len: u64) {
        let span = plan.span().unwrap();
        assert!(span.start < span.end && span.end <= USER_END && span.start.is_multiple_of(PAGE));
        assert!(plan.segments.len() <= usize::from(plan.table_count));
        assert!(plan.segments.capacity() <= 2 * usize::from(plan.table_count) + 4, "memory is bounded by the table");
        let fits = plan.fits_file(file_len);
        for segment in &plan.segments {
            assert!(segment.file_len <= segment.memory_len && segment.memory_len > 0);
            assert_eq!(segment.address % PAGE, segment.offset % PAGE);
            assert!(segment.address + segment.memory_len <= USER_END);
            let end = segment.offset.checked_add(segment.file_len).unwrap();
            assert!(!fits || segment.file_len == 0 || end <= file_len.next_multiple_of(PAGE));
        }
        if let Some(path) = &plan.interpreter {
            assert!((2..=INTERPRETER_MAX).contains(&(path.end - path.start)));
        }
        if let Some(storage) = plan.thread_local {
            assert!(storage.alignment.is_power_of_two() && storage.file_len <= storage.memory_len);
            let below = storage.memory_len.next_multiple_of(storage.alignment.max(16));
            assert!(below.checked_add(2 * TLS_ALIGNMENT_MAX).is_some());
        }
    }

    #[test]
    fn damaged_headers_are_refused_or_make_a_plan_that_can_be_carried_out() {
        let files = real_files();
        assert!(!files.is_empty());
        let mut random = Random(0x1234_5678_9abc_def0);
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..400_000 {
            let (original, file_len) = &files[random.below(files.len())];
            let mut file = original.clone();
            let headers = HEADER_LEN + usize::from(Header::parse(original).unwrap().table_count) * 56;
            for _ in 0..=random.below(4) {
                match random.below(4) {
                    0 => file[random.below(headers)] = random.next() as u8,
                    1 => file[random.below(headers)] ^= 1 << random.below(8),
                    // A whole field: the headers' are all multiples of two bytes from their beginning.
                    2 => {
                        let at = random.below(headers / 8 - 1) * 8;
                        file[at..at + 8].copy_from_slice(&random.nasty().to_le_bytes());
                    }
                    _ => {
                        let at = random.below(headers / 2) * 2;
                        file[at..at + 2].copy_from_slice(&(random.nasty() as u16).to_le_bytes());
                    }
                }
            }
            if round % 16 == 0 {
                file.truncate(random.below(headers + 64));
            }
            match plan_of(&file) {
                Ok(plan) => {
                    accepted += 1;
                    check(&plan, if round % 3 == 0 { random.nasty() >> 1 } else { *file_len });
                    let path = plan.interpreter.clone().unwrap_or_default();
                    if let Some(bytes) = file.get(path.start as usize..path.end as usize) {
                        let _ = interpreter_path(bytes).map(|path| assert!(!path.contains(&0)));
                    }
                }
                Err(errno) => {
                    refused += 1;
                    assert!(matches!(errno, Errno::ENOEXEC | Errno::ENOMEM));
                }
            }
        }
        assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
    }

    #[test]
    fn a_file_that_lacks_pages_does_not_fit_its_plan() {
        let file = this_program();
        let plan = plan_of(&file).unwrap();
        assert!(plan.fits_file(file.len() as u64));
        let needed = plan.segments.iter().map(|segment| segment.offset + segment.file_len).max().unwrap();
        assert!(plan.fits_file(needed) && plan.fits_file((needed - 1) / PAGE * PAGE + 1));
        assert!(!plan.fits_file((needed - 1) / PAGE * PAGE) && !plan.fits_file(0));
    }

    #[test]
    fn what_is_not_for_this_machine_is_refused() {
        let file = this_program();
        for (place, value) in [(4, 1), (5, 2), (18, 3), (16, 1), (54, 55), (56, 0)] {
            let mut other = file[..4096].to_vec();
            other[place] = value;
            if place == 56 {
                other[57] = 0;
            }
            assert_eq!(plan_of(&other), Err(Errno::ENOEXEC), "byte {place}");
        }
        assert_eq!(plan_of(b"\x7fELF"), Err(Errno::ENOEXEC));
        assert_eq!(plan_of(&vec![0; 4096]), Err(Errno::ENOEXEC));
    }

    #[test]
    fn an_interpreter_path_must_be_ended_and_not_empty() {
        assert_eq!(interpreter_path(b"/a\0"), Ok(&b"/a"[..]));
        assert_eq!(interpreter_path(b"/a"), Err(Errno::ENOEXEC));
        assert_eq!(interpreter_path(b"\0\0"), Err(Errno::ENOEXEC));
        assert_eq!(interpreter_path(b""), Err(Errno::ENOEXEC));
    }
}
