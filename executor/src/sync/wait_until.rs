//! Waiting until an attempt succeeds: the rule of wait_queue.rs, as a function. next: observer.rs.

use core::{future::poll_fn, pin::pin, task::Poll};

use super::{wait_queue::WaitQueue, waiter::Waiter};

/// Attempts, and waits for `queue` to be woken between attempts, until one returns `Some`.
///
/// The first attempt is made before anything else; each later one after registering, so that no wake is lost.
///
/// Whoever makes an attempt able to succeed does so first, and then wakes the queue. Signals and deadlines are added around
/// this, or by polling a [`Waiter`] oneself.
///
/// ```
/// # use executor::sync::{SpinLock, WaitQueue, wait_until};
/// # async fn read(bytes: &SpinLock<Vec<u8>>, filled: &WaitQueue) -> u8 {
/// wait_until(filled, || bytes.lock().pop()).await
/// # }
/// ```
///
/// # Cancel safety
/// Nothing is lost: an attempt that succeeds ends the wait, and an unused wake goes to the next.
#[track_caller]
pub fn wait_until<T>(queue: &WaitQueue, attempt: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let waiter = Waiter::exclusive(queue);
    wait_with(waiter, attempt)
}

async fn wait_with<T>(waiter: Waiter<&WaitQueue>, mut attempt: impl FnMut() -> Option<T>) -> T {
    // Most of the time there is nothing to wait for, and the queue need not know. If there is: register, then attempt *again*.
    if let Some(value) = attempt() {
        return value;
    }
    let mut waiter = pin!(waiter);
    poll_fn(|context| {
        // Register, then attempt: see wait_queue.rs.
        waiter.as_mut().register(context);
        match attempt() {
            Some(value) => {
                waiter.as_mut().leave();
                Poll::Ready(value)
            }
            None => Poll::Pending,
        }
    })
    .await
}
