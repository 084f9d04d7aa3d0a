//! Runs programs for the host, with their standard streams carried by virtio ports.
//!
//! One loop and one `poll`, no thread: each stream is a [`Pump`] with one buffer, which is either being filled or being emptied;
//! so a slow reader stops a fast writer, through pipe, port and host. A program's end is seen by its process, not by its pipes:
//! what it left in them is sent, but a background process that keeps them open holds nobody up.
//!
//! next: `user_programs::protocol` says what goes over the wire.

use crate::environment;
use crate::events::Events;
use crate::{console, power};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use user_programs::protocol::{CONTROL_PORT, Command, Decoder, End, Message, STDERR_PORT, STDIN_PORT, STDOUT_PORT};

/// How much one pump holds at most.
const CHUNK: usize = 64 << 10;
/// Ports appear when their driver has talked to the host; later than this they will not.
const PATIENCE: Duration = Duration::from_secs(20);

/// The four ports.
pub struct Ports {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    control: OwnedFd,
}

impl Ports {
    /// Opens the ports as soon as they are there.
    ///
    /// # Errors
    /// The ports do not appear: there is no virtio console, or the kernel has no driver for it.
    pub fn open() -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let port = |number: u32| loop {
            match open_port(number) {
                Ok(port) => return Ok(port),
                Err(error) if Instant::now() > deadline => {
                    return Err(io::Error::other(format!("virtio port {number}: {error}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Ok(Self {
            stdin: port(STDIN_PORT)?,
            stdout: port(STDOUT_PORT)?,
            stderr: port(STDERR_PORT)?,
            control: port(CONTROL_PORT)?,
        })
    }
}

/// Opens a port of the first virtio console that has it: Linux counts all virtio devices, so the console need not be number 0.
fn open_port(number: u32) -> rustix::io::Result<OwnedFd> {
    const DEVICES: u32 = 16;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let attempts = (0..DEVICES).map(|device| open(format!("/dev/vport{device}p{number}"), flags, Mode::empty()));
    let mut outcome = Err(Errno::NOENT);
    for attempt in attempts {
        match attempt {
            Err(Errno::NOENT) => {}
            other => {
                outcome = other;
                break;
            }
        }
    }
    outcome
}

/// Serves the host until it asks for the end, or goes away.
///
/// # Errors
/// A port failed, or the host does not keep to the protocol.
pub fn serve(ports: Ports) -> io::Result<()> {
    let mut server =
        Server { control: Control::new(ports.control), events: Events::new()?, input: Frames::new(ports.stdin) };
    server.control.send(&Message::Hello)?;
    loop {
        server.events.handle(|_, _| ());
        match server.control.next()? {
            Some(Message::Run(command)) => server.run(&command, &ports.stdout, &ports.stderr)?,
            Some(Message::Quit) => {
                rustix::fs::sync();
                server.control.send(&Message::Bye)?;
                power::off();
            }
            // What was meant for a program that has ended in the meantime.
            Some(_) => {}
            None => {
                server.events.wait(&[PollFd::new(&server.control.port, PollFlags::IN)])?;
            }
        }
    }
}

/// The control port while a shell sits on the console: it tells how large the host's terminal has become.
pub struct WindowSizes(Control);

impl WindowSizes {
    /// Opens the port, if it is there yet.
    pub fn open() -> Option<Self> {
        Some(Self(Control::new(open_port(CONTROL_PORT).ok()?)))
    }

    /// Passes on to the console what has arrived.
    ///
    /// # Errors
    /// The host has gone, or does not keep to the protocol.
    pub fn follow(&mut self) -> io::Result<()> {
        while let Some(message) = self.0.next()? {
            if let Message::WindowSize { rows, columns } = message {
                console::resize(rows, columns);
            }
        }
        Ok(())
    }

    /// What to wait for before the next [`Self::follow`].
    pub fn interest(&self) -> PollFd<'_> {
        PollFd::new(&self.0.port, PollFlags::IN)
    }
}

struct Server {
    control: Control,
    events: Events,
    input: Frames,
}

impl Server {
    fn run(&mut self, command: &Command, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
        let (end, sent) = match start(command) {
            Ok(running) => self.attend(running, stdout, stderr)?,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
                (End::NotStarted(errno.cast_unsigned()), [0, 0])
            }
        };
        self.control.send(&Message::Status { end, stdout: sent[0], stderr: sent[1] })?;
        // The next program's input begins behind this one's end-of-file.
        while !self.input.is_at_end() {
            self.input.receive()?;
            self.input.discard();
            if !self.input.is_at_end() {
                self.events.handle(|_, _| ());
                let waited = self.events.wait(&[PollFd::new(&self.input.port, PollFlags::IN)])?;
                pause_if_unconnected(waited[0]);
            }
        }
        self.input.begin();
        Ok(())
    }

    /// Moves bytes until the program has ended and its output is sent; answers how many bytes that was.
    fn attend(&mut self, running: Running, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<(End, [u64; 2])> {
        let Running { pid, mut stdin, stdout: out, stderr: err } = running;
        let mut pumps = [Pump::new(out, stdout), Pump::new(err, stderr)];
        let mut end = None;
        loop {
            self.input.feed(&mut stdin)?;
            for pump in &mut pumps {
                pump.advance()?;
            }
            while let Some(message) = self.control.next()? {
                match message {
                    Message::Close(STDOUT_PORT) => pumps[0].close(),
                    Message::Close(STDERR_PORT) => pumps[1].close(),
                    // A program that has just ended cannot be signalled; it will be reaped below.
                    Message::Signal(number) => {
                        if let Some(signal) = Signal::from_named_raw(number.into()) {
                            let _ = kill_process(pid, signal);
                        }
                    }
                    Message::WindowSize { rows, columns } => console::resize(rows, columns),
                    Message::Quit => power::off(),
                    _ => {}
                }
            }
            self.events.handle(|ended, status| {
                if ended == pid {
                    end = Some(how(status));
                }
            });
            if let Some(end) = end {
                // Whatever the program wrote is in its pipes by now.
                let mut moved = false;
                for pump in &mut pumps {
                    moved |= pump.advance()?;
                }
                if moved {
                    continue;
                }
                if pumps.iter().all(Pump::is_idle) {
                    return Ok((end, [pumps[0].sent, pumps[1].sent]));
                }
            }
            self.wait(&pumps, stdin.as_ref())?;
        }
    }

    fn wait(&mut self, pumps: &[Pump<'_>; 2], stdin: Option<&OwnedFd>) -> io::Result<()> {
        let mut interests = vec![PollFd::new(&self.control.port, PollFlags::IN)];
        let ports = 1;
        match stdin {
            Some(stdin) if self.input.has_bytes() => interests.push(PollFd::new(stdin, PollFlags::OUT)),
            _ if !self.input.is_at_end() => interests.push(PollFd::new(&self.input.port, PollFlags::IN)),
            _ => {}
        }
        let input_interest = interests.get(ports).map(|_| ports);
        for pump in pumps {
            if !pump.buffer.is_empty() {
                interests.push(PollFd::new(pump.to, PollFlags::OUT));
            } else if let Some(from) = &pump.from {
                interests.push(PollFd::new(from, PollFlags::IN));
            }
        }
        let ready = self.events.wait(&interests)?;
        if let Some(index) = input_interest {
            pause_if_unconnected(ready[index]);
        }
        Ok(())
    }
}

/// A port whose other end is not there yet is always "ready": let the host come.
fn pause_if_unconnected(ready: PollFlags) {
    if ready.contains(PollFlags::HUP) && !ready.contains(PollFlags::IN) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program and the ends of its pipes.
struct Running {
    pid: Pid,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn start(command: &Command) -> io::Result<Running> {
    let arguments = command.arguments.iter().map(|argument| OsStr::from_bytes(argument));
    let mut process = if command.on_terminal {
        // The end of a session hangs its terminal up, for whoever had it open before.
        console::open();
        environment::session(arguments)?
    } else {
        let mut arguments = arguments;
        let program = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
        let mut process = environment::command(program)?;
        process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process
    };
    if !command.directory.is_empty() {
        process.current_dir(OsStr::from_bytes(&command.directory));
    }
    for pair in &command.environment {
        if let Some(equals) = pair.iter().position(|&byte| byte == b'=') {
            process.env(OsStr::from_bytes(&pair[..equals]), OsStr::from_bytes(&pair[equals + 1..]));
        }
    }
    let mut child = process.spawn()?;
    let running = Running {
        pid: Pid::from_child(&child),
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
    };
    for pipe in [&running.stdin, &running.stdout, &running.stderr].into_iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    Ok(running)
}

fn how(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => End::Killed(signal as u8),
        (status, None) => End::Exited(status.unwrap_or(0) as u8),
    }
}

/// Moves what one pipe yields to one port.
struct Pump<'a> {
    from: Option<OwnedFd>,
    to: &'a OwnedFd,
    buffer: VecDeque<u8>,
    sent: u64,
}

impl<'a> Pump<'a> {
    fn new(from: Option<OwnedFd>, to: &'a OwnedFd) -> Self {
        Self { from, to, buffer: VecDeque::new(), sent: 0 }
    }

    /// Fills the buffer if it is empty, empties it if it is not; answers whether anything moved.
    fn advance(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.buffer.is_empty()
            && let Some(from) = &self.from
        {
            match try_read(from.as_fd(), &mut self.buffer)? {
                Read::Bytes => moved = true,
                Read::NotYet => {}
                Read::End => self.from = None,
            }
        }
        while !self.buffer.is_empty() {
            match rustix::io::write(self.to, self.buffer.as_slices().0) {
                Ok(count) => {
                    self.buffer.drain(..count);
                    self.sent += count as u64;
                    moved = true;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    /// Nobody reads any more: the program's next write fails, and what it wrote before is dropped.
    fn close(&mut self) {
        self.from = None;
        self.buffer.clear();
    }

    fn is_idle(&self) -> bool {
        self.buffer.is_empty()
    }
}

enum Read {
    Bytes,
    NotYet,
    End,
}

fn try_read(from: impl AsFd, buffer: &mut VecDeque<u8>) -> io::Result<Read> {
    let mut chunk = vec![0; CHUNK];
    match rustix::io::read(from, &mut chunk) {
        Ok(0) => Ok(Read::End),
        Ok(count) => {
            buffer.extend(&chunk[..count]);
            Ok(Read::Bytes)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(Read::NotYet),
        Err(error) => Err(error.into()),
    }
}

/// Takes standard input's frames apart.
struct Frames {
    port: OwnedFd,
    received: VecDeque<u8>,
    /// Bytes of the current frame that are still to come out of `received`.
    left: usize,
    at_end: bool,
}

impl Frames {
    fn new(port: OwnedFd) -> Self {
        Self { port, received: VecDeque::new(), left: 0, at_end: false }
    }

    /// The next program's input.
    fn begin(&mut self) {
        self.at_end = false;
    }

    fn is_at_end(&self) -> bool {
        self.at_end
    }

    fn has_bytes(&self) -> bool {
        self.left > 0 && !self.received.is_empty()
    }

    /// Takes in what the port has, unless there is something left to use up first.
    fn receive(&mut self) -> io::Result<()> {
        if !self.has_bytes() && !self.at_end {
            // An end of the port's own only means that the host is not connected yet.
            try_read(self.port.as_fd(), &mut self.received)?;
            self.open_frame();
        }
        Ok(())
    }

    fn open_frame(&mut self) {
        const HEADER: usize = 4;
        if self.left == 0 && !self.at_end && self.received.len() >= HEADER {
            let header: Vec<u8> = self.received.drain(..HEADER).collect();
            self.left = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            self.at_end = self.left == 0;
        }
    }

    fn consume(&mut self, count: usize) {
        self.received.drain(..count);
        self.left -= count;
        self.open_frame();
    }

    fn discard(&mut self) {
        while self.has_bytes() {
            let count = self.left.min(self.received.len());
            self.consume(count);
        }
    }

    /// Passes on to the program's standard input what is here, and closes it at end-of-file.
    fn feed(&mut self, stdin: &mut Option<OwnedFd>) -> io::Result<()> {
        loop {
            self.receive()?;
            if self.at_end {
                *stdin = None;
            }
            let Some(pipe) = stdin else {
                self.discard();
                return Ok(());
            };
            if !self.has_bytes() {
                return Ok(());
            }
            let available = self.received.as_slices().0;
            match rustix::io::write(pipe, &available[..available.len().min(self.left)]) {
                Ok(count) => self.consume(count),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                // The program does not read its input to the end; that is its right.
                Err(_) => *stdin = None,
            }
        }
    }
}

/// The control port.
struct Control {
    port: OwnedFd,
    decoder: Decoder,
    /// The host has been heard, so an end-of-file means that it has gone.
    connected: bool,
}

impl Control {
    fn new(port: OwnedFd) -> Self {
        Self { port, decoder: Decoder::default(), connected: false }
    }

    fn next(&mut self) -> io::Result<Option<Message>> {
        let mut received = VecDeque::new();
        loop {
            match try_read(self.port.as_fd(), &mut received)? {
                Read::Bytes => self.connected = true,
                Read::NotYet => break,
                Read::End if self.connected => return Err(io::Error::other("the host has gone")),
                Read::End => {
                    std::thread::sleep(Duration::from_millis(2));
                    break;
                }
            }
        }
        self.decoder.push(received.make_contiguous());
        self.decoder.next_message().map_err(|_| io::Error::other("the host does not keep to the protocol"))
    }

    /// Sends a message whole; they are short, and the host always reads them.
    fn send(&self, message: &Message) -> io::Result<()> {
        let wire = message.encode();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.port, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::AGAIN | Errno::INTR) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
