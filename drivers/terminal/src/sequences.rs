//! The escape sequences of the Linux console (console_codes(4)), as calls of [`Grid`]'s methods.
//!
//! Next: `grid.rs`.

use vte::{Params, Perform};

use crate::cell::{Attributes, Look};
use crate::grid::{Charset, Grid, Part};

/// A grid that obeys, and somebody to answer to.
pub(crate) struct Interpreter<'a> {
    pub(crate) grid: &'a mut Grid,
    pub(crate) reply: &'a mut dyn FnMut(&[u8]),
}

/// "I am a VT102", as the Linux console says.
const IDENTITY: &[u8] = b"\x1b[?6c";

impl Perform for Interpreter<'_> {
    fn print(&mut self, character: char) {
        // DEL is in the parser's eyes a character; the console ignores it.
        if character != '\x7f' {
            self.grid.print(character);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            0x08 => self.grid.left(1),
            b'\t' => self.grid.tab(),
            b'\n' | 0x0b | 0x0c => {
                self.grid.line_feed();
                if self.grid.newline_returns {
                    self.grid.carriage_return();
                }
            }
            b'\r' => self.grid.carriage_return(),
            0x0e => self.grid.shift(true),
            0x0f => self.grid.shift(false),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _is_ignored: bool, byte: u8) {
        match (intermediates, byte) {
            ([], b'c') => self.grid.reset(),
            ([], b'D') => self.grid.line_feed(),
            ([], b'E') => {
                self.grid.carriage_return();
                self.grid.line_feed();
            }
            ([], b'H') => self.grid.set_tab_stop(true),
            ([], b'M') => self.grid.reverse_line_feed(),
            ([], b'Z') => (self.reply)(IDENTITY),
            ([], b'7') => self.grid.save(),
            ([], b'8') => self.grid.restore(),
            (b"#", b'8') => self.grid.fill('E'),
            (b"(", set) => self.grid.designate(0, charset(set)),
            (b")", set) => self.grid.designate(1, charset(set)),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], is_ignored: bool, action: char) {
        if is_ignored {
            return;
        }
        match intermediates {
            [] => self.control(params, action),
            b"?" => self.private(params, action),
            _ => {}
        }
    }
}

fn charset(name: u8) -> Charset {
    if name == b'0' { Charset::Graphics } else { Charset::Ascii }
}

/// The parameter at `index`, or 0.
fn parameter(params: &Params, index: usize) -> usize {
    params.iter().nth(index).and_then(|values| values.first()).map_or(0, |value| usize::from(*value))
}

fn part(number: usize) -> Option<Part> {
    match number {
        0 => Some(Part::ToEnd),
        1 => Some(Part::FromStart),
        2 | 3 => Some(Part::All),
        _ => None,
    }
}

impl Interpreter<'_> {
    fn control(&mut self, params: &Params, action: char) {
        let first = parameter(params, 0);
        let second = parameter(params, 1);
        // Where nothing or 0 is given, one step or the first row or column is meant.
        let count = first.max(1);
        let grid = &mut *self.grid;
        match action {
            '@' => grid.insert_blanks(count),
            'A' => grid.up(count),
            'B' | 'e' => grid.down(count),
            'C' | 'a' => grid.right(count),
            'D' => grid.left(count),
            'E' => {
                grid.down(count);
                grid.carriage_return();
            }
            'F' => {
                grid.up(count);
                grid.carriage_return();
            }
            'G' | '`' => grid.go_to_column(count - 1),
            'H' | 'f' => grid.go_to(count - 1, second.max(1) - 1),
            'J' => {
                if let Some(part) = part(first) {
                    grid.erase_screen(part);
                }
            }
            'K' => {
                if let Some(part) = part(first) {
                    grid.erase_line(part);
                }
            }
            'L' => grid.insert_lines(count),
            'M' => grid.delete_lines(count),
            'P' => grid.delete_characters(count),
            'S' => grid.scroll_up(count),
            'T' => grid.scroll_down(count),
            'X' => grid.erase_characters(count),
            'c' if first == 0 => (self.reply)(IDENTITY),
            'd' => grid.go_to_row(count - 1),
            'g' if first == 0 => grid.set_tab_stop(false),
            'g' if first == 3 => grid.clear_tab_stops(),
            'h' | 'l' => params.iter().flatten().for_each(|mode| match mode {
                4 => grid.inserts = action == 'h',
                20 => grid.newline_returns = action == 'h',
                _ => {}
            }),
            'm' => select(&mut grid.attributes, params),
            'n' => self.report(first),
            'r' => {
                let bottom = if second == 0 { grid.rows() } else { second };
                grid.set_region(count - 1, bottom);
            }
            's' => grid.save(),
            'u' => grid.restore(),
            _ => {}
        }
    }

    fn private(&mut self, params: &Params, action: char) {
        let is_on = match action {
            'h' => true,
            'l' => false,
            _ => return,
        };
        let grid = &mut *self.grid;
        for mode in params.iter().flatten() {
            match mode {
                1 => grid.has_application_keys = is_on,
                5 => grid.set_reversed(is_on),
                6 => {
                    grid.is_relative = is_on;
                    grid.go_to(0, 0);
                }
                7 => grid.wraps = is_on,
                25 => grid.shows_cursor = is_on,
                _ => {}
            }
        }
    }

    /// DSR: all is well, or where the cursor is.
    fn report(&mut self, what: usize) {
        match what {
            5 => (self.reply)(b"\x1b[0n"),
            6 => {
                let (row, column) = (self.grid.reported_row() + 1, self.grid.cursor().1 + 1);
                let text = alloc::format!("\x1b[{row};{column}R");
                (self.reply)(text.as_bytes());
            }
            _ => {}
        }
    }
}

/// SGR: sets attributes.
fn select(attributes: &mut Attributes, params: &Params) {
    let mut params = params.iter();
    while let Some(values) = params.next() {
        match values.first().copied().unwrap_or(0) {
            0 => *attributes = Attributes::DEFAULT,
            1 => (attributes.is_bold, attributes.is_dim) = (true, false),
            2 => (attributes.is_bold, attributes.is_dim) = (false, true),
            4 | 21 => attributes.is_underlined = true,
            7 => attributes.is_reversed = true,
            22 => (attributes.is_bold, attributes.is_dim) = (false, false),
            24 => attributes.is_underlined = false,
            27 => attributes.is_reversed = false,
            colour @ 30..=37 => attributes.foreground = ansi(colour - 30),
            38 => {
                if let Some(colour) = extended(values, &mut params) {
                    attributes.foreground = colour;
                }
            }
            39 => attributes.foreground = Look::DEFAULT.foreground,
            colour @ 40..=47 => attributes.background = ansi(colour - 40),
            48 => {
                if let Some(colour) = extended(values, &mut params) {
                    attributes.background = colour;
                }
            }
            49 => attributes.background = Look::DEFAULT.background,
            colour @ 90..=97 => attributes.foreground = ansi(colour - 90) + 8,
            colour @ 100..=107 => attributes.background = ansi(colour - 100) + 8,
            _ => {}
        }
    }
}

/// One of the first eight colours.
fn ansi(number: u16) -> u8 {
    (number & 7) as u8
}

/// The colour behind 38 or 48: `5;N`, or `2;R;G;B`; separated by colons, all is in `values`.
fn extended(values: &[u16], params: &mut vte::ParamsIter<'_>) -> Option<u8> {
    let mut colons = values.get(1..).unwrap_or(&[]).iter().copied();
    let has_colons = values.len() > 1;
    let mut next = || if has_colons { colons.next() } else { params.next().and_then(|values| values.first().copied()) };
    match next()? {
        5 => u8::try_from(next()?).ok(),
        2 => {
            let mut level = || Some(next()?.min(255) as u8);
            Some(crate::painter::nearest([level()?, level()?, level()?]))
        }
        _ => None,
    }
}
