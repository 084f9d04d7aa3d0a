//! How a driver reaches its device: over PCI (`transport/pci.rs`) or as bare registers (`transport/mmio.rs`).
//!
//! A [`Transport`] is set up with `&mut self` by one driver, and then shared by its device and its run future. The order of an
//! attachment, by Virtio 1.2 section 3.1:
//!
//! ```text
//!   negotiate():  reset ─► ACKNOWLEDGE ─► DRIVER ─► features ─► FEATURES_OK
//!   the driver:   connect() ─► set_queue() … ─► start(): DRIVER_OK
//!   trouble:      stop(): status 0, bus mastering off: the device touches no memory any more
//! ```
//!
//! Next: `ring.rs`.

pub mod mmio;
pub mod pci;

use alloc::boxed::Box;
use alloc::vec::Vec;

use drivers::irq::IrqLine;
use drivers::{Errno, Result};

use crate::features::VERSION_1;
use crate::ring::RingAddresses;

/// The bits of the device status.
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const NEEDS_RESET: u8 = 64;
    pub(crate) const FAILED: u8 = 128;
}

/// How long a device may take for a reset, in polls of its status. Resets are immediate in practice.
pub(crate) const RESET_POLLS: usize = 1_000_000;

/// What an interrupt line tells about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// Anything.
    Everything,
    /// The configuration has changed.
    Configuration,
    /// The queues of one group have returned buffers.
    Group(usize),
}

/// A device's interrupt lines.
pub struct Lines(pub(crate) Vec<(IrqLine, Concern)>);

impl Lines {
    /// Waits for interrupts for ever, and hands each to `handle`.
    pub(crate) async fn serve(self, handle: impl Fn(Concern) + Send + Sync) {
        let handle = &handle;
        let loops = self.0.into_iter().map(|(mut line, concern)| async move {
            // The device has been live since before this ran: what it said until now is served first, see IrqLine::arm.
            line.arm();
            loop {
                handle(concern);
                line.wait().await;
            }
        });
        futures_util::future::join_all(loops).await;
    }
}

/// A way to a device.
pub trait Transport: Send + Sync {
    /// What kind of device it is: 1 network, 2 block, 3 console, …
    fn device_type(&self) -> u32;

    /// The features that the device offers.
    fn offered_features(&mut self) -> u64;
    /// Tells the device which of them the driver uses.
    fn accept_features(&mut self, features: u64);
    /// The device status.
    fn status(&self) -> u8;
    /// Changes the device status; 0 resets the device.
    fn set_status(&self, status: u8);

    /// How the used ring must be aligned.
    fn used_alignment(&self) -> usize {
        4
    }
    /// How many descriptors a queue may have; 0 if there is no such queue.
    fn max_queue_size(&mut self, queue: u16) -> u16;
    /// Sets interrupts aside, for `groups` groups of queues and the configuration if there are as many, else shared.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none at all.
    fn connect(&mut self, groups: usize) -> Result<Lines>;
    /// Gives a queue to the device. Its interrupts go to `group`.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not take it.
    fn set_queue(&mut self, queue: u16, group: usize, size: u16, addresses: RingAddresses) -> Result<()>;

    /// Rings a queue's doorbell.
    fn notify(&self, queue: u16);
    /// To be called after an interrupt: silences the device, and says whether its configuration changed.
    fn acknowledge(&self) -> bool;

    /// A number that changes whenever the configuration does.
    fn config_generation(&self) -> u32;
    /// Reads bytes of the device's configuration; beyond its end they are 0.
    fn read_config(&self, offset: usize, into: &mut [u8]);

    /// Resets the device and takes its access to memory away; whether that is certain.
    fn stop(&self) -> bool {
        self.set_status(0);
        (0..RESET_POLLS).any(|_| {
            core::hint::spin_loop();
            self.status() == 0
        })
    }
}

/// Begins an attachment: resets the device and agrees on features. Returns those agreed on, of `wanted`.
///
/// # Errors
///
/// `ENODEV` if the device does not come out of its reset, or does not accept the features.
pub(crate) fn negotiate(transport: &mut dyn Transport, wanted: u64) -> Result<u64> {
    if !transport.stop() {
        return Err(Errno::ENODEV);
    }
    transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
    let features = transport.offered_features() & wanted;
    transport.accept_features(features);
    if features & VERSION_1 != 0 {
        transport.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        if transport.status() & status::FEATURES_OK == 0 {
            transport.set_status(status::FAILED);
            return Err(Errno::ENODEV);
        }
    }
    Ok(features)
}

/// Ends an attachment: from now on the device is live.
pub(crate) fn start(transport: &dyn Transport) {
    transport.set_status(transport.status() | status::DRIVER_OK);
}

impl dyn Transport {
    /// Reads a consistent little-endian number of the configuration.
    pub(crate) fn config<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        // A configuration that changes all the time is read torn, after a while, rather than never.
        for _ in 0..16 {
            let before = self.config_generation();
            self.read_config(offset, &mut bytes);
            if self.config_generation() == before {
                break;
            }
        }
        bytes
    }
}

/// What the constructors of the transports return.
pub type BoxedTransport = Box<dyn Transport>;
