//! Sockets between programs of one machine: AF_UNIX (unix(7)), as streams, datagrams and sequenced packets.
//!
//! ```text
//!   write ──► A: Socket ── peer ──► B: Socket { queue } ──► read
//!                ▲                        │
//!                └── peer ────────────────┘     close() of either end cuts its own arrow
//! ```
//!
//! What is sent goes straight into the receiver's queue; a [`Socket`] has one lock, and no two of them are ever held at once. Like any
//! file, a socket only attempts; the kernel waits (`src/syscall/socket.rs`).
//!
//! - `socket.rs`: the socket and its life. `transfer.rs`: sending and receiving. `file.rs`: the socket as an open file.
//! - `stream_queue.rs`, `message_queue.rs`: what waits to be received.
//! - `name.rs`: addresses, and the abstract ones among them. `rights.rs`: descriptors under way (SCM_RIGHTS).
//!
//! Next: `socket.rs`. Exercise: why does a listener hand out sockets that are connected already?

mod file;
mod message_queue;
mod name;
mod rights;
mod socket;
mod stream_queue;
#[cfg(test)]
mod tests;
mod transfer;

pub use file::{SocketFile, open, socket_of};
pub use name::{Name, find, find_at};
pub use rights::{RIGHTS_MAX, Rights};
pub use socket::{Direction, Sender, Socket, Type};
pub use transfer::{Incoming, Outgoing};

/// How much may wait to be received, and the greatest message: as Linux's `net.core.wmem_default`.
pub const BUFFER_SIZE: usize = 212_992;
