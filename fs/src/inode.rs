//! An inode: a file, folder, link, device, pipe or socket of a file system, without its name.
//!
//! [`InodeCore`] is the part that all have in common; a file system's own inode type embeds one and implements [`Inode`]
//! around it. Folders are asked by name ([`Inode::lookup`]); the cache of names above them is in `dentry.rs`.
//!
//! Next: `attributes.rs`, `common.rs`, then `file.rs`.

mod attributes;
mod common;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use crate::file::FileOps;
use crate::path::Path;
use crate::{Errno, Io, OpenFlags, Page, Result};

pub use attributes::{AttributeChange, Attributes, Metadata, Permissions, Timestamp};
pub use common::{Extras, InodeCore};

/// What an inode is; the numbers are those of `d_type` in getdents64(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A named pipe.
    Fifo = 1,
    /// A character device.
    CharacterDevice = 2,
    /// A folder.
    Directory = 4,
    /// A block device.
    BlockDevice = 6,
    /// A file.
    Regular = 8,
    /// A symbolic link.
    Symlink = 10,
    /// A socket in the file system.
    Socket = 12,
}

impl Kind {
    /// The file-type bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }

    /// The kind that the file-type bits of a mode name.
    pub const fn from_mode(mode: u32) -> Option<Kind> {
        Some(match (mode >> 12) & 0o17 {
            1 => Kind::Fifo,
            2 => Kind::CharacterDevice,
            4 => Kind::Directory,
            6 => Kind::BlockDevice,
            8 => Kind::Regular,
            10 => Kind::Symlink,
            12 => Kind::Socket,
            _ => return None,
        })
    }
}

/// What to make in a folder.
#[derive(Clone, Copy, Debug)]
pub enum NewNode<'a> {
    /// An empty file.
    Regular,
    /// An empty folder.
    Directory,
    /// A symbolic link to this path.
    Symlink(&'a [u8]),
    /// A device node, named pipe or socket: kind, and which device.
    Special(Kind, u64),
}

/// Owner and permissions of a new node; the caller has applied the umask and the folder's set-group-ID.
#[derive(Clone, Copy, Debug)]
pub struct NewOwner {
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Now.
    pub time: Timestamp,
}

/// One entry of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode's number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// The position to go on from behind it; never 0.
    pub next: u64,
}

/// What happens to the target of a rename.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// An existing target is replaced.
    Replace,
    /// An existing target is an error.
    NoReplace,
    /// Source and target change places.
    Exchange,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileSystemStatus {
    /// Magic number of the type (statfs(2) lists them).
    pub magic: u64,
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// The longest name.
    pub name_length: u64,
}

/// A node of a file system. Every method has a default that says what Linux says of a node that cannot do it.
///
/// Names are bytes without `/` and NUL, never empty, `.` or `..`, at most 255 long: the path walk sees to that. Permissions are
/// checked above. The caller holds the folder's lock (`dentry.rs`) around anything that changes its entries.
pub trait Inode: Any + Send + Sync {
    /// The common part.
    fn core(&self) -> &InodeCore;

    /// A snapshot for stat(2).
    fn metadata(&self) -> Metadata {
        self.core().metadata()
    }

    /// What decides who may do what. For nodes whose owner changes by itself, as in procfs.
    fn permissions(&self) -> Permissions {
        self.core().permissions()
    }

    /// Finds an entry of a folder.
    ///
    /// # Errors
    ///
    /// `ENOENT`: none of that name. `ENOTDIR`: not a folder. `EIO`: the device failed, or the folder is damaged.
    fn lookup(&self, _name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        Io::ready(Err(Errno::ENOTDIR))
    }

    /// Whether the names found in it, or where it points, may be remembered. No for much of procfs, which changes by itself.
    fn names_are_stable(&self) -> bool {
        true
    }

    /// Makes a new entry.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC`, `EROFS`, `EPERM` when the file system has no such nodes.
    fn create<'a>(&'a self, _name: &'a [u8], _node: NewNode<'a>, _owner: NewOwner) -> Io<'a, Arc<dyn Inode>> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Makes a file without a name, in the file system of this folder (O_TMPFILE).
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: the file system has no such files. `ENOSPC`, `EROFS`.
    fn create_nameless(&self, _owner: NewOwner) -> Io<'_, Arc<dyn Inode>> {
        Io::ready(Err(Errno::EOPNOTSUPP))
    }

    /// Makes another name for a file of the same file system.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `EMLINK`, `EROFS`, `EPERM`.
    fn link<'a>(&'a self, _name: &'a [u8], _target: &'a Arc<dyn Inode>) -> Io<'a, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Removes a name that is not a folder's. The inode lives on while it is open.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EISDIR`, `EROFS`.
    fn unlink<'a>(&'a self, _name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EROFS`.
    fn remove_directory<'a>(&'a self, _name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Moves an entry to a folder of the same file system.
    ///
    /// # Errors
    ///
    /// As rename(2) says: `ENOENT`, `EEXIST`, `ENOTDIR`, `EISDIR`, `ENOTEMPTY`, `EXDEV`, `EROFS`.
    fn rename<'a>(
        &'a self,
        _name: &'a [u8],
        _new_parent: &'a Arc<dyn Inode>,
        _new_name: &'a [u8],
        _mode: RenameMode,
    ) -> Io<'a, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not a symbolic link.
    fn read_link(&self) -> Io<'_, Vec<u8>> {
        Io::ready(Err(Errno::EINVAL))
    }

    /// Where a "magic" link of procfs leads (`/proc/self/exe`, `/proc/self/fd/3`): straight to a place, not through a path.
    fn magic_link(&self) -> Option<Result<Path>> {
        None
    }

    /// Reads entries of a folder from `position` on (0 is the beginning; otherwise a `next` given before); `.` and `..` are the
    /// caller's. Returns at least one entry unless there are no more, and as many as are at hand, up to about a page's worth.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `EIO`.
    fn read_directory(&self, _position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        Io::ready(Err(Errno::ENOTDIR))
    }

    /// Changes attributes, in storage and with [`InodeCore::apply`].
    ///
    /// # Errors
    ///
    /// `EROFS`, `EFBIG`, `ENOSPC`, `EINVAL` for a size where there is none.
    fn change(&self, _change: AttributeChange) -> Io<'_, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Fills a page of the content from storage, for the page cache: page `index` covers bytes `index * 4096 ..`; what lies
    /// beyond the end of the file is zeroed. The page is fresh and nobody else sees it yet.
    ///
    /// # Errors
    ///
    /// `EIO`; `EINVAL` for a node without such content.
    fn read_page<'a>(&'a self, _index: u64, _page: &'a Page) -> Io<'a, ()> {
        Io::ready(Err(Errno::EINVAL))
    }

    /// Fills consecutive pages from page `first` on: read-ahead. Worth implementing where one request to the device may carry them.
    ///
    /// # Errors
    ///
    /// As [`Inode::read_page`].
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [Page]) -> Io<'a, ()> {
        if let [page] = pages {
            return self.read_page(first, page);
        }
        Io::wait(async move {
            for (index, page) in pages.iter().enumerate() {
                self.read_page(first + index as u64, page).await?;
            }
            Ok(())
        })
    }

    /// Whether a page that is not in the page cache is known to be a hole, which reads as zeros.
    fn is_hole(&self, _index: u64) -> bool {
        false
    }

    /// The longest a file can be.
    fn max_size(&self) -> u64 {
        i64::MAX as u64
    }

    /// Makes sure that a page may be dirtied: reserves space. Called before the first write to a page.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `EDQUOT`, `EROFS`.
    fn reserve_page(&self, _index: u64) -> Io<'_, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Writes a dirty page back. Memory-only file systems never get called.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC`.
    fn write_page<'a>(&'a self, _index: u64, _page: &'a Page) -> Io<'a, ()> {
        Io::ready(Err(Errno::EROFS))
    }

    /// Brings the file's data and attributes to stable storage (fsync).
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC`; `EINVAL` where it makes no sense.
    fn sync(&self, _data_only: bool) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    /// How to use the open file, for nodes that are not plain files, folders, or device nodes (which the kernel opens by their
    /// number): the files of procfs and the like. `None`: the ordinary way for its kind.
    ///
    /// # Errors
    ///
    /// Whatever open(2) is to say.
    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        Ok(None)
    }

    /// Called before a regular file is opened for writing or cut by its path, with the length of content that will be kept. A
    /// file system that keeps the content elsewhere from then on (an overlay) moves it now: [`Inode::core`] and [`Inode::content`]
    /// answer with the new place afterwards.
    ///
    /// # Errors
    ///
    /// `EROFS`, `ENOSPC`, `EIO`, `ENOMEM`.
    fn prepare_writing(&self, _keeps: u64) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    /// The inode whose pages hold the content now, if that is not itself but one below it, as in an overlay: what a file opened
    /// now reads, writes, maps and executes for as long as it is open.
    fn content(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// The file system as a whole, for statfs(2).
    fn file_system(&self) -> FileSystemStatus;

    /// An extended attribute.
    ///
    /// # Errors
    ///
    /// `ENODATA`: none of that name. `EOPNOTSUPP`: the file system has none at all.
    fn extended_attribute<'a>(&'a self, _name: &'a [u8]) -> Io<'a, Vec<u8>> {
        Io::ready(Err(Errno::EOPNOTSUPP))
    }

    /// The names of all extended attributes, each ended by a zero byte.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: the file system has none at all. `EIO`.
    fn extended_attribute_names(&self) -> Io<'_, Vec<u8>> {
        Io::ready(Err(Errno::EOPNOTSUPP))
    }
}
