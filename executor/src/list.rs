//! Intrusive collections: the links live in what is linked, so that waiting, waking and queueing need no memory.
//!
//! Two users, two safe doors over the same raw links:
//!
//! - *Nodes*: a [`Node`] is part of a future (or of an epoll item) and hangs in a [`Home`], a collection behind a spin
//!   lock. Everything that the collection may touch is in the node's `inner`, and is touched under the home's lock only.
//!   A node that is dropped while it hangs takes itself out: that is what makes cancellation safe.
//! - *Tasks*: whoever owns a task's [`Runnable`](crate::task::Runnable) owns its links; `run_queue.rs` keeps them here.
//!
//! The shape is a [`List`] (first in, first out), a [`Heap`] (smallest key first), a [`Calendar`] (smallest key first, to within a
//! day) or a [`Wheel`] (what is due first). They are this crate's only pointer work besides task.rs. next: list/heap.rs,
//! list/calendar.rs, list/wheel.rs, list/node.rs.

mod calendar;
mod heap;
mod node;
mod wheel;

use core::ptr::NonNull;

pub(crate) use calendar::Calendar;
pub(crate) use heap::Heap;
pub(crate) use node::{Home, Locked, Node, Visit};
pub(crate) use wheel::Wheel;

/// A pointer to the links of something linked.
pub(crate) type Link = NonNull<Links>;

/// The links of one element. Stands first in whatever contains it, so that a [`Link`] is also a pointer to the container.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Links {
    next: Option<Link>,
    previous: Option<Link>,
    /// The first of those below, in a heap.
    child: Option<Link>,
    /// The order in a heap,
    key: u64,
    /// and among equal keys.
    sequence: u64,
}

impl Links {
    pub(crate) const fn new() -> Self {
        Self { next: None, previous: None, child: None, key: 0, sequence: 0 }
    }

    /// The element after this one. For the lock-free stack in task.rs, which has no other use for the links.
    pub(crate) fn next(&self) -> Option<Link> {
        self.next
    }

    /// See [`Links::next`].
    pub(crate) fn set_next(&mut self, next: Option<Link>) {
        self.next = next;
    }
}

/// A doubly linked list. The caller keeps the elements alive and unmoved while they are linked.
#[derive(Debug, Default)]
pub(crate) struct List {
    head: Option<Link>,
    tail: Option<Link>,
}

// SAFETY: a list is nothing but pointers, and they are followed only by its unsafe functions, whose callers vouch for the
// elements on whichever thread they call.
unsafe impl Send for List {}

impl List {
    pub(crate) const fn new() -> Self {
        Self { head: None, tail: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(crate) fn first(&self) -> Option<Link> {
        self.head
    }

    /// Appends `element`.
    ///
    /// # Safety
    /// `element` is valid, in no collection, exclusively the caller's, and stays valid and unmoved until it is taken out.
    pub(crate) unsafe fn push_back(&mut self, element: Link) {
        // SAFETY: exclusively the caller's, by contract.
        unsafe { *element.as_ptr() = Links { previous: self.tail, ..Links::new() } };
        match self.tail.replace(element) {
            // SAFETY: elements of this list are valid, and its own to touch, until they are taken out.
            Some(tail) => unsafe { (*tail.as_ptr()).next = Some(element) },
            None => self.head = Some(element),
        }
    }

    /// Puts `element` at the front.
    ///
    /// # Safety
    /// As [`List::push_back`].
    pub(crate) unsafe fn push_front(&mut self, element: Link) {
        // SAFETY: exclusively the caller's, by contract.
        unsafe { *element.as_ptr() = Links { next: self.head, ..Links::new() } };
        match self.head.replace(element) {
            // SAFETY: elements of this list are valid, and its own to touch, until they are taken out.
            Some(head) => unsafe { (*head.as_ptr()).previous = Some(element) },
            None => self.tail = Some(element),
        }
    }

    /// Takes the first element out.
    pub(crate) fn pop_front(&mut self) -> Option<Link> {
        let first = self.head?;
        // SAFETY: `first` is an element of this list.
        unsafe { self.remove(first) };
        Some(first)
    }

    /// Takes `element` out.
    ///
    /// # Safety
    /// `element` is an element of this list.
    pub(crate) unsafe fn remove(&mut self, element: Link) {
        // SAFETY: elements of this list are valid, and its own to touch, until they are taken out.
        let Links { next, previous, .. } = unsafe { element.as_ptr().replace(Links::new()) };
        match previous {
            // SAFETY: as above.
            Some(previous) => unsafe { (*previous.as_ptr()).next = next },
            None => self.head = next,
        }
        match next {
            // SAFETY: as above.
            Some(next) => unsafe { (*next.as_ptr()).previous = previous },
            None => self.tail = previous,
        }
    }
}
