//! Text on the screen when nothing can be relied on any more: no memory, no lock, no history.
//!
//! It writes white on black from the top of the screen, over whatever is there, and begins again at the top when the screen is full.
//!
//! Next: `src/tty/mod.rs`, what stands above a terminal.

use core::sync::atomic::{AtomicUsize, Ordering};

use drivers::display::FrameBuffer;
use drivers::{Errno, Result};

use crate::glyphs::Font;
use crate::painter::{is_sound, mix, pixel};

/// The widest character of all fonts, in bytes of pixels.
const WIDEST: usize = 32 * 4;

/// Writes a last message on a screen.
pub struct PanicScreen {
    frame: FrameBuffer,
    /// The next cell: row × columns + column.
    place: AtomicUsize,
}

impl PanicScreen {
    /// For this frame buffer; to be made while all is well.
    ///
    /// # Errors
    ///
    /// `ENODEV`: a pixel format that is unknown, or a screen that is too small.
    pub fn new(frame: FrameBuffer) -> Result<PanicScreen> {
        let font = Font::for_width(frame.width);
        let fits = frame.width >= font.width() && frame.height >= font.height();
        if !is_sound(&frame) || !fits || font.width() * frame.format.bytes > WIDEST {
            return Err(Errno::ENODEV);
        }
        Ok(PanicScreen { frame, place: AtomicUsize::new(0) })
    }

    /// Writes text; only newlines are more than characters.
    pub fn write(&self, text: &str) {
        let font = Font::for_width(self.frame.width);
        let columns = self.frame.width / font.width();
        let cells = columns * (self.frame.height / font.height());
        for character in text.chars() {
            // Relaxed: one CPU reports a panic.
            let place = self.place.load(Ordering::Relaxed) % cells;
            if place.is_multiple_of(columns) {
                (0..columns).for_each(|column| self.draw(place + column, ' '));
            }
            let next = if character == '\n' { place - place % columns + columns } else { place + 1 };
            if character != '\n' {
                self.draw(place, character);
            }
            self.place.store(next, Ordering::Relaxed);
        }
    }

    fn draw(&self, place: usize, character: char) {
        let FrameBuffer { pixels, width, pitch, format, .. } = self.frame;
        let font = Font::for_width(width);
        let columns = width / font.width();
        let start = place / columns * font.height() * pitch + place % columns * font.width() * format.bytes;
        let glyph = font.glyph(character);
        for y in 0..font.height() {
            let mut line = [0; WIDEST];
            for x in 0..font.width() {
                let colour = pixel(&format, mix([0; 3], [255; 3], font.coverage(glyph, x, y)));
                line[x * format.bytes..(x + 1) * format.bytes].copy_from_slice(&colour[..format.bytes]);
            }
            pixels.blit(start + y * pitch, &line[..font.width() * format.bytes]);
        }
    }
}
