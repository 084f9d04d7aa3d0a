//! Reading blocks of the volume from its device.
//!
//! A run of consecutive blocks is one request, as far as the device takes that many segments. Blocks that the journal has a
//! newer copy of are read from there (`journal.rs`).
//!
//! Next: `cache.rs`.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use drivers::block::{BlockDevice, Operation, Request, SECTOR_SIZE, Segment};
use fs::{PAGE_SIZE, Page, PageSource};

/// The first bytes of a block of the journal's own; a journaled copy that happened to begin like this has zeros there instead.
pub(crate) const JOURNAL_MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// Where the newest copy of a block is.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    /// The block that holds it.
    pub(crate) to: u64,
    /// Whether its first four bytes were replaced by zeros.
    pub(crate) is_escaped: bool,
}

/// The device, seen as blocks of the volume.
pub(crate) struct Disk {
    device: Arc<dyn BlockDevice>,
    pages: &'static dyn PageSource,
    block_size: usize,
    max_segments: usize,
    moved: BTreeMap<u64, Moved>,
}

impl Disk {
    pub(crate) fn new(device: Arc<dyn BlockDevice>, pages: &'static dyn PageSource, block_size: usize) -> Disk {
        let max_segments = device.geometry().max_segments.max(1);
        Disk { device, pages, block_size, max_segments, moved: BTreeMap::new() }
    }

    /// From now on reads these blocks from where their newest copy is.
    pub(crate) fn redirect(&mut self, moved: BTreeMap<u64, Moved>) {
        self.moved = moved;
    }

    pub(crate) fn pages(&self) -> &'static dyn PageSource {
        self.pages
    }

    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Reads consecutive bytes from `skip` bytes into `block` on. All lengths are multiples of a sector; the caller has checked
    /// that the blocks lie inside the volume, and the volume inside the device.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOMEM`.
    pub(crate) async fn read(&self, block: u64, skip: usize, segments: Vec<Segment>) -> Result<()> {
        if self.moved.is_empty() {
            return self.transfer(block, skip, segments).await;
        }
        let mut at = skip as u64;
        for segment in segments {
            let mut offset = segment.offset;
            let end = segment.offset + segment.len;
            while offset < end {
                let (current, inside) = (block + at / self.block_size as u64, at as usize % self.block_size);
                let len = (end - offset).min(self.block_size - inside);
                self.read_newest(current, inside, Segment { page: segment.page.clone(), offset, len }).await?;
                offset += len;
                at += len as u64;
            }
        }
        Ok(())
    }

    /// Reads a part of one block, wherever its newest copy is.
    async fn read_newest(&self, block: u64, inside: usize, segment: Segment) -> Result<()> {
        let Some(moved) = self.moved.get(&block).copied() else {
            return self.transfer(block, inside, alloc::vec![segment]).await;
        };
        let (page, offset) = (segment.page.clone(), segment.offset);
        self.transfer(moved.to, inside, alloc::vec![segment]).await?;
        if moved.is_escaped && inside == 0 {
            page.write(offset, &JOURNAL_MAGIC);
        }
        Ok(())
    }

    /// Reads bytes that follow each other on the device, in as few requests as it takes.
    async fn transfer(&self, block: u64, skip: usize, mut segments: Vec<Segment>) -> Result<()> {
        let mut sector = block
            .checked_mul((self.block_size / SECTOR_SIZE) as u64)
            .and_then(|sector| sector.checked_add((skip / SECTOR_SIZE) as u64))
            .ok_or(Errno::EIO)?;
        while !segments.is_empty() {
            let rest = segments.split_off(segments.len().min(self.max_segments));
            let request = Request { operation: Operation::Read, sector, segments };
            let sectors = (request.len() / SECTOR_SIZE) as u64;
            self.device.submit(request).await.inspect_err(|errno| {
                log::error!("ext4: reading {sectors} sectors from {sector} on failed: {}", errno.name());
            })?;
            sector += sectors;
            segments = rest;
        }
        Ok(())
    }

    /// Reads `count` blocks into memory of the kernel's own.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOMEM`.
    pub(crate) async fn read_blocks(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>> {
        let len = count.checked_mul(self.block_size).ok_or(Errno::ENOMEM)?;
        let mut segments = Vec::new();
        segments.try_reserve_exact(len.div_ceil(PAGE_SIZE)).map_err(|_| Errno::ENOMEM)?;
        for start in (0..len).step_by(PAGE_SIZE) {
            let page = Page::allocate(self.pages).ok_or(Errno::ENOMEM)?;
            segments.push(Segment { page, offset: 0, len: (len - start).min(PAGE_SIZE) });
        }
        let pages: Vec<Page> = segments.iter().map(|segment| segment.page.clone()).collect();
        self.read(first, 0, segments).await?;
        (0..count).map(|index| copied(&pages, index * self.block_size, self.block_size)).collect()
    }
}

/// `len` bytes of consecutive pages, from `start` on.
fn copied(pages: &[Page], start: usize, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    let mut done = 0;
    while done < len {
        let (page, offset) = ((start + done) / PAGE_SIZE, (start + done) % PAGE_SIZE);
        let part = (len - done).min(PAGE_SIZE - offset);
        pages[page].read(offset, &mut bytes[done..done + part]);
        done += part;
    }
    Ok(bytes)
}

/// Reads the superblock's bytes, before anything is known of the volume.
///
/// # Errors
///
/// `EINVAL`: the device is too small. `EIO`, `ENOMEM`.
pub(crate) async fn read_superblock(device: &dyn BlockDevice, pages: &'static dyn PageSource) -> Result<Vec<u8>> {
    use crate::superblock::{LEN, OFFSET};
    let sector = OFFSET / SECTOR_SIZE as u64;
    if device.geometry().sectors < sector + (LEN / SECTOR_SIZE) as u64 {
        return Err(Errno::EINVAL);
    }
    let page = Page::allocate(pages).ok_or(Errno::ENOMEM)?;
    let segments = alloc::vec![Segment { page: page.clone(), offset: 0, len: LEN }];
    device.submit(Request { operation: Operation::Read, sector, segments }).await?;
    copied(&[page], 0, LEN)
}
