//! A byte channel for tests, which play its other side.
//!
//! Next: `conformance.rs`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use executor::sync::{SpinLock, WaitQueue};

use super::ByteChannel;

/// A channel made of two bounded queues.
pub struct FakeChannel {
    capacity: usize,
    state: SpinLock<State>,
    readable: WaitQueue,
    writable: WaitQueue,
}

struct State {
    received: VecDeque<u8>,
    sent: VecDeque<u8>,
    is_connected: bool,
    is_open: bool,
}

impl FakeChannel {
    /// A connected channel that holds so many bytes each way.
    pub fn new(capacity: usize) -> FakeChannel {
        let state = State { received: VecDeque::new(), sent: VecDeque::new(), is_connected: true, is_open: false };
        let (readable, writable) = (WaitQueue::new(), WaitQueue::new());
        FakeChannel { capacity, state: SpinLock::new(state), readable, writable }
    }

    /// Sends from the other side; returns how many bytes there was room for.
    pub fn far_write(&self, bytes: &[u8]) -> usize {
        let len = {
            let received = &mut self.state.lock().received;
            let len = bytes.len().min(self.capacity - received.len());
            received.extend(&bytes[..len]);
            len
        };
        self.readable.wake_all();
        len
    }

    /// Takes everything that has arrived on the other side.
    pub fn far_read(&self) -> Vec<u8> {
        let bytes = self.state.lock().sent.drain(..).collect();
        self.writable.wake_all();
        bytes
    }

    /// Closes the other side.
    pub fn far_close(&self) {
        self.state.lock().is_connected = false;
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// Whether this side is open, as [`ByteChannel::set_open`] told last.
    pub fn is_open(&self) -> bool {
        self.state.lock().is_open
    }
}

impl ByteChannel for FakeChannel {
    fn try_read(&self, into: &mut [u8]) -> usize {
        let received = &mut self.state.lock().received;
        let len = into.len().min(received.len());
        into.iter_mut().zip(received.drain(..len)).for_each(|(to, from)| *to = from);
        len
    }

    fn try_write(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        if !state.is_connected {
            return 0;
        }
        let len = bytes.len().min(self.capacity - state.sent.len());
        state.sent.extend(&bytes[..len]);
        len
    }

    fn can_read(&self) -> bool {
        !self.state.lock().received.is_empty()
    }

    fn can_write(&self) -> bool {
        let state = self.state.lock();
        state.is_connected && state.sent.len() < self.capacity
    }

    fn unsent(&self) -> usize {
        self.state.lock().sent.len()
    }

    fn is_connected(&self) -> bool {
        self.state.lock().is_connected
    }

    fn readable(&self) -> &WaitQueue {
        &self.readable
    }

    fn writable(&self) -> &WaitQueue {
        &self.writable
    }

    fn set_open(&self, is_open: bool) {
        self.state.lock().is_open = is_open;
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::console::conformance::{self, Subject};

    #[test]
    fn the_fake_channel_is_a_channel() {
        conformance::check(&mut || {
            let channel = Arc::new(FakeChannel::new(1000));
            let (to, from) = (channel.clone(), channel.clone());
            Subject {
                channel,
                far_write: Box::new(move |bytes| to.far_write(bytes)),
                far_read: Box::new(move || from.far_read()),
            }
        });
    }
}
