//! Queues of System V messages (msgsnd(2), msgrcv(2)).
//!
//! As with semaphores, what is waited for is handed over: a message goes to the first receiver in the line that wants it, and a sender in
//! the line puts its message into the queue as soon as there is room, both done by whoever made it possible, under the queue's lock.
//! So nobody overtakes, and to be woken is to be done. While a receiver stands in the line, no message in the queue is one it wants.
//!
//! ```text
//!   msgsnd: room? ──► offer: a receiver in the line wants it? ──► it has it; else it joins the queue
//!   msgrcv: there? ──► take it ──► room now for senders in the line: offer theirs
//! ```
//!
//! Next: `messages/line.rs`, then `syscall/messages.rs`.

mod line;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, ipc};
use executor::sync::SpinLock;
use fs::Credentials;
use fs::permission::Capabilities;

use self::line::{Pending, Place, Wish};
use super::identifiers::{ALTER, Identified, Identifiers, Ownership, READ, now, seconds};
use crate::mm::MakeRoom;
use crate::process::RunningThread;
use crate::process::wait_event::Interruptible;

/// The most queues: MSGMNI.
pub const MOST_QUEUES: usize = 32_000;
/// The most bytes of a message: MSGMAX.
pub const LONGEST_MESSAGE: usize = 8192;
/// The most bytes of a queue's messages, unless a privileged caller says otherwise: MSGMNB.
pub const BYTES_OF_A_QUEUE: usize = 16_384;

/// All queues.
pub static QUEUES: SpinLock<Identifiers<Queue>> = SpinLock::new(Identifiers::empty());

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its type, at least 1.
    pub kind: i64,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Which message is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The first.
    Any,
    /// The first of this type.
    Of(i64),
    /// The first of another type.
    Except(i64),
    /// The first of the lowest type, which is not above this one.
    UpTo(i64),
}

/// What a receiver takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Which message.
    pub which: Which,
    /// How many bytes it has room for.
    pub room: usize,
    /// What does not fit is cut off: MSG_NOERROR.
    pub cuts: bool,
}

impl Which {
    fn includes(self, kind: i64) -> bool {
        match self {
            Which::Any => true,
            Which::Of(wanted) => kind == wanted,
            Which::Except(other) => kind != other,
            Which::UpTo(most) => kind <= most,
        }
    }

    /// The place of the message that is wanted.
    fn place_in(self, messages: &VecDeque<Message>) -> Option<usize> {
        let mut included = messages.iter().enumerate().filter(|(_, message)| self.includes(message.kind));
        let found = match self {
            // The first of those whose type is the lowest.
            Which::UpTo(_) => included.min_by_key(|(_, message)| message.kind),
            _ => included.next(),
        };
        found.map(|(place, _)| place)
    }
}

impl Wanted {
    fn has_room_for(&self, message: &Message) -> bool {
        self.cuts || message.bytes.len() <= self.room
    }
}

/// What changes of a queue.
struct State {
    ownership: Ownership,
    messages: VecDeque<Message>,
    /// Bytes of the messages, and how many they may be.
    bytes: usize,
    most_bytes: usize,
    senders: VecDeque<Arc<Pending>>,
    receivers: VecDeque<Arc<Pending>>,
    /// Those with an outcome who were not woken yet. There is always room for both lines.
    settled: VecDeque<Arc<Pending>>,
    /// When somebody last sent, received and changed it, in nanoseconds since 1970.
    sent: u64,
    received: u64,
    changed: u64,
    sender: i32,
    receiver: i32,
    is_removed: bool,
}

/// A queue.
pub struct Queue {
    id: i32,
    key: i32,
    state: SpinLock<State>,
}

/// What IPC_STAT tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Owner and permissions.
    pub ownership: Ownership,
    /// When somebody last sent, in seconds since 1970; 0 for never.
    pub sent: u64,
    /// When somebody last received.
    pub received: u64,
    /// When it was made or changed.
    pub changed: u64,
    /// Bytes of the messages in it.
    pub bytes: usize,
    /// How many messages there are.
    pub count: usize,
    /// How many bytes they may have.
    pub most_bytes: usize,
    /// Who sent last; 0 for nobody.
    pub sender: i32,
    /// Who received last.
    pub receiver: i32,
}

impl Identified for Queue {
    fn id(&self) -> i32 {
        self.id
    }

    fn key(&self) -> i32 {
        self.key
    }
}

impl Queue {
    /// Makes a queue and answers its identifier.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are too many. `ENOMEM`.
    pub fn make(queues: &mut Identifiers<Queue>, ownership: Ownership) -> Result<i32> {
        let state = State {
            ownership,
            messages: VecDeque::new(),
            bytes: 0,
            most_bytes: BYTES_OF_A_QUEUE,
            senders: VecDeque::new(),
            receivers: VecDeque::new(),
            settled: VecDeque::new(),
            sent: 0,
            received: 0,
            changed: now(),
            sender: 0,
            receiver: 0,
            is_removed: false,
        };
        queues.add(MOST_QUEUES, |id| Arc::new(Queue { id, key: ownership.key, state: SpinLock::new(state) }))
    }

    /// Its owner and permissions.
    pub fn ownership(&self) -> Ownership {
        self.state.lock().ownership
    }

    /// What there is to tell.
    pub fn describe(&self) -> Description {
        let state = self.state.lock();
        Description {
            ownership: state.ownership,
            sent: seconds(state.sent),
            received: seconds(state.received),
            changed: seconds(state.changed),
            bytes: state.bytes,
            count: state.messages.len(),
            most_bytes: state.most_bytes,
            sender: state.sender,
            receiver: state.receiver,
        }
    }

    /// Changes owner and permissions to those of a `struct ipc64_perm`, and how many bytes there may be: IPC_SET.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no such user or group. `EPERM`: more bytes than the caller may allow. `EIDRM`: it has just been removed.
    pub fn set(&self, words: &[u64], most_bytes: usize, credentials: &Credentials) -> Result<()> {
        self.change(|state| {
            if most_bytes > BYTES_OF_A_QUEUE && !credentials.can(Capabilities::SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            state.ownership = state.ownership.changed(words)?;
            state.most_bytes = most_bytes;
            state.changed = now();
            state.send_away_the_unwelcome();
            state.admit_senders();
            Ok(())
        })
    }

    /// Ends all waits: the queue has been taken out of the table.
    pub fn retire(&self) {
        let messages = {
            let mut state = self.state.lock();
            state.is_removed = true;
            while let Some(pending) = state.senders.pop_front().or_else(|| state.receivers.pop_front()) {
                state.settle(pending, Err(Errno::EIDRM));
            }
            core::mem::take(&mut state.messages)
        };
        drop(messages);
        self.wake_settled();
    }

    /// Sends a message, as soon as there is room.
    ///
    /// # Errors
    ///
    /// `EACCES`; `EAGAIN`: there is no room and it must not wait. `EIDRM`: the queue was removed. `ENOMEM`. `ERESTARTNOHAND`: a
    /// signal came.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the line. The message may have been sent without anybody hearing of it.
    pub async fn send(&self, thread: &RunningThread, message: Message, may_wait: bool) -> Result<()> {
        let pending = Pending::new(Wish::Send(message.bytes.len()), thread);
        let is_sent = self.change(|state| {
            state.ownership.check(&thread.credentials, ALTER)?;
            if state.has_room_for(message.bytes.len()) {
                state.messages.make_room(1)?;
                state.note_sender(thread.process.pid);
                state.offer(message, false);
                return Ok(true);
            }
            if !may_wait {
                return Err(Errno::EAGAIN);
            }
            state.make_place()?;
            state.senders.make_room(1)?;
            pending.bring(message);
            state.senders.push_back(pending.clone());
            Ok(false)
        })?;
        if is_sent {
            return Ok(());
        }
        self.wait(thread, &pending).await.map(|_| ())
    }

    /// Receives a message, as soon as there is one that is wanted.
    ///
    /// # Errors
    ///
    /// `E2BIG`: it does not fit, and stays. `EACCES`; `ENOMSG`: there is none and it must not wait. `EIDRM`: the queue was removed.
    /// `ENOMEM`. `ERESTARTNOHAND`: a signal came.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the line. What was handed over meanwhile goes to the next receiver, or back to the front of the queue.
    pub async fn receive(&self, thread: &RunningThread, wanted: Wanted, may_wait: bool) -> Result<Message> {
        let pending = Pending::new(Wish::Receive(wanted), thread);
        let received = self.change(|state| {
            state.ownership.check(&thread.credentials, READ)?;
            if let Some(place) = wanted.which.place_in(&state.messages) {
                if state.messages.get(place).is_some_and(|message| !wanted.has_room_for(message)) {
                    return Err(Errno::E2BIG);
                }
                let message = state.messages.remove(place);
                state.bytes -= message.as_ref().map_or(0, |message| message.bytes.len());
                state.note_receiver(thread.process.pid);
                state.admit_senders();
                return Ok(message);
            }
            if !may_wait {
                return Err(Errno::ENOMSG);
            }
            state.make_place()?;
            state.receivers.make_room(1)?;
            state.receivers.push_back(pending.clone());
            Ok(None)
        })?;
        if let Some(message) = received {
            return Ok(message);
        }
        self.wait(thread, &pending).await?.ok_or(Errno::ENOMSG)
    }

    /// A copy of the message at this place: MSG_COPY.
    ///
    /// # Errors
    ///
    /// `ENOMSG`: there are not so many. `E2BIG`: it does not fit; `EINVAL`: nor may it be cut. `EACCES`; `EIDRM`; `ENOMEM`.
    pub fn copy(&self, credentials: &Credentials, place: usize, room: usize, cuts: bool) -> Result<Message> {
        self.change(|state| {
            state.ownership.check(credentials, READ)?;
            let message = state.messages.get(place).ok_or(Errno::ENOMSG)?;
            if message.bytes.len() > room {
                return Err(if cuts { Errno::EINVAL } else { Errno::E2BIG });
            }
            let mut bytes = Vec::new();
            bytes.make_exact_room(message.bytes.len())?;
            bytes.extend_from_slice(&message.bytes);
            Ok(Message { kind: message.kind, bytes })
        })
    }

    /// Waits for the outcome; a receiver's is a message.
    async fn wait(&self, thread: &RunningThread, pending: &Arc<Pending>) -> Result<Option<Message>> {
        let place = Place::new(self, pending);
        let waited = thread.wait_event(&pending.queue, Interruptible::BySignals, None, || pending.outcome()).await;
        match waited {
            Ok(outcome) => outcome,
            // It may have been served meanwhile.
            Err(errno) => {
                let why = if errno == Errno::ERESTARTSYS { Errno::ERESTARTNOHAND } else { errno };
                place.leave().unwrap_or(Err(why))
            }
        }
    }

    /// Changes the queue, and wakes those whose waiting that has settled.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let (result, has_settled) = {
            let mut state = self.state.lock();
            if state.is_removed {
                return Err(Errno::EIDRM);
            }
            let result = change(&mut state);
            (result, !state.settled.is_empty())
        };
        if has_settled {
            self.wake_settled();
        }
        result
    }

    /// One at a time, so that nothing is allocated and no waker runs under the lock.
    fn wake_settled(&self) {
        loop {
            let first = self.state.lock().settled.pop_front();
            let Some(pending) = first else { return };
            pending.queue.wake_all();
        }
    }
}

impl State {
    /// As Linux: as many bytes, and not more messages than bytes.
    fn has_room_for(&self, len: usize) -> bool {
        len.saturating_add(self.bytes) <= self.most_bytes && self.messages.len() < self.most_bytes
    }

    fn note_sender(&mut self, pid: i32) {
        self.sent = now();
        self.sender = pid;
    }

    fn note_receiver(&mut self, pid: i32) {
        self.received = now();
        self.receiver = pid;
    }

    /// Gives the message to the first receiver in the line that wants it, or puts it into the queue, where there is room for it.
    fn offer(&mut self, message: Message, in_front: bool) {
        let kind = message.kind;
        let wants = |pending: &Arc<Pending>| pending.wanted().is_some_and(|wanted| wanted.which.includes(kind));
        while let Some(place) = self.receivers.iter().position(wants) {
            let Some(receiver) = self.receivers.remove(place) else { break };
            if receiver.wanted().is_some_and(|wanted| wanted.has_room_for(&message)) {
                self.note_receiver(receiver.pid);
                receiver.bring(message);
                self.settle(receiver, Ok(()));
                return;
            }
            self.settle(receiver, Err(Errno::E2BIG));
        }
        self.bytes += message.bytes.len();
        if in_front {
            self.messages.push_front(message);
        } else {
            self.messages.push_back(message);
        }
    }

    /// Sends for those in the line whose messages fit now.
    fn admit_senders(&mut self) {
        let mut place = 0;
        while let Some(sender) = self.senders.get(place) {
            if !self.has_room_for(sender.len()) {
                place += 1;
                continue;
            }
            let Some(sender) = self.senders.remove(place) else { return };
            let outcome = self.messages.make_room(1);
            if outcome.is_ok()
                && let Some(message) = sender.take()
            {
                self.note_sender(sender.pid);
                self.offer(message, false);
            }
            self.settle(sender, outcome);
        }
    }

    /// Those in the lines who have lost the right to what they wait for.
    fn send_away_the_unwelcome(&mut self) {
        let ownership = self.ownership;
        for (is_sending, rights) in [(true, ALTER), (false, READ)] {
            loop {
                let line = if is_sending { &mut self.senders } else { &mut self.receivers };
                let is_unwelcome = |pending: &Arc<Pending>| ownership.check(&pending.credentials, rights).is_err();
                let Some(place) = line.iter().position(is_unwelcome) else { break };
                let Some(pending) = line.remove(place) else { break };
                self.settle(pending, Err(Errno::EACCES));
            }
        }
    }

    /// Makes room for one more who waits.
    fn make_place(&mut self) -> Result<()> {
        let places = self.senders.len() + self.receivers.len() + 1;
        self.settled.make_room(places)
    }

    fn settle(&mut self, pending: Arc<Pending>, outcome: Result<()>) {
        pending.settle(outcome);
        self.settled.push_back(pending);
    }
}

/// Which message msgrcv(2) means by a type and flags; not MSG_COPY.
pub fn which(kind: i64, flags: u32) -> Which {
    match kind {
        0 => Which::Any,
        ..0 => Which::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
        _ if flags & ipc::MSG_EXCEPT != 0 => Which::Except(kind),
        _ => Which::Of(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_chooses_a_message() {
        let kinds = [5, 2, 7, 2, 5];
        let messages: VecDeque<Message> = kinds.iter().map(|kind| Message { kind: *kind, bytes: vec![] }).collect();
        let place = |kind, flags| which(kind, flags).place_in(&messages);
        assert_eq!((place(0, 0), place(7, 0), place(2, 0)), (Some(0), Some(2), Some(1)));
        assert_eq!((place(3, 0), place(5, ipc::MSG_EXCEPT)), (None, Some(1)));
        assert_eq!((place(-6, 0), place(-2, 0), place(-1, 0)), (Some(1), Some(1), None));
        assert_eq!((place(i64::MIN, 0), place(0, ipc::MSG_EXCEPT)), (Some(1), Some(0)));
    }
}
