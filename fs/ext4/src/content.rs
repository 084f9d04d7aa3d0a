//! Reading the content of files into pages.
//!
//! Pages that follow each other in the file mostly follow each other on the disk, so a call for several pages becomes few requests:
//! one for each stretch of the disk, all under way together.
//!
//! Next: `node.rs`.

use alloc::vec::Vec;

use abi::{Errno, Result};
use drivers::block::Segment;
use fs::{PAGE_SIZE, Page};
use futures_util::future::join_all;

use crate::extent::map;
use crate::inline;
use crate::inode::Flags;
use crate::node::Node;

/// A stretch of the disk that goes to (parts of) pages.
struct Stretch {
    block: u64,
    /// Bytes to leave out at its beginning.
    skip: usize,
    len: u64,
    segments: Vec<Segment>,
}

/// Fills `pages` with the content from page `first` on; what lies beyond the end of the file is zeroed.
///
/// # Errors
///
/// `EIO`: the device failed, or a checksum is wrong. `EUCLEAN`: the file's map is damaged. `ENOMEM`.
pub(crate) async fn read(node: &Node, first: u64, pages: &[Page]) -> Result<()> {
    let start = first.checked_mul(PAGE_SIZE as u64).ok_or(Errno::EINVAL)?;
    let end = start.checked_add((pages.len() * PAGE_SIZE) as u64).ok_or(Errno::EINVAL)?;
    let content_end = end.min(node.size()).max(start);
    if node.flags.contains(Flags::INLINE_DATA) {
        return read_inline(node, start, pages).await;
    }
    let stretches = plan(node, start, content_end, pages).await?;
    let disk = &node.volume.disk;
    for result in join_all(stretches.into_iter().map(|it| disk.read(it.block, it.skip, it.segments))).await {
        result?;
    }
    // Whole blocks were read; behind the end of the file they may hold anything.
    zero(pages, content_end - start, end - start);
    Ok(())
}

/// Finds what to read for the bytes `start..end` of the file, and zeroes its gaps.
async fn plan(node: &Node, start: u64, end: u64, pages: &[Page]) -> Result<Vec<Stretch>> {
    let block_size = node.volume.superblock.block_size as u64;
    // The unit in which the disk is read: no page is filled twice, no block that is smaller than a page is cut.
    let end = end.next_multiple_of(block_size.min(PAGE_SIZE as u64));
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut at = start;
    while at < end {
        let run = node.volume.attempt(|view| map(view, node, at / block_size)).await?;
        let skip = at % block_size;
        let len = run.count.saturating_mul(block_size).saturating_sub(skip).min(end - at);
        match run.first {
            None => zero(pages, at - start, at - start + len),
            Some(block) => {
                let place = block * block_size + skip;
                let joins = |last: &Stretch| last.block * block_size + last.skip as u64 + last.len == place;
                if !stretches.last().is_some_and(joins) {
                    stretches.push(Stretch { block, skip: skip as usize, len: 0, segments: Vec::new() });
                }
                if let Some(stretch) = stretches.last_mut() {
                    stretch.len += len;
                    stretch.segments.extend(parts(pages, at - start, at - start + len));
                }
            }
        }
        at += len;
    }
    Ok(stretches)
}

/// The pages, or parts of them, under the bytes `start..end`.
fn parts(pages: &[Page], start: u64, end: u64) -> impl Iterator<Item = Segment> + use<'_> {
    let (first, size) = ((start / PAGE_SIZE as u64) as usize, PAGE_SIZE as u64);
    pages.iter().enumerate().skip(first).map_while(move |(index, page)| {
        let base = index as u64 * size;
        let (from, to) = (start.max(base), end.min(base + size));
        (from < to).then(|| Segment { page: page.clone(), offset: (from - base) as usize, len: (to - from) as usize })
    })
}

fn zero(pages: &[Page], start: u64, end: u64) {
    for part in parts(pages, start, end) {
        part.page.zero(part.offset, part.len);
    }
}

async fn read_inline(node: &Node, start: u64, pages: &[Page]) -> Result<()> {
    let bytes = node.volume.attempt(|view| inline::content(view, node)).await?;
    for (index, page) in pages.iter().enumerate() {
        let from = usize::try_from(start).unwrap_or(usize::MAX).saturating_add(index * PAGE_SIZE).min(bytes.len());
        let part = &bytes[from..bytes.len().min(from.saturating_add(PAGE_SIZE))];
        page.write(0, part);
        page.zero(part.len(), PAGE_SIZE - part.len());
    }
    Ok(())
}
