//! The other process of the rows that need two.

use crate::raw::{self, Semaphores};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// How much a bandwidth row moves at once.
pub const CHUNK: usize = 64 << 10;

/// Plays a role until standard input ends, or until it is killed.
pub fn run(role: &str) -> ExitCode {
    let outcome = match role.split_once(':').unwrap_or((role, "")) {
        ("exit", _) => Ok(()),
        ("echo", _) => echo(),
        ("drain", _) => drain(),
        ("accept", _) => accept(),
        ("lock", _) => LockChase::behind(io::stdin()).and_then(LockChase::run),
        ("semaphores", set) => answer_semaphores(set),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sends each byte back.
fn echo() -> io::Result<()> {
    let mut byte = [0];
    while rustix::io::read(io::stdin(), &mut byte)? == 1 {
        rustix::io::write(io::stdout(), &byte)?;
    }
    Ok(())
}

/// Reads chunks, and answers each whole one with a byte.
fn drain() -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while io::stdin().lock().read_exact(&mut chunk).is_ok() {
        rustix::io::write(io::stdout(), b"k")?;
    }
    Ok(())
}

/// Accepts connections to the listener that is standard input, and closes each.
fn accept() -> io::Result<()> {
    loop {
        rustix::net::accept(io::stdin())?;
    }
}

/// Wakes whoever waits for the second semaphore of a set, whenever it was woken by the first.
fn answer_semaphores(set: &str) -> io::Result<()> {
    let set = Semaphores(set.parse().map_err(io::Error::other)?);
    loop {
        set.add(0, -1)?;
        set.add(1, 1)?;
    }
}

/// One of two processes that chase each other around three bytes of a file: each locks the next byte, for which it must wait until
/// the other has gone on, and unlocks the one behind.
pub struct LockChase<F> {
    file: F,
    held: u8,
}

impl<F: AsFd> LockChase<F> {
    const BYTES: u8 = 3;

    /// The first of the two, which starts the other.
    ///
    /// # Errors
    /// Those of fcntl; the other cannot be started.
    pub fn ahead(file: F) -> io::Result<(Self, Child)> {
        let mut other = myself("lock").stdin(file.as_fd().try_clone_to_owned()?).stdout(Stdio::piped()).spawn()?;
        other.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut [0])?;
        raw::lock_byte(&file, 0)?;
        Ok((Self { file, held: 0 }, other))
    }

    fn behind(file: F) -> io::Result<Self> {
        raw::lock_byte(&file, 1)?;
        rustix::io::write(io::stdout(), b"k")?;
        Ok(Self { file, held: 1 })
    }

    /// Goes on by one byte.
    ///
    /// # Errors
    /// Those of fcntl.
    pub fn step(&mut self) -> io::Result<()> {
        let next = (self.held + 1) % Self::BYTES;
        raw::lock_byte(&self.file, next)?;
        raw::unlock_byte(&self.file, std::mem::replace(&mut self.held, next))
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            self.step()?;
        }
    }
}

/// This program as another process, with a pipe to it and one back.
pub struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
}

impl Peer {
    /// Starts the process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(role: &str) -> io::Result<Self> {
        let mut command = myself(role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Self { child, to, from: from.ok_or(io::ErrorKind::BrokenPipe)? })
    }

    /// Sends bytes and waits for the answer of one byte.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn ask(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(bytes)?;
        let mut answer = [0];
        self.from.read_exact(&mut answer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.to = None;
        // It ends when its input does.
        let _ = self.child.wait();
    }
}

/// This program again, in a role.
pub fn myself(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Ok(path) = std::env::current_exe() {
        command = Command::new(path);
    }
    command.args(["--child", role]);
    command
}
