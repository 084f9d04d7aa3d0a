//! Those who wait for room in a queue, or for a message: what they want, what they have got, and how they leave.
//!
//! Next: `syscall/messages.rs`.

use alloc::sync::Arc;

use abi::Result;
use executor::sync::{SpinLock, WaitQueue};
use fs::Credentials;

use super::{Message, Queue, Wanted};
use crate::mm::MakeRoom;
use crate::process::RunningThread;

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Room for so many bytes.
    Send(usize),
    /// A message.
    Receive(Wanted),
}

/// What goes from one to the other: written under the queue's lock.
#[derive(Default)]
struct Slot {
    /// A sender's until it is sent, a receiver's from when it is received.
    message: Option<Message>,
    outcome: Option<Result<()>>,
}

/// Somebody who waits.
pub(super) struct Pending {
    wish: Wish,
    pub(super) credentials: Arc<Credentials>,
    pub(super) pid: i32,
    slot: SpinLock<Slot>,
    /// It alone waits here.
    pub(super) queue: WaitQueue,
}

impl Pending {
    pub(super) fn new(wish: Wish, thread: &RunningThread) -> Arc<Pending> {
        // Small, and bounded by the number of threads, which the gate has admitted.
        Arc::new(Pending {
            wish,
            credentials: thread.credentials.clone(),
            pid: thread.process.pid,
            slot: SpinLock::new(Slot::default()),
            queue: WaitQueue::new(),
        })
    }

    /// What a receiver wants.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        match self.wish {
            Wish::Receive(wanted) => Some(wanted),
            Wish::Send(_) => None,
        }
    }

    /// How long a sender's message is.
    pub(super) fn len(&self) -> usize {
        match self.wish {
            Wish::Send(len) => len,
            Wish::Receive(_) => 0,
        }
    }

    /// Puts a message into its hands.
    pub(super) fn bring(&self, message: Message) {
        self.slot.lock().message = Some(message);
    }

    /// Takes its message.
    pub(super) fn take(&self) -> Option<Message> {
        self.slot.lock().message.take()
    }

    /// Says what has become of its wait.
    pub(super) fn settle(&self, outcome: Result<()>) {
        self.slot.lock().outcome = Some(outcome);
    }

    /// What has become of it, with what it received. Asked once by the one who waits.
    pub(super) fn outcome(&self) -> Option<Result<Option<Message>>> {
        let mut slot = self.slot.lock();
        let outcome = slot.outcome?;
        Some(outcome.map(|()| slot.message.take()))
    }
}

/// A place in a line; it is given up when the wait ends, however it ends.
pub(super) struct Place<'a> {
    queue: &'a Queue,
    pending: &'a Arc<Pending>,
}

impl<'a> Place<'a> {
    pub(super) fn new(queue: &'a Queue, pending: &'a Arc<Pending>) -> Place<'a> {
        Place { queue, pending }
    }

    /// Leaves the line; answers the outcome if there is one.
    pub(super) fn leave(&self) -> Option<Result<Option<Message>>> {
        let mut state = self.queue.state.lock();
        let outcome = self.pending.outcome();
        if outcome.is_none() {
            let is_other = |other: &Arc<Pending>| !Arc::ptr_eq(other, self.pending);
            match self.pending.wish {
                Wish::Send(_) => state.senders.retain(is_other),
                Wish::Receive(_) => state.receivers.retain(is_other),
            }
        }
        outcome
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Somebody handed a message over, and nobody has heard of it: it is the next one's.
        if let Some(Ok(Some(message))) = self.leave() {
            // A queue that has been removed wants it no more; without memory for it, it goes the way of its receiver.
            let _ = self.queue.change(|state| {
                state.messages.make_room(1)?;
                state.offer(message, true);
                Ok(())
            });
        }
    }
}
