//! What a device is: the contract between the kernel, the drivers and the file systems.
//!
//! A driver is safe Rust without globals. It receives what it may touch as values ([`hw::Mmio`], [`hw::Port`],
//! [`irq::IrqLine`], [`hw::Dma`]) and returns `(device, run)`: the device is what others use, `run` is a future that the kernel
//! spawns as a task. Waiting for hardware is `irq.wait().await`, nothing else. The sub-folders of this folder are the drivers;
//! `ramdisk` is the one to copy.
//!
//! Device classes: [`block`] (disks), [`console`] (byte channels such as a serial line), [`input`] (keys), [`display`]
//! (frame buffers). Disks and byte channels each have a conformance suite that every driver runs on itself, and a fake.
//!
//! Next: [`block`]. Exercise: which of a driver's values would have to change for it to run on another bus?
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod block;
pub mod console;
pub mod display;
#[allow(unsafe_code, reason = "device registers and frames are raw memory; this file is the fence around them")]
pub mod hw;
pub mod input;
pub mod irq;

pub use abi::{Errno, Result};

/// A boxed future: what an object-safe method returns when it may have to wait for a device.
pub type BoxFuture<'a, T> = core::pin::Pin<alloc::boxed::Box<dyn core::future::Future<Output = T> + Send + 'a>>;
