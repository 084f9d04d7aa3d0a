//! Exercise 4: a driver for `world/disk.rs`.
//!
//! `read` reserves a descriptor, rings the doorbell, and waits; `run` is the driver's task: it awaits the interrupt and ends what the disk
//! has finished. Three things make a driver like this right:
//!
//! - completions are told apart by their descriptor, since they come in any order;
//! - the waker stands where `run` finds it before the doorbell rings, since the disk may be done at once;
//! - a read that is dropped is *orphaned*: its descriptor stays taken, and its memory the disk's, until the disk is done with it.
//!
//! The starting point gives any completion to whoever has waited longest, and frees the descriptor of a dropped read at once.
//!
//! Compare: `drivers/virtio/src/request_queue.rs`. Test: `tests/device.rs`.

use crate::world::disk::{DESCRIPTORS, Disk, SECTOR};
use executor::sync::Semaphore;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The driver of a disk.
#[derive(Debug)]
pub struct Driver {
    disk: Arc<Disk>,
    free_slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_taken: [bool; DESCRIPTORS],
    waiting: VecDeque<Waker>,
    done: VecDeque<[u8; SECTOR]>,
}

impl Driver {
    /// A driver of this disk.
    pub fn new(disk: Arc<Disk>) -> Driver {
        Driver { disk, free_slots: Semaphore::new(DESCRIPTORS), state: Mutex::default() }
    }

    /// The driver's task. It runs for ever.
    pub async fn run(&self) {
        loop {
            self.disk.interrupt.wait().await;
            for descriptor in self.disk.finished() {
                let waker = {
                    let mut state = self.state();
                    state.done.push_back(self.disk.memory(descriptor));
                    state.waiting.pop_front()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// Reads a sector. More reads than there are descriptors wait for one.
    ///
    /// # Cancel safety
    ///
    /// The read may be dropped at any time.
    pub async fn read(&self, sector: u64) -> [u8; SECTOR] {
        self.free_slots.acquire(1).await;
        let descriptor = {
            let mut state = self.state();
            let free = state.is_taken.iter().position(|is_taken| !is_taken);
            let free = free.expect("there is a free descriptor for each permit");
            state.is_taken[free] = true;
            free
        };
        self.disk.ring(descriptor, sector);
        InFlight { driver: self, descriptor }.await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics in here")
    }
}

/// A request that the disk has.
struct InFlight<'d> {
    driver: &'d Driver,
    descriptor: usize,
}

impl Future for InFlight<'_> {
    type Output = [u8; SECTOR];

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<[u8; SECTOR]> {
        let mut state = self.driver.state();
        match state.done.pop_front() {
            Some(data) => Poll::Ready(data),
            None => {
                state.waiting.push_back(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.driver.state().is_taken[self.descriptor] = false;
        self.driver.free_slots.release(1);
    }
}
