//! The control queues of a console with several ports: what comes and goes, and who has opened what.
//!
//! Messages to the device are not queued but remembered as what is still to be said ([`Outbound`]): a port that is opened and closed a
//! thousand times while the device is slow takes no more memory than one that is opened once.
//!
//! Source: Virtio 1.2, section 5.3.6.2. Next: `../console.rs`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use drivers::Result;
use drivers::hw::Dma;
use executor::sync::SpinLock;

use crate::console::receiver::Receiver;
use crate::console::transmitter::Transmitter;
use crate::ring::Violation;
use crate::transport::Transport;

/// The numbers of the control queues.
pub(crate) const RECEIVE: u16 = 2;
/// See [`RECEIVE`].
pub(crate) const TRANSMIT: u16 = 3;
/// The longest message that is understood; a longer one is cut off, which only a name can be.
pub(crate) const MESSAGE_SIZE: usize = 128;

const HEADER_SIZE: usize = 8;

/// What messages are about.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_REMOVE: u16 = 2;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const RESIZE: u16 = 5;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// A message from the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Added,
    Removed,
    IsConsole,
    Resized { columns: u16, rows: u16 },
    HostOpened,
    HostClosed,
    Named(String),
}

/// What the device is still to be told of a port.
#[derive(Clone, Copy, Default)]
struct Outbound {
    /// That the port is ready, or that it cannot be used.
    ready: Option<bool>,
    is_open: bool,
    is_open_told: bool,
}

/// Both control queues.
pub(crate) struct Control {
    transport: Arc<dyn Transport>,
    /// `None` if the device has one port only, and so nothing to say.
    wire: Option<SpinLock<Wire>>,
}

struct Wire {
    receiver: Receiver,
    transmitter: Transmitter,
    is_ready_told: bool,
    ports: Vec<Outbound>,
}

impl Control {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        halves: Option<(Receiver, Transmitter)>,
        port_count: usize,
    ) -> Control {
        let wire = halves.map(|(receiver, transmitter)| {
            let ports = vec![Outbound::default(); port_count];
            SpinLock::new(Wire { receiver, transmitter, is_ready_told: false, ports })
        });
        Control { transport, wire }
    }

    /// Takes memory, lets the device fill it, and tells it to begin.
    pub(crate) fn open(&self, dma: &Dma) -> Result<()> {
        let Some(wire) = &self.wire else { return Ok(()) };
        let wants_doorbell = {
            let mut wire = wire.lock();
            wire.transmitter.open(dma)?;
            wire.receiver.open(dma)?;
            wire.receiver.publish()
        };
        self.ring_if(wants_doorbell, RECEIVE);
        self.say();
        Ok(())
    }

    /// Tells the device that a port can be used, or that it cannot.
    pub(crate) fn tell_ready(&self, port: u32, outcome: Result<()>) {
        self.change(port, |outbound| {
            // A port that comes anew has forgotten what it was told.
            *outbound = Outbound { ready: Some(outcome.is_ok()), is_open_told: false, ..*outbound };
        });
    }

    /// Tells the device that this side has opened a port.
    pub(crate) fn tell_open(&self, port: u32) {
        self.change(port, |outbound| outbound.is_open = true);
    }

    /// Tells the device that this side has closed a port.
    pub(crate) fn tell_closed(&self, port: u32) {
        self.change(port, |outbound| outbound.is_open = false);
    }

    fn change(&self, port: u32, change: impl FnOnce(&mut Outbound)) {
        let Some(wire) = &self.wire else { return };
        if let Some(outbound) = wire.lock().ports.get_mut(port as usize) {
            change(outbound);
        }
        self.say();
    }

    /// Collects what the device has returned, and says what could not be said before.
    pub(crate) fn serve(&self) -> core::result::Result<(), Violation> {
        let Some(wire) = &self.wire else { return Ok(()) };
        {
            let mut wire = wire.lock();
            wire.receiver.collect()?;
            wire.transmitter.collect()?;
        }
        self.say();
        Ok(())
    }

    /// The next message of the device that is understood, and the port that it is about.
    pub(crate) fn next_message(&self) -> Option<(u32, Message)> {
        loop {
            let mut bytes = [0; MESSAGE_SIZE];
            let (len, wants_doorbell) = self.wire.as_ref()?.lock().receiver.read_message(&mut bytes)?;
            self.ring_if(wants_doorbell, RECEIVE);
            if let Some(message) = parse(&bytes[..len]) {
                return Some(message);
            }
            log::debug!("virtio-console: a control message that is not understood: {:02x?}", &bytes[..len]);
        }
    }

    fn say(&self) {
        let Some(wire) = &self.wire else { return };
        let wants_doorbell = wire.lock().say();
        self.ring_if(wants_doorbell, TRANSMIT);
    }

    fn ring_if(&self, wants_doorbell: bool, queue: u16) {
        if wants_doorbell {
            self.transport.notify(queue);
        }
    }
}

impl Wire {
    /// Says what is to be said, as far as there is room. Whether the doorbell is to be rung.
    fn say(&mut self) -> bool {
        let mut wants_doorbell = false;
        let mut send =
            |port: usize, event: u16, value: bool| match self.transmitter.write_message(&encode(port, event, value)) {
                Some(wanted) => {
                    wants_doorbell |= wanted;
                    true
                }
                None => false,
            };
        self.is_ready_told = self.is_ready_told || send(0, event::DEVICE_READY, true);
        for (port, outbound) in self.ports.iter_mut().enumerate() {
            if let Some(is_usable) = outbound.ready
                && send(port, event::PORT_READY, is_usable)
            {
                outbound.ready = None;
            }
            let is_known = outbound.ready.is_none();
            if is_known && outbound.is_open != outbound.is_open_told && send(port, event::PORT_OPEN, outbound.is_open) {
                outbound.is_open_told = outbound.is_open;
            }
        }
        wants_doorbell
    }
}

fn encode(port: usize, event: u16, value: bool) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..4].copy_from_slice(&(port as u32).to_le_bytes());
    bytes[4..6].copy_from_slice(&event.to_le_bytes());
    bytes[6] = u8::from(value);
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u32, Message)> {
    let (header, rest) = bytes.split_at_checked(HEADER_SIZE)?;
    let port = u32::from_le_bytes(header[..4].try_into().ok()?);
    let word = |bytes: &[u8], at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let message = match (word(header, 4)?, word(header, 6)?) {
        (event::PORT_ADD, _) => Message::Added,
        (event::PORT_REMOVE, _) => Message::Removed,
        (event::CONSOLE_PORT, 1..) => Message::IsConsole,
        (event::RESIZE, _) => Message::Resized { columns: word(rest, 0)?, rows: word(rest, 2)? },
        (event::PORT_OPEN, 0) => Message::HostClosed,
        (event::PORT_OPEN, _) => Message::HostOpened,
        (event::PORT_NAME, _) => {
            let len = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            Message::Named(String::from_utf8_lossy(&rest[..len]).into_owned())
        }
        _ => return None,
    };
    Some((port, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_device_are_told_apart() {
        let message =
            |event: u8, value: u8, rest: &[u8]| parse(&[&[3, 0, 0, 0, event, 0, value, 0][..], rest].concat());
        assert_eq!(message(1, 0, b""), Some((3, Message::Added)));
        assert_eq!(message(7, 1, b"stdin\0"), Some((3, Message::Named("stdin".into()))));
        assert_eq!(message(6, 0, b""), Some((3, Message::HostClosed)));
        assert_eq!(message(5, 0, &[80, 0, 25, 0]), Some((3, Message::Resized { columns: 80, rows: 25 })));
    }

    #[test]
    fn messages_that_are_cut_off_or_unknown_are_passed_over() {
        for bytes in [&[][..], &[0; 7], &[0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25], &[0, 0, 0, 0, 99, 0, 0, 0]] {
            assert_eq!(parse(bytes), None);
        }
    }
}
