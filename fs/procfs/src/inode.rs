//! The inode around a [`Node`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::environment;
use fs::inode::{AttributeChange, FileSystemStatus};
use fs::{Attributes, DirectoryEntry, Errno, FileOps, Inode, InodeCore, Io, Kind, OpenFlags, PAGE_SIZE, Path, Result};

use crate::file::TextFile;
use crate::{Content, Node, Volume};

/// How many entries one read of a folder returns.
const ENTRIES_AT_ONCE: usize = 64;

pub(crate) struct ProcInode {
    core: InodeCore,
    volume: Arc<Volume>,
    content: Content,
}

impl ProcInode {
    pub(crate) fn new(volume: Arc<Volume>, node: Node) -> Arc<ProcInode> {
        let now = environment::now();
        let kind = node.kind();
        let attributes = Attributes {
            mode: if kind == Kind::Symlink { 0o777 } else { node.mode },
            uid: node.uid,
            gid: node.gid,
            size: 0,
            links: if kind == Kind::Directory { 2 } else { 1 },
            blocks: 0,
            accessed: now,
            modified: now,
            changed: now,
        };
        let core = InodeCore::in_memory(volume.pages, volume.device, node.number, kind, 0, attributes);
        Arc::new(ProcInode { core, volume, content: node.content })
    }
}

impl Inode for ProcInode {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let Content::Folder(folder) = &self.content else { return Io::ready(Err(Errno::ENOTDIR)) };
        let found = folder.lookup(name);
        Io::ready(found.map(|node| ProcInode::new(self.volume.clone(), node) as Arc<dyn Inode>))
    }

    fn names_are_stable(&self) -> bool {
        match &self.content {
            Content::Folder(folder) => folder.is_fixed(),
            Content::Link(_) => false,
            Content::File(_) | Content::Special(_) => true,
        }
    }

    fn create<'a>(
        &'a self,
        _name: &'a [u8],
        _node: fs::NewNode<'a>,
        _owner: fs::inode::NewOwner,
    ) -> Io<'a, Arc<dyn Inode>> {
        // As Linux: a name that the kernel does not know is not there, and cannot be made.
        Io::ready(Err(Errno::ENOENT))
    }

    fn unlink<'a>(&'a self, _name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(Err(Errno::EPERM))
    }

    fn remove_directory<'a>(&'a self, _name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(Err(Errno::EPERM))
    }

    fn read_link(&self) -> Io<'_, Vec<u8>> {
        Io::ready(match &self.content {
            Content::Link(link) => link.target(),
            _ => Err(Errno::EINVAL),
        })
    }

    fn magic_link(&self) -> Option<Result<Path>> {
        match &self.content {
            Content::Link(link) => link.place(),
            _ => None,
        }
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        let Content::Folder(folder) = &self.content else { return Io::ready(Err(Errno::ENOTDIR)) };
        let mut entries = Vec::new();
        let told = folder.list(position, &mut |entry| {
            entries.push(DirectoryEntry {
                name: entry.name.to_vec(),
                number: entry.number,
                kind: entry.kind,
                next: entry.position,
            });
            entries.len() < ENTRIES_AT_ONCE
        });
        Io::ready(told.map(|()| entries))
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        // O_TRUNC before a write to a setting is customary and means nothing; owners and modes are the kernel's.
        let is_refused = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        Io::ready(if is_refused { Err(Errno::EPERM) } else { Ok(()) })
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        match &self.content {
            Content::File(file) => Ok(Some(Arc::new(TextFile::new(file.clone())))),
            Content::Special(open) => open(flags).map(Some),
            Content::Folder(_) | Content::Link(_) => Ok(None),
        }
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus {
            magic: self.volume.magic,
            block_size: PAGE_SIZE as u64,
            name_length: 255,
            ..FileSystemStatus::default()
        }
    }
}
