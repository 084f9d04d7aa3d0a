//! `#!` lines: which program a script asks for.
//!
//! The rules are Linux's (execve(2), "Interpreter scripts"): the line ends at a newline or at the end of the file, and must
//! tell the interpreter's path within the first [`LINE_MAX`] bytes; what follows the path is one argument, its inner blanks
//! kept, its ends trimmed, and cut where the bytes end.

/// So many bytes of a file are looked at.
pub const LINE_MAX: usize = 256;

/// What a `#!` line says. The parts lie in the bytes that were parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Script<'a> {
    /// The interpreter's path.
    pub interpreter: &'a [u8],
    /// Its one argument, if any.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Reads the first bytes of a file. `None`: it is not a script that can be executed, and `ENOEXEC` is the answer.
pub fn parse(file: &[u8]) -> Option<Script<'_>> {
    let file = &file[..file.len().min(LINE_MAX)];
    let rest = file.strip_prefix(b"#!")?;
    let newline = rest.iter().position(|byte| *byte == b'\n');
    // Without a newline, all of a short file is the line; of a longer one the line may go on unseen.
    let is_cut = newline.is_none() && file.len() == LINE_MAX;
    // Of a line that goes on, Linux keeps the last byte for a NUL of its own.
    let line = &rest[..newline.unwrap_or(rest.len() - usize::from(is_cut))];
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = line.trim_ascii_start_blanks();
    let end = line.iter().position(|byte| is_blank(*byte));
    let interpreter = &line[..end.unwrap_or(line.len())];
    if interpreter.is_empty() || end.is_none() && is_cut {
        return None;
    }
    let argument = line[interpreter.len()..].trim_ascii_start_blanks().trim_ascii_end_blanks();
    Some(Script { interpreter, argument: (!argument.is_empty()).then_some(argument) })
}

/// Trimming of blanks and tabs only: other white space belongs to the name.
trait TrimBlanks {
    fn trim_ascii_start_blanks(&self) -> &Self;
    fn trim_ascii_end_blanks(&self) -> &Self;
}

impl TrimBlanks for [u8] {
    fn trim_ascii_start_blanks(&self) -> &[u8] {
        &self[self.iter().position(|byte| !is_blank(*byte)).unwrap_or(self.len())..]
    }

    fn trim_ascii_end_blanks(&self) -> &[u8] {
        &self[..self.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn script(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
        parse(line).map(|script| (script.interpreter, script.argument))
    }

    #[test]
    fn blanks_around_the_interpreter_do_not_count() {
        for line in [&b"#!/bin/sh\n"[..], b"#!/bin/sh", b"#!   /bin/sh", b"#!/bin/sh \t \n", b"#!\t/bin/sh\t\nexit"] {
            assert_eq!(script(line), Some((&b"/bin/sh"[..], None)), "{line:?}");
        }
    }

    #[test]
    fn what_follows_is_one_argument_with_its_inner_blanks() {
        assert_eq!(script(b"#!/bin/sh\t-e\n"), Some((&b"/bin/sh"[..], Some(&b"-e"[..]))));
        assert_eq!(script(b"#!/usr/bin/env -S a  b \n"), Some((&b"/usr/bin/env"[..], Some(&b"-S a  b"[..]))));
    }

    #[test]
    fn other_beginnings_are_no_scripts() {
        for line in [&b""[..], b"#", b"#!", b"#!\n", b"#!  \t\n", b" #!/bin/sh\n", b"\xef\xbb\xbf#!/bin/sh\n"] {
            assert_eq!(script(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_path_that_may_be_cut_is_refused_and_an_argument_is_cut() {
        let mut line = b"#!/".to_vec();
        line.resize(300, b'x');
        assert_eq!(script(&line), None);
        line[200] = b' ';
        let (interpreter, argument) = script(&line).expect("the path ends in time");
        assert_eq!((interpreter.len(), argument.map(<[u8]>::len)), (198, Some(LINE_MAX - 202)));
        let exact: Vec<u8> =
            b"#!/".iter().copied().chain(core::iter::repeat_n(b'y', LINE_MAX - 4)).chain(*b"\n").collect();
        assert_eq!(script(&exact).map(|(interpreter, _)| interpreter.len()), Some(LINE_MAX - 3));
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_taken_as_they_are() {
        assert_eq!(script(b"#!/\xff\xfe \x80\n"), Some((&b"/\xff\xfe"[..], Some(&b"\x80"[..]))));
    }
}
