//! Bytes to the device: a bounded number of buffers, each filled as far as it can be before the device gets it.
//!
//! The first write goes out at once. What is written while the device is still at work is gathered in one buffer, which goes out
//! when it is full or when the device has returned all others. So a lone byte does not wait, and many small writes become few
//! large ones.
//!
//! Next: `port.rs`.

use alloc::vec;
use alloc::vec::Vec;

use drivers::hw::{Dma, DmaAddr, DmaBuffer};
use drivers::{Errno, Result};

use crate::ring::{Descriptor, Ring, Violation};

/// The sending half of a channel.
pub(crate) struct Transmitter {
    ring: Ring,
    memory: Option<DmaBuffer>,
    buffer_size: usize,
    /// How much of each buffer the device has; `None` if it has none of it.
    sent: Vec<Option<usize>>,
    free: Vec<u16>,
    /// A buffer that is being filled, and how far it is.
    gathering: Option<(u16, usize)>,
}

impl Transmitter {
    /// A transmitter over an empty ring, without buffers.
    pub(crate) fn new(ring: Ring, buffer_size: usize) -> Transmitter {
        let count = usize::from(ring.size());
        let free = Vec::with_capacity(count);
        Transmitter { ring, memory: None, buffer_size, sent: vec![None; count], free, gathering: None }
    }

    /// Takes memory for the buffers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn open(&mut self, dma: &Dma) -> Result<()> {
        if self.memory.is_none() {
            let count = self.ring.size();
            self.memory = Some(dma.allocate(usize::from(count) * self.buffer_size).ok_or(Errno::ENOMEM)?);
            self.free.extend((0..count).rev());
        }
        Ok(())
    }

    /// Takes back what the device has sent; whether there was anything, and whether its doorbell is to be rung for what was
    /// gathered meanwhile.
    ///
    /// # Errors
    ///
    /// The device's violation of the protocol.
    pub(crate) fn collect(&mut self) -> core::result::Result<(bool, bool), Violation> {
        let mut is_any = false;
        while let Some(used) = self.ring.take()? {
            self.sent[usize::from(used.head)].take().ok_or(Violation::UnknownHead)?;
            self.free.push(used.head);
            is_any = true;
        }
        Ok((is_any, self.flush()))
    }

    /// Whether a byte could be written.
    pub(crate) fn has_room(&self) -> bool {
        self.gathering.is_some() || !self.free.is_empty()
    }

    /// Whether the device has sent everything.
    pub(crate) fn is_idle(&self) -> bool {
        self.gathering.is_none() && self.free.len() == self.sent.len()
    }

    /// How many bytes the device has not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        let gathered = self.gathering.map_or(0, |(_, len)| len);
        gathered + self.sent.iter().flatten().sum::<usize>()
    }

    /// Writes bytes as far as there is room. The second is whether the device wants its doorbell rung.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut done = 0;
        while done < bytes.len()
            && let Some((buffer, filled)) = self.gathering.take().or_else(|| Some((self.free.pop()?, 0)))
        {
            let len = (bytes.len() - done).min(self.buffer_size - filled);
            self.fill(buffer, filled, &bytes[done..done + len]);
            done += len;
            if filled + len == self.buffer_size {
                self.send(buffer, self.buffer_size);
            } else {
                self.gathering = Some((buffer, filled + len));
            }
        }
        (done, self.flush())
    }

    /// Sends one message in a buffer of its own; `None` when there is none free. Else whether the doorbell is to be rung.
    pub(crate) fn write_message(&mut self, message: &[u8]) -> Option<bool> {
        let buffer = self.free.pop()?;
        self.fill(buffer, 0, message);
        self.send(buffer, message.len());
        Some(self.ring.publish())
    }

    /// Sends what was gathered, if the device has nothing else to do. Whether it wants its doorbell rung.
    fn flush(&mut self) -> bool {
        let in_flight = self.sent.iter().any(Option::is_some);
        if !in_flight && let Some((buffer, len)) = self.gathering.take() {
            self.send(buffer, len);
        }
        self.ring.publish()
    }

    fn fill(&self, buffer: u16, from: usize, bytes: &[u8]) {
        if let Some(memory) = &self.memory {
            memory.write(usize::from(buffer) * self.buffer_size + from, bytes);
        }
    }

    fn send(&mut self, buffer: u16, len: usize) {
        let Some(memory) = &self.memory else { return };
        let address = DmaAddr(memory.device_address().0 + (usize::from(buffer) * self.buffer_size) as u64);
        self.ring.set_descriptor(buffer, Descriptor { address, len: len as u32, flags: 0, next: 0 });
        self.sent[usize::from(buffer)] = Some(len);
        self.ring.offer(buffer);
    }
}
