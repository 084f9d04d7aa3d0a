//! What characters look like: the font, and lines and blocks, which are drawn by rule so that they meet.
//!
//! Next: `panic_screen.rs`.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// A size of the font.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Font {
    height: RasterHeight,
}

/// Where the pixels of a glyph come from.
#[derive(Clone, Copy)]
pub(crate) enum Glyph {
    /// From the font: coverage from 0 to 255, row by row.
    Raster(&'static [u8]),
    /// Lines from the centre: up, down, left, right.
    Lines([bool; 4]),
    /// A part of the cell: from column, row to column, row, in eighths.
    Block([usize; 4]),
    /// All of the cell, that much of the colour.
    Shade(u8),
}

impl Font {
    /// The one for a screen of this width: characters twice as high on screens with very small pixels.
    pub(crate) fn for_width(pixels: usize) -> Font {
        Font { height: if pixels >= 2560 { RasterHeight::Size32 } else { RasterHeight::Size16 } }
    }

    /// Width of a character in pixels.
    pub(crate) fn width(self) -> usize {
        get_raster_width(FontWeight::Regular, self.height)
    }

    /// Height of a character in pixels.
    pub(crate) fn height(self) -> usize {
        self.height.val()
    }

    /// What a character looks like.
    pub(crate) fn glyph(self, character: char) -> Glyph {
        if let Some(drawn) = drawn(character) {
            return drawn;
        }
        let raster = |character| get_raster(character, FontWeight::Regular, self.height);
        let found = raster(character).or_else(|| raster(stand_in(character))).or_else(|| raster('?'));
        Glyph::Raster(found.map_or(&[], |glyph| glyph.pixels()))
    }

    /// How much of the foreground colour a pixel of a glyph gets, 0 to 255.
    pub(crate) fn coverage(self, glyph: Glyph, x: usize, y: usize) -> u8 {
        let (width, height) = (self.width(), self.height());
        let is_covered = match glyph {
            Glyph::Raster(pixels) => return pixels.get(y * width + x).copied().unwrap_or(0),
            Glyph::Shade(level) => return level,
            Glyph::Lines([up, down, left, right]) => {
                // A line is a sixteenth of the height thick; the centre belongs to all.
                let thickness = height / 16;
                let (middle_x, middle_y) = (width / 2, height / 2);
                let on_column = (middle_x..middle_x + thickness).contains(&x);
                let on_row = (middle_y..middle_y + thickness).contains(&y);
                (on_column && ((up && y < middle_y + thickness) || (down && y >= middle_y)))
                    || (on_row && ((left && x < middle_x + thickness) || (right && x >= middle_x)))
            }
            Glyph::Block([left, top, right, bottom]) => {
                let inside = |place: usize, size: usize, from: usize, to: usize| {
                    place * 8 >= from * size && place * 8 < to * size
                };
                inside(x, width, left, right) && inside(y, height, top, bottom)
            }
        };
        if is_covered { 255 } else { 0 }
    }
}

/// Line drawing and block elements.
fn drawn(character: char) -> Option<Glyph> {
    let lines = |up, down, left, right| Some(Glyph::Lines([up, down, left, right]));
    match character {
        '─' | '━' | '═' | '⎺' | '⎻' | '⎼' | '⎽' => lines(false, false, true, true),
        '│' | '┃' | '║' => lines(true, true, false, false),
        '┌' | '┏' | '╔' | '╭' => lines(false, true, false, true),
        '┐' | '┓' | '╗' | '╮' => lines(false, true, true, false),
        '└' | '┗' | '╚' | '╰' => lines(true, false, false, true),
        '┘' | '┛' | '╝' | '╯' => lines(true, false, true, false),
        '├' | '┣' | '╠' => lines(true, true, false, true),
        '┤' | '┫' | '╣' => lines(true, true, true, false),
        '┬' | '┳' | '╦' => lines(false, true, true, true),
        '┴' | '┻' | '╩' => lines(true, false, true, true),
        '┼' | '╋' | '╬' => lines(true, true, true, true),
        '▀' => Some(Glyph::Block([0, 0, 8, 4])),
        // Lower blocks, from one eighth to all of it.
        '▁'..='█' => Some(Glyph::Block([0, 8 - (character as usize - '▁' as usize + 1), 8, 8])),
        '▌' => Some(Glyph::Block([0, 0, 4, 8])),
        '▐' => Some(Glyph::Block([4, 0, 8, 8])),
        '■' => Some(Glyph::Block([1, 2, 7, 6])),
        '░' => Some(Glyph::Shade(64)),
        '▒' => Some(Glyph::Shade(128)),
        '▓' => Some(Glyph::Shade(192)),
        ' ' | '\0' | '\u{a0}' => Some(Glyph::Shade(0)),
        _ => None,
    }
}

/// An ASCII character in place of one that the font lacks, where there is one that reads the same.
fn stand_in(character: char) -> char {
    match character {
        '‐'..='―' | '−' => '-',
        '‘' | '’' | '‚' | '′' => '\'',
        '“' | '”' | '„' | '″' => '"',
        '…' => '.',
        '•' | '●' | '◆' | '∙' => '*',
        '←' | '‹' | '◀' | '≤' => '<',
        '→' | '›' | '▶' | '≥' => '>',
        '↑' | '▲' => '^',
        '↓' | '▼' => 'v',
        '✓' | '✔' => 'v',
        '✗' | '✘' | '×' => 'x',
        _ => char::REPLACEMENT_CHARACTER,
    }
}
