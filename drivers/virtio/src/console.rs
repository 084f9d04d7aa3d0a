//! virtio-console: channels of bytes to the host, several over one device.
//!
//! [`start`] sets the queues of all ports up; the host then adds ports, names them and opens them, in messages over the control
//! queues (`console/control.rs`). A port (`console/port.rs`) is two bounded halves, `receiver.rs` and `transmitter.rs`.
//!
//! Source: Virtio 1.2, section 5.3. Next: `console/receiver.rs`.

mod control;
mod port;
mod receiver;
mod transmitter;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;

use drivers::hw::Dma;
use drivers::{Errno, Result};
use executor::sync::{SpinLock, WaitQueue, wait_until};
use log::{debug, error, info};

pub use self::port::Port;

use self::control::{Control, Message};
use self::port::Queues;
use self::receiver::Receiver;
use self::transmitter::Transmitter;
use crate::features;
use crate::ring::{Ring, Violation};
use crate::transport::{self, BoxedTransport, Concern, Lines, Transport, status};

/// What `Transport::device_type` says of a console.
pub const DEVICE_TYPE: u32 = 3;

const HAS_SIZE: u64 = 1 << 0;
const HAS_PORTS: u64 = 1 << 1;
const FEATURES: u64 = features::EVENT_INDEX | features::VERSION_1 | HAS_SIZE | HAS_PORTS;

/// Offsets in the configuration.
mod config {
    pub(super) const COLUMNS: usize = 0;
    pub(super) const ROWS: usize = 2;
    pub(super) const MAX_PORTS: usize = 4;
}

/// Ports beyond these are refused: each that might come costs two queues.
const MOST_PORTS: u32 = 8;
/// Buffers of a port in each direction, and their size: 64 KiB may be on their way.
const PORT_BUFFERS: u16 = 16;
const BUFFER_SIZE: usize = 4096;
/// Messages that may be on their way.
const CONTROL_BUFFERS: u16 = 32;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// A console device.
pub struct VirtioConsole {
    transport: Arc<dyn Transport>,
    dma: Dma,
    has_size: bool,
    control: Arc<Control>,
    /// All ports that may come, by number.
    ports: Vec<Arc<Port>>,
    state: SpinLock<State>,
    changed: WaitQueue,
}

struct State {
    is_present: Vec<bool>,
    size: Option<Size>,
    is_lost: bool,
}

/// Attaches to a console. The kernel spawns the returned future, which runs for ever.
///
/// # Errors
///
/// `ENODEV` if the device is none that this driver can use; `ENOMEM`; `ENOSPC` if there is no interrupt for it.
pub fn start(
    mut transport: BoxedTransport,
    dma: Dma,
) -> Result<(Arc<VirtioConsole>, impl Future<Output = ()> + Send + 'static)> {
    let features = transport::negotiate(&mut *transport, FEATURES)?;
    let has_ports = features & HAS_PORTS != 0;
    let count = match has_ports {
        true => u32::from_le_bytes(transport.config(config::MAX_PORTS)).clamp(1, MOST_PORTS),
        false => 1,
    };
    // Group 0 is the control queues', the next ones are the ports'.
    let lines = transport.connect(1 + count as usize)?;
    let mut make = |queue, group, size| make_ring(&mut *transport, &dma, features, queue, group, size);
    let halves = match has_ports {
        true => Some((
            Receiver::new(make(control::RECEIVE, 0, CONTROL_BUFFERS)?, control::MESSAGE_SIZE),
            Transmitter::new(make(control::TRANSMIT, 0, CONTROL_BUFFERS)?, control::MESSAGE_SIZE),
        )),
        false => None,
    };
    let mut port_halves = Vec::new();
    for port in 0..count {
        let (queues, group) = (queues_of(port), 1 + port as usize);
        let receiver = Receiver::new(make(queues.receive, group, PORT_BUFFERS)?, BUFFER_SIZE);
        let transmitter = Transmitter::new(make(queues.transmit, group, PORT_BUFFERS)?, BUFFER_SIZE);
        port_halves.push((receiver, transmitter));
    }
    let transport: Arc<dyn Transport> = Arc::from(transport);
    let control = Arc::new(Control::new(transport.clone(), halves, count as usize));
    let ports = (0..count).zip(port_halves).map(|(id, (receiver, transmitter))| {
        Arc::new(Port::new(id, queues_of(id), transport.clone(), control.clone(), receiver, transmitter))
    });
    let console = Arc::new(VirtioConsole {
        ports: ports.collect(),
        dma,
        has_size: features & HAS_SIZE != 0,
        control,
        state: SpinLock::new(State { is_present: alloc::vec![false; count as usize], size: None, is_lost: false }),
        changed: WaitQueue::new(),
        transport,
    });
    transport::start(&*console.transport);
    console.read_size();
    console.control.open(&console.dma)?;
    if !has_ports {
        console.add(0);
        console.ports[0].host_opened();
    }
    info!("virtio-console: up to {count} ports");
    Ok((console.clone(), run(console, lines)))
}

fn queues_of(port: u32) -> Queues {
    // Queues 2 and 3 are the control queues.
    let receive = if port == 0 { 0 } else { 2 + 2 * port as u16 };
    Queues { receive, transmit: receive + 1 }
}

fn make_ring(
    transport: &mut dyn Transport,
    dma: &Dma,
    features: u64,
    queue: u16,
    group: usize,
    size: u16,
) -> Result<Ring> {
    let size = Ring::fitting_size(transport.max_queue_size(queue), size).ok_or(Errno::ENODEV)?;
    let has_event_index = features & features::EVENT_INDEX != 0;
    let ring = Ring::new(dma, size, transport.used_alignment(), has_event_index).ok_or(Errno::ENOMEM)?;
    transport.set_queue(queue, group, size, ring.addresses())?;
    Ok(ring)
}

async fn run(console: Arc<VirtioConsole>, lines: Lines) {
    lines.serve(|concern| console.interrupted(concern)).await;
}

impl VirtioConsole {
    /// The ports that there are now, by number.
    pub fn ports(&self) -> Vec<Arc<Port>> {
        let state = self.state.lock();
        self.ports
            .iter()
            .zip(&state.is_present)
            .filter(|(_, is_present)| **is_present)
            .map(|(port, _)| port.clone())
            .collect()
    }

    /// The port with a number, whether it has come yet or not; `None` beyond the most that the device can have.
    pub fn port(&self, id: u32) -> Option<Arc<Port>> {
        self.ports.get(id as usize).cloned()
    }

    /// The port with a name, if it is there.
    pub fn port_named(&self, name: &str) -> Option<Arc<Port>> {
        self.ports().into_iter().find(|port| port.has_name(name))
    }

    /// Waits for a port with a name. The host announces its ports soon after the start, in no particular order.
    ///
    /// # Errors
    ///
    /// `EIO` if the device has been given up.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens if it is dropped.
    pub async fn wait_for_port(&self, name: &str) -> Result<Arc<Port>> {
        wait_until(&self.changed, || match self.port_named(name) {
            Some(port) => Some(Ok(port)),
            None => self.state.lock().is_lost.then_some(Err(Errno::EIO)),
        })
        .await
    }

    /// The size of the host's terminal, if it says.
    pub fn size(&self) -> Option<Size> {
        self.state.lock().size
    }

    /// Woken when ports come, go or get their names, and when the size changes.
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    fn interrupted(&self, concern: Concern) {
        if self.transport.acknowledge() || concern == Concern::Configuration {
            self.configuration_changed();
        }
        if let Err(violation) = self.serve(concern) {
            error!("virtio-console: the device broke the protocol: {violation:?}");
            self.give_up();
        }
    }

    fn serve(&self, concern: Concern) -> core::result::Result<(), Violation> {
        if self.state.lock().is_lost {
            return Ok(());
        }
        match concern {
            Concern::Configuration => {}
            Concern::Group(0) => self.serve_control()?,
            Concern::Group(group) => self.ports.get(group - 1).map_or(Ok(()), |port| port.serve())?,
            Concern::Everything => {
                self.serve_control()?;
                self.ports.iter().try_for_each(|port| port.serve())?;
            }
        }
        Ok(())
    }

    fn serve_control(&self) -> core::result::Result<(), Violation> {
        self.control.serve()?;
        while let Some((port, message)) = self.control.next_message() {
            debug!("virtio-console: port {port}: {message:?}");
            match message {
                Message::Added => self.add(port),
                Message::Resized { columns, rows } => self.set_size(Size { columns, rows }),
                about_a_port => self.tell_port(port, about_a_port)?,
            }
        }
        Ok(())
    }

    fn tell_port(&self, id: u32, message: Message) -> core::result::Result<(), Violation> {
        let Some(port) = self.ports.get(id as usize) else { return Ok(()) };
        match message {
            Message::HostOpened => port.host_opened(),
            Message::HostClosed => port.host_closed()?,
            Message::Named(name) => port.set_name(name),
            Message::IsConsole => port.become_console(),
            Message::Removed => {
                port.host_closed()?;
                self.state.lock().is_present[id as usize] = false;
            }
            Message::Added | Message::Resized { .. } => {}
        }
        self.changed.wake_all();
        Ok(())
    }

    /// A port has come.
    fn add(&self, id: u32) {
        let Some(port) = self.ports.get(id as usize) else {
            error!("virtio-console: port {id} is one too many");
            return;
        };
        let outcome = port.open(&self.dma);
        if let Err(errno) = outcome {
            error!("virtio-console: port {id}: {errno:?}");
        }
        self.control.tell_ready(id, outcome);
        self.state.lock().is_present[id as usize] = outcome.is_ok();
        self.changed.wake_all();
    }

    fn configuration_changed(&self) {
        if self.transport.status() & status::NEEDS_RESET != 0 {
            error!("virtio-console: the device has failed");
            self.give_up();
        }
        self.read_size();
    }

    fn read_size(&self) {
        if self.has_size {
            let number = |offset| u16::from_le_bytes(self.transport.config(offset));
            self.set_size(Size { columns: number(config::COLUMNS), rows: number(config::ROWS) });
        }
    }

    fn set_size(&self, size: Size) {
        self.state.lock().size = Some(size).filter(|size| size.columns > 0 && size.rows > 0);
        self.changed.wake_all();
    }

    /// Stops the device; its ports have nobody on the other side any more.
    fn give_up(&self) {
        if !self.transport.stop() {
            self.leak();
        }
        self.state.lock().is_lost = true;
        self.ports.iter().for_each(|port| port.lose());
        self.changed.wake_all();
    }

    /// Makes sure that what the device may still reach is never used again.
    fn leak(&self) {
        error!("virtio-console: the device cannot be stopped; its memory is lost");
        core::mem::forget((self.ports.clone(), self.control.clone()));
    }
}

impl Drop for VirtioConsole {
    fn drop(&mut self) {
        if !self.transport.stop() {
            self.leak();
        }
    }
}

#[cfg(test)]
mod tests;
