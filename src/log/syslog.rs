//! syslog(2): the log as one reader consumes it, as dmesg(1) shows it, and what of it is printed.
//!
//! Next: `src/tty/mod.rs`.

use core::fmt::Write;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use executor::sync::SpinLock;
use fs::{Sink, Stop};

use super::records::{Record, TEXT_MAX};
use super::{CONSOLE_LEVEL, DEFAULT_CONSOLE_LEVEL, Line, RECORDS, Stamp, set_console_level};
use crate::tty::{Errno, Result};

/// The actions, by syslog(2)'s numbers.
const READ: i32 = 2;
const READ_ALL: i32 = 3;
const READ_CLEAR: i32 = 4;
const CLEAR: i32 = 5;
const CONSOLE_OFF: i32 = 6;
const CONSOLE_ON: i32 = 7;
const CONSOLE_SET_LEVEL: i32 = 8;
const SIZE_UNREAD: i32 = 9;
const SIZE_BUFFER: i32 = 10;

/// Records before this one are not shown by READ_ALL: they were cleared.
static CLEARED: AtomicU64 = AtomicU64::new(0);
/// Where the one consuming reader is.
static CONSUMED: SpinLock<Place> = SpinLock::new(Place { sequence: 0, offset: 0 });
/// The console's level while the console is off; `u8::MAX` while it is on.
static SAVED_LEVEL: AtomicU8 = AtomicU8::new(u8::MAX);

/// A place in the log: a record, and how many bytes of its text were taken.
struct Place {
    sequence: u64,
    offset: usize,
}

/// The first record that was not cleared.
pub(super) fn cleared() -> u64 {
    // Relaxed: a number by itself.
    CLEARED.load(Ordering::Relaxed)
}

/// Whether an action is for administrators (CAP_SYSLOG) only: all but reading everything and asking for the size.
pub fn needs_privilege(action: i32) -> bool {
    !matches!(action, READ_ALL | SIZE_BUFFER)
}

/// Carries out an action; `sink` is the caller's buffer of `len` bytes.
///
/// # Errors
///
/// `EINVAL`: no such action, no buffer where one is needed, or no such level. [`Stop::WouldBlock`]: READ found nothing; wait on
/// [`super::wait_queue`]. [`Stop::Fault`].
pub fn syslog(action: i32, len: i32, sink: Option<&mut dyn Sink>) -> Result<usize, Stop> {
    match action {
        0 | 1 => Ok(0),
        READ | READ_ALL | READ_CLEAR => {
            let sink = sink.filter(|_| len >= 0).ok_or(Errno::EINVAL)?;
            if len == 0 {
                return Ok(0);
            }
            if action == READ {
                return consume(sink);
            }
            let (taken, end) = show_all(sink)?;
            if action == READ_CLEAR {
                CLEARED.store(end, Ordering::Relaxed);
            }
            Ok(taken)
        }
        CLEAR => {
            CLEARED.store(RECORDS.end(), Ordering::Relaxed);
            Ok(0)
        }
        CONSOLE_OFF => {
            if SAVED_LEVEL.load(Ordering::Relaxed) == u8::MAX {
                SAVED_LEVEL.store(set_console_level(1), Ordering::Relaxed);
            }
            Ok(0)
        }
        CONSOLE_ON => {
            let saved = SAVED_LEVEL.swap(u8::MAX, Ordering::Relaxed);
            if saved != u8::MAX {
                set_console_level(saved);
            }
            Ok(0)
        }
        CONSOLE_SET_LEVEL => match u8::try_from(len) {
            Ok(level @ 1..=8) => {
                SAVED_LEVEL.store(u8::MAX, Ordering::Relaxed);
                set_console_level(level);
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        },
        SIZE_UNREAD => Ok(unread()),
        SIZE_BUFFER => Ok(256 * TEXT_MAX),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The levels of /proc/sys/kernel/printk: console, default for messages, minimum, default for the console.
pub fn levels() -> [u8; 4] {
    [CONSOLE_LEVEL.load(Ordering::Relaxed), 4, 1, DEFAULT_CONSOLE_LEVEL]
}

/// A record as `<priority>[ time] text\n`, each line of the text by itself.
struct Shown {
    prefix: Line,
    record: Record,
}

impl Shown {
    fn new() -> Shown {
        Shown { prefix: Line::new(), record: Record::new() }
    }

    /// Prepares the record that was just read.
    fn prepare(&mut self) {
        self.prefix.len = 0;
        // Writing to a line cannot fail.
        let _ = write!(self.prefix, "<{}>{}", self.record.priority, Stamp(self.record.time));
    }

    fn len(&self) -> usize {
        self.lines().map(|line| self.prefix.bytes().len() + line.len() + 1).sum()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.record.text().split(|byte| *byte == b'\n')
    }

    /// Copies out bytes from `offset` on, as far as there is room; returns how many.
    fn put(&self, sink: &mut dyn Sink, offset: usize) -> usize {
        let (mut skip, mut put) = (offset, 0);
        for part in self.lines().flat_map(|line| [self.prefix.bytes(), line, b"\n"]) {
            let wanted = part.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(part.len());
            let wanted = &wanted[..wanted.len().min(sink.remaining())];
            let taken = sink.put(wanted);
            put += taken;
            if taken < wanted.len() {
                break;
            }
        }
        put
    }
}

/// READ: takes what the consuming reader has not taken yet.
fn consume(sink: &mut dyn Sink) -> Result<usize, Stop> {
    let mut place = CONSUMED.lock();
    let mut shown = Shown::new();
    let mut taken = 0;
    while sink.remaining() > 0
        && let Some(sequence) = RECORDS.read_from(place.sequence, &mut shown.record)
    {
        if sequence != place.sequence {
            *place = Place { sequence, offset: 0 };
        }
        shown.prepare();
        let put = shown.put(sink, place.offset);
        (taken, place.offset) = (taken + put, place.offset + put);
        if place.offset >= shown.len() {
            *place = Place { sequence: sequence + 1, offset: 0 };
        }
        if put == 0 && sink.faulted() {
            return if taken == 0 { Err(Stop::Fault) } else { Ok(taken) };
        }
    }
    if taken == 0 { Err(Stop::WouldBlock) } else { Ok(taken) }
}

/// READ_ALL: the last whole records that fit; also returns the number behind them.
fn show_all(sink: &mut dyn Sink) -> Result<(usize, u64), Stop> {
    let end = RECORDS.end();
    let mut shown = Shown::new();
    let mut start = end;
    let mut room = sink.remaining();
    for sequence in (cleared().max(RECORDS.first())..end).rev() {
        if RECORDS.read(sequence, &mut shown.record) {
            shown.prepare();
            match room.checked_sub(shown.len()) {
                Some(left) => room = left,
                None => break,
            }
        }
        start = sequence;
    }
    let mut taken = 0;
    for sequence in start..end {
        if RECORDS.read(sequence, &mut shown.record) {
            shown.prepare();
            taken += shown.put(sink, 0);
            if sink.faulted() {
                return Err(Stop::Fault);
            }
        }
    }
    Ok((taken, end))
}

fn unread() -> usize {
    let place = CONSUMED.lock();
    let mut shown = Shown::new();
    let mut bytes = 0;
    for sequence in place.sequence.max(RECORDS.first())..RECORDS.end() {
        if RECORDS.read(sequence, &mut shown.record) {
            shown.prepare();
            bytes += shown.len();
        }
    }
    bytes.saturating_sub(place.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs::buffer::SliceSink;

    fn shown(text: &[u8]) -> Shown {
        let records = Box::new(crate::log::records::Records::new());
        records.append(6, 1_500_000_000, text);
        let mut shown = Shown::new();
        assert!(records.read(0, &mut shown.record));
        shown.prepare();
        shown
    }

    #[test]
    fn each_line_of_a_record_has_priority_and_time() {
        let shown = shown(b"one\ntwo");
        let mut bytes = [0; 100];
        let mut sink = SliceSink::new(&mut bytes);
        let len = shown.put(&mut sink, 0);
        assert_eq!(len, shown.len());
        assert_eq!(&bytes[..len], b"<6>[    1.500000] one\n<6>[    1.500000] two\n");
    }

    #[test]
    fn a_record_can_be_taken_in_parts() {
        let shown = shown(b"hello");
        let mut whole = Vec::new();
        while whole.len() < shown.len() {
            let mut bytes = [0; 7];
            let mut sink = SliceSink::new(&mut bytes);
            let len = shown.put(&mut sink, whole.len());
            whole.extend_from_slice(&bytes[..len]);
        }
        assert_eq!(whole, b"<6>[    1.500000] hello\n");
    }

    #[test]
    fn reading_all_gives_the_last_whole_records() {
        crate::log::append(6, b"syslog test, first");
        crate::log::append(6, b"syslog test, last");
        let mut bytes = vec![0; 100_000];
        let len = syslog(READ_ALL, 100_000, Some(&mut SliceSink::new(&mut bytes))).expect("a buffer");
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert!(text.contains("] syslog test, first\n<6>") && text.contains("] syslog test, last\n"));
        let mut small = [0; 60];
        let len = syslog(READ_ALL, 60, Some(&mut SliceSink::new(&mut small))).expect("a buffer");
        assert!(len == 0 || small.starts_with(b"<"));
    }

    #[test]
    fn senseless_actions_are_refused() {
        assert_eq!(syslog(11, 0, None), Err(Stop::Errno(Errno::EINVAL)));
        assert_eq!(syslog(READ_ALL, 5, None), Err(Stop::Errno(Errno::EINVAL)));
        assert_eq!(syslog(CONSOLE_SET_LEVEL, 9, None), Err(Stop::Errno(Errno::EINVAL)));
        assert!(needs_privilege(CLEAR) && !needs_privilege(READ_ALL));
    }
}
