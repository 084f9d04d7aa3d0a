//! A mounted volume: what all its inodes share.
//!
//! One `Arc` of each inode number is alive at a time. Inodes used lately are kept though nobody holds them, and their cached
//! content with them, until the volume is unmounted.
//!
//! Next: `view.rs`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use abi::{Errno, Result};
use drivers::block::{BlockDevice, SECTOR_SIZE};
use executor::sync::SpinLock;
use fs::inode::FileSystemStatus;
use fs::{FileSystem, Inode, Kind, PageSource};
use hashbrown::HashMap;

use crate::bytes::part;
use crate::cache::{Block, Clock};
use crate::disk::{Disk, read_superblock};
use crate::inode::DiskInode;
use crate::journal;
use crate::node::Node;
use crate::superblock::{Incompatible, LEN, MAGIC, OFFSET, Superblock};
use crate::view::{Attempt, View};

/// The number of the root folder.
const ROOT: u32 = 2;

/// How much memory a volume may use for what it need not keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of metadata blocks kept in memory.
    pub metadata_bytes: usize,
    /// Inodes kept, with their content, though nobody uses them.
    pub inodes: usize,
    /// Bytes of metadata read at once where more is likely to be wanted.
    pub read_ahead_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { metadata_bytes: 4 << 20, inodes: 1024, read_ahead_bytes: 128 << 10 }
    }
}

/// A mounted volume.
pub(crate) struct Volume {
    pub(crate) superblock: Superblock,
    pub(crate) disk: Disk,
    pub(crate) device_number: u64,
    pub(crate) blocks: Clock<u64, Block>,
    limits: Limits,
    /// Every inode in memory.
    alive: SpinLock<HashMap<u32, Weak<Node>>>,
    /// Inodes that are kept though nobody uses them.
    recent: Clock<u32, Node>,
    /// For the inodes, which hold their volume.
    this: Weak<Volume>,
}

/// A mounted volume as a whole.
pub struct Ext4 {
    volume: Arc<Volume>,
    root: Arc<Node>,
}

impl FileSystem for Ext4 {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        "ext4"
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // The kept inodes hold the volume, which holds them: this breaks the circle.
        self.volume.recent.close();
    }
}

/// Mounts the volume on a device read-only. `device_number` is what stat(2) will say; `pages` gives
/// the memory that is read into.
///
/// A journal that was not written back, as after a power cut, is taken into account in memory; the device is never written.
///
/// # Errors
///
/// `EINVAL`: not an ext2, ext3 or ext4 volume, or one with features that are not known here. `EUCLEAN`: it is damaged. `EIO`: the
/// device failed or a checksum is wrong. `ENOMEM`. The log says which.
pub async fn mount(
    device: Arc<dyn BlockDevice>,
    pages: &'static dyn PageSource,
    device_number: u64,
    limits: Limits,
) -> Result<Ext4> {
    let bytes = read_superblock(&*device, pages).await?;
    let device_bytes = device.geometry().sectors.saturating_mul(SECTOR_SIZE as u64);
    let superblock = Superblock::parse(&bytes, device_bytes)?;
    let disk = Disk::new(device.clone(), pages, superblock.block_size);
    let needs_recovery = superblock.incompatible.contains(Incompatible::RECOVER);
    let mut volume = Volume::new(superblock, disk, device_number, limits);
    if needs_recovery {
        // The journal's own file is never journaled, so the volume as it stands on disk serves to find and read it.
        let moved = Box::pin(journal::replay(&volume)).await?;
        let mut disk = Disk::new(device, pages, volume.superblock.block_size);
        disk.redirect(moved);
        let superblock = Box::pin(newest_superblock(&disk, device_bytes)).await?;
        volume = Volume::new(superblock, disk, device_number, limits);
    }
    let root = volume.attempt(|view| volume.inode(view, ROOT)).await?;
    if root.core().kind != Kind::Directory {
        log::error!("ext4: the root is not a folder");
        return Err(Errno::EUCLEAN);
    }
    Ok(Ext4 { volume, root })
}

/// The superblock as the journal has it.
async fn newest_superblock(disk: &Disk, device_bytes: u64) -> Result<Superblock> {
    let (block, offset) = (OFFSET / disk.block_size() as u64, OFFSET as usize % disk.block_size());
    let blocks = disk.read_blocks(block, 1).await?;
    let bytes = blocks.first().ok_or(Errno::EIO)?;
    let superblock = Superblock::parse(part(bytes, offset, LEN)?, device_bytes)?;
    if superblock.block_size != disk.block_size() {
        log::error!("ext4: the journal changes the block size");
        return Err(Errno::EUCLEAN);
    }
    Ok(superblock)
}

impl Volume {
    fn new(superblock: Superblock, disk: Disk, device_number: u64, limits: Limits) -> Arc<Volume> {
        let blocks = Clock::new((limits.metadata_bytes / superblock.block_size).max(16));
        Arc::new_cyclic(|this| Volume {
            superblock,
            disk,
            device_number,
            blocks,
            limits,
            alive: SpinLock::new(HashMap::new()),
            recent: Clock::new(limits.inodes.max(1)),
            this: this.clone(),
        })
    }

    /// Checks that blocks lie inside the volume.
    ///
    /// # Errors
    ///
    /// `EUCLEAN`: they do not.
    pub(crate) fn check_blocks(&self, first: u64, count: u64) -> Result<()> {
        let end = first.checked_add(count).ok_or(Errno::EUCLEAN)?;
        if first <= self.superblock.first_data_block.into() || end > self.superblock.blocks {
            log::error!("ext4: {count} blocks from {first} on lie outside the volume");
            return Err(Errno::EUCLEAN);
        }
        Ok(())
    }

    /// How many blocks to read at once where more are likely to be wanted.
    pub(crate) fn read_ahead(&self) -> usize {
        (self.limits.read_ahead_bytes / self.superblock.block_size).max(1)
    }

    /// Brings a block into memory, and what of the `count` blocks from it on is not there yet. Only the first matters to the
    /// caller: if the others cannot be read, that is not its error.
    pub(crate) async fn load(&self, first: u64, count: usize) -> Result<Arc<Block>> {
        let inside = usize::try_from(self.superblock.blocks.saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted = count.min(inside).max(1);
        let missing = (1..wanted).find(|step| self.blocks.contains(first + *step as u64)).unwrap_or(wanted);
        let mut read = self.disk.read_blocks(first, missing).await;
        if read.is_err() && missing > 1 {
            read = self.disk.read_blocks(first, 1).await;
        }
        let mut found = None;
        for (step, bytes) in read?.into_iter().enumerate() {
            let block = Block::new(first + step as u64, bytes);
            self.blocks.insert(block.number, block.clone());
            found.get_or_insert(block);
        }
        found.ok_or(Errno::EIO)
    }

    /// The inode of that number.
    ///
    /// # Errors
    ///
    /// `EUCLEAN`: no such inode, or a damaged one. `EIO`: a checksum is wrong.
    pub(crate) fn inode(&self, view: &View<'_>, number: u32) -> Attempt<Arc<Node>> {
        if let Some(node) = self.recent.get(number).or_else(|| self.alive.lock().get(&number)?.upgrade()) {
            return Ok(node);
        }
        let volume = self.this.upgrade().ok_or(Errno::EIO)?;
        let node = self.publish(Arc::new(Node::new(volume, DiskInode::read(view, number)?)));
        self.recent.insert(number, node.clone());
        Ok(node)
    }

    /// Makes `node` the one of its number, unless somebody was faster: then it is theirs. The loser is dropped after the lock.
    fn publish(&self, node: Arc<Node>) -> Arc<Node> {
        let mut alive = self.alive.lock();
        let entry = alive.entry(node.number()).or_default();
        if let Some(other) = entry.upgrade() {
            drop(alive);
            return other;
        }
        *entry = Arc::downgrade(&node);
        node
    }

    /// Called when an inode goes: forgets its number unless it has a successor.
    pub(crate) fn retire(&self, number: u32) {
        let mut alive = self.alive.lock();
        if alive.get(&number).is_some_and(|node| node.strong_count() == 0) {
            alive.remove(&number);
        }
    }

    /// For statfs(2).
    pub(crate) fn status(&self) -> FileSystemStatus {
        let superblock = &self.superblock;
        FileSystemStatus {
            magic: MAGIC.into(),
            block_size: superblock.block_size as u64,
            blocks: superblock.blocks.saturating_sub(superblock.overhead_blocks()),
            blocks_free: superblock.free_clusters.saturating_mul(superblock.blocks_per_cluster),
            files: superblock.inodes.into(),
            files_free: superblock.free_inodes.into(),
            name_length: 255,
        }
    }
}
