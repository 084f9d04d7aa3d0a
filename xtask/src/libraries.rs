//! The shared libraries that a program of the host needs, so that `--add` can bring them along.
//!
//! What is needed stands in the file (PT_INTERP and DT_NEEDED); where it is, the dynamic linker's search order says: DT_RPATH or
//! DT_RUNPATH, `/etc/ld.so.conf`'s folders, then the default ones.

use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, PT_INTERP};
use elf::endian::AnyEndian;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DEFAULT_FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The interpreter and every library that `program` needs, directly or not; nothing for a script or a static program.
///
/// # Errors
/// A file cannot be read, or a library is not on this host.
pub fn of(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut unread = vec![program.to_owned()];
    while let Some(path) = unread.pop() {
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let needs = needs(&content);
        if let Some(interpreter) = needs.interpreter
            && found.insert(interpreter.clone())
        {
            unread.push(interpreter);
        }
        for name in &needs.libraries {
            let library = locate(name, &needs.folders, &path)
                .with_context(|| format!("{} needs {name}, which is not here", path.display()))?;
            if found.insert(library.clone()) {
                unread.push(library);
            }
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    folders: Vec<String>,
}

fn needs(content: &[u8]) -> Needs {
    let mut needs = Needs::default();
    let Ok(file) = ElfBytes::<AnyEndian>::minimal_parse(content) else { return needs };
    for header in file.segments().into_iter().flatten().filter(|header| header.p_type == PT_INTERP) {
        let data = file.segment_data(&header).unwrap_or_default();
        let path = data.split(|&byte| byte == 0).next().unwrap_or_default();
        needs.interpreter = Some(String::from_utf8_lossy(path).into_owned().into());
    }
    let (Ok(Some(dynamic)), Ok(common)) = (file.dynamic(), file.find_common_data()) else { return needs };
    let Some(strings) = common.dynsyms_strs else { return needs };
    for entry in dynamic {
        let Ok(value) = usize::try_from(entry.d_val()) else { continue };
        let Ok(text) = strings.get(value) else { continue };
        match entry.d_tag {
            DT_NEEDED => needs.libraries.push(text.to_owned()),
            DT_RPATH | DT_RUNPATH => needs.folders.extend(text.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    needs
}

fn locate(name: &str, folders: &[String], needed_by: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into()).filter(|path: &PathBuf| path.exists());
    }
    let origin = needed_by.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let own = folders.iter().map(|folder| folder.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin));
    let all = own.chain(configured_folders()).chain(DEFAULT_FOLDERS.map(str::to_owned));
    all.map(|folder| Path::new(&folder).join(name)).find(|path| path.exists())
}

/// The folders that `/etc/ld.so.conf.d` lists.
fn configured_folders() -> Vec<String> {
    let files = std::fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten();
    let lines = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let lines: Vec<String> = lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.into_iter().map(|line| line.trim().to_owned()).filter(|line| line.starts_with('/')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_brings_its_interpreter_and_the_c_library() {
        let found = of(Path::new("/bin/sh")).expect("every Debian has a shell");
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
        assert!(names.contains(&"libc.so.6"), "{names:?}");
    }

    #[test]
    fn a_file_that_is_no_program_needs_nothing() {
        assert!(of(Path::new("/etc/passwd")).expect("it is readable").is_empty());
    }
}
