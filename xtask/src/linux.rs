//! Debian's Linux, unpacked and never installed: the oracle that every test is compared with.

use crate::packages;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What init's channels, disks and roots need; what these need in turn is looked up.
const WANTED: [&str; 6] = ["virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "ext4", "overlay"];

/// What Linux asks for by alias and not as a dependency.
const ASKED_FOR_BY_NAME: [&str; 2] = ["crc32c_generic", "crc32c-intel"];

/// An unpacked Linux.
#[derive(Clone, Debug)]
pub struct Linux {
    /// The bzImage.
    pub image: PathBuf,
    /// The folder `lib/modules/<version>`.
    modules: PathBuf,
}

/// Downloads and unpacks Debian's current Linux, unless that was done before.
///
/// # Errors
/// There is no apt, or no network the first time.
pub fn unpacked() -> Result<Linux> {
    let chosen = crate::paths::made("packages")?.join("linux-version");
    let package = match std::fs::read_to_string(&chosen) {
        Ok(package) => package,
        Err(_) => {
            let package = packages::dependency("linux-image-amd64", "linux-image-")?;
            crate::paths::write_whole(&chosen, package.as_bytes())?;
            package
        }
    };
    let folder = packages::unpacked(&package)?;
    let version = package.trim_start_matches("linux-image-");
    let image = folder.join("boot").join(format!("vmlinuz-{version}"));
    let modules = ["lib/modules", "usr/lib/modules"].iter().map(|path| folder.join(path).join(version));
    let modules = modules.into_iter().find(|path| path.exists()).context("the package has no modules")?;
    Ok(Linux { image, modules })
}

impl Linux {
    /// The module files that the guest loads, each after what it needs.
    ///
    /// # Errors
    /// A module lies about its dependencies, or cannot be read.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut files = BTreeMap::new();
        collect(&self.modules.join("kernel"), &mut files)?;
        let mut order = Vec::new();
        for name in ASKED_FOR_BY_NAME.iter().chain(&WANTED) {
            // What is built into the image, or was dropped from a later Linux, is no file.
            visit(&name.replace('-', "_"), &files, &mut order)?;
        }
        Ok(order)
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some(name) = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn visit(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    let Some(path) = files.get(name) else { return Ok(()) };
    if order.contains(path) {
        return Ok(());
    }
    for needed in dependencies(&read(path)?) {
        visit(&needed.replace('-', "_"), files, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// A module's content, unpacked.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let content = std::fs::read(path).with_context(|| path.display().to_string())?;
    if path.extension().is_some_and(|end| end == "xz") {
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut lzma_rust2::XzReader::new(content.as_slice(), true), &mut unpacked)?;
        return Ok(unpacked);
    }
    Ok(content)
}

/// The names in a module's `depends=` line (section `.modinfo`: strings that end in NUL).
fn dependencies(module: &[u8]) -> Vec<String> {
    let file = elf::ElfBytes::<elf::endian::AnyEndian>::minimal_parse(module).ok();
    let section = file.and_then(|file| {
        let header = file.section_header_by_name(".modinfo").ok()??;
        Some(file.section_data(&header).ok()?.0)
    });
    let depends = section.unwrap_or_default().split(|&byte| byte == 0).find_map(|line| line.strip_prefix(b"depends="));
    let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    depends.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
