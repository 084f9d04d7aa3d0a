//! Puts the symbol table for backtraces into a linked kernel.
//!
//! The table (its format stands in the kernel's `src/symbols.rs`) can only be made when all addresses are final, and it must not move
//! any. So the linker script puts a header without entries into the last segment, and this file, after the link, appends the real table
//! to the ELF file and points that segment at it.
//!
//! Next: `kernel.rs`, the caller.

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use elf::endian::LittleEndian;
use std::collections::BTreeMap;

const SECTION: &str = ".rouse.symbols";
const MAGIC: &[u8; 8] = b"ROUSESYM";
const HEADER_SIZE: usize = 16;
const BASE: u64 = 0xffff_ffff_8000_0000;
const PAGE: usize = 4096;
/// Longer names are cut: generic ones can run to kilobytes.
const NAME_MAX: usize = 160;

/// The kernel's bytes, with the table.
///
/// # Errors
/// It is not an ELF file with a symbol table and the section for ours.
pub fn fill(linked: &[u8]) -> Result<Vec<u8>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(linked).context("the kernel is not an ELF file")?;
    let table = table(&functions(&file)?);
    let (section, names) = file.section_headers_with_strtab()?;
    let (section, names) = section.zip(names).context("the kernel has no sections")?;
    let index = section
        .iter()
        .position(|header| names.get(header.sh_name as usize).is_ok_and(|name| name == SECTION))
        .with_context(|| format!("the kernel has no section {SECTION}"))?;
    let address = section.get(index)?.sh_addr;
    let segments = file.segments().context("the kernel has no segments")?;
    let segment = segments
        .iter()
        .position(|header| header.p_type == PT_LOAD && header.p_vaddr == address)
        .with_context(|| format!("no segment begins with {SECTION}"))?;
    let is_last = segments.iter().all(|header| header.p_type != PT_LOAD || header.p_vaddr <= address);
    ensure!(is_last, "{SECTION} is not the last segment, so it cannot grow");

    let mut out = linked.to_vec();
    out.resize(out.len().next_multiple_of(PAGE), 0);
    let (offset, size) = (out.len() as u64, table.len() as u64);
    out.extend(table);
    // Elf64_Phdr: p_offset at 8, p_filesz at 32, p_memsz at 40; 56 bytes. Elf64_Shdr: sh_offset at 24, sh_size at 32; 64 bytes.
    let segment = file.ehdr.e_phoff as usize + 56 * segment;
    let section = file.ehdr.e_shoff as usize + 64 * index;
    for (at, value) in [
        (segment + 8, offset),
        (segment + 32, size),
        (segment + 40, size),
        (section + 24, offset),
        (section + 32, size),
    ] {
        out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    Ok(out)
}

/// Names of the functions by address; of several at one address the shortest.
fn functions(file: &ElfBytes<'_, LittleEndian>) -> Result<BTreeMap<u64, String>> {
    let (symbols, names) = file.symbol_table()?.context("the kernel has no symbol table")?;
    let sections = file.section_headers().context("the kernel has no sections")?;
    let is_code =
        |index: u16| sections.get(index.into()).is_ok_and(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0);
    let mut functions = BTreeMap::<u64, String>::new();
    for symbol in symbols.iter() {
        let name = names.get(symbol.st_name as usize).unwrap_or("");
        let is_function = matches!(symbol.st_symtype(), STT_FUNC | STT_NOTYPE) && is_code(symbol.st_shndx);
        if !is_function || symbol.st_value < BASE || name.is_empty() || name.starts_with('.') {
            continue;
        }
        let name = readable(name);
        functions
            .entry(symbol.st_value)
            .and_modify(|known| {
                if name.len() < known.len() {
                    known.clone_from(&name);
                }
            })
            .or_insert(name);
    }
    Ok(functions)
}

fn readable(name: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    if name.len() > NAME_MAX {
        let cut = (0..=NAME_MAX).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(cut);
        name.push('…');
    }
    name
}

fn table(functions: &BTreeMap<u64, String>) -> Vec<u8> {
    let first_name = HEADER_SIZE + 8 * functions.len();
    let mut entries = Vec::new();
    let mut names = Vec::new();
    let mut known = BTreeMap::new();
    for (address, name) in functions {
        let at = *known.entry(name).or_insert_with(|| {
            let at = first_name + names.len();
            names.push(name.len() as u8);
            names.extend(name.bytes());
            at
        });
        entries.extend(((address - BASE) as u32).to_le_bytes());
        entries.extend((at as u32).to_le_bytes());
    }
    let mut table = MAGIC.to_vec();
    table.extend(((first_name + names.len()) as u32).to_le_bytes());
    table.extend((functions.len() as u32).to_le_bytes());
    table.extend(entries);
    table.extend(names);
    table
}

#[cfg(test)]
#[allow(dead_code, reason = "the kernel's side of the format; not all of it is used here")]
#[path = "../../src/symbols.rs"]
mod kernel_side;

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_side::{EMPTY, Symbols};

    fn named(functions: &[(u64, &str)]) -> BTreeMap<u64, String> {
        functions.iter().map(|&(offset, name)| (BASE + offset, name.to_owned())).collect()
    }

    #[test]
    fn the_kernel_finds_what_was_put_in() {
        let bytes =
            table(&named(&[(0x10_0000, "boot"), (0x10_0100, "drop"), (0x10_0200, "main"), (0x10_0300, "drop")]));
        let symbols = Symbols::new(&bytes);
        let name_at = |offset| symbols.find(BASE + offset).map(|symbol| symbol.name.to_owned());
        assert_eq!(name_at(0x10_00ff).as_deref(), Some("boot"));
        assert_eq!(name_at(0x10_02ff).as_deref(), Some("main"));
        assert_eq!(name_at(0x10_0100), name_at(0x10_0300));
        assert_eq!(kernel_side::stated_length(&bytes), Some(bytes.len()));
    }

    #[test]
    fn names_are_demangled_and_cut() {
        assert_eq!(readable("_ZN5rouse5panic9backtrace17h0123456789abcdefE"), "rouse::panic::backtrace");
        let long = readable(&"ä".repeat(500));
        assert!(long.len() <= NAME_MAX + '…'.len_utf8() && long.ends_with('…'));
    }

    /// An ELF file with one function `f` in `.text`, and our section in a segment of its own.
    fn linked() -> Vec<u8> {
        let section_names = b"\0.text\0.rouse.symbols\0.symtab\0.strtab\0";
        let mut out = vec![0; 64 + 56];
        let mut put = |bytes: &[u8]| {
            let at = out.len() as u64;
            out.extend(bytes);
            at
        };
        let names = put(section_names);
        let strings = put(b"\0f\0");
        let mut symbol = vec![0; 24];
        symbol.extend([1, 0, 0, 0, STT_FUNC, 0, 1, 0]);
        symbol.extend((BASE + 0x10_0000).to_le_bytes());
        symbol.extend([0; 8]);
        let symbols = put(&symbol);
        let ours = put(&EMPTY);
        let mut headers = vec![0; 64];
        let sections = [
            (1_u32, 1_u32, 6_u64, BASE + 0x10_0000, 0_u64, 0_u64, 0_u32, 0_u64),
            (7, 1, 2, BASE + 0x20_0000, ours, 16, 0, 0),
            (22, 2, 0, 0, symbols, 48, 4, 24),
            (30, 3, 0, 0, strings, 3, 0, 0),
            (30, 3, 0, 0, names, section_names.len() as u64, 0, 0),
        ];
        for (name, kind, flags, address, offset, size, link, entry) in sections {
            headers.extend(name.to_le_bytes());
            headers.extend(kind.to_le_bytes());
            [flags, address, offset, size].iter().for_each(|word| headers.extend(word.to_le_bytes()));
            headers.extend(link.to_le_bytes());
            headers.extend([0; 4]);
            headers.extend(1_u64.to_le_bytes());
            headers.extend(entry.to_le_bytes());
        }
        let header_offset = put(&headers);
        out[..20].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0]);
        out[20] = 1;
        out[32..40].copy_from_slice(&64_u64.to_le_bytes());
        out[40..48].copy_from_slice(&header_offset.to_le_bytes());
        out[52..64].copy_from_slice(&[64, 0, 56, 0, 1, 0, 64, 0, 6, 0, 5, 0]);
        out[64..72].copy_from_slice(&[1, 0, 0, 0, 4, 0, 0, 0]);
        out[72..80].copy_from_slice(&ours.to_le_bytes());
        out[80..88].copy_from_slice(&(BASE + 0x20_0000).to_le_bytes());
        out[96..104].copy_from_slice(&16_u64.to_le_bytes());
        out[104..112].copy_from_slice(&16_u64.to_le_bytes());
        out
    }

    #[test]
    fn the_segment_of_a_linked_kernel_grows_to_hold_the_table() {
        let out = fill(&linked()).expect("a kernel with room");
        let file = ElfBytes::<LittleEndian>::minimal_parse(&out).expect("still an ELF file");
        let segment = file.segments().expect("segments").get(0).expect("one");
        assert_eq!(segment.p_offset % 4096, 0);
        assert_eq!(segment.p_filesz, segment.p_memsz);
        let table = file.segment_data(&segment).expect("inside the file");
        let symbol = Symbols::new(table).find(BASE + 0x10_0007).expect("in the function");
        assert_eq!((symbol.name, symbol.offset), ("f", 7));
        let section = file.section_header_by_name(SECTION).expect("sections").expect("ours");
        assert_eq!((section.sh_offset, section.sh_size), (segment.p_offset, segment.p_filesz));
    }

    #[test]
    fn a_file_without_the_section_is_refused() {
        assert!(fill(b"not an ELF file").is_err());
        let mut other = linked();
        let at = other.windows(14).position(|window| window == b".rouse.symbols").expect("its name");
        other[at + 1] = b'm';
        assert!(fill(&other).is_err());
    }
}
