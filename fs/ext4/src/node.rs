//! An inode in memory: the format's answers to the questions of [`fs::Inode`].
//!
//! Next: `journal.rs`, for what a power cut leaves behind.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::inode::FileSystemStatus;
use fs::{DirectoryEntry, Inode, InodeCore, Io, Kind, Page};

use crate::bytes::part;
use crate::content;
use crate::directory;
use crate::extent::map;
use crate::inline;
use crate::inode::{DiskInode, Flags, MAP_SIZE};
use crate::view::{Attempt, View};
use crate::volume::Volume;
use crate::xattr;

/// The longest target of a symbolic link, as in path_resolution(7).
const LINK_LIMIT: usize = 4095;

/// What a block serves as: its checksum depends on it.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Extents = 1,
    Folder = 2,
    Attributes = 3,
}

/// An inode of a volume.
pub(crate) struct Node {
    core: InodeCore,
    pub(crate) volume: Arc<Volume>,
    number: u32,
    pub(crate) flags: Flags,
    pub(crate) map: [u8; MAP_SIZE],
    pub(crate) attribute_block: u64,
    pub(crate) checksum_seed: u32,
    is_short_link: bool,
}

impl Node {
    pub(crate) fn new(volume: Arc<Volume>, disk: DiskInode) -> Node {
        let core = InodeCore::new(
            volume.disk.pages(),
            volume.device_number,
            disk.number.into(),
            disk.kind,
            disk.represents,
            disk.attributes,
        );
        Node {
            core,
            volume,
            number: disk.number,
            flags: disk.flags,
            map: disk.map,
            attribute_block: disk.attribute_block,
            checksum_seed: disk.checksum_seed,
            is_short_link: disk.is_short_link,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn kind(&self) -> Kind {
        self.core.kind
    }

    pub(crate) fn size(&self) -> u64 {
        self.core.size()
    }

    /// A name for "a block of this inode in this role", under which a block remembers that it was checked.
    pub(crate) fn role(&self, role: Role) -> u64 {
        u64::from(self.number) << 8 | role as u64
    }

    /// Where the link points.
    fn target(&self, view: &View<'_>) -> Attempt<Vec<u8>> {
        let len = usize::try_from(self.size()).ok().filter(|len| (1..=LINK_LIMIT).contains(len)).ok_or_else(|| {
            log::error!("ext4: symbolic link {} has a length that makes no sense", self.number);
            Errno::EUCLEAN
        })?;
        if self.flags.contains(Flags::INLINE_DATA) {
            return inline::content(view, self);
        }
        if self.is_short_link {
            return Ok(part(&self.map, 0, len)?.to_vec());
        }
        let mut target = Vec::new();
        while target.len() < len {
            let logical = target.len() / view.volume.superblock.block_size;
            let first = map(view, self, logical as u64)?.first.ok_or(Errno::EUCLEAN)?;
            let block = view.block(first, 1)?;
            target.extend_from_slice(part(&block.bytes, 0, (len - target.len()).min(block.bytes.len()))?);
        }
        Ok(target)
    }

    fn check_folder(&self) -> Result<()> {
        if self.core.kind == Kind::Directory { Ok(()) } else { Err(Errno::ENOTDIR) }
    }
}

impl Inode for Node {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        if let Err(errno) = self.check_folder() {
            return Io::ready(Err(errno));
        }
        // The name is copied for the case that this has to wait.
        let (name, mut progress) = (name.to_vec(), 0);
        self.volume.attempt(move |view| {
            let number = directory::find(view, self, &name, &mut progress)?;
            Ok(view.volume.inode(view, number)? as Arc<dyn Inode>)
        })
    }

    fn read_link(&self) -> Io<'_, Vec<u8>> {
        if self.core.kind != Kind::Symlink {
            return Io::ready(Err(Errno::EINVAL));
        }
        self.volume.attempt(|view| self.target(view))
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        if let Err(errno) = self.check_folder() {
            return Io::ready(Err(errno));
        }
        let mut position = position;
        self.volume.attempt(move |view| directory::read(view, self, &mut position))
    }

    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        if self.core.kind != Kind::Regular {
            return Io::ready(Err(Errno::EINVAL));
        }
        Io::wait(content::read(self, index, core::slice::from_ref(page)))
    }

    fn read_pages<'a>(&'a self, first: u64, pages: &'a [Page]) -> Io<'a, ()> {
        if self.core.kind != Kind::Regular {
            return Io::ready(Err(Errno::EINVAL));
        }
        Io::wait(content::read(self, first, pages))
    }

    fn file_system(&self) -> FileSystemStatus {
        self.volume.status()
    }

    fn extended_attribute_names(&self) -> Io<'_, Vec<u8>> {
        self.volume.attempt(|view| xattr::list(view, self))
    }

    fn extended_attribute<'a>(&'a self, name: &'a [u8]) -> Io<'a, Vec<u8>> {
        self.volume.attempt(move |view| xattr::get(view, self, name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.volume.retire(self.number);
    }
}
