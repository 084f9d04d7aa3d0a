//! Output processing: what a program writes, or the echo of what a person types, on its way to the line.
//!
//! With OPOST set, a few characters are translated (a newline becomes carriage return and newline), and the column of the cursor is
//! followed, which tabs and the erasing of tabs need. What comes out stands in a bounded queue until the lower side takes it.
//!
//! Next: `discipline.rs`.

use abi::general::{IUTF8, OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, TABDLY, XTABS};
use alloc::collections::VecDeque;

use super::termios::Termios;
use crate::mm::MakeRoom;
use crate::tty::Result;

/// How much output may wait for the line, in bytes.
pub const OUTPUT_CAPACITY: usize = 8192;

/// Programs get no more room when so little is left: it is kept for echo.
const ECHO_RESERVE: usize = 512;

/// The most bytes that one character becomes (a tab, as spaces).
const WIDEST: usize = 8;

/// The output side of a line discipline.
pub struct Output {
    queue: VecDeque<u8>,
    /// Where the cursor is, counted from 0.
    pub column: usize,
    /// Where it was when the present input line began.
    pub line_column: usize,
    /// Both, as they were at the last release: where a flush puts the cursor back to.
    marked: (usize, usize),
    /// How many bytes, from the front, had left before output was stopped: a master may still read them.
    released: usize,
}

/// Whether a byte is a control character: C0 and DEL.
pub fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Whether a byte continues a UTF-8 character, where the terminal is set to know (IUTF8).
pub fn is_continuation(byte: u8, termios: &Termios) -> bool {
    termios.input & IUTF8 != 0 && byte & 0xc0 == 0x80
}

/// Whether a byte is a letter or digit of Latin-1, as the kernel has always counted words.
pub fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || (byte >= 0xc0 && byte != 0xd7 && byte != 0xf7)
}

/// The small letter of a capital, Latin-1's included (IUCLC).
pub fn to_lowercase(byte: u8) -> u8 {
    let is_capital = byte.is_ascii_uppercase() || ((0xc0..=0xde).contains(&byte) && byte != 0xd7);
    if is_capital { byte + 0x20 } else { byte }
}

/// The capital of a small letter, Latin-1's included (OLCUC). Like Linux it takes 0xdf and 0xff for letters that have one.
fn to_uppercase(byte: u8) -> u8 {
    let is_small = byte.is_ascii_lowercase() || (byte >= 0xdf && byte != 0xf7);
    if is_small { byte - 0x20 } else { byte }
}

impl Output {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Output> {
        let mut queue = VecDeque::new();
        queue.make_exact_room(OUTPUT_CAPACITY)?;
        Ok(Output { queue, column: 0, line_column: 0, marked: (0, 0), released: 0 })
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets all that is here leave, even if output is stopped after this.
    pub fn release(&mut self) {
        self.released = self.queue.len();
        self.marked = (self.column, self.line_column);
    }

    /// How many bytes may leave although output is stopped.
    pub fn released(&self) -> usize {
        self.released
    }

    /// How many bytes a program may write now, whatever they become.
    pub fn room(&self) -> usize {
        OUTPUT_CAPACITY.saturating_sub(ECHO_RESERVE + self.queue.len())
    }

    /// The first bytes that wait, as far as they lie behind each other.
    pub fn front(&self) -> &[u8] {
        self.queue.as_slices().0
    }

    /// Drops so many bytes, which the line has taken.
    pub fn consume(&mut self, count: usize) {
        self.queue.drain(..count.min(self.queue.len()));
        self.released = self.released.saturating_sub(count);
    }

    /// Forgets what waits, and that the cursor moved since the last release.
    pub fn flush_echo(&mut self) {
        self.flush();
        (self.column, self.line_column) = self.marked;
    }

    /// Forgets what waits.
    pub fn flush(&mut self) {
        self.queue.clear();
        self.released = 0;
    }

    /// Queues bytes as they are, all or none of them.
    pub fn put_plain(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= OUTPUT_CAPACITY - self.queue.len();
        if fits {
            self.queue.extend(bytes);
        }
        fits
    }

    /// Takes what a program writes; returns how many bytes of it were taken.
    pub fn write(&mut self, termios: &Termios, bytes: &[u8]) -> usize {
        if termios.output & OPOST == 0 {
            let len = bytes.len().min(self.room());
            self.queue.extend(&bytes[..len]);
            return len;
        }
        let mut taken = 0;
        while taken < bytes.len() && self.room() >= WIDEST {
            let plain = bytes[taken..].iter().take_while(|byte| (0x20..0x7f).contains(*byte)).count();
            if plain > 0 && termios.output & OLCUC == 0 {
                let len = plain.min(self.room());
                self.queue.extend(&bytes[taken..taken + len]);
                self.column += len;
                taken += len;
            } else {
                self.put_processed(termios, bytes[taken]);
                taken += 1;
            }
        }
        taken
    }

    /// Queues one byte with output processing if OPOST is on, else plainly.
    pub fn put(&mut self, termios: &Termios, byte: u8) {
        if termios.output & OPOST == 0 {
            self.put_plain(&[byte]);
        } else {
            self.put_processed(termios, byte);
        }
    }

    /// Queues one byte with output processing. A byte that does not fit is lost; the caller has seen to the room.
    fn put_processed(&mut self, termios: &Termios, byte: u8) {
        let mode = termios.output;
        match byte {
            b'\n' => {
                if mode & ONLRET != 0 {
                    self.column = 0;
                }
                if mode & ONLCR != 0 {
                    (self.column, self.line_column) = (0, 0);
                    self.put_plain(b"\r\n");
                    return;
                }
                self.line_column = self.column;
                self.put_plain(b"\n");
            }
            b'\r' => {
                if mode & ONOCR != 0 && self.column == 0 {
                    return;
                }
                if mode & OCRNL != 0 {
                    if mode & ONLRET != 0 {
                        (self.column, self.line_column) = (0, 0);
                    }
                    self.put_plain(b"\n");
                    return;
                }
                (self.column, self.line_column) = (0, 0);
                self.put_plain(b"\r");
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                self.column += spaces;
                if mode & TABDLY == XTABS {
                    self.put_plain(&b"        "[..spaces]);
                } else {
                    self.put_plain(b"\t");
                }
            }
            0x08 => {
                self.column = self.column.saturating_sub(1);
                self.put_plain(b"\x08");
            }
            _ => {
                let mut byte = byte;
                if !is_control(byte) {
                    if mode & OLCUC != 0 {
                        byte = to_uppercase(byte);
                    }
                    if !is_continuation(byte, termios) {
                        self.column += 1;
                    }
                }
                self.put_plain(&[byte]);
            }
        }
    }

    /// Echoes a control character as `^X`, past output processing.
    pub fn put_caret(&mut self, byte: u8) {
        self.put_plain(&[b'^', byte ^ 0x40]);
        self.column += 2;
    }

    /// Echoes a byte past output processing, as one column.
    pub fn put_unprocessed(&mut self, byte: u8) {
        self.put_plain(&[byte]);
        self.column += 1;
    }

    /// Goes back over a tab that is being erased: `columns` stand between it and the tab before it, or, if there is none, the
    /// beginning of the input line.
    pub fn erase_tab(&mut self, columns: usize, is_after_tab: bool) {
        let columns = if is_after_tab { columns } else { columns + self.line_column };
        for _ in 0..8 - (columns & 7) {
            self.put_plain(b"\x08");
            self.column = self.column.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: u32, bytes: &[u8]) -> Vec<u8> {
        let mut output = Output::new().expect("memory");
        let termios = Termios { output: mode, ..Termios::initial() };
        assert_eq!(output.write(&termios, bytes), bytes.len());
        output.front().to_vec()
    }

    #[test]
    fn a_newline_becomes_carriage_return_and_newline() {
        assert_eq!(written(OPOST | ONLCR, b"a\nb"), b"a\r\nb");
        assert_eq!(written(OPOST, b"a\nb"), b"a\nb");
        assert_eq!(written(ONLCR, b"a\nb"), b"a\nb");
    }

    #[test]
    fn tabs_become_spaces_up_to_the_next_stop() {
        assert_eq!(written(OPOST | XTABS, b"abc\td"), b"abc     d");
        assert_eq!(written(OPOST | XTABS, b"\t"), b"        ");
    }

    #[test]
    fn a_carriage_return_at_the_left_edge_can_be_left_out() {
        assert_eq!(written(OPOST | ONOCR, b"\ra\r"), b"a\r");
        assert_eq!(written(OPOST | OCRNL, b"a\rb"), b"a\nb");
    }

    #[test]
    fn a_program_cannot_take_the_room_that_echo_needs() {
        let mut output = Output::new().expect("memory");
        let termios = Termios::initial();
        let mut taken = 0;
        loop {
            match output.write(&termios, &[b'x'; 1000]) {
                0 => break,
                more => taken += more,
            }
        }
        assert!(taken <= OUTPUT_CAPACITY - ECHO_RESERVE && taken > OUTPUT_CAPACITY - ECHO_RESERVE - 2 * WIDEST);
        assert!(output.put_plain(&[b'e'; ECHO_RESERVE]));
        assert!(!output.put_plain(&[b'e'; WIDEST]));
    }
}
