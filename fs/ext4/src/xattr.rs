//! Extended attributes: names with small values, kept behind the inode's fields and in one block of their own.
//!
//! A name's prefix is stored as a number. A value stands in the same place as its entry, or, with the feature for large values, in
//! an inode of its own. Access control lists are stored shorter than programs see them, and are translated.
//!
//! Layout: "ext4 Data Structures and Algorithms", Extended Attributes; acl(5), `linux/posix_acl_xattr.h`. Next: `inline.rs`.

use alloc::vec::Vec;

use abi::{Errno, Result};

use crate::bytes::{from, part, u8_at, u16_at, u32_at};
use crate::checksum::crc32c;
use crate::extent::map;
use crate::inode::{BASE_SIZE, Flags, extra_size, with_bytes};
use crate::node::{Node, Role};
use crate::view::{Attempt, View};

const MAGIC: u32 = 0xea02_0000;
/// Length of an entry without its name.
const ENTRY: usize = 16;
/// Length of what stands before the first entry of a block.
const BLOCK_HEADER: usize = 32;
/// The longest value, as in xattr(7).
const VALUE_LIMIT: u32 = 65_536;

/// The prefixes that programs see, by number.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// The number of the prefix `system.`, under which inline content is kept, unseen by programs.
pub(crate) const SYSTEM: u8 = 7;

/// An attribute's name and where its value is.
struct Attribute<'a> {
    prefix: u8,
    name: &'a [u8],
    offset: usize,
    inode: u32,
    len: u32,
}

/// Entries one behind the other, until four zero bytes.
struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn step(&mut self) -> Result<Option<Attribute<'a>>> {
        if self.at + 4 > self.bytes.len() || u32_at(self.bytes, self.at)? == 0 {
            return Ok(None);
        }
        let entry = from(self.bytes, self.at)?;
        let name_length = usize::from(u8_at(entry, 0)?);
        let attribute = Attribute {
            prefix: u8_at(entry, 1)?,
            name: part(entry, ENTRY, name_length)?,
            offset: u16_at(entry, 2)?.into(),
            inode: u32_at(entry, 4)?,
            len: u32_at(entry, 8)?,
        };
        self.at += (ENTRY + name_length).next_multiple_of(4);
        Ok(Some(attribute))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>>;

    fn next(&mut self) -> Option<Result<Attribute<'a>>> {
        self.step().transpose()
    }
}

/// One of the two places for attributes: its bytes, where entries begin, and from where offsets of values count.
struct Place {
    bytes: Vec<u8>,
    entries: usize,
}

impl Place {
    fn attributes(&self) -> Attributes<'_> {
        Attributes { bytes: &self.bytes, at: self.entries }
    }
}

/// The places where a node keeps attributes.
fn places(view: &View<'_>, node: &Node) -> Attempt<impl Iterator<Item = Place> + use<>> {
    Ok([in_inode(view, node)?, in_block(view, node)?].into_iter().flatten())
}

fn in_inode(view: &View<'_>, node: &Node) -> Attempt<Option<Place>> {
    with_bytes(view, node.number(), |bytes| {
        let start = BASE_SIZE + extra_size(bytes)?;
        if start == BASE_SIZE || start + 4 > bytes.len() || u32_at(bytes, start)? != MAGIC {
            return Ok(None);
        }
        Ok(Some(Place { bytes: from(bytes, start + 4)?.to_vec(), entries: 0 }))
    })
}

fn in_block(view: &View<'_>, node: &Node) -> Attempt<Option<Place>> {
    const CHECKSUM: usize = 16;
    if node.attribute_block == 0 {
        return Ok(None);
    }
    let block = view.block(node.attribute_block, 1)?;
    if u32_at(&block.bytes, 0)? != MAGIC {
        return Err(damaged(node).into());
    }
    let role = Role::Attributes as u64;
    if view.volume.superblock.has_checksums() && !block.is_verified(role) {
        let register = crc32c(view.volume.superblock.checksum_seed, &block.number.to_le_bytes());
        let register = crc32c(crc32c(register, part(&block.bytes, 0, CHECKSUM)?), &[0; 4]);
        if crc32c(register, from(&block.bytes, CHECKSUM + 4)?) != u32_at(&block.bytes, CHECKSUM)? {
            log::error!("ext4: the checksum of block {}, attributes, is wrong", block.number);
            return Err(Errno::EIO.into());
        }
        block.set_verified(role);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(block.bytes.len()).map_err(|_| Errno::ENOMEM)?;
    bytes.extend_from_slice(&block.bytes);
    Ok(Some(Place { bytes, entries: BLOCK_HEADER }))
}

/// The value of an attribute, by its whole name.
///
/// # Errors
///
/// `ENODATA`: none of that name. `EOPNOTSUPP`: no such prefix. `EUCLEAN`, `EIO`: damaged.
pub(crate) fn get(view: &View<'_>, node: &Node, name: &[u8]) -> Attempt<Vec<u8>> {
    let is_list = |prefix| matches!(prefix, 2 | 3);
    let found = PREFIXES.into_iter().find_map(|(prefix, text)| {
        let rest = name.strip_prefix(text)?;
        (rest.is_empty() == is_list(prefix)).then_some((prefix, rest))
    });
    let (prefix, rest) = found.ok_or(Errno::EOPNOTSUPP)?;
    let value = find(view, node, prefix, rest)?;
    Ok(if is_list(prefix) { access_list(&value).map_err(|_| damaged(node))? } else { value })
}

/// The value of an attribute, by the number of its prefix and the rest of its name.
pub(crate) fn find(view: &View<'_>, node: &Node, prefix: u8, name: &[u8]) -> Attempt<Vec<u8>> {
    for place in places(view, node)? {
        for attribute in place.attributes() {
            let attribute = attribute.map_err(|_| damaged(node))?;
            if attribute.prefix == prefix && attribute.name == name {
                return value(view, node, &place, &attribute);
            }
        }
    }
    Err(Errno::ENODATA.into())
}

/// The names of all attributes, each ended by a zero byte, as listxattr(2) gives them.
///
/// # Errors
///
/// `EUCLEAN`, `EIO`: damaged.
pub(crate) fn list(view: &View<'_>, node: &Node) -> Attempt<Vec<u8>> {
    let mut names = Vec::new();
    for place in places(view, node)? {
        for attribute in place.attributes() {
            let attribute = attribute.map_err(|_| damaged(node))?;
            if let Some((_, prefix)) = PREFIXES.into_iter().find(|(number, _)| *number == attribute.prefix) {
                names.try_reserve(prefix.len() + attribute.name.len() + 1).map_err(|_| Errno::ENOMEM)?;
                names.extend_from_slice(prefix);
                names.extend_from_slice(attribute.name);
                names.push(0);
            }
        }
    }
    Ok(names)
}

fn value(view: &View<'_>, node: &Node, place: &Place, attribute: &Attribute<'_>) -> Attempt<Vec<u8>> {
    if attribute.len > VALUE_LIMIT {
        return Err(damaged(node).into());
    }
    if attribute.inode != 0 {
        return value_of_inode(view, attribute.inode, attribute.len as usize);
    }
    let bytes = part(&place.bytes, attribute.offset, attribute.len as usize).map_err(|_| damaged(node))?;
    Ok(bytes.to_vec())
}

/// A value that is kept as the content of an inode.
fn value_of_inode(view: &View<'_>, number: u32, len: usize) -> Attempt<Vec<u8>> {
    let node = view.volume.inode(view, number)?;
    if !node.flags.contains(Flags::ATTRIBUTE_VALUE) {
        return Err(damaged(&node).into());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    while bytes.len() < len {
        let logical = bytes.len() / view.volume.superblock.block_size;
        let run = map(view, &node, logical as u64)?;
        let block = view.block(run.first.ok_or_else(|| damaged(&node))?, 1)?;
        let wanted = (len - bytes.len()).min(block.bytes.len());
        bytes.extend_from_slice(part(&block.bytes, 0, wanted)?);
    }
    Ok(bytes)
}

/// Translates an access control list from the way it is stored (version 1, ids only where they mean something) to the way
/// programs see it (version 2, an id in every entry).
fn access_list(stored: &[u8]) -> Result<Vec<u8>> {
    const NO_ID: u32 = !0;
    if u32_at(stored, 0)? != 1 {
        return Err(Errno::EUCLEAN);
    }
    let mut list = 2u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at < stored.len() {
        let names_somebody = matches!(u16_at(stored, at)?, 0x2 | 0x8);
        list.extend_from_slice(part(stored, at, 4)?);
        let id = if names_somebody { u32_at(stored, at + 4)? } else { NO_ID };
        list.extend_from_slice(&id.to_le_bytes());
        at += if names_somebody { 8 } else { 4 };
    }
    Ok(list)
}

fn damaged(node: &Node) -> Errno {
    log::error!("ext4: the attributes of inode {} are damaged", node.number());
    Errno::EUCLEAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_list_is_translated() {
        let stored = [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0];
        let expected = [
            [2, 0, 0, 0].as_slice(),
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 0xe8, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
        ];
        assert_eq!(access_list(&stored), Ok(expected.concat()));
        assert_eq!(access_list(&stored[..11]), Err(Errno::EUCLEAN), "cut");
    }
}
