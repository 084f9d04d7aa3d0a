//! The file system `mqueue`, whose one folder holds the names of all message queues: mq_open(3) means it, mounted or not.
//!
//! Next: `file.rs`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Result, general};
use conquer_once::spin::OnceCell;
use executor::sync::{SpinLock, get_or_init};
use fs::environment::{anonymous_device, now};
use fs::inode::{AttributeChange, FileSystemStatus, NewNode, NewOwner};
use fs::permission::{Capabilities, check_removal};
use fs::{
    Access, Attributes, Credentials, DirectoryEntry, FileOps, FileSystem, Inode, InodeCore, Io, Kind, OpenFlags,
    permission,
};

use super::file::QueueFile;
use super::{Capacity, Charge, MOST_QUEUES, Queue};
use crate::mm::FRAMES;
use crate::process::current;

/// What statfs(2) calls it.
const MAGIC: u64 = 0x1980_0202;
/// The number of the folder's inode.
const ROOT: u64 = 1;
/// How long the text is that a queue can be read for, as stat(2) tells it.
const TEXT_LENGTH: u64 = 80;

/// The file system.
pub struct QueueFileSystem {
    folder: Arc<Folder>,
}

/// Its only folder.
pub struct Folder {
    core: InodeCore,
    names: SpinLock<BTreeMap<Box<[u8]>, Arc<Queue>>>,
}

/// The one there is.
pub fn file_system() -> Arc<QueueFileSystem> {
    static FILE_SYSTEM: OnceCell<Arc<QueueFileSystem>> = OnceCell::uninit();
    get_or_init(&FILE_SYSTEM, || {
        let attributes = attributes(0o1777, 0, 0, 2, 0);
        let core = InodeCore::new(&FRAMES, anonymous_device(), ROOT, Kind::Directory, 0, attributes);
        Arc::new(QueueFileSystem { folder: Arc::new(Folder { core, names: SpinLock::new(BTreeMap::new()) }) })
    })
    .clone()
}

/// Its folder.
pub fn folder() -> Arc<Folder> {
    file_system().folder.clone()
}

fn attributes(mode: u32, uid: u32, gid: u32, links: u32, size: u64) -> Attributes {
    let time = now();
    Attributes { mode, uid, gid, size, links, blocks: 0, accessed: time, modified: time, changed: time }
}

impl Folder {
    /// The queue of this name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<Queue>> {
        self.names.lock().get(name).cloned()
    }

    /// Makes a queue.
    ///
    /// # Errors
    ///
    /// `EEXIST`; `ENOSPC`: too many queues; `EMFILE`: over RLIMIT_MSGQUEUE; `ENOMEM`.
    pub fn make(
        &self,
        name: &[u8],
        mode: u32,
        capacity: Capacity,
        credentials: &Credentials,
        limit: u64,
    ) -> Result<Arc<Queue>> {
        static NUMBER: AtomicU64 = AtomicU64::new(ROOT + 1);
        crate::mm::try_admit()?;
        let charge = Charge::new(credentials.uid, capacity, limit)?;
        let attributes = attributes(mode & 0o7777, credentials.fsuid, credentials.fsgid, 1, TEXT_LENGTH);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let core = InodeCore::new(&FRAMES, self.core.device, number, Kind::Regular, 0, attributes);
        let queue = Queue::new(core, capacity, charge);
        let mut names = self.names.lock();
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if names.len() >= MOST_QUEUES && !credentials.can(Capabilities::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        names.insert(Box::from(name), queue.clone());
        Ok(queue)
    }

    /// Removes a name, if the caller may.
    ///
    /// # Errors
    ///
    /// `ENOENT`; `EACCES`; `EPERM`: another's.
    pub fn remove(&self, name: &[u8], credentials: &Credentials) -> Result<()> {
        let queue = self.find(name).ok_or(Errno::ENOENT)?;
        check_removal(credentials, self, &*queue)?;
        self.take_out(name)
    }

    fn take_out(&self, name: &[u8]) -> Result<()> {
        let removed = self.names.lock().remove(name);
        removed.map(drop).ok_or(Errno::ENOENT)
    }
}

impl Queue {
    /// Opens it for somebody who has these rights to it.
    ///
    /// # Errors
    ///
    /// `EACCES`.
    pub fn open_as(self: &Arc<Self>, credentials: &Credentials, flags: OpenFlags) -> Result<QueueFile> {
        let mut access = Access::empty();
        access.set(Access::READ, flags.can_read());
        access.set(Access::WRITE, flags.can_write());
        permission::check(credentials, &**self, access)?;
        Ok(QueueFile::new(self.clone()))
    }
}

impl FileSystem for QueueFileSystem {
    fn root(&self) -> Arc<dyn Inode> {
        self.folder.clone()
    }

    fn type_name(&self) -> &'static str {
        "mqueue"
    }
}

const STATUS: FileSystemStatus = FileSystemStatus {
    magic: MAGIC,
    block_size: 4096,
    blocks: 0,
    blocks_free: 0,
    files: 0,
    files_free: 0,
    name_length: 255,
};

impl Inode for Folder {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        Io::ready(self.find(name).map(|queue| queue as Arc<dyn Inode>).ok_or(Errno::ENOENT))
    }

    // mq_open(3) and mq_unlink(3) do not come by the names that are remembered.
    fn names_are_stable(&self) -> bool {
        false
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, owner: NewOwner) -> Io<'a, Arc<dyn Inode>> {
        if !matches!(node, NewNode::Regular) {
            return Io::ready(Err(Errno::EPERM));
        }
        let Some(thread) = current::get() else { return Io::ready(Err(Errno::EPERM)) };
        let limit = thread.process.limits.lock().soft(general::RLIMIT_MSGQUEUE);
        let credentials = thread.view.lock().as_ref().map(|view| view.credentials.clone());
        let made = credentials
            .ok_or(Errno::EPERM)
            .and_then(|credentials| self.make(name, owner.mode, Capacity::DEFAULT, &credentials, limit));
        Io::ready(made.map(|queue| queue as Arc<dyn Inode>))
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(self.take_out(name))
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        let names = self.names.lock();
        let entry = |name: &[u8], queue: &Queue| {
            let number = queue.core.number;
            DirectoryEntry { name: name.to_vec(), number, kind: Kind::Regular, next: number }
        };
        // Positions are inode numbers, so that a listing goes on where it stopped whatever has come and gone.
        let mut entries: Vec<_> =
            names.iter().map(|(name, queue)| entry(name, queue)).filter(|entry| entry.number > position).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        entries.truncate(100);
        Io::ready(Ok(entries))
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.core.apply(&AttributeChange { size: None, ..change });
        Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        STATUS
    }
}

impl Inode for Queue {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.core.apply(&AttributeChange { size: None, ..change });
        Io::ready(Ok(()))
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        Ok(Some(Arc::new(QueueFile::new(self))))
    }

    fn file_system(&self) -> FileSystemStatus {
        STATUS
    }
}
