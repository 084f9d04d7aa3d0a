//! The ring of log records: written from anywhere, interrupts and panics included, without a lock.
//!
//! A record's sequence number says which slot it lies in. A slot's state says whose it is: odd while record N is being written,
//! even when it is there. A reader copies and then looks whether the state is still the same, so it never sees half a record:
//!
//! ```text
//!   writer of N                               reader of N
//!   state ← 2N+1   (claims the slot)          first ← state          Acquire
//!   fence Release                             copies the words       Relaxed
//!   writes the words             Relaxed      fence Acquire
//!   state ← 2N+2                 Release      state = first = 2N+2?  then the copy is whole
//! ```
//!
//! If any copied word is from a later writer, the fences make that writer's odd state visible to the second look.
//!
//! Next: `kmsg.rs`. Exercise: what would a reader see if the writer left out its first fence?

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// How many records are kept.
const SLOTS: usize = 256;
/// Words of a slot: state, time, priority and length, then text.
const WORDS: usize = 64;
const HEADER: usize = 3;

/// The most bytes of a record's text; a longer message becomes several records.
pub const TEXT_MAX: usize = (WORDS - HEADER) * 8;

/// A ring of records.
pub struct Records {
    slots: [[AtomicU64; WORDS]; SLOTS],
    /// The sequence number of the next record.
    next: AtomicU64,
}

/// A copy of a record.
pub struct Record {
    /// Its number, counted from 0 at boot.
    pub sequence: u64,
    /// When: nanoseconds since boot.
    pub time: u64,
    /// Facility × 8 + level, as syslog(3).
    pub priority: u16,
    text: [u8; TEXT_MAX],
    len: usize,
}

impl Record {
    /// An empty one, to be filled by [`Records::read`].
    pub const fn new() -> Record {
        Record { sequence: 0, time: 0, priority: 0, text: [0; TEXT_MAX], len: 0 }
    }

    /// Its text: bytes, not necessarily UTF-8.
    pub fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

impl Records {
    /// An empty ring: 128 KiB, meant for a static.
    #[allow(
        clippy::large_stack_frames,
        clippy::new_without_default,
        reason = "evaluated by the compiler, for a static"
    )]
    pub const fn new() -> Records {
        Records { slots: [const { [const { AtomicU64::new(0) }; WORDS] }; SLOTS], next: AtomicU64::new(0) }
    }

    /// The number that the next record will have.
    pub fn end(&self) -> u64 {
        // Acquire: pairs with nothing stronger than the slots' own states, which are checked again.
        self.next.load(Ordering::Acquire)
    }

    /// The number of the oldest record that is still there.
    pub fn first(&self) -> u64 {
        self.end().saturating_sub(SLOTS as u64)
    }

    /// Appends a message, as several records if it is long.
    pub fn append(&self, priority: u16, time: u64, text: &[u8]) {
        if text.is_empty() {
            self.append_one(priority, time, text);
        }
        for part in text.chunks(TEXT_MAX) {
            self.append_one(priority, time, part);
        }
    }

    fn append_one(&self, priority: u16, time: u64, text: &[u8]) {
        // Relaxed: hands out numbers, orders nothing.
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[(sequence % SLOTS as u64) as usize];
        let (writing, written) = (2 * sequence + 1, 2 * sequence + 2);
        let old = slot[0].load(Ordering::Relaxed);
        // A writer that was overtaken by a whole round is still at work here, or we were: this record is lost, readers skip it.
        let is_free = old.is_multiple_of(2) && old < writing;
        if !is_free || slot[0].compare_exchange(old, writing, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        // Pairs with the Acquire fence in read(): who sees a word of ours sees our claim too.
        fence(Ordering::Release);
        slot[1].store(time, Ordering::Relaxed);
        slot[2].store(u64::from(priority) << 16 | text.len() as u64, Ordering::Relaxed);
        for (word, bytes) in slot[HEADER..].iter().zip(text.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        }
        // Pairs with the Acquire load in read().
        slot[0].store(written, Ordering::Release);
    }

    /// Copies a record; `false` if it is not there: overwritten, lost, or not written yet.
    pub fn read(&self, sequence: u64, into: &mut Record) -> bool {
        let slot = &self.slots[(sequence % SLOTS as u64) as usize];
        let written = 2 * sequence + 2;
        // Acquire: pairs with the Release store in append_one().
        if slot[0].load(Ordering::Acquire) != written {
            return false;
        }
        let sizes = slot[2].load(Ordering::Relaxed);
        (into.sequence, into.time) = (sequence, slot[1].load(Ordering::Relaxed));
        (into.priority, into.len) = ((sizes >> 16) as u16, ((sizes & 0xffff) as usize).min(TEXT_MAX));
        for (word, bytes) in slot[HEADER..].iter().zip(into.text[..into.len].chunks_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..bytes.len()]);
        }
        // Pairs with the Release fence in append_one().
        fence(Ordering::Acquire);
        slot[0].load(Ordering::Relaxed) == written
    }

    /// Copies the first record from `sequence` on that is there; `None` if there is none. Lost records are passed over.
    pub fn read_from(&self, sequence: u64, into: &mut Record) -> Option<u64> {
        (sequence.max(self.first())..self.end()).find(|sequence| self.read(*sequence, into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let records = Box::new(Records::new());
        records.append(6, 1000, b"hello");
        let mut record = Record::new();
        assert!(records.read(0, &mut record));
        assert_eq!((record.sequence, record.time, record.priority, record.text()), (0, 1000, 6, &b"hello"[..]));
        assert!(!records.read(1, &mut record));
    }

    #[test]
    fn a_long_message_becomes_several_records() {
        let records = Box::new(Records::new());
        records.append(6, 0, &[b'x'; TEXT_MAX + 1]);
        let mut record = Record::new();
        assert!(records.read(0, &mut record) && record.text().len() == TEXT_MAX);
        assert!(records.read(1, &mut record) && record.text() == b"x");
    }

    #[test]
    fn old_records_make_room_for_new_ones() {
        let records = Box::new(Records::new());
        for number in 0..SLOTS as u64 + 3 {
            records.append(6, number, b"x");
        }
        let mut record = Record::new();
        assert!(!records.read(2, &mut record));
        assert_eq!(records.first(), 3);
        assert_eq!(records.read_from(0, &mut record), Some(3));
        assert_eq!(record.time, 3);
    }

    #[test]
    fn readers_never_see_half_a_record() {
        let records = Arc::new(Records::new());
        let is_over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..2u8)
            .map(|number| {
                let records = records.clone();
                std::thread::spawn(move || {
                    for round in 0..20_000u64 {
                        let letter = b'a' + number * 13 + (round % 13) as u8;
                        records.append(
                            u16::from(letter),
                            u64::from(letter),
                            &[letter; 200][..50 + usize::from(letter)],
                        );
                    }
                })
            })
            .collect();
        let reader = {
            let (records, is_over) = (records.clone(), is_over.clone());
            std::thread::spawn(move || {
                let (mut record, mut seen) = (Record::new(), 0);
                while !is_over.load(Ordering::Relaxed) {
                    let sequence = records.end().saturating_sub(SLOTS as u64 - 2);
                    if records.read(sequence, &mut record) {
                        let letter = record.time as u8;
                        assert_eq!(record.priority, u16::from(letter));
                        assert_eq!(record.text().len(), 50 + usize::from(letter));
                        assert!(record.text().iter().all(|byte| *byte == letter), "torn record");
                        seen += 1;
                    }
                }
                seen
            })
        };
        writers.into_iter().for_each(|writer| writer.join().expect("a writer does not panic"));
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("no record is torn") > 0);
    }
}
