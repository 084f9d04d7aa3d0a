//! Terminals as processes see them: over a line that is played by hand, and over pseudo-terminals. This file is the world they stand in.

mod commands;
mod job_control;
mod pseudo_terminal;
mod reading;

use alloc::sync::Arc;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use abi::general::{
    ECHO, ICANON, SIGCONT, SIGHUP, SIGINT, SIGTTIN, SIGTTOU, SIGWINCH, TCIFLUSH, TCIOFLUSH, TCOOFF, TCOON, TOSTOP,
    VMIN, VTIME,
};
use abi::ioctl::{
    TCFLSH, TCGETS, TCSETS, TCSETSW, TCXONC, TIOCEXCL, TIOCGPGRP, TIOCGPTN, TIOCGSID, TIOCGWINSZ, TIOCINQ, TIOCNOTTY,
    TIOCOUTQ, TIOCPKT, TIOCSCTTY, TIOCSIG, TIOCSPGRP, TIOCSPTLCK, TIOCSTI, TIOCSWINSZ,
};
use drivers::console::ByteChannel;
use executor::sync::WaitQueue;
use executor::testing::Bench;
use fs::buffer::{SliceSink, SliceSource};
use fs::{FileOps, IoctlArgument, OpenFlags, PollEvents, Stop};

use super::job_control::{Caller, JobControl};
use super::terminals::{CONSOLE, CONTROLLING};
use super::termios::{TERMIOS_SIZE, Termios};
use super::{Errno, Result, Terminal, Terminals};

const SERIAL: (u32, u32) = (4, 64);

/// Processes, played by hand: the caller is set, signals are noted.
#[derive(Default)]
pub(super) struct Jobs {
    caller: Mutex<Option<Caller>>,
    ignores: AtomicU64,
    is_orphaned: AtomicBool,
    /// (positive process or negative group, signal)
    signals: Mutex<Vec<(i32, u32)>>,
}

impl JobControl for Jobs {
    fn caller(&self) -> Option<Caller> {
        *self.caller.lock().expect("not poisoned")
    }
    fn caller_ignores(&self, signal: u32) -> bool {
        self.ignores.load(Ordering::Relaxed) & (1 << signal) != 0
    }
    fn is_orphaned(&self, _group: i32) -> bool {
        self.is_orphaned.load(Ordering::Relaxed)
    }
    /// Groups 100 to 199 are in session 100, 200 to 299 in session 200; there are no others.
    fn session_of(&self, group: i32) -> Option<i32> {
        (100..300).contains(&group).then_some(group / 100 * 100)
    }
    fn signal_group(&self, group: i32, signal: u32) {
        self.signals.lock().expect("not poisoned").push((-group, signal));
    }
    fn signal_process(&self, process: i32, signal: u32) {
        self.signals.lock().expect("not poisoned").push((process, signal));
    }
}

impl Jobs {
    /// From now on this process calls.
    pub(super) fn call_as(&self, process: i32, group: i32, session: i32) {
        let caller = Caller { process, group, session, may_administer: false, user: 1000 };
        *self.caller.lock().expect("not poisoned") = Some(caller);
    }
    fn take_signals(&self) -> Vec<(i32, u32)> {
        std::mem::take(&mut self.signals.lock().expect("not poisoned"))
    }
}

/// A line, played by hand.
struct Line {
    incoming: Mutex<VecDeque<u8>>,
    outgoing: Mutex<Vec<u8>>,
    /// How many bytes the line takes before `take` empties it.
    room: usize,
    is_connected: AtomicBool,
    readable: WaitQueue,
    writable: WaitQueue,
}

impl Line {
    fn new(room: usize) -> Arc<Line> {
        Arc::new(Line {
            incoming: Mutex::default(),
            outgoing: Mutex::default(),
            room,
            is_connected: AtomicBool::new(true),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        })
    }
    fn types(&self, bytes: &[u8]) {
        self.incoming.lock().expect("not poisoned").extend(bytes);
        self.readable.wake_all();
    }
    fn take(&self) -> Vec<u8> {
        let bytes = std::mem::take(&mut *self.outgoing.lock().expect("not poisoned"));
        self.writable.wake_all();
        bytes
    }
    fn hang_up(&self) {
        self.is_connected.store(false, Ordering::Relaxed);
        self.readable.wake_all();
    }
}

impl ByteChannel for Line {
    fn try_read(&self, into: &mut [u8]) -> usize {
        let mut incoming = self.incoming.lock().expect("not poisoned");
        let len = into.len().min(incoming.len());
        into.iter_mut().zip(incoming.drain(..len)).for_each(|(place, byte)| *place = byte);
        len
    }
    fn try_write(&self, bytes: &[u8]) -> usize {
        let mut outgoing = self.outgoing.lock().expect("not poisoned");
        let len = bytes.len().min(self.room - outgoing.len());
        outgoing.extend_from_slice(&bytes[..len]);
        len
    }
    fn can_read(&self) -> bool {
        !self.incoming.lock().expect("not poisoned").is_empty()
    }
    fn can_write(&self) -> bool {
        self.outgoing.lock().expect("not poisoned").len() < self.room
    }
    fn unsent(&self) -> usize {
        self.outgoing.lock().expect("not poisoned").len()
    }
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }
    fn readable(&self) -> &WaitQueue {
        &self.readable
    }
    fn writable(&self) -> &WaitQueue {
        &self.writable
    }
}

pub(super) struct World {
    bench: Bench,
    pub(super) jobs: Arc<Jobs>,
    line: Arc<Line>,
    pub(super) terminals: Arc<Terminals>,
    terminal: Arc<Terminal>,
}

fn world_with_room(room: usize) -> World {
    let (bench, jobs, line) = (Bench::new(), Arc::new(Jobs::default()), Line::new(room));
    let timers = bench.executor().timers();
    let terminals = Terminals::new(jobs.clone(), move || timers.now());
    let (terminal, run) = terminals.add(SERIAL, "/dev/ttyS0", Termios::initial(), line.clone()).expect("memory");
    terminals.set_console(terminal.clone());
    bench.spawn(run);
    bench.spawn(terminals.clone().run(timers));
    bench.settle();
    World { bench, jobs, line, terminals, terminal }
}

pub(super) fn world() -> World {
    world_with_room(100_000)
}

impl World {
    fn open(&self) -> Arc<dyn FileOps> {
        self.terminals.open(SERIAL, OpenFlags::RDWR | OpenFlags::NOCTTY).expect("there is such a terminal")
    }

    /// A session's leader, process 100, opens the terminal and so is controlled by it.
    fn log_in(&self) -> Arc<dyn FileOps> {
        self.jobs.call_as(100, 100, 100);
        self.terminals.open(SERIAL, OpenFlags::RDWR).expect("there is such a terminal")
    }

    fn types(&self, bytes: &[u8]) {
        self.line.types(bytes);
        self.bench.settle();
    }

    fn set(&self, file: &dyn FileOps, change: impl FnOnce(&mut Termios)) {
        let mut termios = self.terminal.state.lock().discipline.termios().clone();
        change(&mut termios);
        let bytes = termios.to_bytes()[..TERMIOS_SIZE].to_vec();
        assert_eq!(ioctl(file, TCSETS, &mut Memory::of(&bytes)), Ok(0));
    }
}

fn read(file: &dyn FileOps, room: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; room];
    let len = file.try_read(&mut 0, &mut SliceSink::new(&mut bytes))?;
    bytes.truncate(len);
    Ok(bytes)
}

fn write(file: &dyn FileOps, bytes: &[u8]) -> Result<usize, Stop> {
    file.try_write(&mut 0, OpenFlags::RDWR, &mut SliceSource::new(bytes))
}

/// An ioctl's argument: a number, or memory.
struct Memory {
    value: usize,
    bytes: Vec<u8>,
}

impl Memory {
    fn of(bytes: &[u8]) -> Memory {
        Memory { value: 0, bytes: bytes.to_vec() }
    }
    fn int(value: i32) -> Memory {
        Memory::of(&value.to_ne_bytes())
    }
    fn value(value: usize) -> Memory {
        Memory { value, bytes: Vec::new() }
    }
    fn to_int(&self) -> i32 {
        i32::from_ne_bytes(self.bytes[..4].try_into().expect("an int"))
    }
}

impl IoctlArgument for Memory {
    fn value(&self) -> usize {
        self.value
    }
    fn get(&mut self, into: &mut [u8]) -> Result<(), Stop> {
        into.copy_from_slice(self.bytes.get(..into.len()).ok_or(Stop::Fault)?);
        Ok(())
    }
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
    fn check_writable(&mut self, _len: usize) -> Result<(), Stop> {
        Ok(())
    }
}

fn ioctl(file: &dyn FileOps, command: u32, argument: &mut Memory) -> Result<usize, Stop> {
    file.ioctl(command, argument)
}

fn asked(file: &dyn FileOps, command: u32) -> Result<i32, Stop> {
    let mut memory = Memory::int(0);
    ioctl(file, command, &mut memory).map(|_| memory.to_int())
}

const fn errno<T>(errno: Errno) -> Result<T, Stop> {
    Err(Stop::Errno(errno))
}

/// A pseudo-terminal: its master and its slave.
pub(super) fn pty(world: &World) -> (Arc<dyn FileOps>, Arc<dyn FileOps>) {
    let master = world.terminals.open(super::pty::MULTIPLEXER, OpenFlags::RDWR).expect("memory");
    let index = asked(&*master, TIOCGPTN).expect("a master has a number") as u32;
    let device = (super::pty::SLAVE_MAJOR, index);
    assert_eq!(world.terminals.open(device, OpenFlags::RDWR).err(), Some(Errno::EIO), "it is locked");
    assert_eq!(ioctl(&*master, TIOCSPTLCK, &mut Memory::int(0)), Ok(0));
    let slave = world.terminals.open(device, OpenFlags::RDWR).expect("it was unlocked");
    (master, slave)
}

pub(super) fn close(world: &World, file: Arc<dyn FileOps>) {
    world.bench.block_on(async move { file.release().await }).expect("closing cannot fail");
}
