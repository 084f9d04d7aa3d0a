//! Where the content of a file is: trees of extents.
//!
//! An extent says that so many consecutive blocks of the file lie at consecutive blocks of the volume. They are kept sorted, in
//! nodes of a shallow tree whose root stands in the inode. A gap reads as zeros, and so does an extent that was reserved
//! but never written.
//!
//! Layout: "ext4 Data Structures and Algorithms", Extent Tree. Next: `block_map.rs`, the older way.

use alloc::sync::Arc;

use abi::{Errno, Result};

use crate::block_map;
use crate::bytes::{joined, part, u16_at, u32_at};
use crate::cache::Block;
use crate::checksum::crc32c;
use crate::inode::Flags;
use crate::node::{Node, Role};
use crate::view::{Attempt, View};

/// Consecutive blocks of a file, from the one asked for on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// The block of the volume where they begin; `None`: they read as zeros.
    pub(crate) first: Option<u64>,
    /// How many; at least 1.
    pub(crate) count: u64,
}

const MAGIC: u16 = 0xf30a;
const HEADER: usize = 12;
const ENTRY: usize = 12;
const MAX_DEPTH: u16 = 5;
/// An extent longer than this is one that was never written, and this much shorter.
const WRITTEN_LIMIT: u16 = 32_768;

/// Finds where block `logical` of a file is, and how many behind it go on in the same way.
///
/// # Errors
///
/// `EUCLEAN`: the tree is damaged, or leads out of the volume. `EIO`: a checksum is wrong.
pub(crate) fn map(view: &View<'_>, node: &Node, logical: u64) -> Attempt<Run> {
    let run = if node.flags.contains(Flags::EXTENTS) {
        find_extent(view, node, logical)?
    } else {
        block_map::find(view, node, logical)?
    };
    if let Some(first) = run.first {
        view.volume.check_blocks(first, run.count)?;
    }
    Ok(run)
}

fn find_extent(view: &View<'_>, node: &Node, logical: u64) -> Attempt<Run> {
    let Ok(logical) = u32::try_from(logical) else {
        return Ok(Run { first: None, count: 1 << 32 });
    };
    // The logical block where the next subtree begins: a gap at the end of this one reaches to there.
    let mut limit = 1 << 32;
    let mut depth = None;
    let mut block: Option<Arc<Block>> = None;
    // The depth falls by one with each step towards the leaves, or the tree is damaged.
    for _ in 0..=MAX_DEPTH {
        let bytes: &[u8] = block.as_ref().map_or(&node.map, |block| &block.bytes);
        let step = Entries::parse(bytes, depth).and_then(|entries| {
            depth = entries.depth.checked_sub(1);
            entries.step(logical, &mut limit)
        });
        match step.inspect_err(|_| log::error!("ext4: the extents of inode {} are damaged", node.number()))? {
            Step::Found(run) => return Ok(run),
            Step::Down(child) => block = Some(checked_block(view, node, child)?),
        }
    }
    Err(Errno::EUCLEAN.into())
}

/// Reads a node of the tree and checks its checksum, which stands behind the last entry that would fit.
fn checked_block(view: &View<'_>, node: &Node, number: u64) -> Attempt<Arc<Block>> {
    let block = view.block(number, 1)?;
    let role = node.role(Role::Extents);
    if !view.volume.superblock.has_checksums() || block.is_verified(role) {
        return Ok(block);
    }
    let tail = HEADER + ENTRY * usize::from(u16_at(&block.bytes, 4)?);
    if crc32c(node.checksum_seed, part(&block.bytes, 0, tail)?) != u32_at(&block.bytes, tail)? {
        log::error!("ext4: the checksum of block {number}, extents of inode {}, is wrong", node.number());
        return Err(Errno::EIO.into());
    }
    block.set_verified(role);
    Ok(block)
}

/// Where a step through the tree leads.
enum Step {
    Found(Run),
    Down(u64),
}

/// The entries of one node of the tree, sorted by logical block.
struct Entries<'a> {
    bytes: &'a [u8],
    count: usize,
    /// 0 in a leaf.
    depth: u16,
}

impl<'a> Entries<'a> {
    /// Checks the header of a node, which must have the depth that its parent promises.
    fn parse(bytes: &'a [u8], promised: Option<u16>) -> Result<Entries<'a>> {
        let (count, room, depth) = (u16_at(bytes, 2)?, u16_at(bytes, 4)?, u16_at(bytes, 6)?);
        let is_right = u16_at(bytes, 0)? == MAGIC
            && count <= room
            && HEADER + ENTRY * usize::from(room) <= bytes.len()
            && depth == promised.unwrap_or(depth)
            && depth <= MAX_DEPTH;
        if is_right { Ok(Entries { bytes, count: count.into(), depth }) } else { Err(Errno::EUCLEAN) }
    }

    fn entry(&self, index: usize) -> Result<&'a [u8]> {
        part(self.bytes, HEADER + ENTRY * index, ENTRY)
    }

    /// The first logical block of an entry.
    fn start(&self, index: usize) -> Result<u32> {
        u32_at(self.entry(index)?, 0)
    }

    /// How many entries begin at `logical` or before.
    fn count_up_to(&self, logical: u32) -> Result<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            if self.start(middle)? <= logical { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Finds the entry that `logical` falls under, and follows it.
    fn step(&self, logical: u32, limit: &mut u64) -> Result<Step> {
        let next = self.count_up_to(logical)?;
        if next < self.count {
            *limit = (*limit).min(self.start(next)?.into());
        }
        let gap = || {
            let count = limit.checked_sub(logical.into()).filter(|count| *count > 0).ok_or(Errno::EUCLEAN)?;
            Ok(Step::Found(Run { first: None, count }))
        };
        let Some(index) = next.checked_sub(1) else {
            return gap();
        };
        let entry = self.entry(index)?;
        if self.depth > 0 {
            return Ok(Step::Down(joined(u32_at(entry, 4)?, u16_at(entry, 8)?.into())));
        }
        let length = u16_at(entry, 4)?;
        let is_written = length <= WRITTEN_LIMIT;
        let length = u32::from(if is_written { length } else { length - WRITTEN_LIMIT });
        let inside = logical - self.start(index)?;
        match length.checked_sub(inside) {
            _ if length == 0 => Err(Errno::EUCLEAN),
            None | Some(0) => gap(),
            Some(count) => {
                let first = joined(u32_at(entry, 8)?, u16_at(entry, 6)?.into()) + u64::from(inside);
                Ok(Step::Found(Run { first: is_written.then_some(first), count: count.into() }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(depth: u16, entries: &[[u8; ENTRY]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [MAGIC, entries.len() as u16, entries.len() as u16, depth, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(entries.iter().flatten());
        bytes
    }

    fn extent(logical: u32, length: u16, first: u32) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&logical.to_le_bytes());
        entry[4..6].copy_from_slice(&length.to_le_bytes());
        entry[8..].copy_from_slice(&first.to_le_bytes());
        entry
    }

    fn find(entries: &[[u8; ENTRY]], logical: u32) -> Result<Run> {
        let bytes = node(0, entries);
        match Entries::parse(&bytes, None)?.step(logical, &mut (1 << 32))? {
            Step::Found(run) => Ok(run),
            Step::Down(_) => panic!("a leaf leads nowhere"),
        }
    }

    #[test]
    fn gaps_before_between_and_behind_extents_read_as_zeros() {
        let entries = [extent(10, 5, 100), extent(20, 5, 200)];
        assert_eq!(find(&entries, 0), Ok(Run { first: None, count: 10 }));
        assert_eq!(find(&entries, 12), Ok(Run { first: Some(102), count: 3 }));
        assert_eq!(find(&entries, 15), Ok(Run { first: None, count: 5 }));
        assert_eq!(find(&entries, 25), Ok(Run { first: None, count: (1 << 32) - 25 }));
    }

    #[test]
    fn an_extent_that_was_never_written_reads_as_zeros() {
        assert_eq!(find(&[extent(0, WRITTEN_LIMIT + 7, 100)], 2), Ok(Run { first: None, count: 5 }));
        assert_eq!(find(&[extent(0, WRITTEN_LIMIT, 100)], 2).map(|run| run.first), Ok(Some(102)));
    }

    #[test]
    fn a_node_that_lies_about_itself_is_refused() {
        assert_eq!(find(&[extent(0, 0, 100)], 0), Err(Errno::EUCLEAN), "an extent of no length");
        assert!(Entries::parse(&node(3, &[]), Some(2)).is_err(), "not the depth that was promised");
        let mut bytes = node(0, &[extent(0, 1, 100)]);
        bytes[4] = 9;
        assert!(Entries::parse(&bytes, None).is_err(), "more room than there is");
    }
}
