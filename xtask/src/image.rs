//! `cargo run -- image`: one file for USB sticks and CDs, for BIOS and UEFI, with GRUB as the loader (Multiboot2).
//!
//! ```text
//! boot/rouse          the kernel, without what only a debugger wants
//! boot/initrd         the root, as for QEMU
//! boot/grub/grub.cfg  one entry, started at once
//! ```

use crate::kernel;
use crate::machine::Options;
use crate::packages::{self, run_quietly};
use crate::root::{Addition, Root};
use crate::{paths, progress};
use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::{PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// GRUB has 280 modules; these are what one menu entry needs under either firmware, and the partition tables that grub-mkrescue's
/// own start-up script asks for by name.
const MODULES: &str = "multiboot2 normal fat iso9660 search search_label all_video gfxterm video_fb \
    part_acorn part_amiga part_apple part_bsd part_dfly part_dvh part_gpt part_msdos part_plan part_sun part_sunpc";

/// Makes the image that a person asked for.
///
/// # Errors
/// A tool or a part of the image is missing and cannot be provided.
pub fn run(options: &Options, output: &Path) -> Result<()> {
    let kernel = kernel::build(Options { optimized: true, ..options.clone() }.profile())?;
    let root = Root::named(&options.root, &options.packages)?;
    let additions: Vec<_> = options.add.iter().map(|text| Addition::parse(text)).collect();
    let prepared = root.prepare(&additions, false, options.verbose)?;
    if prepared.disk.is_some() {
        bail!("an image carries its root in memory: --root busybox, with --add for more");
    }
    let log = if options.verbose { "loglevel=7" } else { "quiet" };
    let line = format!("console=ttyS0 console=tty0 {log} {}", options.append.join(" "));
    progress::step("making the image");
    make(&kernel, &prepared.initrd, line.trim(), output)?;
    let size = output.metadata()?.len() >> 20;
    progress::step(&format!("{}: {size} MiB; write it to a stick with: dd if={0} of=/dev/… bs=4M", output.display()));
    Ok(())
}

/// An image of exactly this kernel, root and command line, made once.
///
/// # Errors
/// As [`run`].
pub fn cached(kernel: &Path, initrd: &Path, line: &str) -> Result<PathBuf> {
    const KEPT: usize = 6;
    let mut hasher = DefaultHasher::new();
    (std::fs::read(kernel)?, std::fs::read(initrd)?, line).hash(&mut hasher);
    let folder = paths::made("image")?;
    let image = folder.join(format!("{:016x}.iso", hasher.finish()));
    if !image.exists() {
        let draft = paths::draft_of(&image);
        make(kernel, initrd, line, &draft)?;
        std::fs::rename(draft, &image)?;
        paths::keep_newest(&folder, KEPT)?;
    }
    Ok(image)
}

fn make(kernel: &Path, initrd: &Path, line: &str, output: &Path) -> Result<()> {
    packages::ensure(&packages::IMAGE)?;
    let folder = paths::draft_of(&paths::made("run")?.join("image"));
    std::fs::create_dir_all(folder.join("boot/grub"))?;
    std::fs::write(folder.join("boot/rouse"), loadable(&std::fs::read(kernel)?)?)?;
    std::fs::copy(initrd, folder.join("boot/initrd"))?;
    let configuration = format!(
        "set timeout=0\nset gfxpayload=keep\ninsmod all_video\nmenuentry Rouse {{\n  \
         multiboot2 /boot/rouse {line}\n  module2 /boot/initrd initrd\n}}\n"
    );
    std::fs::write(folder.join("boot/grub/grub.cfg"), configuration)?;
    let mut make = Command::new("grub-mkrescue");
    make.args(["--compress=xz", "--fonts=", "--locales=", "--themes="]);
    make.arg(format!("--install-modules={MODULES}")).arg("-o").arg(output).arg(&folder);
    let made = run_quietly(&mut make);
    std::fs::remove_dir_all(&folder)?;
    made.map(drop)
}

/// What a loader reads of an ELF file: its segments, without symbols, sections and debugging information.
///
/// # Errors
/// It is no ELF file.
pub fn loadable(kernel: &[u8]) -> Result<Vec<u8>> {
    const PAGE: usize = 4096;
    const PROGRAM_HEADER: usize = 56;
    const OFFSET_IN_PROGRAM_HEADER: usize = 8;
    let file = ElfBytes::<LittleEndian>::minimal_parse(kernel).context("the kernel is no ELF file")?;
    let headers_at = usize::try_from(file.ehdr.e_phoff)?;
    let segments: Vec<_> = file.segments().context("the kernel has no segments")?.iter().collect();
    let headers_end = headers_at + segments.len() * PROGRAM_HEADER;
    let mut small = kernel.get(..headers_end).context("the kernel's headers are cut")?.to_vec();
    // No section headers: e_shoff, and e_shentsize, e_shnum, e_shstrndx.
    small[40..48].fill(0);
    small[58..64].fill(0);
    let mut moved: Vec<(u64, usize)> = Vec::new();
    for (index, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.p_type == PT_LOAD) {
        let content = file.segment_data(segment)?;
        // An offset stays congruent with its address, as the format demands.
        let start = small.len().next_multiple_of(PAGE) + usize::try_from(segment.p_vaddr)? % PAGE;
        small.resize(start, 0);
        small.extend(content);
        moved.push((segment.p_offset, start));
        set_offset(&mut small, headers_at + index * PROGRAM_HEADER + OFFSET_IN_PROGRAM_HEADER, start);
    }
    for (index, note) in segments.iter().enumerate().filter(|(_, segment)| segment.p_type == PT_NOTE) {
        // A note lies within one of the segments above.
        let holder = segments.iter().filter(|segment| segment.p_type == PT_LOAD);
        let holder = holder
            .zip(&moved)
            .find(|(segment, _)| (segment.p_offset..segment.p_offset + segment.p_filesz).contains(&note.p_offset));
        let (_, &(old, new)) = holder.context("a note outside all segments")?;
        let start = new + usize::try_from(note.p_offset - old)?;
        set_offset(&mut small, headers_at + index * PROGRAM_HEADER + OFFSET_IN_PROGRAM_HEADER, start);
    }
    ensure!(small.len() <= kernel.len() + segments.len() * 2 * PAGE, "the copy grew");
    Ok(small)
}

fn set_offset(file: &mut [u8], at: usize, offset: usize) {
    file[at..at + 8].copy_from_slice(&(offset as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_stays_the_same_without_sections() {
        let program = std::fs::read(std::env::current_exe().expect("a test is a program")).expect("it can be read");
        let small = loadable(&program).expect("it is an ELF file");
        assert!(small.len() < program.len());
        let contents = |bytes: &[u8]| -> Vec<(u64, Vec<u8>)> {
            let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).expect("it is an ELF file");
            let segments = file.segments().expect("it has segments").iter();
            let kept = segments.filter(|segment| matches!(segment.p_type, PT_LOAD | PT_NOTE));
            kept.map(|segment| (segment.p_vaddr, file.segment_data(&segment).expect("within the file").to_vec()))
                .collect()
        };
        // The first segment of an ordinary program holds the ELF header itself, which is changed: compare the others.
        let (before, after) = (contents(&program), contents(&small));
        assert_eq!(before.len(), after.len());
        assert!(before.iter().zip(&after).skip(2).filter(|(b, _)| b.0 > 4096).all(|(b, a)| b == a));
    }
}
