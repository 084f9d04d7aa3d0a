//! What a power cut leaves: changes that are in the journal and not yet in their places.
//!
//! Linux writes them to their places when it mounts. Rouse only reads, so it notes where the newest copy of each block is and reads
//! it from there: [`replay`] returns that table. A transaction counts if its commit block is there; a *revoked* block is one that was
//! freed since, and older copies of it must not come back.
//!
//! ```text
//!   log:  descriptor │ copies of the blocks it names … │ (more of these, revocations) │ commit │ next transaction …
//!         each begins with a magic number and the transaction's number; the log ends where these do not go on.
//! ```
//!
//! Unlike everything else on the volume, the journal is big-endian. Layout: "ext4 Data Structures and Algorithms", Journal (jbd2).
//! Refused: journals on other devices, fast commits. Not checked: the whole-transaction checksum of the old `journal_checksum`
//! option, which also Linux treats as a hint.
//!
//! Next: `fs/overlay`, which makes a volume writable that is not.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};

use crate::bytes::{part, u8_at};
use crate::checksum::{START, crc32c};
use crate::disk::{JOURNAL_MAGIC, Moved};
use crate::extent::map;
use crate::node::Node;
use crate::superblock::Compatible;
use crate::volume::Volume;

/// Length of what every block of the journal's own begins with: magic number, kind, transaction.
const HEADER: usize = 12;
/// Length of the checksum at the end of descriptors and revocations.
const TAIL: usize = 4;
/// So many blocks may be waiting in the journal: a bound for the table's memory.
const MAX_MOVED: usize = 1 << 18;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCKS: [u32; 2] = [3, 4];
const REVOCATION: u32 = 5;

const WIDE: u32 = 0x2;
const CHECKSUMS_2: u32 = 0x8;
const CHECKSUMS_3: u32 = 0x10;
/// Revocations, wide numbers, asynchronous commits, both kinds of checksums.
const KNOWN_FEATURES: u32 = 0x1 | WIDE | 0x4 | CHECKSUMS_2 | CHECKSUMS_3;

fn be32(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_be_bytes([u8_at(bytes, at)?, u8_at(bytes, at + 1)?, u8_at(bytes, at + 2)?, u8_at(bytes, at + 3)?]))
}

fn be16(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_be_bytes([u8_at(bytes, at)?, u8_at(bytes, at + 1)?]))
}

/// Reads the journal; returns where the newest copies of blocks are.
///
/// # Errors
///
/// `EINVAL`: a journal of a kind that is refused. `EUCLEAN`, `EIO`: it is damaged.
pub(crate) async fn replay(volume: &Volume) -> Result<BTreeMap<u64, Moved>> {
    let number = volume.superblock.journal_inode;
    if number == 0 || !volume.superblock.compatible.contains(Compatible::JOURNAL) {
        log::error!("ext4: the volume needs a journal that is on another device");
        return Err(Errno::EINVAL);
    }
    let node = volume.attempt(|view| volume.inode(view, number)).await?;
    // This happens once: boxes keep the future of the mount small.
    let mut log = Box::pin(Log::open(volume, node)).await?;
    let outcome = Box::pin(log.scan()).await?;
    let moved = outcome.surviving();
    log::info!("ext4: read {} blocks from the journal instead of their places", moved.len());
    Ok(moved)
}

/// The journal as a file, with what its superblock says.
struct Log<'v> {
    volume: &'v Volume,
    node: Arc<Node>,
    /// One behind the last block of the log, and its first.
    end: u32,
    first: u32,
    /// Where the oldest transaction begins (0: there is none), and its number.
    start: u32,
    sequence: u32,
    features: u32,
    checksum_seed: u32,
}

/// What the log says so far.
#[derive(Default)]
struct Outcome {
    /// By block: the number of the transaction with the newest copy, and where it is.
    copies: BTreeMap<u64, (u32, Moved)>,
    /// By block: the last transaction that revoked it.
    revoked: BTreeMap<u64, u32>,
}

impl Outcome {
    /// The copies that no later transaction revoked.
    fn surviving(self) -> BTreeMap<u64, Moved> {
        let Outcome { copies, revoked } = self;
        let is_revoked =
            |block: &u64, sequence: u32| revoked.get(block).is_some_and(|by| by.wrapping_sub(sequence) as i32 >= 0);
        let alive = copies.into_iter().filter(|(block, (sequence, _))| !is_revoked(block, *sequence));
        alive.map(|(block, (_, moved))| (block, moved)).collect()
    }

    fn take(&mut self, transaction: Transaction, sequence: u32) -> Result<()> {
        for (block, moved) in transaction.copies {
            self.copies.insert(block, (sequence, moved));
        }
        for block in transaction.revoked {
            self.revoked.insert(block, sequence);
        }
        if self.copies.len().max(self.revoked.len()) > MAX_MOVED {
            log::error!("ext4: too much waits in the journal; mount the volume on Linux first");
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}

/// A transaction whose commit was not seen yet.
#[derive(Default)]
struct Transaction {
    copies: Vec<(u64, Moved)>,
    revoked: Vec<u64>,
}

/// One block that a descriptor names.
struct Tag {
    block: u64,
    is_escaped: bool,
    checksum: u32,
}

impl Log<'_> {
    async fn open(volume: &Volume, node: Arc<Node>) -> Result<Log<'_>> {
        let mut log = Log { volume, node, end: 1, first: 0, start: 0, sequence: 0, features: 0, checksum_seed: 0 };
        let (_, bytes) = log.read(0).await?;
        let kind = be32(&bytes, 4)?;
        if !bytes.starts_with(&JOURNAL_MAGIC) || !SUPERBLOCKS.contains(&kind) {
            return Err(damaged());
        }
        if kind == SUPERBLOCKS[1] {
            log.features = be32(&bytes, 0x28)?;
            log.checksum_seed = crc32c(START, part(&bytes, 0x30, 16)?);
        }
        if log.features & !KNOWN_FEATURES != 0 {
            log::error!("ext4: the journal has features that are not known here ({:#x})", log.features);
            return Err(Errno::EINVAL);
        }
        (log.end, log.first) = (be32(&bytes, 0x10)?, be32(&bytes, 0x14)?);
        (log.sequence, log.start) = (be32(&bytes, 0x18)?, be32(&bytes, 0x1c)?);
        let blocks = log.node.size() / volume.superblock.block_size as u64;
        let fits = log.first >= 1 && log.first < log.end && u64::from(log.end) <= blocks;
        let starts_inside = log.start == 0 || (log.first..log.end).contains(&log.start);
        if be32(&bytes, 0xc)? as usize != volume.superblock.block_size || !fits || !starts_inside {
            return Err(damaged());
        }
        Ok(log)
    }

    /// A block of the journal: where it is on the volume, and its content.
    async fn read(&self, logical: u32) -> Result<(u64, Vec<u8>)> {
        let block = self.place(logical).await?;
        let mut blocks = Box::pin(self.volume.disk.read_blocks(block, 1)).await?;
        Ok((block, blocks.pop().ok_or(Errno::EIO)?))
    }

    async fn place(&self, logical: u32) -> Result<u64> {
        let run = self.volume.attempt(|view| map(view, &self.node, logical.into())).await?;
        run.first.ok_or_else(damaged)
    }

    fn after(&self, logical: u32) -> u32 {
        if logical + 1 >= self.end { self.first } else { logical + 1 }
    }

    /// Goes through the log from its start to the last commit.
    async fn scan(&mut self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut transaction = Transaction::default();
        let (mut at, mut sequence) = (self.start, self.sequence);
        // No block of the log is read twice: it may be full, but not fuller.
        let mut left = if self.start == 0 { 0 } else { self.end - self.first };
        while left > 0 {
            left -= 1;
            let (_, bytes) = self.read(at).await?;
            at = self.after(at);
            if !bytes.starts_with(&JOURNAL_MAGIC) || be32(&bytes, 8)? != sequence {
                break;
            }
            match be32(&bytes, 4)? {
                DESCRIPTOR if self.has_right_tail(&bytes)? => {
                    for tag in self.tags(&bytes)? {
                        left = left.checked_sub(1).ok_or_else(damaged)?;
                        self.take_copy(&mut transaction, &tag, at, sequence).await?;
                        at = self.after(at);
                    }
                }
                REVOCATION if self.has_right_tail(&bytes)? => self.take_revocations(&mut transaction, &bytes)?,
                COMMIT if self.has_right_commit(&bytes)? => {
                    outcome.take(core::mem::take(&mut transaction), sequence)?;
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(outcome)
    }

    /// Notes where the copy of a block is.
    ///
    /// # Errors
    ///
    /// `EIO`: its checksum is wrong, so nobody knows what the block should hold.
    async fn take_copy(&self, transaction: &mut Transaction, tag: &Tag, at: u32, sequence: u32) -> Result<()> {
        let (to, bytes) = self.read(at).await?;
        if self.has_checksums() {
            let found = crc32c(crc32c(self.checksum_seed, &sequence.to_be_bytes()), &bytes);
            let is_right = if self.features & CHECKSUMS_3 != 0 {
                found == tag.checksum
            } else {
                found as u16 == tag.checksum as u16
            };
            if !is_right {
                log::error!("ext4: the checksum of the journal's copy of block {} is wrong", tag.block);
                return Err(Errno::EIO);
            }
        }
        transaction.copies.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        transaction.copies.push((tag.block, Moved { to, is_escaped: tag.is_escaped }));
        Ok(())
    }

    fn tags(&self, bytes: &[u8]) -> Result<Vec<Tag>> {
        const ESCAPED: u32 = 1;
        const SAME_UUID: u32 = 2;
        const LAST: u32 = 8;
        let is_new = self.features & CHECKSUMS_3 != 0;
        let wide = self.features & WIDE != 0;
        let high_at = if is_new { 8 } else { 8 + 2 * usize::from(self.features & CHECKSUMS_2 != 0) };
        let size = if is_new { 16 } else { high_at + if wide { 4 } else { 0 } };
        let end = bytes.len() - if self.has_checksums() { TAIL } else { 0 };
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at + size <= end {
            let tag = part(bytes, at, size)?;
            let (flags, checksum) =
                if is_new { (be32(tag, 4)?, be32(tag, 12)?) } else { (be16(tag, 6)?.into(), be16(tag, 4)?.into()) };
            let high = if wide { be32(tag, if is_new { 8 } else { size - 4 })? } else { 0 };
            let block = u64::from(high) << 32 | u64::from(be32(tag, 0)?);
            tags.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            tags.push(Tag { block, is_escaped: flags & ESCAPED != 0, checksum });
            at += size + if flags & SAME_UUID != 0 { 0 } else { 16 };
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(tags)
    }

    fn take_revocations(&self, transaction: &mut Transaction, bytes: &[u8]) -> Result<()> {
        let wide = self.features & WIDE != 0;
        let size = if wide { 8 } else { 4 };
        let end = be32(bytes, HEADER)? as usize;
        if end > bytes.len() {
            return Err(damaged());
        }
        for at in (HEADER + 4..end).step_by(size) {
            let entry = part(bytes, at, size)?;
            let block = if wide {
                u64::from(be32(entry, 0)?) << 32 | u64::from(be32(entry, 4)?)
            } else {
                be32(entry, 0)?.into()
            };
            transaction.revoked.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            transaction.revoked.push(block);
        }
        Ok(())
    }

    fn has_checksums(&self) -> bool {
        self.features & (CHECKSUMS_2 | CHECKSUMS_3) != 0
    }

    /// Whether the checksum of a descriptor or revocation is right; if not, the block is left over from an earlier round.
    fn has_right_tail(&self, bytes: &[u8]) -> Result<bool> {
        self.has_right_checksum(bytes, bytes.len().saturating_sub(TAIL))
    }

    fn has_right_commit(&self, bytes: &[u8]) -> Result<bool> {
        self.has_right_checksum(bytes, 16)
    }

    /// Whether the checksum at `at`, of the block with zeros there, is right.
    fn has_right_checksum(&self, bytes: &[u8], at: usize) -> Result<bool> {
        if !self.has_checksums() {
            return Ok(true);
        }
        let register = crc32c(crc32c(self.checksum_seed, part(bytes, 0, at)?), &[0; 4]);
        Ok(crc32c(register, part(bytes, at + 4, bytes.len() - at - 4)?) == be32(bytes, at)?)
    }
}

fn damaged() -> Errno {
    log::error!("ext4: the journal is damaged");
    Errno::EUCLEAN
}
