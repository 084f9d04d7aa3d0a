//! /dev/kmsg: the log as a file, one record a read (Linux's Documentation/ABI/testing/dev-kmsg).
//!
//! A read gives `priority,sequence,microseconds,-;text\n`; bytes that are not plain ASCII come as `\xNN`. A write adds a record,
//! with `<priority>` in front if it likes.
//!
//! Next: `syslog.rs`.

use alloc::string::String;
use core::any::Any;
use core::fmt::{self, Write};

use abi::general::{SEEK_DATA, SEEK_END, SEEK_SET};
use executor::sync::{SpinLock, WaitQueue};
use fs::{FileOps, OpenFlags, PollEvents, Sink, Source, Stop};

use super::records::{Record, TEXT_MAX};
use super::{READERS, RECORDS};
use crate::tty::{Errno, Result};

/// A written line may be this long.
const WRITE_MAX: usize = 1024 - 32;
/// The facility of messages from user space: LOG_USER.
const USER: u16 = 1;
/// The level of messages that name none.
const DEFAULT_LEVEL: u16 = 4;

/// An open /dev/kmsg: it has a place in the log, and may write.
pub struct KmsgFile {
    /// The number of the record that is read next.
    next: SpinLock<u64>,
}

impl KmsgFile {
    /// Opened at the oldest record.
    pub fn open() -> KmsgFile {
        KmsgFile { next: SpinLock::new(RECORDS.first()) }
    }
}

impl FileOps for KmsgFile {
    /// One record. `EPIPE`: the next one was overwritten; the read after this goes on with the oldest. `EINVAL`: too little room.
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let mut next = self.next.lock();
        if *next < RECORDS.first() {
            *next = RECORDS.first();
            return Err(Errno::EPIPE.into());
        }
        let mut record = Record::new();
        let sequence = RECORDS.read_from(*next, &mut record).ok_or(Stop::WouldBlock)?;
        let mut line = KmsgLine { bytes: [0; KmsgLine::SIZE], len: 0 };
        line.format(&record).map_err(|_| Errno::EINVAL)?;
        if sink.remaining() < line.len {
            return Err(Errno::EINVAL.into());
        }
        if sink.put(&line.bytes[..line.len]) < line.len {
            return Err(Stop::Fault);
        }
        *next = sequence + 1;
        Ok(line.len)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let len = source.remaining();
        if len > WRITE_MAX {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = [0; WRITE_MAX];
        if source.take(&mut bytes[..len]) < len {
            return Err(Stop::Fault);
        }
        let (priority, text) = split_priority(&bytes[..len]);
        super::append(priority, text);
        Ok(len)
    }

    fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if offset != 0 {
            return Err(Errno::ESPIPE);
        }
        let place = match whence {
            SEEK_SET => RECORDS.first(),
            SEEK_DATA => super::syslog::cleared().max(RECORDS.first()),
            SEEK_END => RECORDS.end(),
            _ => return Err(Errno::EINVAL),
        };
        *self.next.lock() = place;
        Ok(0)
    }

    fn poll(&self) -> PollEvents {
        let next = *self.next.lock();
        let writable = PollEvents::OUT | PollEvents::WRNORM;
        let readable = PollEvents::IN | PollEvents::RDNORM;
        match RECORDS.end() {
            _ if next < RECORDS.first() => writable | readable | PollEvents::ERR | PollEvents::PRI,
            end if next < end => writable | readable,
            _ => writable,
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&READERS)
    }

    fn name(&self) -> String {
        "/dev/kmsg".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Takes `<N>` off the front. User space may not speak as the kernel: facility 0 becomes LOG_USER.
fn split_priority(line: &[u8]) -> (u16, &[u8]) {
    let default = (USER << 3 | DEFAULT_LEVEL, line);
    let Some(rest) = line.strip_prefix(b"<") else { return default };
    let Some(end) = rest.iter().position(|byte| *byte == b'>') else { return default };
    let number = core::str::from_utf8(&rest[..end]).ok().and_then(|digits| digits.parse::<u16>().ok());
    match number.map(|number| (number >> 3, number & 7)) {
        None => default,
        Some((0, level)) => (USER << 3 | level, &rest[end + 1..]),
        Some((facility, level)) => ((facility & 0xff) << 3 | level, &rest[end + 1..]),
    }
}

/// A record as /dev/kmsg shows it.
struct KmsgLine {
    bytes: [u8; KmsgLine::SIZE],
    len: usize,
}

impl KmsgLine {
    /// The header, and every byte of the text as `\xNN`.
    const SIZE: usize = 64 + 4 * TEXT_MAX;

    fn format(&mut self, record: &Record) -> fmt::Result {
        write!(self, "{},{},{},-;", record.priority, record.sequence, record.time / 1000)?;
        for byte in record.text() {
            match byte {
                0x20..0x7f if *byte != b'\\' => self.write_char(char::from(*byte))?,
                _ => write!(self, "\\x{byte:02x}")?,
            }
        }
        self.write_char('\n')
    }
}

impl Write for KmsgLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs::buffer::{SliceSink, SliceSource};

    fn shown(text: &[u8]) -> String {
        let records = Box::new(crate::log::records::Records::new());
        records.append(13, 5_000_001, text);
        let mut record = Record::new();
        assert!(records.read(0, &mut record));
        let mut line = KmsgLine { bytes: [0; KmsgLine::SIZE], len: 0 };
        line.format(&record).expect("room for the longest record");
        String::from_utf8(line.bytes[..line.len].to_vec()).expect("plain ASCII")
    }

    #[test]
    fn a_record_is_shown_as_linux_shows_it() {
        assert_eq!(shown(b"hello"), "13,0,5000,-;hello\n");
        assert_eq!(shown(b"a\\b\n\xff"), "13,0,5000,-;a\\x5cb\\x0a\\xff\n");
        assert_eq!(shown(&[0xff; TEXT_MAX]).len(), "13,0,5000,-;\n".len() + 4 * TEXT_MAX);
    }

    #[test]
    fn user_space_may_give_a_priority_but_not_speak_as_the_kernel() {
        assert_eq!(split_priority(b"<6>x"), (14, &b"x"[..]));
        assert_eq!(split_priority(b"<30>x"), (30, &b"x"[..]));
        assert_eq!(split_priority(b"x"), (12, &b"x"[..]));
        assert_eq!(split_priority(b"<x>y"), (12, &b"<x>y"[..]));
        assert_eq!(split_priority(b"<6"), (12, &b"<6"[..]));
    }

    #[test]
    fn what_is_written_is_read_back_by_every_reader() {
        let file = KmsgFile::open();
        assert_eq!(file.seek(0, SEEK_END), Ok(0));
        let text = b"<5>kmsg round trip\n";
        assert_eq!(file.try_write(&mut 0, OpenFlags::WRONLY, &mut SliceSource::new(text)), Ok(text.len()));
        // Other tests log at the same time: look for our own line.
        let mut bytes = [0; 4096];
        loop {
            let mut sink = SliceSink::new(&mut bytes);
            let len = file.try_read(&mut 0, &mut sink).expect("our line is there");
            let line = String::from_utf8(bytes[..len].to_vec()).expect("plain ASCII");
            if line.ends_with(",-;kmsg round trip\n") {
                assert!(line.starts_with("13,"));
                break;
            }
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused_and_loses_nothing() {
        let file = KmsgFile::open();
        assert_eq!(file.seek(0, SEEK_END), Ok(0));
        file.try_write(&mut 0, OpenFlags::WRONLY, &mut SliceSource::new(b"small")).expect("room");
        let next = *file.next.lock();
        let mut bytes = [0; 4];
        assert_eq!(file.try_read(&mut 0, &mut SliceSink::new(&mut bytes)), Err(Stop::Errno(Errno::EINVAL)));
        assert_eq!(*file.next.lock(), next);
        assert_eq!(file.seek(1, SEEK_SET), Err(Errno::ESPIPE));
    }
}
