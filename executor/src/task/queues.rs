//! Collections of tasks: room for one, a lock-free stack, a first-in-first-out queue, and two in an order.
//!
//! What they hold are owners of a task's links ([`Runnable`], [`Dead`]), taken by value and given back by value. So a task is
//! in one collection at most, and the safe functions here are safe for everybody. next: run_queue.rs.

use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};

use super::{Dead, Runnable};
use crate::{
    atomic::{AtomicPtr, Ordering},
    list::{Calendar, Heap, Link, Links, List},
};

/// What owns the links of a cell, and can give them up to a collection.
pub(crate) trait Element {
    /// Gives the cell up to a collection: its links are the collection's from now on.
    fn into_link(self) -> Link;

    /// Takes the cell back from a collection.
    ///
    /// # Safety
    /// `link` was made by `into_link` of the same type, and is given back once.
    unsafe fn from_link(link: Link) -> Self;
}

impl Element for Runnable {
    #[inline]
    fn into_link(self) -> Link {
        // The links stand first in the cell. It is a pointer to the whole cell, and can be used as that again.
        self.0.cast()
    }

    #[inline]
    unsafe fn from_link(link: Link) -> Self {
        Self(link.cast())
    }
}

impl Element for Dead {
    #[inline]
    fn into_link(self) -> Link {
        self.0.cast()
    }

    #[inline]
    unsafe fn from_link(link: Link) -> Self {
        Self(link.cast())
    }
}

/// Runnable tasks, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Fifo(List);

impl Fifo {
    pub(crate) const fn new() -> Self {
        Self(List::new())
    }

    #[inline]
    pub(crate) fn push(&mut self, task: Runnable) {
        // SAFETY: `task` owned the links; they are this list's now. The queue's reference keeps the cell, which never moves.
        unsafe { self.0.push_back(task.into_link()) };
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Runnable> {
        // SAFETY: every element was pushed above, as a `Runnable`, and is taken out once.
        self.0.pop_front().map(|link| unsafe { Runnable::from_link(link) })
    }
}

/// Runnable tasks, by their places.
#[derive(Debug)]
pub(crate) struct ByPlace(Heap);

impl ByPlace {
    pub(crate) const fn new() -> Self {
        Self(Heap::new())
    }

    #[inline]
    pub(crate) fn push(&mut self, task: Runnable, place: u64) {
        // SAFETY: `task` owned the links; they are this heap's now. The queue's reference keeps the cell, which never moves.
        unsafe { self.0.insert(task.into_link(), place) };
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Runnable> {
        // SAFETY: every element was pushed above, as a `Runnable`, and is taken out once.
        self.0.pop().map(|link| unsafe { Runnable::from_link(link) })
    }
}

/// Runnable tasks, least virtual runtime first, to within 131 µs; those with as much in the order in which they came.
#[derive(Debug)]
pub(crate) struct ByTime(Calendar);

impl ByTime {
    pub(crate) const fn new() -> Self {
        Self(Calendar::new())
    }

    /// The virtual runtime of the task that [`ByTime::pop`] would return.
    #[inline]
    pub(crate) fn first_time(&self) -> Option<u64> {
        self.0.first_key()
    }

    #[inline]
    pub(crate) fn push(&mut self, task: Runnable, time: u64) {
        // SAFETY: `task` owned the links; they are this calendar's now. The queue's reference keeps the cell, which never moves.
        unsafe { self.0.insert(task.into_link(), time) };
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Runnable> {
        // SAFETY: every element was pushed above, as a `Runnable`, and is taken out once.
        self.0.pop().map(|link| unsafe { Runnable::from_link(link) })
    }
}

/// Room for one runnable task. Looked into from anywhere, filled and emptied by one thread of execution.
pub(crate) struct Slot(AtomicPtr<Links>);

impl Slot {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: reliable for who fills it; for others a hint.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Puts `task` in, where nothing is. Not in an interrupt handler: of two that fill it at the same time one would be forgotten.
    #[inline]
    pub(crate) fn fill(&self, task: Runnable) {
        debug_assert!(self.is_empty(), "the slot was full");
        // Release: pairs with the Acquire of take(), should that be another thread's.
        self.0.store(task.into_link().as_ptr(), Ordering::Release);
    }

    /// Takes out what is in.
    #[inline]
    pub(crate) fn take(&self) -> Option<Runnable> {
        if self.is_empty() {
            return None;
        }
        // A read-modify-write, whoever calls: a task is given to one only.
        let link = NonNull::new(self.0.swap(ptr::null_mut(), Ordering::AcqRel))?;
        // SAFETY: what is in was put in by fill(), as a `Runnable`, and is taken out once.
        Some(unsafe { Runnable::from_link(link) })
    }
}

/// A lock-free stack of tasks: pushed to from anywhere, emptied all at once.
pub(crate) struct Stack<T> {
    head: AtomicPtr<Links>,
    elements: PhantomData<fn(T) -> T>,
}

impl<T: Element> Stack<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), elements: PhantomData }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Acquire: whoever acts on "not empty" goes on to take all.
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Puts `element` on top. Takes no lock.
    #[inline]
    pub(crate) fn push(&self, element: T) {
        let link = element.into_link();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `element` owned the links; they are the stack's now, and ours until the exchange succeeds.
            unsafe { (*link.as_ptr()).set_next(NonNull::new(head)) };
            // Release: pairs with the Acquire of take_all(), which reads the links.
            match self.head.compare_exchange_weak(head, link.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all elements; they are handed out oldest first.
    #[inline]
    pub(crate) fn take_all(&self) -> Taken<T> {
        if self.is_empty() {
            return Taken { next: None, elements: PhantomData };
        }
        // Acquire: pairs with the Release of each push. Release: whoever finds it empty sees what was done before it was emptied.
        let mut newest = NonNull::new(self.head.swap(ptr::null_mut(), Ordering::AcqRel));
        let mut oldest: Option<Link> = None;
        while let Some(link) = newest {
            // SAFETY: all that was on the stack is ours now.
            unsafe {
                newest = (*link.as_ptr()).next();
                (*link.as_ptr()).set_next(oldest);
            }
            oldest = Some(link);
        }
        Taken { next: oldest, elements: PhantomData }
    }
}

/// What was taken from a [`Stack`].
pub(crate) struct Taken<T> {
    next: Option<Link>,
    elements: PhantomData<fn(T) -> T>,
}

impl<T: Element> Iterator for Taken<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        let link = self.next?;
        // SAFETY: the chain is ours; each element was pushed as a `T`, is handed out once, and its links are not looked at afterwards.
        unsafe {
            self.next = (*link.as_ptr()).next();
            Some(T::from_link(link))
        }
    }
}
