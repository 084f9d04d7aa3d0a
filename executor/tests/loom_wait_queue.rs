//! The wait queue under every interleaving: register, then attempt, and no wake is lost, not by one who gives up either.

mod explore;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

use executor::sync::{WaitQueue, wait_until};
use explore::{Arc, AtomicUsize, Ordering, block_on, model, model_in_bounds, thread};

/// Items, and those who wait for them.
struct Shelf {
    items: AtomicUsize,
    filled: WaitQueue,
}

impl Shelf {
    fn new() -> Arc<Self> {
        Arc::new(Self { items: AtomicUsize::new(0), filled: WaitQueue::new() })
    }

    fn put(&self) {
        // Relaxed: the model must rest on the queue's ordering.
        self.items.fetch_add(1, Ordering::Relaxed);
        self.filled.wake_one();
    }

    fn try_take(&self) -> Option<()> {
        let items = self.items.load(Ordering::Relaxed);
        (items > 0 && self.items.compare_exchange(items, items - 1, Ordering::Relaxed, Ordering::Relaxed).is_ok())
            .then_some(())
    }

    async fn take(&self) {
        wait_until(&self.filled, || self.try_take()).await;
    }
}

#[test]
fn a_change_that_races_with_registration_is_seen() {
    model(|| {
        let shelf = Shelf::new();
        let putter = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || shelf.put())
        };
        // A lost wake is a deadlock, which loom reports.
        block_on(shelf.take());
        putter.join().unwrap();
    });
}

#[test]
fn a_waiter_that_gives_up_passes_its_wake_on() {
    model_in_bounds(|| {
        let shelf = Shelf::new();
        let taker = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || block_on(shelf.take()))
        };
        let putter = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || shelf.put())
        };
        let has_taken = {
            let take = pin!(shelf.take());
            take.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        if has_taken {
            // The item is gone: another one, or the taker waits for good reason.
            shelf.put();
        }
        putter.join().unwrap();
        taker.join().unwrap();
    });
}

#[test]
fn one_wake_for_all_reaches_all() {
    model_in_bounds(|| {
        let shelf = Shelf::new();
        let waiter = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                block_on(wait_until(&shelf.filled, || (shelf.items.load(Ordering::Relaxed) == 1).then_some(())))
            })
        };
        let waker = {
            let shelf = Arc::clone(&shelf);
            thread::spawn(move || {
                shelf.items.store(1, Ordering::Relaxed);
                shelf.filled.wake_all();
            })
        };
        block_on(wait_until(&shelf.filled, || (shelf.items.load(Ordering::Relaxed) == 1).then_some(())));
        waiter.join().unwrap();
        waker.join().unwrap();
    });
}
