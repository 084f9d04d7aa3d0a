//! open(2), openat(2), openat2(2).
//!
//! Next: `names.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;

use crate::context::{At, Caller};
use crate::directory_file::DirectoryFile;
use crate::environment::{self, open_device};
use crate::inode::{AttributeChange, Kind, NewNode};
use crate::mount::MountFlags;
use crate::path::Path;
use crate::permission::{Access, Capabilities, check};
use crate::pipe::PipeEnd;
use crate::regular_file::{Options, RegularFile};
use crate::walk::{Outcome, WalkFlags};
use crate::{Errno, FileOps, OpenFile, OpenFlags, Result};

/// A file opened with O_PATH: a place, without access to the content.
struct PlaceOnly;

impl FileOps for PlaceOnly {
    fn try_read(&self, _position: &mut u64, _sink: &mut dyn crate::Sink) -> Result<usize, crate::Stop> {
        Err(Errno::EBADF.into())
    }

    fn try_write(
        &self,
        _position: &mut u64,
        _flags: OpenFlags,
        _source: &mut dyn crate::Source,
    ) -> Result<usize, crate::Stop> {
        Err(Errno::EBADF.into())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What came of an attempt to create.
enum Created {
    New(Path),
    Existing(Path),
    /// Somebody was faster, or slower: walk again.
    Again,
}

impl Caller<'_> {
    /// Opens a file; `mode` counts if it is created, `walk` takes the RESOLVE_ flags of openat2(2).
    ///
    /// After it, [`FileOps::try_open`] must be asked: a FIFO waits there.
    ///
    /// # Errors
    ///
    /// As open(2): `EACCES`, `EEXIST`, `EISDIR`, `ELOOP`, `ENOENT`, `ENOTDIR`, `ENXIO`, `EROFS`, `ETXTBSY`, `EPERM`, `EINVAL`, …
    ///
    /// # Cancel safety
    ///
    /// A dropped open may have created or cut the file.
    pub async fn open(&self, at: At<'_>, flags: OpenFlags, mode: u32, walk: WalkFlags) -> Result<Arc<OpenFile>> {
        let flags = checked(flags)?;
        if flags.contains(OpenFlags::TMPFILE) {
            return Box::pin(self.open_nameless(at, flags, mode, walk)).await;
        }
        if flags.contains(OpenFlags::CREAT) {
            return Box::pin(self.open_or_create(at, flags, mode, walk)).await;
        }
        let path = self.walk(at, walk_flags(flags) | walk).await?;
        self.open_path(path, flags).await
    }

    async fn open_or_create(&self, at: At<'_>, flags: OpenFlags, mode: u32, walk: WalkFlags) -> Result<Arc<OpenFile>> {
        loop {
            match self.find_or_create(at, flags, mode, walk).await? {
                Created::Existing(_) if flags.contains(OpenFlags::EXCL) => return Err(Errno::EEXIST),
                Created::Existing(path) => return self.open_path(path, flags).await,
                Created::New(path) => return self.finish_open(path, flags, true),
                Created::Again => {}
            }
        }
    }

    async fn find_or_create(&self, at: At<'_>, flags: OpenFlags, mode: u32, walk: WalkFlags) -> Result<Created> {
        let (walker, outcome) = self.walk_to_last(at, walk_flags(flags) | walk).await?;
        let parent = match outcome {
            Outcome::Found(path) => return Ok(Created::Existing(path)),
            Outcome::Last(parent) => parent,
        };
        let lock = parent.dentry.lock().await?;
        match parent.dentry.lookup_locked(&lock, walker.last()).await {
            Ok(_) => return Ok(Created::Again),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.check_may_add(&parent)?;
        let owner = self.new_owner(&parent, Kind::Regular, mode);
        parent.dentry.adding(walker.last());
        let inode = parent.inode().create(walker.last(), NewNode::Regular, owner).await?;
        let dentry = parent.dentry.adopt(walker.last(), inode);
        drop(lock);
        Ok(Created::New(Path { mount: parent.mount, dentry }))
    }

    /// O_TMPFILE: a file without a name, in the file system of a folder.
    async fn open_nameless(&self, at: At<'_>, flags: OpenFlags, mode: u32, walk: WalkFlags) -> Result<Arc<OpenFile>> {
        if !flags.can_write() {
            return Err(Errno::EINVAL);
        }
        let folder = self.walk(at, walk_flags(flags) | walk).await?;
        self.check_may_add(&folder)?;
        let owner = self.new_owner(&folder, Kind::Regular, mode);
        let inode = folder.inode().create_nameless(owner).await?;
        inode.core().with_extras(|extras| extras.may_get_first_name = !flags.contains(OpenFlags::EXCL));
        let dentry = folder.dentry.nameless_child(inode);
        self.finish_open(Path { mount: folder.mount, dentry }, flags - OpenFlags::TMPFILE, true)
    }

    /// Opens what is at a place: what a walk found, or a magic link led to.
    ///
    /// # Errors
    ///
    /// As [`Caller::open`].
    pub async fn open_path(&self, path: Path, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let inode = path.inode();
        let kind = inode.core().kind;
        if flags.contains(OpenFlags::PATH) {
            let inode = inode.clone();
            return Ok(Arc::new(OpenFile::new(Arc::new(PlaceOnly), Some(path), Some(inode), flags)));
        }
        let writes = flags.can_write() || flags.contains(OpenFlags::TRUNC);
        match kind {
            Kind::Symlink => return Err(Errno::ELOOP),
            Kind::Socket => return Err(Errno::ENXIO),
            Kind::Directory if writes || flags.contains(OpenFlags::CREAT) => return Err(Errno::EISDIR),
            Kind::CharacterDevice | Kind::BlockDevice if path.mount.flags().contains(MountFlags::NODEV) => {
                return Err(Errno::EACCES);
            }
            _ => {}
        }
        let mut access = Access::empty();
        access.set(Access::READ, flags.can_read() || flags.is_for_control_only());
        access.set(Access::WRITE, writes || flags.is_for_control_only());
        check(self.credentials, &**inode, access)?;
        if writes && kind == Kind::Regular {
            path.mount.check_writable()?;
        }
        if flags.contains(OpenFlags::NOATIME) && !self.owns(&**inode) {
            return Err(Errno::EPERM);
        }
        let truncates = flags.contains(OpenFlags::TRUNC) && kind == Kind::Regular;
        let inode = inode.clone();
        if writes && kind == Kind::Regular {
            inode.prepare_writing(if truncates { 0 } else { u64::MAX }).await?;
        }
        let file = self.finish_open(path, flags, false)?;
        if truncates {
            self.cut_to_nothing(&*inode).await?;
        }
        Ok(file)
    }

    async fn cut_to_nothing(&self, inode: &dyn crate::Inode) -> Result<()> {
        let now = environment::now();
        let attributes = *inode.core().attributes.lock();
        let mode = self.mode_after_write(attributes.mode);
        let change =
            AttributeChange { size: Some(0), mode, modified: Some(now), changed: Some(now), ..Default::default() };
        inode.change(change).await
    }

    /// Makes the open file of what may be opened.
    fn finish_open(&self, path: Path, flags: OpenFlags, is_new: bool) -> Result<Arc<OpenFile>> {
        let inode = path.inode().clone();
        let kind = inode.core().kind;
        let mount = path.mount.flags();
        let mut without = MountFlags::NOATIME | MountFlags::READ_ONLY;
        without.set(MountFlags::NODIRATIME, kind == Kind::Directory);
        let sets_access_time = !flags.contains(OpenFlags::NOATIME) && !mount.intersects(without);
        let mut counted = Counted { inode: &*inode, is_writer: flags.can_write() && kind == Kind::Regular };
        if counted.is_writer
            && let Err(errno) = inode.core().begin_writing()
        {
            counted.is_writer = false;
            // A file that was just made cannot be in execution.
            debug_assert!(!is_new);
            return Err(errno);
        }
        let ops: Arc<dyn FileOps> = match inode.clone().open(flags)? {
            Some(ops) => ops,
            None => match kind {
                Kind::Directory => Arc::new(DirectoryFile::new(path.clone(), sets_access_time)),
                Kind::CharacterDevice | Kind::BlockDevice => open_device(kind, inode.core().represents, flags)?,
                Kind::Fifo => Arc::new(PipeEnd::open_fifo(&inode, flags)?),
                Kind::Regular => {
                    let keeps_set_id = self.credentials.can(Capabilities::FSETID);
                    Arc::new(RegularFile::new(
                        inode.content().unwrap_or_else(|| inode.clone()),
                        Options { sets_access_time, keeps_set_id },
                    ))
                }
                Kind::Symlink | Kind::Socket => return Err(Errno::ENXIO),
            },
        };
        // From here on the open file takes the count back.
        counted.is_writer = false;
        Ok(Arc::new(OpenFile::new(ops, Some(path), Some(inode.clone()), flags)))
    }
}

/// Takes the count of a writer back if opening fails half-way.
struct Counted<'a> {
    inode: &'a dyn crate::Inode,
    is_writer: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.is_writer {
            self.inode.core().end_writing();
        }
    }
}

/// Flags that make sense together.
fn checked(flags: OpenFlags) -> Result<OpenFlags> {
    if flags.contains(OpenFlags::PATH) {
        return Ok(flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC));
    }
    if !flags.contains(OpenFlags::TMPFILE) && flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

fn walk_flags(flags: OpenFlags) -> WalkFlags {
    let mut walk = WalkFlags::empty();
    let makes = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) && !flags.contains(OpenFlags::TMPFILE);
    walk.set(WalkFlags::FOLLOW, !flags.contains(OpenFlags::NOFOLLOW) && !makes);
    walk.set(WalkFlags::DIRECTORY, flags.contains(OpenFlags::DIRECTORY));
    walk.set(WalkFlags::CREATE, flags.contains(OpenFlags::CREAT));
    walk
}
