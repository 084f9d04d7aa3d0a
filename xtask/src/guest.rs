//! A machine that runs programs for us: boots headless, and carries standard streams in and out over a virtio console.
//!
//! ```text
//! port 1  <- a thread of each program: frames of what it is given
//! port 2, 3, 4, serial  -> a thread each -> one bounded channel of events -> carry(), which writes them where they belong
//! ```
//!
//! The channel is bounded, so that a slow reader here slows the program there. A machine that ends shows as the end of port 4.
//! QEMU gets its ends of the sockets as descriptors; when this process dies, they close, and init powers the machine off.
//!
//! next: `user_programs::protocol`; then `exec.rs`, the smallest user of this.

mod lost;
mod spawn;
mod streams;

use crate::machine::Options;
use crate::paths;
use crate::typist::{Transcript, Typist};
use anyhow::{Context, Result};
use lost::classify;
use spawn::spawn;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use streams::{CHUNK, Event, Sink, keep_log, read_bytes, read_messages};
use user_programs::protocol::{self, CONTROL_PORT, End, Message, STDERR_PORT, STDIN_PORT, STDOUT_PORT};

pub use lost::{Failure, Lost};

/// How many pieces wait for a slow reader.
const PIECES: usize = 16;
/// The kernel's last words, as shown when something went wrong.
const LOG_LINES: usize = 40;
/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Whether it exited with status 0.
    pub fn is_success(&self) -> bool {
        self.end == End::Exited(0)
    }
}

/// A running machine.
pub struct Guest {
    qemu: Child,
    _leash: Sender<()>,
    stdin: UnixStream,
    control: UnixStream,
    events: Receiver<Event>,
    log: Arc<Mutex<VecDeque<u8>>>,
    transcript: Arc<Transcript>,
    folder: PathBuf,
    deadline: Option<Instant>,
    started: Instant,
    /// How long the guest took from QEMU's start to init's first word.
    pub boot_time: Duration,
}

impl Guest {
    /// Starts a machine and waits until its init answers. The time limit of `options` counts from here.
    ///
    /// # Errors
    /// Something that is needed cannot be provided; or [`Lost`], if the machine ended.
    pub fn start(options: &Options) -> Result<Self> {
        Self::launch(options, options.command(&["init.mode=exec".into()])?, false)
    }

    /// Like [`Guest::start`], but the console is this terminal.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub fn start_on_terminal(options: &Options, words: &[String]) -> Result<Self> {
        let words: Vec<String> = [&["init.mode=exec".to_owned()], words].concat();
        Self::launch(options, options.command(&words)?, true)
    }

    fn launch(options: &Options, mut command: Command, on_terminal: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = paths::made("run")?.join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        // QEMU's log of resets tells a triple fault.
        command.args(["-d", "cpu_reset", "-D"]).arg(folder.join("qemu.log"));
        let ports = [STDIN_PORT, STDOUT_PORT, STDERR_PORT, CONTROL_PORT];
        let mut near = Vec::new();
        let mut far: Vec<OwnedFd> = Vec::new();
        for port in ports {
            let (here, there) = Options::add_port(&mut command, port)?;
            near.push(here);
            far.push(there);
        }
        if on_terminal {
            command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        } else {
            command.args(["-serial", "stdio"]);
        }
        let started = Instant::now();
        let (mut qemu, leash) = spawn(&command, far, on_terminal)?;
        let [stdin, stdout, stderr, control] = <[UnixStream; 4]>::try_from(near).expect("one for each port");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let transcript = Arc::new(Transcript::default());
        let console = qemu.stdout.take().map(|stream| (OwnedFd::from(stream), Some(Arc::clone(&transcript))));
        let complaints = qemu.stderr.take().map(|stream| (OwnedFd::from(stream), None));
        for (stream, transcript) in console.into_iter().chain(complaints) {
            let (log, verbose) = (Arc::clone(&log), options.verbose);
            thread::spawn(move || keep_log(std::fs::File::from(stream), &log, transcript.as_deref(), verbose));
        }
        let (sender, events) = sync_channel(PIECES);
        for (port, stream) in [(STDOUT_PORT, stdout), (STDERR_PORT, stderr)] {
            let sender = sender.clone();
            thread::spawn(move || read_bytes(port, stream, &sender));
        }
        let messages = control.try_clone()?;
        thread::spawn(move || read_messages(messages, &sender));
        let deadline = options.time_limit().map(|limit| started + limit);
        let mut guest = Self {
            qemu,
            _leash: leash,
            stdin,
            control,
            events,
            log,
            transcript,
            folder,
            deadline,
            started,
            boot_time: Duration::ZERO,
        };
        loop {
            match guest.next_event()? {
                Event::Control(Message::Hello) => break,
                Event::Control(_) | Event::Bytes(..) => {}
                Event::Ended => return Err(guest.lost().into()),
            }
        }
        guest.boot_time = guest.started.elapsed();
        Ok(guest)
    }

    /// Lets the machine run so long from now on.
    pub fn set_time_limit(&mut self, limit: Duration) {
        self.deadline = Some(Instant::now() + limit);
    }

    /// Runs a program without input, and answers what it left behind.
    ///
    /// # Errors
    /// [`Lost`], if the machine ended.
    pub fn run(&mut self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        self.run_with_input(arguments, &[])
    }

    /// Runs a shell script, and answers what it left behind.
    ///
    /// # Errors
    /// [`Lost`], if the machine ended.
    pub fn shell(&mut self, script: &str) -> Result<Output> {
        self.run(&["/bin/sh", "-c", script])
    }

    /// Runs a program with this input, and answers what it left behind.
    ///
    /// # Errors
    /// [`Lost`], if the machine ended.
    pub fn run_with_input(&mut self, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let command = command_of(arguments);
        let feeder = self.feed(std::io::Cursor::new(input.to_vec()))?;
        let end = self.carry(&command, &mut stdout, &mut stderr)?;
        // The guest reads input to its end, used or not, so this thread ends.
        let _ = feeder.join();
        Ok(Output { end, stdout, stderr })
    }

    /// Starts to send a program's standard input, which ends when `input` does.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn feed(&self, mut input: impl Read + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let mut port = self.stdin.try_clone()?;
        Ok(thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            loop {
                // What cannot be read is at its end, as far as the program is concerned.
                let count = match input.read(&mut chunk) {
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                let header = (count as u32).to_le_bytes();
                if port.write_all(&header).and_then(|()| port.write_all(&chunk[..count])).is_err() || count == 0 {
                    return;
                }
            }
        }))
    }

    /// Runs a program whose input is being fed, and passes its output on until it has ended.
    ///
    /// A sink that fails counts as closed: the program sees a broken pipe.
    ///
    /// # Errors
    /// [`Lost`], if the machine ended.
    pub fn carry(
        &mut self,
        command: &protocol::Command,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<End> {
        self.send(&Message::Run(command.clone()))?;
        let mut sinks = [Sink::new(stdout), Sink::new(stderr)];
        let mut status = None;
        loop {
            if let Some((end, out, err)) = status
                && sinks[0].count >= out
                && sinks[1].count >= err
            {
                return Ok(end);
            }
            match self.next_event()? {
                Event::Bytes(port, bytes) => {
                    let sink = &mut sinks[usize::from(port == STDERR_PORT)];
                    if sink.write(&bytes).is_err() {
                        self.send(&Message::Close(port))?;
                    }
                }
                Event::Control(Message::Status { end, stdout, stderr }) => status = Some((end, stdout, stderr)),
                Event::Control(_) => {}
                Event::Ended => return Err(self.lost().into()),
            }
        }
    }

    /// Somebody who types at the console, which must not be this terminal.
    ///
    /// # Errors
    /// The console is this terminal, or there are no more descriptors.
    pub fn typist(&self) -> Result<Typist> {
        let keys =
            self.qemu.stdin.as_ref().context("the console is not ours to type at")?.as_fd().try_clone_to_owned()?;
        Ok(Typist::new(keys, self.control.try_clone()?, Arc::clone(&self.transcript)))
    }

    /// Tells the guest of each new size of this terminal, from now on.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn follow_this_terminal(&self) -> Result<()> {
        crate::terminal::follow(self.control.try_clone()?)
    }

    /// Sends a message to init.
    ///
    /// # Errors
    /// [`Lost`], if the machine ended.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        if self.control.write_all(&message.encode()).is_err() {
            return Err(self.lost().into());
        }
        Ok(())
    }

    /// Stops the machine's clock and all else until [`Guest::go_on`]. A machine that counts instructions is never idle: it
    /// runs from one timer to the next.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a paused machine go on.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(qemu) = rustix::process::Pid::from_raw(self.qemu.id() as i32) {
            // A machine that has ended needs none, and says so when it is next used.
            let _ = rustix::process::kill_process(qemu, signal);
        }
    }

    /// Syncs the guest's disks and ends the machine.
    pub fn stop(mut self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let deadline = Instant::now() + PATIENCE;
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        if self.send(&Message::Quit).is_ok() {
            while let Ok(event) = self.next_event() {
                if matches!(event, Event::Control(Message::Bye) | Event::Ended) {
                    break;
                }
            }
        }
    }

    /// The last lines of the kernel's log.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&log.iter().copied().collect::<Vec<u8>>()).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn next_event(&mut self) -> Result<Event> {
        let Some(deadline) = self.deadline else {
            return Ok(self.events.recv().unwrap_or(Event::Ended));
        };
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Disconnected) => Ok(Event::Ended),
            Err(RecvTimeoutError::Timeout) => Err(Lost { failure: Failure::TimedOut, log: self.log() }.into()),
        }
    }

    /// Finds out why the machine ended.
    fn lost(&mut self) -> Lost {
        const PATIENCE: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.qemu.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => break None,
            }
        };
        // The last of the serial line may still be on its way to the log.
        thread::sleep(Duration::from_millis(50));
        let log = self.log();
        let resets = std::fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        Lost { failure: classify(status, &log, &resets), log }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Whether it runs or has ended, it is not needed any more.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn command_of(arguments: &[impl AsRef<OsStr>]) -> protocol::Command {
    let arguments = arguments.iter().map(|argument| argument.as_ref().as_bytes().to_vec()).collect();
    protocol::Command { arguments, ..protocol::Command::default() }
}
