//! /proc and /sys: files and folders whose content is made when it is asked for.
//!
//! This crate knows no process and no setting; it turns what the kernel supplies into inodes:
//!
//! - a [`Folder`] finds a [`Node`] by name and lists its names: a fixed [`Table`], or one of the kernel's own (the processes, the
//!   descriptors of one);
//! - a [`File`] makes its text, all of it at once, when it is read from the beginning: what a program then reads in pieces is one
//!   consistent snapshot. Reading from the beginning again makes it anew. A file that can be written hands the bytes over;
//! - a [`Link`] tells where it points; a *magic* one leads straight to a place.
//!
//! Next: `table.rs`. Exercise: what would a program see that reads a file in small pieces, if each piece were made anew?
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

mod file;
mod inode;
mod table;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use fs::{Errno, FileOps, FileSystem, Inode, Io, Kind, OpenFlags, PageSource, Path, Result, environment};

use inode::ProcInode;
pub use table::{REST, Table, file, link, magic_link, writable_file};

/// A folder whose entries the kernel knows.
pub trait Folder: Send + Sync + 'static {
    /// Finds an entry.
    ///
    /// # Errors
    ///
    /// `ENOENT`; `EACCES` where even looking is refused.
    fn lookup(&self, name: &[u8]) -> Result<Node>;

    /// Tells entries behind `position` (0 is the beginning; else the position of an entry told before) in the order of their
    /// positions, until there are no more or `tell` returns `false`.
    ///
    /// # Errors
    ///
    /// `ENOENT`: what the folder is about has gone.
    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()>;

    /// Whether its entries never change, so that names may be remembered.
    fn is_fixed(&self) -> bool {
        false
    }
}

/// An entry of a [`Folder`], as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Its position, not 0.
    pub position: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Its inode's number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
}

/// A file whose text is made when it is read.
pub trait File: Send + Sync + 'static {
    /// Makes the text; may wait, as for another process's memory.
    ///
    /// # Errors
    ///
    /// Whatever read(2) is to say: `ESRCH`, `EACCES`, …
    fn read(&self) -> Io<'_, Vec<u8>>;

    /// Takes what was written, at most [`WRITE_AT_MOST`] bytes at a time.
    ///
    /// # Errors
    ///
    /// `EINVAL` for what makes no sense; `EIO`: it cannot be written, by whoever could open it so.
    fn write(&self, _bytes: &[u8]) -> Result<()> {
        Err(Errno::EIO)
    }
}

/// The longest write a [`File`] is handed.
pub const WRITE_AT_MOST: usize = 16 * 1024;

/// A symbolic link.
pub trait Link: Send + Sync + 'static {
    /// Where it points, as readlink(2) tells.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EACCES`, …
    fn target(&self) -> Result<Vec<u8>>;

    /// Where it leads, if that is not simply its target.
    fn place(&self) -> Option<Result<Path>> {
        None
    }
}

/// How a node of a kind of its own is opened.
pub type Opener = Arc<dyn Fn(OpenFlags) -> Result<Arc<dyn FileOps>> + Send + Sync>;

/// What a node is.
#[derive(Clone)]
pub enum Content {
    /// A folder.
    Folder(Arc<dyn Folder>),
    /// A file of text.
    File(Arc<dyn File>),
    /// A symbolic link.
    Link(Arc<dyn Link>),
    /// A file with operations of its own: one that can be polled, or is too large to make.
    Special(Opener),
}

/// A node, as a folder finds it.
#[derive(Clone)]
pub struct Node {
    /// Its number, unique in the file system: [`fresh_number`] for what is made once, something computed for what comes and goes.
    pub number: u64,
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

impl Node {
    /// A node of root's, with a fresh number.
    pub fn new(mode: u32, content: Content) -> Node {
        Node { number: fresh_number(), mode, uid: 0, gid: 0, content }
    }

    /// A folder that everybody may look into.
    pub fn folder(folder: impl Folder) -> Node {
        Node::new(0o555, Content::Folder(Arc::new(folder)))
    }

    /// The same node with another owner.
    pub fn owned_by(self, uid: u32, gid: u32) -> Node {
        Node { uid, gid, ..self }
    }

    /// The same node with another number.
    pub fn numbered(self, number: u64) -> Node {
        Node { number, ..self }
    }

    /// The same node with other permission bits.
    pub fn with_mode(self, mode: u32) -> Node {
        Node { mode, ..self }
    }

    /// What it is to a program.
    pub fn kind(&self) -> Kind {
        match self.content {
            Content::Folder(_) => Kind::Directory,
            Content::Link(_) => Kind::Symlink,
            Content::File(_) | Content::Special(_) => Kind::Regular,
        }
    }
}

/// The first of the numbers that [`fresh_number`] gives: computed numbers stay below.
pub const FIRST_FRESH_NUMBER: u64 = 0xf000_0000;

/// A number for a node that is made once.
pub fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(FIRST_FRESH_NUMBER);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What all nodes of a procfs share.
struct Volume {
    pages: &'static dyn PageSource,
    device: u64,
    magic: u64,
}

/// A file system of made content.
pub struct Procfs {
    root: Arc<ProcInode>,
    type_name: &'static str,
}

impl Procfs {
    /// A file system with this root: type name as /proc/mounts tells it, magic number as statfs(2) does (0x9fa0 for `proc`,
    /// 0x62656572 for `sysfs`).
    pub fn new(type_name: &'static str, magic: u64, pages: &'static dyn PageSource, root: Node) -> Arc<Procfs> {
        let volume = Arc::new(Volume { pages, device: environment::anonymous_device(), magic });
        Arc::new(Procfs { root: ProcInode::new(volume, root.numbered(1)), type_name })
    }
}

impl FileSystem for Procfs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        self.type_name
    }
}

#[cfg(test)]
mod tests;
