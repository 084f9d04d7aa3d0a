//! The superblock: what a volume is like, checked before anything else of it is believed.
//!
//! Features come in three sets. *Compatible* ones may be ignored; of *read-only compatible* ones a reader need not know; an
//! *incompatible* one that is not known here makes the volume unreadable, and mounting it is refused.
//!
//! Layout: "ext4 Data Structures and Algorithms", The Super Block. Next: `group.rs`.

use abi::{Errno, Result};
use bitflags::bitflags;

use crate::bytes::{joined, part, u8_at, u16_at, u32_at};
use crate::checksum::{START, crc32c};

/// Where it lies on the device, in bytes.
pub(crate) const OFFSET: u64 = 1024;
/// Its length in bytes.
pub(crate) const LEN: usize = 1024;
/// Its magic number, which is also the type in statfs(2).
pub(crate) const MAGIC: u16 = 0xef53;

bitflags! {
    /// Features that a reader has to know.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Incompatible: u32 {
        const FILE_TYPE = 0x2;
        const RECOVER = 0x4;
        const META_GROUPS = 0x10;
        const EXTENTS = 0x40;
        const WIDE = 0x80;
        const MULTI_MOUNT_PROTECTION = 0x100;
        const FLEXIBLE_GROUPS = 0x200;
        const ATTRIBUTE_INODES = 0x400;
        const CHECKSUM_SEED = 0x2000;
        const LARGE_DIRECTORIES = 0x4000;
        const INLINE_DATA = 0x8000;
    }

    /// Features that only a writer has to know; those that change how something is read.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct ReadOnlyCompatible: u32 {
        const SPARSE_SUPERBLOCKS = 0x1;
        const HUGE_FILES = 0x8;
        const GROUP_CHECKSUMS = 0x10;
        const CLUSTERS = 0x200;
        const METADATA_CHECKSUMS = 0x400;
        const _ = !0;
    }

    /// Features that may be ignored; those that concern us.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Compatible: u32 {
        const JOURNAL = 0x4;
        const SPARSE_SUPERBLOCKS_2 = 0x200;
        const _ = !0;
    }
}

/// The content of the superblock, checked.
pub(crate) struct Superblock {
    pub(crate) compatible: Compatible,
    pub(crate) incompatible: Incompatible,
    pub(crate) read_only_compatible: ReadOnlyCompatible,
    /// In bytes: a power of two from 1,024 to 65,536.
    pub(crate) block_size: usize,
    /// Blocks per cluster, the unit of allocation.
    pub(crate) blocks_per_cluster: u64,
    pub(crate) blocks: u64,
    pub(crate) free_clusters: u64,
    pub(crate) inodes: u32,
    pub(crate) free_inodes: u32,
    pub(crate) first_data_block: u32,
    pub(crate) blocks_per_group: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) groups: u32,
    pub(crate) inode_size: usize,
    pub(crate) descriptor_size: usize,
    pub(crate) first_meta_group: u32,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) reserved_descriptor_blocks: u16,
    pub(crate) overhead_clusters: u32,
    pub(crate) journal_inode: u32,
    pub(crate) uuid: [u8; 16],
    /// What every metadata checksum starts from.
    pub(crate) checksum_seed: u32,
    pub(crate) hash_seed: [u32; 4],
    /// Whether names are hashed as if their bytes were unsigned.
    pub(crate) hashes_unsigned: bool,
}

impl Superblock {
    /// Reads and checks the superblock of a device of `device_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not such a volume, a feature that is not known, or numbers that make no sense. `EIO`: its checksum is wrong.
    pub(crate) fn parse(bytes: &[u8], device_bytes: u64) -> Result<Superblock> {
        if u16_at(bytes, 0x38)? != MAGIC {
            log::debug!("ext4: no superblock on this device");
            return Err(Errno::EINVAL);
        }
        let revised = u32_at(bytes, 0x4c)? >= 1;
        // Revision 0 has neither features nor a size of inodes.
        let feature = |at| if revised { u32_at(bytes, at) } else { Ok(0) };
        let incompatible = known_features(feature(0x60)?)?;
        let read_only_compatible = ReadOnlyCompatible::from_bits_retain(feature(0x64)?);
        if read_only_compatible.contains(ReadOnlyCompatible::METADATA_CHECKSUMS) {
            check_checksum(bytes)?;
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(part(bytes, 0x68, 16)?);
        let wide = incompatible.contains(Incompatible::WIDE);
        let pair = |low, high| Ok(joined(u32_at(bytes, low)?, if wide { u32_at(bytes, high)? } else { 0 }));
        let log_block_size = u32_at(bytes, 0x18)?;
        if log_block_size > 6 {
            return refuse("the block size");
        }
        let clustered = read_only_compatible.contains(ReadOnlyCompatible::CLUSTERS);
        let log_cluster_size = if clustered { u32_at(bytes, 0x1c)? } else { log_block_size };
        let blocks_per_cluster = log_cluster_size
            .checked_sub(log_block_size)
            .filter(|shift| *shift <= 20)
            .map(|shift| 1 << shift)
            .ok_or_else(|| wrong("the cluster size"))?;
        let mut superblock = Superblock {
            compatible: Compatible::from_bits_retain(feature(0x5c)?),
            incompatible,
            read_only_compatible,
            block_size: 1024 << log_block_size,
            blocks_per_cluster,
            blocks: pair(0x4, 0x150)?,
            free_clusters: pair(0xc, 0x158)?,
            inodes: u32_at(bytes, 0x0)?,
            free_inodes: u32_at(bytes, 0x10)?,
            first_data_block: u32_at(bytes, 0x14)?,
            blocks_per_group: u32_at(bytes, 0x20)?,
            inodes_per_group: u32_at(bytes, 0x28)?,
            groups: 0,
            inode_size: if revised { u16_at(bytes, 0x58)?.into() } else { 128 },
            descriptor_size: if wide { u16_at(bytes, 0xfe)?.into() } else { 32 },
            first_meta_group: u32_at(bytes, 0x104)?,
            backup_groups: [u32_at(bytes, 0x24c)?, u32_at(bytes, 0x250)?],
            reserved_descriptor_blocks: u16_at(bytes, 0xce)?,
            overhead_clusters: u32_at(bytes, 0x248)?,
            journal_inode: u32_at(bytes, 0xe0)?,
            uuid,
            checksum_seed: if incompatible.contains(Incompatible::CHECKSUM_SEED) {
                u32_at(bytes, 0x270)?
            } else {
                crc32c(START, &uuid)
            },
            hash_seed: hash_seed(bytes)?,
            hashes_unsigned: u32_at(bytes, 0x160)? & 0x2 != 0,
        };
        superblock.groups = superblock.check_geometry(device_bytes)?;
        let state = u16_at(bytes, 0x3a)?;
        if state & 0x2 != 0 {
            log::warn!("ext4: the volume is marked as having errors; run e2fsck");
        }
        Ok(superblock)
    }

    /// Whether metadata carries CRC-32C checksums.
    pub(crate) fn has_checksums(&self) -> bool {
        self.read_only_compatible.contains(ReadOnlyCompatible::METADATA_CHECKSUMS)
    }

    /// Whether a group begins with a copy of the superblock.
    pub(crate) fn has_superblock(&self, group: u32) -> bool {
        let is_power_of = |base: u32| {
            let mut power = 1u64;
            while power < u64::from(group) {
                power *= u64::from(base);
            }
            power == u64::from(group)
        };
        if group == 0 {
            return true;
        }
        if self.compatible.contains(Compatible::SPARSE_SUPERBLOCKS_2) {
            return self.backup_groups.contains(&group);
        }
        !self.read_only_compatible.contains(ReadOnlyCompatible::SPARSE_SUPERBLOCKS)
            || group == 1
            || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// Checks that the numbers fit together and the device; returns the number of groups.
    fn check_geometry(&self, device_bytes: u64) -> Result<u32> {
        let bits = self.block_size as u64 * 8;
        // Only 1 KiB blocks leave block 0 to the boot loader.
        if self.first_data_block > u32::from(self.block_size == 1024) {
            return refuse("the first data block");
        }
        if !self.inode_size.is_power_of_two() || !(128..=self.block_size).contains(&self.inode_size) {
            return refuse("the size of an inode");
        }
        if !self.descriptor_size.is_power_of_two()
            || self.descriptor_size > self.block_size
            || self.descriptor_size < 32
        {
            return refuse("the size of a group descriptor");
        }
        if self.incompatible.contains(Incompatible::WIDE) && self.descriptor_size < 64 {
            return refuse("the size of a group descriptor");
        }
        let group_limit = bits.saturating_mul(self.blocks_per_cluster);
        if self.blocks_per_group == 0 || u64::from(self.blocks_per_group) > group_limit {
            return refuse("the size of a group");
        }
        if self.inodes_per_group == 0 || u64::from(self.inodes_per_group) > bits {
            return refuse("the number of inodes of a group");
        }
        let bytes = self.blocks.checked_mul(self.block_size as u64).ok_or_else(|| wrong("the number of blocks"))?;
        if bytes > device_bytes {
            log::error!("ext4: the volume has {bytes} bytes, but its device only {device_bytes}");
            return Err(Errno::EINVAL);
        }
        let data =
            self.blocks.checked_sub(self.first_data_block.into()).ok_or_else(|| wrong("the number of blocks"))?;
        let groups = data.div_ceil(self.blocks_per_group.into());
        let groups = u32::try_from(groups).ok().filter(|groups| *groups > 0).ok_or_else(|| wrong("the groups"))?;
        if u64::from(groups) * u64::from(self.inodes_per_group) != u64::from(self.inodes) {
            return refuse("the number of inodes");
        }
        Ok(groups)
    }

    /// Blocks that statfs(2) does not count, because they hold the format itself.
    pub(crate) fn overhead_blocks(&self) -> u64 {
        if self.overhead_clusters != 0 {
            return u64::from(self.overhead_clusters).saturating_mul(self.blocks_per_cluster);
        }
        let tables = u64::from(self.inodes_per_group).saturating_mul(self.inode_size as u64) / self.block_size as u64;
        let descriptors = (u64::from(self.groups) * self.descriptor_size as u64).div_ceil(self.block_size as u64);
        let copies = self.superblock_copies();
        u64::from(self.first_data_block)
            .saturating_add((tables + 2).saturating_mul(self.groups.into()))
            .saturating_add((1 + descriptors + u64::from(self.reserved_descriptor_blocks)).saturating_mul(copies))
    }

    fn superblock_copies(&self) -> u64 {
        let sparse = self.read_only_compatible.contains(ReadOnlyCompatible::SPARSE_SUPERBLOCKS)
            || self.compatible.contains(Compatible::SPARSE_SUPERBLOCKS_2);
        if !sparse {
            return self.groups.into();
        }
        let powers = |base: u32| core::iter::successors(Some(base), move |power| power.checked_mul(base));
        let candidates = [0, 1].into_iter().chain([3, 5, 7].into_iter().flat_map(powers)).chain(self.backup_groups);
        candidates.filter(|group| *group < self.groups && self.has_superblock(*group)).count() as u64
    }
}

/// Refuses features that are not known here, by name where they have one.
fn known_features(bits: u32) -> Result<Incompatible> {
    let unknown = bits & !Incompatible::all().bits();
    if unknown == 0 {
        return Ok(Incompatible::from_bits_truncate(bits));
    }
    const NAMES: [(u32, &str); 6] = [
        (0x1, "compression"),
        (0x8, "journal_dev"),
        (0x1000, "dirdata"),
        (0x1_0000, "encrypt"),
        (0x2_0000, "casefold"),
        (!0x3_1009, "one without a name here"),
    ];
    for (_, name) in NAMES.into_iter().filter(|(bit, _)| unknown & bit != 0) {
        log::error!("ext4: the volume has a feature that is not known here: {name} (bits {unknown:#x})");
    }
    Err(Errno::EINVAL)
}

fn check_checksum(bytes: &[u8]) -> Result<()> {
    if u8_at(bytes, 0x175)? != 1 {
        return refuse("the type of checksums");
    }
    if crc32c(START, part(bytes, 0, 0x3fc)?) != u32_at(bytes, 0x3fc)? {
        log::error!("ext4: the checksum of the superblock is wrong");
        return Err(Errno::EIO);
    }
    Ok(())
}

fn hash_seed(bytes: &[u8]) -> Result<[u32; 4]> {
    Ok([u32_at(bytes, 0xec)?, u32_at(bytes, 0xf0)?, u32_at(bytes, 0xf4)?, u32_at(bytes, 0xf8)?])
}

fn wrong(what: &str) -> Errno {
    log::error!("ext4: {what} in the superblock is wrong");
    Errno::EINVAL
}

fn refuse<T>(what: &str) -> Result<T> {
    Err(wrong(what))
}
