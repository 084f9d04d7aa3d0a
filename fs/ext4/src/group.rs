//! Group descriptors: where the inodes of each group of blocks are.
//!
//! Layout: "ext4 Data Structures and Algorithms", Block Group Descriptors; `META_BG` in the section of that name. Next:
//! `inode.rs`.

use abi::{Errno, Result};

use crate::bytes::{from, joined, part, u16_at, u32_at};
use crate::checksum::{crc16, crc32c};
use crate::superblock::{Incompatible, ReadOnlyCompatible, Superblock};
use crate::view::{Attempt, View};

/// What a reader needs to know of a group.
pub(crate) struct Group {
    /// The first block of its table of inodes.
    pub(crate) inode_table: u64,
    /// How many inodes at the end of the table were never used.
    pub(crate) unused_inodes: u32,
}

/// Where the checksum stands in a descriptor.
const CHECKSUM: usize = 0x1e;

/// Reads and checks the descriptor of a group.
///
/// # Errors
///
/// `EIO`: its checksum is wrong. `EUCLEAN`: there is no such group.
pub(crate) fn group(view: &View<'_>, number: u32) -> Attempt<Group> {
    let superblock = &view.volume.superblock;
    if number >= superblock.groups {
        return Err(Errno::EUCLEAN.into());
    }
    let per_block = (superblock.block_size / superblock.descriptor_size) as u32;
    let block = view.block(descriptor_block(superblock, number / per_block)?, 1)?;
    let offset = (number % per_block) as usize * superblock.descriptor_size;
    let descriptor = part(&block.bytes, offset, superblock.descriptor_size)?;
    check_checksum(superblock, number, descriptor)?;
    let wide = |at| if descriptor.len() >= 64 { u32_at(descriptor, at) } else { Ok(0) };
    let unused_high = if descriptor.len() >= 64 { u16_at(descriptor, 0x32)? } else { 0 };
    Ok(Group {
        inode_table: joined(u32_at(descriptor, 0x8)?, wide(0x28)?),
        unused_inodes: u32::from(unused_high) << 16 | u32::from(u16_at(descriptor, 0x1c)?),
    })
}

/// The block with the `index`-th part of the descriptor table.
fn descriptor_block(superblock: &Superblock, index: u32) -> Result<u64> {
    let first = u64::from(superblock.first_data_block);
    // With 1 KiB blocks the superblock is in block 1 even when clusters make the first data block 0.
    let shift = u64::from(superblock.block_size == 1024 && first == 0);
    let is_meta = superblock.incompatible.contains(Incompatible::META_GROUPS) && index >= superblock.first_meta_group;
    if !is_meta {
        return Ok(first + shift + 1 + u64::from(index));
    }
    // With META_BG, each block of descriptors lies in the first of the groups that it describes, behind the superblock's copy.
    let per_block = superblock.block_size / superblock.descriptor_size;
    let group = index.checked_mul(per_block as u32).ok_or(Errno::EUCLEAN)?;
    let behind = u64::from(superblock.has_superblock(group)) + if group == 0 { shift } else { 0 };
    Ok(first + u64::from(group) * u64::from(superblock.blocks_per_group) + behind)
}

fn check_checksum(superblock: &Superblock, number: u32, descriptor: &[u8]) -> Result<()> {
    let expected = u16_at(descriptor, CHECKSUM)?;
    let (before, after) = (part(descriptor, 0, CHECKSUM)?, from(descriptor, CHECKSUM + 2)?);
    let found = if superblock.has_checksums() {
        let register = crc32c(superblock.checksum_seed, &number.to_le_bytes());
        crc32c(crc32c(crc32c(register, before), &[0, 0]), after) as u16
    } else if superblock.read_only_compatible.contains(ReadOnlyCompatible::GROUP_CHECKSUMS) {
        let register = crc16(crc16(!0, &superblock.uuid), &number.to_le_bytes());
        crc16(crc16(register, before), after)
    } else {
        return Ok(());
    };
    if found != expected {
        log::error!("ext4: the checksum of the descriptor of group {number} is wrong");
        return Err(Errno::EIO);
    }
    Ok(())
}
