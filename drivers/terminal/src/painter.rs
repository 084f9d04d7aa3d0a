//! Draws cells into a frame buffer.
//!
//! A run of cells is composed in memory, cell by cell, and copied out row of pixels by row of pixels; the frame buffer is never
//! read. Between the colours of a cell lie 16 steps, computed once for a pair of colours, by which the font's edges are
//! smoothed.
//!
//! Next: `glyphs.rs`.

use alloc::vec::Vec;

use drivers::display::{FrameBuffer, PixelFormat};
use drivers::{Errno, Result};

use crate::cell::Cell;
use crate::glyphs::{Font, Glyph};

/// Red, green and blue.
pub type Colour = [u8; 3];

/// The sixteen colours of the PC.
const PC_COLOURS: [Colour; 16] = [
    [0, 0, 0],
    [170, 0, 0],
    [0, 170, 0],
    [170, 85, 0],
    [0, 0, 170],
    [170, 0, 170],
    [0, 170, 170],
    [170, 170, 170],
    [85, 85, 85],
    [255, 85, 85],
    [85, 255, 85],
    [255, 255, 85],
    [85, 85, 255],
    [255, 85, 255],
    [85, 255, 255],
    [255, 255, 255],
];

/// Levels of the 6 × 6 × 6 colour cube in the middle of the 256 colours.
const CUBE_LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];

/// Steps between background and foreground.
const STEPS: usize = 16;

/// The colour number nearest to a colour, in the cube or the greys.
pub fn nearest(colour: Colour) -> u8 {
    let step =
        |level: u8| CUBE_LEVELS.iter().enumerate().min_by_key(|(_, cube)| cube.abs_diff(level)).map_or(0, |(n, _)| n);
    let [red, green, blue] = colour.map(step);
    let cube = 16 + 36 * red + 6 * green + blue;
    let average = colour.iter().map(|level| usize::from(*level)).sum::<usize>() / 3;
    let grey = 232 + (average.saturating_sub(3) / 10).min(23);
    let error = |number: usize| {
        let candidate = standard(number as u8);
        candidate.iter().zip(colour).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>()
    };
    if error(grey) < error(cube) { grey as u8 } else { cube as u8 }
}

/// A colour of the standard 256.
fn standard(number: u8) -> Colour {
    match usize::from(number) {
        index @ 0..16 => PC_COLOURS[index],
        index @ 16..232 => {
            let index = index - 16;
            [CUBE_LEVELS[index / 36], CUBE_LEVELS[index / 6 % 6], CUBE_LEVELS[index % 6]]
        }
        index => [(8 + 10 * (index - 232)) as u8; 3],
    }
}

/// A pixel as the frame buffer wants it: the first `bytes` of the format count.
pub(crate) fn pixel(format: &PixelFormat, colour: Colour) -> [u8; 4] {
    let part = |level: u8, (position, width): (u8, u8)| {
        let width = u32::from(width.min(8));
        (u32::from(level) >> (8 - width)).checked_shl(u32::from(position)).unwrap_or(0)
    };
    let [red, green, blue] = colour;
    (part(red, format.red) | part(green, format.green) | part(blue, format.blue)).to_le_bytes()
}

/// Mixes two colours; `level` of 255 is all of `over`.
pub(crate) fn mix(under: Colour, over: Colour, level: u8) -> Colour {
    let level = u32::from(level);
    let one = |under: u8, over: u8| ((u32::from(under) * (255 - level) + u32::from(over) * level) / 255) as u8;
    [one(under[0], over[0]), one(under[1], over[1]), one(under[2], over[2])]
}

/// Whether a frame buffer is what it says: a known pixel size, and all lines inside its window.
pub(crate) fn is_sound(frame: &FrameBuffer) -> bool {
    let line = frame.width.checked_mul(frame.format.bytes);
    let end = frame.height.checked_mul(frame.pitch);
    (2..=4).contains(&frame.format.bytes)
        && line.is_some_and(|line| line <= frame.pitch)
        && end.is_some_and(|end| end <= frame.pixels.len())
}

/// Draws cells.
pub struct Painter {
    frame: FrameBuffer,
    font: Font,
    palette: Vec<Colour>,
    /// A line of characters under construction: as many rows of pixels as a character is high.
    line: Vec<u8>,
    /// The steps between two colours, and which two.
    steps: [[u8; 4]; STEPS],
    steps_of: Option<(u8, u8)>,
    /// The palette changed: all that was drawn is wrong.
    is_stale: bool,
}

impl Painter {
    /// For this frame buffer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV`: a pixel format that is unknown, or a window that is too small.
    pub fn new(frame: FrameBuffer) -> Result<Painter> {
        if !is_sound(&frame) {
            return Err(Errno::ENODEV);
        }
        let font = Font::for_width(frame.width);
        let mut line = Vec::new();
        let len = frame.width * frame.format.bytes * font.height();
        line.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        line.resize(len, 0);
        let mut palette = Vec::new();
        palette.try_reserve_exact(256).map_err(|_| Errno::ENOMEM)?;
        palette.extend((0..=255).map(standard));
        Ok(Painter { frame, font, palette, line, steps: [[0; 4]; STEPS], steps_of: None, is_stale: false })
    }

    /// How many characters fit in a line.
    pub fn columns(&self) -> usize {
        self.frame.width / self.font.width()
    }

    /// How many lines fit.
    pub fn rows(&self) -> usize {
        self.frame.height / self.font.height()
    }

    /// Changes a colour of the palette.
    pub fn set_colour(&mut self, number: u8, colour: Colour) {
        self.palette[usize::from(number)] = colour;
        (self.is_stale, self.steps_of) = (true, None);
    }

    /// Brings the palette's first colours back.
    pub fn reset_colours(&mut self) {
        self.palette[..16].copy_from_slice(&PC_COLOURS);
        (self.is_stale, self.steps_of) = (true, None);
    }

    /// Whether the palette changed since this was last asked.
    pub(crate) fn take_stale(&mut self) -> bool {
        core::mem::take(&mut self.is_stale)
    }

    /// Paints the whole screen black, its edges included.
    pub fn clear(&mut self) {
        let black = pixel(&self.frame.format, self.palette[0]);
        let bytes = self.frame.format.bytes;
        self.line.chunks_exact_mut(bytes).for_each(|place| place.copy_from_slice(&black[..bytes]));
        for y in 0..self.frame.height {
            self.frame.pixels.blit(y * self.frame.pitch, &self.line[..self.frame.width * bytes]);
        }
    }

    /// Draws cells that stand beside each other, the first at `column`. What lies outside the screen is left out.
    pub fn draw(&mut self, row: usize, column: usize, cells: &[Cell]) {
        let cells = &cells[..cells.len().min(self.columns().saturating_sub(column))];
        if row >= self.rows() || cells.is_empty() {
            return;
        }
        let (bytes, font) = (self.frame.format.bytes, self.font);
        for (index, cell) in cells.iter().enumerate() {
            self.prepare_steps(cell);
            self.compose(index * font.width() * bytes, cell);
        }
        let start = row * font.height() * self.frame.pitch + column * font.width() * bytes;
        let len = cells.len() * font.width() * bytes;
        for (y, pixels) in self.line.chunks_exact(self.frame.width * bytes).enumerate() {
            self.frame.pixels.blit(start + y * self.frame.pitch, &pixels[..len]);
        }
    }

    /// Composes a cell in `line`, `place` bytes from the left.
    fn compose(&mut self, place: usize, cell: &Cell) {
        let (bytes, font) = (self.frame.format.bytes, self.font);
        let glyph = font.glyph(cell.character);
        for (y, row) in self.line.chunks_exact_mut(self.frame.width * bytes).enumerate() {
            let pixels = row[place..place + font.width() * bytes].chunks_exact_mut(bytes);
            if cell.look.is_underlined && y + 2 == font.height() {
                pixels.for_each(|pixel| pixel.copy_from_slice(&self.steps[STEPS - 1][..bytes]));
                continue;
            }
            match glyph {
                Glyph::Raster(raster) => {
                    let levels = raster.get(y * font.width()..).unwrap_or(&[]);
                    for (pixel, level) in pixels.zip(levels) {
                        pixel.copy_from_slice(&self.steps[usize::from(*level) * STEPS / 256][..bytes]);
                    }
                }
                _ => {
                    for (x, pixel) in pixels.enumerate() {
                        let level = font.coverage(glyph, x, y);
                        pixel.copy_from_slice(&self.steps[usize::from(level) * STEPS / 256][..bytes]);
                    }
                }
            }
        }
    }

    fn prepare_steps(&mut self, cell: &Cell) {
        let pair = (cell.look.background, cell.look.foreground);
        if self.steps_of != Some(pair) {
            self.steps_of = Some(pair);
            let (under, over) = (self.palette[usize::from(pair.0)], self.palette[usize::from(pair.1)]);
            for (number, step) in self.steps.iter_mut().enumerate() {
                *step = pixel(&self.frame.format, mix(under, over, (number * 255 / (STEPS - 1)) as u8));
            }
        }
    }
}
