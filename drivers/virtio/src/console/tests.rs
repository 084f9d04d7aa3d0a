//! The console driver against a fake device.

use std::boxed::Box;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::string::String;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::vec::Vec;

use drivers::console::ByteChannel;
use drivers::console::conformance::{self, Subject};

use super::*;
use crate::fake::{FakeDevice, Shape};

const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// The host's side of a console.
struct Host {
    device: FakeDevice,
    console: Arc<VirtioConsole>,
    run: Pin<Box<dyn Future<Output = ()>>>,
}

fn config(ports: u32) -> Vec<u8> {
    [&80u16.to_le_bytes()[..], &25u16.to_le_bytes(), &ports.to_le_bytes(), &[0; 4]].concat()
}

fn shape(features: u64, ports: u32) -> Shape {
    Shape::new(DEVICE_TYPE, features, config(ports), 2 + 2 * ports as usize)
}

fn host(shape: Shape) -> Host {
    let device = FakeDevice::new(shape);
    let (console, run) = start(device.transport(), device.dma()).expect("a good device");
    let mut host = Host { device, console, run: Box::pin(run) };
    host.turn();
    host
}

/// A console with port 1 named "data", opened by the host.
fn host_with_port() -> (Host, Arc<Port>) {
    let mut host = host(shape(HAS_PORTS, 4));
    host.tell(1, PORT_ADD, 1, b"");
    host.tell(1, PORT_NAME, 1, b"data\0");
    host.tell(1, PORT_OPEN, 1, b"");
    let port = host.console.port_named("data").expect("just added");
    host.heard();
    (host, port)
}

impl Host {
    fn turn(&mut self) {
        let poll = self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending(), "the driver runs for ever");
    }

    /// Fills one of the driver's buffers; `false` if there is none.
    fn fill(&self, queue: u16, bytes: &[u8]) -> bool {
        let Some(chain) = self.device.take(queue) else { return false };
        let [(address, len, true)] = chain.buffers[..] else { panic!("a malformed buffer") };
        assert!(bytes.len() <= len, "the buffer is smaller than it was");
        self.device.write(address, bytes);
        self.device.give_back(queue, chain.head, bytes.len());
        true
    }

    /// Sends a control message.
    fn tell(&mut self, port: u32, event: u16, value: u16, rest: &[u8]) {
        let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes(), rest].concat();
        assert!(self.fill(control::RECEIVE, &message), "the driver keeps its control buffers");
        self.turn();
    }

    /// The control messages that the driver has sent since: port, event, value.
    fn heard(&mut self) -> Vec<(u32, u16, u16)> {
        let mut heard = Vec::new();
        while let Some((head, bytes)) = self.drain_one(control::TRANSMIT) {
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            heard.push((u32::from(word(0)), word(4), word(6)));
            self.device.give_back(control::TRANSMIT, head, 0);
            self.turn();
        }
        heard
    }

    fn drain_one(&self, queue: u16) -> Option<(u16, Vec<u8>)> {
        let chain = self.device.take(queue)?;
        let [(address, len, false)] = chain.buffers[..] else { panic!("a malformed buffer") };
        Some((chain.head, self.device.read(address, len)))
    }

    /// Empties what the driver has sent on a queue.
    fn drain(&mut self, queue: u16) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((head, bytes)) = self.drain_one(queue) {
            all.extend(bytes);
            self.device.give_back(queue, head, 0);
            self.turn();
        }
        all
    }
}

fn read_all(port: &Port) -> Vec<u8> {
    let mut all = Vec::new();
    let mut bytes = [0; 1000];
    loop {
        match port.try_read(&mut bytes) {
            0 => return all,
            len => all.extend(&bytes[..len]),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + index / 251) as u8).collect()
}

#[test]
fn a_port_is_a_byte_channel() {
    conformance::check(&mut || {
        let (host, port) = host_with_port();
        let host = Rc::new(RefCell::new(host));
        let far = host.clone();
        let far_write = move |bytes: &[u8]| {
            let mut host = host.borrow_mut();
            let mut sent = 0;
            while sent < bytes.len() && host.fill(4, &bytes[sent..bytes.len().min(sent + BUFFER_SIZE)]) {
                sent = bytes.len().min(sent + BUFFER_SIZE);
            }
            host.turn();
            sent
        };
        let far_read = move || far.borrow_mut().drain(5);
        Subject { channel: port, far_write: Box::new(far_write), far_read: Box::new(far_read) }
    });
}

#[test]
fn a_device_without_ports_is_one_channel_that_is_always_connected() {
    let mut host = host(shape(HAS_SIZE, 1));
    let port = host.console.ports().pop().expect("there is one");
    assert!(port.is_connected() && port.can_write() && !port.can_read());
    assert_eq!(host.console.size(), Some(Size { columns: 80, rows: 25 }));
    assert!(host.fill(0, b"in"));
    host.turn();
    assert_eq!(read_all(&port), b"in");
    assert_eq!(port.try_write(b"out"), 3);
    assert_eq!(host.drain(1), b"out");
}

#[test]
fn ports_are_announced_named_and_opened_by_messages() {
    let mut host = host(shape(HAS_PORTS, 4));
    assert_eq!(host.heard(), [(0, 0, 1)]);
    assert!(host.console.ports().is_empty());
    host.tell(2, PORT_ADD, 1, b"");
    assert_eq!(host.heard(), [(2, PORT_READY, 1)]);
    host.tell(2, PORT_NAME, 1, b"rouse.stdin");
    let port = host.console.port_named("rouse.stdin").expect("just named");
    assert!(!port.is_connected() && !port.can_write());
    host.tell(2, PORT_OPEN, 1, b"");
    assert!(port.is_connected() && port.can_write());
    assert_eq!((port.id(), port.name(), port.is_console()), (2, Some(String::from("rouse.stdin")), false));
    host.tell(2, 4, 1, b"");
    assert!(port.is_console());
    host.tell(2, 2, 0, b"");
    assert!(host.console.ports().is_empty() && !port.is_connected());
}

#[test]
fn waiting_for_a_port_ends_when_it_gets_its_name() {
    let mut host = host(shape(HAS_PORTS, 4));
    let console = host.console.clone();
    let mut wait: Pin<Box<dyn Future<Output = _>>> = Box::pin(console.wait_for_port("late"));
    let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    host.tell(1, PORT_ADD, 1, b"");
    assert!(poll().is_pending());
    host.tell(1, PORT_NAME, 1, b"late");
    assert!(matches!(poll(), Poll::Ready(Ok(port)) if port.id() == 1));
}

#[test]
fn a_port_beyond_the_last_is_passed_over() {
    let mut host = host(shape(HAS_PORTS, 4));
    host.heard();
    for event in [1, 2, 4, 6, 7] {
        host.tell(4_000_000_000, event, 1, b"x");
        host.tell(4, event, 1, b"x");
    }
    assert!(host.console.ports().is_empty() && host.heard().is_empty());
}

#[test]
fn a_reader_that_does_not_read_stops_the_host_and_loses_nothing() {
    let (mut host, port) = host_with_port();
    let bytes = pattern(200_000);
    let (mut sent, mut received) = (0, Vec::<u8>::new());
    while received.len() < bytes.len() {
        let before = sent;
        while sent < bytes.len() && host.fill(4, &bytes[sent..bytes.len().min(sent + 4096)]) {
            sent = bytes.len().min(sent + 4096);
        }
        host.turn();
        assert!(sent - received.len() <= 65_536, "more is on its way than there are buffers");
        assert!(sent > before || port.can_read(), "both sides wait");
        let mut some = [0; 5000];
        let len = port.try_read(&mut some);
        received.extend(&some[..len]);
    }
    assert!(received == bytes);
}

#[test]
fn a_writer_fills_its_buffers_then_waits_and_nothing_is_lost() {
    let (mut host, port) = host_with_port();
    let bytes = pattern(200_000);
    let (mut sent, mut received) = (0, Vec::<u8>::new());
    while sent < bytes.len() {
        while sent < bytes.len() && port.can_write() {
            let some = &bytes[sent..bytes.len().min(sent + 777)];
            sent += port.try_write(some);
        }
        assert_eq!(port.can_write(), sent == bytes.len());
        received.extend(host.drain(5));
    }
    received.extend(host.drain(5));
    assert!(received == bytes);
}

#[test]
fn a_lone_byte_goes_out_at_once_and_small_writes_are_gathered_while_the_host_is_busy() {
    let (mut host, port) = host_with_port();
    port.try_write(b"a");
    let (head, first) = host.drain_one(5).expect("sent at once");
    assert_eq!(first, b"a");
    for _ in 0..100 {
        assert_eq!(port.try_write(b"bc"), 2);
    }
    assert!(host.drain_one(5).is_none(), "gathered while the first byte is on its way");
    host.device.give_back(5, head, 0);
    host.turn();
    assert_eq!(port.unsent(), 200);
    let (head, second) = host.drain_one(5).expect("sent when the host was ready");
    assert_eq!(second.len(), 200);
    host.device.give_back(5, head, 0);
    host.turn();
    assert_eq!(port.unsent(), 0);
}

/// Notes what a reader would find at the moment it is woken.
struct Reader {
    port: Arc<Port>,
    found: Mutex<Vec<(bool, bool)>>,
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.found.lock().expect("no panic").push((self.port.is_connected(), self.port.can_read()));
    }
}

#[test]
fn what_the_host_wrote_before_it_closed_can_still_be_read() {
    let (mut host, port) = host_with_port();
    let reader = Arc::new(Reader { port: port.clone(), found: Mutex::new(Vec::new()) });
    let waker = Waker::from(reader.clone());
    let mut wait = Box::pin(port.readable().wait_shared());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(host.fill(4, b"last words"));
    // Both interrupts are pending, and the driver sees the closing first.
    host.tell(1, PORT_OPEN, 0, b"");
    assert_eq!(*reader.found.lock().expect("no panic"), [(false, true)]);
    assert_eq!(read_all(&port), b"last words");
    assert_eq!(port.try_write(b"x"), 0);
}

#[test]
fn closing_is_told_only_after_everything_written_has_left() {
    let (mut host, port) = host_with_port();
    port.set_open(true);
    assert_eq!(host.heard(), [(1, PORT_OPEN, 1)]);
    port.try_write(b"bye");
    port.set_open(false);
    assert!(host.heard().is_empty());
    assert_eq!(host.drain(5), b"bye");
    assert_eq!(host.heard(), [(1, PORT_OPEN, 0)]);
}

#[test]
fn opening_again_before_the_end_takes_the_closing_back() {
    let (mut host, port) = host_with_port();
    port.set_open(true);
    host.heard();
    port.try_write(b"bye");
    port.set_open(false);
    port.set_open(true);
    assert_eq!(host.drain(5), b"bye");
    assert!(host.heard().is_empty());
}

#[test]
fn a_port_opened_and_closed_a_thousand_times_ends_in_the_right_state() {
    let (mut host, port) = host_with_port();
    for _ in 0..1000 {
        port.set_open(true);
        port.set_open(false);
    }
    port.set_open(true);
    let heard = host.heard();
    assert_eq!(heard.last(), Some(&(1, PORT_OPEN, 1)));
    assert!(heard.len() <= 64, "messages are not piled up");
}

#[test]
fn a_port_without_memory_is_refused_and_others_go_on() {
    let mut host = host(shape(HAS_PORTS, 4));
    host.heard();
    let pages = host.device.pages;
    pages.set_limit(pages.live() + 5);
    host.tell(1, PORT_ADD, 1, b"");
    assert_eq!(host.heard(), [(1, PORT_READY, 0)]);
    pages.set_limit(usize::MAX);
    host.tell(2, PORT_ADD, 1, b"");
    assert_eq!(host.heard(), [(2, PORT_READY, 1)]);
    assert_eq!(host.console.ports().len(), 1);
}

#[test]
fn readers_and_writers_are_woken() {
    let (mut host, port) = host_with_port();
    let is_woken =
        |wait: Pin<&mut dyn Future<Output = ()>>| wait.poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let mut readable = Box::pin(port.readable().wait_shared());
    assert!(!is_woken(readable.as_mut()));
    host.fill(4, b"x");
    host.turn();
    assert!(is_woken(readable.as_mut()));
    let mut writable = Box::pin(port.writable().wait_shared());
    assert!(!is_woken(writable.as_mut()));
    port.try_write(b"x");
    host.drain(5);
    assert!(is_woken(writable.as_mut()));
}

#[test]
fn a_reader_that_takes_only_a_part_finds_the_rest_later() {
    let (mut host, port) = host_with_port();
    host.fill(4, &pattern(3000));
    host.turn();
    assert_eq!(port.read_with(&mut |bytes| bytes.len().min(700)), 700);
    assert_eq!(port.read_with(&mut |_| 0), 0);
    assert!(read_all(&port) == pattern(3000)[700..]);
}

#[test]
fn the_console_works_with_one_interrupt_for_everything() {
    let mut host = host(Shape { has_vectors: false, ..shape(HAS_PORTS, 2) });
    host.tell(1, PORT_ADD, 1, b"");
    host.tell(1, PORT_OPEN, 1, b"");
    let port = host.console.ports().pop().expect("just added");
    assert!(host.fill(4, b"in"));
    host.turn();
    assert_eq!(read_all(&port), b"in");
}

#[test]
fn a_device_that_breaks_the_protocol_is_stopped_and_nobody_is_connected() {
    let violations: [fn(&FakeDevice); 4] = [
        |device| device.give_back_raw(4, 9999, 1),
        |device| device.give_back_raw(5, 0, 0),
        |device| device.give_back_raw(4, 0, 100_000),
        |device| device.set_used_index(control::RECEIVE, 5000),
    ];
    for violate in violations {
        let (mut host, port) = host_with_port();
        violate(&host.device);
        host.turn();
        assert!(!host.device.is_live() && !port.is_connected());
        assert_eq!(port.try_write(b"x"), 0);
        // Interrupts of a device that was stopped are passed over.
        host.turn();
    }
}

#[test]
fn dropping_the_console_stops_the_device_before_its_memory_is_freed() {
    let (host, port) = host_with_port();
    let Host { device, console, run } = host;
    drop((console, run));
    assert!(!device.is_live());
    drop(port);
    assert_eq!(device.pages.live(), 0);
}

/// Random garbage in the used rings and the control messages: no panic, and no hang.
#[test]
fn garbage_from_the_device_never_panics() {
    for seed in 1..300u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (mut host, port) = host_with_port();
        for _ in 0..100 {
            let queue = random(10) as u16;
            match random(10) {
                0 => _ = port.try_write(&pattern(random(10_000) as usize)),
                1 => _ = port.try_read(&mut vec![0; random(10_000) as usize]),
                2 => port.set_open(random(2) == 0),
                3 => {
                    let message: Vec<u8> = (0..random(129)).map(|_| random(9) as u8).collect();
                    _ = host.fill(control::RECEIVE, &message);
                }
                4 => _ = host.fill(4, &pattern(random(4097) as usize)),
                5 => _ = host.device.take(5).map(|chain| host.device.give_back(5, chain.head, 0)),
                6 if random(20) == 0 => host.device.set_used_index(queue, random(100) as u16),
                7 if random(20) == 0 => host.device.give_back_raw(queue, random(40) as u32, random(5000) as u32),
                _ => host.turn(),
            }
        }
        let pages = host.device.pages;
        drop((host, port));
        assert_eq!(pages.live(), 0, "seed {seed}");
    }
}
