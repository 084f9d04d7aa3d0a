//! Byte channels: serial lines and the ports of a virtio console.
//!
//! A channel is a pair of bounded queues. Reading and writing never wait; waiting is the caller's, on the two wait queues.
//!
//! Beside the contract: [`FakeChannel`], whose other side a test plays, and `conformance`, the suite that drivers run on themselves.
//!
//! Next: `input.rs`.

#[doc(hidden)]
pub mod conformance;
mod fake;

pub use fake::FakeChannel;

use executor::sync::WaitQueue;

/// A two-way channel of bytes.
pub trait ByteChannel: Send + Sync {
    /// Takes received bytes; returns how many, 0 when there are none now.
    fn try_read(&self, into: &mut [u8]) -> usize;
    /// Queues bytes to be sent; returns how many were taken, 0 when the queue is full.
    fn try_write(&self, bytes: &[u8]) -> usize;
    /// Whether `try_read` would find something.
    fn can_read(&self) -> bool;
    /// Whether `try_write` would take something.
    fn can_write(&self) -> bool;
    /// How many of the bytes that `try_write` took have not left yet: what tcdrain(3) waits for and TIOCOUTQ reports.
    fn unsent(&self) -> usize {
        0
    }
    /// Whether the other side is there; a serial line always says yes. With the peer gone and nothing left, a read is at its end.
    fn is_connected(&self) -> bool {
        true
    }
    /// Woken when `can_read` may have become true, and when the connection changes.
    fn readable(&self) -> &WaitQueue;
    /// Woken when `can_write` may have become true, and when the connection changes.
    fn writable(&self) -> &WaitQueue;
    /// Told when the first file on the channel is opened (`true`) and the last is closed (`false`).
    fn set_open(&self, _is_open: bool) {}
}
