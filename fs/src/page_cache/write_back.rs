//! Which pages are dirty, and writing them back.
//!
//! ```text
//!   a writer                        the write-back
//!   load_for_write: reserve
//!   copy                            take_dirty: clean from now on
//!   mark_dirty                      write_protect mappings
//!                                   write_page ──► not seen to end: dirty again
//! ```
//!
//! A writer marks after it copied, so that a copy in the middle of a write-back makes the page dirty again.
//!
//! Next: `reclaim.rs`.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

use executor::sync::SpinLock;

use super::{DIRTY, File, PageCache};
use crate::{Inode, Io, Page, Result};

/// The inodes that have dirty pages.
static TO_BE_WRITTEN: SpinLock<VecDeque<Weak<dyn Inode>>> = SpinLock::new(VecDeque::new());

impl PageCache {
    /// Notes that a page was changed.
    pub fn mark_dirty(&self, index: u64) {
        if self.is_storage {
            return;
        }
        let mut state = self.file().state.lock();
        if let Some(slot) = state.pages.get_mut(&index)
            && !slot.is_dirty
        {
            slot.is_dirty = true;
            slot.is_reserved = true;
            state.dirty += 1;
            DIRTY.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes who writes the pages back that were marked dirty, so that [`write_back_all`] finds it.
    pub fn will_be_written(&self, inode: &Arc<dyn Inode>) {
        if !self.is_storage && !self.file().is_to_be_written.swap(true, Ordering::AcqRel) {
            TO_BE_WRITTEN.lock().push_back(Arc::downgrade(inode));
        }
    }

    /// How many pages are dirty.
    pub fn dirty(&self) -> usize {
        self.file.get().map_or(0, |file| file.state.lock().dirty)
    }

    /// Writes all dirty pages back.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC`: the page that could not be written, and those behind it, stay dirty.
    ///
    /// # Cancel safety
    ///
    /// A page whose write was not seen to end is dirty again.
    pub fn write_back<'a>(&'a self, inode: &'a dyn Inode) -> Io<'a, ()> {
        if self.dirty() == 0 {
            return Io::ready(Ok(()));
        }
        Io::wait(async move {
            let mut from = 0;
            while let Some((index, page)) = self.file().take_dirty(from) {
                let mut unwritten = Unwritten { cache: self, index, is_written: false };
                self.file().for_mappers(|mapper| mapper.write_protect(index..index + 1));
                inode.write_page(index, &page).await?;
                unwritten.is_written = true;
                from = index + 1;
            }
            Ok(())
        })
    }
}

impl File {
    /// The first dirty page from `from` on, clean from now on.
    fn take_dirty(&self, from: u64) -> Option<(u64, Page)> {
        let mut state = self.state.lock();
        let (&index, slot) = state.pages.range_mut(from..).find(|(_, slot)| slot.is_dirty)?;
        slot.is_dirty = false;
        slot.is_reserved = false;
        let page = slot.page.clone();
        state.dirty -= 1;
        DIRTY.fetch_sub(1, Ordering::Relaxed);
        Some((index, page))
    }
}

/// Makes its page dirty again unless it was written.
struct Unwritten<'a> {
    cache: &'a PageCache,
    index: u64,
    is_written: bool,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            self.cache.mark_dirty(self.index);
        }
    }
}

/// Writes all dirty pages of all files back: for sync(2), and for a task of the kernel that does so now and then.
///
/// # Errors
///
/// The first that a file had; the others are written all the same, and what failed stays dirty.
///
/// # Cancel safety
///
/// What was not written stays dirty.
pub async fn write_back_all() -> Result<()> {
    let mut result = Ok(());
    let files = TO_BE_WRITTEN.lock().len();
    for _ in 0..files {
        let next = TO_BE_WRITTEN.lock().pop_front();
        let Some(inode) = next.as_ref().and_then(Weak::upgrade) else { continue };
        let cache = &inode.core().pages;
        cache.file().is_to_be_written.store(false, Ordering::Release);
        let listed_again = ListedAgain(&inode);
        result = result.and(cache.write_back(&*inode).await);
        drop(listed_again);
    }
    result
}

/// Lists a file again if it has dirty pages still, or anew.
struct ListedAgain<'a>(&'a Arc<dyn Inode>);

impl Drop for ListedAgain<'_> {
    fn drop(&mut self) {
        let cache = &self.0.core().pages;
        if cache.dirty() > 0 {
            cache.will_be_written(self.0);
        }
    }
}
