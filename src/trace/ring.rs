//! The records of one CPU: a ring that the CPU alone writes, its interrupt handlers included, and that anybody may read meanwhile.
//!
//! ```text
//!   push(): take a number ─► slot.number = 0 ─► words ─► slot.number = number + 1
//!   read(): slot.number is the one wanted? ─► words ─► still the same? ─► whole
//! ```
//!
//! No lock: an interrupt handler that comes between any two steps takes the next number, and is done before the interrupted push goes
//! on. A record that is being written, or was overwritten, is told by its slot's number.
//!
//! Next: `file.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use abi::{Errno, Result};

/// The words of a record.
pub const WORDS: usize = 5;

/// The largest ring.
const MOST: usize = 1 << 20;

#[derive(Default)]
struct Slot {
    /// One more than the number of the record in it; 0 while it is written.
    number: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// A ring of records.
pub struct Ring {
    slots: Box<[Slot]>,
    /// How many records were ever pushed.
    pushed: AtomicU64,
    /// The first record that has not been cleared.
    cleared: AtomicU64,
}

impl Ring {
    /// A ring for so many records.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no power of two, or not between 64 and 2²⁰. `ENOMEM`.
    pub fn new(len: usize) -> Result<Ring> {
        if !len.is_power_of_two() || !(64..=MOST).contains(&len) {
            return Err(Errno::EINVAL);
        }
        let mut slots = Vec::new();
        slots.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        slots.resize_with(len, Slot::default);
        Ok(Ring { slots: slots.into_boxed_slice(), pushed: AtomicU64::new(0), cleared: AtomicU64::new(0) })
    }

    /// How many records it keeps.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, number: u64) -> &Slot {
        // The length is a power of two.
        &self.slots[number as usize & (self.slots.len() - 1)]
    }

    /// Adds a record, over the oldest if there is no more room. By the ring's CPU only.
    pub fn push(&self, words: [u64; WORDS]) {
        // One step: an interrupt handler takes another number. Relaxed: the slot's number tells what is complete.
        let number = self.pushed.fetch_add(1, Ordering::Relaxed);
        let slot = self.slot(number);
        slot.number.store(0, Ordering::Relaxed);
        // Release: whoever reads a new word finds the 0, or a later number. Pairs with the Acquire fence in read().
        fence(Ordering::Release);
        for (place, word) in slot.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in read().
        slot.number.store(number + 1, Ordering::Release);
    }

    /// The record of a number, if it is there, whole.
    pub fn read(&self, number: u64) -> Option<[u64; WORDS]> {
        let slot = self.slot(number);
        if slot.number.load(Ordering::Acquire) != number + 1 {
            return None;
        }
        let words = core::array::from_fn(|index| slot.words[index].load(Ordering::Relaxed));
        // Acquire: pairs with the Release fence in push().
        fence(Ordering::Acquire);
        (slot.number.load(Ordering::Relaxed) == number + 1).then_some(words)
    }

    /// The numbers of the records that may be there.
    pub fn numbers(&self) -> Range<u64> {
        let end = self.pushed.load(Ordering::Relaxed);
        let kept = end.saturating_sub(self.slots.len() as u64);
        self.cleared.load(Ordering::Relaxed).max(kept)..end
    }

    /// How many were overwritten since it was cleared.
    pub fn lost(&self) -> u64 {
        self.numbers().start - self.cleared.load(Ordering::Relaxed)
    }

    /// Forgets all records.
    pub fn clear(&self) {
        self.cleared.store(self.pushed.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ring: &Ring) -> Vec<u64> {
        ring.numbers().filter_map(|number| ring.read(number)).map(|words| words[0]).collect()
    }

    #[test]
    fn records_are_kept_in_order_and_the_oldest_are_lost_first_and_counted() {
        let ring = Ring::new(64).expect("memory");
        (0..64).for_each(|word| ring.push([word; WORDS]));
        assert_eq!((all(&ring), ring.lost()), ((0..64).collect(), 0));
        (64..70).for_each(|word| ring.push([word; WORDS]));
        assert_eq!((all(&ring), ring.lost()), ((6..70).collect(), 6));
        assert_eq!(ring.read(5), None, "it was overwritten");
        assert_eq!(ring.read(70), None, "it is still to come");
        ring.clear();
        assert_eq!((all(&ring), ring.lost()), (vec![], 0));
        ring.push([7; WORDS]);
        assert_eq!((all(&ring), ring.lost()), (vec![7], 0));
    }

    #[test]
    fn a_length_that_is_no_power_of_two_or_absurd_is_refused() {
        for len in [0, 1, 32, 65, 100, 1 << 21, usize::MAX] {
            assert_eq!(Ring::new(len).err(), Some(Errno::EINVAL), "{len}");
        }
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_records_only() {
        const RECORDS: u64 = 200_000;
        let ring = Ring::new(64).expect("memory");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..RECORDS).for_each(|word| ring.push([word; WORDS])));
            let mut seen = 0;
            while ring.numbers().end < RECORDS {
                for number in ring.numbers() {
                    if let Some(words) = ring.read(number) {
                        assert_eq!(words, [number; WORDS]);
                        seen += 1;
                    }
                }
            }
            assert!(seen > 0 || ring.numbers().end == RECORDS);
        });
        assert_eq!(all(&ring), (RECORDS - 64..RECORDS).collect::<Vec<_>>());
    }
}
