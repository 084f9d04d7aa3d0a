//! A future that is ready at a point in time. next: timeout.rs.

use core::{
    future::Future,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};

use super::{Instant, TimerHandle, timers::Timer};
use crate::{
    list::{Home, Node, Wheel},
    task::note_wait,
};

pin_project_lite::pin_project! {
    /// Waits until a point in time: see [`TimerHandle::sleep_until`].
    ///
    /// # Cancel safety
    /// Dropping it takes its deadline back; nothing remains.
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct Sleep {
        clock: TimerHandle,
        deadline: Instant,
        cpu: usize,
        created_at: &'static Location<'static>,
        #[pin]
        node: Node<&'static Home<Wheel, Timer>, Wheel, Timer>,
    }
}

impl Sleep {
    #[inline]
    pub(crate) fn new(clock: TimerHandle, deadline: Instant, created_at: &'static Location<'static>) -> Self {
        let cpu = clock.0.here();
        let node = Node::new(clock.0.timers(cpu), Timer { waker: None });
        Self { clock, deadline, cpu, created_at, node }
    }

    /// What it waits for.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for another point in time from now on.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.project();
        *this.deadline = deadline;
        let node = this.node.as_ref();
        if node.is_claimed() {
            node.home().lock().retire(node);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let node = this.node.as_ref();
        if node.is_claimed() {
            let mut locked = node.home().lock();
            if !locked.is_linked(node) {
                return Poll::Ready(());
            }
            let waker = &mut locked.value(node).waker;
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                let former = waker.replace(context.waker().clone());
                drop(locked);
                drop(former);
            }
            return Poll::Pending;
        }
        if *this.deadline <= this.clock.now() {
            return Poll::Ready(());
        }
        note_wait(context, this.created_at);
        if *this.deadline == Instant::NEVER {
            // Nothing to remember: whoever polls this has other reasons to wake up.
            return Poll::Pending;
        }
        let mut locked = node.home().lock();
        locked.value(node).waker = Some(context.waker().clone());
        let former_first = locked.first_key();
        locked.insert(node, this.deadline.as_nanos());
        drop(locked);
        if former_first.is_none_or(|first| this.deadline.as_nanos() < first) {
            this.clock.0.earliest_is(*this.cpu, *this.deadline);
        }
        Poll::Pending
    }
}
