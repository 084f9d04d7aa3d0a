//! Where the content of a file is, the way of ext2 and ext3: a table of block numbers.
//!
//! Twelve numbers stand in the inode; the thirteenth names a block full of numbers, the fourteenth a block of such blocks, the
//! fifteenth a block of those. Zero reads as zeros, on each level.
//!
//! Layout: "ext4 Data Structures and Algorithms", Direct/Indirect Block Addressing. Next: `content.rs`.

use crate::bytes::u32_at;
use crate::extent::Run;
use crate::inode::MAP_SIZE;
use crate::node::Node;
use crate::view::{Attempt, View};

/// Numbers in the inode that lead straight to content.
const DIRECT: u64 = 12;

/// Finds where block `logical` of a file is, and how many behind it follow it there.
///
/// # Errors
///
/// `EUCLEAN`: the table leads out of the volume.
pub(crate) fn find(view: &View<'_>, node: &Node, logical: u64) -> Attempt<Run> {
    if logical < DIRECT {
        return in_table(&node.map, logical, DIRECT);
    }
    let per_block = (view.volume.superblock.block_size / 4) as u64;
    let mut inside = logical - DIRECT;
    let mut span = per_block;
    for level in 1..=3u64 {
        if inside < span {
            let root = u32_at(&node.map, (DIRECT + level - 1) as usize * 4)?;
            return below(view, root, inside, span, per_block);
        }
        inside -= span;
        span = span.saturating_mul(per_block);
    }
    // Beyond what a table can name there is nothing.
    Ok(Run { first: None, count: u64::from(u32::MAX) })
}

/// Follows the numbers from `table`, which covers `span` blocks of the file, to the one for the `inside`-th of them.
fn below(view: &View<'_>, mut table: u32, mut inside: u64, mut span: u64, per_block: u64) -> Attempt<Run> {
    loop {
        if table == 0 {
            return Ok(Run { first: None, count: span - inside });
        }
        let block = view.block(table.into(), 1)?;
        if span == per_block {
            return in_table(&block.bytes, inside, per_block);
        }
        span /= per_block;
        table = u32_at(&block.bytes, (inside / span) as usize * 4)?;
        inside %= span;
    }
}

/// The run that begins at number `index` of a table of `len` numbers.
fn in_table(table: &[u8], index: u64, len: u64) -> Attempt<Run> {
    debug_assert!(table.len() as u64 >= len * 4 && table.len() >= MAP_SIZE);
    let first = u32_at(table, index as usize * 4)?;
    let mut count = 1;
    while index + count < len {
        let expected = if first == 0 { 0 } else { u64::from(first) + count };
        if u64::from(u32_at(table, (index + count) as usize * 4)?) != expected {
            break;
        }
        count += 1;
    }
    Ok(Run { first: (first != 0).then_some(first.into()), count })
}
