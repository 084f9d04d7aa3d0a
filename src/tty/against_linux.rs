//! The line discipline beside Linux's: the same random bytes, settings and reads on a real pseudo-terminal of the machine that runs
//! the test and on ours, compared read by read.
//!
//! After each write both sides are read until they are empty, the slave first: that is when Linux has surely done its work, which it does
//! in a task of its own. A script that differs is printed with its seed.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::general::{
    ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOPRT, ICANON, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP, IUCLC,
    IUTF8, IXANY, IXON, NOFLSH, OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, PARMRK, TCIFLUSH, VEOL, VEOL2, VERASE, VMIN,
    VTIME, XTABS,
};
use abi::ioctl::{TCFLSH, TCSETS, TIOCGPTN, TIOCINQ, TIOCSPTLCK};
use fs::buffer::{SliceSink, SliceSource};
use fs::{FileOps, IoctlArgument, OpenFlags, Stop};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, SpecialCodeIndex};

use super::job_control::{Caller, JobControl};
use super::termios::{TERMIOS_SIZE, Termios};
use super::{Result, Terminals, pty};

/// What both kinds of pseudo-terminal can do. A read that finds nothing is `None`.
trait Pair {
    fn write_master(&self, bytes: &[u8]) -> Option<usize>;
    fn write_slave(&self, bytes: &[u8]) -> Option<usize>;
    fn read_master(&self) -> Option<Vec<u8>>;
    fn read_slave(&self, room: usize) -> Option<Vec<u8>>;
    fn set(&self, termios: &Termios);
    fn flush_input(&self);
    fn readable(&self) -> usize;
}

struct Linux {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Linux {
    fn open() -> Linux {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("the host has /dev/ptmx");
        grantpt(&master).expect("our own pty");
        unlockpt(&master).expect("our own pty");
        let name = ptsname(&master, Vec::new()).expect("our own pty");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let slave = rustix::fs::open(name, flags, Mode::empty()).expect("our own pty");
        rustix::io::ioctl_fionbio(&master, true).expect("a pty can be non-blocking");
        Linux { master, slave }
    }
}

fn read_from(file: &OwnedFd, room: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; room];
    let len = rustix::io::read(file, &mut bytes[..]).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

impl Pair for Linux {
    fn write_master(&self, bytes: &[u8]) -> Option<usize> {
        rustix::io::write(&self.master, bytes).ok()
    }
    fn write_slave(&self, bytes: &[u8]) -> Option<usize> {
        rustix::io::write(&self.slave, bytes).ok()
    }
    fn read_master(&self) -> Option<Vec<u8>> {
        read_from(&self.master, 8192)
    }
    fn read_slave(&self, room: usize) -> Option<Vec<u8>> {
        read_from(&self.slave, room)
    }
    fn set(&self, termios: &Termios) {
        let mut now = rustix::termios::tcgetattr(&self.slave).expect("a terminal");
        now.input_modes = InputModes::from_bits_retain(termios.input);
        now.output_modes = OutputModes::from_bits_retain(termios.output);
        now.local_modes = LocalModes::from_bits_retain(termios.local);
        for (index, code) in [
            (VMIN, SpecialCodeIndex::VMIN),
            (VTIME, SpecialCodeIndex::VTIME),
            (VEOL, SpecialCodeIndex::VEOL),
            (VEOL2, SpecialCodeIndex::VEOL2),
            (VERASE, SpecialCodeIndex::VERASE),
        ] {
            now.special_codes[code] = termios.character(index);
        }
        rustix::termios::tcsetattr(&self.slave, OptionalActions::Now, &now).expect("a terminal");
    }
    fn flush_input(&self) {
        rustix::termios::tcflush(&self.slave, QueueSelector::IFlush).expect("a terminal");
    }
    fn readable(&self) -> usize {
        rustix::io::ioctl_fionread(&self.slave).expect("a terminal") as usize
    }
}

/// No process calls, so nobody is in the background.
struct Nobody;

impl JobControl for Nobody {
    fn caller(&self) -> Option<Caller> {
        None
    }
    fn caller_ignores(&self, _signal: u32) -> bool {
        false
    }
    fn is_orphaned(&self, _group: i32) -> bool {
        false
    }
    fn session_of(&self, _group: i32) -> Option<i32> {
        None
    }
    fn signal_group(&self, _group: i32, _signal: u32) {}
    fn signal_process(&self, _process: i32, _signal: u32) {}
}

struct Ours {
    _terminals: Arc<Terminals>,
    master: Arc<dyn FileOps>,
    slave: Arc<dyn FileOps>,
}

struct Memory(Vec<u8>, usize);

impl IoctlArgument for Memory {
    fn value(&self) -> usize {
        self.1
    }
    fn get(&mut self, into: &mut [u8]) -> Result<(), Stop> {
        into.copy_from_slice(&self.0[..into.len()]);
        Ok(())
    }
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.0 = bytes.to_vec();
        Ok(())
    }
    fn check_writable(&mut self, _len: usize) -> Result<(), Stop> {
        Ok(())
    }
}

fn command(file: &dyn FileOps, command: u32, bytes: &[u8], value: usize) -> Vec<u8> {
    let mut memory = Memory(bytes.to_vec(), value);
    file.ioctl(command, &mut memory).expect("a terminal knows it");
    memory.0
}

fn int(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(bytes[..4].try_into().expect("an int"))
}

impl Ours {
    fn open() -> Ours {
        let terminals = Terminals::new(Arc::new(Nobody), || executor::Instant::BOOT);
        let master = terminals.open(pty::MULTIPLEXER, OpenFlags::RDWR).expect("memory");
        let index = int(&command(&*master, TIOCGPTN, &[0; 4], 0));
        command(&*master, TIOCSPTLCK, &[0; 4], 0);
        let slave = terminals.open((pty::SLAVE_MAJOR, index), OpenFlags::RDWR).expect("unlocked");
        Ours { _terminals: terminals, master, slave }
    }
}

fn read_ours(file: &dyn FileOps, room: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; room];
    let len = file.try_read(&mut 0, &mut SliceSink::new(&mut bytes)).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

impl Pair for Ours {
    fn write_master(&self, bytes: &[u8]) -> Option<usize> {
        self.master.try_write(&mut 0, OpenFlags::RDWR, &mut SliceSource::new(bytes)).ok()
    }
    fn write_slave(&self, bytes: &[u8]) -> Option<usize> {
        self.slave.try_write(&mut 0, OpenFlags::RDWR, &mut SliceSource::new(bytes)).ok()
    }
    fn read_master(&self) -> Option<Vec<u8>> {
        read_ours(&*self.master, 8192)
    }
    fn read_slave(&self, room: usize) -> Option<Vec<u8>> {
        read_ours(&*self.slave, room)
    }
    fn set(&self, termios: &Termios) {
        command(&*self.slave, TCSETS, &termios.to_bytes()[..TERMIOS_SIZE], 0);
    }
    fn flush_input(&self) {
        command(&*self.slave, TCFLSH, &[], TCIFLUSH as usize);
    }
    fn readable(&self) -> usize {
        int(&command(&*self.slave, TIOCINQ, &[0; 4], 0)) as usize
    }
}

#[derive(Clone, Debug)]
enum Step {
    Type(Vec<u8>),
    Print(Vec<u8>),
    Set(Termios),
    FlushInput,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn flags(&mut self, base: u32, all: &[u32]) -> u32 {
        all.iter().fold(base, |flags, flag| if self.below(5) == 0 { flags ^ flag } else { flags })
    }

    fn bytes(&mut self) -> Vec<u8> {
        const SPECIAL: &[u8] =
            b"\x03\x1a\x1c\x04\x7f\x15\x17\x12\x16\x11\x13\r\n\t\x08\0\xff;_ .\xc3\xa4\xe2\x82\xac\x01\x80";
        let len = 1 + self.below(12);
        (0..len)
            .map(|_| match self.below(10) {
                0..4 => SPECIAL[self.below(SPECIAL.len())],
                4 => self.below(256) as u8,
                _ => b"abcXYZ 019"[self.below(10)],
            })
            .collect()
    }

    fn settings(&mut self) -> Termios {
        let mut termios = Termios::initial();
        let input = [ISTRIP, INLCR, IGNCR, ICRNL, IUCLC, IXON, IXANY, IUTF8, PARMRK];
        let output = [OPOST, OLCUC, ONLCR, OCRNL, ONOCR, ONLRET, XTABS];
        let local = [ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOCTL, ECHOPRT, NOFLSH, IEXTEN];
        termios.input = self.flags(termios.input, &input);
        termios.output = self.flags(termios.output, &output);
        termios.local = self.flags(termios.local, &local);
        termios.characters[VMIN as usize] = self.below(2) as u8;
        for index in [VEOL, VEOL2, VERASE] {
            if self.below(6) == 0 {
                termios.characters[index as usize] = [b';', 0, 0x08, b'X'][self.below(4)];
            }
        }
        termios
    }

    fn script(&mut self) -> Vec<Step> {
        let mut script = if self.below(4) == 0 { Vec::new() } else { vec![Step::Set(self.settings())] };
        for _ in 0..24 {
            script.push(match self.below(16) {
                0 => Step::Set(self.settings()),
                1 => Step::FlushInput,
                2..5 => Step::Print(self.bytes()),
                _ => Step::Type(self.bytes()),
            });
        }
        script.into_iter().flat_map(tamed).collect()
    }
}

/// Takes out what is a matter of timing. Signals flush what was typed and shown before; in Linux how much of that has gone already is a matter of luck, so they come alone.
fn tamed(step: Step) -> Vec<Step> {
    let bytes = match step {
        // Echo that ^S holds back is processed by the settings of its own time here, in Linux by those of the ^Q: let it go first. (Twice: the first may be quoted by a ^V.)
        Step::Set(_) => return vec![Step::Type(vec![0x11, 0x11]), step],
        Step::Type(bytes) => bytes,
        _ => return vec![step],
    };
    let mut parts: Vec<Vec<u8>> = vec![Vec::new()];
    for byte in bytes {
        if matches!(byte & 0x7f, 0x03 | 0x1a | 0x1c) {
            parts.push(Vec::new());
        }
        parts.last_mut().expect("never empty").push(byte);
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(Step::Type).collect()
}

/// Plays a script; returns all that could be seen.
fn play(pair: &dyn Pair, script: &[Step], room: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for step in script {
        let mut line = match step {
            Step::Type(bytes) => format!("{:?}", pair.write_master(bytes)),
            Step::Print(bytes) => format!("{:?}", pair.write_slave(bytes)),
            Step::Set(termios) => {
                pair.set(termios);
                String::from("set")
            }
            Step::FlushInput => {
                pair.flush_input();
                String::from("flushed")
            }
        };
        // Ends-of-file are reads of nothing, and so is every read in raw mode without a minimum.
        let mut nothing = 0;
        while let Some(bytes) = pair.read_slave(room) {
            nothing = if bytes.is_empty() { nothing + 1 } else { 0 };
            if nothing > 20 {
                break;
            }
            let _ = write!(line, " read {:?}", String::from_utf8_lossy(&bytes));
        }
        let mut shown = Vec::new();
        while let Some(bytes) = pair.read_master().filter(|bytes| !bytes.is_empty()) {
            shown.extend(bytes);
        }
        let _ = write!(line, " shown {:?} left {}", shown.escape_ascii().to_string(), pair.readable());
        seen.push(line);
    }
    seen
}

/// Plays it on both; what differs first, if anything does.
fn difference(script: &[Step], room: usize) -> Option<(usize, String, String)> {
    let ours = play(&Ours::open(), script, room);
    let linux = play(&Linux::open(), script, room);
    let place = ours.iter().zip(&linux).position(|(ours, linux)| ours != linux)?;
    Some((place, ours[place].clone(), linux[place].clone()))
}

fn compare(seed: u64) {
    let mut random = Random(seed);
    let room = [1, 3, 8, 64, 1000][random.below(5)];
    let mut script = random.script();
    let Some((place, ..)) = difference(&script, room) else { return };
    // Shorten: leave steps out as long as there still is a difference.
    script.truncate(place + 1);
    let mut index = 0;
    while index < script.len() {
        let mut shorter = script.clone();
        shorter.remove(index);
        if difference(&shorter, room).is_some() {
            script = shorter;
        } else {
            index += 1;
        }
    }
    if let Some((_, ours, linux)) = difference(&script, room) {
        let steps: String = script.iter().map(describe).collect();
        panic!("seed {seed}, reads of {room} bytes:\n{steps}  ours:  {ours}\n  Linux: {linux}");
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Type(bytes) => format!("  type \"{}\"\n", bytes.escape_ascii()),
        Step::Print(bytes) => format!("  print \"{}\"\n", bytes.escape_ascii()),
        Step::Set(termios) => format!(
            "  set input {:#o} output {:#o} local {:#o} characters {:?}\n",
            termios.input, termios.output, termios.local, termios.characters
        ),
        Step::FlushInput => String::from("  flush input\n"),
    }
}

#[test]
fn random_scripts_are_played_as_linux_plays_them() {
    let (first, count) = match std::env::var("TTY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => (seed, 1),
        None => (1, std::env::var("TTY_SCRIPTS").ok().and_then(|count| count.parse().ok()).unwrap_or(150)),
    };
    (first..first + count).for_each(compare);
}

#[test]
fn long_lines_end_where_linux_ends_them() {
    for len in [4000, 4094, 4095, 4096, 4097, 5000] {
        let text = vec![b'x'; len];
        let mut script: Vec<Step> = text.chunks(200).map(|part| Step::Type(part.to_vec())).collect();
        script.push(Step::Type(b"yz\n".to_vec()));
        assert_eq!(difference(&script, 8192), None, "a line of {len}");
    }
}
