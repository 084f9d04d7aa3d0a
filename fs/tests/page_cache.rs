//! The page cache over a device that answers late, fails, or is never asked again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use drivers::hw::HostPages;
use fs::conformance::{install, pages, read_at, run, write_at};
use fs::inode::{AttributeChange, FileSystemStatus};
use fs::regular_file::{Options, RegularFile};
use fs::{Attributes, Errno, Inode, InodeCore, Io, Kind, Mapper, OpenFile, OpenFlags, PAGE_SIZE, Page};

/// A file on a slow device: reads wait until they are let go.
struct Slow {
    core: InodeCore,
    is_held: AtomicBool,
    fails: AtomicBool,
    reads: AtomicUsize,
    pages_read: AtomicUsize,
    written: Mutex<Vec<u64>>,
}

impl Slow {
    fn new(pages: &'static HostPages, size: u64) -> Arc<Slow> {
        install();
        let attributes = Attributes { mode: 0o644, size, links: 1, ..Attributes::default() };
        Arc::new(Slow {
            core: InodeCore::new(pages, 1, 1, Kind::Regular, 0, attributes),
            is_held: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            pages_read: AtomicUsize::new(0),
            written: Mutex::new(Vec::new()),
        })
    }

    fn reads(&self) -> (usize, usize) {
        (self.reads.load(Ordering::Relaxed), self.pages_read.load(Ordering::Relaxed))
    }

    async fn device(&self) -> Result<(), Errno> {
        std::future::poll_fn(|_| if self.is_held.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(()) })
            .await;
        if self.fails.load(Ordering::Relaxed) { Err(Errno::EIO) } else { Ok(()) }
    }
}

fn content(index: u64) -> [u8; 8] {
    (index * 3 + 1).to_le_bytes()
}

impl Inode for Slow {
    fn core(&self) -> &InodeCore {
        &self.core
    }
    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        self.read_pages(index, std::slice::from_ref(page))
    }
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [Page]) -> Io<'a, ()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pages_read.fetch_add(pages.len(), Ordering::Relaxed);
        Io::wait(async move {
            self.device().await?;
            for (index, page) in (first..).zip(pages) {
                page.zero(0, PAGE_SIZE);
                page.write(0, &content(index));
            }
            Ok(())
        })
    }
    fn reserve_page(&self, _index: u64) -> Io<'_, ()> {
        Io::wait(self.device())
    }
    fn write_page<'a>(&'a self, index: u64, _page: &'a Page) -> Io<'a, ()> {
        Io::wait(async move {
            self.device().await?;
            self.written.lock().expect("not poisoned").push(index);
            Ok(())
        })
    }
    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.core.apply(&change);
        Io::ready(Ok(()))
    }
    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus::default()
    }
}

fn open(inode: &Arc<Slow>) -> OpenFile {
    let options = Options { sets_access_time: true, keeps_set_id: false };
    inode.core.begin_writing().expect("nobody executes it");
    OpenFile::new(
        Arc::new(RegularFile::new(inode.clone(), options)),
        None,
        Some(inode.clone() as Arc<dyn Inode>),
        OpenFlags::RDWR,
    )
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn truncate(inode: &Arc<Slow>, size: u64) {
    run(inode.change(AttributeChange { size: Some(size), ..AttributeChange::default() })).expect("it can");
}

#[test]
fn a_page_is_read_once_however_many_wait() {
    let inode = Slow::new(pages(), 1 << 20);
    inode.is_held.store(true, Ordering::Relaxed);
    let cache = &inode.core.pages;
    let (mut one, mut two) = (pin!(cache.load(&*inode, 5)), pin!(cache.load(&*inode, 5)));
    assert!(poll(one.as_mut()).is_pending() && poll(two.as_mut()).is_pending());
    inode.is_held.store(false, Ordering::Relaxed);
    let (Poll::Ready(Ok(one)), Poll::Ready(Ok(two))) = (poll(one), poll(two)) else {
        panic!("the device has answered")
    };
    assert_eq!((one.frame(), inode.reads()), (two.frame(), (1, 1)));
}

#[test]
fn a_reader_that_is_dropped_hands_the_work_on() {
    let inode = Slow::new(pages(), 1 << 20);
    inode.is_held.store(true, Ordering::Relaxed);
    let cache = &inode.core.pages;
    let mut one = Box::pin(cache.load(&*inode, 5));
    let mut two = pin!(cache.load(&*inode, 5));
    assert!(poll(one.as_mut()).is_pending() && poll(two.as_mut()).is_pending());
    drop(one);
    assert!(poll(two.as_mut()).is_pending());
    inode.is_held.store(false, Ordering::Relaxed);
    let Poll::Ready(Ok(page)) = poll(two) else { panic!("the device has answered") };
    let mut bytes = [0; 8];
    page.read(0, &mut bytes);
    assert_eq!((bytes, inode.reads()), (content(5), (2, 2)));
    // The last reader is dropped too: the next one starts anew.
    inode.is_held.store(true, Ordering::Relaxed);
    let mut three = Box::pin(cache.load(&*inode, 6));
    assert!(poll(three.as_mut()).is_pending());
    drop(three);
    inode.is_held.store(false, Ordering::Relaxed);
    assert!(run(cache.load(&*inode, 6)).is_ok());
}

#[test]
fn a_failure_is_told_and_not_remembered() {
    let inode = Slow::new(pages(), 1 << 20);
    let file = open(&inode);
    inode.fails.store(true, Ordering::Relaxed);
    assert_eq!(read_at(&file, 0, 10), Err(Errno::EIO));
    inode.fails.store(false, Ordering::Relaxed);
    assert_eq!(read_at(&file, 0, 8), Ok(content(0).to_vec()));
}

#[test]
fn a_sequential_read_asks_for_more_and_more_pages_at_once() {
    let inode = Slow::new(pages(), 200 * 4096);
    let file = open(&inode);
    let mut position = 0;
    while let Ok(bytes) = read_at(&file, position, 4096)
        && !bytes.is_empty()
    {
        assert_eq!(bytes[..8], content(position / 4096));
        position += bytes.len() as u64;
    }
    let (requests, pages) = inode.reads();
    assert_eq!(pages, 200, "each page once, none beyond the end");
    assert!(requests < 15, "{requests} requests");
    let inode = Slow::new(fs::conformance::pages(), 200 * 4096);
    let file = open(&inode);
    for index in [150, 20, 90] {
        read_at(&file, index * 4096, 1).expect("readable");
    }
    assert_eq!(inode.reads(), (3, 3), "a read here and there takes only what it needs");
}

#[test]
fn truncation_disowns_a_read_that_is_under_way() {
    let inode = Slow::new(pages(), 10 * 4096);
    inode.is_held.store(true, Ordering::Relaxed);
    let cache = &inode.core.pages;
    let mut load = pin!(cache.load(&*inode, 5));
    assert!(poll(load.as_mut()).is_pending());
    truncate(&inode, 4096);
    inode.is_held.store(false, Ordering::Relaxed);
    let _ = poll(load);
    assert!(cache.get(5).is_none() || inode.reads().0 > 1, "what was read before the cut is not kept");
}

/// A mapper that notes what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Mapper for Notes {
    fn unmap(&self, pages: std::ops::Range<u64>) {
        self.0.lock().expect("not poisoned").push(format!("unmap {}", pages.start));
    }
    fn write_protect(&self, pages: std::ops::Range<u64>) {
        self.0.lock().expect("not poisoned").push(format!("protect {}", pages.start));
    }
}

#[test]
fn a_cut_unmaps_frees_and_zeroes_the_tail() {
    let source = pages();
    let inode = Slow::new(source, 10 * 4096);
    let notes = Arc::new(Notes::default());
    let mapper: Arc<dyn Mapper> = notes.clone();
    inode.core.pages.add_mapper(&mapper);
    let file = open(&inode);
    write_at(&file, 0, &[9; 10 * 4096]).expect("writable");
    assert_eq!((source.live(), inode.core.pages.dirty()), (10, 10));
    truncate(&inode, 4096 + 10);
    assert_eq!((source.live(), inode.core.pages.dirty()), (2, 2));
    assert_eq!(*notes.0.lock().expect("not poisoned"), ["unmap 2"]);
    truncate(&inode, 3 * 4096);
    let bytes = read_at(&file, 4096, 4096).expect("there");
    assert!(bytes[..10].iter().all(|&byte| byte == 9) && bytes[10..].iter().all(|&byte| byte == 0));
}

#[test]
fn what_is_dirty_is_written_once_and_stays_dirty_if_that_fails() {
    let inode = Slow::new(pages(), 0);
    let file = open(&inode);
    write_at(&file, 0, &[1; 3 * 4096]).expect("writable");
    inode.fails.store(true, Ordering::Relaxed);
    assert_eq!(run(file.ops.sync(false)), Err(Errno::EIO));
    assert_eq!(inode.core.pages.dirty(), 3);
    inode.fails.store(false, Ordering::Relaxed);
    inode.is_held.store(true, Ordering::Relaxed);
    let mut sync = Box::pin(file.ops.sync(false));
    assert!(poll(sync.as_mut()).is_pending());
    drop(sync);
    assert_eq!(inode.core.pages.dirty(), 3, "a write that was not seen to end may not have been done");
    inode.is_held.store(false, Ordering::Relaxed);
    run(file.ops.sync(false)).expect("the device works");
    assert_eq!(*inode.written.lock().expect("not poisoned"), [0, 1, 2]);
    run(file.ops.sync(false)).expect("nothing to do");
    assert_eq!(inode.written.lock().expect("not poisoned").len(), 3);
    write_at(&file, 4096, b"x").expect("writable");
    run(file.ops.sync(false)).expect("the device works");
    assert_eq!(*inode.written.lock().expect("not poisoned"), [0, 1, 2, 1]);
}

#[test]
fn the_sync_of_everything_finds_each_dirty_file() {
    let inode = Slow::new(pages(), 0);
    let file = open(&inode);
    write_at(&file, 0, &[1; 2 * 4096]).expect("writable");
    inode.fails.store(true, Ordering::Relaxed);
    // Other tests of this process have dirty files too.
    let _ = run(fs::page_cache::write_back_all());
    assert_eq!(inode.core.pages.dirty(), 2);
    inode.fails.store(false, Ordering::Relaxed);
    while inode.core.pages.dirty() > 0 {
        let _ = run(fs::page_cache::write_back_all());
    }
    assert_eq!(*inode.written.lock().expect("not poisoned"), [0, 1]);
}

#[test]
fn a_part_of_a_page_is_written_over_what_was_there() {
    let inode = Slow::new(pages(), 2 * 4096);
    let file = open(&inode);
    write_at(&file, 4096 + 100, b"new").expect("writable");
    let bytes = read_at(&file, 4096, 200).expect("there");
    assert_eq!((&bytes[..8], &bytes[100..103]), (&content(1)[..], &b"new"[..]));
}

#[test]
fn reclaim_takes_clean_pages_that_nobody_uses() {
    let source = pages();
    let inode = Slow::new(source, 100 * 4096);
    let file = open(&inode);
    read_at(&file, 0, 100 * 4096).expect("readable");
    write_at(&file, 3 * 4096, b"dirty").expect("writable");
    let held = inode.core.pages.get(7).expect("cached");
    // Other tests of this process have pages too.
    fs::page_cache::reclaim(usize::MAX);
    assert_eq!(source.live(), 2);
    assert!(inode.core.pages.get(3).is_some() && inode.core.pages.get(7).is_some());
    drop(held);
    assert_eq!(read_at(&file, 50 * 4096, 8), Ok(content(50).to_vec()), "what was dropped is read again");
}

#[test]
fn a_file_in_memory_gives_nothing_back() {
    let source = pages();
    let world = fs::conformance::World::new(tmpfs::Tmpfs::new(source, tmpfs::Limits::NONE, 0o755));
    world.write("f", &[1; 20 * 4096]).expect("memory");
    fs::page_cache::reclaim(usize::MAX);
    assert_eq!(source.live(), 20);
    let file = world.open("f", OpenFlags::RDWR).expect("there");
    write_at(&file, 100 * 4096, b"far").expect("memory");
    let seek = |position, hole| file.ops.seek_data(position, hole);
    assert_eq!((seek(5, false), seek(5, true)), (Ok(5), Ok(20 * 4096)));
    assert_eq!((seek(30 * 4096, false), seek(100 * 4096 + 1, true)), (Ok(100 * 4096), Ok(100 * 4096 + 3)));
    assert_eq!(seek(100 * 4096 + 3, false), Err(Errno::ENXIO));
}
