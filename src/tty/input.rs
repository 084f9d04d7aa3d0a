//! The queue of input that programs have not read yet.
//!
//! In canonical mode it consists of complete lines, then the line that is still being edited. A cell is a byte and whether a line
//! ends with it; an end-of-file (^D) is a line end with the byte 0, which a reader does not get to see.
//!
//! ```text
//!    read()s begin here                               typing and erasing happen here
//!    ▼                                                ▼
//!    l s ⏎  e c h o ␣ h i ⏎  …complete lines…  │ h a l f ␣ a ␣ l i n
//!    └────────────── committed ──────────────┘
//! ```
//!
//! Next: `discipline.rs`.

use alloc::collections::VecDeque;

use fs::Sink;

use super::termios::DISABLED;
use crate::mm::MakeRoom;
use crate::tty::Result;

/// How many bytes of input a terminal keeps, and so the length of the longest line.
pub const INPUT_CAPACITY: usize = 4096;

const LINE_END: u16 = 0x100;

/// What a copy out of the queue came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// How many bytes the reader got.
    pub bytes: usize,
    /// Whether the line or file came to its end, so that this read(2) is over.
    pub is_complete: bool,
    /// Whether it stopped at user memory that is not there.
    pub faulted: bool,
}

/// The queue.
pub struct Input {
    cells: VecDeque<u16>,
    /// How many of the cells, from the front, are complete lines. Only kept in canonical mode.
    committed: usize,
    /// The last line was made complete by leaving raw mode, not by a line end: a final 0 is then a byte and no end-of-file.
    is_pushed: bool,
}

impl Input {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Input> {
        let mut cells = VecDeque::new();
        cells.make_exact_room(INPUT_CAPACITY)?;
        Ok(Input { cells, committed: 0, is_pushed: false })
    }

    /// How many bytes are in it, line ends and ends-of-file included.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Whether there is a complete line (or an end-of-file).
    pub fn has_line(&self) -> bool {
        self.committed > 0
    }

    /// How many bytes the reader of complete lines can get: what FIONREAD says in canonical mode.
    pub fn line_bytes(&self) -> usize {
        self.cells.iter().take(self.committed).filter(|cell| **cell != LINE_END).count()
    }

    /// The line being edited.
    pub fn edited(&self) -> impl DoubleEndedIterator<Item = u8> + '_ {
        self.cells.iter().skip(self.committed).map(|cell| *cell as u8)
    }

    /// How long the line being edited is.
    pub fn edited_len(&self) -> usize {
        self.cells.len() - self.committed
    }

    /// Takes the last byte of the edited line back.
    pub fn erase(&mut self) {
        if self.edited_len() > 0 {
            self.cells.pop_back();
        }
    }

    /// Takes the edited line back.
    pub fn erase_line(&mut self) {
        self.cells.truncate(self.committed);
    }

    /// Appends a byte. What does not fit is dropped; the discipline sees to the room.
    pub fn put(&mut self, byte: u8) {
        if self.cells.len() < INPUT_CAPACITY {
            self.cells.push_back(u16::from(byte));
        }
    }

    /// Appends a byte that ends the line, or [`DISABLED`] for an end-of-file.
    pub fn put_line_end(&mut self, byte: u8) {
        if self.cells.len() < INPUT_CAPACITY {
            self.cells.push_back(u16::from(byte) | LINE_END);
            self.committed = self.cells.len();
        }
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.cells.clear();
        (self.committed, self.is_pushed) = (0, false);
    }

    /// Canonical mode begins: what is there counts as one complete line.
    pub fn begin_lines(&mut self) {
        self.end_lines();
        if let Some(last) = self.cells.back_mut() {
            *last |= LINE_END;
            (self.committed, self.is_pushed) = (self.cells.len(), true);
        }
    }

    /// Canonical mode ends: line ends mean nothing any more.
    pub fn end_lines(&mut self) {
        for cell in &mut self.cells {
            *cell &= !LINE_END;
        }
        (self.committed, self.is_pushed) = (0, false);
    }

    /// Copies bytes out, as many as fit.
    pub fn read_raw(&mut self, sink: &mut dyn Sink) -> Copied {
        let mut copied = Copied { bytes: 0, is_complete: false, faulted: false };
        while !self.cells.is_empty() && sink.remaining() > 0 && !copied.faulted {
            let wanted = self.cells.len().min(sink.remaining());
            let (taken, all) = self.copy_some(sink, wanted);
            copied.bytes += taken;
            copied.faulted = !all;
        }
        copied
    }

    /// Copies out one line, or as much of it as fits. The line's end is in it, an end-of-file is not; an end-of-file right
    /// behind bytes that filled the reader's buffer is taken along, so that the next read does not report it.
    pub fn read_line(&mut self, sink: &mut dyn Sink) -> Copied {
        let mut copied = Copied { bytes: 0, is_complete: false, faulted: false };
        let end = self.cells.iter().take(self.committed).position(|cell| cell & LINE_END != 0);
        let line = end.map_or(self.committed, |end| end + 1);
        let is_eof = end.is_some_and(|end| self.cells[end] == LINE_END && !self.is_pushed);
        let text = if is_eof { line - 1 } else { line };
        while copied.bytes < text && sink.remaining() > 0 && !copied.faulted {
            let (taken, all) = self.copy_some(sink, text - copied.bytes);
            copied.bytes += taken;
            copied.faulted = !all;
        }
        if copied.bytes < text || copied.faulted {
            return copied;
        }
        copied.is_complete = end.is_some();
        if is_eof {
            self.cells.pop_front();
            self.committed -= 1;
        }
        if end.is_some() {
            self.is_pushed = false;
        }
        copied
    }

    /// Copies up to a chunk of `wanted` bytes and takes them off; returns how many, and whether the sink took all it was given.
    fn copy_some(&mut self, sink: &mut dyn Sink, wanted: usize) -> (usize, bool) {
        let mut chunk = [0u8; 256];
        let len = wanted.min(chunk.len()).min(sink.remaining());
        for (place, cell) in chunk.iter_mut().zip(self.cells.iter().take(len)) {
            *place = *cell as u8;
        }
        let taken = sink.put(&chunk[..len]);
        self.cells.drain(..taken);
        self.committed = self.committed.saturating_sub(taken);
        (taken, taken == len)
    }
}

/// The byte that stands for an end-of-file in the queue.
pub const END_OF_FILE: u8 = DISABLED;

#[cfg(test)]
mod tests {
    use super::*;
    use fs::buffer::SliceSink;

    fn line(input: &mut Input, room: usize) -> Vec<u8> {
        let mut bytes = vec![0; room];
        let mut sink = SliceSink::new(&mut bytes);
        input.read_line(&mut sink);
        let len = sink.filled();
        bytes.truncate(len);
        bytes
    }

    fn typed(text: &[u8]) -> Input {
        let mut input = Input::new().expect("memory");
        for byte in text {
            match byte {
                b'\n' => input.put_line_end(b'\n'),
                b'~' => input.put_line_end(END_OF_FILE),
                _ => input.put(*byte),
            }
        }
        input
    }

    #[test]
    fn a_read_returns_one_line_and_the_half_line_stays() {
        let mut input = typed(b"one\ntwo\nhal");
        assert_eq!(line(&mut input, 100), b"one\n");
        assert_eq!(line(&mut input, 2), b"tw");
        assert_eq!(line(&mut input, 2), b"o\n");
        assert!(!input.has_line() && input.edited_len() == 3);
    }

    #[test]
    fn an_end_of_file_hands_over_the_half_line_and_then_is_a_read_of_nothing() {
        let mut input = typed(b"ab~~");
        assert_eq!(input.line_bytes(), 2);
        assert_eq!(line(&mut input, 100), b"ab");
        assert!(input.has_line());
        assert_eq!(line(&mut input, 100), b"");
        assert!(!input.has_line());
    }

    #[test]
    fn an_end_of_file_right_behind_a_full_buffer_is_not_reported_again() {
        let mut input = typed(b"abc~");
        assert_eq!(line(&mut input, 3), b"abc");
        assert!(!input.has_line() && input.is_empty());
    }

    #[test]
    fn what_was_read_raw_is_a_line_when_canonical_mode_begins() {
        let mut input = typed(b"ab\0");
        input.begin_lines();
        assert_eq!(line(&mut input, 100), b"ab\0");
        assert!(input.is_empty());
    }
}
