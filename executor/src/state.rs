//! The state word of a task: where it is in its life, and how many hold on to it, in one atomic.
//!
//! ```text
//!                    wake()                          start()
//!        IDLE ───────────────────────► QUEUED ───────────────────────► RUNNING
//!         ▲                              ▲                              │ │ │
//!         │                              │          wake()              │ │ │
//!         │                              │    ┌─────────────────────────┘ │ │
//!         │                              │    ▼                           │ │
//!         │                              └─ RUNNING|NOTIFIED              │ │ suspend()
//!         │                     suspend()       │                         │ │
//!         └─────────────────────────────────────┼─────────────────────────┼─┘
//!                                               │      complete()         │
//!                                               └──────────► DONE ◄───────┘
//! ```
//!
//! QUEUED and NOTIFIED are one bit: "this task has to be polled again". Beside RUNNING it means that the poll now under way
//! came too early and is to be repeated; without RUNNING it means that the task stands in exactly one queue. Who turns the
//! bit on while the task is IDLE, and nobody else, puts it into a queue: so a push finds the task in no queue, needs no
//! memory, and cannot fail.
//!
//! The references are counted in the same word, because most steps change both: a wake that consumes its waker hands the
//! waker's reference to the queue, a poll that returns Pending gives the queue's reference back. The model in
//! `tests/loom_state.rs` explores every interleaving of these steps. next: task.rs.
//!
//! Exercise: why may `wake_by_ref` not return early, without a read-modify-write, when it sees QUEUED already set?

use core::fmt;

use crate::atomic::{AtomicUsize, Ordering};

/// The task has to be polled: it stands in a queue or, beside RUNNING, was woken while it ran.
const QUEUED: usize = 1;
/// The same bit, by the name that it has beside RUNNING.
const NOTIFIED: usize = QUEUED;
/// Some CPU is polling the task.
const RUNNING: usize = 2;
/// The future has finished and is gone.
const DONE: usize = 4;
/// One reference.
const REFERENCE: usize = 8;

/// Where a task is in its life, and the count of its references.
pub struct State(AtomicUsize);

/// What a wake asks of its caller.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Wake {
    /// The task was idle: put it into a queue, together with one reference that is now the queue's.
    Enqueue,
    /// It is being polled, and will be polled again: if it is in user mode, it is to come back.
    Interrupt,
    /// It is queued, or done, or will be polled again anyway: there is nothing to do.
    Nothing,
    /// There is nothing to do, but the waker that was consumed was the last reference.
    LastReference,
}

/// What the end of a poll asks of its caller.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Suspend {
    /// The task waits; the queue's reference has been given back.
    Idle,
    /// The task was woken while it ran: put it into a queue again. The reference stays the queue's.
    Again,
    /// The task waits, and nobody is left who could wake it.
    LastReference,
}

impl State {
    /// A task as it is born: on its way into a queue, with the queue's reference and `handles` more.
    #[must_use]
    pub fn new_queued(handles: usize) -> Self {
        Self(AtomicUsize::new(QUEUED + REFERENCE * (1 + handles)))
    }

    /// Marks the task as to be polled; a reference for the queue is added where one is needed.
    #[inline]
    pub fn wake_by_ref(&self) -> Wake {
        self.update(|old| match old & (QUEUED | RUNNING | DONE) {
            0 => (old + QUEUED + REFERENCE, Wake::Enqueue),
            RUNNING => (old | NOTIFIED, Wake::Interrupt),
            _ => (old, Wake::Nothing),
        })
    }

    /// Marks the task as to be polled, and consumes one reference: it becomes the queue's, or goes.
    #[inline]
    pub fn wake_by_value(&self) -> Wake {
        self.update(|old| {
            match old & (QUEUED | RUNNING | DONE) {
                0 => (old + QUEUED, Wake::Enqueue),
                // Whoever polls it has a reference: this is not the last.
                RUNNING => ((old | NOTIFIED) - REFERENCE, Wake::Interrupt),
                _ if old < 2 * REFERENCE => (old - REFERENCE, Wake::LastReference),
                _ => (old - REFERENCE, Wake::Nothing),
            }
        })
    }

    /// QUEUED → RUNNING. Called by whoever took the task out of its queue.
    #[inline]
    pub fn start(&self) {
        // Acquire: pairs with the Release of every wake that led to this poll, so that the poll sees what the waker saw.
        let old = self.0.fetch_add(RUNNING - QUEUED, Ordering::AcqRel);
        debug_assert_eq!(old & (QUEUED | RUNNING | DONE), QUEUED, "a task was polled that was not queued");
    }

    /// The poll returned Pending: RUNNING → IDLE, or → QUEUED if a wake came in the meantime.
    #[inline]
    pub fn suspend(&self) -> Suspend {
        self.update(|old| {
            if old & NOTIFIED != 0 {
                return (old - RUNNING, Suspend::Again);
            }
            let new = old - RUNNING - REFERENCE;
            (new, if new < REFERENCE { Suspend::LastReference } else { Suspend::Idle })
        })
    }

    /// The poll returned Ready, and the future has been dropped: → DONE. True if the queue's reference was the last one.
    #[inline]
    pub fn complete(&self) -> bool {
        self.update(|old| {
            let new = (old & !(RUNNING | NOTIFIED) | DONE) - REFERENCE;
            (new, new < REFERENCE)
        })
    }

    /// One more reference; the caller holds one already.
    #[inline]
    pub fn add_reference(&self) {
        // Relaxed: the new reference is made from one that exists, and publishes nothing.
        self.0.fetch_add(REFERENCE, Ordering::Relaxed);
    }

    /// One more reference, unless there is none left. Says whether there is one.
    pub fn try_add_reference(&self) -> bool {
        self.update(|old| if old < REFERENCE { (old, false) } else { (old + REFERENCE, true) })
    }

    /// One reference fewer. True if it was the last: the cell is now the caller's alone.
    #[inline]
    pub fn drop_reference(&self) -> bool {
        // AcqRel: whoever drops the last reference must see everything that the others did with theirs.
        let old = self.0.fetch_sub(REFERENCE, Ordering::AcqRel);
        debug_assert!(old >= REFERENCE, "a reference was dropped that nobody had");
        old < 2 * REFERENCE
    }

    /// Whether the task has to be polled (again).
    #[inline]
    pub fn is_notified(&self) -> bool {
        // SeqCst: one half of the pattern "publish User(task), fence, look here" in cpu.rs.
        self.0.load(Ordering::SeqCst) & NOTIFIED != 0
    }

    /// Takes the notification back: the running task has seen it and looks for its cause itself.
    #[inline]
    pub fn clear_notified(&self) {
        // AcqRel: what the waker did before is seen by what the task does next.
        self.0.fetch_and(!NOTIFIED, Ordering::AcqRel);
    }

    /// Whether the future has finished.
    #[inline]
    pub fn is_done(&self) -> bool {
        // Acquire: pairs with complete(), so that its caller sees what the task left behind.
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    /// Whether some CPU is polling the task at this moment.
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) & RUNNING != 0
    }

    /// Applies `step` as one atomic step. It writes even where the value stays the same: the write is what orders the
    /// waker's own stores before the poll that is already on its way.
    #[inline]
    fn update<R>(&self, step: impl Fn(usize) -> (usize, R)) -> R {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let (new, result) = step(old);
            // AcqRel: a wake is ordered before the poll that it causes (start, clear_notified), a poll before the next.
            match self.0.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return result,
                Err(now) => old = now,
            }
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.load(Ordering::Relaxed);
        const BOTH: usize = RUNNING | NOTIFIED;
        let name = match state & (QUEUED | RUNNING | DONE) {
            0 => "IDLE",
            QUEUED => "QUEUED",
            RUNNING => "RUNNING",
            BOTH => "RUNNING|NOTIFIED",
            _ => "DONE",
        };
        write!(f, "{name}, {} references", state / REFERENCE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_of_an_idle_task_enqueues_it_exactly_once() {
        let state = State::new_queued(1);
        assert_eq!(state.wake_by_ref(), Wake::Nothing, "it is queued from birth");
        state.start();
        assert_eq!(state.suspend(), Suspend::Idle);
        assert_eq!(state.wake_by_ref(), Wake::Enqueue);
        assert_eq!(state.wake_by_ref(), Wake::Nothing);
    }

    #[test]
    fn it_is_shown_by_the_names_of_the_picture() {
        let state = State::new_queued(1);
        assert_eq!(format!("{state:?}"), "QUEUED, 2 references");
        state.start();
        state.wake_by_ref();
        assert_eq!(format!("{state:?}"), "RUNNING|NOTIFIED, 2 references");
    }

    #[test]
    fn a_wake_during_the_poll_repeats_the_poll() {
        let state = State::new_queued(1);
        state.start();
        assert!(!state.is_notified());
        assert_eq!(state.wake_by_ref(), Wake::Interrupt);
        assert_eq!(state.wake_by_ref(), Wake::Nothing, "once is enough");
        assert!(state.is_notified());
        assert_eq!(state.suspend(), Suspend::Again);
        state.start();
        assert!(!state.is_notified());
    }

    #[test]
    fn a_notification_that_the_task_took_back_does_not_repeat_the_poll() {
        let state = State::new_queued(1);
        state.start();
        state.wake_by_ref();
        state.clear_notified();
        assert_eq!(state.suspend(), Suspend::Idle);
    }

    #[test]
    fn the_last_reference_is_reported_by_whoever_drops_it() {
        let by_handle = State::new_queued(1);
        by_handle.start();
        assert!(!by_handle.complete());
        assert!(by_handle.drop_reference());

        let by_end = State::new_queued(0);
        by_end.start();
        assert!(by_end.complete());

        let by_suspend = State::new_queued(0);
        by_suspend.start();
        assert_eq!(by_suspend.suspend(), Suspend::LastReference);

        let by_waker = State::new_queued(1);
        by_waker.start();
        by_waker.complete();
        assert_eq!(by_waker.wake_by_value(), Wake::LastReference);
    }
}
