//! What is shown and what is read when keys are pressed; `../against_linux.rs` compares with Linux.

use super::*;
use abi::general::{ECHOKE, VTIME};
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
