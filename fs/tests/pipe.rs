//! Pipes and FIFOs: what is whole, what waits, what ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use drivers::hw::HostPages;
use executor::sync::Waiter;
use fs::conformance::{World, pages, run};
use fs::pipe::{PipeEnd, pipe};
use fs::{At, Credentials, Errno, Kind, OpenFile, OpenFlags, Page, PollEvents, Sink, Source, Stop};
use tmpfs::{Limits, Tmpfs};

fn ends(source: &'static HostPages) -> (OpenFile, OpenFile) {
    pipe(source, &Credentials::root(), OpenFlags::empty()).expect("memory")
}

fn write(end: &OpenFile, bytes: &[u8]) -> Result<usize, Stop> {
    end.ops.try_write(&mut 0, OpenFlags::empty(), &mut fs::buffer::SliceSource::new(bytes))
}

fn read(end: &OpenFile, len: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; len];
    let count = end.ops.try_read(&mut 0, &mut fs::buffer::SliceSink::new(&mut bytes))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// User memory of which only the first bytes are there.
struct Faulty {
    bytes: Vec<u8>,
    done: usize,
    present: usize,
}

impl Faulty {
    fn new(len: usize, present: usize) -> Faulty {
        Faulty { bytes: (0..len).map(|byte| byte as u8).collect(), done: 0, present }
    }

    fn advance(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.done;
        self.done += len.min(self.present - from);
        from..self.done
    }
}

impl Source for Faulty {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.done
    }
    fn take(&mut self, into: &mut [u8]) -> usize {
        let range = self.advance(into.len());
        into[..range.len()].copy_from_slice(&self.bytes[range.clone()]);
        range.len()
    }
    fn take_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let range = self.advance(len);
        page.write(offset, &self.bytes[range.clone()]);
        range.len()
    }
    fn skip(&mut self, len: usize) -> usize {
        self.advance(len).len()
    }
    fn give_back(&mut self, len: usize) {
        self.done -= len;
    }
    fn faulted(&self) -> bool {
        self.done == self.present
    }
}

impl Sink for Faulty {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.done
    }
    fn put(&mut self, bytes: &[u8]) -> usize {
        let range = self.advance(bytes.len());
        self.bytes[range.clone()].copy_from_slice(&bytes[..range.len()]);
        range.len()
    }
    fn put_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let range = self.advance(len);
        page.read(offset, &mut self.bytes[range.clone()]);
        range.len()
    }
    fn put_zeros(&mut self, len: usize) -> usize {
        self.advance(len).len()
    }
    fn give_back(&mut self, len: usize) {
        self.done -= len;
    }
    fn faulted(&self) -> bool {
        self.done == self.present
    }
}

#[test]
fn bytes_come_out_as_they_went_in_whatever_the_pieces() {
    let pages = pages();
    let (reader, writer) = ends(pages);
    let (mut sent, mut received) = (0_u32, Vec::new());
    let mut state = 1_u32;
    let mut next = |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % limit
    };
    for _ in 0..2000 {
        let len = next(9000);
        let bytes: Vec<u8> = (sent..sent + len).map(|byte| (byte % 253) as u8).collect();
        if let Ok(count) = write(&writer, &bytes) {
            sent += count as u32;
        }
        if let Ok(bytes) = read(&reader, next(9000) as usize) {
            received.extend(bytes);
        }
    }
    drop(writer);
    while let Ok(bytes) = read(&reader, 5000)
        && !bytes.is_empty()
    {
        received.extend(bytes);
    }
    assert_eq!(received.len() as u32, sent);
    assert!(received.iter().enumerate().all(|(at, &byte)| byte == (at % 253) as u8));
    drop(reader);
    assert_eq!(pages.live(), 0, "the pages go with the pipe");
}

#[test]
fn an_empty_pipe_makes_its_reader_wait_and_a_closed_one_ends() {
    let (reader, writer) = ends(pages());
    assert_eq!(read(&reader, 1), Err(Stop::WouldBlock));
    assert_eq!(read(&reader, 0), Ok(vec![]));
    write(&writer, b"last").expect("room");
    drop(writer);
    assert_eq!(reader.ops.poll(), PollEvents::IN | PollEvents::RDNORM | PollEvents::HUP);
    assert_eq!(read(&reader, 10), Ok(b"last".to_vec()));
    assert_eq!(read(&reader, 10), Ok(vec![]));
}

#[test]
fn a_write_without_reader_is_refused() {
    let (reader, writer) = ends(pages());
    drop(reader);
    assert_eq!(write(&writer, b"x"), Err(Stop::Errno(Errno::EPIPE)));
    assert!(writer.ops.poll().contains(PollEvents::ERR));
}

#[test]
fn a_write_of_a_page_or_less_is_whole_or_waits() {
    let (reader, writer) = ends(pages());
    assert_eq!(write(&writer, &[1; 65536 - 4000]), Ok(65536 - 4000));
    assert_eq!(write(&writer, &[2; 4001]), Err(Stop::WouldBlock), "not a part of it");
    assert_eq!(write(&writer, &[3; 100_000]), Ok(4000), "a longer one may come in parts");
    assert!(!writer.ops.poll().contains(PollEvents::OUT));
    assert_eq!(read(&reader, 4096).map(|bytes| bytes.len()), Ok(4096));
    assert!(writer.ops.poll().contains(PollEvents::OUT));
    assert_eq!(write(&writer, &[4; 4096]), Ok(4096));
}

#[test]
fn a_fault_half_way_loses_nothing_and_mixes_nothing() {
    let (reader, writer) = ends(pages());
    write(&writer, b"before").expect("room");
    let mut source = Faulty::new(3000, 1000);
    let result = writer.ops.try_write(&mut 0, OpenFlags::empty(), &mut source);
    assert_eq!(result, Err(Stop::Fault));
    assert_eq!(Source::remaining(&source), 3000, "all of it is to be given again");
    source.present = 3000;
    assert_eq!(writer.ops.try_write(&mut 0, OpenFlags::empty(), &mut source), Ok(3000));
    assert_eq!(read(&reader, 6), Ok(b"before".to_vec()));
    let mut sink = Faulty::new(3000, 700);
    assert_eq!(reader.ops.try_read(&mut 0, &mut sink), Ok(700));
    assert_eq!(reader.ops.try_read(&mut 0, &mut sink), Err(Stop::Fault));
    sink.present = 3000;
    assert_eq!(reader.ops.try_read(&mut 0, &mut sink), Ok(2300));
    assert!(sink.bytes.iter().enumerate().all(|(at, &byte)| byte == at as u8));
}

#[test]
fn its_capacity_can_be_changed_but_not_below_what_it_holds() {
    let (reader, writer) = ends(pages());
    let pipe = writer.ops.as_any().downcast_ref::<PipeEnd>().expect("a pipe").pipe().clone();
    assert_eq!(pipe.capacity(), 65536);
    assert_eq!(pipe.set_capacity(5000), Ok(8192));
    assert_eq!(write(&writer, &[0; 20_000]), Ok(8192));
    assert_eq!(pipe.set_capacity(1), Err(Errno::EBUSY));
    read(&reader, 8192).expect("full");
    assert_eq!(pipe.set_capacity(0), Ok(4096));
    assert_eq!(pipe.set_capacity(usize::MAX), Err(Errno::EINVAL));
}

struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waiter_is_woken_when_it_can_go_on_and_not_before() {
    let (reader, writer) = ends(pages());
    let count = Arc::new(Counter(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let woken = || count.0.load(Ordering::Relaxed);
    let mut waits = Box::pin(Waiter::exclusive(reader.ops.wait_queue().expect("a pipe waits")));
    assert!(waits.as_mut().poll_woken(&Context::from_waker(&waker)).is_pending());
    write(&writer, b"ab").expect("room");
    assert_eq!(woken(), 1);
    waits.as_mut().leave();
    write(&writer, &[0; 100_000]).expect("room for a part");
    let mut waits = Box::pin(Waiter::exclusive(writer.ops.wait_queue().expect("a pipe waits")));
    assert!(waits.as_mut().poll_woken(&Context::from_waker(&waker)).is_pending());
    read(&reader, 100).expect("full");
    assert_eq!(woken(), 1, "there is no room yet");
    read(&reader, 5000).expect("full");
    assert_eq!(woken(), 2);
    assert_eq!(waits.as_mut().poll_woken(&Context::from_waker(&waker)), Poll::Ready(()));
}

fn fifo() -> World {
    let world = World::new(Tmpfs::new(pages(), Limits::NONE, 0o755));
    run(world.caller().mknod(At::working_directory(b"fifo"), Kind::Fifo, 0o600, 0)).expect("made");
    world
}

#[test]
fn opening_a_fifo_waits_for_the_other_end() {
    let world = fifo();
    let reader = world.open("fifo", OpenFlags::empty()).expect("there");
    assert_eq!(reader.ops.try_open(), Err(Stop::WouldBlock));
    let writer = world.open("fifo", OpenFlags::WRONLY).expect("there");
    assert_eq!((reader.ops.try_open(), writer.ops.try_open()), (Ok(()), Ok(())));
    write(&writer, b"through").expect("room");
    assert_eq!(read(&reader, 10), Ok(b"through".to_vec()));
    assert_eq!(world.stat("fifo").expect("there").attributes.size, 0);
}

#[test]
fn a_writer_that_came_and_left_was_there() {
    let world = fifo();
    let reader = world.open("fifo", OpenFlags::empty()).expect("there");
    drop(world.open("fifo", OpenFlags::WRONLY).expect("there"));
    assert_eq!(reader.ops.try_open(), Ok(()));
    assert_eq!(read(&reader, 1), Ok(vec![]));
}

#[test]
fn without_waiting_a_fifo_opens_to_read_but_not_to_write() {
    let world = fifo();
    let refused = world.open("fifo", OpenFlags::WRONLY | OpenFlags::NONBLOCK);
    assert_eq!(refused.err(), Some(Errno::ENXIO));
    let reader = world.open("fifo", OpenFlags::NONBLOCK).expect("there");
    assert_eq!(reader.ops.try_open(), Ok(()));
    assert_eq!(read(&reader, 1), Ok(vec![]), "no writer is the end");
    world.open("fifo", OpenFlags::WRONLY | OpenFlags::NONBLOCK).expect("now there is a reader");
    let both = world.open("fifo", OpenFlags::RDWR).expect("there");
    assert_eq!(both.ops.try_open(), Ok(()));
    write(&both, b"self").expect("room");
    assert_eq!(read(&both, 4), Ok(b"self".to_vec()));
}

#[test]
fn a_pipe_without_a_name_opens_again_though_its_writer_has_come_and_gone() {
    let (reader, writer) = ends(pages());
    write(&writer, b"left behind").expect("room");
    drop(writer);
    // What /proc/PID/fd/N does.
    let inode = reader.inode.clone().expect("pipes have one");
    let again = inode.open(OpenFlags::empty()).expect("may be read").expect("pipes open themselves");
    assert_eq!(again.try_open(), Ok(()), "bash's <(…) would wait for ever");
    let again = OpenFile::new(again, None, None, OpenFlags::empty());
    assert_eq!((read(&again, 20), read(&again, 20)), (Ok(b"left behind".to_vec()), Ok(vec![])));
}
