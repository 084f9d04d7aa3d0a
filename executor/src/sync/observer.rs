//! Somebody who stays in a wait queue and is told of each wake: what epoll is made of.
//!
//! A waiter leaves the queue when it is woken, and comes back when it is polled; watching ten thousand files that way costs ten
//! thousand registrations per call. An observer registers once. Each wake of the queue calls its [`Observe::notify`], which
//! notes *which* file has something new (on epoll's ready list) and wakes whoever waits for the list. next: event.rs.

use alloc::sync::Arc;
use core::{fmt, ops::Deref, pin::Pin};

use super::wait_queue::{Entry, HomeOf, WaitQueue};
use crate::list::{List, Node};

/// What is told of each wake of a queue.
pub trait Observe: Send + Sync {
    /// The queue was woken. Called by whoever woke it, without the queue's lock; short, and without waiting. A call that was on its
    /// way when the observer left may still arrive; the last reference to the observer may go where that call was made, so its
    /// `Drop` is to be as light as this.
    fn notify(&self);
}

pin_project_lite::pin_project! {
    /// A lasting place in a wait queue. Dropping it leaves the queue.
    ///
    /// `Q` names the queue: usually a type of one's own that holds an `Arc` of the file, and dereferences to the file's queue; it
    /// must name the same queue always. Kept in a `Pin<Box<_>>`, or in the pinned item that it belongs to.
    pub struct Observer<Q>
    where
        Q: Deref<Target = WaitQueue>,
    {
        #[pin]
        node: Node<HomeOf<Q>, List, Entry>,
    }

    impl<Q> PinnedDrop for Observer<Q>
    where
        Q: Deref<Target = WaitQueue>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.as_ref().leave();
        }
    }
}

impl<Q: Deref<Target = WaitQueue>> Observer<Q> {
    /// An observer of `queue`, not yet registered.
    pub fn new(queue: Q, observer: Arc<dyn Observe>) -> Self {
        Self { node: Node::new(HomeOf(queue), Entry::observing(observer)) }
    }

    /// Is told of each wake from now on. What was so before is to be looked at *after* this.
    pub fn register(self: Pin<&Self>) {
        let node = self.project_ref().node;
        node.get_ref().home_handle().0.admit(node, |_| ());
    }

    /// Is told no more. It may register again.
    pub fn leave(self: Pin<&Self>) {
        let node = self.project_ref().node;
        if node.is_claimed() {
            node.get_ref().home_handle().0.dismiss(node);
        }
    }
}

impl<Q: Deref<Target = WaitQueue>> fmt::Debug for Observer<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
