//! A disk made of memory: the driver to copy.
//!
//! It has no hardware, but the shape of every driver. [`start`] returns the disk, which its users share, and `run`, the future
//! that the kernel spawns and that does the work. Between the two stands a bounded channel, in the place of a device's queue:
//!
//! ```text
//!   submit(): check ─► send(Job) ─► wait for the reply                    (dropped here, the job still owns its pages)
//!                         │                ▲
//!   run():            receive() ─► copy ─► reply
//! ```
//!
//! What a driver with hardware does differently: it receives `Mmio`, `IrqLine` and `Dma` in `start`, rings a doorbell instead of
//! sending, and its `run` waits for the interrupt instead of the channel. See `drivers/virtio`.
//!
//! Pages are taken when they are first written; what was never written reads as zeros.
//!
//! Next: `drivers/virtio/src/lib.rs`. Exercise: make the disk forget pages that are written full of zeros.
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::future::Future;

use drivers::block::{BlockDevice, Geometry, Operation, Request, SECTOR_SIZE};
use drivers::hw::{PAGE_SIZE, Page, PageSource};
use drivers::{BoxFuture, Errno, Result};
use executor::sync::channel::{Receiver, Sender, channel};

/// Requests that may wait to be served; more wait in `submit`.
const QUEUE_LENGTH: usize = 64;
const SECTORS_OF_A_PAGE: u64 = (PAGE_SIZE / SECTOR_SIZE) as u64;

/// A disk made of memory.
pub struct RamDisk {
    geometry: Geometry,
    jobs: Sender<Job>,
}

/// A request on its way, and where its result goes. It owns the request: whoever submitted it may be gone.
struct Job {
    request: Request,
    reply: Sender<Result<()>>,
}

/// Makes a disk of so many sectors. The kernel spawns the returned future, which runs until the disk is dropped.
pub fn start(
    sectors: u64,
    source: &'static dyn PageSource,
) -> (Arc<RamDisk>, impl Future<Output = ()> + Send + 'static) {
    let (jobs, incoming) = channel(QUEUE_LENGTH);
    let geometry = Geometry { sectors, max_segments: 128, read_only: false };
    let memory = Memory { pages: BTreeMap::new(), source };
    (Arc::new(RamDisk { geometry, jobs }), run(memory, incoming))
}

impl BlockDevice for RamDisk {
    fn geometry(&self) -> Geometry {
        self.geometry.clone()
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            request.check(&self.geometry)?;
            let (reply, mut result) = channel(1);
            self.jobs.send(Job { request, reply }).await.map_err(|_| Errno::EIO)?;
            result.receive().await.unwrap_or(Err(Errno::EIO))
        })
    }
}

async fn run(mut memory: Memory, mut incoming: Receiver<Job>) {
    while let Some(Job { request, reply }) = incoming.receive().await {
        let result = memory.carry_out(&request);
        // The pages are given back before anybody learns that the request is done.
        drop(request);
        // Nobody may be waiting any more: then nobody is told.
        _ = reply.try_send(result);
    }
}

/// The disk's content: its pages by number, as far as they were ever written.
struct Memory {
    pages: BTreeMap<u64, Page>,
    source: &'static dyn PageSource,
}

impl Memory {
    fn carry_out(&mut self, request: &Request) -> Result<()> {
        let mut sector = request.sector;
        for segment in &request.segments {
            for offset in (segment.offset..segment.offset + segment.len).step_by(SECTOR_SIZE) {
                match request.operation {
                    Operation::Read => self.read(sector, &segment.page, offset),
                    Operation::Write => self.write(sector, &segment.page, offset)?,
                    Operation::Flush => {}
                }
                sector += 1;
            }
        }
        Ok(())
    }

    fn read(&self, sector: u64, into: &Page, offset: usize) {
        match self.pages.get(&(sector / SECTORS_OF_A_PAGE)) {
            Some(page) => copy_sector(page, offset_in_page(sector), into, offset),
            None => into.zero(offset, SECTOR_SIZE),
        }
    }

    fn write(&mut self, sector: u64, from: &Page, offset: usize) -> Result<()> {
        let number = sector / SECTORS_OF_A_PAGE;
        if !self.pages.contains_key(&number) {
            self.pages.insert(number, Page::allocate_zeroed(self.source).ok_or(Errno::ENOSPC)?);
        }
        copy_sector(from, offset, &self.pages[&number], offset_in_page(sector));
        Ok(())
    }
}

fn offset_in_page(sector: u64) -> usize {
    (sector % SECTORS_OF_A_PAGE) as usize * SECTOR_SIZE
}

fn copy_sector(from: &Page, from_offset: usize, to: &Page, to_offset: usize) {
    let mut bytes = [0; SECTOR_SIZE];
    from.read(from_offset, &mut bytes);
    to.write(to_offset, &bytes);
}

#[cfg(test)]
mod tests {
    use core::pin::Pin;
    use core::task::{Context, Waker};
    use std::cell::RefCell;
    use std::rc::Rc;

    use drivers::block::Segment;
    use drivers::block::conformance::{self, Subject};
    use drivers::hw::HostPages;

    use super::*;

    type Run = Rc<RefCell<Pin<Box<dyn Future<Output = ()>>>>>;

    fn disk(sectors: u64, source: &'static HostPages) -> (Arc<RamDisk>, Run) {
        let (disk, run) = start(sectors, source);
        (disk, Rc::new(RefCell::new(Box::pin(run))))
    }

    /// Lets the disk do all that it can.
    fn turn(run: &Run) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.borrow_mut().as_mut().poll(&mut context).is_pending(), "it runs as long as the disk is there");
    }

    fn pages() -> &'static HostPages {
        Box::leak(Box::new(HostPages::new()))
    }

    #[test]
    fn the_ram_disk_is_a_disk() {
        let pages = pages();
        conformance::check(&mut || {
            // The disk's own pages come from elsewhere, so that the suite can count its own.
            let (device, run) = disk(64, self::pages());
            let step = Box::new(move |_| {
                turn(&run);
                false
            });
            Subject { device, step, pages }
        });
    }

    #[test]
    fn a_disk_that_finds_no_memory_says_so_and_keeps_what_it_has() {
        let (source, theirs) = (pages(), pages());
        let (disk, run) = disk(64, source);
        source.set_limit(1);
        let write = |sector| {
            let page = Page::allocate_zeroed(theirs).expect("no limit");
            let request = Request { operation: Operation::Write, sector, segments: vec![Segment::whole(page)] };
            let mut future = disk.submit(request);
            let mut context = Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(&mut context).is_pending());
            turn(&run);
            future.as_mut().poll(&mut context)
        };
        assert_eq!(write(0), core::task::Poll::Ready(Ok(())));
        assert_eq!(write(8), core::task::Poll::Ready(Err(Errno::ENOSPC)));
        assert_eq!(write(0), core::task::Poll::Ready(Ok(())));
    }

    #[test]
    fn run_ends_when_the_disk_is_dropped() {
        let (disk, run) = disk(8, pages());
        drop(disk);
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.borrow_mut().as_mut().poll(&mut context).is_ready());
    }
}
