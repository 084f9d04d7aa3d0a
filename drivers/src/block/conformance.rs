//! What every disk must do, as a suite that each driver runs on itself, over a fake of its device.
//!
//! The suite polls by hand, so that it can drop a request at every point at which it may be dropped, and it polls a future again
//! only when its waker was woken: a driver that forgets to wake hangs here, not in the field.
//!
//! Next: `drivers/ramdisk/src/lib.rs`, which passes it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use super::{BlockDevice, Operation, Pick, Request, SECTOR_SIZE, Segment};
use crate::hw::{HostPages, PAGE_SIZE, Page};
use crate::{BoxFuture, Errno, Result};

/// A disk to be checked: empty, writable, of at least 64 sectors.
pub struct Subject {
    /// The disk.
    pub device: Arc<dyn BlockDevice>,
    /// Lets the device finish one request in flight, and the driver learn of it; `false` when there is nothing to do.
    pub step: Box<dyn FnMut(Pick) -> bool>,
    /// Where the suite takes its pages from.
    pub pages: &'static HostPages,
}

/// More than a driver keeps in flight: some of so many wait for a slot.
const MANY: usize = 150;
/// More steps than any request takes.
const PATIENCE: usize = 10_000;

/// Runs the suite; panics where a disk fails it. Each part gets a fresh disk.
pub fn check(make: &mut dyn FnMut() -> Subject) {
    bytes_that_were_written_are_read_back(make());
    segments_of_part_pages_meet_consecutive_sectors(make());
    bad_requests_are_refused(make());
    requests_complete_in_any_order(make());
    a_request_can_be_dropped_at_every_point(make());
    those_who_wait_in_line_can_leave_it(make());
}

fn bytes_that_were_written_are_read_back(mut subject: Subject) {
    let max = subject.device.geometry().max_segments;
    let transfer = |subject: &mut Subject, operation, pages: &[Page]| {
        for (index, some) in pages.chunks(max.min(3)).enumerate() {
            let sector = 8 + (index * max.min(3) * PAGE_SIZE / SECTOR_SIZE) as u64;
            subject.expect(Ok(()), request(operation, sector, some));
        }
    };
    let pages = [subject.filled(0x11), subject.filled(0x22)];
    transfer(&mut subject, Operation::Write, &pages);
    subject.expect(Ok(()), request(Operation::Flush, 0, &[]));
    let back = [subject.filled(0), subject.filled(0), subject.filled(0xff)];
    transfer(&mut subject, Operation::Read, &back);
    assert_eq!(back.each_ref().map(content_of), [vec![0x11; PAGE_SIZE], vec![0x22; PAGE_SIZE], vec![0; PAGE_SIZE]]);
}

fn segments_of_part_pages_meet_consecutive_sectors(mut subject: Subject) {
    let page = subject.filled(0);
    (0..8).for_each(|sector: usize| page.write(sector * SECTOR_SIZE, &[sector as u8; SECTOR_SIZE]));
    let part = |first: usize, count: usize| Segment {
        page: page.clone(),
        offset: first * SECTOR_SIZE,
        len: count * SECTOR_SIZE,
    };
    let max = subject.device.geometry().max_segments;
    for (sector, segment) in [(3, part(5, 2)), (5, part(1, 1))] {
        subject.expect(Ok(()), Request { operation: Operation::Write, sector, segments: vec![segment] });
    }
    let back = subject.filled(0xff);
    let segments = [(7, 1), (0, 3)].map(|(sector, count): (usize, usize)| Segment {
        page: back.clone(),
        offset: sector * SECTOR_SIZE,
        len: count * SECTOR_SIZE,
    });
    if max >= 2 {
        subject.expect(Ok(()), Request { operation: Operation::Read, sector: 2, segments: segments.to_vec() });
        let first_bytes: Vec<u8> = (0..8).map(|sector| content_of(&back)[sector * SECTOR_SIZE]).collect();
        assert_eq!(first_bytes, [5, 6, 1, 0xff, 0xff, 0xff, 0xff, 0]);
    }
}

fn bad_requests_are_refused(mut subject: Subject) {
    let geometry = subject.device.geometry();
    let page = subject.filled(0);
    let segment = |offset, len| vec![Segment { page: page.clone(), offset, len }];
    let read = |sector, segments| Request { operation: Operation::Read, sector, segments };
    let too_many = vec![Segment::whole(page.clone()); geometry.max_segments + 1];
    let bad = [
        (Errno::EINVAL, read(0, vec![])),
        (Errno::EINVAL, read(0, segment(0, 0))),
        (Errno::EINVAL, read(0, segment(1, SECTOR_SIZE))),
        (Errno::EINVAL, read(0, segment(0, SECTOR_SIZE - 1))),
        (Errno::EINVAL, read(0, segment(SECTOR_SIZE, PAGE_SIZE))),
        (Errno::EINVAL, read(0, segment(usize::MAX & !(SECTOR_SIZE - 1), SECTOR_SIZE))),
        (Errno::EINVAL, read(0, too_many)),
        (Errno::EINVAL, Request { operation: Operation::Flush, sector: 0, segments: segment(0, SECTOR_SIZE) }),
        (Errno::EIO, read(geometry.sectors, segment(0, SECTOR_SIZE))),
        (Errno::EIO, read(geometry.sectors - 1, segment(0, 2 * SECTOR_SIZE))),
        (Errno::EIO, read(u64::MAX, segment(0, SECTOR_SIZE))),
    ];
    for (errno, request) in bad {
        subject.expect(Err(errno), request);
    }
    subject.expect(Ok(()), read(geometry.sectors - 1, segment(0, SECTOR_SIZE)));
}

fn requests_complete_in_any_order(mut subject: Subject) {
    for order in [Pick::Oldest, Pick::Newest, Pick::Nth(7)] {
        let pages: Vec<Page> = (0..MANY).map(|index| subject.filled(index as u8)).collect();
        let device = subject.device.clone();
        let mut flights: Vec<Flight<'_>> = pages.iter().map(|page| Flight::new(&*device, write_one(page))).collect();
        subject.land(&mut flights, order);
        assert!(flights.iter().all(|flight| flight.result == Some(Ok(()))));
        drop(flights);
        subject.settle();
        assert!(pages.iter().all(|page| page.references() == 1), "the disk keeps pages of requests that are done");
    }
}

fn a_request_can_be_dropped_at_every_point(mut subject: Subject) {
    let device = subject.device.clone();
    for polls in 0..6 {
        // So often that a slot lost each time would be missed.
        for round in 0..MANY {
            let page = subject.filled(round as u8);
            let mut flight = Flight::new(&*device, write_one(&page));
            (0..polls).for_each(|_| flight.poll_even_if_not_woken());
            if round % 2 == 1 {
                (subject.step)(Pick::Oldest);
            }
            drop(flight);
            if round % 3 == 0 {
                subject.settle();
                assert_eq!(page.references(), 1, "an orphaned request's page is kept after the device is done");
            }
        }
    }
    subject.settle();
    let page = subject.filled(7);
    subject.expect(Ok(()), write_one(&page));
    drop(page);
    assert_eq!(subject.pages.live(), subject.baseline(), "pages of orphaned requests are lost");
}

fn those_who_wait_in_line_can_leave_it(mut subject: Subject) {
    let device = subject.device.clone();
    let pages: Vec<Page> = (0..MANY).map(|index| subject.filled(index as u8)).collect();
    let mut flights: Vec<Flight<'_>> = pages.iter().map(|page| Flight::new(&*device, write_one(page))).collect();
    flights.iter_mut().for_each(Flight::poll_if_woken);
    // Every other leaves: some in flight, some in line, some when a slot was just handed to them.
    let mut index = 0;
    flights.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    (subject.step)(Pick::Newest);
    let mut index = 0;
    flights.retain(|_| {
        index += 1;
        index % 3 != 0
    });
    subject.land(&mut flights, Pick::Newest);
    assert!(flights.iter().all(|flight| flight.result == Some(Ok(()))));
    drop(flights);
    subject.settle();
    assert!(pages.iter().all(|page| page.references() == 1));
}

impl Subject {
    fn filled(&self, byte: u8) -> Page {
        let page = Page::allocate(self.pages).expect("the suite's pages have no limit");
        page.write(0, &[byte; PAGE_SIZE]);
        page
    }

    /// The pages in use when no request is: the driver's own.
    fn baseline(&mut self) -> usize {
        let before = self.pages.live();
        let page = self.filled(0);
        self.expect(Ok(()), write_one(&page));
        drop(page);
        self.settle();
        assert_eq!(self.pages.live(), before, "a request leaves pages behind");
        before
    }

    fn expect(&mut self, expected: Result<()>, request: Request) {
        let device = self.device.clone();
        let what = (request.operation, request.sector, request.len());
        let mut flight = [Flight::new(&*device, request)];
        self.land(&mut flight, Pick::Oldest);
        assert_eq!(flight[0].result, Some(expected), "{what:?}");
    }

    /// Steps until all are done.
    fn land(&mut self, flights: &mut [Flight<'_>], order: Pick) {
        for _ in 0..PATIENCE {
            flights.iter_mut().for_each(Flight::poll_if_woken);
            if flights.iter().all(|flight| flight.result.is_some()) {
                return;
            }
            (self.step)(order);
        }
        panic!("requests hang: a wake was lost");
    }

    /// Steps until the device has nothing to do.
    fn settle(&mut self) {
        for _ in 0..PATIENCE {
            if !(self.step)(Pick::Oldest) {
                return;
            }
        }
        panic!("the device never comes to rest");
    }
}

/// A request on its way, polled only when its waker was woken.
struct Flight<'d> {
    future: BoxFuture<'d, Result<()>>,
    woken: Arc<Woken>,
    result: Option<Result<()>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'d> Flight<'d> {
    fn new(device: &'d dyn BlockDevice, request: Request) -> Flight<'d> {
        Flight { future: device.submit(request), woken: Arc::new(Woken(AtomicBool::new(true))), result: None }
    }

    fn poll_if_woken(&mut self) {
        if self.woken.0.swap(false, Ordering::Acquire) {
            self.poll_even_if_not_woken();
        }
    }

    fn poll_even_if_not_woken(&mut self) {
        if self.result.is_none() {
            let waker = Waker::from(self.woken.clone());
            if let Poll::Ready(result) = Pin::as_mut(&mut self.future).poll(&mut Context::from_waker(&waker)) {
                self.result = Some(result);
            }
        }
    }
}

fn request(operation: Operation, sector: u64, pages: &[Page]) -> Request {
    Request { operation, sector, segments: pages.iter().cloned().map(Segment::whole).collect() }
}

fn write_one(page: &Page) -> Request {
    request(Operation::Write, 16, core::slice::from_ref(page))
}

fn content_of(page: &Page) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    page.read(0, &mut bytes);
    bytes
}
