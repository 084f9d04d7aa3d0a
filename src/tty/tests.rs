//! Terminals as processes see them: over a line that is played by hand, and over pseudo-terminals.

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

// ---- reading and writing ----

#[test]
fn a_line_typed_is_echoed_and_read() {
    let world = world();
    let file = world.open();
    assert_eq!(read(&*file, 100), Err(Stop::WouldBlock));
    world.types(b"ls\r");
    assert_eq!(world.line.take(), b"ls\r\n");
    assert_eq!(asked(&*file, TIOCINQ), Ok(3));
    assert_eq!(read(&*file, 100), Ok(b"ls\n".to_vec()));
}

#[test]
fn a_waiting_reader_is_woken_by_the_line() {
    let world = world();
    let file = world.open();
    let reader = world.bench.start(async move {
        loop {
            let mut woken = core::pin::pin!(file.wait_queue().expect("a terminal has one").wait());
            // Registered by the first poll, which comes before the attempt.
            if futures_util::poll!(woken.as_mut()).is_pending()
                && let Ok(line) = read(&*file, 100)
            {
                return line;
            }
            woken.await;
        }
    });
    world.bench.settle();
    assert!(reader.try_take().is_none());
    world.types(b"hal");
    assert!(reader.try_take().is_none());
    world.types(b"lo\n");
    assert_eq!(reader.try_take(), Some(b"hallo\n".to_vec()));
}

#[test]
fn output_that_the_line_cannot_take_waits_and_then_holds_the_writer_back() {
    let world = world_with_room(64);
    let file = world.open();
    let mut written = 0;
    while let Ok(count) = write(&*file, &[b'x'; 1000]) {
        written += count;
        assert!(written < 100_000, "a line that takes nothing cannot take this much");
    }
    assert!(!file.poll().contains(PollEvents::OUT));
    assert_eq!(asked(&*file, TIOCOUTQ), Ok(written as i32));
    let mut sent = 0;
    while sent < written {
        sent += world.line.take().len();
        world.bench.settle();
    }
    assert!(file.poll().contains(PollEvents::OUT));
    assert_eq!(asked(&*file, TIOCOUTQ), Ok(0));
}

#[test]
fn input_that_nobody_reads_waits_in_the_line() {
    let world = world();
    let file = world.open();
    world.set(&*file, |termios| termios.local &= !(ICANON | ECHO));
    let text: Vec<u8> = (0..10_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    world.types(&text);
    assert!(world.line.can_read());
    let mut got = Vec::new();
    while let Ok(bytes) = read(&*file, 700) {
        got.extend(bytes);
        world.bench.settle();
    }
    assert!(got == text);
}

#[test]
fn control_s_holds_writers_back_and_control_q_lets_them_go() {
    let world = world();
    let file = world.open();
    world.types(b"\x13");
    assert_eq!(write(&*file, b"x"), Err(Stop::WouldBlock));
    assert!(!file.poll().contains(PollEvents::OUT));
    world.types(b"\x11");
    assert_eq!(write(&*file, b"x"), Ok(1));
    assert_eq!(ioctl(&*file, TCXONC, &mut Memory::value(TCOOFF as usize)), Ok(0));
    assert_eq!(write(&*file, b"x"), Err(Stop::WouldBlock));
    assert_eq!(ioctl(&*file, TCXONC, &mut Memory::value(TCOON as usize)), Ok(0));
    assert_eq!(world.line.take(), b"x");
}

// ---- VMIN and VTIME ----

fn raw(world: &World, minimum: u8, tenths: u8) -> Arc<dyn FileOps> {
    let file = world.open();
    world.set(&*file, |termios| {
        termios.local &= !(ICANON | ECHO);
        (termios.characters[VMIN as usize], termios.characters[VTIME as usize]) = (minimum, tenths);
    });
    file
}

#[test]
fn a_raw_read_waits_for_its_minimum() {
    let world = world();
    let file = raw(&world, 3, 0);
    world.types(b"ab");
    assert_eq!(read(&*file, 10), Err(Stop::WouldBlock));
    assert!(!file.poll().contains(PollEvents::IN));
    // A reader with less room than the minimum is content with that.
    assert_eq!(read(&*file, 2), Ok(b"ab".to_vec()));
    world.types(b"cde");
    assert!(file.poll().contains(PollEvents::IN));
    assert_eq!(read(&*file, 10), Ok(b"cde".to_vec()));
}

#[test]
fn without_minimum_and_time_a_read_never_waits() {
    let world = world();
    let file = raw(&world, 0, 0);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    world.types(b"a");
    assert_eq!(read(&*file, 10), Ok(b"a".to_vec()));
}

/// Starts a read that waits like read(2).
fn start_read(world: &World, file: &Arc<dyn FileOps>) -> executor::JoinHandle<Vec<u8>> {
    let file = file.clone();
    let handle = world.bench.start(async move {
        loop {
            let mut woken = core::pin::pin!(file.wait_queue().expect("a terminal has one").wait());
            let _ = futures_util::poll!(woken.as_mut());
            match read(&*file, 10) {
                Ok(bytes) => return bytes,
                Err(_) => woken.await,
            }
        }
    });
    world.bench.settle();
    handle
}

#[test]
fn without_a_minimum_a_read_ends_when_its_time_is_over() {
    let world = world();
    let file = raw(&world, 0, 5);
    for _ in 0..2 {
        let reader = start_read(&world, &file);
        world.bench.advance(Duration::from_millis(499));
        assert_eq!(reader.try_take(), None);
        world.bench.advance(Duration::from_millis(1));
        assert_eq!(reader.try_take(), Some(Vec::new()));
        world.bench.advance(Duration::from_millis(1500));
    }
    let reader = start_read(&world, &file);
    world.bench.advance(Duration::from_millis(400));
    world.types(b"x");
    assert_eq!(reader.try_take(), Some(b"x".to_vec()));
}

#[test]
fn with_a_minimum_the_time_runs_between_bytes_only() {
    let world = world();
    let file = raw(&world, 5, 2);
    let reader = start_read(&world, &file);
    world.bench.advance(Duration::from_secs(10));
    assert_eq!(reader.try_take(), None);
    for byte in [b"a", b"b"] {
        world.types(byte);
        world.bench.advance(Duration::from_millis(150));
        assert_eq!(reader.try_take(), None);
    }
    world.bench.advance(Duration::from_millis(60));
    assert_eq!(reader.try_take(), Some(b"ab".to_vec()));
}

// ---- job control ----

#[test]
fn a_sessions_leader_gets_the_first_free_terminal_it_opens() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let ask = |device| world.terminals.open(device, OpenFlags::RDWR);
    assert_eq!(ask(CONTROLLING).err(), Some(Errno::ENXIO));
    ask(CONSOLE).expect("the console");
    assert!(world.terminals.controlling(100).is_none(), "the console controls nobody");
    let file = world.log_in();
    assert_eq!((asked(&*file, TIOCGSID), asked(&*file, TIOCGPGRP)), (Ok(100), Ok(100)));
    assert!(world.terminals.controlling(100).is_some());
    ask(CONTROLLING).expect("there is one now");
    // Somebody else's leader gets nothing, and is told so.
    world.jobs.call_as(200, 200, 200);
    let other = world.terminals.open(SERIAL, OpenFlags::RDWR).expect("opening is allowed");
    assert_eq!(asked(&*other, TIOCGPGRP), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*other, TIOCSCTTY, &mut Memory::value(0)), errno(Errno::EPERM));
    assert_eq!(ioctl(&*other, TIOCSCTTY, &mut Memory::value(1)), errno(Errno::EPERM));
}

#[test]
fn signals_from_the_keyboard_go_to_the_foreground_group() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(150)), Ok(0));
    world.types(b"\x03");
    assert_eq!(world.jobs.take_signals(), [(-150, SIGINT)]);
    assert_eq!(world.line.take(), b"^C");
}

#[test]
fn the_foreground_group_must_be_of_the_same_session() {
    let world = world();
    let file = world.log_in();
    for (group, expected) in
        [(250, errno(Errno::EPERM)), (999, errno(Errno::ESRCH)), (-1, errno(Errno::EINVAL)), (150, Ok(0))]
    {
        assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(group)), expected, "for group {group}");
    }
}

#[test]
fn a_background_group_is_stopped_when_it_reads() {
    let world = world();
    let file = world.log_in();
    world.types(b"x\n");
    world.jobs.call_as(151, 150, 100);
    assert_eq!(read(&*file, 10), errno(Errno::ERESTARTSYS));
    assert_eq!(world.jobs.take_signals(), [(-150, SIGTTIN)]);
    world.jobs.ignores.store(1 << SIGTTIN, Ordering::Relaxed);
    assert_eq!(read(&*file, 10), errno(Errno::EIO));
    world.jobs.ignores.store(0, Ordering::Relaxed);
    world.jobs.is_orphaned.store(true, Ordering::Relaxed);
    assert_eq!(read(&*file, 10), errno(Errno::EIO));
    assert_eq!(world.jobs.take_signals(), []);
    // A process of another session may read: only its own terminal stops it.
    world.jobs.call_as(250, 250, 200);
    assert_eq!(read(&*file, 10), Ok(b"x\n".to_vec()));
}

#[test]
fn a_background_group_may_write_unless_the_terminal_forbids_it() {
    let world = world();
    let file = world.log_in();
    world.jobs.call_as(151, 150, 100);
    assert_eq!(write(&*file, b"x"), Ok(1));
    world.jobs.call_as(100, 100, 100);
    world.set(&*file, |termios| termios.local |= TOSTOP);
    world.jobs.call_as(151, 150, 100);
    assert_eq!(write(&*file, b"x"), errno(Errno::ERESTARTSYS));
    assert_eq!(world.jobs.take_signals(), [(-150, SIGTTOU)]);
    world.jobs.ignores.store(1 << SIGTTOU, Ordering::Relaxed);
    assert_eq!(write(&*file, b"x"), Ok(1));
}

#[test]
fn a_background_group_is_stopped_when_it_changes_the_terminal() {
    let world = world();
    let file = world.log_in();
    world.jobs.call_as(151, 150, 100);
    let bytes = Termios::initial().to_bytes();
    for command in [TCSETS, TCFLSH, TCXONC, TIOCSPGRP] {
        assert_eq!(ioctl(&*file, command, &mut Memory::of(&bytes)), errno(Errno::ERESTARTSYS));
        assert_eq!(world.jobs.take_signals(), [(-150, SIGTTOU)]);
    }
    assert_eq!(ioctl(&*file, TCGETS, &mut Memory::of(&bytes)), Ok(0));
}

#[test]
fn a_lost_line_hangs_up_the_session_and_kills_open_files() {
    let world = world();
    let file = world.log_in();
    world.line.hang_up();
    world.bench.settle();
    assert_eq!(world.jobs.take_signals(), [(100, SIGHUP), (100, SIGCONT)]);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    assert_eq!(write(&*file, b"x"), errno(Errno::EIO));
    assert!(file.poll().contains(PollEvents::HUP | PollEvents::IN));
    assert_eq!(asked(&*file, TIOCINQ), errno(Errno::EIO));
    // Who opens it afterwards has a new terminal.
    let fresh = world.open();
    assert_eq!(read(&*fresh, 10), Err(Stop::WouldBlock));
}

#[test]
fn the_end_of_a_sessions_leader_frees_its_terminal_and_tells_the_foreground() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(150)), Ok(0));
    world.terminals.session_ended(100);
    assert_eq!(world.jobs.take_signals(), [(-150, SIGHUP), (-150, SIGCONT)]);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    world.jobs.call_as(200, 200, 200);
    world.terminals.open(SERIAL, OpenFlags::RDWR).expect("it is free");
    assert!(world.terminals.controlling(200).is_some());
    world.terminals.session_ended(100);
    assert!(world.terminals.controlling(200).is_some());
}

#[test]
fn a_leader_can_give_its_terminal_up() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCNOTTY, &mut Memory::value(0)), Ok(0));
    assert!(world.terminals.controlling(100).is_none());
    assert_eq!(ioctl(&*file, TIOCNOTTY, &mut Memory::value(0)), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*file, TIOCSCTTY, &mut Memory::value(0)), Ok(0));
    assert!(world.terminals.controlling(100).is_some());
}

#[test]
fn the_command_line_chooses_the_console() {
    let world = world();
    let choose = |line: &[u8]| world.terminals.choose_console(line);
    assert_eq!(choose(b"quiet").as_deref(), Some("/dev/ttyS0"));
    let (screen, _run) = world.terminals.add((4, 1), "/dev/tty1", Termios::initial(), Line::new(100)).expect("memory");
    assert_eq!(choose(b"quiet").as_deref(), Some("/dev/tty1"));
    assert_eq!(choose(b"console=tty0 x console=ttyS0,115200n8").as_deref(), Some("/dev/ttyS0"));
    assert_eq!(choose(b"console=ttyS0 console=tty0 console=hvc7").as_deref(), Some("/dev/tty1"));
    let console = world.terminals.open(CONSOLE, OpenFlags::RDWR).expect("chosen");
    assert_eq!(console.name(), screen.name);
    assert!(world.terminals.open((4, 0), OpenFlags::RDWR).is_ok());
}

// ---- other ioctls ----

#[test]
fn a_new_window_size_is_told_to_the_foreground_once() {
    let world = world();
    let file = world.log_in();
    let size = [50u8, 0, 132, 0, 0, 0, 0, 0];
    for expected in [vec![(-100, SIGWINCH)], vec![]] {
        assert_eq!(ioctl(&*file, TIOCSWINSZ, &mut Memory::of(&size)), Ok(0));
        assert_eq!(world.jobs.take_signals(), expected);
    }
    let mut memory = Memory::of(&[0; 8]);
    assert_eq!(ioctl(&*file, TIOCGWINSZ, &mut memory), Ok(0));
    assert_eq!(memory.bytes, size);
}

#[test]
fn flushing_forgets_what_was_not_read() {
    let world = world();
    let file = world.open();
    world.types(b"x\n");
    assert_eq!(ioctl(&*file, TCFLSH, &mut Memory::value(TCIFLUSH as usize)), Ok(0));
    assert_eq!(read(&*file, 10), Err(Stop::WouldBlock));
    assert_eq!(ioctl(&*file, TCFLSH, &mut Memory::value(TCIOFLUSH as usize + 1)), errno(Errno::EINVAL));
}

#[test]
fn settings_can_wait_for_output_to_be_sent() {
    let world = world();
    let file = world.open();
    write(&*file, b"text").expect("room");
    let bytes = Termios::initial().to_bytes()[..TERMIOS_SIZE].to_vec();
    assert_eq!(ioctl(&*file, TCSETSW, &mut Memory::of(&bytes)), Err(Stop::WouldBlock));
    world.line.take();
    assert_eq!(ioctl(&*file, TCSETSW, &mut Memory::of(&bytes)), Ok(0));
}

#[test]
fn a_terminal_can_be_had_for_oneself_until_it_is_closed() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let file = world.open();
    assert_eq!(ioctl(&*file, TIOCEXCL, &mut Memory::value(0)), Ok(0));
    assert_eq!(world.terminals.open(SERIAL, OpenFlags::RDWR).err(), Some(Errno::EBUSY));
    world.bench.block_on(async move { file.release().await }).expect("closing cannot fail");
    world.terminals.open(SERIAL, OpenFlags::RDWR).expect("it was closed");
}

#[test]
fn unknown_and_refused_commands_have_their_errors() {
    let world = world();
    let file = world.open();
    assert_eq!(ioctl(&*file, 0x1234_5678, &mut Memory::value(0)), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*file, TIOCSTI, &mut Memory::value(0)), errno(Errno::EIO));
    assert_eq!(ioctl(&*file, TCSETS, &mut Memory::of(&[0; 4])), Err(Stop::Fault));
}

// ---- pseudo-terminals ----

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

#[test]
fn what_the_master_writes_is_typed_at_the_slave() {
    let world = world();
    let (master, slave) = pty(&world);
    assert_eq!(write(&*master, b"hi\r"), Ok(3));
    assert_eq!(read(&*master, 100), Ok(b"hi\r\n".to_vec()));
    assert_eq!(read(&*slave, 100), Ok(b"hi\n".to_vec()));
    assert_eq!(write(&*slave, b"out\n"), Ok(4));
    assert!(master.poll().contains(PollEvents::IN));
    assert_eq!(asked(&*master, TIOCINQ), Ok(5));
    assert_eq!(read(&*master, 3), Ok(b"out".to_vec()));
    assert_eq!(read(&*master, 100), Ok(b"\r\n".to_vec()));
    assert_eq!(read(&*master, 100), Err(Stop::WouldBlock));
}

#[test]
fn a_master_whose_slave_is_closed_reads_the_rest_and_then_an_error() {
    let world = world();
    let (master, slave) = pty(&world);
    write(&*slave, b"last").expect("room");
    close(&world, slave);
    assert!(master.poll().contains(PollEvents::HUP));
    assert_eq!(read(&*master, 100), Ok(b"last".to_vec()));
    assert_eq!(read(&*master, 100), errno(Errno::EIO));
}

#[test]
fn closing_the_master_hangs_the_slave_up_and_frees_the_number() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let (master, slave) = pty(&world);
    assert_eq!(world.terminals.pty_indices(), [0]);
    assert_eq!(asked(&*slave, TIOCGSID), Ok(100));
    close(&world, master);
    assert_eq!(world.jobs.take_signals(), [(100, SIGHUP), (100, SIGCONT)]);
    assert_eq!(read(&*slave, 10), Ok(Vec::new()));
    assert_eq!(write(&*slave, b"x"), errno(Errno::EIO));
    assert_eq!(world.terminals.pty_indices(), []);
    let (second, _) = pty(&world);
    assert_eq!(asked(&*second, TIOCGPTN), Ok(0));
}

#[test]
fn many_pseudo_terminals_have_numbers_of_their_own() {
    let world = world();
    let masters: Vec<_> = (0..5).map(|_| pty(&world).0).collect();
    let numbers: Vec<_> = masters.iter().map(|master| asked(&**master, TIOCGPTN).expect("a number")).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    close(&world, masters[2].clone());
    assert_eq!(asked(&*pty(&world).0, TIOCGPTN), Ok(2));
}

#[test]
fn a_master_that_writes_too_much_waits_for_the_slave_to_read() {
    let world = world();
    let (master, slave) = pty(&world);
    let mut raw = Termios::initial();
    raw.local &= !(ICANON | ECHO);
    assert_eq!(ioctl(&*master, TCSETS, &mut Memory::of(&raw.to_bytes())), Ok(0));
    let text: Vec<u8> = (0..20_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < text.len() {
        if sent < text.len() {
            sent += write(&*master, &text[sent..]).unwrap_or(0);
        }
        got.extend(read(&*slave, 1000).expect("the master has written"));
    }
    assert!(got == text);
}

#[test]
fn packet_mode_tells_data_from_events() {
    let world = world();
    let (master, slave) = pty(&world);
    assert_eq!(ioctl(&*master, TIOCPKT, &mut Memory::int(1)), Ok(0));
    write(&*slave, b"abc").expect("room");
    assert_eq!(read(&*master, 10), Ok(b"\0abc".to_vec()));
    assert_eq!(ioctl(&*slave, TCFLSH, &mut Memory::value(TCIOFLUSH as usize)), Ok(0));
    assert!(master.poll().contains(PollEvents::PRI));
    assert_eq!(read(&*master, 10), Ok(vec![3]));
    assert_eq!(read(&*master, 10), Err(Stop::WouldBlock));
}

#[test]
fn a_master_can_signal_the_foreground() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let (master, _slave) = pty(&world);
    assert_eq!(ioctl(&*master, TIOCSIG, &mut Memory::value(SIGINT as usize)), Ok(0));
    assert_eq!(world.jobs.take_signals(), [(-100, SIGINT)]);
    assert_eq!(ioctl(&*master, TIOCSIG, &mut Memory::value(SIGHUP as usize)), errno(Errno::EINVAL));
    assert_eq!(asked(&*master, TIOCGPGRP), Ok(100));
}
