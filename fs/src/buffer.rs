//! Where the bytes of a read go and the bytes of a write come from.
//!
//! The kernel implements both traits over user memory, so that file systems never see a user pointer. A copy may stop early
//! because a page of user memory is not there; it then returns fewer bytes than it was asked to move and
//! [`Sink::faulted`]/[`Source::faulted`] says so. The file returns what it has done so far (or [`Stop::Fault`](crate::Stop::Fault) if
//! nothing), the kernel brings the page in, and tries again.
//!
//! Slices implement them too: for tests, and for the kernel's own reads.
//!
//! Next: `file.rs`.

use crate::{PAGE_SIZE, Page};

/// Takes the bytes of a read.
pub trait Sink {
    /// How many more bytes fit.
    fn remaining(&self) -> usize;
    /// Takes bytes from kernel memory; returns how many it took: fewer than given if it is full or a copy faulted.
    fn put(&mut self, bytes: &[u8]) -> usize;
    /// Takes `len` bytes of a page from `offset` on; returns how many.
    fn put_page(&mut self, page: &Page, offset: usize, len: usize) -> usize;
    /// Takes `len` bytes of several pages as if they were one behind the other, from `offset` in the first on; returns how many.
    fn put_pages(&mut self, pages: &[Page], offset: usize, len: usize) -> usize {
        let (mut done, mut offset) = (0, offset);
        for page in pages {
            let part = (PAGE_SIZE - offset).min(len - done);
            let moved = self.put_page(page, offset, part);
            done += moved;
            if moved < part || done == len {
                break;
            }
            offset = 0;
        }
        done
    }
    /// Takes `len` zeros; returns how many.
    fn put_zeros(&mut self, len: usize) -> usize;
    /// Takes back the last `len` bytes put, to be put again: for a message that must be received whole, and stopped half-way at a page
    /// that is not there. Only bytes put since the attempt began can be taken back.
    fn give_back(&mut self, len: usize);
    /// Whether the last copy stopped at a page of user memory that is not there.
    fn faulted(&self) -> bool;
}

/// Gives the bytes of a write.
pub trait Source {
    /// How many more bytes there are.
    fn remaining(&self) -> usize;
    /// Gives bytes to kernel memory; returns how many: fewer than asked for if there are no more or a copy faulted.
    fn take(&mut self, into: &mut [u8]) -> usize;
    /// Gives `len` bytes to a page, from `offset` on; returns how many.
    fn take_page(&mut self, page: &Page, offset: usize, len: usize) -> usize;
    /// Passes over `len` bytes unread; returns how many (as writing to /dev/null does).
    fn skip(&mut self, len: usize) -> usize;
    /// Takes the last `len` bytes given back, to be given again: for a write that must happen whole or not at all, and stopped
    /// half-way at a page that is not there. Only bytes given since the attempt began can be given back.
    fn give_back(&mut self, len: usize);
    /// Whether the last copy stopped at a page of user memory that is not there.
    fn faulted(&self) -> bool;
}

/// A [`Sink`] over kernel memory: what was read is `filled()`.
pub struct SliceSink<'a> {
    bytes: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceSink<'a> {
    /// Fills `bytes` from its beginning.
    pub fn new(bytes: &'a mut [u8]) -> SliceSink<'a> {
        SliceSink { bytes, filled: 0 }
    }

    /// How many bytes it has taken.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

impl Sink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.filled
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.remaining());
        self.bytes[self.filled..self.filled + len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        len
    }

    fn put_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let len = len.min(self.remaining()).min(PAGE_SIZE - offset);
        page.read(offset, &mut self.bytes[self.filled..self.filled + len]);
        self.filled += len;
        len
    }

    fn put_zeros(&mut self, len: usize) -> usize {
        let len = len.min(self.remaining());
        self.bytes[self.filled..self.filled + len].fill(0);
        self.filled += len;
        len
    }

    fn give_back(&mut self, len: usize) {
        self.filled -= len;
    }

    fn faulted(&self) -> bool {
        false
    }
}

/// A [`Source`] over kernel memory.
pub struct SliceSource<'a> {
    bytes: &'a [u8],
    given: usize,
}

impl<'a> SliceSource<'a> {
    /// Gives `bytes` from its beginning.
    pub fn new(bytes: &'a [u8]) -> SliceSource<'a> {
        SliceSource { bytes, given: 0 }
    }
}

impl Source for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.given
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let len = into.len().min(self.remaining());
        into[..len].copy_from_slice(&self.bytes[self.given..self.given + len]);
        self.given += len;
        len
    }

    fn take_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let len = len.min(self.remaining()).min(PAGE_SIZE - offset);
        page.write(offset, &self.bytes[self.given..self.given + len]);
        self.given += len;
        len
    }

    fn skip(&mut self, len: usize) -> usize {
        let len = len.min(self.remaining());
        self.given += len;
        len
    }

    fn give_back(&mut self, len: usize) {
        self.given -= len;
    }

    fn faulted(&self) -> bool {
        false
    }
}
