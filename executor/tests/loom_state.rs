//! The state word under every interleaving: no wake is lost, no task is queued twice, the last reference is dropped once.

mod explore;

use executor::testing::{State, StateWake, Suspend};
use explore::{Arc, AtomicBool, AtomicUsize, Ordering, model, model_in_bounds, thread};

/// A task as the executor sees it: a state, and a queue that counts.
struct Model {
    state: State,
    queued: AtomicUsize,
    /// What the task waits for.
    is_so: AtomicBool,
    /// The task has seen that it is so.
    is_seen: AtomicBool,
    freed: AtomicUsize,
}

impl Model {
    fn new(handles: usize) -> Self {
        Self {
            state: State::new_queued(handles),
            queued: AtomicUsize::new(1),
            is_so: AtomicBool::new(false),
            is_seen: AtomicBool::new(false),
            freed: AtomicUsize::new(0),
        }
    }

    fn push(&self) {
        // Relaxed: the model must rest on the state word's ordering, not on the queue's.
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, 0, "a task stands in one queue at most");
    }

    /// A poll as the executor makes it, if the task is queued. Says whether it was.
    fn poll(&self) -> bool {
        if self.queued.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.state.start();
        if self.is_so.load(Ordering::Relaxed) {
            self.is_seen.store(true, Ordering::Relaxed);
        }
        match self.state.suspend() {
            Suspend::Again => self.push(),
            Suspend::Idle => {}
            Suspend::LastReference => self.free(),
        }
        true
    }

    fn wake(&self) {
        if self.state.wake_by_ref() == StateWake::Enqueue {
            self.push();
        }
    }

    fn wake_and_drop(&self) {
        match self.state.wake_by_value() {
            StateWake::Enqueue => self.push(),
            StateWake::LastReference => self.free(),
            StateWake::Nothing | StateWake::Interrupt => {}
        }
    }

    fn drop_handle(&self) {
        if self.state.drop_reference() {
            self.free();
        }
    }

    fn free(&self) {
        assert_eq!(self.freed.fetch_add(1, Ordering::Relaxed), 0, "freed twice");
    }
}

#[test]
fn a_wake_is_followed_by_a_poll_that_sees_what_it_was_for() {
    model(|| {
        let task = Arc::new(Model::new(1));
        let waker = {
            let task = Arc::clone(&task);
            thread::spawn(move || {
                task.is_so.store(true, Ordering::Relaxed);
                task.wake();
            })
        };
        task.poll();
        task.poll();
        waker.join().unwrap();
        while task.poll() {}
        assert!(task.is_seen.load(Ordering::Relaxed));
    });
}

#[test]
fn two_wakers_and_a_poll_queue_the_task_once() {
    model_in_bounds(|| {
        let task = Arc::new(Model::new(1));
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let task = Arc::clone(&task);
                thread::spawn(move || task.wake())
            })
            .collect();
        task.poll();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        while task.poll() {}
        assert_eq!(task.queued.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn whoever_lets_go_last_frees_the_task_and_nobody_else() {
    model_in_bounds(|| {
        // Two handles: one wakes and goes, the other just goes, while the task is polled.
        let task = Arc::new(Model::new(2));
        let threads = [
            {
                let task = Arc::clone(&task);
                thread::spawn(move || task.wake_and_drop())
            },
            {
                let task = Arc::clone(&task);
                thread::spawn(move || task.drop_handle())
            },
        ];
        task.poll();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        while task.freed.load(Ordering::Relaxed) == 0 {
            assert!(task.poll(), "nobody has it, and it was not freed");
        }
    });
}

#[test]
fn a_notification_that_is_taken_back_is_not_lost() {
    model(|| {
        let task = Arc::new(Model::new(1));
        let waker = {
            let task = Arc::clone(&task);
            thread::spawn(move || {
                task.is_so.store(true, Ordering::Relaxed);
                task.wake();
            })
        };
        // As a thread does that was told to leave user mode: take note, then look.
        assert_eq!(task.queued.swap(0, Ordering::Relaxed), 1);
        task.state.start();
        task.state.clear_notified();
        let mut is_seen = task.is_so.load(Ordering::Relaxed);
        match task.state.suspend() {
            Suspend::Again => task.push(),
            Suspend::Idle => {}
            Suspend::LastReference => unreachable!("there is a handle"),
        }
        waker.join().unwrap();
        while task.poll() {}
        is_seen |= task.is_seen.load(Ordering::Relaxed);
        assert!(is_seen);
    });
}
