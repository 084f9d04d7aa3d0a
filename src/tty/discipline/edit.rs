//! Editing the line in canonical mode: erasing, ending and showing it again.
//!
//! Next: `../input.rs`.

use abi::general::{
    ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOPRT, IEXTEN, VEOF, VEOL, VEOL2, VERASE, VKILL, VLNEXT, VREPRINT,
    VWERASE,
};

use super::super::input::END_OF_FILE;
use super::super::output::{is_alphanumeric, is_continuation, is_control};
use super::{Discipline, echo};

impl Discipline {
    /// The characters that only canonical mode knows; `false` if this is none of them.
    pub(super) fn edit(&mut self, byte: u8) -> bool {
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
