//! The terminal of the person: its size, and its state, which is put back whatever happened in between.

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use user_programs::protocol::Message;

/// Remembers the state of the terminal on standard input, and restores it when dropped.
pub struct Saved(Option<Termios>);

/// Remembers how the terminal is set; on anything else, does nothing.
pub fn save() -> Saved {
    Saved(tcgetattr(io::stdin()).ok())
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Some(termios) = &self.0 {
            // A terminal that has gone needs no repair.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, termios);
            if io::stdout().is_terminal() {
                // Attributes off, cursor visible, automatic margins on: whatever a full-screen program left behind.
                print!("\x1b[0m\x1b[?25h\x1b[?7h");
                let _ = io::stdout().flush();
            }
        }
    }
}

/// Rows and columns of the terminal on standard output, if it is one and knows.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Tells init, at the other end of `control`, of each new size of this terminal, from now on.
///
/// # Errors
/// There are no more descriptors.
pub fn follow(mut control: UnixStream) -> Result<()> {
    const SIGWINCH: i32 = 28;
    let (mut resized, wake) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    signal_hook::low_level::pipe::register(SIGWINCH, OwnedFd::from(wake))?;
    thread::spawn(move || {
        while let Ok(1..) = resized.read(&mut [0; 64]) {
            let Some((rows, columns)) = size() else { continue };
            if control.write_all(&Message::WindowSize { rows, columns }.encode()).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The words on the kernel's command line that tell init of this terminal.
pub fn words() -> Vec<String> {
    let mut words = Vec::new();
    if let Some((rows, columns)) = size() {
        words.push(format!("init.size={rows}x{columns}"));
    }
    if let Ok(term) = std::env::var("TERM")
        && term.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
        && !term.is_empty()
    {
        words.push(format!("init.term={term}"));
    }
    words
}
