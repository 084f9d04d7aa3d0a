//! Bytes from the device: buffers that it fills, kept until they have been read.
//!
//! A buffer goes back to the device only when its last byte has been consumed. So a reader that does not read stops the device, and
//! that stops whoever writes on the other side: back-pressure from end to end, with no byte dropped.
//!
//! Next: `transmitter.rs`.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use drivers::hw::{Dma, DmaAddr, DmaBuffer};
use drivers::{Errno, Result};

use crate::ring::{Descriptor, Ring, Violation, WRITE};

/// Bytes are copied out of a buffer, which the device shares, in pieces of this size.
const PIECE: usize = 2048;

/// The receiving half of a channel.
pub(crate) struct Receiver {
    ring: Ring,
    /// One buffer for each descriptor, if there are any yet.
    memory: Option<DmaBuffer>,
    buffer_size: usize,
    is_posted: Vec<bool>,
    filled: VecDeque<Filled>,
}

/// A buffer with bytes in it, of which those before `read` have been consumed.
struct Filled {
    buffer: u16,
    read: usize,
    len: usize,
}

impl Receiver {
    /// A receiver over an empty ring, without buffers.
    pub(crate) fn new(ring: Ring, buffer_size: usize) -> Receiver {
        let count = usize::from(ring.size());
        let filled = VecDeque::with_capacity(count);
        Receiver { ring, memory: None, buffer_size, is_posted: vec![false; count], filled }
    }

    /// Takes memory for the buffers and gives all of them to the device, whose doorbell is then to be rung.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn open(&mut self, dma: &Dma) -> Result<()> {
        if self.memory.is_some() {
            return Ok(());
        }
        let count = self.ring.size();
        let memory = dma.allocate(usize::from(count) * self.buffer_size).ok_or(Errno::ENOMEM)?;
        let base = memory.device_address().0;
        for buffer in 0..count {
            let address = DmaAddr(base + (usize::from(buffer) * self.buffer_size) as u64);
            let descriptor = Descriptor { address, len: self.buffer_size as u32, flags: WRITE, next: 0 };
            self.ring.set_descriptor(buffer, descriptor);
            self.post(buffer);
        }
        self.memory = Some(memory);
        Ok(())
    }

    /// Takes what the device has filled; says whether there was anything.
    ///
    /// # Errors
    ///
    /// The device's violation of the protocol.
    pub(crate) fn collect(&mut self) -> core::result::Result<bool, Violation> {
        let mut is_new = false;
        while let Some(used) = self.ring.take()? {
            let is_posted = &mut self.is_posted[usize::from(used.head)];
            if !core::mem::replace(is_posted, false) {
                return Err(Violation::UnknownHead);
            }
            let len = used.len as usize;
            if len > self.buffer_size {
                return Err(Violation::LengthTooLarge);
            }
            self.filled.push_back(Filled { buffer: used.head, read: 0, len });
            is_new = true;
        }
        Ok(is_new)
    }

    /// Whether there are bytes to be read.
    pub(crate) fn has_bytes(&self) -> bool {
        self.filled.iter().any(|filled| filled.read < filled.len)
    }

    /// Hands bytes to `take`, piece by piece, until it takes less than it is given or there are none; what it took is consumed, and
    /// emptied buffers go back. Returns how many it took, and whether the device wants its doorbell rung.
    pub(crate) fn read(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> (usize, bool) {
        let mut piece = [0; PIECE];
        let mut done = 0;
        while let Some(front) = self.filled.front_mut()
            && let Some(memory) = &self.memory
        {
            let len = (front.len - front.read).min(PIECE);
            memory.read(usize::from(front.buffer) * self.buffer_size + front.read, &mut piece[..len]);
            let taken = take(&piece[..len]).min(len);
            front.read += taken;
            done += taken;
            if front.read == front.len {
                self.release_front();
            }
            if taken < len {
                break;
            }
        }
        (done, self.ring.publish())
    }

    /// Reads the oldest buffer as one message, of which what does not fit is lost, and gives it back. `None` without one.
    pub(crate) fn read_message(&mut self, into: &mut [u8]) -> Option<(usize, bool)> {
        let (memory, front) = (self.memory.as_ref()?, self.filled.front()?);
        let len = front.len.min(into.len());
        memory.read(usize::from(front.buffer) * self.buffer_size, &mut into[..len]);
        self.release_front();
        Some((len, self.ring.publish()))
    }

    fn release_front(&mut self) {
        if let Some(front) = self.filled.pop_front() {
            self.post(front.buffer);
        }
    }

    fn post(&mut self, buffer: u16) {
        self.is_posted[usize::from(buffer)] = true;
        self.ring.offer(buffer);
    }

    /// Shows the device the buffers that [`open`](Receiver::open) gave it; whether it wants its doorbell rung.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }
}
