//! A bounded channel: values from many tasks to one, in order.
//!
//! All memory is taken when it is made; a sender waits while it is full, the receiver while it is empty. When all senders are
//! gone the receiver gets what is left and then `None`; when the receiver is gone a send gives its value back.
//! next: the tests in executor/tests/.

use alloc::sync::Arc;
use core::fmt;

use crossbeam_queue::ArrayQueue;

use super::{wait_queue::WaitQueue, wait_until::wait_until};
use crate::atomic::{AtomicBool, AtomicUsize, Ordering, foreign_step};

/// What both ends share.
struct Shared<T> {
    values: ArrayQueue<T>,
    senders: AtomicUsize,
    has_receiver: AtomicBool,
    not_full: WaitQueue,
    not_empty: WaitQueue,
}

/// The end that values are put into. A clone is one more sender.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that values come out of.
pub struct Receiver<T>(Arc<Shared<T>>);

/// The receiver is gone: the value comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why a value could not be sent at once. It comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A channel with room for `capacity` values.
///
/// # Panics
/// If `capacity` is 0.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        values: ArrayQueue::new(capacity),
        senders: AtomicUsize::new(1),
        has_receiver: AtomicBool::new(true),
        not_full: WaitQueue::new(),
        not_empty: WaitQueue::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T: Send> Sender<T> {
    /// Sends `value`; waits while the channel is full.
    ///
    /// # Errors
    /// The receiver is gone.
    ///
    /// # Cancel safety
    /// The value is sent by the poll that returns, or not at all; then it is dropped.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut unsent = Some(value);
        wait_until(&self.0.not_full, || match self.try_send(unsent.take()?) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Closed(value)) => Some(Err(SendError(value))),
            Err(TrySendError::Full(value)) => {
                unsent = Some(value);
                None
            }
        })
        .await
    }

    /// Sends `value` if there is room.
    ///
    /// # Errors
    /// There is none, or the receiver is gone.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        // Acquire: pairs with the Release in the receiver's drop.
        if !self.0.has_receiver.load(Ordering::Acquire) {
            return Err(TrySendError::Closed(value));
        }
        foreign_step();
        self.0.values.push(value).map_err(TrySendError::Full)?;
        self.0.not_empty.wake_one();
        Ok(())
    }
}

impl<T: Send> Receiver<T> {
    /// Receives the oldest value; waits while there is none. None if all senders are gone, and nothing is left.
    ///
    /// # Cancel safety
    /// A value is taken only by the poll that returns it.
    pub async fn receive(&mut self) -> Option<T> {
        let shared = &*self.0;
        wait_until(&shared.not_empty, || {
            // Asked before looking: what the last sender left is not missed.
            let is_closed = shared.senders.load(Ordering::Acquire) == 0;
            match shared.take() {
                None if !is_closed => None,
                value => Some(value),
            }
        })
        .await
    }

    /// Receives the oldest value, if there is one.
    pub fn try_receive(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Shared<T> {
    fn take(&self) -> Option<T> {
        foreign_step();
        let value = self.values.pop()?;
        self.not_full.wake_one();
        Some(value)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Release: what was sent is there for the receiver that sees the last one go.
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.not_empty.wake_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.has_receiver.store(false, Ordering::Release);
        self.0.not_full.wake_all();
        // Nobody will take what is left: it is dropped now, not when the last sender goes.
        while self.0.values.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}
