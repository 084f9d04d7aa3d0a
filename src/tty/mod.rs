//! Terminals: from a line with bytes on it to a file that a shell is used through.
//!
//! The parts, from the inside out: [`termios`] holds the settings; [`discipline`] does echo, editing and signals, a pure machine with an
//! [`input`] and an [`output`] queue; [`job_control`] has the rules of sessions and process groups; [`terminal`], [`mod@file`] and `ioctl` are
//! the terminal and its open files; [`terminals`] is all of them, with /dev/tty and /dev/console. [`screen`] makes a line of a screen and
//! a keyboard, [`pty`] one of a file; [`devpts`]
//! shows pseudo-terminals in /dev/pts.
//!
//! Next: `termios.rs`.

#[cfg(all(test, target_os = "linux"))]
mod against_linux;
pub mod devpts;
pub mod discipline;
pub mod file;
pub mod input;
mod ioctl;
pub mod job_control;
pub mod output;
pub mod pty;
pub mod screen;
pub mod terminal;
pub mod terminals;
pub mod termios;
#[cfg(test)]
mod tests;

pub(crate) use abi::{Errno, Result};

/// The order of this module's locks. Under a terminal's, bytes are copied from and to user memory, which takes the lock of its address
/// space; below come those of the channels and the wait queues. None is held when [`JobControl`] is asked.
mod rank {
    use executor::sync::Rank;

    /// The nodes of /dev/pts.
    pub(super) const NODES: Rank = Rank::new(13);
    /// The list of terminals.
    pub(super) const LIST: Rank = Rank::new(17);
    /// A terminal's state.
    pub(super) const TERMINAL: Rank = Rank::new(19);
    /// A screen's queues.
    pub(super) const SCREEN: Rank = Rank::new(40);
}

pub use job_control::{Caller, JobControl};
pub use screen::Screen;
pub use terminal::{Terminal, WindowSize};
pub use terminals::Terminals;
pub use termios::Termios;
