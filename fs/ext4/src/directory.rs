//! Folders: blocks of entries, each with the distance to the next.
//!
//! The index of a large folder (`hash_tree.rs`) is hidden in blocks that look like unused entries, so every folder can be read
//! block after block. Positions, as `telldir` gives them, are byte offsets: this volume does not change, so they stay good.
//!
//! Layout: "ext4 Data Structures and Algorithms", Linear Directories. Next: `hash_tree.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::{DirectoryEntry, Kind};

use crate::bytes::{from, part, u8_at, u16_at, u32_at};
use crate::cache::Block;
use crate::checksum::crc32c;
use crate::extent::{Run, map};
use crate::hash_tree;
use crate::inline;
use crate::inode::Flags;
use crate::node::{Node, Role};
use crate::superblock::Incompatible;
use crate::view::{Attempt, Need, View};

/// The part of an entry before its name.
const HEADER: usize = 8;
/// Length of the unused entry at the end of a block that holds its checksum.
pub(crate) const TAIL: usize = 12;
/// So many blocks are looked through before others may run.
const BLOCKS_AT_ONCE: u64 = 64;
/// The most bytes of a folder that can be read: more cannot be made without the feature for large folders.
const SIZE_LIMIT: u64 = 1 << 31;

/// An entry as it stands in its block.
pub(crate) struct Entry<'a> {
    pub(crate) number: u32,
    pub(crate) name: &'a [u8],
    /// What it is, if the format has it.
    kind: Option<Kind>,
    /// Where it begins and where the next one does.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The entries in use of a block, `.` and `..` left out.
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    has_kinds: bool,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(view: &View<'_>, bytes: &'a [u8]) -> Entries<'a> {
        let has_kinds = view.volume.superblock.incompatible.contains(Incompatible::FILE_TYPE);
        Entries { bytes, at: 0, has_kinds }
    }

    /// The next entry, used or not; `None` at the end of the block.
    fn step(&mut self) -> Result<Option<Entry<'a>>> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let name_length = usize::from(u8_at(self.bytes, start + 6)?);
        let length = match u16_at(self.bytes, start + 4)? {
            // 65,536, in a volume with blocks of that size.
            0 | 0xffff if self.bytes.len() > 0xffff => 0x1_0000,
            length => usize::from(length),
        };
        let number = u32_at(self.bytes, start)?;
        let needed = if number == 0 { HEADER } else { HEADER + name_length };
        if length < needed || !length.is_multiple_of(4) || length > self.bytes.len() - start {
            return Err(Errno::EUCLEAN);
        }
        let code = if self.has_kinds { u8_at(self.bytes, start + 7)? } else { 0 };
        let name = if number == 0 { &[] } else { part(self.bytes, start + HEADER, name_length)? };
        self.at = start + length;
        Ok(Some(Entry { number, name, kind: kind(code), start, end: self.at }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Result<Entry<'a>>> {
        loop {
            match self.step() {
                Ok(None) => return None,
                Ok(Some(entry)) if entry.number == 0 || matches!(entry.name, b"." | b"..") => {}
                Ok(Some(entry)) if !is_a_name(entry.name) => return Some(Err(Errno::EUCLEAN)),
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(errno) => return Some(Err(errno)),
            }
        }
    }
}

fn is_a_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0)
}

fn kind(code: u8) -> Option<Kind> {
    Some(match code {
        1 => Kind::Regular,
        2 => Kind::Directory,
        3 => Kind::CharacterDevice,
        4 => Kind::BlockDevice,
        5 => Kind::Fifo,
        6 => Kind::Socket,
        7 => Kind::Symlink,
        _ => return None,
    })
}

/// Finds the number of the inode of that name.
///
/// `progress` keeps how far a search through all blocks has come, from one attempt to the next.
///
/// # Errors
///
/// `ENOENT`; `EUCLEAN`: the folder is damaged. `EIO`: a checksum is wrong.
pub(crate) fn find(view: &mut View<'_>, node: &Node, name: &[u8], progress: &mut u64) -> Attempt<u32> {
    if node.flags.contains(Flags::INLINE_DATA) {
        return inline::find(view, node, name);
    }
    if node.flags.contains(Flags::INDEX)
        && *progress == 0
        && let Some(answer) = hash_tree::find(view, node, name)?
    {
        return answer.ok_or(Errno::ENOENT.into());
    }
    let blocks = block_count(view, node)?;
    let pause_at = *progress + BLOCKS_AT_ONCE;
    while *progress < blocks {
        if *progress == pause_at {
            return Err(Need::Pause);
        }
        let block = block(view, node, *progress, view.volume.read_ahead())?;
        if let Some(number) = find_in(view, node, &block.bytes, name)? {
            return Ok(number);
        }
        view.release();
        *progress += 1;
    }
    Err(Errno::ENOENT.into())
}

/// Finds a name in one block.
pub(crate) fn find_in(view: &View<'_>, node: &Node, bytes: &[u8], name: &[u8]) -> Result<Option<u32>> {
    for entry in Entries::new(view, bytes) {
        let entry = entry.inspect_err(|_| damaged(node))?;
        if entry.name == name {
            return Ok(Some(entry.number));
        }
    }
    Ok(None)
}

/// Reads the entries of the first block at or behind `position` that has any; none at the end.
///
/// # Errors
///
/// `EUCLEAN`: the folder is damaged. `EIO`: a checksum is wrong.
pub(crate) fn read(view: &mut View<'_>, node: &Node, position: &mut u64) -> Attempt<Vec<DirectoryEntry>> {
    if node.flags.contains(Flags::INLINE_DATA) {
        return inline::read(view, node, *position);
    }
    let size = view.volume.superblock.block_size as u64;
    let blocks = block_count(view, node)?;
    let pause_at = *position / size + BLOCKS_AT_ONCE;
    while *position / size < blocks {
        let logical = *position / size;
        if logical == pause_at {
            return Err(Need::Pause);
        }
        let block = block(view, node, logical, view.volume.read_ahead())?;
        let entries = collect(view, node, &block.bytes, logical * size, *position)?;
        if !entries.is_empty() {
            return Ok(entries);
        }
        view.release();
        *position = (logical + 1) * size;
    }
    Ok(Vec::new())
}

/// The entries of `bytes`, which begin at position `base`, that lie at `position` or behind it.
pub(crate) fn collect(
    view: &View<'_>,
    node: &Node,
    bytes: &[u8],
    base: u64,
    position: u64,
) -> Attempt<Vec<DirectoryEntry>> {
    let mut found = Vec::new();
    for entry in Entries::new(view, bytes) {
        let entry = entry.inspect_err(|_| damaged(node))?;
        if base + (entry.start as u64) < position {
            continue;
        }
        let kind = match entry.kind {
            Some(kind) => kind,
            None => match view.volume.inode(view, entry.number) {
                Ok(inode) => inode.kind(),
                // Each entry may need another block: what is known so far is an answer too.
                Err(_) if !found.is_empty() => break,
                Err(need) => return Err(need),
            },
        };
        found.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let (name, next) = (entry.name.to_vec(), base + entry.end as u64);
        found.push(DirectoryEntry { name, number: entry.number.into(), kind, next });
    }
    Ok(found)
}

fn block_count(view: &View<'_>, node: &Node) -> Result<u64> {
    let size = node.size();
    if size > SIZE_LIMIT && !view.volume.superblock.incompatible.contains(Incompatible::LARGE_DIRECTORIES) {
        damaged(node);
        return Err(Errno::EUCLEAN);
    }
    Ok(size.div_ceil(view.volume.superblock.block_size as u64))
}

/// A block of a folder, its checksum checked. If it has to be read, so are up to `ahead` blocks from it on.
///
/// # Errors
///
/// `EUCLEAN`: a folder has no gaps. `EIO`: its checksum is wrong.
pub(crate) fn block(view: &View<'_>, node: &Node, logical: u64, ahead: usize) -> Attempt<Arc<Block>> {
    let Run { first: Some(first), count } = map(view, node, logical)? else {
        damaged(node);
        return Err(Errno::EUCLEAN.into());
    };
    let rest = node.size().div_ceil(view.volume.superblock.block_size as u64).saturating_sub(logical);
    let ahead = count.min(rest).min(ahead as u64) as usize;
    let block = view.block(first, ahead)?;
    let role = node.role(Role::Folder);
    if view.volume.superblock.has_checksums() && !block.is_verified(role) {
        let is_index = node.flags.contains(Flags::INDEX) && (logical == 0 || looks_like_index(&block.bytes)?);
        let is_right = if is_index {
            hash_tree::has_right_checksum(node, &block.bytes, logical == 0)
        } else {
            has_right_checksum(node, &block.bytes)
        };
        if is_right != Ok(true) {
            log::error!("ext4: the checksum of block {logical} of folder {} is wrong", node.number());
            return Err(Errno::EIO.into());
        }
        block.set_verified(role);
    }
    Ok(block)
}

/// Whether a block is an inner node of the index: one unused entry as long as the block.
fn looks_like_index(bytes: &[u8]) -> Result<bool> {
    let length = usize::from(u16_at(bytes, 4)?);
    let fills = length == bytes.len() || bytes.len() > 0xffff && matches!(length, 0 | 0xffff);
    Ok(u32_at(bytes, 0)? == 0 && fills)
}

/// Whether the checksum at the end of a block of entries is there and right.
fn has_right_checksum(node: &Node, bytes: &[u8]) -> Result<bool> {
    let start = bytes.len().saturating_sub(TAIL);
    let tail = from(bytes, start)?;
    let is_there = u32_at(tail, 0)? == 0 && u16_at(tail, 4)? == TAIL as u16 && u16_at(tail, 6)? == 0xde00;
    Ok(is_there && crc32c(node.checksum_seed, part(bytes, 0, start)?) == u32_at(tail, 8)?)
}

fn damaged(node: &Node) {
    log::error!("ext4: folder {} is damaged", node.number());
}
