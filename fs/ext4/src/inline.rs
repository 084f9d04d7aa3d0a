//! Content so small that it stands in the inode: 60 bytes in place of the map, the rest as an attribute that programs do not see.
//!
//! A folder kept this way begins with its parent's number, and its entries never cross from one part to the other.
//!
//! Layout: "ext4 Data Structures and Algorithms", Inline Data. Next: `content.rs`.

use alloc::vec::Vec;

use abi::Errno;
use fs::DirectoryEntry;

use crate::bytes::from;
use crate::directory::{collect, find_in};
use crate::inode::MAP_SIZE;
use crate::node::Node;
use crate::view::{Attempt, Need, View};
use crate::xattr;

/// Where a folder's entries begin.
const PARENT: usize = 4;

/// The part of the content that does not fit into the map.
fn rest(view: &View<'_>, node: &Node) -> Attempt<Vec<u8>> {
    match xattr::find(view, node, xattr::SYSTEM, b"data") {
        Err(Need::Errno(Errno::ENODATA)) => Ok(Vec::new()),
        other => other,
    }
}

/// The whole content of a file.
pub(crate) fn content(view: &View<'_>, node: &Node) -> Attempt<Vec<u8>> {
    let mut bytes = node.map.to_vec();
    bytes.extend_from_slice(&rest(view, node)?);
    bytes.truncate(usize::try_from(node.size()).unwrap_or(usize::MAX));
    Ok(bytes)
}

/// Finds a name in a folder.
pub(crate) fn find(view: &View<'_>, node: &Node, name: &[u8]) -> Attempt<u32> {
    let found = match find_in(view, node, from(&node.map, PARENT)?, name)? {
        Some(number) => Some(number),
        None => find_in(view, node, &rest(view, node)?, name)?,
    };
    found.ok_or(Errno::ENOENT.into())
}

/// The entries of a folder from `position` on.
pub(crate) fn read(view: &View<'_>, node: &Node, position: u64) -> Attempt<Vec<DirectoryEntry>> {
    let mut entries = collect(view, node, from(&node.map, PARENT)?, PARENT as u64, position)?;
    entries.extend(collect(view, node, &rest(view, node)?, MAP_SIZE as u64, position)?);
    Ok(entries)
}
