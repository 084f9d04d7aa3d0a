//! A disk that counts and logs what passes through it: wraps any disk.
//!
//! Next: `drivers/ramdisk/src/lib.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{BlockDevice, Geometry, Operation, Request, SECTOR_SIZE};
use crate::{BoxFuture, Result};

/// What has passed through a [`Tracer`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Reads that succeeded.
    pub reads: u64,
    /// Sectors read.
    pub sectors_read: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Requests on their way now.
    pub in_flight: u64,
}

/// A disk between a disk and its user.
pub struct Tracer {
    disk: Arc<dyn BlockDevice>,
    name: &'static str,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    reads: AtomicU64,
    sectors_read: AtomicU64,
    writes: AtomicU64,
    sectors_written: AtomicU64,
    flushes: AtomicU64,
    failures: AtomicU64,
    in_flight: AtomicU64,
}

impl Tracer {
    /// Wraps `disk`, which the log calls `name`.
    pub fn new(disk: Arc<dyn BlockDevice>, name: &'static str) -> Tracer {
        Tracer { disk, name, totals: Totals::default() }
    }

    /// What has passed through so far.
    pub fn counts(&self) -> Counts {
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            reads: load(&self.totals.reads),
            sectors_read: load(&self.totals.sectors_read),
            writes: load(&self.totals.writes),
            sectors_written: load(&self.totals.sectors_written),
            flushes: load(&self.totals.flushes),
            failures: load(&self.totals.failures),
            in_flight: load(&self.totals.in_flight),
        }
    }

    fn count(&self, operation: Operation, sectors: u64) {
        let (requests, moved) = match operation {
            Operation::Read => (&self.totals.reads, Some(&self.totals.sectors_read)),
            Operation::Write => (&self.totals.writes, Some(&self.totals.sectors_written)),
            Operation::Flush => (&self.totals.flushes, None),
        };
        requests.fetch_add(1, Ordering::Relaxed);
        if let Some(moved) = moved {
            moved.fetch_add(sectors, Ordering::Relaxed);
        }
    }
}

/// Counts a request as in flight for as long as somebody waits for it.
struct InFlight<'t>(&'t AtomicU64);

impl<'t> InFlight<'t> {
    fn new(total: &'t AtomicU64) -> InFlight<'t> {
        total.fetch_add(1, Ordering::Relaxed);
        InFlight(total)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BlockDevice for Tracer {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _in_flight = InFlight::new(&self.totals.in_flight);
            let (operation, sector, sectors) =
                (request.operation, request.sector, (request.len() / SECTOR_SIZE) as u64);
            let result = self.disk.submit(request).await;
            log::trace!("{}: {operation:?} of {sectors} sectors at {sector}: {result:?}", self.name);
            match result {
                Ok(()) => self.count(operation, sectors),
                Err(_) => _ = self.totals.failures.fetch_add(1, Ordering::Relaxed),
            }
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::block::conformance::{self, Subject};
    use crate::block::{FakeDisk, Pick, Segment};
    use crate::hw::{HostPages, Page};

    fn pages() -> &'static HostPages {
        Box::leak(Box::new(HostPages::new()))
    }

    #[test]
    fn a_traced_disk_is_a_disk() {
        let pages = pages();
        conformance::check(&mut || {
            let disk = Arc::new(FakeDisk::new(64).by_hand());
            let device = Arc::new(Tracer::new(disk.clone(), "disk"));
            Subject { device, step: Box::new(move |pick| disk.complete(pick)), pages }
        });
    }

    #[test]
    fn successes_failures_and_requests_on_their_way_are_counted_apart() {
        let disk = Arc::new(FakeDisk::new(64).by_hand());
        let tracer = Tracer::new(disk.clone(), "disk");
        let page = Page::allocate_zeroed(pages()).expect("no limit");
        let read = Request { operation: Operation::Read, sector: 0, segments: alloc::vec![Segment::whole(page)] };
        let mut first = tracer.submit(read.clone());
        let mut second = tracer.submit(read);
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        assert_eq!(tracer.counts(), Counts { in_flight: 2, ..Counts::default() });
        disk.complete(Pick::Newest);
        disk.fail_next(1);
        disk.complete(Pick::Oldest);
        assert_eq!((first.now_or_never(), second.now_or_never()), (Some(Err(crate::Errno::EIO)), Some(Ok(()))));
        assert_eq!(tracer.counts(), Counts { reads: 1, sectors_read: 8, failures: 1, ..Counts::default() });
    }
}
