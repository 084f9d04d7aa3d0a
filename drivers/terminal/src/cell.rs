//! A cell of the screen: a character and how it looks.
//!
//! Next: `sequences.rs`.

/// How a character looks: colours as indices of the 256-colour palette, and whether it is underlined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The colour of the character.
    pub foreground: u8,
    /// The colour behind it.
    pub background: u8,
    /// A line below it.
    pub is_underlined: bool,
}

impl Look {
    /// Light grey on black.
    pub const DEFAULT: Look = Look { foreground: 7, background: 0, is_underlined: false };
}

/// One cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The character; a blank if there is none.
    pub character: char,
    /// How it looks.
    pub look: Look,
}

impl Cell {
    /// An empty cell.
    pub const BLANK: Cell = Cell { character: ' ', look: Look::DEFAULT };
    /// What no cell of a grid ever is: stands for "must be drawn".
    pub const UNKNOWN: Cell = Cell { character: '\0', look: Look::DEFAULT };

    /// The same with its colours exchanged.
    #[must_use]
    pub const fn reversed(self) -> Cell {
        let Look { foreground, background, is_underlined } = self.look;
        Cell { character: self.character, look: Look { foreground: background, background: foreground, is_underlined } }
    }
}

/// The attributes that programs set with SGR, from which a [`Look`] is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The colour of characters, before the others have their say.
    pub foreground: u8,
    /// The colour behind them.
    pub background: u8,
    /// Bold: shown as the bright colour.
    pub is_bold: bool,
    /// Half-bright: shown as dark grey.
    pub is_dim: bool,
    /// Underlined.
    pub is_underlined: bool,
    /// Colours exchanged.
    pub is_reversed: bool,
}

impl Attributes {
    /// None.
    pub const DEFAULT: Attributes = Attributes {
        foreground: Look::DEFAULT.foreground,
        background: Look::DEFAULT.background,
        is_bold: false,
        is_dim: false,
        is_underlined: false,
        is_reversed: false,
    };

    /// What a character written now looks like.
    pub const fn look(&self) -> Look {
        let mut foreground = self.foreground;
        if self.is_dim && foreground < 16 {
            foreground = 8;
        } else if self.is_bold && foreground < 8 {
            foreground += 8;
        }
        let (foreground, background) =
            if self.is_reversed { (self.background, foreground) } else { (foreground, self.background) };
        Look { foreground, background, is_underlined: self.is_underlined }
    }

    /// What an erased cell looks like: the present background, nothing else.
    pub const fn erased(&self) -> Cell {
        let look = Look { foreground: self.foreground, background: self.background, is_underlined: false };
        Cell { character: ' ', look }
    }
}
