//! An open regular file: reading and writing through the page cache.
//!
//! An attempt copies straight between the caller's memory and the cached pages, one page at a time. What is not cached makes it
//! stop with [`Stop::Miss`]; [`FileOps::prepare`] then brings the page in, and on a sequential read some pages more.
//!
//! Next: `directory_file.rs`.

use alloc::sync::Arc;
use core::any::Any;

use executor::sync::SpinLock;

use crate::page_cache::READ_AHEAD_AT_MOST;
use crate::{Errno, FileOps, Inode, Io, OpenFlags, PAGE_SIZE, Page, Result, Sink, Source, Stop, environment};

/// An open regular file.
pub struct RegularFile {
    inode: Arc<dyn Inode>,
    options: Options,
    read_ahead: SpinLock<ReadAhead>,
}

/// What was decided when it was opened.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Reads set the access time.
    pub sets_access_time: bool,
    /// Writes leave the set-user-ID and set-group-ID bits (`CAP_FSETID`).
    pub keeps_set_id: bool,
}

/// Doubles the number of pages read at once while misses follow each other.
#[derive(Default)]
struct ReadAhead {
    next: u64,
    window: usize,
}

impl ReadAhead {
    fn pages_for(&mut self, index: u64) -> usize {
        self.window = if index == self.next { (self.window * 2).clamp(4, READ_AHEAD_AT_MOST) } else { 1 };
        self.next = index + self.window as u64;
        self.window
    }
}

/// What a miss asks for: the page, and whether to write it.
fn miss(index: u64, to_write: bool) -> Stop {
    Stop::Miss(index << 1 | u64::from(to_write))
}

/// Where in which page a position is.
fn split(position: u64) -> (u64, usize) {
    (position / PAGE_SIZE as u64, (position % PAGE_SIZE as u64) as usize)
}

impl RegularFile {
    /// Opens a regular file.
    pub fn new(inode: Arc<dyn Inode>, options: Options) -> RegularFile {
        RegularFile { inode, options, read_ahead: SpinLock::new(ReadAhead::default()) }
    }

    /// Gives what is cached from `offset` of a page on, at most `wanted` bytes: how many were taken, of how many. `None`: the page is not here.
    fn put_cached(&self, index: u64, offset: usize, wanted: usize, sink: &mut dyn Sink) -> Option<(usize, usize)> {
        let pages = &self.inode.core().pages;
        if wanted <= PAGE_SIZE - offset {
            // One page is found more quickly than a run of one.
            let page = pages.get(index)?;
            return Some((sink.put_page(&page, offset, wanted), wanted));
        }
        let run = pages.get_run(index, (offset + wanted).div_ceil(PAGE_SIZE));
        run.first()?;
        let len = wanted.min(run.len() * PAGE_SIZE - offset);
        Some((sink.put_pages(&run, offset, len), len))
    }

    fn page_to_write(&self, index: u64) -> Result<Page, Stop> {
        match self.inode.core().pages.load_for_write(&*self.inode, index).now() {
            Ok(page) => Ok(page?),
            Err(_) => Err(miss(index, true)),
        }
    }

    /// The access time follows the first read after a change, as `relatime` does.
    fn note_read(&self) {
        if !self.options.sets_access_time {
            return;
        }
        let mut attributes = self.inode.core().attributes.lock();
        if attributes.accessed <= attributes.modified || attributes.accessed <= attributes.changed {
            attributes.accessed = environment::now();
        }
    }

    fn note_written(&self) {
        let now = environment::now();
        let mut attributes = self.inode.core().attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
        if !self.options.keeps_set_id {
            attributes.mode = without_set_id(attributes.mode);
        }
    }
}

/// A mode that a change of content by the unprivileged leaves: set-group-ID without group execution means something else.
pub(crate) fn without_set_id(mode: u32) -> u32 {
    let group = if mode & 0o010 != 0 { 0o2000 } else { 0 };
    mode & !(0o4000 | group)
}

impl FileOps for RegularFile {
    fn try_read(&self, position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let core = self.inode.core();
        let size = core.size();
        let mut done = 0;
        while *position < size && sink.remaining() > 0 {
            let (index, offset) = split(*position);
            let wanted = usize::try_from(size - *position).unwrap_or(usize::MAX).min(sink.remaining());
            let (moved, len) = match self.put_cached(index, offset, wanted, sink) {
                Some(outcome) => outcome,
                None if self.inode.is_hole(index) => {
                    let len = wanted.min(PAGE_SIZE - offset);
                    (sink.put_zeros(len), len)
                }
                None if done > 0 => break,
                None => return Err(miss(index, false)),
            };
            *position += moved as u64;
            done += moved;
            if moved < len {
                break;
            }
        }
        if done == 0 && sink.faulted() {
            return Err(Stop::Fault);
        }
        self.note_read();
        Ok(done)
    }

    fn try_write(&self, position: &mut u64, flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let core = self.inode.core();
        let _writing = core.writing.lock();
        if source.remaining() == 0 {
            return Ok(0);
        }
        if flags.contains(OpenFlags::APPEND) {
            *position = core.size();
        }
        let limit = self.inode.max_size();
        if *position >= limit {
            return Err(Stop::Errno(Errno::EFBIG));
        }
        let mut done = 0;
        let mut stop = None;
        while source.remaining() > 0 && *position < limit {
            let (index, offset) = split(*position);
            let len =
                (PAGE_SIZE - offset).min((limit - *position).min(PAGE_SIZE as u64) as usize).min(source.remaining());
            let page = match self.page_to_write(index) {
                Ok(page) => page,
                Err(why) => {
                    stop = Some(why);
                    break;
                }
            };
            let moved = source.take_page(&page, offset, len);
            if moved > 0 {
                core.pages.mark_dirty(index);
                *position += moved as u64;
                done += moved;
                let mut attributes = core.attributes.lock();
                attributes.size = attributes.size.max(*position);
            }
            if moved < len {
                break;
            }
        }
        if done == 0 {
            return Err(stop.unwrap_or(Stop::Fault));
        }
        core.pages.will_be_written(&self.inode);
        self.note_written();
        Ok(done)
    }

    fn prepare(&self, miss: u64) -> Io<'_, ()> {
        let (index, to_write) = (miss >> 1, miss & 1 == 1);
        let pages = &self.inode.core().pages;
        let page = if to_write {
            pages.load_for_write(&*self.inode, index)
        } else {
            pages.load_ahead(&*self.inode, index, self.read_ahead.lock().pages_for(index))
        };
        match page.now() {
            Ok(page) => Io::ready(page.map(drop)),
            Err(waiting) => Io::wait(async move { waiting.await.map(drop) }),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn reads_fully(&self) -> bool {
        true
    }

    fn seek_data(&self, position: u64, want_hole: bool) -> Result<u64> {
        let core = self.inode.core();
        let size = core.size();
        if position >= size {
            return Err(Errno::ENXIO);
        }
        let is_hole = |index| core.pages.get(index).is_none() && self.inode.is_hole(index);
        let (first, _) = split(position);
        let found = (first..size.div_ceil(PAGE_SIZE as u64)).find(|&index| is_hole(index) == want_hole);
        match found {
            Some(index) => Ok((index * PAGE_SIZE as u64).max(position)),
            None if want_hole => Ok(size),
            None => Err(Errno::ENXIO),
        }
    }

    fn mappable(&self) -> Option<Arc<dyn Inode>> {
        Some(self.inode.clone())
    }

    fn sync(&self, data_only: bool) -> Io<'_, ()> {
        let inode = &self.inode;
        match inode.core().pages.write_back(&**inode).now() {
            Ok(Ok(())) => inode.sync(data_only),
            Ok(failed) => Io::ready(failed),
            Err(waiting) => Io::wait(async move {
                waiting.await?;
                inode.sync(data_only).await
            }),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
