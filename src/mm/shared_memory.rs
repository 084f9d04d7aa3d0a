//! Memory that programs share without a file: `MAP_SHARED | MAP_ANONYMOUS`.
//!
//! It is a file without a name: an inode whose content is its page cache. So sharing, forking and moving it are what they are for
//! any file, and it ends with the last area that maps it.
//!
//! Next: `attachment.rs`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use fs::inode::FileSystemStatus;
use fs::{Attributes, Inode, InodeCore, Io, Kind};

use super::frames::FRAMES;
use super::gate;
use super::vma::MappedFile;

struct SharedMemory {
    core: InodeCore,
}

impl Inode for SharedMemory {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn reserve_page(&self, _index: u64) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus::default()
    }
}

/// `len` bytes of zeros, to be mapped shared from their beginning.
///
/// # Errors
///
/// `ENOMEM`.
pub fn shared_memory(len: usize) -> Result<Arc<MappedFile>, Errno> {
    Ok(Arc::new(MappedFile::new(shared_inode(len)?, None)))
}

/// The inode of such memory, for whoever keeps it while nobody maps it.
///
/// # Errors
///
/// `ENOMEM`.
pub fn shared_inode(len: usize) -> Result<Arc<dyn Inode>, Errno> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    gate::try_admit()?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let attributes = Attributes { mode: 0o600, size: len as u64, links: 0, ..Attributes::default() };
    let core = InodeCore::in_memory(&FRAMES, 0, number, Kind::Regular, 0, attributes);
    Ok(Arc::new(SharedMemory { core }))
}
