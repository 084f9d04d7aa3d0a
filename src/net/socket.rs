//! A socket, from its making to its end.
//!
//! ```text
//!   new ──► Idle ── connect ──────────────────────────────► Connected ── the peer closes ──► its queue is ended
//!             └── bind, listen ──► Listening ── accept ──►      ▲
//!                                       connect makes the listener's side of it, which waits for accept
//! ```
//!
//! A socket refers to its peer, and the peer to it; `close` lets go of the socket's own arrow. What the peer must know is written
//! into the peer's state: one lock at a time.
//!
//! Next: `transfer.rs`.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::{Errno, Result, net};
use executor::sync::{SpinLock, WaitQueue};
use fs::{Path, PollEvents, Stop};

use super::message_queue::MessageQueue;
use super::name::{self, Name};
use super::stream_queue::StreamQueue;
use crate::mm::MakeRoom;

/// The most connections that may wait for accept(2) (`net.core.somaxconn`).
const BACKLOG_MAX: usize = 4096;

/// How a socket carries what is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Type {
    /// A stream of bytes.
    Stream,
    /// Messages, to whom one likes.
    Datagram,
    /// Messages, over a connection.
    SequencedPacket,
}

impl Type {
    /// From the number that socket(2) takes.
    ///
    /// # Errors
    ///
    /// `ESOCKTNOSUPPORT`.
    pub fn from_number(number: u32) -> Result<Type> {
        match number {
            net::SOCK_STREAM => Ok(Type::Stream),
            // As on Linux.
            net::SOCK_DGRAM | net::SOCK_RAW => Ok(Type::Datagram),
            net::SOCK_SEQPACKET => Ok(Type::SequencedPacket),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }

    /// The number of `SO_TYPE`.
    pub fn number(self) -> u32 {
        match self {
            Type::Stream => net::SOCK_STREAM,
            Type::Datagram => net::SOCK_DGRAM,
            Type::SequencedPacket => net::SOCK_SEQPACKET,
        }
    }

    fn has_connections(self) -> bool {
        self != Type::Datagram
    }
}

/// Who sends, connects or listens: what `struct ucred` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Sender {
    /// Whom getsockopt(2) names when there is nobody.
    pub const NOBODY: Sender = Sender { pid: 0, uid: !0, gid: !0 };
}

/// Which directions shutdown(2) ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Receiving.
    Receive,
    /// Sending.
    Send,
    /// Both.
    Both,
}

/// What a socket does.
pub(super) enum Role {
    /// Nothing yet; or a datagram socket, always.
    Idle,
    /// It waits for connections.
    Listening(Listener),
    /// It has a peer.
    Connected,
}

/// Connections that wait for accept(2).
pub(super) struct Listener {
    backlog: usize,
    waiting: VecDeque<Arc<Socket>>,
}

/// What waits to be received.
pub(super) enum Queue {
    Stream(StreamQueue),
    Messages(MessageQueue),
}

impl Queue {
    fn new(kind: Type) -> Queue {
        match kind {
            Type::Stream => Queue::Stream(StreamQueue::default()),
            _ => Queue::Messages(MessageQueue::default()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Queue::Stream(queue) => queue.is_empty(),
            Queue::Messages(queue) => queue.is_empty(),
        }
    }

    pub(super) fn is_writable(&self, is_from_peer: bool) -> bool {
        match self {
            Queue::Stream(queue) => queue.is_writable(),
            Queue::Messages(queue) => queue.is_writable(is_from_peer),
        }
    }
}

/// What keeps a name: the entry in the table, or the place in the file system, which must not be forgotten while it leads here.
enum Binding {
    Abstract(Arc<Name>),
    Path { _place: Path },
}

/// What changes about a socket.
pub(super) struct State {
    pub(super) role: Role,
    pub(super) peer: Option<Arc<Socket>>,
    pub(super) name: Option<Arc<Name>>,
    binding: Option<Binding>,
    is_binding: bool,
    /// Who the peer was when it connected or began to listen.
    peer_credentials: Sender,
    /// Its own, for those who connect to it.
    own_credentials: Sender,
    /// To be reported once.
    pub(super) error: Option<Errno>,
    pub(super) queue: Queue,
    /// Nothing more will come into the queue.
    pub(super) is_ended: bool,
    /// Nothing more may be sent.
    pub(super) is_mute: bool,
    pub(super) is_closed: bool,
    /// Datagram sockets that are connected to this one: they want to know of room in its queue.
    pub(super) followers: Vec<Weak<Socket>>,
}

/// A socket.
pub struct Socket {
    /// How it carries what is sent.
    pub kind: Type,
    pub(super) state: SpinLock<State>,
    /// Woken when what [`Socket::poll`] says may have changed.
    pub(super) changed: WaitQueue,
    /// Woken when there is room in its queue, or its backlog, for those who are not its peer.
    pub(super) drained: WaitQueue,
    wants_credentials: AtomicBool,
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
}

impl Socket {
    /// A socket, made by `owner`.
    pub fn new(kind: Type, owner: Sender) -> Arc<Socket> {
        Arc::new(Socket {
            kind,
            state: SpinLock::new(State {
                role: Role::Idle,
                peer: None,
                name: None,
                binding: None,
                is_binding: false,
                peer_credentials: Sender::NOBODY,
                own_credentials: owner,
                error: None,
                queue: Queue::new(kind),
                is_ended: false,
                is_mute: false,
                is_closed: false,
                followers: Vec::new(),
            }),
            changed: WaitQueue::new(),
            drained: WaitQueue::new(),
            wants_credentials: AtomicBool::new(false),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
        })
    }

    /// Two sockets that are each other's peer: socketpair(2).
    pub fn pair(kind: Type, owner: Sender) -> (Arc<Socket>, Arc<Socket>) {
        let (one, other) = (Socket::new(kind, owner), Socket::new(kind, owner));
        for (socket, peer) in [(&one, &other), (&other, &one)] {
            let mut state = socket.state.lock();
            state.peer = Some(peer.clone());
            state.peer_credentials = owner;
            if kind.has_connections() {
                state.role = Role::Connected;
            } else {
                state.followers.push(Arc::downgrade(peer));
            }
        }
        (one, other)
    }

    /// Says that it will be given a name, so that nobody else gives it one meanwhile. [`Socket::bind_path`],
    /// [`Socket::bind_abstract`] or [`Socket::give_up_binding`] follows.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it has one.
    pub fn begin_binding(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.name.is_some() || state.is_binding {
            return Err(Errno::EINVAL);
        }
        state.is_binding = true;
        Ok(())
    }

    /// It gets no name after all.
    pub fn give_up_binding(&self) {
        self.state.lock().is_binding = false;
    }

    /// Gives it the name of an inode that was made for it.
    pub fn bind_path(self: &Arc<Self>, name: Name, place: Path) {
        name::attach(&**place.inode(), self);
        self.finish_binding(Arc::new(name), Binding::Path { _place: place });
    }

    /// Gives it an abstract name, or one that nobody has.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`; `ENOSPC`.
    pub fn bind_abstract(self: &Arc<Self>, wanted: Option<Vec<u8>>) -> Result<()> {
        let name = match wanted {
            Some(name) => name::enter(&name, self).map(|()| name),
            None => name::enter_anywhere(self),
        };
        let name = name.inspect_err(|_| self.give_up_binding())?;
        let name = Arc::new(Name::Abstract(name));
        self.finish_binding(name.clone(), Binding::Abstract(name));
        Ok(())
    }

    fn finish_binding(&self, name: Arc<Name>, binding: Binding) {
        let mut state = self.state.lock();
        state.is_binding = false;
        state.name = Some(name);
        state.binding = Some(binding);
    }

    /// listen(2).
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: a datagram socket. `EINVAL`: it has no name, or is connected.
    pub fn listen(&self, backlog: usize, who: Sender) -> Result<()> {
        if !self.kind.has_connections() {
            return Err(Errno::EOPNOTSUPP);
        }
        let backlog = backlog.min(BACKLOG_MAX);
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.role {
            Role::Connected => return Err(Errno::EINVAL),
            Role::Listening(listener) => listener.backlog = backlog,
            Role::Idle => state.role = Role::Listening(Listener { backlog, waiting: VecDeque::new() }),
        }
        state.own_credentials = who;
        drop(state);
        self.drained.wake_all();
        Ok(())
    }

    /// Attempts to connect to a listening socket; the listener's queue is woken when that may succeed.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: too many wait for accept. `EISCONN`, `EINVAL`: it is connected, or listens. `ECONNREFUSED`: the other does not
    /// listen.
    pub fn try_connect(self: &Arc<Self>, to: &Arc<Socket>, who: Sender) -> Result<(), Stop> {
        match self.state.lock().role {
            Role::Idle => {}
            Role::Connected => return Err(Errno::EISCONN.into()),
            Role::Listening(_) => return Err(Errno::EINVAL.into()),
        }
        let (name, credentials) = {
            let state = to.state.lock();
            state.check_backlog()?;
            (state.name.clone(), state.own_credentials)
        };
        let server = Socket::new(self.kind, who);
        {
            let mut state = server.state.lock();
            state.role = Role::Connected;
            state.peer = Some(self.clone());
            state.peer_credentials = who;
            state.name = name;
        }
        server.wants_credentials.store(to.wants_credentials(), Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            match state.role {
                Role::Idle => state.role = Role::Connected,
                Role::Connected => return Err(Errno::EISCONN.into()),
                Role::Listening(_) => return Err(Errno::EINVAL.into()),
            }
            state.peer = Some(server.clone());
            state.peer_credentials = credentials;
        }
        if let Err(stop) = to.add_connection(&server) {
            // Somebody else was faster.
            let mut state = self.state.lock();
            state.role = Role::Idle;
            state.peer_credentials = Sender::NOBODY;
            let former = state.peer.take();
            drop(state);
            drop(former);
            server.close();
            let mut state = self.state.lock();
            (state.is_ended, state.is_mute, state.error) = (false, false, None);
            return Err(stop);
        }
        to.changed.wake_all();
        self.changed.wake_all();
        Ok(())
    }

    fn add_connection(&self, server: &Arc<Socket>) -> Result<(), Stop> {
        let mut state = self.state.lock();
        state.check_backlog()?;
        if let Role::Listening(listener) = &mut state.role {
            listener.waiting.make_room(1)?;
            listener.waiting.push_back(server.clone());
        }
        Ok(())
    }

    /// Sets the socket that a datagram socket sends to and receives from; `None` for all.
    ///
    /// # Errors
    ///
    /// `EPERM`: the other receives only from a third. `ENOMEM`.
    pub fn set_peer(self: &Arc<Self>, peer: Option<Arc<Socket>>) -> Result<()> {
        if let Some(peer) = &peer {
            let mut state = peer.state.lock();
            if state.peer.as_ref().is_some_and(|other| !Arc::ptr_eq(other, self)) {
                return Err(Errno::EPERM);
            }
            // Nothing here may be the last that holds a socket, which must not be dropped under a lock: only counts are asked.
            state.followers.retain(|follower| follower.strong_count() > 0);
            state.followers.make_room(1)?;
            state.followers.push(Arc::downgrade(self));
        }
        let former = core::mem::replace(&mut self.state.lock().peer, peer);
        if let Some(former) = former {
            self.stop_following(&former);
        }
        self.changed.wake_all();
        Ok(())
    }

    fn stop_following(&self, peer: &Socket) {
        let mut state = peer.state.lock();
        if let Some(index) = state.followers.iter().position(|follower| core::ptr::eq(follower.as_ptr(), self)) {
            state.followers.swap_remove(index);
        }
    }

    /// Attempts to accept a connection.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: there is none. `EOPNOTSUPP`: a datagram socket. `EINVAL`: it does not listen, or was shut down.
    pub fn try_accept(&self) -> Result<Arc<Socket>, Stop> {
        if !self.kind.has_connections() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut state = self.state.lock();
        let is_ended = state.is_ended;
        let Role::Listening(listener) = &mut state.role else { return Err(Errno::EINVAL.into()) };
        let accepted = listener.waiting.pop_front();
        drop(state);
        match accepted {
            Some(socket) => {
                self.drained.wake_all();
                Ok(socket)
            }
            None if is_ended => Err(Errno::EINVAL.into()),
            None => Err(Stop::WouldBlock),
        }
    }

    /// shutdown(2).
    ///
    /// # Errors
    ///
    /// `ENOTCONN`.
    pub fn shut_down(&self, direction: Direction) -> Result<()> {
        let (ends, mutes) = (direction != Direction::Send, direction != Direction::Receive);
        let peer = {
            let mut state = self.state.lock();
            if matches!(state.role, Role::Idle) && state.peer.is_none() {
                return Err(Errno::ENOTCONN);
            }
            state.is_ended |= ends;
            state.is_mute |= mutes;
            state.peer.clone().filter(|_| self.kind.has_connections())
        };
        self.changed.wake_all();
        self.drained.wake_all();
        if let Some(peer) = peer {
            {
                let mut state = peer.state.lock();
                state.is_ended |= mutes;
                state.is_mute |= ends;
            }
            peer.changed.wake_all();
        }
        Ok(())
    }

    /// The end: the last open file of it is closed.
    pub(super) fn close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        (state.is_closed, state.is_ended, state.is_mute) = (true, true, true);
        let has_unread = !state.queue.is_empty();
        let queue = core::mem::replace(&mut state.queue, Queue::new(self.kind));
        let role = core::mem::replace(&mut state.role, Role::Idle);
        let (peer, binding) = (state.peer.take(), state.binding.take());
        let followers = core::mem::take(&mut state.followers);
        drop(state);
        if let Some(Binding::Abstract(name)) = &binding
            && let Name::Abstract(name) = &**name
        {
            name::remove(name, self.kind);
        }
        if let Role::Listening(listener) = role {
            for socket in listener.waiting {
                socket.state.lock().error = Some(Errno::ECONNRESET);
                socket.close();
            }
        }
        if let Some(peer) = peer {
            if self.kind.has_connections() {
                let was_never_accepted = self.state.lock().error == Some(Errno::ECONNRESET);
                let mut state = peer.state.lock();
                (state.is_ended, state.is_mute) = (true, true);
                if has_unread || was_never_accepted {
                    state.error = Some(Errno::ECONNRESET);
                }
            } else {
                self.stop_following(&peer);
            }
            peer.changed.wake_all();
        }
        for follower in followers.iter().filter_map(Weak::upgrade) {
            follower.changed.wake_all();
        }
        self.changed.wake_all();
        self.drained.wake_all();
        drop((queue, binding));
    }

    /// What poll(2) shows.
    pub fn poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        let state = self.state.lock();
        let has_something = match &state.role {
            Role::Listening(listener) => !listener.waiting.is_empty(),
            _ => !state.queue.is_empty(),
        };
        events.set(PollEvents::ERR, state.error.is_some());
        events.set(PollEvents::RDHUP, state.is_ended);
        events.set(PollEvents::IN | PollEvents::RDNORM, has_something || state.is_ended);
        let is_unconnected = self.kind.has_connections() && matches!(state.role, Role::Idle);
        events.set(PollEvents::HUP, state.is_ended && state.is_mute || is_unconnected);
        let listens = matches!(state.role, Role::Listening(_));
        let peer = state.peer.clone();
        drop(state);
        let is_writable = peer.is_none_or(|peer| {
            let state = peer.state.lock();
            state.is_closed || state.is_ended || state.queue.is_writable(state.is_peer(self))
        });
        events.set(PollEvents::OUT | PollEvents::WRNORM, is_writable && !listens);
        events
    }

    /// Woken when what [`Socket::poll`] shows may have changed.
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    /// Woken when somebody who is not the peer may try again to connect or to send.
    pub fn drained(&self) -> &WaitQueue {
        &self.drained
    }

    /// Its own name.
    pub fn name(&self) -> Option<Arc<Name>> {
        self.state.lock().name.clone()
    }

    /// Its peer.
    pub fn peer(&self) -> Option<Arc<Socket>> {
        self.state.lock().peer.clone()
    }

    /// Whether it listens.
    pub fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening(_))
    }

    /// Who its peer was when it connected or began to listen (`SO_PEERCRED`).
    pub fn peer_credentials(&self) -> Sender {
        self.state.lock().peer_credentials
    }

    /// The error that waits to be reported, which is then over (`SO_ERROR`).
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// Whether its receiver wants to know who sends (`SO_PASSCRED`).
    pub fn wants_credentials(&self) -> bool {
        self.wants_credentials.load(Ordering::Relaxed)
    }

    /// Sets `SO_PASSCRED`.
    pub fn set_wants_credentials(&self, wants: bool) {
        self.wants_credentials.store(wants, Ordering::Relaxed);
    }

    /// How long it waits to receive, or to send, in nanoseconds; 0 is for ever (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
    pub fn timeout(&self, direction: Direction) -> &AtomicU64 {
        if direction == Direction::Receive { &self.receive_timeout } else { &self.send_timeout }
    }
}

impl State {
    fn check_backlog(&self) -> Result<(), Stop> {
        match &self.role {
            Role::Listening(_) if self.is_ended => Err(Errno::ECONNREFUSED.into()),
            Role::Listening(listener) if listener.waiting.len() > listener.backlog => Err(Stop::WouldBlock),
            Role::Listening(_) => Ok(()),
            _ => Err(Errno::ECONNREFUSED.into()),
        }
    }

    /// Whether that socket is the peer of this one.
    pub(super) fn is_peer(&self, socket: &Socket) -> bool {
        self.peer.as_ref().is_some_and(|peer| core::ptr::eq(&**peer, socket))
    }
}
