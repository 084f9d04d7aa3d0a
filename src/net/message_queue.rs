//! The messages that wait in a datagram or sequenced-packet socket.
//!
//! Next: `transfer.rs`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::{Result, Sink, Source, Stop};

use super::BUFFER_SIZE;
use super::name::Name;
use super::rights::Rights;
use super::socket::Sender;
use super::transfer::Incoming;
use crate::mm::MakeRoom;

/// So many messages of senders that it is not connected to may wait (`net.unix.max_dgram_qlen`).
const STRANGERS_MAX: usize = 10;
/// What a message costs besides its bytes, about as on Linux.
const OVERHEAD: usize = 768;

/// A message.
pub struct Message {
    bytes: Vec<u8>,
    sender: Sender,
    from: Option<Arc<Name>>,
    rights: Option<Rights>,
}

impl Message {
    /// Copies a message in, all or nothing.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `Fault`.
    pub fn copy_in(source: &mut dyn Source, sender: Sender, from: Option<Arc<Name>>) -> Result<Message, Stop> {
        let len = source.remaining();
        let mut bytes = Vec::new();
        bytes.make_exact_room(len)?;
        bytes.resize(len, 0);
        let taken = source.take(&mut bytes);
        if taken < len {
            source.give_back(taken);
            return Err(Stop::Fault);
        }
        Ok(Message { bytes, sender, from, rights: None })
    }

    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// See the module.
#[derive(Default)]
pub struct MessageQueue {
    messages: VecDeque<Message>,
    cost: usize,
}

impl MessageQueue {
    /// How many bytes the first message has.
    pub fn first_len(&self) -> usize {
        self.messages.front().map_or(0, |message| message.bytes.len())
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether there is room for one more, from the peer or from a stranger.
    pub fn has_room(&self, is_from_peer: bool) -> bool {
        self.cost < BUFFER_SIZE && (is_from_peer || self.messages.len() <= STRANGERS_MAX)
    }

    /// Whether a sender is to be told that there is room.
    pub fn is_writable(&self, is_from_peer: bool) -> bool {
        self.cost <= BUFFER_SIZE / 4 && self.has_room(is_from_peer)
    }

    /// Adds a message, with the files that go with it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: the message is dropped, the files are not.
    pub fn push(&mut self, mut message: Message, rights: &mut Option<Rights>) -> Result<()> {
        self.messages.make_room(1)?;
        message.rights = rights.take();
        self.cost += message.cost();
        self.messages.push_back(message);
        Ok(())
    }

    /// Hands out the first message; what does not fit is lost. With `incoming.peeks` it stays. The message, to be dropped without
    /// the lock.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: none. `Fault`: it stays.
    pub fn pull(&mut self, sink: &mut dyn Sink, incoming: &mut Incoming) -> Result<(usize, Option<Message>), Stop> {
        let message = self.messages.front_mut().ok_or(Stop::WouldBlock)?;
        let len = message.bytes.len().min(sink.remaining());
        let moved = sink.put(&message.bytes[..len]);
        if moved < len {
            sink.give_back(moved);
            return Err(Stop::Fault);
        }
        incoming.sender = Some(message.sender);
        incoming.from = message.from.clone();
        incoming.len = message.bytes.len();
        incoming.is_truncated = len < message.bytes.len();
        if incoming.peeks {
            incoming.rights = message.rights.as_ref().and_then(Rights::copy);
            return Ok((len, None));
        }
        incoming.rights = message.rights.take();
        self.cost -= message.cost();
        Ok((len, self.messages.pop_front()))
    }
}
