//! /proc/rouse/trace. Written: `on`, `on N` (with room for N records on each CPU, a power of two; the first time decides), `off`, `clear`.
//! Read: what was recorded, as text.
//!
//! ```text
//! # rouse-trace 1
//! # task ID NAME                    each task that exists now; NAME as in /proc/rouse/tasks
//! # cpu 0 records 1234 lost 0       then the records of this CPU (text.rs), those lost having been overwritten
//! 5123456789 0 poll 17
//! …
//! ```
//!
//! A reader gets what was there when it came to a CPU, so it finds an end while the trace is on, too. Root only: who sees the trace
//! sees what everybody does.
//!
//! Next: `text.rs`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Range;

use abi::{Errno, Result};
use executor::sync::SpinLock;
use fs::{FileOps, OpenFlags, Sink, Source, Stop};
use procfs::{Content, Node};

use super::ring::Ring;
use super::{Record, text};
use crate::proc::rouse_tasks::{add_name, everybody};
use crate::proc::text::Text;

/// A word that is written is no longer than this.
const WORD_MAX: usize = 32;
/// So much text is made at once,
const PORTION: usize = 4 << 10;
/// and so much is read at most by one read(2): others want to run, too.
const READ_MAX: usize = 16 << 10;

/// The file.
pub fn node() -> Node {
    Node::new(0o600, Content::Special(Arc::new(|_| Ok(Arc::new(TraceFile::open()) as Arc<dyn FileOps>))))
}

/// An open one, which knows how far it has been read.
struct TraceFile(SpinLock<Reading>);

struct Reading {
    /// Text that has been made, and how much of it was taken.
    text: Vec<u8>,
    taken: usize,
    /// The CPUs that are still to be read, and the numbers of the first one's records once that has begun.
    rings: Vec<(usize, &'static Ring)>,
    numbers: Option<Range<u64>>,
}

impl TraceFile {
    fn open() -> TraceFile {
        let mut text = Text::new();
        text.add(format_args!("# rouse-trace 1\n"));
        for (task, thread) in everybody() {
            text.add(format_args!("# task {} ", task.id()));
            add_name(&mut text, &task, thread.as_deref());
            text.add(format_args!("\n"));
        }
        let mut rings: Vec<_> = super::rings().collect();
        rings.reverse();
        TraceFile(SpinLock::new(Reading { text: text.into_bytes(), taken: 0, rings, numbers: None }))
    }
}

impl Reading {
    /// Makes more text; none at the end.
    fn fill(&mut self) {
        let mut text = Text::new();
        while text.len() < PORTION
            && let Some(&(cpu, ring)) = self.rings.last()
        {
            let numbers = self.numbers.get_or_insert_with(|| {
                let numbers = ring.numbers();
                let (records, lost) = (numbers.end - numbers.start, ring.lost());
                text.add(format_args!("# cpu {cpu} records {records} lost {lost}\n"));
                numbers
            });
            match numbers.next() {
                // One that is overwritten meanwhile is passed over.
                Some(number) => {
                    if let Some(record) = ring.read(number).and_then(Record::decode) {
                        text::add(&mut text, cpu, &record);
                    }
                }
                None => {
                    self.rings.pop();
                    self.numbers = None;
                }
            }
        }
        self.text = text.into_bytes();
        self.taken = 0;
    }
}

impl FileOps for TraceFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let mut reading = self.0.lock();
        let mut done = 0;
        while done < READ_MAX && sink.remaining() > 0 {
            if reading.taken == reading.text.len() {
                reading.fill();
                if reading.text.is_empty() {
                    break;
                }
            }
            let part = &reading.text[reading.taken..];
            let wanted = part.len().min(sink.remaining());
            let put = sink.put(&part[..wanted]);
            reading.taken += put;
            done += put;
            if put < wanted {
                return if done == 0 { Err(Stop::Fault) } else { Ok(done) };
            }
        }
        Ok(done)
    }

    /// `EINVAL`: none of the words.
    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let len = source.remaining();
        if len > WORD_MAX {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = [0; WORD_MAX];
        if source.take(&mut bytes[..len]) < len {
            return Err(Stop::Fault);
        }
        obey(&bytes[..len])?;
        Ok(len)
    }

    fn name(&self) -> String {
        "/proc/rouse/trace".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn obey(text: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim();
    match text {
        "on" => super::switch_on(None),
        "off" => {
            super::switch_off();
            Ok(())
        }
        "clear" => {
            super::clear();
            Ok(())
        }
        _ => {
            let records = text.strip_prefix("on ").and_then(|count| count.trim().parse().ok());
            super::switch_on(Some(records.ok_or(Errno::EINVAL)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;
    use fs::buffer::{SliceSink, SliceSource};

    #[test]
    fn a_reader_gets_every_record_whole_whatever_the_size_of_its_pieces() {
        let ring: &'static Ring = Box::leak(Box::new(Ring::new(1024).expect("memory")));
        for task in 0..1500 {
            ring.push(Record { time: task, event: Event::PollBegins { task } }.encode());
        }
        let records: String = (476..1500).map(|task| format!("{task} 3 poll {task}\n")).collect();
        let expected = format!("# cpu 3 records 1024 lost 476\n{records}");
        for piece in [1, 7, 4096, 1 << 16] {
            let reading = Reading { text: vec![], taken: 0, rings: vec![(3, ring)], numbers: None };
            let file = TraceFile(SpinLock::new(reading));
            let mut all = Vec::new();
            loop {
                let mut bytes = vec![0; piece];
                let count = file.try_read(&mut 0, &mut SliceSink::new(&mut bytes)).expect("memory is there");
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&bytes[..count]);
            }
            assert!(String::from_utf8_lossy(&all) == expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let file = TraceFile(SpinLock::new(Reading { text: vec![], taken: 0, rings: vec![], numbers: None }));
        let write = |text: &[u8]| file.try_write(&mut 0, OpenFlags::WRONLY, &mut SliceSource::new(text));
        for text in [&b""[..], b"o", b"on x", b"on -1", b"on 100", b"on 18446744073709551616", &[b' '; 40], b"\xff"] {
            assert_eq!(write(text), Err(Stop::Errno(Errno::EINVAL)), "{text:?}");
        }
        assert_eq!(write(b"clear\n"), Ok(6));
    }
}
