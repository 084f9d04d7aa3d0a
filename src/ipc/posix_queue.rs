//! POSIX message queues (mq_overview(7)): messages in the order of their priorities, behind descriptors.
//!
//! A queue is an inode of the file system `mqueue` (`posix_queue/names.rs`), and what opens it is `posix_queue/file.rs`. Who waits for a
//! message is in `readable`, who waits for room in `writable`; poll(2) stands in `changed`. A wake goes to one who can use it, and if
//! there is more, the one who was woken wakes the next.
//!
//! How much a user's queues may hold is counted when they are made (RLIMIT_MSGQUEUE), as if they were full.
//!
//! Next: `posix_queue/names.rs`, then `syscall/posix_queue.rs`.

pub mod file;
pub mod names;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use abi::{Errno, Result};
use executor::sync::{SpinLock, WaitQueue};
use fs::permission::Capabilities;
use fs::{Credentials, InodeCore};

use crate::mm::MakeRoom;
use crate::process::process::Process;
use crate::process::send;
use crate::process::signal::{Origin, Signal, SignalInfo};

/// The most messages of a queue, and bytes of a message, that an unprivileged program may ask for; and what it gets for not asking.
pub const MOST_MESSAGES: usize = 10;
/// See [`MOST_MESSAGES`].
pub const LONGEST_MESSAGE: usize = 8192;
/// The most queues, for those without privilege.
pub const MOST_QUEUES: usize = 256;
/// Priorities are below this: MQ_PRIO_MAX.
pub const PRIORITIES: u32 = 32_768;
/// What a privileged program may ask for.
const MOST_MESSAGES_AT_ALL: usize = 65_536;
/// See [`MOST_MESSAGES_AT_ALL`].
const LONGEST_MESSAGE_AT_ALL: usize = 16 << 20;
/// What Linux counts for the place of a message, and for a priority.
const PLACE_COST: u64 = 48;
/// `si_code` of a notification: SI_MESGQ.
const SI_MESGQ: i32 = -3;

/// A message.
#[derive(PartialEq, Eq, Debug)]
pub struct Message {
    /// Higher ones go first.
    pub priority: u32,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// How much a queue holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// The most messages.
    pub messages: usize,
    /// The most bytes of each.
    pub bytes: usize,
}

/// Whom the first message into the empty queue is told.
pub struct Notice {
    /// The process.
    pub owner: Weak<Process>,
    /// Its number.
    pub pid: i32,
    /// By this signal, with this value; or nobody is told, and the place is taken.
    pub signal: Option<(Signal, u64)>,
    /// Which open file it was asked for by: it goes with that.
    pub file: usize,
}

struct State {
    /// By priority, the highest in front; the first come first among equals.
    messages: VecDeque<Message>,
    bytes: usize,
    /// How many wait for one: then nobody is told.
    receivers: usize,
    notice: Option<Notice>,
}

/// A queue.
pub struct Queue {
    core: InodeCore,
    capacity: Capacity,
    /// Given back with the queue.
    _charge: Charge,
    state: SpinLock<State>,
    readable: WaitQueue,
    writable: WaitQueue,
    changed: WaitQueue,
}

/// What a queue counts for against its maker's limit; dropping it gives it back.
struct Charge {
    user: u32,
    bytes: u64,
}

/// What is charged to each user, and how many queues there are.
static CHARGED: SpinLock<BTreeMap<u32, u64>> = SpinLock::new(BTreeMap::new());

impl Charge {
    fn new(user: u32, capacity: Capacity, limit: u64) -> Result<Charge> {
        let (messages, bytes) = (capacity.messages as u64, capacity.bytes as u64);
        let places = (messages + messages.min(PRIORITIES.into())) * PLACE_COST;
        let bytes = messages.checked_mul(bytes).and_then(|all| all.checked_add(places)).ok_or(Errno::EOVERFLOW)?;
        let mut charged = CHARGED.lock();
        let before = charged.get(&user).copied().unwrap_or(0);
        let after = before.checked_add(bytes).filter(|after| *after <= limit).ok_or(Errno::EMFILE)?;
        charged.insert(user, after);
        Ok(Charge { user, bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut charged = CHARGED.lock();
        if let Some(sum) = charged.get_mut(&self.user) {
            *sum = sum.saturating_sub(self.bytes);
            if *sum == 0 {
                charged.remove(&self.user);
            }
        }
    }
}

impl Capacity {
    /// What a program gets that asks for nothing.
    pub const DEFAULT: Capacity = Capacity { messages: MOST_MESSAGES, bytes: LONGEST_MESSAGE };

    /// What a program has asked for.
    ///
    /// # Errors
    ///
    /// `EINVAL`: nothing, or too much for this caller.
    pub fn new(messages: i64, bytes: i64, credentials: &Credentials) -> Result<Capacity> {
        let is_privileged = credentials.can(Capabilities::SYS_RESOURCE);
        let (most, longest) = match is_privileged {
            true => (MOST_MESSAGES_AT_ALL, LONGEST_MESSAGE_AT_ALL),
            false => (MOST_MESSAGES, LONGEST_MESSAGE),
        };
        let within = |number: i64, most: usize| {
            usize::try_from(number).ok().filter(|number| (1..=most).contains(number)).ok_or(Errno::EINVAL)
        };
        Ok(Capacity { messages: within(messages, most)?, bytes: within(bytes, longest)? })
    }
}

impl Queue {
    fn new(core: InodeCore, capacity: Capacity, charge: Charge) -> Arc<Queue> {
        let state = State { messages: VecDeque::new(), bytes: 0, receivers: 0, notice: None };
        Arc::new(Queue {
            core,
            capacity,
            _charge: charge,
            state: SpinLock::new(state),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
            changed: WaitQueue::new(),
        })
    }

    /// How much it holds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.state.lock().messages.len()
    }

    /// Where those wait who want a message.
    pub fn readable(&self) -> &WaitQueue {
        &self.readable
    }

    /// Where those wait who want room.
    pub fn writable(&self) -> &WaitQueue {
        &self.writable
    }

    /// Puts the message into the queue, if there is room for it; else it stays where it is. False: there is none.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn try_send(&self, message: &mut Option<Message>, sender: (i32, u32)) -> Result<bool> {
        let (notice, has_room) = {
            let mut state = self.state.lock();
            if state.messages.len() >= self.capacity.messages {
                return Ok(false);
            }
            state.messages.make_room(1)?;
            let Some(message) = message.take() else { return Ok(true) };
            let was_empty = state.messages.is_empty();
            let place = state.messages.partition_point(|other| other.priority >= message.priority);
            state.bytes += message.bytes.len();
            state.messages.insert(place, message);
            let tells = was_empty && state.receivers == 0;
            (if tells { state.notice.take() } else { None }, state.messages.len() < self.capacity.messages)
        };
        self.readable.wake_one();
        if has_room {
            self.writable.wake_one();
        }
        self.changed.wake_all();
        if let Some(notice) = notice {
            notice.tell(sender);
        }
        Ok(true)
    }

    /// The message of the highest priority, if there is one.
    pub fn try_receive(&self) -> Option<Message> {
        let (message, is_more) = {
            let mut state = self.state.lock();
            let message = state.messages.pop_front()?;
            state.bytes -= message.bytes.len();
            (message, !state.messages.is_empty())
        };
        self.writable.wake_one();
        if is_more {
            self.readable.wake_one();
        }
        self.changed.wake_all();
        Some(message)
    }

    /// Says that somebody waits for a message, for as long as the answer is kept.
    pub fn expect(&self) -> Expecting<'_> {
        self.state.lock().receivers += 1;
        Expecting(self)
    }

    /// Has somebody told of the next message into the empty queue: mq_notify(3).
    ///
    /// # Errors
    ///
    /// `EBUSY`: somebody is to be told already.
    pub fn set_notice(&self, notice: Notice) -> Result<()> {
        let mut state = self.state.lock();
        if state.notice.as_ref().is_some_and(|old| old.is_alive()) {
            return Err(Errno::EBUSY);
        }
        state.notice = Some(notice);
        Ok(())
    }

    /// Takes back what this process has asked for.
    pub fn remove_notice(&self, pid: i32) {
        self.forget_notice(|notice| notice.pid == pid);
    }

    fn forget_notice(&self, is_meant: impl Fn(&Notice) -> bool) {
        let mut state = self.state.lock();
        if state.notice.as_ref().is_some_and(is_meant) {
            state.notice = None;
        }
    }
}

/// Somebody waits for a message.
pub struct Expecting<'a>(&'a Queue);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().receivers -= 1;
    }
}

impl Notice {
    /// Whether there is still somebody to be told.
    fn is_alive(&self) -> bool {
        self.owner.upgrade().is_some_and(|owner| owner.exit_status.lock().is_none())
    }

    fn tell(self, (pid, uid): (i32, u32)) {
        let (Some(owner), Some((signal, value))) = (self.owner.upgrade(), self.signal) else { return };
        let mut payload = [0; 32];
        payload[..4].copy_from_slice(&pid.to_le_bytes());
        payload[4..8].copy_from_slice(&uid.to_le_bytes());
        payload[8..16].copy_from_slice(&value.to_le_bytes());
        // One whose queue of signals is full misses it, as on Linux.
        let _ = send::to_process(&owner, SignalInfo { signal, origin: Origin::Queued { code: SI_MESGQ, payload } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_have_is_counted_and_given_back() {
        const USER: u32 = 77_001;
        let one = Capacity { messages: 10, bytes: 100 };
        let charge = || Charge::new(USER, one, 2 * (1000 + 20 * PLACE_COST));
        let (first, second) = (charge(), charge());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(charge().err(), Some(Errno::EMFILE));
        drop(first);
        assert!(charge().is_ok());
        drop(second);
        assert!(!CHARGED.lock().contains_key(&USER));
    }
}
