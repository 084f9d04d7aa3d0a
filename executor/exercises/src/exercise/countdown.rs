//! Exercise 1: a future by hand.
//!
//! `Countdown::new(n)` gives way n times, so that other tasks have their turn, and is then ready with the number of its polls. It keeps
//! its state in itself, between two polls, as each future does; an `async fn` would have the compiler write such a type.
//!
//! The starting point counts, but its task is polled once and never again. Why? What does a future promise when it returns `Pending`?
//!
//! Compare: `yield_now` in `executor/src/executor.rs`. Test: `tests/countdown.rs`.

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

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<u32> {
        self.polls += 1;
        if self.left == 0 {
            return Poll::Ready(self.polls);
        }
        self.left -= 1;
        Poll::Pending
    }
}
