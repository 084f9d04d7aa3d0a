//! One port: a channel of bytes to the host.
//!
//! ```text
//!   host writes ─► device fills a buffer ─► interrupt, serve(): collect ─► try_read ─► buffer back to the device
//!   try_write ─► buffer, doorbell ─► device empties it ─► interrupt, serve(): collect ─► host has read it
//! ```
//!
//! Each side of the wire says when it opens and closes its end. What the host wrote before it closed can still be read: the port
//! collects it before it says that nobody is connected. While nobody is connected, nothing can be written, since the device
//! would throw it away. Closed on this side, the device is told once everything written has left.
//!
//! Next: `control.rs`. Exercise: what would a reader see if `host_closed` did not collect first?

use alloc::string::String;
use alloc::sync::Arc;

use drivers::Result;
use drivers::console::ByteChannel;
use drivers::hw::Dma;
use executor::sync::{SpinLock, WaitQueue};

use crate::console::control::Control;
use crate::console::receiver::Receiver;
use crate::console::transmitter::Transmitter;
use crate::ring::Violation;
use crate::transport::Transport;

/// A port of a console device.
pub struct Port {
    id: u32,
    queues: Queues,
    transport: Arc<dyn Transport>,
    control: Arc<Control>,
    state: SpinLock<State>,
    changed: WaitQueue,
}

/// The numbers of a port's two queues.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    pub(crate) receive: u16,
    pub(crate) transmit: u16,
}

struct State {
    receiver: Receiver,
    transmitter: Transmitter,
    name: Option<String>,
    is_console: bool,
    /// The host has opened its end.
    is_connected: bool,
    /// This side's end is closed, which the device is to be told when the transmitter has become idle.
    is_closing: bool,
}

impl Port {
    pub(crate) fn new(
        id: u32,
        queues: Queues,
        transport: Arc<dyn Transport>,
        control: Arc<Control>,
        receiver: Receiver,
        transmitter: Transmitter,
    ) -> Port {
        let state =
            State { receiver, transmitter, name: None, is_console: false, is_connected: false, is_closing: false };
        Port { id, queues, transport, control, state: SpinLock::new(state), changed: WaitQueue::new() }
    }

    /// Its number on the device, from 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name that the host gave it, if any.
    pub fn name(&self) -> Option<String> {
        self.state.lock().name.clone()
    }

    /// Whether the host wants a terminal on it.
    pub fn is_console(&self) -> bool {
        self.state.lock().is_console
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.state.lock().name.as_deref() == Some(name)
    }

    pub(crate) fn set_name(&self, name: String) {
        self.state.lock().name = Some(name);
    }

    pub(crate) fn become_console(&self) {
        self.state.lock().is_console = true;
    }

    /// Hands received bytes to `take`, piece by piece, until it takes less than it is given or there are none; what it took is
    /// consumed. So a copy to user memory that fails half-way loses nothing. `take` must not wait.
    pub fn read_with(&self, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let (len, wants_doorbell) = self.state.lock().receiver.read(take);
        self.ring_if(wants_doorbell, self.queues.receive);
        len
    }

    /// Woken whenever anything about the port may have changed; the same as `readable` and `writable`.
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    /// Takes memory, and lets the device fill it.
    pub(crate) fn open(&self, dma: &Dma) -> Result<()> {
        let wants_doorbell = {
            let mut state = self.state.lock();
            state.transmitter.open(dma)?;
            state.receiver.open(dma)?;
            state.receiver.publish()
        };
        self.ring_if(wants_doorbell, self.queues.receive);
        Ok(())
    }

    /// The host has opened its end.
    pub(crate) fn host_opened(&self) {
        self.state.lock().is_connected = true;
        self.changed.wake_all();
    }

    /// The host has closed its end; what it wrote before is collected first.
    pub(crate) fn host_closed(&self) -> core::result::Result<(), Violation> {
        {
            let mut state = self.state.lock();
            state.receiver.collect()?;
            state.is_connected = false;
        }
        self.changed.wake_all();
        Ok(())
    }

    /// Collects what the device has returned.
    pub(crate) fn serve(&self) -> core::result::Result<(), Violation> {
        let (has_received, has_sent, wants_doorbell, is_closed) = {
            let mut state = self.state.lock();
            let has_received = state.receiver.collect()?;
            let (has_sent, wants_doorbell) = state.transmitter.collect()?;
            let is_closed = state.is_closing && state.transmitter.is_idle();
            state.is_closing &= !is_closed;
            (has_received, has_sent, wants_doorbell, is_closed)
        };
        self.ring_if(wants_doorbell, self.queues.transmit);
        if is_closed {
            self.control.tell_closed(self.id);
        }
        if has_received || has_sent {
            self.changed.wake_all();
        }
        Ok(())
    }

    /// The device is gone.
    pub(crate) fn lose(&self) {
        self.state.lock().is_connected = false;
        self.changed.wake_all();
    }

    fn ring_if(&self, wants_doorbell: bool, queue: u16) {
        if wants_doorbell {
            self.transport.notify(queue);
        }
    }
}

impl ByteChannel for Port {
    fn try_read(&self, into: &mut [u8]) -> usize {
        let mut done = 0;
        self.read_with(&mut |bytes| {
            let len = bytes.len().min(into.len() - done);
            into[done..done + len].copy_from_slice(&bytes[..len]);
            done += len;
            len
        })
    }

    fn try_write(&self, bytes: &[u8]) -> usize {
        let (len, wants_doorbell) = {
            let mut state = self.state.lock();
            if !state.is_connected {
                return 0;
            }
            state.transmitter.write(bytes)
        };
        self.ring_if(wants_doorbell, self.queues.transmit);
        len
    }

    fn can_read(&self) -> bool {
        self.state.lock().receiver.has_bytes()
    }

    fn can_write(&self) -> bool {
        let state = self.state.lock();
        state.is_connected && state.transmitter.has_room()
    }

    fn unsent(&self) -> usize {
        self.state.lock().transmitter.unsent()
    }

    fn is_connected(&self) -> bool {
        self.state.lock().is_connected
    }

    fn readable(&self) -> &WaitQueue {
        &self.changed
    }

    fn writable(&self) -> &WaitQueue {
        &self.changed
    }

    fn set_open(&self, is_open: bool) {
        let is_idle = {
            let mut state = self.state.lock();
            let is_idle = state.transmitter.is_idle();
            state.is_closing = !is_open && !is_idle;
            is_idle
        };
        if is_open {
            self.control.tell_open(self.id);
        } else if is_idle {
            self.control.tell_closed(self.id);
        }
    }
}
