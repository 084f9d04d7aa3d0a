//! The root that lives in memory: a tree of files, written as a `newc` cpio archive (as Linux's initramfs).
//!
//! The same tree gives the same bytes: entries are sorted, belong to root, and carry no time.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a path of the tree is.
#[derive(Clone, Debug)]
enum Node {
    Folder,
    File { mode: u32, content: Content },
    Link(Vec<u8>),
    CharacterDevice { major: u32, minor: u32 },
}

#[derive(Clone, Debug)]
enum Content {
    Here(Vec<u8>),
    OnHost(PathBuf),
}

/// A tree of files.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Tree {
    /// Adds a folder, and those above it.
    pub fn folder(&mut self, path: &str) {
        self.put(path.as_bytes(), Node::Folder);
    }

    /// Adds a file with this content.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path.as_bytes(), Node::File { mode, content: Content::Here(content.into()) });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path.as_bytes(), Node::Link(target.as_bytes().to_vec()));
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path.as_bytes(), Node::CharacterDevice { major, minor });
    }

    /// Whether the tree has this path.
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/').as_bytes())
    }

    /// Adds a file or folder of the host, with everything below it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add(&mut self, host: &Path, guest: &[u8]) -> Result<()> {
        let metadata = std::fs::symlink_metadata(host).with_context(|| host.display().to_string())?;
        if metadata.is_dir() {
            self.put(guest, Node::Folder);
            for entry in std::fs::read_dir(host)? {
                let entry = entry?;
                let path = [guest, b"/", entry.file_name().as_bytes()].concat();
                self.add(&entry.path(), &path)?;
            }
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(host)?;
            self.put(guest, Node::Link(target.as_os_str().as_bytes().to_vec()));
        } else if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o7777;
            self.put(guest, Node::File { mode, content: Content::OnHost(host.to_owned()) });
        }
        Ok(())
    }

    fn put(&mut self, path: &[u8], node: Node) {
        let path = path.trim_ascii();
        let trimmed: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        for end in 1..trimmed.len() {
            self.nodes.entry(trimmed[..end].join(&b'/')).or_insert(Node::Folder);
        }
        if !trimmed.is_empty() {
            self.nodes.insert(trimmed.join(&b'/'), node);
        }
    }

    /// The archive.
    ///
    /// # Errors
    /// A file of the host cannot be read, or is too large for the format (4 GiB).
    pub fn to_cpio(&self) -> Result<Vec<u8>> {
        const FIRST_NUMBER: u32 = 1;
        let mut archive = Vec::new();
        entry(&mut archive, FIRST_NUMBER, b".", 0o040_755, &[], (0, 0))?;
        for ((path, node), number) in self.nodes.iter().zip(FIRST_NUMBER + 1..) {
            match node {
                Node::Folder => entry(&mut archive, number, path, 0o040_755, &[], (0, 0))?,
                Node::Link(target) => entry(&mut archive, number, path, 0o120_777, target, (0, 0))?,
                Node::CharacterDevice { major, minor } => {
                    entry(&mut archive, number, path, 0o020_600, &[], (*major, *minor))?;
                }
                Node::File { mode, content: Content::Here(content) } => {
                    entry(&mut archive, number, path, 0o100_000 | mode, content, (0, 0))?;
                }
                Node::File { mode, content: Content::OnHost(host) } => {
                    let content = std::fs::read(host).with_context(|| host.display().to_string())?;
                    entry(&mut archive, number, path, 0o100_000 | mode, &content, (0, 0))?;
                }
            }
        }
        entry(&mut archive, 0, b"TRAILER!!!", 0, &[], (0, 0))?;
        Ok(archive)
    }
}

/// One entry: "070701", thirteen fields of eight hexadecimal digits, the name with its NUL, the content; each padded to four.
fn entry(archive: &mut Vec<u8>, number: u32, path: &[u8], mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
    let size = u32::try_from(content.len()).context("a file in the initial root is larger than 4 GiB")?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let (user, group, time, device_major, device_minor, checksum) = (0, 0, 0, 0, 0, 0);
    let name_size = path.len() as u32 + 1;
    let fields = [
        number,
        mode,
        user,
        group,
        links,
        time,
        size,
        device_major,
        device_minor,
        device.0,
        device.1,
        name_size,
        checksum,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").into_bytes());
    }
    archive.extend(path);
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_archive_in_whatever_order_it_was_built() {
        let (mut one, mut other) = (Tree::default(), Tree::default());
        one.file("/bin/a", 0o755, *b"A");
        one.link("bin/b", "a");
        other.link("/bin/b", "a");
        other.file("bin//a", 0o755, *b"A");
        let archive = one.to_cpio().expect("nothing is read");
        assert_eq!(archive, other.to_cpio().expect("nothing is read"));
        assert_eq!(archive.len() % 4, 0);
        assert!(one.has("/bin") && one.has("bin/a") && !one.has("b"));
    }

    #[test]
    fn a_header_is_as_the_format_says() {
        let mut tree = Tree::default();
        tree.file("f", 0o644, *b"hello");
        let archive = tree.to_cpio().expect("nothing is read");
        let archive = archive.strip_prefix(&archive[..112]).expect("the root's own entry comes first");
        assert_eq!(&archive[..22], b"07070100000002000081a4");
        assert_eq!(&archive[110..112], b"f\0");
        assert_eq!(&archive[112..117], b"hello");
    }
}
