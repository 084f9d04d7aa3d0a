//! Sending and receiving.
//!
//! Sending puts what is sent into the receiver's queue; receiving takes it out of the socket's own. Both are attempts.
//!
//! Next: `file.rs`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::{PageSource, Sink, Source, Stop};

use super::BUFFER_SIZE;
use super::message_queue::Message;
use super::name::Name;
use super::rights::Rights;
use super::socket::{Queue, Role, Sender, Socket, State, Type};
use crate::mm::MakeRoom;

/// What is sent besides bytes.
pub struct Outgoing {
    /// Who sends.
    pub sender: Sender,
    /// The files that go along; taken by the attempt that sends them.
    pub rights: Option<Rights>,
}

/// What is received besides bytes, and how to receive.
#[derive(Default)]
pub struct Incoming {
    /// It stays in the queue.
    pub peeks: bool,
    /// The receiver wants to know who sent: bytes of different senders do not mix.
    pub wants_credentials: bool,
    /// Who sent it.
    pub sender: Option<Sender>,
    /// The files that came along.
    pub rights: Option<Rights>,
    /// The name of who sent it, if it has one.
    pub from: Option<Arc<Name>>,
    /// How long the message was.
    pub len: usize,
    /// Whether some of it did not fit.
    pub is_truncated: bool,
}

impl Socket {
    /// Where a message goes: to the peer, or for a datagram to the socket that is given.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`: there is no peer, or it is not connected. `EPIPE`: it may not send any more.
    fn receiver(&self, to: Option<&Arc<Socket>>) -> Result<(Arc<Socket>, Option<Arc<Name>>)> {
        let mut state = self.state.lock();
        let is_connected = self.kind == Type::Datagram || matches!(state.role, Role::Connected);
        if is_connected && state.is_mute {
            return Err(Errno::EPIPE);
        }
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        match to.or(state.peer.as_ref()) {
            Some(receiver) if is_connected => Ok((receiver.clone(), state.name.clone())),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Attempts to send. A stream takes as much as there is room for, the others all or nothing.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: wait on [`Socket::changed`], or on the receiver's [`Socket::drained`] if it is not the peer. `EPIPE`, `ENOTCONN`,
    /// `ECONNREFUSED`, `ECONNRESET`, `EPERM`, `EMSGSIZE`, `ENOMEM`, `Fault`.
    pub fn try_send(
        self: &Arc<Self>,
        pages: &'static dyn PageSource,
        to: Option<&Arc<Socket>>,
        source: &mut dyn Source,
        outgoing: &mut Outgoing,
    ) -> Result<usize, Stop> {
        let (receiver, name) = self.receiver(to)?;
        let done = match self.kind {
            Type::Stream if source.remaining() == 0 => return Ok(0),
            Type::Stream => {
                let mut state = receiver.state.lock();
                if state.is_closed || state.is_ended {
                    return Err(Errno::EPIPE.into());
                }
                let Queue::Stream(queue) = &mut state.queue else { return Err(Errno::EPROTOTYPE.into()) };
                queue.push(pages, source, outgoing)?
            }
            _ => self.send_message(&receiver, source, outgoing, name)?,
        };
        receiver.changed.wake_all();
        Ok(done)
    }

    fn send_message(
        self: &Arc<Self>,
        receiver: &Arc<Socket>,
        source: &mut dyn Source,
        outgoing: &mut Outgoing,
        name: Option<Arc<Name>>,
    ) -> Result<usize, Stop> {
        let len = source.remaining();
        if len > BUFFER_SIZE - 32 {
            return Err(Errno::EMSGSIZE.into());
        }
        // Looked at first, so that nothing is copied in vain while there is no room; copied before the lock is taken.
        let may_send = self.check_receiver(&receiver.state.lock());
        may_send.map_err(|stop| self.forget_closed(receiver, stop))?;
        let message = Message::copy_in(source, outgoing.sender, name)?;
        let mut state = receiver.state.lock();
        let attempt = self.check_receiver(&state).and_then(|()| match &mut state.queue {
            Queue::Messages(queue) => Ok(queue.push(message, &mut outgoing.rights)?),
            Queue::Stream(_) => Err(Errno::EPROTOTYPE.into()),
        });
        drop(state);
        attempt.map(|()| len).map_err(|stop| {
            source.give_back(len);
            self.forget_closed(receiver, stop)
        })
    }

    /// Whether a receiver takes a message of this socket now.
    fn check_receiver(&self, receiver: &State) -> Result<(), Stop> {
        if receiver.is_closed {
            let errno = if self.kind == Type::Datagram { Errno::ECONNREFUSED } else { Errno::EPIPE };
            return Err(errno.into());
        }
        if receiver.is_ended {
            return Err(Errno::EPIPE.into());
        }
        let is_peer = receiver.is_peer(self);
        if receiver.peer.is_some() && !is_peer {
            return Err(Errno::EPERM.into());
        }
        match &receiver.queue {
            Queue::Messages(queue) if !queue.has_room(is_peer) => Err(Stop::WouldBlock),
            _ => Ok(()),
        }
    }

    /// A datagram socket whose peer has closed has no peer any more.
    fn forget_closed(&self, receiver: &Arc<Socket>, stop: Stop) -> Stop {
        if stop == Stop::Errno(Errno::ECONNREFUSED) {
            let former = {
                let mut state = self.state.lock();
                if state.is_peer(receiver) { state.peer.take() } else { None }
            };
            drop(former);
        }
        stop
    }

    /// Attempts to receive. `Ok(0)` with room in the sink is the end of a stream or a connection, or an empty message.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: wait on [`Socket::changed`]. `EINVAL`, `ENOTCONN`: it is not connected. `ECONNRESET`. `Fault`.
    pub fn try_receive(&self, sink: &mut dyn Sink, incoming: &mut Incoming) -> Result<usize, Stop> {
        let mut state = self.state.lock();
        if self.kind != Type::Datagram && !matches!(state.role, Role::Connected) {
            return Err(if self.kind == Type::Stream { Errno::EINVAL } else { Errno::ENOTCONN }.into());
        }
        if state.queue.is_empty() {
            return match state.error.take() {
                Some(errno) => Err(errno.into()),
                None if state.is_ended => Ok(0),
                None => Err(Stop::WouldBlock),
            };
        }
        let was_tight = !state.queue.is_writable(false) || !state.queue.is_writable(true);
        let (done, message) = match &mut state.queue {
            Queue::Stream(queue) => {
                let done = queue.pull(sink, incoming);
                if done == 0 && sink.faulted() {
                    return Err(Stop::Fault);
                }
                (done, None)
            }
            Queue::Messages(queue) => queue.pull(sink, incoming)?,
        };
        let is_message = self.kind != Type::Stream;
        let tells = !incoming.peeks && was_tight && (is_message || state.queue.is_writable(true));
        let peer = state.peer.clone();
        let mut followers: Vec<Weak<Socket>> = Vec::new();
        if tells && followers.make_exact_room(state.followers.len()).is_ok() {
            followers.extend(state.followers.iter().cloned());
        }
        drop(state);
        drop(message);
        if tells {
            self.drained.wake_all();
            for follower in followers.iter().filter_map(Weak::upgrade) {
                follower.changed.wake_all();
            }
        }
        if let Some(peer) = peer {
            if tells && self.kind != Type::Datagram {
                peer.changed.wake_all();
            }
            if self.kind != Type::Datagram {
                incoming.from = peer.name();
            }
        }
        Ok(done)
    }

    /// How many bytes one call would receive (`FIONREAD`).
    pub fn readable(&self) -> usize {
        match &self.state.lock().queue {
            Queue::Stream(queue) => queue.len(),
            Queue::Messages(queue) => queue.first_len(),
        }
    }
}
