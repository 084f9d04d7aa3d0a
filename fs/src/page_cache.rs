//! The page cache: the pages of a file's content that are in memory, shared by read, write and mmap.
//!
//! ```text
//!   get(index) ──► the page, if it is here
//!   load(index) ─► here: at once
//!              ├─► being read by another: wait for its turn to end, look again
//!              └─► absent: this one reads it (and some pages behind it), puts them in
//! ```
//!
//! - **One read, however many wait.** Who reads holds the load's `turn`, an async mutex; the others queue up for it. A reader that
//!   is dropped half-way lets go of the turn, and the next in the queue reads instead.
//! - **Truncation** shrinks the size, takes the pages out of all mappings ([`Mapper`]), then frees them and zeroes the tail of the
//!   last page. A load under way beyond the new end is disowned: its pages are thrown away.
//! - **Writing** gets its page by [`PageCache::load_for_write`], which reserves room in the file system; after the copy the page is
//!   marked dirty. Write-back cleans the mark and write-protects mappings first and writes then, so a change in between is dirty again.
//! - **Reclaim** drops clean pages of device-backed files that nobody else holds; each gets a second chance if it was used since.
//!
//! For file systems that live in memory ([`PageCache::in_memory`]) the cache *is* the storage: nothing is ever dirty or reclaimed.
//!
//! Next: `page_cache/write_back.rs`, `page_cache/reclaim.rs`, then `regular_file.rs`. Exercise: what would a reader see if truncation freed pages before it shrank the size?

mod reclaim;
mod write_back;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use conquer_once::spin::OnceCell;
use executor::sync::{Mutex, SpinLock, get_or_init};

use crate::inode::Inode;
use crate::{Errno, Io, PAGE_SIZE, Page, PageSource, Result};

pub use reclaim::reclaim;
pub use write_back::write_back_all;

/// The most pages one load reads.
pub const READ_AHEAD_AT_MOST: usize = 32;

/// The most pages that [`PageCache::get_run`] gives.
pub const RUN_AT_MOST: usize = 16;

/// What `fs` needs of those who map a file's pages. Called without locks held; must not wait.
pub trait Mapper: Send + Sync {
    /// Takes these pages of the file out of the page tables.
    fn unmap(&self, pages: Range<u64>);
    /// Makes these pages of the file read-only in the page tables, so that the next write is noticed.
    fn write_protect(&self, pages: Range<u64>);
}

/// The cached pages of one file.
pub struct PageCache {
    source: &'static dyn PageSource,
    is_storage: bool,
    /// Made when the first page comes: most inodes never have one.
    file: OnceCell<Arc<File>>,
}

/// The content of a [`PageCache`], where the reclaimer can find it.
struct File {
    is_storage: bool,
    /// Whether it stands in the reclaimer's list.
    is_listed: AtomicBool,
    /// Whether its inode stands in the list of those to be written back.
    is_to_be_written: AtomicBool,
    state: SpinLock<State>,
    mappers: SpinLock<Vec<Weak<dyn Mapper>>>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Slot>,
    loads: Vec<Load>,
    dirty: usize,
    /// Where the reclaimer goes on.
    hand: u64,
}

struct Slot {
    page: Page,
    is_dirty: bool,
    /// Room for it is reserved, and it has not been written back since.
    is_reserved: bool,
    was_used: bool,
}

impl Slot {
    fn new(page: Page) -> Slot {
        Slot { page, is_dirty: false, is_reserved: false, was_used: true }
    }
}

/// Pages that somebody reads.
struct Load {
    pages: Range<u64>,
    turn: Arc<Mutex<()>>,
}

impl State {
    fn get(&mut self, index: u64) -> Option<Page> {
        let slot = self.pages.get_mut(&index)?;
        slot.was_used = true;
        Some(slot.page.clone())
    }

    /// The pages from `first` on, at most `count`, that are neither here nor being read.
    fn absent_from(&self, first: u64, count: u64) -> Range<u64> {
        let limit = first.saturating_add(count);
        let present = self.pages.range(first..limit).next().map_or(limit, |(&index, _)| index);
        let loading = self.loads.iter().map(|load| load.pages.start).filter(|&start| start > first).min();
        first..present.min(loading.unwrap_or(limit))
    }

    /// Ends a load; `false` if it was disowned.
    fn end_load(&mut self, turn: &Arc<Mutex<()>>) -> bool {
        let before = self.loads.len();
        self.loads.retain(|load| !Arc::ptr_eq(&load.turn, turn));
        self.loads.len() < before
    }
}

impl PageCache {
    /// An empty cache of a file on a device; its pages come from `source`.
    pub fn new(source: &'static dyn PageSource) -> PageCache {
        PageCache::with(source, false)
    }

    /// An empty cache of a file that is nowhere else.
    pub fn in_memory(source: &'static dyn PageSource) -> PageCache {
        PageCache::with(source, true)
    }

    fn with(source: &'static dyn PageSource, is_storage: bool) -> PageCache {
        PageCache { source, is_storage, file: OnceCell::uninit() }
    }

    fn file(&self) -> &Arc<File> {
        get_or_init(&self.file, || {
            Arc::new(File {
                is_storage: self.is_storage,
                is_listed: AtomicBool::new(false),
                is_to_be_written: AtomicBool::new(false),
                state: SpinLock::new(State::default()),
                mappers: SpinLock::new(Vec::new()),
            })
        })
    }

    /// Where its pages come from.
    pub fn source(&self) -> &'static dyn PageSource {
        self.source
    }

    /// The page if it is here: content bytes `index * 4096 ..`.
    pub fn get(&self, index: u64) -> Option<Page> {
        self.file.get()?.state.lock().get(index)
    }

    /// The pages from `first` on, up to the first that is not here: at most `count`, and at most [`RUN_AT_MOST`]. Finding the second costs a
    /// step and not a search.
    pub fn get_run(&self, first: u64, count: usize) -> ArrayVec<Page, RUN_AT_MOST> {
        let mut run = ArrayVec::new();
        if let Some(file) = self.file.get() {
            let mut state = file.state.lock();
            for (&index, slot) in state.pages.range_mut(first..).take(count.min(RUN_AT_MOST)) {
                if index != first + run.len() as u64 {
                    break;
                }
                slot.was_used = true;
                run.push(slot.page.clone());
            }
        }
        run
    }

    /// Visits those of `pages` that are here, in order: for mapping neighbours along with a page. The cache is locked meanwhile.
    pub fn for_each_cached(&self, pages: Range<u64>, mut visit: impl FnMut(u64, &Page)) {
        for (&index, slot) in self.file().state.lock().pages.range_mut(pages) {
            slot.was_used = true;
            visit(index, &slot.page);
        }
    }

    /// How many pages are here.
    pub fn count(&self) -> usize {
        self.file.get().map_or(0, |file| file.state.lock().pages.len())
    }

    /// The page, read from storage first if it is not here.
    ///
    /// # Errors
    ///
    /// `EIO`; `ENOMEM`; `ENOSPC` where memory is the storage.
    pub fn load<'a>(&'a self, inode: &'a dyn Inode, index: u64) -> Io<'a, Page> {
        self.load_ahead(inode, index, 1)
    }

    /// As [`PageCache::load`]; reads up to `count` pages in one go if it has to read.
    ///
    /// # Errors
    ///
    /// As [`PageCache::load`].
    ///
    /// # Cancel safety
    ///
    /// A dropped load hands its read on to those who wait for the same page.
    pub fn load_ahead<'a>(&'a self, inode: &'a dyn Inode, index: u64, count: usize) -> Io<'a, Page> {
        if self.is_storage {
            return Io::ready(self.make(inode, index));
        }
        match self.get(index) {
            Some(page) => Io::ready(Ok(page)),
            None => Io::wait(self.read(inode, index, count)),
        }
    }

    /// The page with room for it reserved, for somebody about to change it, who calls [`PageCache::mark_dirty`] afterwards.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOMEM`, `ENOSPC`, `EROFS`.
    pub fn load_for_write<'a>(&'a self, inode: &'a dyn Inode, index: u64) -> Io<'a, Page> {
        if self.is_storage {
            return Io::ready(self.make(inode, index));
        }
        let (page, is_reserved) = match self.file().state.lock().pages.get_mut(&index) {
            Some(slot) => (Some(slot.page.clone()), slot.is_reserved),
            None => (None, false),
        };
        match page {
            Some(page) if is_reserved => Io::ready(Ok(page)),
            Some(page) => match inode.reserve_page(index).now() {
                Ok(reserved) => Io::ready(reserved.map(|()| self.file().reserved(index, page))),
                Err(waiting) => Io::wait(async move { waiting.await.map(|()| self.file().reserved(index, page)) }),
            },
            None => Io::wait(async move {
                inode.reserve_page(index).await?;
                let is_new = index.saturating_mul(PAGE_SIZE as u64) >= inode.core().size() || inode.is_hole(index);
                let page = if is_new {
                    let page = Page::allocate_zeroed(self.source).ok_or(Errno::ENOMEM)?;
                    self.file().insert(index, page)
                } else {
                    self.load(inode, index).await?
                };
                Ok(self.file().reserved(index, page))
            }),
        }
    }

    /// The page of a file that lives in memory: made, full of zeros, if it is not here. Its file system reserves at once.
    fn make(&self, inode: &dyn Inode, index: u64) -> Result<Page> {
        let mut state = self.file().state.lock();
        if let Some(page) = state.get(index) {
            return Ok(page);
        }
        let page = Page::allocate_zeroed(self.source).ok_or(Errno::ENOMEM)?;
        inode.reserve_page(index).now().unwrap_or(Err(Errno::EIO))?;
        state.pages.insert(index, Slot::new(page.clone()));
        IN_MEMORY.fetch_add(1, Ordering::Relaxed);
        Ok(page)
    }

    async fn read(&self, inode: &dyn Inode, index: u64, count: usize) -> Result<Page> {
        loop {
            let turn = {
                let mut state = self.file().state.lock();
                if let Some(page) = state.get(index) {
                    return Ok(page);
                }
                match state.loads.iter().find(|load| load.pages.contains(&index)) {
                    Some(load) => load.turn.clone(),
                    None => {
                        let end = inode.core().size().div_ceil(PAGE_SIZE as u64);
                        let wanted = (count.clamp(1, READ_AHEAD_AT_MOST) as u64).min(end.saturating_sub(index)).max(1);
                        let turn = Arc::new(Mutex::new(()));
                        let pages = state.absent_from(index, wanted);
                        state.loads.push(Load { pages, turn: turn.clone() });
                        turn
                    }
                }
            };
            let _turn = turn.lock().await;
            // Whoever had the turn before may have read the page, may have failed, or may have been dropped.
            let pages = {
                let mut state = self.file().state.lock();
                if let Some(page) = state.get(index) {
                    return Ok(page);
                }
                match state.loads.iter().find(|load| Arc::ptr_eq(&load.turn, &turn)) {
                    Some(load) => load.pages.clone(),
                    None => continue,
                }
            };
            match self.fill(inode, &pages).await {
                Ok(fresh) => {
                    let is_ours = self.file().state.lock().end_load(&turn);
                    if is_ours {
                        for (index, page) in pages.zip(fresh) {
                            self.file().insert(index, page);
                        }
                    }
                }
                Err(errno) => {
                    self.file().state.lock().end_load(&turn);
                    return Err(errno);
                }
            }
        }
    }

    /// Reads pages into fresh memory: fewer if memory is short.
    async fn fill(&self, inode: &dyn Inode, pages: &Range<u64>) -> Result<Vec<Page>> {
        let mut fresh = Vec::new();
        for _ in pages.clone() {
            match Page::allocate(self.source) {
                Some(page) => fresh.push(page),
                None => break,
            }
        }
        if fresh.is_empty() {
            return Err(Errno::ENOMEM);
        }
        if let Err(errno) = inode.read_pages(pages.start, &fresh).await {
            // Only the first page was asked for: that those behind it cannot be read is no reason to fail.
            if fresh.len() == 1 {
                return Err(errno);
            }
            fresh.truncate(1);
            inode.read_page(pages.start, &fresh[0]).await?;
        }
        Ok(fresh)
    }

    /// Drops everything beyond `size`, which the inode already has, and zeroes the rest of the last page. Returns how many pages
    /// were dropped.
    pub fn cut(&self, size: u64) -> usize {
        let first = size.div_ceil(PAGE_SIZE as u64);
        let Some(file) = self.file.get() else { return 0 };
        file.for_mappers(|mapper| mapper.unmap(first..u64::MAX));
        let mut state = file.state.lock();
        let dropped = state.pages.split_off(&first);
        state.loads.retain(|load| load.pages.end <= first);
        let dirty = dropped.values().filter(|slot| slot.is_dirty).count();
        state.dirty -= dirty;
        let tail = (size % PAGE_SIZE as u64) as usize;
        if tail != 0
            && let Some(slot) = state.pages.get(&(first - 1))
        {
            slot.page.zero(tail, PAGE_SIZE - tail);
        }
        drop(state);
        file.uncount(dropped.len(), dirty);
        dropped.len()
    }

    /// Registers somebody who maps pages of this file; forgotten when it is dropped.
    pub fn add_mapper(&self, mapper: &Arc<dyn Mapper>) {
        let mut mappers = self.file().mappers.lock();
        mappers.retain(|known| known.strong_count() > 0);
        mappers.push(Arc::downgrade(mapper));
    }
}

impl File {
    /// Puts a page in, unless there is one; returns the one that is there.
    fn insert(self: &Arc<Self>, index: u64, page: Page) -> Page {
        let mut state = self.state.lock();
        if let Some(page) = state.get(index) {
            return page;
        }
        state.pages.insert(index, Slot::new(page.clone()));
        drop(state);
        CACHED.fetch_add(1, Ordering::Relaxed);
        self.list();
        page
    }

    /// Notes that room for a page was reserved. If the page is not the cached one any more, the next attempt looks again.
    fn reserved(&self, index: u64, page: Page) -> Page {
        if let Some(slot) = self.state.lock().pages.get_mut(&index)
            && slot.page.frame() == page.frame()
        {
            slot.is_reserved = true;
        }
        page
    }

    fn for_mappers(&self, work: impl Fn(&dyn Mapper)) {
        if self.mappers.lock().is_empty() {
            return;
        }
        let mappers = self.mappers.lock().clone();
        for mapper in mappers.iter().filter_map(Weak::upgrade) {
            work(&*mapper);
        }
    }

    fn uncount(&self, pages: usize, dirty: usize) {
        let counter = if self.is_storage { &IN_MEMORY } else { &CACHED };
        counter.fetch_sub(pages, Ordering::Relaxed);
        DIRTY.fetch_sub(dirty, Ordering::Relaxed);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let (pages, dirty) = {
            let state = self.state.lock();
            (state.pages.len(), state.dirty)
        };
        self.uncount(pages, dirty);
    }
}

static CACHED: AtomicUsize = AtomicUsize::new(0);
static IN_MEMORY: AtomicUsize = AtomicUsize::new(0);
static DIRTY: AtomicUsize = AtomicUsize::new(0);
/// Numbers for /proc/meminfo, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Pages of files on devices.
    pub cached: usize,
    /// Pages of files that are only in memory (Shmem).
    pub in_memory: usize,
    /// Pages to be written back.
    pub dirty: usize,
}

/// How much is cached now.
pub fn statistics() -> Statistics {
    Statistics {
        cached: CACHED.load(Ordering::Relaxed),
        in_memory: IN_MEMORY.load(Ordering::Relaxed),
        dirty: DIRTY.load(Ordering::Relaxed),
    }
}
