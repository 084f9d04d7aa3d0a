//! Mappings that are counted: those of System V segments (shmat(2)).
//!
//! A mapping holds an [`Attachment`], and dropping that is detaching, whatever ends the mapping: shmdt(2), munmap(2), another mapping
//! in its place, exec or the end. A child gets one of its own. Parts of a mapping that was cut share theirs.
//!
//! Next: `gate.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use abi::Errno;

use super::address_space::AddressSpace;
use super::frames::FRAME_SIZE;
use super::vma::{Backing, MappedFile, Vma};

/// One mapping, as it is counted; dropping it ends it. That happens under the lock of the address space.
pub trait Attachment: Send + Sync {
    /// One more, for a child's copy of the mapping.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn inherit(&self) -> Result<Box<dyn Attachment>, Errno>;

    /// How many bytes the segment has.
    fn size(&self) -> usize;

    /// The key that the segment was made with and its identifier, by which /proc/PID/maps names it.
    fn key_and_id(&self) -> (i32, i32);
}

impl Vma {
    /// A child's copy of the area is counted, if areas like it are.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn inherit_attachment(&mut self) -> Result<(), Errno> {
        if let Backing::File { file, .. } = &mut self.backing
            && let Some(attachment) = &file.attachment
        {
            let attachment = Some(attachment.inherit()?);
            *file = Arc::new(MappedFile { inode: file.inode.clone(), path: None, attachment });
        }
        Ok(())
    }

    /// Where the attachment begins that the area is a part of.
    fn attached_at(&self) -> Option<usize> {
        let (file, page) = self.file_page(self.start)?;
        file.attachment.as_ref()?;
        self.start.checked_sub(usize::try_from(page).ok()?.checked_mul(FRAME_SIZE)?)
    }
}

impl AddressSpace {
    /// Unmaps what is left of the attachment that began at this address: shmdt(2).
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none. `ENOMEM`.
    pub fn detach(&self, address: usize) -> Result<(), Errno> {
        let mut rest = address;
        let mut found: Option<(usize, usize)> = None;
        loop {
            let part = {
                let inner = self.inner.lock();
                let mut areas = inner.areas.overlapping(rest..usize::MAX);
                let is_wanted = |vma: &&Vma| {
                    let inode = vma.file_page(vma.start).map(|(file, _)| inode_address(file));
                    vma.attached_at() == Some(address) && found.is_none_or(|(known, _)| inode == Some(known))
                };
                areas.find(is_wanted).and_then(|vma| {
                    let (file, _) = vma.file_page(vma.start)?;
                    Some((vma.range(), inode_address(file), file.attachment.as_ref()?.size()))
                })
            };
            let end = found.map_or(usize::MAX, |(_, end)| end);
            match part {
                Some((range, inode, size)) if range.start < end => {
                    found.get_or_insert((inode, address.saturating_add(size)));
                    rest = range.end;
                    self.unmap(range.start, range.len())?;
                }
                _ => return if found.is_some() { Ok(()) } else { Err(Errno::EINVAL) },
            }
        }
    }
}

fn inode_address(file: &MappedFile) -> usize {
    Arc::as_ptr(&file.inode).cast::<()>().addr()
}
