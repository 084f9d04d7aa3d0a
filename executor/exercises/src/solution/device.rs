//! Solution 4: a slot for each descriptor, with its own story.
//!
//! ```text
//!          read()                    run(): the disk is done             poll
//!   Free ─────────► InFlight { waker } ───────────────► Done(data) ───────────► Free
//!    ▲                 │ drop                              │ drop
//!    │                 ▼                                   │
//!    └─── run() ─── Orphaned        Free ◄─────────────────┘
//! ```
//!
//! The slot of an orphan is freed by the driver's task, and not before: until then the disk may write to its memory.

use crate::world::disk::{DESCRIPTORS, Disk, SECTOR};
use executor::sync::Semaphore;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The driver of a disk.
#[derive(Debug)]
pub struct Driver {
    disk: Arc<Disk>,
    free_slots: Semaphore,
    slots: Mutex<[Slot; DESCRIPTORS]>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    InFlight(Waker),
    Orphaned,
    Done([u8; SECTOR]),
}

impl Driver {
    /// A driver of this disk.
    pub fn new(disk: Arc<Disk>) -> Driver {
        Driver { disk, free_slots: Semaphore::new(DESCRIPTORS), slots: Mutex::default() }
    }

    /// The driver's task. It runs for ever.
    pub async fn run(&self) {
        loop {
            self.disk.interrupt.wait().await;
            for descriptor in self.disk.finished() {
                self.complete(descriptor);
            }
        }
    }

    fn complete(&self, descriptor: usize) {
        let mut slots = self.slots();
        let slot = &mut slots[descriptor];
        match mem::take(slot) {
            Slot::InFlight(waker) => {
                *slot = Slot::Done(self.disk.memory(descriptor));
                drop(slots);
                waker.wake();
            }
            Slot::Orphaned => {
                drop(slots);
                self.free_slots.release(1);
            }
            // The disk has ended what nobody asked for: a real driver gives it up.
            other => *slot = other,
        }
    }

    /// Reads a sector. More reads than there are descriptors wait for one.
    ///
    /// # Cancel safety
    ///
    /// The read may be dropped at any time: its descriptor and memory are kept until the disk is done with them.
    pub async fn read(&self, sector: u64) -> [u8; SECTOR] {
        self.free_slots.acquire(1).await;
        // No await from here to the doorbell, so nothing can be dropped in between.
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let descriptor = {
            let mut slots = self.slots();
            let free = slots.iter().position(|slot| matches!(slot, Slot::Free));
            let free = free.expect("there is a free slot for each permit");
            slots[free] = Slot::InFlight(waker);
            free
        };
        let request = InFlight { driver: self, descriptor };
        self.disk.ring(descriptor, sector);
        request.await
    }

    fn slots(&self) -> MutexGuard<'_, [Slot; DESCRIPTORS]> {
        self.slots.lock().expect("nobody panics in here")
    }
}

/// A request that the disk has. Dropping it orphans the request.
struct InFlight<'d> {
    driver: &'d Driver,
    descriptor: usize,
}

impl Future for InFlight<'_> {
    type Output = [u8; SECTOR];

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<[u8; SECTOR]> {
        let mut slots = self.driver.slots();
        match &mut slots[self.descriptor] {
            // Taken by `drop`, which frees the slot.
            Slot::Done(data) => Poll::Ready(*data),
            Slot::InFlight(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Slot::Free | Slot::Orphaned => unreachable!("a slot in flight is its future's until that is dropped"),
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut slots = self.driver.slots();
        let slot = &mut slots[self.descriptor];
        if let Slot::InFlight(_) = slot {
            *slot = Slot::Orphaned;
            return;
        }
        *slot = Slot::Free;
        drop(slots);
        self.driver.free_slots.release(1);
    }
}
