//! Block devices: disks.
//!
//! A [`Request`] owns the pages it moves. [`BlockDevice::submit`] takes it and returns a future; dropping that future orphans the
//! request, whose pages stay with the driver until the device is done with them. So nobody ever reuses memory that a device may
//! still write to.
//!
//! Sectors are [`SECTOR_SIZE`] bytes everywhere, whatever the device calls a block.
//!
//! Beside the contract: [`FakeDisk`], a disk for tests; [`FaultInjector`] and [`Tracer`], which wrap any disk; and `conformance`, the
//! suite that every driver runs on itself.
//!
//! Next: `drivers/ramdisk`, the driver to copy. Exercise: what would go wrong if a request lent a `&mut [u8]` instead?

#[doc(hidden)]
pub mod conformance;
mod fake;
mod fault_injector;
mod tracer;

pub use fake::{FakeDisk, Pick};
pub use fault_injector::{FaultInjector, Faults, Which};
pub use tracer::{Counts, Tracer};

use alloc::vec::Vec;

use crate::hw::{PAGE_SIZE, Page};
use crate::{BoxFuture, Errno, Result};

/// The unit of addresses and lengths, in bytes.
pub const SECTOR_SIZE: usize = 512;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Disk to memory.
    Read,
    /// Memory to disk; done when the device has taken it, perhaps into a volatile cache.
    Write,
    /// Everything written before is on stable storage when this is done. Has no segments.
    Flush,
}

/// A part of a page that a request moves: `offset + len` lies within the page, both are multiples of [`SECTOR_SIZE`].
#[derive(Clone, Debug)]
pub struct Segment {
    /// The page, owned by the request for as long as the device may reach it.
    pub page: Page,
    /// First byte within the page.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Segment {
    /// A whole page.
    pub fn whole(page: Page) -> Segment {
        Segment { page, offset: 0, len: PAGE_SIZE }
    }
}

/// One transfer between a device and memory.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// The first sector.
    pub sector: u64,
    /// The memory, in order; consecutive segments meet consecutive sectors.
    pub segments: Vec<Segment>,
}

impl Request {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Whether it moves nothing, as a flush.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Checks it against a device: every driver calls this first.
    ///
    /// # Errors
    ///
    /// `EINVAL`: a segment leaves its page or is not made of sectors; too many segments; a flush with segments or a transfer
    /// without. `EIO`: beyond the end of the device. `EROFS`: a write to a device that cannot be written.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let moves = self.operation != Operation::Flush;
        if moves == self.segments.is_empty() || self.segments.len() > geometry.max_segments {
            return Err(Errno::EINVAL);
        }
        for segment in &self.segments {
            let inside = segment.offset <= PAGE_SIZE && segment.len <= PAGE_SIZE - segment.offset;
            if !inside || segment.len == 0 || !(segment.offset | segment.len).is_multiple_of(SECTOR_SIZE) {
                return Err(Errno::EINVAL);
            }
        }
        if self.operation == Operation::Write && geometry.read_only {
            return Err(Errno::EROFS);
        }
        let end = self.sector.checked_add((self.len() / SECTOR_SIZE) as u64).ok_or(Errno::EIO)?;
        if end > geometry.sectors { Err(Errno::EIO) } else { Ok(()) }
    }
}

/// What a device is like; fixed while it exists.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Its size in sectors.
    pub sectors: u64,
    /// The most segments of one request; at least 1.
    pub max_segments: usize,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A disk.
pub trait BlockDevice: Send + Sync {
    /// What the device is like.
    fn geometry(&self) -> Geometry;

    /// Carries the request out; resolves when the device is done with it. Requests may complete in any order.
    ///
    /// # Errors
    ///
    /// Those of [`Request::check`]; `EIO` when the device reports a failure or has gone; `ENOMEM` when there is no memory for the
    /// request's own bookkeeping.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future orphans the request: it may still be carried out, and its pages are kept until it is.
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>>;
}
