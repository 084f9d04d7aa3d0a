//! What mmap(2) asks for.
//!
//! Next: `inner.rs`.

use alloc::sync::Arc;

use abi::Errno;

use crate::arch::paging::Rights;
use crate::mm::frames::FRAME_SIZE;
use crate::mm::vma::{Backing, MappedFile, SpecialPages, VmaFlags};

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Wherever there is room.
    Anywhere,
    /// Here if there is room, else anywhere.
    Hint(usize),
    /// Here, in place of whatever is there (`MAP_FIXED`).
    Fixed(usize),
    /// Here, or not at all (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(usize),
}

/// What is mapped.
#[derive(Clone)]
pub enum Source {
    /// Zeros, private.
    Anonymous,
    /// A file from a byte offset on; the flags say whether it is shared.
    File {
        /// The file.
        file: Arc<MappedFile>,
        /// A multiple of the page size.
        offset: u64,
    },
    /// The kernel's own pages.
    Special(Arc<SpecialPages>),
}

/// What mmap(2) asks for.
#[derive(Clone)]
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// How many bytes; rounded up to pages.
    pub len: usize,
    /// What the program may do there.
    pub rights: Rights,
    /// What is special about it.
    pub flags: VmaFlags,
    /// What.
    pub source: Source,
}

impl MapRequest {
    /// Private zeros, wherever there is room.
    pub fn anonymous(len: usize, rights: Rights) -> MapRequest {
        let flags = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXECUTE;
        MapRequest { placement: Placement::Anywhere, len, rights, flags, source: Source::Anonymous }
    }

    /// A private mapping of a file from `offset` on.
    pub fn private_file(file: Arc<MappedFile>, offset: u64, len: usize, rights: Rights) -> MapRequest {
        MapRequest { source: Source::File { file, offset }, ..MapRequest::anonymous(len, rights) }
    }

    /// The same, somewhere in particular.
    pub fn at(self, placement: Placement) -> MapRequest {
        MapRequest { placement, ..self }
    }

    /// The same, with more flags.
    pub fn with(mut self, flags: VmaFlags) -> MapRequest {
        self.flags |= flags;
        self
    }

    /// What is behind the area that it makes.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the offset is not a multiple of the page size. `EOVERFLOW`: it goes too far.
    pub(super) fn backing(&self, len: usize) -> Result<Backing, Errno> {
        match &self.source {
            Source::Anonymous => Ok(Backing::Anonymous),
            Source::File { file, offset } => {
                if !offset.is_multiple_of(FRAME_SIZE as u64) {
                    return Err(Errno::EINVAL);
                }
                offset.checked_add(len as u64).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
                Ok(Backing::File { file: file.clone(), page: offset / FRAME_SIZE as u64 })
            }
            Source::Special(pages) => Ok(Backing::Special { pages: pages.clone(), page: 0 }),
        }
    }
}
