//! The split virtqueue: memory in which a driver offers buffers to a device, and the device hands them back.
//!
//! ```text
//!   descriptors  [address, length, flags, next] …      what the buffers are; a chain of them is one request
//!   available    index, [head] …                       driver ──► device: chains to work on
//!   used         index, [head, length written] …       device ──► driver: chains it is done with, in any order
//! ```
//!
//! A [`Ring`] only keeps that protocol; who owns which descriptor is its user's matter. Everything that the device writes is
//! checked here: an index that runs ahead of what was offered, or a head that is no descriptor, is a [`Violation`], after which the
//! device is reset and given up.
//!
//! Both sides may ask not to be disturbed. With the event index, each side names the index at which it wants to be told, so that
//! a busy queue costs few doorbells and few interrupts:
//!
//! ```text
//!   driver                                  device
//!   available.index = n                     used.event = n         (I have seen n: tell me when you pass it)
//!   fence                                   fence
//!   used.event passed? ring the doorbell    available.index moved? look again
//! ```
//!
//! Source: Virtio 1.2, section 2.7. Next: `request_queue.rs`. Exercise: remove the second look in [`Ring::take`]; which
//! interleaving then loses an interrupt?

use core::sync::atomic::{Ordering, fence};

use drivers::hw::{Dma, DmaAddr, DmaBuffer};

/// The device broke the protocol: nothing it says is believed any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violation {
    /// It claims to have used more chains than there are.
    IndexTooFar,
    /// It returned something that was not given to it.
    UnknownHead,
    /// It claims to have written more than there was room for.
    LengthTooLarge,
}

/// The buffer continues in the descriptor that `next` names.
pub(crate) const NEXT: u16 = 1;
/// The device writes the buffer; without this it reads it.
pub(crate) const WRITE: u16 = 2;
/// The buffer holds a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;
/// The size of a descriptor in bytes.
pub(crate) const DESCRIPTOR_SIZE: usize = 16;

/// In `available.flags` and `used.flags`: do not tell me.
const DO_NOT_DISTURB: u16 = 1;

/// One buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: DmaAddr,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    /// Writes it as entry `index` of a table that starts at `table`.
    pub(crate) fn store(&self, memory: &DmaBuffer, table: usize, index: usize) {
        let at = table + index * DESCRIPTOR_SIZE;
        memory.write64(at, self.address.0);
        memory.write32(at + 8, self.len);
        memory.write16(at + 12, self.flags);
        memory.write16(at + 14, self.next);
    }
}

/// A chain that the device has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    /// Its first descriptor.
    pub(crate) head: u16,
    /// How many bytes the device says it has written; not yet believed.
    pub(crate) len: u32,
}

/// Where the device finds the three parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingAddresses {
    /// The descriptor table.
    pub descriptors: DmaAddr,
    /// The available ring.
    pub available: DmaAddr,
    /// The used ring.
    pub used: DmaAddr,
}

/// One split virtqueue.
pub(crate) struct Ring {
    memory: DmaBuffer,
    size: u16,
    has_event_index: bool,
    available_at: usize,
    used_at: usize,
    /// The available index after everything offered so far.
    offered: u16,
    /// The available index that the device has been shown.
    published: u16,
    /// The used index up to which chains have been taken.
    taken: u16,
}

impl Ring {
    /// Sets up an empty ring of `size` descriptors, a power of two; `None` when memory is short.
    ///
    /// `used_alignment` is 4, or a page for devices of the time before Virtio 1.0.
    pub(crate) fn new(dma: &Dma, size: u16, used_alignment: usize, has_event_index: bool) -> Option<Ring> {
        let entries = usize::from(size);
        let available_at = entries * DESCRIPTOR_SIZE;
        let used_at = (available_at + 6 + 2 * entries).next_multiple_of(used_alignment.max(4));
        let memory = dma.allocate(used_at + 6 + 8 * entries)?;
        let ring = Ring { memory, size, has_event_index, available_at, used_at, offered: 0, published: 0, taken: 0 };
        Some(ring)
    }

    /// The largest power of two that is at most `limit` and at most what the device offers; `None` if it offers no queue.
    pub(crate) fn fitting_size(offered: u16, limit: u16) -> Option<u16> {
        offered.min(limit).checked_ilog2().map(|bits| 1 << bits)
    }

    /// How many descriptors there are.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// What the device is told.
    pub(crate) fn addresses(&self) -> RingAddresses {
        let base = self.memory.device_address().0;
        RingAddresses {
            descriptors: DmaAddr(base),
            available: DmaAddr(base + self.available_at as u64),
            used: DmaAddr(base + self.used_at as u64),
        }
    }

    /// Fills in a descriptor, which must not be the device's at the time.
    pub(crate) fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        assert!(index < self.size, "descriptor outside the ring");
        descriptor.store(&self.memory, 0, usize::from(index));
    }

    /// Offers the chain that begins at `head`. The device sees it after the next [`publish`](Ring::publish).
    pub(crate) fn offer(&mut self, head: u16) {
        let entry = usize::from(self.offered & (self.size - 1));
        self.memory.write16(self.available_at + 4 + 2 * entry, head);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the device what was offered; says whether it wants its doorbell rung.
    #[must_use = "a device that waits for its doorbell waits for ever"]
    pub(crate) fn publish(&mut self) -> bool {
        let before = core::mem::replace(&mut self.published, self.offered);
        if before == self.offered {
            return false;
        }
        // Release: the device that reads the new index sees the descriptors and entries written before it.
        fence(Ordering::Release);
        self.memory.write16(self.available_at + 2, self.offered);
        // SeqCst: pairs with the device's fence between its request to be told and its last look at the index.
        fence(Ordering::SeqCst);
        if self.has_event_index {
            let event = self.memory.read16(self.used_at + 4 + 8 * usize::from(self.size));
            self.offered.wrapping_sub(event).wrapping_sub(1) < self.offered.wrapping_sub(before)
        } else {
            self.memory.read16(self.used_at) & DO_NOT_DISTURB == 0
        }
    }

    /// The next chain that the device has returned. When there is none, the device is asked to interrupt for the next one.
    pub(crate) fn take(&mut self) -> Result<Option<Used>, Violation> {
        let mut pending = self.pending();
        if pending == 0 {
            self.ask_for_interrupt();
            // The device may have returned a chain before it could see the wish: look again.
            pending = self.pending();
        }
        if pending == 0 {
            return Ok(None);
        }
        if pending > self.offered.wrapping_sub(self.taken) {
            return Err(Violation::IndexTooFar);
        }
        // Acquire: pairs with the device's release of the index; the entry and the buffers are read after it.
        fence(Ordering::Acquire);
        let entry = self.used_at + 4 + 8 * usize::from(self.taken & (self.size - 1));
        let (head, len) = (self.memory.read32(entry), self.memory.read32(entry + 4));
        self.taken = self.taken.wrapping_add(1);
        match u16::try_from(head) {
            Ok(head) if head < self.size => Ok(Some(Used { head, len })),
            _ => Err(Violation::UnknownHead),
        }
    }

    fn pending(&self) -> u16 {
        self.memory.read16(self.used_at + 2).wrapping_sub(self.taken)
    }

    fn ask_for_interrupt(&self) {
        if self.has_event_index {
            self.memory.write16(self.available_at + 4 + 2 * usize::from(self.size), self.taken);
            // SeqCst: pairs with the device's fence between its index and its look at the wish.
            fence(Ordering::SeqCst);
        }
    }
}
