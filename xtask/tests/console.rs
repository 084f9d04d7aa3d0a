//! `cargo run`, as a person has it: on a terminal, whose size the guest follows, and which is left as it was.

use anyhow::{Context, Result, anyhow};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use xtask::typist::Transcript;

/// So long may an answer take, on the slowest machine that runs the tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long the first prompt, since the first run builds the kernel.
const FIRST_PATIENCE: Duration = Duration::from_secs(1200);

/// A terminal with the tool on it.
struct Person {
    keyboard: File,
    terminal: File,
    seen: Arc<Transcript>,
    read: usize,
    tool: Child,
}

impl Person {
    fn sits_down() -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let path = ptsname(&keyboard, Vec::new())?.into_string()?;
        let terminal = File::options().read(true).write(true).open(path)?;
        tcsetwinsize(&keyboard, size(24, 80))?;
        // A session of its own on that terminal, so that a new size is a signal to it.
        let tool = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_xtask"), "--timeout", "1200"])
            .env("TERM", "xterm")
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal.try_clone()?)
            .spawn()
            .context("setsid")?;
        let seen = Arc::new(Transcript::default());
        let (mut screen, transcript) = (File::from(keyboard.try_clone()?), Arc::clone(&seen));
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut chunk) {
                transcript.push(&chunk[..count]);
            }
        });
        Ok(Self { keyboard: keyboard.into(), terminal, seen, read: 0, tool })
    }

    fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Waits until `text` appears behind what was waited for before.
    fn sees(&mut self, text: &str, patience: Duration) -> Result<()> {
        let found = self.seen.wait_for(text, self.read, patience);
        self.read = found.map_err(|instead| anyhow!("not {text:?}, but {instead:?}"))?;
        Ok(())
    }

    fn settings(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.terminal)?)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // Nothing is left to end after a test that went well.
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

fn size(ws_row: u16, ws_col: u16) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn the_guest_follows_the_terminal_s_size_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let mut person = Person::sits_down()?;
    let before = person.settings()?;
    person.sees(":/# ", FIRST_PATIENCE)?;
    assert!(!person.settings()?.local_modes.contains(LocalModes::ICANON), "the guest edits lines, not this terminal");
    person.types("stty size\n")?;
    person.sees("\n24 80", PATIENCE)?;
    person.types("echo -$TERM-\n")?;
    person.sees("-xterm-", PATIENCE)?;
    // The shell itself is to have the signal, and its trap: not a job of its own, which would be the foreground group, nor the line editor,
    // which has a handler of its own. The trap runs when the last command, which is no job, has ended.
    person.types("trap 'echo now: $(stty size)' WINCH; echo re''ady; while [ \"$(stty size)\" = '24 80' ]; do :; done; $(sleep 1)\n")?;
    person.sees("\nready", PATIENCE)?;
    tcsetwinsize(&person.keyboard, size(40, 132))?;
    person.sees("now: 40 132", PATIENCE)?;
    person.types("poweroff\n")?;
    assert!(person.tool.wait()?.success());
    let after = person.settings()?;
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    Ok(())
}
