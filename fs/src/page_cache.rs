//! The page cache: the pages of a file's content that are in memory, shared by read, write and mmap.
//!
//! A page gets in by [`PageCache::load`], which reads it once however many wait for it, and stays until the file is shortened,
//! the inode goes, or memory runs short. For file systems that live in memory (tmpfs) the cache *is* the storage.
//!
//! Mappings: an address space that maps the file registers a [`Mapper`], so that truncation can take pages out of page tables
//! and write-back can write-protect them first.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use executor::sync::SpinLock;

use crate::inode::Inode;
use crate::{Errno, Io, Page, PageSource};

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
    pages: SpinLock<BTreeMap<u64, Slot>>,
    mappers: SpinLock<Vec<Weak<dyn Mapper>>>,
}

struct Slot {
    page: Page,
    is_dirty: bool,
}

impl PageCache {
    /// An empty cache whose pages come from `source`.
    pub const fn new(source: &'static dyn PageSource) -> PageCache {
        PageCache { source, pages: SpinLock::new(BTreeMap::new()), mappers: SpinLock::new(Vec::new()) }
    }

    /// The page if it is here: content bytes `index * 4096 ..`.
    pub fn get(&self, index: u64) -> Option<Page> {
        self.pages.lock().get(&index).map(|slot| slot.page.clone())
    }

    /// The page, read from storage first if it is not here.
    ///
    /// # Errors
    ///
    /// `EIO`; `ENOMEM`.
    pub fn load<'a>(&'a self, inode: &'a dyn Inode, index: u64) -> Io<'a, Page> {
        if let Some(page) = self.get(index) {
            return Io::ready(Ok(page));
        }
        Io::wait(async move {
            let page = Page::allocate(self.source).ok_or(Errno::ENOMEM)?;
            inode.read_page(index, &page).await?;
            let mut pages = self.pages.lock();
            let slot = pages.entry(index).or_insert(Slot { page, is_dirty: false });
            Ok(slot.page.clone())
        })
    }

    /// Notes that a page was changed.
    pub fn mark_dirty(&self, index: u64) {
        if let Some(slot) = self.pages.lock().get_mut(&index) {
            slot.is_dirty = true;
        }
    }

    /// Registers somebody who maps pages of this file; forgotten when it is dropped.
    pub fn add_mapper(&self, mapper: &Arc<dyn Mapper>) {
        self.mappers.lock().push(Arc::downgrade(mapper));
    }
}
