//! Collections that grow by what a program asked for: `ENOMEM` where the heap has nothing, and a place at which tests let that happen.
//!
//! Next: `heap.rs`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use abi::Errno;

use super::frames::faults;

/// A collection that can be asked to make room before it is added to.
pub trait MakeRoom {
    /// Makes room for `more` elements, and some to spare.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the collection is as it was.
    fn make_room(&mut self, more: usize) -> Result<(), Errno>;

    /// Makes room for `more` elements and no others.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the collection is as it was.
    fn make_exact_room(&mut self, more: usize) -> Result<(), Errno>;
}

impl<T> MakeRoom for Vec<T> {
    #[inline]
    fn make_room(&mut self, more: usize) -> Result<(), Errno> {
        if self.capacity() - self.len() >= more {
            return Ok(());
        }
        attempt(|| self.try_reserve(more).is_ok())
    }

    #[inline]
    fn make_exact_room(&mut self, more: usize) -> Result<(), Errno> {
        if self.capacity() - self.len() >= more {
            return Ok(());
        }
        attempt(|| self.try_reserve_exact(more).is_ok())
    }
}

impl<T> MakeRoom for VecDeque<T> {
    #[inline]
    fn make_room(&mut self, more: usize) -> Result<(), Errno> {
        if self.capacity() - self.len() >= more {
            return Ok(());
        }
        attempt(|| self.try_reserve(more).is_ok())
    }

    #[inline]
    fn make_exact_room(&mut self, more: usize) -> Result<(), Errno> {
        if self.capacity() - self.len() >= more {
            return Ok(());
        }
        attempt(|| self.try_reserve_exact(more).is_ok())
    }
}

/// What would allocate, unless a test lets it fail.
fn attempt(grow: impl FnOnce() -> bool) -> Result<(), Errno> {
    if !faults::strikes() && grow() { Ok(()) } else { Err(Errno::ENOMEM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_is_there_needs_no_memory_and_what_fails_changes_nothing() {
        let mut list = Vec::with_capacity(2);
        list.push(1);
        faults::fail_after(Some(0));
        assert_eq!(list.make_room(1), Ok(()));
        assert_eq!(list.make_room(2), Err(Errno::ENOMEM));
        assert_eq!((list.len(), list.capacity()), (1, 2));
        assert_eq!(list.make_exact_room(2), Ok(()), "it fails once");
    }
}
