//! The Linux console's palette sequences, which are no proper escape sequences: `ESC ] P nrrggbb` sets a colour, `ESC ] R` brings
//! all back. They have no terminator, so a standard parser would wait for one and swallow what follows. They are taken out here.
//!
//! Next: `sequences.rs`.

/// What the filter lets through, or has found.
pub(crate) enum Part<'a> {
    /// Bytes for the parser.
    Bytes(&'a [u8]),
    /// A colour of the palette is to be changed to this red, green, blue.
    Palette(u8, [u8; 3]),
    /// All colours are to be as they were.
    ResetPalette,
}

/// Where in a sequence the last byte left us.
#[derive(Clone, Copy)]
enum State {
    Text,
    /// After ESC, which was let through.
    Escape,
    /// After `ESC ]`, of which the bracket was held back.
    Bracket,
    /// In the hexadecimal digits: how many came, and their value.
    Digits(u8, u32),
}

pub(crate) struct Filter {
    state: State,
}

impl Filter {
    pub(crate) const fn new() -> Filter {
        Filter { state: State::Text }
    }

    /// Passes bytes on, in parts.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut dyn FnMut(Part<'_>)) {
        // Everything before `start` has been passed on or taken out.
        let mut start = 0;
        for (place, byte) in bytes.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Text | State::Escape, 0x1b) => State::Escape,
                (State::Text, _) => State::Text,
                (State::Escape, b']') => {
                    out(Part::Bytes(&bytes[start..place]));
                    start = place + 1;
                    State::Bracket
                }
                (State::Escape, _) => State::Text,
                (State::Bracket, b'R' | b'P') => {
                    // The parser still waits behind its ESC: a backslash ends that, and means nothing.
                    out(Part::Bytes(b"\\"));
                    start = place + 1;
                    if *byte == b'R' {
                        out(Part::ResetPalette);
                        State::Text
                    } else {
                        State::Digits(0, 0)
                    }
                }
                (State::Bracket, _) => {
                    out(Part::Bytes(b"]"));
                    start = place;
                    if *byte == 0x1b { State::Escape } else { State::Text }
                }
                (State::Digits(count, value), _) => match char::from(*byte).to_digit(16) {
                    Some(digit) => {
                        start = place + 1;
                        let value = value << 4 | digit;
                        if count == 6 {
                            let [index, red, green, blue] = value.to_be_bytes();
                            out(Part::Palette(index, [red, green, blue]));
                            State::Text
                        } else {
                            State::Digits(count + 1, value)
                        }
                    }
                    None => {
                        start = place;
                        if *byte == 0x1b { State::Escape } else { State::Text }
                    }
                },
            };
        }
        if start < bytes.len() {
            out(Part::Bytes(&bytes[start..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `text` in pieces of `size`; returns what was let through and what was found.
    fn passed(text: &[u8], size: usize) -> (Vec<u8>, Vec<String>) {
        let mut filter = Filter::new();
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        for piece in text.chunks(size) {
            filter.pass(piece, &mut |part| match part {
                Part::Bytes(more) => bytes.extend_from_slice(more),
                Part::Palette(index, colour) => found.push(format!("{index}: {colour:?}")),
                Part::ResetPalette => found.push("reset".into()),
            });
        }
        (bytes, found)
    }

    #[test]
    fn palette_sequences_are_taken_out_however_they_are_cut() {
        for size in 1..20 {
            let (bytes, found) = passed(b"a\x1b]P1ff8000b\x1b]Rc\x1b]0;title\x07d\x1b[1me", size);
            assert_eq!(bytes, b"a\x1b\\b\x1b\\c\x1b]0;title\x07d\x1b[1me", "in pieces of {size}");
            assert_eq!(found, ["1: [255, 128, 0]", "reset"]);
        }
    }

    #[test]
    fn a_palette_sequence_that_breaks_off_loses_only_itself() {
        let (bytes, found) = passed(b"\x1b]P1f\x1b[mx\x1b]P1zy", 100);
        assert_eq!(bytes, b"\x1b\\\x1b[mx\x1b\\zy");
        assert!(found.is_empty());
    }
}
