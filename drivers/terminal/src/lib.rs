//! Text on a frame buffer: the Linux console, as `TERM=linux` describes it.
//!
//! Bytes go through the crate `vte`, which finds the escape sequences, into a [`Grid`] of cells; a [`Painter`] draws the cells that
//! changed. What is on the screen is remembered in a shadow copy, so nothing is ever read from the frame buffer (which may be a
//! thousand times slower than memory), and a screenful that scrolls past between two looks is drawn once.
//!
//! ```text
//!   write ─► filter ─► vte::Parser ─► Grid (cells, cursor, modes) ─► flush: cell ≠ shadow ─► Painter ─► FrameBuffer
//!                                       └─► replies (where is the cursor?) ─► whoever reads the keyboard
//! ```
//!
//! [`PanicScreen`] is the other way to the same pixels: it needs no memory, no lock and no history.
//!
//! `cargo run -p terminal --example screenshot` draws a test picture into a PNG file.
//!
//! Next: `grid.rs`. Exercise: what would change for a screen of which only a part may be drawn per millisecond?
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod cell;
mod filter;
mod glyphs;
pub mod grid;
pub mod painter;
mod panic_screen;
mod sequences;

use alloc::boxed::Box;
use alloc::vec::Vec;

use drivers::display::FrameBuffer;
use drivers::{Errno, Result};

use cell::Cell;
use filter::Filter;
pub use grid::Grid;
pub use painter::Painter;
pub use panic_screen::PanicScreen;
use sequences::Interpreter;

/// A terminal on a screen.
pub struct Terminal {
    filter: Filter,
    parser: Box<vte::Parser>,
    grid: Grid,
    painter: Painter,
    /// What is on the screen, row by row.
    shadow: Vec<Cell>,
    /// Where the cursor was drawn.
    drawn_cursor: Option<(usize, usize)>,
}

impl Terminal {
    /// Takes the screen over and clears it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. `ENODEV`: a screen that is too small for a single character, or in a pixel format that is unknown.
    pub fn new(frame: FrameBuffer) -> Result<Terminal> {
        let painter = Painter::new(frame)?;
        let grid = Grid::new(painter.columns(), painter.rows())?;
        let mut shadow = Vec::new();
        let cells = painter.columns() * painter.rows();
        shadow.try_reserve_exact(cells).map_err(|_| Errno::ENOMEM)?;
        shadow.resize(cells, Cell::BLANK);
        let mut terminal =
            Terminal { filter: Filter::new(), parser: Box::default(), grid, painter, shadow, drawn_cursor: None };
        terminal.painter.clear();
        terminal.flush();
        Ok(terminal)
    }

    /// Characters of a line.
    pub fn columns(&self) -> usize {
        self.grid.columns()
    }

    /// Lines.
    pub fn rows(&self) -> usize {
        self.grid.rows()
    }

    /// The cells.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Interprets bytes; `reply` gets what the terminal has to say to the program. Nothing is drawn before [`Terminal::flush`].
    pub fn write(&mut self, bytes: &[u8], reply: &mut dyn FnMut(&[u8])) {
        let Terminal { filter, parser, grid, painter, .. } = self;
        let mut interpreter = Interpreter { grid, reply };
        filter.pass(bytes, &mut |part| match part {
            filter::Part::Bytes(bytes) => parser.advance(&mut interpreter, bytes),
            filter::Part::Palette(index, colour) => painter.set_colour(index, colour),
            filter::Part::ResetPalette => painter.reset_colours(),
        });
    }

    /// Draws what has changed.
    pub fn flush(&mut self) {
        while self.flush_some(usize::MAX) {}
    }

    /// Draws what has changed in at most so many lines; whether there is more to draw.
    pub fn flush_some(&mut self, most: usize) -> bool {
        if self.painter.take_stale() {
            self.shadow.fill(Cell::UNKNOWN);
            self.grid.touch_all();
        }
        let cursor = self.grid.visible_cursor();
        if cursor != self.drawn_cursor {
            for (row, _) in [cursor, self.drawn_cursor].into_iter().flatten() {
                self.grid.touch(row);
            }
            self.drawn_cursor = cursor;
        }
        let mut drawn = 0;
        for row in 0..self.grid.rows() {
            if drawn == most {
                return true;
            }
            if self.grid.take_touched(row) {
                self.draw_row(row);
                drawn += 1;
            }
        }
        false
    }

    /// Draws the cells of a row that differ from what is on the screen.
    fn draw_row(&mut self, row: usize) {
        let (cursor, columns) = (self.drawn_cursor, self.grid.columns());
        let shadow = &mut self.shadow[row * columns..(row + 1) * columns];
        let mut column = 0;
        while column < columns {
            let start = column;
            while column < columns {
                let cell = shown(&self.grid, cursor, row, column);
                if shadow[column] == cell {
                    break;
                }
                shadow[column] = cell;
                column += 1;
            }
            if start < column {
                self.painter.draw(row, start, &shadow[start..column]);
            }
            column += 1;
        }
    }
}

/// What a cell looks like: reversed by the cursor or by the whole screen's being reversed.
fn shown(grid: &Grid, cursor: Option<(usize, usize)>, row: usize, column: usize) -> Cell {
    let cell = grid.cell(row, column);
    let is_reversed = grid.is_reversed() != (cursor == Some((row, column)));
    if is_reversed { cell.reversed() } else { cell }
}
