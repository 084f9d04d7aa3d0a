//! One who waits: a place in a [`WaitQueue`], as part of a future.
//!
//! It is a future itself ([`WaitQueue::wait`]), and a tool for other futures, which register it, attempt what they wait for, and
//! leave. What is in the queue's hands is the node; all of it is reached under the queue's lock. next: wait_until.rs.

use core::{
    fmt,
    future::Future,
    ops::Deref,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};

use super::wait_queue::{Entry, HomeOf, WaitQueue};
use crate::{
    list::{List, Node},
    task::note_wait,
};

pin_project_lite::pin_project! {
    /// A place in a wait queue, as part of a waiting future.
    ///
    /// It is a future itself, ready once it has been woken. Inside another future's poll:
    ///
    /// ```
    /// # use executor::sync::{WaitQueue, Waiter};
    /// # use std::{pin::pin, future::poll_fn, task::Poll};
    /// # async fn example(queue: &WaitQueue, mut attempt: impl FnMut() -> Option<u8>) -> u8 {
    /// let mut waiter = pin!(Waiter::exclusive(queue));
    /// poll_fn(|context| {
    ///     waiter.as_mut().register(context);          // first,
    ///     match attempt() {                           // then
    ///         Some(byte) => {
    ///             waiter.as_mut().leave();
    ///             Poll::Ready(byte)
    ///         }
    ///         None => Poll::Pending,
    ///     }
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// `Q` names the queue: a reference, or anything that dereferences to the same queue always, if the waiter is to outlive a borrow.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue; a wake that it was chosen for, and has not looked at, goes to the next.
    #[must_use = "a waiter does nothing unless it is polled or registered"]
    pub struct Waiter<Q>
    where
        Q: Deref<Target = WaitQueue>,
    {
        #[pin]
        node: Node<HomeOf<Q>, List, Entry>,
        created_at: &'static Location<'static>,
    }

    impl<Q> PinnedDrop for Waiter<Q>
    where
        Q: Deref<Target = WaitQueue>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.leave();
        }
    }
}

/// A waiter that borrows its queue: what [`WaitQueue::wait`] returns.
pub type Wait<'q> = Waiter<&'q WaitQueue>;

impl<Q: Deref<Target = WaitQueue>> Waiter<Q> {
    /// A waiter that is woken by as many wakes as come to it in turn.
    #[track_caller]
    pub fn exclusive(queue: Q) -> Self {
        Self::new(queue, true)
    }

    /// A waiter that is woken by every wake.
    #[track_caller]
    pub fn shared(queue: Q) -> Self {
        Self::new(queue, false)
    }

    #[track_caller]
    fn new(queue: Q, is_exclusive: bool) -> Self {
        Self { node: Node::new(HomeOf(queue), Entry::waiting(is_exclusive)), created_at: Location::caller() }
    }

    /// Where it was made: where the task is seen to wait.
    #[must_use]
    pub fn created_at(&self) -> &'static Location<'static> {
        self.created_at
    }

    /// Stands in the queue from now on, and has the task of `context` woken. The caller attempts what it waits for *after* this.
    ///
    /// To be called at each poll. A wake that had come counts as looked at; a waiter that still stands in the queue keeps its place.
    pub fn register(self: Pin<&mut Self>, context: &Context<'_>) {
        let this = self.project();
        note_wait(context, this.created_at);
        let node = this.node.as_ref();
        let mut former = None;
        node.home_handle().0.admit(node, |entry| {
            // A wake that had come is looked at by the attempt that follows.
            entry.take_woken();
            former = entry.set_waker(context.waker());
        });
        drop(former);
    }

    /// Whether a wake has come since it registered.
    #[must_use]
    pub fn is_woken(self: Pin<&mut Self>) -> bool {
        let node = self.project().node;
        let node = node.as_ref();
        node.is_claimed() && node.home().lock().value(node).is_woken()
    }

    /// Leaves the queue. A wake that it was chosen for since it registered goes to the next: for all this waiter knows, what it
    /// found in its attempt was there before.
    pub fn leave(self: Pin<&mut Self>) {
        let node = self.project().node;
        let node = node.as_ref();
        let queue: &WaitQueue = &node.home_handle().0;
        if node.is_claimed() && queue.dismiss(node) {
            queue.wake_one();
        }
    }

    /// Ready once a wake has come since the first poll. See [`Waiter::register`] for what to do if it is to be attempted first.
    pub fn poll_woken(self: Pin<&mut Self>, context: &Context<'_>) -> Poll<()> {
        let this = self.project();
        let node = this.node.as_ref();
        if !node.is_claimed() {
            note_wait(context, this.created_at);
            node.home_handle().0.admit(node, |entry| {
                entry.set_waker(context.waker());
            });
            return Poll::Pending;
        }
        let mut locked = node.home().lock();
        let entry = locked.value(node);
        if entry.take_woken() {
            locked.retire(node);
            return Poll::Ready(());
        }
        let former = entry.set_waker(context.waker());
        drop(locked);
        drop(former);
        Poll::Pending
    }
}

impl<Q: Deref<Target = WaitQueue>> Future for Waiter<Q> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_woken(context)
    }
}

impl<Q: Deref<Target = WaitQueue>> fmt::Debug for Waiter<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}
