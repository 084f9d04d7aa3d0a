//! The index of a large folder: a tree of name hashes that leads to the block with a name.
//!
//! The root stands in block 0 behind `.` and `..`, inner nodes in blocks that look like one unused entry. Each entry of the tree
//! says which block has the names from its hash on. Names of the same hash may run over into the next blocks; the lowest
//! bit of the hash there says so.
//!
//! Layout: "ext4 Data Structures and Algorithms", Hash Tree Directories. Next: `xattr.rs`.

use alloc::sync::Arc;

use abi::{Errno, Result};

use crate::bytes::{part, u8_at, u16_at, u32_at};
use crate::cache::Block;
use crate::checksum::crc32c;
use crate::directory;
use crate::hash::{Algorithm, hash};
use crate::node::Node;
use crate::superblock::{Incompatible, Superblock};
use crate::view::{Attempt, View};

/// Where the root's description stands: behind the entries `.` and `..`.
const INFO: usize = 24;
/// Where the entries of an inner node begin: behind the unused entry's header.
const INNER: usize = 8;
const ENTRY: usize = 8;
/// Length of the checksum behind the room for entries.
const TAIL: usize = 8;
/// So many blocks full of names of one hash are looked through, then the folder is taken for damaged.
const MAX_RUN: usize = 1024;

/// A node of the index.
struct Index<'a> {
    bytes: &'a [u8],
    /// Where its entries begin.
    base: usize,
    /// How many are in use; at least 1.
    count: usize,
    /// How many fit.
    room: usize,
}

impl<'a> Index<'a> {
    fn parse(bytes: &'a [u8], base: usize) -> Result<Index<'a>> {
        let (room, count) = (usize::from(u16_at(bytes, base)?), usize::from(u16_at(bytes, base + 2)?));
        let fits = count >= 1 && count <= room && base + room * ENTRY <= bytes.len();
        if fits { Ok(Index { bytes, base, count, room }) } else { Err(Errno::EUCLEAN) }
    }

    /// The node in block 0.
    fn root(bytes: &'a [u8]) -> Result<Index<'a>> {
        Index::parse(bytes, INFO + usize::from(u8_at(bytes, INFO + 5)?))
    }

    fn hash(&self, index: usize) -> Result<u32> {
        // The first entry's place is taken by the counts: it stands for the smallest hash.
        if index == 0 { Ok(0) } else { u32_at(self.bytes, self.base + index * ENTRY) }
    }

    fn block(&self, index: usize) -> Result<u64> {
        Ok((u32_at(self.bytes, self.base + index * ENTRY + 4)? & 0x0fff_ffff).into())
    }

    /// The last entry whose hash is not larger.
    fn find(&self, hash: u32) -> Result<usize> {
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = (low + high) / 2;
            if self.hash(middle)? <= hash { low = middle + 1 } else { high = middle }
        }
        Ok(low - 1)
    }
}

/// Finds a name's inode by the index. The outer `None`: the index cannot be used, so all blocks have to be looked through;
/// the inner one: there is no such name.
pub(crate) fn find(view: &View<'_>, node: &Node, name: &[u8]) -> Attempt<Option<Option<u32>>> {
    let root = block(view, node, 0)?;
    let Ok(Some((algorithm, is_unsigned, levels))) = description(&view.volume.superblock, &root.bytes) else {
        log::warn!("ext4: the index of folder {} is not usable", node.number());
        return Ok(None);
    };
    let hash = hash(name, algorithm, is_unsigned, &view.volume.superblock.hash_seed);
    // The way down, as the position in each node from the root on; moving to the next leaf moves the last one that can.
    let mut way = [Step { block: 0, index: 0 }; 4];
    let way = &mut way[..=levels];
    for level in 0..way.len() {
        let next = way[level].enter(view, node, |index| index.find(hash))?;
        if let Some(below) = way.get_mut(level + 1) {
            below.block = next;
        }
    }
    for _ in 0..MAX_RUN {
        let leaf = way[levels].target(view, node)?;
        let block = block(view, node, leaf)?;
        if let Some(number) = directory::find_in(view, node, &block.bytes, name)? {
            return Ok(Some(Some(number)));
        }
        if !advance(view, node, way, hash)? {
            return Ok(Some(None));
        }
    }
    log::error!("ext4: the index of folder {} runs in circles", node.number());
    Err(Errno::EUCLEAN.into())
}

/// A block of the folder. Names next to each other are rarely wanted together, so little is read ahead.
fn block(view: &View<'_>, node: &Node, logical: u64) -> Attempt<Arc<Block>> {
    directory::block(view, node, logical, view.volume.read_ahead() / 4)
}

/// A node on the way down, and the entry taken there.
#[derive(Clone, Copy)]
struct Step {
    block: u64,
    index: usize,
}

impl Step {
    /// Works with the node's entries.
    fn with<T>(&self, view: &View<'_>, node: &Node, work: impl FnOnce(&Index<'_>) -> Result<T>) -> Attempt<T> {
        let block = block(view, node, self.block)?;
        let index = if self.block == 0 { Index::root(&block.bytes) } else { Index::parse(&block.bytes, INNER) };
        Ok(index.and_then(|index| work(&index)).inspect_err(|_| {
            log::error!("ext4: the index of folder {} is damaged", node.number());
        })?)
    }

    /// Chooses an entry; returns the block it leads to.
    fn enter(
        &mut self,
        view: &View<'_>,
        node: &Node,
        choose: impl FnOnce(&Index<'_>) -> Result<usize>,
    ) -> Attempt<u64> {
        self.index = self.with(view, node, choose)?;
        self.target(view, node)
    }

    fn target(&self, view: &View<'_>, node: &Node) -> Attempt<u64> {
        self.with(view, node, |index| index.block(self.index))
    }
}

/// Moves to the next leaf if names of this hash go on there; otherwise says so.
fn advance(view: &View<'_>, node: &Node, way: &mut [Step], hash: u32) -> Attempt<bool> {
    for level in (0..way.len()).rev() {
        let next = way[level].index + 1;
        let found = way[level]
            .with(view, node, |index| if next < index.count { index.hash(next).map(Some) } else { Ok(None) })?;
        let Some(start) = found else { continue };
        if start & !1 != hash {
            return Ok(false);
        }
        way[level].index = next;
        for below in level + 1..way.len() {
            way[below].block = way[below - 1].target(view, node)?;
            way[below].index = 0;
        }
        return Ok(true);
    }
    Ok(false)
}

/// What the root says: how names are hashed, and how many levels of inner nodes there are. `None`: nothing that is known here.
fn description(superblock: &Superblock, root: &[u8]) -> Result<Option<(Algorithm, bool, usize)>> {
    let (version, length, levels) = (u8_at(root, INFO + 4)?, u8_at(root, INFO + 5)?, u8_at(root, INFO + 6)?);
    let max_levels = if superblock.incompatible.contains(Incompatible::LARGE_DIRECTORIES) { 3 } else { 2 };
    if length != 8 || levels >= max_levels || u32_at(root, INFO)? != 0 {
        return Ok(None);
    }
    let algorithm = match version % 3 {
        _ if version > 5 => return Ok(None),
        0 => Algorithm::Legacy,
        1 => Algorithm::HalfMd4,
        _ => Algorithm::Tea,
    };
    Ok(Some((algorithm, version >= 3 || superblock.hashes_unsigned, levels.into())))
}

/// Whether the checksum of a node of the index is right.
pub(crate) fn has_right_checksum(node: &Node, bytes: &[u8], is_root: bool) -> Result<bool> {
    let index = if is_root { Index::root(bytes)? } else { Index::parse(bytes, INNER)? };
    let tail = part(bytes, index.base + index.room * ENTRY, TAIL)?;
    let register = crc32c(node.checksum_seed, part(bytes, 0, index.base + index.count * ENTRY)?);
    let register = crc32c(crc32c(register, part(tail, 0, 4)?), &[0; 4]);
    Ok(register == u32_at(tail, 4)?)
}
