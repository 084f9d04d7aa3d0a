//! An inode as it stands on disk.
//!
//! The first 128 bytes are ext2's; behind them lie nanoseconds, wider checksums and small extended attributes, as far as the
//! inode's own "extra size" reaches.
//!
//! Layout: "ext4 Data Structures and Algorithms", Index Nodes. Next: `node.rs`, an inode in memory.

use alloc::sync::Arc;

use abi::{Errno, Result};
use bitflags::bitflags;
use fs::inode::{Attributes, Timestamp};
use fs::{Kind, PAGE_SIZE};

use crate::bytes::{from, joined, part, u16_at, u32_at};
use crate::cache::Block;
use crate::checksum::crc32c;
use crate::group::group;
use crate::superblock::{Incompatible, ReadOnlyCompatible, Superblock};
use crate::view::{Attempt, View};

/// The part that every inode has.
pub(crate) const BASE_SIZE: usize = 128;
/// Where its map of blocks stands.
const MAP: usize = 0x28;
/// Length of the map: 15 block numbers, or the root of a tree of extents, or a short link's target, or inline content.
pub(crate) const MAP_SIZE: usize = 60;

bitflags! {
    /// The flags of an inode; those that change how it is read.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Flags: u32 {
        const INDEX = 0x1000;
        const HUGE_FILE = 0x4_0000;
        const EXTENTS = 0x8_0000;
        const ATTRIBUTE_VALUE = 0x20_0000;
        const INLINE_DATA = 0x1000_0000;
        const _ = !0;
    }
}

/// What an inode says on disk, checked.
pub(crate) struct DiskInode {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) represents: u64,
    pub(crate) attributes: Attributes,
    pub(crate) flags: Flags,
    pub(crate) map: [u8; MAP_SIZE],
    /// The block with extended attributes, or 0.
    pub(crate) attribute_block: u64,
    /// What the checksums of this inode's own metadata start from.
    pub(crate) checksum_seed: u32,
    /// Whether a symbolic link's target stands in the map.
    pub(crate) is_short_link: bool,
}

impl DiskInode {
    /// Reads an inode.
    ///
    /// # Errors
    ///
    /// `EUCLEAN`: no such inode, not in use, or damaged. `EIO`: its checksum is wrong.
    pub(crate) fn read(view: &View<'_>, number: u32) -> Attempt<DiskInode> {
        let superblock = &view.volume.superblock;
        let (block, offset) = locate(view, number)?;
        let bytes = part(&block.bytes, offset, superblock.inode_size)?;
        let checksum_seed = check_checksum(superblock, number, bytes)?;
        DiskInode::parse(superblock, number, bytes, checksum_seed).map_err(|errno| {
            log::error!("ext4: inode {number} is damaged");
            errno.into()
        })
    }

    fn parse(superblock: &Superblock, number: u32, bytes: &[u8], checksum_seed: u32) -> Result<DiskInode> {
        let mode = u16_at(bytes, 0)?;
        let kind = Kind::from_mode(mode.into()).ok_or(Errno::EUCLEAN)?;
        let flags = Flags::from_bits_retain(u32_at(bytes, 0x20)?);
        let mut map = [0; MAP_SIZE];
        map.copy_from_slice(part(bytes, MAP, MAP_SIZE)?);
        let attribute_block = joined(u32_at(bytes, 0x68)?, u16_at(bytes, 0x76)?.into());
        let attributes = attributes(superblock, kind, mode, flags, bytes)?;
        if attributes.links == 0 {
            return Err(Errno::EUCLEAN);
        }
        let own_sectors = if attribute_block == 0 { 0 } else { superblock.block_size as u64 / 512 };
        let has_no_blocks = attributes.blocks <= own_sectors.saturating_mul(superblock.blocks_per_cluster);
        Ok(DiskInode {
            number,
            kind,
            represents: represents(kind, &map)?,
            is_short_link: kind == Kind::Symlink && has_no_blocks && !flags.contains(Flags::INLINE_DATA),
            attributes,
            flags,
            map,
            attribute_block,
            checksum_seed,
        })
    }
}

/// The block that holds an inode, and where in it.
fn locate(view: &View<'_>, number: u32) -> Attempt<(Arc<Block>, usize)> {
    let superblock = &view.volume.superblock;
    let index = number.checked_sub(1).filter(|_| number <= superblock.inodes).ok_or_else(|| {
        log::error!("ext4: there is no inode {number}");
        Errno::EUCLEAN
    })?;
    let (group_number, index) = (index / superblock.inodes_per_group, index % superblock.inodes_per_group);
    let group = group(view, group_number)?;
    let per_block = superblock.block_size / superblock.inode_size;
    let (step, offset) = (index as usize / per_block, index as usize % per_block * superblock.inode_size);
    let used = superblock.inodes_per_group.saturating_sub(group.unused_inodes).max(index + 1);
    // The neighbours are wanted soon: files of a folder have their inodes side by side. Windows are aligned, so that walking a
    // table upwards or downwards reads each part of it once.
    let window = view.volume.read_ahead();
    let end = (step / window * window + window).min((used as usize).div_ceil(per_block));
    let first = group.inode_table.checked_add(step as u64).ok_or(Errno::EUCLEAN)?;
    Ok((view.block(first, end.saturating_sub(step))?, offset))
}

/// The bytes of an inode, which [`DiskInode::read`] has found right before.
///
/// # Errors
///
/// `EUCLEAN`: no such inode.
pub(crate) fn with_bytes<T>(view: &View<'_>, number: u32, work: impl FnOnce(&[u8]) -> Result<T>) -> Attempt<T> {
    let (block, offset) = locate(view, number)?;
    Ok(work(part(&block.bytes, offset, view.volume.superblock.inode_size)?)?)
}

/// How far the fields behind the first 128 bytes reach.
pub(crate) fn extra_size(bytes: &[u8]) -> Result<usize> {
    if bytes.len() <= BASE_SIZE {
        return Ok(0);
    }
    let extra = usize::from(u16_at(bytes, BASE_SIZE)?);
    if extra.is_multiple_of(4) && extra <= bytes.len() - BASE_SIZE { Ok(extra) } else { Err(Errno::EUCLEAN) }
}

/// Checks the inode's checksum; returns the seed for that of its own metadata.
fn check_checksum(superblock: &Superblock, number: u32, bytes: &[u8]) -> Result<u32> {
    const LOW: usize = 0x7c;
    const HIGH: usize = 0x82;
    if !superblock.has_checksums() {
        return Ok(0);
    }
    let seed = crc32c(crc32c(superblock.checksum_seed, &number.to_le_bytes()), part(bytes, 0x64, 4)?);
    let has_high = extra_size(bytes).unwrap_or(0) >= HIGH + 2 - BASE_SIZE;
    let mut register = crc32c(crc32c(seed, part(bytes, 0, LOW)?), &[0, 0]);
    let mut expected = u32::from(u16_at(bytes, LOW)?);
    if has_high {
        register = crc32c(crc32c(register, part(bytes, LOW + 2, HIGH - LOW - 2)?), &[0, 0]);
        register = crc32c(register, from(bytes, HIGH + 2)?);
        expected |= u32::from(u16_at(bytes, HIGH)?) << 16;
    } else {
        register = crc32c(register, from(bytes, LOW + 2)?) & 0xffff;
    }
    if register != expected {
        log::error!("ext4: the checksum of inode {number} is wrong");
        return Err(Errno::EIO);
    }
    Ok(seed)
}

fn attributes(superblock: &Superblock, kind: Kind, mode: u16, flags: Flags, bytes: &[u8]) -> Result<Attributes> {
    let extra = extra_size(bytes)?;
    let large_directories = superblock.incompatible.contains(Incompatible::LARGE_DIRECTORIES);
    let has_high_size = kind == Kind::Regular || kind == Kind::Directory && large_directories;
    let size = joined(u32_at(bytes, 0x4)?, if has_high_size { u32_at(bytes, 0x6c)? } else { 0 });
    // Positions in files are signed; and the last page has to have an index.
    if size > i64::MAX as u64 - PAGE_SIZE as u64 {
        return Err(Errno::EUCLEAN);
    }
    let wide = |low, high| Ok(u32::from(u16_at(bytes, low)?) | u32::from(u16_at(bytes, high)?) << 16);
    Ok(Attributes {
        mode: u32::from(mode) & 0o7777,
        uid: wide(0x2, 0x78)?,
        gid: wide(0x18, 0x7a)?,
        size,
        links: u16_at(bytes, 0x1a)?.into(),
        blocks: sectors(superblock, flags, bytes)?,
        accessed: timestamp(bytes, extra, 0x8, 0x8c)?,
        modified: timestamp(bytes, extra, 0x10, 0x88)?,
        changed: timestamp(bytes, extra, 0xc, 0x84)?,
    })
}

/// Storage used, in units of 512 bytes.
fn sectors(superblock: &Superblock, flags: Flags, bytes: &[u8]) -> Result<u64> {
    let low = u32_at(bytes, 0x1c)?;
    if !superblock.read_only_compatible.contains(ReadOnlyCompatible::HUGE_FILES) {
        return Ok(low.into());
    }
    let count = joined(low, u16_at(bytes, 0x74)?.into());
    let unit = if flags.contains(Flags::HUGE_FILE) { superblock.block_size as u64 / 512 } else { 1 };
    Ok(count.saturating_mul(unit))
}

/// A time: 32 signed bits of seconds, and if the inode is large enough two more bits and nanoseconds.
fn timestamp(bytes: &[u8], extra_size: usize, at: usize, extra_at: usize) -> Result<Timestamp> {
    let extra = if extra_at + 4 <= BASE_SIZE + extra_size { u32_at(bytes, extra_at)? } else { 0 };
    let seconds = i64::from(u32_at(bytes, at)? as i32) + (i64::from(extra & 3) << 32);
    Ok(Timestamp { seconds, nanoseconds: (extra >> 2).min(999_999_999) })
}

/// Which device a node stands for: the old form in the first word of the map, the new one in the second.
fn represents(kind: Kind, map: &[u8]) -> Result<u64> {
    if !matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
        return Ok(0);
    }
    let old = u32_at(map, 0)?;
    Ok(if old != 0 { (old & 0xffff).into() } else { u32_at(map, 4)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_are_told() {
        let mut bytes = [0; 256];
        bytes[8..12].copy_from_slice(&(-5i32).to_le_bytes());
        assert_eq!(timestamp(&bytes, 32, 8, 0x8c), Ok(Timestamp { seconds: -5, nanoseconds: 0 }));
        bytes[0x8c..0x90].copy_from_slice(&(7 << 2 | 1u32).to_le_bytes());
        let late = Timestamp { seconds: (1 << 32) - 5, nanoseconds: 7 };
        assert_eq!(timestamp(&bytes, 32, 8, 0x8c), Ok(late));
        assert_eq!(timestamp(&bytes, 8, 8, 0x8c), Ok(Timestamp { seconds: -5, nanoseconds: 0 }), "not that large");
    }
}
