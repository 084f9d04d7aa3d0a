//! Solution 1: who returns `Pending` has seen to it that the task will be woken. Here nobody else can: so it wakes itself, which sets
//! NOTIFIED beside RUNNING, and the executor queues it again behind the others.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Gives way a number of times.
#[derive(Debug)]
pub struct Countdown {
    left: u32,
    polls: u32,
}

impl Countdown {
    /// Gives way `turns` times.
    pub fn new(turns: u32) -> Countdown {
        Countdown { left: turns, polls: 0 }
    }
}

impl Future for Countdown {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        self.polls += 1;
        if self.left == 0 {
            return Poll::Ready(self.polls);
        }
        self.left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
