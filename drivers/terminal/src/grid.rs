//! The cells of a screen, the cursor, and what escape sequences do to them.
//!
//! Rows are stored in any order behind a table, so that scrolling moves indices and no cells. Coordinates count from 0; every
//! method bounds its arguments, whatever a program asks for.
//!
//! Next: `painter.rs`. Exercise: why does a character in the last column not move the cursor to the next line at once?

use alloc::vec::Vec;

use drivers::{Errno, Result};

use crate::cell::{Attributes, Cell};

/// Which part of a line or of the screen is erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// From the cursor to the end.
    ToEnd,
    /// From the beginning to the cursor.
    FromStart,
    /// All.
    All,
}

/// A set of characters: what bytes below 128 mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charset {
    /// Themselves.
    Ascii,
    /// DEC's line-drawing characters in place of the small letters.
    Graphics,
}

/// What `ESC 7` saves.
#[derive(Clone, Copy)]
struct Saved {
    row: usize,
    column: usize,
    attributes: Attributes,
    charsets: [Charset; 2],
    shifted: bool,
}

/// A grid of cells with a cursor.
pub struct Grid {
    columns: usize,
    cells: Vec<Cell>,
    /// For each row of the screen, the row of `cells` it is stored in.
    order: Vec<usize>,
    /// For each row of the screen, whether it changed since it was drawn.
    touched: Vec<bool>,
    tab_stops: Vec<bool>,
    row: usize,
    column: usize,
    /// The last column was written: the next character goes to the next line first.
    wraps_next: bool,
    /// The scrolling region, both ends inclusive.
    top: usize,
    bottom: usize,
    saved: Saved,
    /// The attributes of what is written next.
    pub attributes: Attributes,
    charsets: [Charset; 2],
    /// Whether G1 is in use.
    shifted: bool,
    /// IRM: characters push the rest of the line to the right.
    pub inserts: bool,
    /// LNM: a line feed is also a carriage return.
    pub newline_returns: bool,
    /// DECAWM: lines wrap.
    pub wraps: bool,
    /// DECOM: rows count from the scrolling region's first.
    pub is_relative: bool,
    /// DECTCEM: the cursor is shown.
    pub shows_cursor: bool,
    /// DECCKM: cursor keys send application sequences.
    pub has_application_keys: bool,
    is_reversed: bool,
}

impl Grid {
    /// A blank grid.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if it has no cells.
    pub fn new(columns: usize, rows: usize) -> Result<Grid> {
        if columns == 0 || rows == 0 {
            return Err(Errno::ENODEV);
        }
        let count = columns.checked_mul(rows).ok_or(Errno::ENOMEM)?;
        let saved = Saved {
            row: 0,
            column: 0,
            attributes: Attributes::DEFAULT,
            charsets: [Charset::Ascii, Charset::Ascii],
            shifted: false,
        };
        let mut grid = Grid {
            columns,
            cells: filled(Cell::BLANK, count)?,
            order: filled(0, rows)?,
            touched: filled(true, rows)?,
            tab_stops: filled(false, columns)?,
            row: 0,
            column: 0,
            wraps_next: false,
            top: 0,
            bottom: rows - 1,
            saved,
            attributes: Attributes::DEFAULT,
            charsets: saved.charsets,
            shifted: false,
            inserts: false,
            newline_returns: false,
            wraps: true,
            is_relative: false,
            shows_cursor: true,
            has_application_keys: false,
            is_reversed: false,
        };
        grid.order.iter_mut().enumerate().for_each(|(row, place)| *place = row);
        grid.reset();
        Ok(grid)
    }

    /// As after power-on (`ESC c`).
    pub fn reset(&mut self) {
        self.attributes = Attributes::DEFAULT;
        (self.top, self.bottom) = (0, self.rows() - 1);
        (self.inserts, self.newline_returns, self.wraps, self.is_relative) = (false, false, true, false);
        (self.shows_cursor, self.has_application_keys, self.is_reversed) = (true, false, false);
        (self.charsets, self.shifted) = ([Charset::Ascii, Charset::Ascii], false);
        self.tab_stops.iter_mut().enumerate().for_each(|(column, stop)| *stop = column.is_multiple_of(8));
        (self.row, self.column, self.wraps_next) = (0, 0, false);
        self.save();
        self.erase_screen(Part::All);
    }

    /// Characters of a line.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Lines.
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// The cursor: row and column.
    pub fn cursor(&self) -> (usize, usize) {
        (self.row, self.column)
    }

    /// The row that a program would name 1: it depends on DECOM.
    pub fn reported_row(&self) -> usize {
        if self.is_relative { self.row.saturating_sub(self.top) } else { self.row }
    }

    /// The cursor if it is shown.
    pub fn visible_cursor(&self) -> Option<(usize, usize)> {
        self.shows_cursor.then_some((self.row, self.column))
    }

    /// Whether the whole screen is shown reversed (DECSCNM).
    pub fn is_reversed(&self) -> bool {
        self.is_reversed
    }

    /// Shows the whole screen reversed, or not.
    pub fn set_reversed(&mut self, is_reversed: bool) {
        self.is_reversed = is_reversed;
        self.touch_all();
    }

    /// A cell; the caller keeps to the grid.
    pub fn cell(&self, row: usize, column: usize) -> Cell {
        self.cells[self.order[row] * self.columns + column]
    }

    /// The text of a row, without the blanks at its end.
    pub fn text(&self, row: usize) -> alloc::string::String {
        let text: alloc::string::String = (0..self.columns).map(|column| self.cell(row, column).character).collect();
        text.trim_end().into()
    }

    fn line(&mut self, row: usize) -> &mut [Cell] {
        self.touched[row] = true;
        let start = self.order[row] * self.columns;
        &mut self.cells[start..start + self.columns]
    }

    /// Notes that a row must be looked at when drawing.
    pub fn touch(&mut self, row: usize) {
        if let Some(touched) = self.touched.get_mut(row) {
            *touched = true;
        }
    }

    /// The same for all rows.
    pub fn touch_all(&mut self) {
        self.touched.fill(true);
    }

    /// Whether a row changed since this was last asked.
    pub fn take_touched(&mut self, row: usize) -> bool {
        core::mem::take(&mut self.touched[row])
    }

    // ---- writing ----

    /// Writes a character at the cursor.
    pub fn print(&mut self, character: char) {
        let character = match self.charsets[usize::from(self.shifted)] {
            Charset::Graphics => graphics(character),
            Charset::Ascii => character,
        };
        let width = width(character);
        if width == 0 {
            return;
        }
        if self.wraps_next && self.wraps {
            self.column = 0;
            self.line_feed();
        }
        self.put(character);
        if width == 2 && !self.wraps_next {
            self.put(' ');
        }
    }

    fn put(&mut self, character: char) {
        if self.inserts {
            self.insert_blanks(1);
        }
        let (column, look) = (self.column, self.attributes.look());
        self.line(self.row)[column] = Cell { character, look };
        if self.column + 1 < self.columns {
            self.column += 1;
            self.wraps_next = false;
        } else {
            self.wraps_next = true;
        }
    }

    /// Which set a designation (`ESC (`, `ESC )`) puts where.
    pub fn designate(&mut self, place: usize, charset: Charset) {
        if let Some(entry) = self.charsets.get_mut(place) {
            *entry = charset;
        }
    }

    /// SO and SI: G1 is in use, or G0.
    pub fn shift(&mut self, to_second: bool) {
        self.shifted = to_second;
    }

    // ---- moving ----

    /// Goes to a place; `row` counts from the region's first row under DECOM.
    pub fn go_to(&mut self, row: usize, column: usize) {
        let (first, last) = if self.is_relative { (self.top, self.bottom) } else { (0, self.rows() - 1) };
        self.row = first.saturating_add(row).min(last);
        self.column = column.min(self.columns - 1);
        self.wraps_next = false;
    }

    /// Goes to a column of the same row.
    pub fn go_to_column(&mut self, column: usize) {
        self.column = column.min(self.columns - 1);
        self.wraps_next = false;
    }

    /// Goes to a row, in the same column.
    pub fn go_to_row(&mut self, row: usize) {
        let column = self.column;
        self.go_to(row, column);
    }

    /// Up, not beyond the region's first row if it is inside the region.
    pub fn up(&mut self, count: usize) {
        let first = if self.row >= self.top { self.top } else { 0 };
        self.row = self.row.saturating_sub(count).max(first);
        self.wraps_next = false;
    }

    /// Down, not beyond the region's last row if it is inside the region.
    pub fn down(&mut self, count: usize) {
        let last = if self.row <= self.bottom { self.bottom } else { self.rows() - 1 };
        self.row = self.row.saturating_add(count).min(last);
        self.wraps_next = false;
    }

    /// To the right, at most to the last column.
    pub fn right(&mut self, count: usize) {
        self.go_to_column(self.column.saturating_add(count));
    }

    /// To the left, at most to the first column.
    pub fn left(&mut self, count: usize) {
        self.go_to_column(self.column.saturating_sub(count));
    }

    /// To the first column.
    pub fn carriage_return(&mut self) {
        self.go_to_column(0);
    }

    /// To the next row, scrolling the region at its end.
    pub fn line_feed(&mut self) {
        if self.row == self.bottom {
            self.scroll_up(1);
        } else if self.row + 1 < self.rows() {
            self.row += 1;
        }
        self.wraps_next = false;
    }

    /// To the row before, scrolling the region back at its beginning.
    pub fn reverse_line_feed(&mut self) {
        if self.row == self.top {
            self.scroll_down(1);
        } else {
            self.row = self.row.saturating_sub(1);
        }
        self.wraps_next = false;
    }

    /// To the next tab stop, or the last column.
    pub fn tab(&mut self) {
        let next = (self.column + 1..self.columns).find(|column| self.tab_stops[*column]);
        self.go_to_column(next.unwrap_or(self.columns - 1));
    }

    /// Sets or clears the tab stop here.
    pub fn set_tab_stop(&mut self, is_set: bool) {
        let column = self.column;
        self.tab_stops[column] = is_set;
    }

    /// Clears all tab stops.
    pub fn clear_tab_stops(&mut self) {
        self.tab_stops.fill(false);
    }

    /// Saves cursor, attributes and character sets.
    pub fn save(&mut self) {
        self.saved = Saved {
            row: self.row,
            column: self.column,
            attributes: self.attributes,
            charsets: self.charsets,
            shifted: self.shifted,
        };
    }

    /// Brings back what was saved.
    pub fn restore(&mut self) {
        let saved = self.saved;
        (self.row, self.column, self.wraps_next) = (saved.row, saved.column, false);
        (self.attributes, self.charsets, self.shifted) = (saved.attributes, saved.charsets, saved.shifted);
    }

    // ---- scrolling, inserting, erasing ----

    /// Sets the scrolling region and goes home; an empty one means the whole screen. `bottom` is exclusive.
    pub fn set_region(&mut self, top: usize, bottom: usize) {
        let bottom = bottom.min(self.rows());
        if top + 1 < bottom {
            (self.top, self.bottom) = (top, bottom - 1);
            self.go_to(0, 0);
        }
    }

    /// Moves the region's lines up; blank ones come in below.
    pub fn scroll_up(&mut self, count: usize) {
        self.rotate(self.top, count, true);
    }

    /// Moves the region's lines down; blank ones come in above.
    pub fn scroll_down(&mut self, count: usize) {
        self.rotate(self.top, count, false);
    }

    /// Inserts blank lines at the cursor (IL).
    pub fn insert_lines(&mut self, count: usize) {
        if (self.top..=self.bottom).contains(&self.row) {
            self.rotate(self.row, count, false);
            self.carriage_return();
        }
    }

    /// Removes lines at the cursor (DL).
    pub fn delete_lines(&mut self, count: usize) {
        if (self.top..=self.bottom).contains(&self.row) {
            self.rotate(self.row, count, true);
            self.carriage_return();
        }
    }

    /// Moves the lines from `first` to the region's end up or down, and blanks those that come in.
    fn rotate(&mut self, first: usize, count: usize, is_up: bool) {
        let (last, blank) = (self.bottom, self.attributes.erased());
        let count = count.min(last + 1 - first);
        let rows = &mut self.order[first..=last];
        if is_up {
            rows.rotate_left(count);
        } else {
            rows.rotate_right(count);
        }
        let fresh = if is_up { last + 1 - count..last + 1 } else { first..first + count };
        fresh.for_each(|row| self.line(row).fill(blank));
        self.touched[first..=last].fill(true);
    }

    /// Inserts blanks at the cursor (ICH).
    pub fn insert_blanks(&mut self, count: usize) {
        let (column, blank, count) = (self.column, self.attributes.erased(), count.min(self.columns - self.column));
        let line = &mut self.line(self.row)[column..];
        line.rotate_right(count);
        line[..count].fill(blank);
        self.wraps_next = false;
    }

    /// Removes characters at the cursor (DCH).
    pub fn delete_characters(&mut self, count: usize) {
        let (column, blank, count) = (self.column, self.attributes.erased(), count.min(self.columns - self.column));
        let line = &mut self.line(self.row)[column..];
        line.rotate_left(count);
        let kept = line.len() - count;
        line[kept..].fill(blank);
        self.wraps_next = false;
    }

    /// Blanks characters from the cursor on (ECH).
    pub fn erase_characters(&mut self, count: usize) {
        let (column, blank) = (self.column, self.attributes.erased());
        let end = column.saturating_add(count).min(self.columns);
        self.line(self.row)[column..end].fill(blank);
        self.wraps_next = false;
    }

    /// Blanks a part of the cursor's line (EL).
    pub fn erase_line(&mut self, part: Part) {
        let (column, blank) = (self.column, self.attributes.erased());
        let line = self.line(self.row);
        match part {
            Part::ToEnd => line[column..].fill(blank),
            Part::FromStart => line[..=column].fill(blank),
            Part::All => line.fill(blank),
        }
        self.wraps_next = false;
    }

    /// Blanks a part of the screen (ED).
    pub fn erase_screen(&mut self, part: Part) {
        let (row, blank) = (self.row, self.attributes.erased());
        let lines = match part {
            Part::ToEnd => row + 1..self.rows(),
            Part::FromStart => 0..row,
            Part::All => 0..self.rows(),
        };
        lines.for_each(|row| self.line(row).fill(blank));
        if part != Part::All {
            self.erase_line(part);
        }
        self.wraps_next = false;
    }

    /// Fills the screen with a character, to align a monitor by (`ESC # 8`).
    pub fn fill(&mut self, character: char) {
        let look = self.attributes.look();
        (0..self.rows()).for_each(|row| self.line(row).fill(Cell { character, look }));
    }
}

fn filled<T: Clone>(value: T, count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    list.resize(count, value);
    Ok(list)
}

/// DEC's special graphics, in place of the characters from 0x60 on.
fn graphics(character: char) -> char {
    const SET: [char; 31] = [
        '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├', '┤',
        '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
    ];
    let index = (character as usize).checked_sub(0x60);
    index.and_then(|index| SET.get(index)).copied().unwrap_or(character)
}

/// How many columns a character takes: none for marks that join the one before, two for East Asian characters and pictures.
fn width(character: char) -> usize {
    match character as u32 {
        0..0x300 => 1,
        0x300..=0x36f | 0x200b..=0x200f | 0x20d0..=0x20f0 | 0xfe00..=0xfe0f | 0xfeff => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
