//! Virtio: the devices that a virtual machine offers, as async drivers.
//!
//! Three layers, each a file that can be read alone: a [`transport`] finds the device's registers and interrupts; `ring.rs` keeps
//! the protocol of a virtqueue; a device's driver ([`block`], [`console`]) speaks the device's language over it. `request_queue.rs`
//! sits between ring and disk: who owns what while the device works.
//!
//! Every driver is `start(transport, dma) -> (device, run)`. The kernel spawns `run`, which waits for interrupts. Nothing a device
//! says is believed unchecked; one that breaks the protocol is reset, and its requests end with `EIO`.
//!
//! The constants are written out here instead of taken from the `virtio-spec` crate: its volatile wrappers need `unsafe` at each
//! use, [`drivers::hw::Mmio`] with an offset does not.
//!
//! Next: `ring.rs`.
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod block;
pub mod console;
#[cfg(test)]
mod fake;
mod features;
mod request_queue;
mod ring;
pub mod transport;

pub use transport::{BoxedTransport, Transport};
