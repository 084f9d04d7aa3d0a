//! Folders that are tables, and nodes made of closures: what most of /proc and /sys is written with.
//!
//! ```
//! use procfs::{Table, file, writable_file};
//! let root = Table::new()
//!     .with("version", file(|| b"Rouse\n".to_vec()))
//!     .with("sys", Table::new().with("kernel", Table::new().with("hostname", file(|| b"rouse\n".to_vec())).node()).node())
//!     .node();
//! # drop(root);
//! ```
//!
//! Next: `inode.rs`.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::{Errno, Io, Path, Result};

use crate::{Content, File, Folder, Link, Listed, Node};

/// A folder with fixed entries, and perhaps a changing part behind them.
#[derive(Default)]
pub struct Table {
    entries: BTreeMap<&'static str, Node>,
    rest: Option<Arc<dyn Folder>>,
}

impl Table {
    /// An empty folder.
    pub fn new() -> Table {
        Table::default()
    }

    /// Adds an entry.
    pub fn with(mut self, name: &'static str, node: Node) -> Table {
        self.entries.insert(name, node);
        self
    }

    /// Adds a changing part: names that are not in the table are looked for there, and its entries are listed behind the table's, at
    /// positions from [`REST`] on. As /proc with its processes.
    pub fn with_rest(mut self, rest: impl Folder) -> Table {
        self.rest = Some(Arc::new(rest));
        self
    }

    /// A node of it that everybody may look into.
    pub fn node(self) -> Node {
        Node::folder(self)
    }
}

/// Where the positions of a table's changing part begin.
pub const REST: u64 = 1 << 16;

impl Folder for Table {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let known = core::str::from_utf8(name).ok().and_then(|name| self.entries.get(name));
        match (known, &self.rest) {
            (Some(node), _) => Ok(node.clone()),
            (None, Some(rest)) => rest.lookup(name),
            (None, None) => Err(Errno::ENOENT),
        }
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        if position < REST {
            for (index, (name, node)) in self.entries.iter().enumerate().skip(position as usize) {
                let listed = Listed {
                    position: index as u64 + 1,
                    name: name.as_bytes(),
                    number: node.number,
                    kind: node.kind(),
                };
                if !tell(listed) {
                    return Ok(());
                }
            }
        }
        match &self.rest {
            Some(rest) => rest.list(position.saturating_sub(REST), &mut |entry| {
                tell(Listed { position: entry.position.saturating_add(REST), ..entry })
            }),
            None => Ok(()),
        }
    }

    fn is_fixed(&self) -> bool {
        self.rest.is_none()
    }
}

struct Text<R, W> {
    read: R,
    write: W,
}

impl<R, W> File for Text<R, W>
where
    R: Fn() -> Vec<u8> + Send + Sync + 'static,
    W: Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
{
    fn read(&self) -> Io<'_, Vec<u8>> {
        Io::ready(Ok((self.read)()))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        (self.write)(bytes)
    }
}

/// A file that everybody may read; the closure makes its text.
pub fn file(read: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Node {
    Node::new(0o444, Content::File(Arc::new(Text { read, write: |_: &[u8]| Err(Errno::EIO) })))
}

/// A setting: everybody may read it, root may write it.
pub fn writable_file(
    read: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    write: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
) -> Node {
    Node::new(0o644, Content::File(Arc::new(Text { read, write })))
}

struct Target<T, P> {
    target: T,
    place: P,
}

impl<T, P> Link for Target<T, P>
where
    T: Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
    P: Fn() -> Option<Result<Path>> + Send + Sync + 'static,
{
    fn target(&self) -> Result<Vec<u8>> {
        (self.target)()
    }

    fn place(&self) -> Option<Result<Path>> {
        (self.place)()
    }
}

/// A symbolic link whose target the closure tells, as `/proc/self`.
pub fn link(target: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
    Node::new(0o777, Content::Link(Arc::new(Target { target, place: || None })))
}

/// A magic link: `target` tells what readlink(2) shows, `place` where it leads.
pub fn magic_link(
    target: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
    place: impl Fn() -> Result<Path> + Send + Sync + 'static,
) -> Node {
    Node::new(0o777, Content::Link(Arc::new(Target { target, place: move || Some(place()) })))
}
