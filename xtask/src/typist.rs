//! A person at the machine's console, played by a test: types, and waits for what appears.
//!
//! The serial console of a [`Guest`] is QEMU's standard input and output; what it says also goes to the log, so
//! a machine that dies while somebody types still leaves its last words.
//!
//! ```text
//! keys   ──► QEMU's standard input ──► the guest's terminal ──► the program
//! text   ◄── Transcript ◄── keep_log ◄── QEMU's standard output
//! ```
//!
//! What is waited for must not be a part of what was typed: the terminal echoes.

use crate::guest::{Guest, Output};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use user_programs::protocol::{Command, Message};

/// What a terminal sends for some keys.
pub mod key {
    /// Ctrl-C.
    pub const INTERRUPT: &str = "\x03";
    /// Ctrl-D.
    pub const END: &str = "\x04";
    /// Ctrl-backslash.
    pub const QUIT: &str = "\x1c";
    /// Ctrl-Z.
    pub const SUSPEND: &str = "\x1a";
    /// Escape.
    pub const ESCAPE: &str = "\x1b";
    /// Cursor up.
    pub const UP: &str = "\x1b[A";
}

/// So long may an answer take, on the slowest machine that runs the tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// How the prompt of a superuser's shell ends.
pub const PROMPT: &str = "# ";

/// How long a person hesitates.
const PAUSE: Duration = Duration::from_millis(500);

/// All that the console has said.
#[derive(Default)]
pub struct Transcript {
    said: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Transcript {
    /// Takes in what was said.
    pub fn push(&self, bytes: &[u8]) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.more.notify_all();
    }

    /// Waits so long until `text` has been said behind `from`; answers where it ends. A program that draws while somebody types may
    /// move the cursor between any two letters: escape sequences inside `text` are overlooked.
    ///
    /// # Errors
    /// What was said instead.
    pub fn wait_for(&self, text: &str, from: usize, patience: Duration) -> Result<usize, String> {
        let deadline = Instant::now() + patience;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = (from..said.len()).find_map(|start| Some(start + length_of(text, &said[start..])?)) {
                return Ok(end);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(String::from_utf8_lossy(&said[from..]).into_owned());
            }
            said = self.more.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How many bytes of `said` spell `text`, if it begins with that; control sequences (ECMA-48, 5.4) between two letters are no letters.
fn length_of(text: &str, said: &[u8]) -> Option<usize> {
    let mut length = 0;
    for letter in text.bytes() {
        while length > 0 && letter != b'\x1b' && said[length..].starts_with(b"\x1b[") {
            let last = said[length + 2..].iter().position(|byte| (0x40..=0x7e).contains(byte))?;
            length += 2 + last + 1;
        }
        if *said.get(length)? != letter {
            return None;
        }
        length += 1;
    }
    Some(length)
}

/// Who types.
pub struct Typist {
    keys: OwnedFd,
    control: UnixStream,
    transcript: Arc<Transcript>,
    /// How much of the transcript has been read.
    read: usize,
}

impl Typist {
    pub(crate) fn new(keys: OwnedFd, control: UnixStream, transcript: Arc<Transcript>) -> Self {
        let read = transcript.said.lock().unwrap_or_else(PoisonError::into_inner).len();
        Self { keys, control, transcript, read }
    }

    /// Types `keys`, and waits until `answer` appears behind what was read so far.
    ///
    /// # Errors
    /// It does not appear, or the machine is gone.
    pub fn types(&mut self, keys: &str, answer: &str) -> Result<()> {
        std::fs::File::from(self.keys.try_clone()?).write_all(keys.as_bytes()).context("the console is gone")?;
        self.sees(answer).with_context(|| format!("after {keys:?}"))
    }

    /// Types a line for a shell, and waits for `answer` and the next prompt: what is typed ahead is not always kept.
    ///
    /// # Errors
    /// They do not appear, or the machine is gone.
    pub fn enters(&mut self, line: &str, answer: &str) -> Result<()> {
        self.types(&format!("{line}\r"), answer)?;
        self.sees(PROMPT)
    }

    /// Types `keys` again and again until `answer` appears, as people do with ^C: the first may come before the program does.
    ///
    /// # Errors
    /// It does not appear, or the machine is gone.
    pub fn insists(&mut self, keys: &str, answer: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            std::fs::File::from(self.keys.try_clone()?).write_all(keys.as_bytes()).context("the console is gone")?;
            match self.transcript.wait_for(answer, self.read, Duration::from_secs(2)) {
                Ok(end) => {
                    self.read = end;
                    return Ok(());
                }
                Err(instead) if Instant::now() > deadline => {
                    bail!("{keys:?} did not bring {answer:?}, but {instead:?}")
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until `answer` appears behind what was read so far.
    ///
    /// # Errors
    /// It does not appear.
    pub fn sees(&mut self, answer: &str) -> Result<()> {
        match self.transcript.wait_for(answer, self.read, PATIENCE) {
            Ok(end) => self.read = end,
            Err(instead) => bail!("{answer:?} did not appear, but {instead:?}"),
        }
        Ok(())
    }

    /// Types `keys` with a pause before and behind: an escape is no key of its own when others follow it at once.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn presses_alone(&mut self, keys: &str) -> Result<()> {
        std::thread::sleep(PAUSE);
        std::fs::File::from(self.keys.try_clone()?).write_all(keys.as_bytes()).context("the console is gone")?;
        std::thread::sleep(PAUSE);
        Ok(())
    }

    /// Gives the terminal another size, and it a moment to notice, as a person does who drags the window's corner.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn resizes(&mut self, rows: u16, columns: u16) -> Result<()> {
        self.control.write_all(&Message::WindowSize { rows, columns }.encode())?;
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// Runs a program on the console of `guest` while `person` types; answers how the program ended.
///
/// # Errors
/// The person did not see what they waited for (the machine is then gone), or the machine was lost.
pub fn at_the_console(
    guest: &mut Guest,
    arguments: &[&str],
    person: impl FnOnce(&mut Typist) -> Result<()> + Send,
) -> Result<Output> {
    let mut typist = guest.typist()?;
    let command = Command {
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        on_terminal: true,
        ..Command::default()
    };
    guest.feed(std::io::empty())?;
    std::thread::scope(|scope| {
        let typing = scope.spawn(move || {
            let outcome = person(&mut typist);
            if outcome.is_err() {
                // Whatever the program is doing, nobody will end it any more.
                let _ = typist.control.write_all(&Message::Quit.encode());
            }
            outcome
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let end = guest.carry(&command, &mut stdout, &mut stderr);
        typing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Output { end: end?, stdout, stderr })
    })
}

#[cfg(test)]
mod tests {
    use super::length_of;

    #[test]
    fn text_is_found_with_the_cursor_moved_between_its_letters() {
        assert_eq!(length_of("second", b"s\x1b[2;2H\x1b[2;2Hecond\x1b[K"), Some(18));
        assert_eq!(length_of("second", b"second time"), Some(6));
        assert_eq!(length_of("second", b"s\x1b[2;2"), None);
        assert_eq!(length_of("second", b"sec"), None);
        assert_eq!(length_of("second", b"\x1b[Hsecond"), None);
        assert_eq!(length_of("a\x1b[K", b"a\x1b[K"), Some(4));
        assert_eq!(length_of("a\x1b[K", b"a\x1b[H\x1b[K"), None);
    }
}
