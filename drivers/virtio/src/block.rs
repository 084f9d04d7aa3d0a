//! virtio-blk: a disk.
//!
//! [`start`] negotiates, sets one request queue up and returns the disk and its run future. A request is a header (what, which
//! sector), the caller's pages, and a status byte; the request queue does the rest.
//!
//! Source: Virtio 1.2, section 5.2. Next: `console.rs`. Exercise: give the disk one request queue per CPU (feature MQ, bit 12).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};

use drivers::block::{BlockDevice, Geometry, Operation, Request};
use drivers::hw::{Dma, DmaAddr, Page};
use drivers::{BoxFuture, Errno, Result};
use log::{debug, error, info};

use crate::features;
use crate::request_queue::{Buffer, Direction, HEADER_SIZE, Payload, Plan, RequestQueue};
use crate::transport::{self, BoxedTransport, Concern, Lines, Transport, status};

/// What `Transport::device_type` says of a disk.
pub const DEVICE_TYPE: u32 = 2;

const HAS_MAX_SEGMENT_SIZE: u64 = 1 << 1;
const HAS_MAX_SEGMENTS: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const HAS_FLUSH: u64 = 1 << 9;
const FEATURES: u64 = features::RING | HAS_MAX_SEGMENT_SIZE | HAS_MAX_SEGMENTS | READ_ONLY | HAS_FLUSH;

/// Offsets in the configuration.
mod config {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const MAX_SEGMENT_SIZE: usize = 8;
    pub(super) const MAX_SEGMENTS: usize = 12;
}

/// Types of requests.
mod request {
    pub(super) const READ: u32 = 0;
    pub(super) const WRITE: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
}

/// Statuses of requests.
const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

/// Requests in flight and segments of one that are of use: 64 requests of up to 128 KiB.
const MAX_SLOTS: u16 = 64;
const MAX_SEGMENTS: usize = 32;
/// The length of a disk's id.
const ID_LENGTH: usize = 20;

/// A virtio disk.
pub struct VirtioBlock {
    transport: Arc<dyn Transport>,
    requests: Arc<RequestQueue<Owned>>,
    dma: Dma,
    sectors: AtomicU64,
    max_segments: usize,
    is_read_only: bool,
    has_flush: bool,
}

/// What a request owns while the disk may reach it.
enum Owned {
    Request(Request),
    Id(Page),
}

/// Attaches to a disk. The kernel spawns the returned future, which runs for ever.
///
/// # Errors
///
/// `ENODEV` if the device is none that this driver can use; `ENOMEM`; `ENOSPC` if there is no interrupt for it.
pub fn start(
    mut transport: BoxedTransport,
    dma: Dma,
) -> Result<(Arc<VirtioBlock>, impl Future<Output = ()> + Send + 'static)> {
    let features = transport::negotiate(&mut *transport, FEATURES)?;
    let number = |offset| u32::from_le_bytes(transport.config(offset));
    if features & HAS_MAX_SEGMENT_SIZE != 0 && (number(config::MAX_SEGMENT_SIZE) as usize) < drivers::hw::PAGE_SIZE {
        return Err(Errno::ENODEV);
    }
    let max_segments = match features & HAS_MAX_SEGMENTS {
        0 => 1,
        _ => (number(config::MAX_SEGMENTS) as usize).clamp(1, MAX_SEGMENTS),
    };
    let lines = transport.connect(1)?;
    let plan = Plan { queue: 0, group: 0, features, max_slots: MAX_SLOTS, max_buffers: max_segments };
    let prepared = RequestQueue::prepare(&mut *transport, &dma, &plan)?;
    let transport: Arc<dyn Transport> = Arc::from(transport);
    let disk = Arc::new(VirtioBlock {
        requests: Arc::new(prepared.finish(transport.clone())),
        sectors: AtomicU64::new(0),
        dma,
        max_segments,
        is_read_only: features & READ_ONLY != 0,
        has_flush: features & HAS_FLUSH != 0,
        transport,
    });
    disk.read_capacity();
    transport::start(&*disk.transport);
    info!("virtio-blk: {} sectors{}", disk.geometry().sectors, if disk.is_read_only { ", read-only" } else { "" });
    Ok((disk.clone(), run(disk, lines)))
}

async fn run(disk: Arc<VirtioBlock>, lines: Lines) {
    lines.serve(|concern| disk.interrupted(concern)).await;
}

impl VirtioBlock {
    /// The disk's serial number, as its owner set it; up to 20 bytes.
    ///
    /// # Errors
    ///
    /// `EIO`; `ENOMEM`; `EOPNOTSUPP` if the device has none.
    pub async fn id(&self) -> Result<[u8; ID_LENGTH]> {
        let page = Page::allocate_zeroed(self.dma.pages()).ok_or(Errno::ENOMEM)?;
        let header = header(request::GET_ID, 0);
        let slot = self.requests.slot().await?;
        let (status, payload) = slot.send(header, Direction::FromDevice, Owned::Id(page)).await?;
        check(status)?;
        let mut id = [0; ID_LENGTH];
        if let Owned::Id(page) = payload {
            page.read(0, &mut id);
        }
        Ok(id)
    }

    async fn carry_out(&self, request: Request) -> Result<()> {
        request.check(&self.geometry())?;
        if request.operation == Operation::Flush && !self.has_flush {
            // Without the feature the disk has no volatile cache.
            return Ok(());
        }
        let slot = self.requests.slot().await?;
        let (kind, direction) = match request.operation {
            Operation::Read => (request::READ, Direction::FromDevice),
            Operation::Write => (request::WRITE, Direction::ToDevice),
            Operation::Flush => (request::FLUSH, Direction::ToDevice),
        };
        let header = header(kind, request.sector);
        let (status, _pages) = slot.send(header, direction, Owned::Request(request)).await?;
        check(status)
    }

    fn interrupted(&self, concern: Concern) {
        let may_have_changed = self.transport.acknowledge() || concern == Concern::Configuration;
        if may_have_changed {
            self.configuration_changed();
        }
        if concern != Concern::Configuration
            && let Err(violation) = self.requests.service()
        {
            error!("virtio-blk: the device broke the protocol: {violation:?}");
            self.give_up();
        }
    }

    fn configuration_changed(&self) {
        if self.transport.status() & status::NEEDS_RESET != 0 {
            error!("virtio-blk: the device has failed");
            self.give_up();
        }
        self.read_capacity();
    }

    fn read_capacity(&self) {
        let sectors = u64::from_le_bytes(self.transport.config(config::CAPACITY));
        if self.sectors.swap(sectors, Ordering::Relaxed) != sectors {
            debug!("virtio-blk: {sectors} sectors");
        }
    }

    /// Stops the device; everything in flight ends with `EIO`, and so does everything that comes.
    fn give_up(&self) {
        let is_stopped = self.transport.stop();
        let payloads = self.requests.fail_all();
        if !is_stopped {
            error!("virtio-blk: the device cannot be stopped; its memory is lost");
            core::mem::forget(payloads);
        }
    }
}

impl BlockDevice for VirtioBlock {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.sectors.load(Ordering::Relaxed),
            max_segments: self.max_segments,
            read_only: self.is_read_only,
        }
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.carry_out(request))
    }
}

impl Drop for VirtioBlock {
    fn drop(&mut self) {
        if !self.transport.stop() {
            // Whatever the device may still reach is never used again.
            core::mem::forget(self.requests.clone());
        }
    }
}

impl Payload for Owned {
    fn buffer(&self, index: usize) -> Option<Buffer> {
        match self {
            Owned::Request(request) => request.segments.get(index).map(|segment| Buffer {
                address: DmaAddr(segment.page.device_address().0 + segment.offset as u64),
                len: segment.len as u32,
            }),
            Owned::Id(page) => (index == 0).then(|| Buffer { address: page.device_address(), len: ID_LENGTH as u32 }),
        }
    }
}

fn header(kind: u32, sector: u64) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn check(status: u8) -> Result<()> {
    match status {
        OK => Ok(()),
        UNSUPPORTED => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EIO),
    }
}

#[cfg(test)]
mod tests;
