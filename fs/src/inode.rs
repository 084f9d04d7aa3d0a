//! An inode: a file, folder, link, device, pipe or socket of a file system, without its name.
//!
//! [`InodeCore`] is the part that all have in common; a file system's own inode type embeds one and implements [`Inode`]
//! around it. Folders are asked by name ([`Inode::lookup`]); the cache of names above them is in `dentry.rs`.
//!
//! Next: `file.rs`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI32, Ordering};

use executor::sync::SpinLock;

use crate::file::FileOps;
use crate::locks::FileLocks;
use crate::page_cache::PageCache;
use crate::path::Path;
use crate::pipe::Pipe;
use crate::{Errno, Io, OpenFlags, Page, PageSource, Result};

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

/// A point in time since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds below a second.
    pub nanoseconds: u32,
}

/// What can change about an inode while it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky: the lower 12 bits of `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u32,
    /// Storage used, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of the attributes.
    pub changed: Timestamp,
}

/// The part of the attributes that decides who may do what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// The lower 12 bits of `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What stat(2) tells: a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The device number of the file system.
    pub device: u64,
    /// The inode's number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// For device nodes, which device.
    pub represents: u64,
    /// The preferred unit of reading.
    pub block_size: u32,
    /// The rest.
    pub attributes: Attributes,
}

impl Metadata {
    /// `st_mode`: kind and permissions.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.attributes.mode
    }
}

/// A change of attributes, as chmod, chown, utimensat and truncate ask for; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttributeChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length: content beyond it is dropped, a gap reads as zeros.
    pub size: Option<u64>,
    /// New access time.
    pub accessed: Option<Timestamp>,
    /// New modification time.
    pub modified: Option<Timestamp>,
    /// New change time; the caller always sets it to now.
    pub changed: Option<Timestamp>,
}

/// What every inode has. Embedded in a file system's own inode type.
pub struct InodeCore {
    /// The device number of the file system.
    pub device: u64,
    /// The inode's number, unique in its file system.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// For device nodes, which device (as `makedev` packs it).
    pub represents: u64,
    /// What can change.
    pub attributes: SpinLock<Attributes>,
    /// The cached pages of its content.
    pub pages: PageCache,
    /// Positive: so many writers have it open; negative: so many programs are being executed from it. Decides `ETXTBSY`.
    writers: AtomicI32,
    /// Held while an attempt to write copies and moves the end of the file, so that appends do not mix, and by truncation.
    pub writing: SpinLock<()>,
    /// What few inodes have; made when first needed.
    extras: SpinLock<Option<Box<Extras>>>,
}

/// What hangs on an inode besides its content.
#[derive(Default)]
pub struct Extras {
    /// File locks.
    pub locks: Option<Arc<FileLocks>>,
    /// The pipe behind a FIFO while somebody has it open.
    pub pipe: Weak<Pipe>,
    /// What is bound to it: the listening end of an AF_UNIX socket.
    pub bound: Option<Weak<dyn Any + Send + Sync>>,
    /// Made by O_TMPFILE, so it may be given a name although it has none.
    pub may_get_first_name: bool,
}

impl InodeCore {
    /// A new core, whose cached pages come from `pages`.
    pub fn new(
        pages: &'static dyn PageSource,
        device: u64,
        number: u64,
        kind: Kind,
        represents: u64,
        attributes: Attributes,
    ) -> InodeCore {
        InodeCore {
            device,
            number,
            kind,
            represents,
            attributes: SpinLock::new(attributes),
            pages: PageCache::new(pages),
            writers: AtomicI32::new(0),
            writing: SpinLock::new(()),
            extras: SpinLock::new(None),
        }
    }

    /// A core of an inode that lives in memory only: the page cache is where its content is, and is never given up.
    pub fn in_memory(
        pages: &'static dyn PageSource,
        device: u64,
        number: u64,
        kind: Kind,
        represents: u64,
        attributes: Attributes,
    ) -> InodeCore {
        let core = InodeCore::new(pages, device, number, kind, represents, attributes);
        InodeCore { pages: PageCache::in_memory(pages), ..core }
    }

    /// What decides who may do what.
    pub fn permissions(&self) -> Permissions {
        let attributes = self.attributes.lock();
        Permissions { mode: attributes.mode, uid: attributes.uid, gid: attributes.gid }
    }

    /// Works with what few inodes have. The work does not wait.
    pub fn with_extras<R>(&self, work: impl FnOnce(&mut Extras) -> R) -> R {
        work(self.extras.lock().get_or_insert_default())
    }

    /// Its file locks, if it ever had any.
    pub fn locks(&self) -> Option<Arc<FileLocks>> {
        self.extras.lock().as_ref()?.locks.clone()
    }

    /// Applies a change that needs no storage: what a memory-only file system does for all of it, and others when they have stored
    /// it. A new size takes pages beyond it out of the cache and out of every mapping; returns how many pages were dropped.
    pub fn apply(&self, change: &AttributeChange) -> usize {
        let dropped = change.size.map_or(0, |size| self.resize(size));
        let mut attributes = self.attributes.lock();
        let now = &mut *attributes;
        now.mode = change.mode.unwrap_or(now.mode);
        now.uid = change.uid.unwrap_or(now.uid);
        now.gid = change.gid.unwrap_or(now.gid);
        now.accessed = change.accessed.unwrap_or(now.accessed);
        now.modified = change.modified.unwrap_or(now.modified);
        now.changed = change.changed.unwrap_or(now.changed);
        dropped
    }

    /// Shrink, unmap, free; then zero the tail of the last page, so that growing again shows zeros.
    fn resize(&self, size: u64) -> usize {
        let _writing = self.writing.lock();
        let before = core::mem::replace(&mut self.attributes.lock().size, size);
        if size < before { self.pages.cut(size) } else { 0 }
    }

    /// A snapshot for stat(2).
    pub fn metadata(&self) -> Metadata {
        Metadata {
            device: self.device,
            number: self.number,
            kind: self.kind,
            represents: self.represents,
            block_size: 4096,
            attributes: *self.attributes.lock(),
        }
    }

    /// Its length in bytes now.
    pub fn size(&self) -> u64 {
        self.attributes.lock().size
    }

    /// Counts one more writer.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` while a program is being executed from it.
    pub fn begin_writing(&self) -> Result<()> {
        self.step(1, |now| now >= 0)
    }

    /// Counts one writer less.
    pub fn end_writing(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Counts one more execution.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` while somebody has it open for writing.
    pub fn begin_executing(&self) -> Result<()> {
        self.step(-1, |now| now <= 0)
    }

    /// Counts one execution less.
    pub fn end_executing(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Moves the count of writers and executions to another core, which stands for the same file from now on: those who are counted
    /// will take their count back there.
    pub fn hand_over_users(&self, to: &InodeCore) {
        let users = self.writers.swap(0, Ordering::AcqRel);
        to.writers.fetch_add(users, Ordering::AcqRel);
    }

    fn step(&self, by: i32, is_allowed: impl Fn(i32) -> bool) -> Result<()> {
        self.writers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| is_allowed(now).then_some(now + by))
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
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
