//! The disk driver against a fake device, obedient and hostile.

use std::boxed::Box;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::vec;
use std::vec::Vec;

use drivers::block::conformance::{self, Subject};
use drivers::block::{BlockDevice, Operation, Pick, Request, SECTOR_SIZE, Segment};
use drivers::hw::Page;
use drivers::{BoxFuture, Errno, Result};

use super::*;
use crate::fake::{Chain, FakeDevice, Shape};
use crate::features::{EVENT_INDEX, INDIRECT_DESCRIPTORS};

const SECTORS: usize = 64;

/// A disk behind a fake device: what it holds, and the requests it has taken but not done.
#[derive(Clone)]
struct Host {
    device: FakeDevice,
    state: Rc<RefCell<HostState>>,
}

struct HostState {
    content: Vec<u8>,
    taken: Vec<Chain>,
    status: u8,
}

fn config(sectors: u64, max_segments: u32) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[12..16].copy_from_slice(&max_segments.to_le_bytes());
    bytes
}

fn shape() -> Shape {
    Shape::new(DEVICE_TYPE, HAS_MAX_SEGMENT_SIZE | HAS_MAX_SEGMENTS | HAS_FLUSH, config(SECTORS as u64, 126), 1)
}

impl Host {
    fn new(shape: Shape) -> Host {
        let state = HostState { content: vec![0; SECTORS * SECTOR_SIZE], taken: Vec::new(), status: OK };
        Host { device: FakeDevice::new(shape), state: Rc::new(RefCell::new(state)) }
    }

    fn start(&self) -> (Arc<VirtioBlock>, Run) {
        let (disk, run) = start(self.device.transport(), self.device.dma()).expect("a good device");
        assert!(self.device.is_live());
        (disk, Run(Box::pin(run)))
    }

    fn collect(&self) {
        let mut state = self.state.borrow_mut();
        while let Some(chain) = self.device.take(0) {
            state.taken.push(chain);
        }
    }

    /// Carries one of the taken requests out.
    fn complete(&self, pick: Pick) -> bool {
        self.collect();
        let mut state = self.state.borrow_mut();
        let Some(place) = pick.among(state.taken.len()) else { return false };
        let chain = state.taken.remove(place);
        let written = state.carry_out(&self.device, &chain.buffers);
        drop(state);
        self.device.give_back(0, chain.head, written);
        true
    }
}

impl HostState {
    fn carry_out(&mut self, device: &FakeDevice, buffers: &[(u64, usize, bool)]) -> usize {
        let [(header, 16, false), data @ .., (status, 1, true)] = buffers else { panic!("a malformed request") };
        let header = device.read(*header, 16);
        let kind = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let mut at = u64::from_le_bytes(header[8..].try_into().expect("eight bytes")) as usize * SECTOR_SIZE;
        let mut written = 1;
        for (address, len, is_written) in data {
            match kind {
                request::READ => {
                    assert!(is_written);
                    device.write(*address, &self.content[at..at + len]);
                    written += len;
                }
                request::WRITE => {
                    assert!(!is_written);
                    self.content[at..at + len].copy_from_slice(&device.read(*address, *len));
                }
                request::GET_ID => device.write(*address, b"a disk\0"),
                other => panic!("request type {other} with data"),
            }
            at += len;
        }
        device.write(*status, &[self.status]);
        written
    }
}

/// The run future, polled whenever the test likes.
struct Run(Pin<Box<dyn Future<Output = ()>>>);

impl Run {
    fn turn(&mut self) {
        assert!(poll(&mut self.0).is_pending(), "the driver runs for ever");
    }
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn poll_request(future: &mut BoxFuture<'_, Result<()>>) -> Poll<Result<()>> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn read_request(host: &Host) -> Request {
    let page = Page::allocate_zeroed(host.device.pages).expect("no limit");
    Request { operation: Operation::Read, sector: 0, segments: vec![Segment::whole(page)] }
}

fn conforms(make_shape: impl Fn() -> Shape) {
    conformance::check(&mut || {
        let host = Host::new(make_shape());
        let (device, mut run) = host.start();
        let pages = host.device.pages;
        let step = Box::new(move |pick| {
            let has_done = host.complete(pick);
            run.turn();
            has_done
        });
        Subject { device, step, pages }
    });
}

#[test]
fn the_virtio_disk_is_a_disk() {
    conforms(shape);
}

#[test]
fn it_is_a_disk_with_one_interrupt_for_everything() {
    conforms(|| Shape { has_vectors: false, ..shape() });
}

#[test]
fn it_is_a_disk_without_indirect_descriptors() {
    conforms(|| Shape { features: shape().features & !INDIRECT_DESCRIPTORS, ..shape() });
}

#[test]
fn it_is_a_disk_without_the_event_index() {
    conforms(|| Shape { features: shape().features & !EVENT_INDEX, ..shape() });
}

#[test]
fn it_is_a_disk_with_a_queue_for_one_request() {
    let features = shape().features & !INDIRECT_DESCRIPTORS;
    conforms(|| Shape { features, queue_size: 4, config: config(SECTORS as u64, 2), ..shape() });
}

#[test]
fn a_queue_too_small_for_one_request_is_refused() {
    let features = shape().features & !INDIRECT_DESCRIPTORS;
    let host = Host::new(Shape { features, queue_size: 2, ..shape() });
    assert!(matches!(start(host.device.transport(), host.device.dma()), Err(Errno::ENODEV)));
}

#[test]
fn statuses_of_the_device_become_errors() {
    let host = Host::new(shape());
    let (disk, mut run) = host.start();
    for (status, expected) in [(0, Ok(())), (1, Err(Errno::EIO)), (2, Err(Errno::EOPNOTSUPP)), (77, Err(Errno::EIO))] {
        host.state.borrow_mut().status = status;
        let mut read = disk.submit(read_request(&host));
        assert!(poll_request(&mut read).is_pending());
        host.complete(Pick::Oldest);
        run.turn();
        assert_eq!(poll_request(&mut read), Poll::Ready(expected));
    }
}

#[test]
fn the_serial_number_is_read() {
    let host = Host::new(shape());
    let (disk, mut run) = host.start();
    let mut id: Pin<Box<dyn Future<Output = _>>> = Box::pin(disk.id());
    assert!(poll(&mut id).is_pending());
    host.complete(Pick::Oldest);
    run.turn();
    let Poll::Ready(Ok(id)) = poll(&mut id) else { panic!("not done") };
    assert_eq!(&id[..7], b"a disk\0");
}

#[test]
fn a_read_only_disk_refuses_writes_and_a_growing_one_tells_its_size() {
    let host = Host::new(Shape { features: shape().features | READ_ONLY, ..shape() });
    let (disk, mut run) = host.start();
    let write = Request { operation: Operation::Write, ..read_request(&host) };
    assert_eq!(poll_request(&mut disk.submit(write)), Poll::Ready(Err(Errno::EROFS)));
    host.device.change_config(0, &100u64.to_le_bytes());
    run.turn();
    assert_eq!(disk.geometry().sectors, 100);
}

#[test]
fn a_flush_of_a_disk_without_a_cache_does_not_ask_the_device() {
    let host = Host::new(Shape { features: shape().features & !HAS_FLUSH, ..shape() });
    let (disk, _run) = host.start();
    let flush = Request { operation: Operation::Flush, sector: 0, segments: vec![] };
    assert_eq!(poll_request(&mut disk.submit(flush)), Poll::Ready(Ok(())));
}

#[test]
fn requests_that_come_while_the_device_works_do_not_ring_again() {
    let host = Host::new(shape());
    let (disk, _run) = host.start();
    let mut requests: Vec<_> = (0..10).map(|_| disk.submit(read_request(&host))).collect();
    assert!(requests.iter_mut().all(|request| poll_request(request).is_pending()));
    assert_eq!(host.device.doorbells(0), 1);
}

#[test]
fn a_request_done_before_the_driver_first_runs_is_noticed() {
    let host = Host::new(shape());
    let (disk, mut run) = host.start();
    let mut read = disk.submit(read_request(&host));
    assert!(poll_request(&mut read).is_pending());
    host.complete(Pick::Oldest);
    run.turn();
    assert_eq!(poll_request(&mut read), Poll::Ready(Ok(())));
}

#[test]
fn a_device_that_fails_ends_everything_with_eio() {
    let host = Host::new(shape());
    let (disk, mut run) = host.start();
    let mut requests: Vec<_> = (0..100).map(|_| disk.submit(read_request(&host))).collect();
    assert!(requests.iter_mut().all(|request| poll_request(request).is_pending()));
    drop(requests.remove(5));
    host.device.fail();
    run.turn();
    assert!(!host.device.is_live(), "a failed device is stopped");
    assert!(requests.iter_mut().all(|request| poll_request(request) == Poll::Ready(Err(Errno::EIO))));
    assert_eq!(poll_request(&mut disk.submit(read_request(&host))), Poll::Ready(Err(Errno::EIO)));
}

#[test]
fn dropping_the_disk_stops_the_device_before_its_memory_is_freed() {
    let host = Host::new(shape());
    let (disk, run) = host.start();
    let mut read = disk.submit(read_request(&host));
    assert!(poll_request(&mut read).is_pending());
    host.collect();
    drop(read);
    assert!(host.device.pages.live() > 1);
    drop((disk, run));
    assert!(!host.device.is_live());
    assert_eq!(host.device.pages.live(), 0);
}

/// A device that violates the protocol in one way each.
#[test]
fn a_device_that_breaks_the_protocol_is_stopped_and_its_requests_end_with_eio() {
    let violations: [fn(&FakeDevice, u16); 5] = [
        |device, _| device.set_used_index(0, 30_000),
        |device, _| device.give_back_raw(0, u32::MAX, 0),
        |device, head| device.give_back_raw(0, u32::from(head) + 1, 0),
        |device, head| device.give_back_raw(0, u32::from(head) | 1 << 16, 0),
        |device, head| {
            device.give_back(0, head, 1);
            device.give_back(0, head, 1);
        },
    ];
    for violate in violations {
        let host = Host::new(shape());
        let (disk, mut run) = host.start();
        let mut requests: Vec<_> = (0..2).map(|_| disk.submit(read_request(&host))).collect();
        assert!(requests.iter_mut().all(|request| poll_request(request).is_pending()));
        host.collect();
        // The first slot is head 0, the second head 1: the last head that was given out.
        violate(&host.device, host.state.borrow().taken[1].head);
        run.turn();
        assert!(!host.device.is_live());
        assert!(requests.iter_mut().all(|request| poll_request(request).is_ready()));
        assert_eq!(poll_request(&mut disk.submit(read_request(&host))), Poll::Ready(Err(Errno::EIO)));
    }
}

/// Random garbage in the used ring: no panic, no hang, and no page is freed that the device was given.
#[test]
fn garbage_from_the_device_never_panics() {
    for seed in 1..300u64 {
        let random = Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let random = |below: u64| {
            let mut state = random.lock().expect("no panic");
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state % below
        };
        let host = Host::new(shape());
        let (disk, mut run) = host.start();
        let mut requests: Vec<_> = (0..80).map(|_| disk.submit(read_request(&host))).collect();
        // A device that claimed what is not so may no longer touch memory: it may have given it back without knowing.
        let mut is_mad = false;
        for _ in 0..60 {
            match random(8) {
                0..3 => requests.iter_mut().for_each(|request| _ = poll_request(request)),
                3 => drop(requests.pop()),
                4 if !is_mad => _ = host.complete(Pick::Nth(random(100) as usize)),
                5 if random(10) == 0 => {
                    is_mad = true;
                    host.device.set_used_index(0, random(200) as u16);
                }
                6 if is_mad || random(10) == 0 => {
                    is_mad = true;
                    host.device.give_back_raw(0, random(300) as u32, random(1 << 32) as u32);
                }
                _ => run.turn(),
            }
            requests.retain_mut(|request| poll_request(request).is_pending());
        }
        let pages = host.device.pages;
        drop(requests);
        drop((disk, run, host));
        assert_eq!(pages.live(), 0, "seed {seed}");
    }
}
