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
//! Next: `discipline/edit.rs`, then `terminal.rs`. Exercise: why does ^V ^C put a 3 into the line and interrupt nobody?

mod edit;
#[cfg(test)]
mod tests;

use abi::general::{
    ECHO, ECHOCTL, ICANON, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP, IUCLC, IXANY, IXON, NOFLSH, PARMRK, SIGINT,
    SIGQUIT, SIGTSTP, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VWERASE,
};

use super::input::{INPUT_CAPACITY, Input};
use super::output::{Output, is_control, to_lowercase};
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
