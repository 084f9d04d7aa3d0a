//! The other process of the rows that need two.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// How much a bandwidth row moves at once.
pub const CHUNK: usize = 64 << 10;

/// Plays a role until standard input ends.
pub fn run(role: &str) -> ExitCode {
    let outcome = match role {
        "exit" => Ok(()),
        "echo" => echo(),
        "drain" => drain(),
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
