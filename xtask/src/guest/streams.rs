//! The threads that read what a machine sends, and what they make of it.

use crate::typist::Transcript;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};
use user_programs::protocol::{Decoder, Message};

/// How much is moved at once.
pub(super) const CHUNK: usize = 64 << 10;
const LOG_BYTES: usize = 256 << 10;

/// What a machine says.
pub(super) enum Event {
    /// A program's output, by its port.
    Bytes(u32, Vec<u8>),
    /// What init says.
    Control(Message),
    /// The channels are closed: the machine has ended.
    Ended,
}

/// A program's output on its way, counted.
pub(super) struct Sink<'a> {
    to: Option<&'a mut dyn Write>,
    /// How many bytes came.
    pub count: u64,
}

impl<'a> Sink<'a> {
    pub fn new(to: &'a mut dyn Write) -> Self {
        Self { to: Some(to), count: 0 }
    }

    /// Passes bytes on; an error is answered once, and what comes later is dropped.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.count += bytes.len() as u64;
        let Some(to) = &mut self.to else { return Ok(()) };
        let outcome = to.write_all(bytes).and_then(|()| to.flush());
        if outcome.is_err() {
            self.to = None;
        }
        outcome
    }
}

/// Passes a program's output on, to its end.
pub(super) fn read_bytes(port: u32, mut stream: UnixStream, events: &SyncSender<Event>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        if events.send(Event::Bytes(port, chunk[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// Passes on what init says, to its end, which is the machine's.
pub(super) fn read_messages(mut stream: UnixStream, events: &SyncSender<Event>) {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        decoder.push(&chunk[..count]);
        while let Ok(Some(message)) = decoder.next_message() {
            if events.send(Event::Control(message)).is_err() {
                return;
            }
        }
    }
    // Nobody may be listening any more.
    let _ = events.send(Event::Ended);
}

/// Keeps the last of what the kernel, or QEMU, says.
pub(super) fn keep_log(
    mut stream: std::fs::File,
    log: &Mutex<VecDeque<u8>>,
    transcript: Option<&Transcript>,
    verbose: bool,
) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        if verbose {
            // A log that cannot be shown is still kept.
            let _ = std::io::stderr().write_all(&chunk[..count]);
        }
        if let Some(transcript) = transcript {
            transcript.push(&chunk[..count]);
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend(&chunk[..count]);
        let surplus = log.len().saturating_sub(LOG_BYTES);
        log.drain(..surplus);
    }
}
