//! Terminals: from a line with bytes on it to a file that a shell is used through.
//!
//! - [`termios`]: the settings. - [`discipline`]: echo, editing, signals; a pure machine with an [`input`] and an [`output`] queue.
//! - [`job_control`]: the rules of sessions and process groups. - [`terminal`], [`file`], [`ioctl`]: the terminal and its open files.
//! - [`terminals`]: all of them, with /dev/tty and /dev/console. - [`screen`]: a screen and a keyboard as a line.
//! - [`pty`]: pseudo-terminals.
//!
//! Next: `termios.rs`.

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
pub use job_control::{Caller, JobControl};
pub use screen::Screen;
pub use terminal::{Terminal, WindowSize};
pub use terminals::Terminals;
pub use termios::Termios;
