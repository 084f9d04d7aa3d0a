//! A disk, as a driver sees one: a doorbell, memory that it writes to when it likes, and an interrupt.
//!
//! ```text
//!   driver                              disk
//!   ring(descriptor, sector) ─────────► the request is in flight
//!                                       finish(descriptor): the sector's content → the descriptor's memory
//!                                       interrupt ──► Event::notify
//!   finished() ◄─────────────────────── descriptors that are done, in whatever order
//! ```
//!
//! Requests end in any order: when the test says so, or within the doorbell if the disk is a quick one. A descriptor that is rung for
//! while it is in flight is a bug that real hardware answers with somebody else's data; this one panics.

use executor::sync::Event;
use std::sync::Mutex;

/// How many requests may be in flight.
pub const DESCRIPTORS: usize = 4;
/// Bytes of a sector.
pub const SECTOR: usize = 16;

/// What is in a sector.
pub fn content(sector: u64) -> [u8; SECTOR] {
    std::array::from_fn(|index| (sector as u8).wrapping_mul(31).wrapping_add(index as u8))
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// What its interrupt notifies.
    pub interrupt: Event,
    state: Mutex<State>,
    is_quick: bool,
}

#[derive(Debug, Default)]
struct State {
    /// For each descriptor the sector that is being read.
    in_flight: [Option<u64>; DESCRIPTORS],
    finished: Vec<usize>,
    /// For each descriptor the memory that the disk writes to.
    memory: [[u8; SECTOR]; DESCRIPTORS],
}

impl Disk {
    /// A disk that ends requests when it is told to.
    pub fn new() -> Disk {
        Disk { interrupt: Event::new(), state: Mutex::default(), is_quick: false }
    }

    /// A disk that is done with a request, and has interrupted, before the doorbell's call returns.
    pub fn quick() -> Disk {
        Disk { is_quick: true, ..Disk::new() }
    }

    /// The driver's doorbell: reads `sector` into the memory of `descriptor`.
    ///
    /// # Panics
    ///
    /// If a request with this descriptor is in flight.
    pub fn ring(&self, descriptor: usize, sector: u64) {
        self.with(|state| {
            let former = state.in_flight[descriptor].replace(sector);
            assert_eq!(former, None, "descriptor {descriptor} is in flight");
        });
        if self.is_quick {
            self.finish(descriptor);
        }
    }

    /// The driver takes the descriptors that are done.
    pub fn finished(&self) -> Vec<usize> {
        self.with(|state| std::mem::take(&mut state.finished))
    }

    /// The driver looks at a descriptor's memory.
    pub fn memory(&self, descriptor: usize) -> [u8; SECTOR] {
        self.with(|state| state.memory[descriptor])
    }

    /// The test has the disk end a request: it writes, and interrupts.
    ///
    /// # Panics
    ///
    /// If no request with this descriptor is in flight.
    pub fn finish(&self, descriptor: usize) {
        self.with(|state| {
            let sector = state.in_flight[descriptor].take().expect("a request that is in flight");
            state.memory[descriptor] = content(sector);
            state.finished.push(descriptor);
        });
        self.interrupt.notify();
    }

    /// The test asks which descriptor reads a sector.
    pub fn descriptor_of(&self, sector: u64) -> Option<usize> {
        self.with(|state| state.in_flight.iter().position(|reads| *reads == Some(sector)))
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::new()
    }
}
