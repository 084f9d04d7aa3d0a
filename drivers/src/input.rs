//! Input devices: keyboards.
//!
//! A keyboard driver turns its device's codes into [`KeyEvent`]s and hands them to an [`KeySink`]; the kernel's terminal turns
//! keys into bytes.
//!
//! Next: `display.rs`.

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEvent {
    /// A key that stands for a character, with all modifiers applied (Ctrl-C arrives as `'\x03'`).
    Character(char),
    /// A key without a character.
    Named(NamedKey),
}

/// The keys without a character that a terminal cares about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum NamedKey {
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    Insert,
    Delete,
    Function(u8),
    /// Ctrl-Alt-Delete.
    Reboot,
}

/// Where a keyboard's events go. Called from the driver's task; must not wait.
pub trait KeySink: Send + Sync {
    /// Takes one event.
    fn key(&self, event: KeyEvent);
}
