//! The line discipline: what happens between a key and a program's read(2).
//!
//! A pure machine without locks, waiting or hardware. Bytes from the line go in at [`Discipline::receive`]; they are translated,
//! echoed into [`Output`], edited in [`Input`], or become signals, as the [`Termios`] say. termios(3) is the specification; where it
//! leaves room, this does what Linux's N_TTY does, which `tests/tty_against_linux.rs` compares on a real pseudo-terminal.
//!
//! ```text
//!   line ──► receive ─┬─► ^S ^Q ───────► is_stopped
//!                     ├─► ^C ^\ ^Z ────► Events::signals, queues flushed
//!                     ├─► erase, kill ─► Input::edited, echo
//!                     └─► the rest ────► Input ──► read_line / read_raw ──► program
//!                            │echo
//!   line ◄── Output ◄────────┴──────────────────────── write ◄──────────── program
//! ```
//!
//! Next: `terminal.rs`. Exercise: why does ^V ^C put a 3 into the line and interrupt nobody?

use abi::general::{
    ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOPRT, ICANON, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP, IUCLC,
    IXANY, IXON, NOFLSH, PARMRK, SIGINT, SIGQUIT, SIGTSTP, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VQUIT,
    VREPRINT, VSTART, VSTOP, VSUSP, VWERASE,
};

use super::input::{END_OF_FILE, INPUT_CAPACITY, Input};
use super::output::{Output, is_alphanumeric, is_continuation, is_control, to_lowercase};
use super::termios::{DISABLED, Termios};
use crate::tty::Result;

/// What receiving bytes led to, besides what is in the queues.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Events {
    /// Signals for the foreground group: bit N for signal N.
    pub signals: u64,
    /// How many bytes were taken; the others find no room now.
    pub taken: usize,
    /// A signal has flushed the queues.
    pub has_flushed: bool,
}

impl Events {
    /// The signals by number.
    pub fn signal_numbers(self) -> impl Iterator<Item = u32> {
        (1..64).filter(move |number| self.signals & (1 << number) != 0)
    }
}

/// A line discipline: settings, both queues, and where the editing stands.
pub struct Discipline {
    termios: Termios,
    /// Input for programs.
    pub input: Input,
    /// Output for the line.
    pub output: Output,
    /// For each byte, whether it is special under the present settings.
    special: [u64; 4],
    /// ^V was typed: the next character is taken literally.
    is_quoting: bool,
    /// ECHOPRT: a `\` was echoed and erased characters are being shown.
    is_erasing: bool,
    /// ^S was typed.
    is_stopped: bool,
    /// tcflow(TCOOFF) was called.
    is_held: bool,
}

impl Discipline {
    /// With these settings, and nothing in the queues.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(termios: Termios) -> Result<Discipline> {
        let mut discipline = Discipline {
            termios: termios.clone(),
            input: Input::new()?,
            output: Output::new()?,
            special: [0; 4],
            is_quoting: false,
            is_erasing: false,
            is_stopped: false,
            is_held: false,
        };
        discipline.set_termios(termios);
        Ok(discipline)
    }

    /// The settings.
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Takes what a program writes, with output processing; returns how many bytes.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = self.output.write(&self.termios, bytes);
        if !self.is_stopped() {
            self.output.release();
        }
        taken
    }

    /// Whether input is handed over in lines.
    pub fn is_canonical(&self) -> bool {
        self.termios.local & ICANON != 0
    }

    /// Whether output stands still, by ^S or by tcflow(3).
    pub fn is_stopped(&self) -> bool {
        self.is_stopped || self.is_held
    }

    /// How many bytes of output the master of a pseudo-terminal may read now.
    pub fn sendable(&self) -> usize {
        if self.is_stopped() { self.output.released() } else { self.output.len() }
    }

    /// tcflow(3): holds output back (`true`) or lets it go, a ^S included.
    pub fn hold(&mut self, is_held: bool) {
        (self.is_held, self.is_stopped) = (is_held, self.is_stopped && is_held);
        if !is_held {
            self.output.release();
        }
    }

    /// Changes the settings.
    pub fn set_termios(&mut self, termios: Termios) {
        let old = core::mem::replace(&mut self.termios, termios);
        if (old.local ^ self.termios.local) & ICANON != 0 {
            if self.is_canonical() {
                self.input.begin_lines();
            } else {
                self.input.end_lines();
            }
            (self.is_erasing, self.is_quoting) = (false, false);
        }
        if old.input & IXON != 0 && self.termios.input & IXON == 0 {
            self.start();
        }
        self.find_special();
    }

    fn has_input(&self, mode: u32) -> bool {
        self.termios.input & mode != 0
    }

    fn has_local(&self, mode: u32) -> bool {
        self.termios.local & mode != 0
    }

    /// Notes which bytes need more than being stored and echoed.
    fn find_special(&mut self) {
        let mut special = [0u64; 4];
        let mut mark = |byte: u8| special[usize::from(byte >> 6)] |= 1 << (byte & 63);
        let character = |index| self.termios.character(index);
        if self.has_input(IGNCR | ICRNL) {
            mark(b'\r');
        }
        if self.has_input(INLCR) {
            mark(b'\n');
        }
        if self.has_local(ICANON) {
            mark(b'\n');
            [VERASE, VKILL, VEOF, VEOL].into_iter().for_each(|index| mark(character(index)));
            if self.has_local(IEXTEN) {
                [VWERASE, VLNEXT, VEOL2].into_iter().for_each(|index| mark(character(index)));
                if self.has_local(ECHO) {
                    mark(character(VREPRINT));
                }
            }
        }
        if self.has_input(IXON) {
            [VSTART, VSTOP].into_iter().for_each(|index| mark(character(index)));
        }
        if self.has_local(ISIG) {
            [VINTR, VQUIT, VSUSP].into_iter().for_each(|index| mark(character(index)));
        }
        special[0] &= !(1 << DISABLED);
        self.special = special;
    }

    fn is_special(&self, byte: u8) -> bool {
        self.special[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    /// How many bytes from the line can be taken now. In canonical mode without a complete line there is always room for one
    /// more: a line that is too long loses its last characters, but can still be ended.
    pub(super) fn room(&self) -> usize {
        let reserve = if self.has_input(PARMRK) { 3 } else { 1 };
        match (INPUT_CAPACITY - self.input.len()).saturating_sub(reserve) {
            0 if self.is_canonical() && !self.input.has_line() => 1,
            room => room,
        }
    }

    /// Whether bytes from the line can be taken now.
    pub fn can_receive(&self) -> bool {
        self.room() > 0
    }

    /// Takes bytes from the line, as many as there is room for.
    pub fn receive(&mut self, bytes: &[u8]) -> Events {
        let mut events = Events::default();
        for byte in bytes {
            if self.room() == 0 {
                break;
            }
            if self.input.len() >= INPUT_CAPACITY {
                self.input.erase();
            }
            self.receive_byte(*byte, &mut events);
            events.taken += 1;
        }
        if !self.is_stopped() {
            self.output.release();
        }
        events
    }

    fn receive_byte(&mut self, byte: u8, events: &mut Events) {
        let byte = self.narrowed(byte);
        if self.is_quoting {
            self.is_quoting = false;
            self.receive_plain(byte);
        } else if self.is_special(byte) {
            self.receive_special(byte, events);
        } else {
            self.receive_plain(byte);
        }
    }

    /// Seven bits, lower case, as the settings ask.
    fn narrowed(&self, byte: u8) -> u8 {
        let byte = if self.has_input(ISTRIP) { byte & 0x7f } else { byte };
        let is_lowered = self.has_input(IUCLC) && self.has_local(IEXTEN);
        if is_lowered { to_lowercase(byte) } else { byte }
    }

    fn receive_plain(&mut self, byte: u8) {
        self.restart_on_any();
        if self.has_local(ECHO) {
            self.finish_erasing();
            self.note_line_column();
            self.echo(byte);
        }
        self.put(byte);
    }

    fn receive_special(&mut self, byte: u8, events: &mut Events) {
        let is = |discipline: &Discipline, index| byte == discipline.termios.character(index);
        if self.has_input(IXON) {
            if is(self, VSTART) {
                self.start();
                return;
            }
            if is(self, VSTOP) {
                self.is_stopped = true;
                return;
            }
        }
        if self.has_local(ISIG) {
            for (index, signal) in [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)] {
                if is(self, index) {
                    return self.interrupt(byte, signal, events);
                }
            }
        }
        self.restart_on_any();
        let byte = match byte {
            b'\r' if self.has_input(IGNCR) => return,
            b'\r' if self.has_input(ICRNL) => b'\n',
            b'\n' if self.has_input(INLCR) => b'\r',
            _ => byte,
        };
        if self.is_canonical() && self.edit(byte) {
            return;
        }
        if self.has_local(ECHO) {
            self.finish_erasing();
            if byte == b'\n' {
                self.output.put(&self.termios, b'\n');
            } else {
                self.note_line_column();
                self.echo(byte);
            }
        }
        self.put(byte);
    }

    /// Any character restarts output under IXANY.
    fn restart_on_any(&mut self) {
        if self.is_stopped && self.has_input(IXON) && self.has_input(IXANY) {
            self.start();
        }
    }

    /// Lets output go after ^S; not what tcflow(3) holds back.
    fn start(&mut self) {
        self.is_stopped = false;
        if !self.is_held {
            self.output.release();
        }
    }

    fn interrupt(&mut self, byte: u8, signal: u32, events: &mut Events) {
        events.signals |= 1 << signal;
        if !self.has_local(NOFLSH) {
            // Echo that was not shown yet has not moved the cursor.
            self.output.flush_echo();
            self.flush_input();
            events.has_flushed = true;
        }
        if self.has_input(IXON) {
            self.is_stopped = false;
        }
        if self.has_local(ECHO) {
            self.echo(byte);
        } else if !self.is_stopped() {
            self.output.release();
        }
    }

    /// Forgets input that was not read.
    pub fn flush_input(&mut self) {
        self.input.flush();
        self.is_erasing = false;
    }

    /// The characters that only canonical mode knows; `false` if this is none of them.
    fn edit(&mut self, byte: u8) -> bool {
        let is = |index| byte == self.termios.character(index);
        let is_extended = self.has_local(IEXTEN);
        if is(VERASE) || is(VKILL) || (is(VWERASE) && is_extended) {
            self.erase(byte);
        } else if is(VLNEXT) && is_extended {
            self.is_quoting = true;
            if self.has_local(ECHO) {
                self.finish_erasing();
                if self.has_local(ECHOCTL) {
                    self.output.put(&self.termios, b'^');
                    self.output.put(&self.termios, 0x08);
                }
            }
        } else if is(VREPRINT) && is_extended && self.has_local(ECHO) {
            self.reprint(byte);
        } else if byte == b'\n' {
            if self.has_local(ECHO | ECHONL) {
                self.output.put(&self.termios, b'\n');
            }
            self.input.put_line_end(byte);
        } else if is(VEOF) {
            self.input.put_line_end(END_OF_FILE);
        } else if is(VEOL) || (is(VEOL2) && is_extended) {
            if self.has_local(ECHO) {
                self.note_line_column();
                self.echo(byte);
            }
            self.mark_parity(byte);
            self.input.put_line_end(byte);
        } else {
            return false;
        }
        true
    }

    fn reprint(&mut self, byte: u8) {
        self.finish_erasing();
        self.echo(byte);
        self.output.put(&self.termios, b'\n');
        let Discipline { input, output, termios, .. } = self;
        for byte in input.edited() {
            echo(output, termios, byte);
        }
    }

    /// Under PARMRK a byte 0377 is doubled, to tell it from the mark of a bad byte.
    fn mark_parity(&mut self, byte: u8) {
        if byte == 0xff && self.has_input(PARMRK) {
            self.input.put(byte);
        }
    }

    fn put(&mut self, byte: u8) {
        self.mark_parity(byte);
        self.input.put(byte);
    }

    fn echo(&mut self, byte: u8) {
        echo(&mut self.output, &self.termios, byte);
    }

    fn note_line_column(&mut self) {
        if self.input.edited_len() == 0 {
            self.output.line_column = self.output.column;
        }
    }

    fn finish_erasing(&mut self) {
        if self.is_erasing {
            self.output.put(&self.termios, b'/');
            self.is_erasing = false;
        }
    }

    /// The erase, word-erase and kill characters.
    fn erase(&mut self, byte: u8) {
        if self.input.edited_len() == 0 {
            return;
        }
        let is_word = byte == self.termios.character(VWERASE) && byte != self.termios.character(VERASE);
        let is_line = !is_word && byte != self.termios.character(VERASE);
        let echoes = self.has_local(ECHO);
        if is_line && !(echoes && self.has_local(ECHOK) && self.has_local(ECHOKE) && self.has_local(ECHOE)) {
            self.input.erase_line();
            if echoes {
                self.finish_erasing();
                self.echo(byte);
                if self.has_local(ECHOK) {
                    self.output.put(&self.termios, b'\n');
                }
            }
            return;
        }
        let mut seen_word = false;
        while let Some((character, len)) = self.last_character() {
            if is_word {
                if is_alphanumeric(character) || character == b'_' {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            self.erase_character(character, len, !is_word && !is_line);
            if !is_word && !is_line {
                break;
            }
        }
        if self.input.edited_len() == 0 && echoes {
            self.finish_erasing();
        }
    }

    /// The last character of the edited line: its first byte and how many bytes it has. Nothing if the line is empty, or
    /// begins in the middle of a character.
    fn last_character(&self) -> Option<(u8, usize)> {
        let found = self.input.edited().rev().enumerate().find(|(_, byte)| !is_continuation(*byte, &self.termios));
        found.map(|(index, byte)| (byte, index + 1))
    }

    /// Erases a character; `is_single` for the erase character's work, not a part of a word's or a line's.
    fn erase_character(&mut self, character: u8, len: usize, is_single: bool) {
        if !self.has_local(ECHO) {
            (0..len).for_each(|_| self.input.erase());
            return;
        }
        if self.has_local(ECHOPRT) {
            self.show_erased(character, len);
            return;
        }
        (0..len).for_each(|_| self.input.erase());
        if is_single && !self.has_local(ECHOE) {
            self.echo(self.termios.character(VERASE));
        } else if character == b'\t' {
            let (columns, is_after_tab) = self.columns_before_tab();
            self.output.erase_tab(columns, is_after_tab);
        } else {
            let width = match (is_control(character), self.has_local(ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            for _ in 0..width {
                [0x08, b' ', 0x08].into_iter().for_each(|byte| self.output.put(&self.termios, byte));
            }
        }
    }

    /// ECHOPRT, for terminals that print on paper: erased characters are shown between `\` and `/`.
    fn show_erased(&mut self, character: u8, len: usize) {
        if !self.is_erasing {
            self.output.put(&self.termios, b'\\');
            self.is_erasing = true;
        }
        self.echo(character);
        let Discipline { input, output, termios, .. } = self;
        for byte in input.edited().skip(input.edited_len() - len + 1) {
            output.put(termios, byte);
            output.column = output.column.saturating_sub(1);
        }
        (0..len).for_each(|_| self.input.erase());
    }

    /// How many columns stand between the end of the edited line and the tab before it, or the line's beginning.
    fn columns_before_tab(&self) -> (usize, bool) {
        let mut columns = 0;
        for byte in self.input.edited().rev() {
            if byte == b'\t' {
                return (columns, true);
            }
            if is_control(byte) {
                columns += if self.has_local(ECHOCTL) { 2 } else { 0 };
            } else if !is_continuation(byte, &self.termios) {
                columns += 1;
            }
        }
        (columns, false)
    }
}

/// Echoes one byte: control characters as `^X` where ECHOCTL is on.
fn echo(output: &mut Output, termios: &Termios, byte: u8) {
    if termios.local & ECHOCTL != 0 && is_control(byte) && byte != b'\t' {
        output.put_caret(byte);
    } else if byte == 0xff {
        // In Linux's echo buffer this byte is an escape, and comes out as it is.
        output.put_unprocessed(byte);
    } else {
        output.put(termios, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::general::{VERASE, VTIME};
    use fs::buffer::SliceSink;

    struct Typist {
        discipline: Discipline,
        signals: u64,
    }

    impl Typist {
        fn new(change: impl FnOnce(&mut Termios)) -> Typist {
            let mut termios = Termios::initial();
            change(&mut termios);
            Typist { discipline: Discipline::new(termios).expect("memory"), signals: 0 }
        }

        /// Types, and returns the echo.
        fn types(&mut self, bytes: &[u8]) -> String {
            let events = self.discipline.receive(bytes);
            assert_eq!(events.taken, bytes.len());
            self.signals |= events.signals;
            let output = &mut self.discipline.output;
            let mut shown = String::new();
            while !output.is_empty() {
                shown.extend(output.front().iter().map(|byte| char::from(*byte)));
                output.consume(output.front().len());
            }
            shown
        }

        fn line(&mut self) -> Vec<u8> {
            let mut bytes = [0; 8192];
            let mut sink = SliceSink::new(&mut bytes);
            self.discipline.input.read_line(&mut sink);
            let len = sink.filled();
            bytes[..len].to_vec()
        }
    }

    #[test]
    fn typed_characters_are_echoed_and_read_when_the_line_is_complete() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"ls"), "ls");
        assert!(!tty.discipline.input.has_line());
        assert_eq!(tty.types(b"\r"), "\r\n");
        assert_eq!(tty.line(), b"ls\n");
    }

    #[test]
    fn erase_takes_back_a_character_and_never_goes_beyond_the_line() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"ab\x7f\x7f\x7f"), "ab\x08 \x08\x08 \x08");
        assert_eq!(tty.types(b"c\n"), "c\r\n");
        assert_eq!(tty.line(), b"c\n");
    }

    #[test]
    fn erase_takes_back_a_whole_utf8_character_in_one_column() {
        let mut tty = Typist::new(|termios| termios.input |= abi::general::IUTF8);
        tty.types("aé".as_bytes());
        assert_eq!(tty.types(b"\x7f"), "\x08 \x08");
        tty.types(b"\n");
        assert_eq!(tty.line(), b"a\n");
    }

    #[test]
    fn word_erase_takes_trailing_blanks_and_one_word() {
        let mut tty = Typist::new(|_| ());
        tty.types(b"rm foo_1  \x17");
        tty.types(b"\n");
        assert_eq!(tty.line(), b"rm \n");
    }

    #[test]
    fn kill_erases_the_line_on_the_screen() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"ab\x15"), "ab\x08 \x08\x08 \x08");
        let mut tty = Typist::new(|termios| termios.local &= !ECHOKE);
        assert_eq!(tty.types(b"ab\x15"), "ab^U\r\n");
    }

    #[test]
    fn erasing_a_tab_goes_back_to_where_it_began() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"ab\t"), "ab\t");
        assert_eq!(tty.types(b"\x7f"), "\x08\x08\x08\x08\x08\x08");
    }

    #[test]
    fn control_c_signals_echoes_and_forgets_the_line() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"abc"), "abc");
        assert_eq!(tty.types(b"\x03"), "^C");
        assert_eq!(tty.signals, 1 << SIGINT);
        tty.types(b"d\n");
        assert_eq!(tty.line(), b"d\n");
        tty.types(b"\x1a\x1c");
        assert_eq!(tty.signals, 1 << SIGINT | 1 << SIGTSTP | 1 << SIGQUIT);
    }

    #[test]
    fn control_v_takes_the_next_character_literally() {
        let mut tty = Typist::new(|_| ());
        assert_eq!(tty.types(b"\x16\x03\n"), "^\x08^C\r\n");
        assert_eq!(tty.signals, 0);
        assert_eq!(tty.line(), b"\x03\n");
    }

    #[test]
    fn control_r_shows_the_line_again() {
        let mut tty = Typist::new(|_| ());
        tty.types(b"ab");
        assert_eq!(tty.types(b"\x12"), "^R\r\nab");
    }

    #[test]
    fn control_s_stops_output_and_control_q_lets_it_go() {
        let mut tty = Typist::new(|_| ());
        tty.types(b"\x13");
        assert!(tty.discipline.is_stopped());
        tty.types(b"a\x11");
        assert!(!tty.discipline.is_stopped());
        tty.types(b"\n");
        assert_eq!(tty.line(), b"a\n");
    }

    #[test]
    fn raw_mode_stores_bytes_as_they_come() {
        let mut tty = Typist::new(|termios| {
            (termios.input, termios.output, termios.local) = (0, 0, 0);
            termios.characters[VTIME as usize] = 0;
        });
        assert_eq!(tty.types(b"\x03\r\n\x04\x7f\xff\0"), "");
        let mut bytes = [0; 16];
        let mut sink = SliceSink::new(&mut bytes);
        assert_eq!(tty.discipline.input.read_raw(&mut sink).bytes, 7);
        assert_eq!(&bytes[..7], b"\x03\r\n\x04\x7f\xff\0");
    }

    #[test]
    fn a_line_that_is_too_long_can_still_be_ended() {
        let mut tty = Typist::new(|_| ());
        for _ in 0..50 {
            tty.types(&[b'x'; 100]);
        }
        tty.types(b"\n");
        let line = tty.line();
        assert_eq!((line.len(), line.last()), (INPUT_CAPACITY, Some(&b'\n')));
    }

    #[test]
    fn with_a_complete_line_unread_a_full_queue_makes_the_sender_wait() {
        let mut tty = Typist::new(|_| ());
        tty.types(b"\n");
        let events = tty.discipline.receive(&[b'x'; 5000]);
        assert_eq!(events.taken, INPUT_CAPACITY - 2);
        assert!(!tty.discipline.can_receive());
        tty.line();
        assert!(tty.discipline.can_receive());
    }

    #[test]
    fn a_character_that_is_switched_off_is_an_ordinary_one() {
        let mut tty = Typist::new(|termios| termios.characters[VERASE as usize] = DISABLED);
        tty.types(b"a\x7f\0\n");
        assert_eq!(tty.line(), b"a\x7f\0\n");
    }
}
