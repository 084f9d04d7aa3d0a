//! An intrusive pairing heap: the smallest key in O(1), insertion in O(1), taking out any element in O(log n) amortised.
//!
//! Each element has a first `child`; children of one parent are chained by `next`. `previous` points to the element before
//! in that chain or, for the first child, to the parent: that is what lets an element in the middle be taken out.
//!
//! ```text
//!        root
//!         │ child          A pop melts the children two by two, left to right,
//!         ▼      next      then the pairs, right to left. Neither step recurses:
//!         A ────► B ────► C     the chain itself serves as the stack.
//!         │ child
//!         ▼
//!         D
//! ```
//!
//! Elements with equal keys leave in the order in which they came. next: time/timers.rs and run_queue.rs, which use it.

use super::{Link, Links};

/// A heap of links. The caller keeps the elements alive and unmoved while they are in.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    root: Option<Link>,
    /// Of the last element that came.
    sequence: u64,
}

// SAFETY: a heap is nothing but a pointer, and it is followed only on behalf of callers who vouch for the elements.
unsafe impl Send for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self { root: None, sequence: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The smallest key.
    #[inline]
    pub(crate) fn first_key(&self) -> Option<u64> {
        // SAFETY: the root is an element of this heap: valid until it is taken out.
        self.root.map(|root| unsafe { (*root.as_ptr()).key })
    }

    /// Puts `element` in at `key`.
    ///
    /// # Safety
    /// `element` is valid, in no collection, exclusively the caller's, and stays valid and unmoved until it is taken out.
    pub(crate) unsafe fn insert(&mut self, element: Link, key: u64) {
        self.sequence += 1;
        // SAFETY: exclusively the caller's, by contract; from here on an element of this heap.
        unsafe {
            *element.as_ptr() = Links { key, sequence: self.sequence, ..Links::new() };
            self.insert_ranked(element);
        }
    }

    /// Puts `element` in, which has its key and its sequence already.
    ///
    /// # Safety
    /// As [`Heap::insert`]; it is linked to nothing.
    pub(crate) unsafe fn insert_ranked(&mut self, element: Link) {
        // SAFETY: exclusively the caller's, by contract; from here on an element of this heap.
        self.root = unsafe { meld(self.root, Some(element)) };
    }

    /// Takes out an element with the smallest key.
    pub(crate) fn pop(&mut self) -> Option<Link> {
        let root = self.root?;
        // SAFETY: the root, and all that hangs below it, are elements of this heap.
        unsafe {
            let links = root.as_ptr().replace(Links::new());
            self.root = merge_chain(links.child);
        }
        Some(root)
    }

    /// Takes `element` out.
    ///
    /// # Safety
    /// `element` is in this heap.
    pub(crate) unsafe fn remove(&mut self, element: Link) {
        if self.root == Some(element) {
            self.pop();
            return;
        }
        // SAFETY: `element` and its neighbours are elements of this heap; not being the root, it has a `previous`.
        unsafe {
            let Links { next, previous, child, .. } = element.as_ptr().replace(Links::new());
            if let Some(before) = previous {
                let before = before.as_ptr();
                if (*before).child == Some(element) {
                    (*before).child = next;
                } else {
                    (*before).next = next;
                }
            }
            if let Some(after) = next {
                (*after.as_ptr()).previous = previous;
            }
            self.root = meld(self.root, merge_chain(child));
        }
    }
}

/// Joins two heaps: the root that is greater becomes the first child of the other.
///
/// # Safety
/// Both are roots of valid heaps that share no element, and are the caller's to change.
unsafe fn meld(a: Option<Link>, b: Option<Link>) -> Option<Link> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    // SAFETY: valid and the caller's, by contract; so are the children.
    unsafe {
        let (top, below) = if rank(b) < rank(a) { (b, a) } else { (a, b) };
        let former = (*top.as_ptr()).child.replace(below);
        if let Some(former) = former {
            (*former.as_ptr()).previous = Some(below);
        }
        (*below.as_ptr()).next = former;
        (*below.as_ptr()).previous = Some(top);
        Some(top)
    }
}

/// What decides between two elements.
///
/// # Safety
/// `element` is valid, and the caller's to read.
unsafe fn rank(element: Link) -> (u64, u64) {
    // SAFETY: by contract.
    unsafe { ((*element.as_ptr()).key, (*element.as_ptr()).sequence) }
}

/// Joins a chain of siblings into one heap.
///
/// # Safety
/// `first` begins a chain of valid heaps that are the caller's to change.
unsafe fn merge_chain(first: Option<Link>) -> Option<Link> {
    // SAFETY: every element of the chain is valid and the caller's, by contract. Each is cut from the chain before it is melted.
    unsafe {
        // Left to right: pairs, stacked on each other by `next`.
        let mut rest = first;
        let mut pairs: Option<Link> = None;
        while let Some(a) = rest {
            let b = (*a.as_ptr()).next;
            rest = b.and_then(|b| (*b.as_ptr()).next);
            for cut in [Some(a), b].into_iter().flatten() {
                (*cut.as_ptr()).next = None;
                (*cut.as_ptr()).previous = None;
            }
            if let Some(pair) = meld(Some(a), b) {
                (*pair.as_ptr()).next = pairs;
                pairs = Some(pair);
            }
        }
        // Right to left: the stack is already in that order.
        let mut merged = None;
        while let Some(pair) = pairs {
            pairs = (*pair.as_ptr()).next.take();
            merged = meld(merged, Some(pair));
        }
        merged
    }
}
