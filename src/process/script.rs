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
    let line = &rest[..newline.unwrap_or(rest.len())];
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    // Without a newline or a NUL, all of a short file is the line; of a longer one the line goes on unseen.
    let goes_on = newline.is_none() && line.len() == LINE_MAX - 2;
    let start = line.iter().position(|byte| !is_blank(*byte))?;
    let end = line[start..].iter().position(|byte| is_blank(*byte)).map(|len| start + len);
    if end.is_none() && goes_on {
        return None;
    }
    let end = end.unwrap_or(line.len());
    // The last byte that is looked at may end a path, but is never part of an argument: Linux keeps it for a NUL of its own.
    let argument = &line[end..line.len() - usize::from(goes_on)];
    let (interpreter, argument) = (&line[start..end], trim_blanks(argument));
    Some(Script { interpreter, argument: (!argument.is_empty()).then_some(argument) })
}

/// Without blanks and tabs at its ends: other white space belongs to the argument.
fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_blank(*byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_blank(*byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
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
        let of_len = |len: usize, end: &[u8]| -> Vec<u8> {
            b"#!/".iter().copied().chain(core::iter::repeat_n(b'y', len - 1)).chain(end.iter().copied()).collect()
        };
        for (len, end, fits) in [
            (LINE_MAX - 3, &b"\n"[..], true),
            (LINE_MAX - 3, b" x\n", true),
            (LINE_MAX - 3, b"", true),
            (LINE_MAX - 2, b"\n", false),
            (LINE_MAX - 2, b" x\n", false),
        ] {
            let found = of_len(len, end);
            let wanted = fits.then_some((len, None));
            assert_eq!(script(&found).map(|(path, argument)| (path.len(), argument)), wanted, "{len} {end:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_taken_as_they_are() {
        assert_eq!(script(b"#!/\xff\xfe \x80\n"), Some((&b"/\xff\xfe"[..], Some(&b"\x80"[..]))));
    }

    #[test]
    fn any_bytes_are_refused_or_give_parts_of_themselves() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % bound
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut file = Vec::new();
            if random(8) != 0 {
                file.extend(b"#!");
            }
            // Mostly bytes that mean something.
            let len = if random(2) == 0 { random(40) } else { 240 + random(40) };
            file.extend((0..len).map(|_| match random(40) {
                0 => b'\n',
                1 => 0,
                2..6 => b" \t"[random(2)],
                6 => random(256) as u8,
                _ => b'a',
            }));
            let Some(Script { interpreter, argument }) = parse(&file) else { continue };
            accepted += 1;
            assert!(file.starts_with(b"#!") && !interpreter.is_empty());
            assert!(!interpreter.iter().any(|byte| is_blank(*byte) || [0, b'\n'].contains(byte)));
            let argument = argument.unwrap_or(b"x");
            assert!(!argument.is_empty() && !argument.iter().any(|byte| [0, b'\n'].contains(byte)));
            assert!(!is_blank(argument[0]) && !is_blank(argument[argument.len() - 1]));
            // What lies beyond the bytes that are looked at changes nothing.
            let seen = &file[..file.len().min(LINE_MAX)];
            let whole = parse(&file).map(|script| (script.interpreter.to_vec(), script.argument.map(<[u8]>::to_vec)));
            assert_eq!(
                parse(seen).map(|script| (script.interpreter.to_vec(), script.argument.map(<[u8]>::to_vec))),
                whole
            );
        }
        assert!(accepted > 10_000, "{accepted}");
    }
}
