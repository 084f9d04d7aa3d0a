//! Pseudo-terminals: a terminal whose line is a file, the master, that a program holds (pty(7)): `script`, `ssh`, terminal windows.
//!
//! ```text
//!   shell ── /dev/pts/N ── Terminal ── MasterFile ── terminal emulator
//!      write ─► output processing ─► take_output ─► read
//!      read ◄── input, echo ◄────── receive ◄────── write
//! ```
//!
//! No task is needed: the master's calls do the work of the line. Closing the master is a hang-up; when the last file on the slave is
//! closed, the master reads what is left and then EIO, until the slave is opened again.
//!
//! Next: `devpts.rs`. Exercise: where does a master that nobody reads stop the shell?

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use abi::general::{
    IXON, SIGINT, SIGQUIT, SIGTSTP, TCIFLUSH, TCIOFLUSH, TCOFLUSH, TIOCPKT_DOSTOP, TIOCPKT_FLUSHREAD,
    TIOCPKT_FLUSHWRITE, TIOCPKT_NOSTOP, TIOCPKT_START, TIOCPKT_STOP, VSTART, VSTOP,
};
use abi::ioctl::{
    TCFLSH, TIOCGPGRP, TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGSID, TIOCINQ, TIOCOUTQ, TIOCPKT, TIOCSIG, TIOCSPTLCK,
};
use executor::sync::WaitQueue;
use fs::{FileOps, Io, IoctlArgument, OpenFlags, PollEvents, Sink, Source, Stop};

use super::file::TerminalFile;
use super::ioctl;
use super::terminal::{State, Terminal};
use super::terminals::Terminals;
use super::termios::Termios;
use crate::tty::{Errno, Result};

/// The device number of /dev/ptmx.
pub const MULTIPLEXER: (u32, u32) = (5, 2);
/// The major number of the slaves; the minor is the index.
pub const SLAVE_MAJOR: u32 = 136;
/// How many pseudo-terminals there can be at once.
pub const MOST: u32 = 4096;

/// What a terminal knows about being a slave.
#[derive(Default)]
pub(super) struct Pty {
    /// Not to be opened before the master has said so (unlockpt(3)).
    pub(super) is_locked: bool,
    /// The master was closed.
    pub(super) is_orphaned: bool,
    /// The slave was open and is not any more.
    pub(super) is_slave_closed: bool,
    /// Packet mode: each read begins with a status byte.
    has_packets: bool,
    /// What happened since the master last looked (TIOCPKT_*).
    packet: u8,
    /// The user who opened the master: the slave's node belongs to him.
    pub(super) owner: u32,
}

/// An open /dev/ptmx.
pub struct MasterFile {
    terminal: Arc<Terminal>,
    index: u32,
}

impl MasterFile {
    /// Makes a pseudo-terminal; its slave is locked.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are too many. `ENOMEM`.
    pub(super) fn open(terminals: &Arc<Terminals>) -> Result<Arc<MasterFile>> {
        let owner = terminals.jobs.caller().map_or(0, |caller| caller.user);
        loop {
            let index = terminals.free_pty_index().ok_or(Errno::ENOSPC)?;
            let name = format!("/dev/pts/{index}");
            let terminal = Terminal::new(terminals, (SLAVE_MAJOR, index), name, Termios::initial(), None)?;
            terminal.state.lock().pty = Some(Pty { is_locked: true, owner, ..Pty::default() });
            // Somebody else may have taken the number meanwhile.
            if terminals.insert_pty(&terminal)? {
                return Ok(Arc::new(MasterFile { terminal, index }));
            }
        }
    }

    /// The number in the slave's name.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Opens the slave through its master (TIOCGPTPEER), whatever its name is here and whether it is locked.
    ///
    /// # Errors
    ///
    /// `EIO`: the master is being closed.
    pub fn open_peer(&self) -> Result<Arc<dyn FileOps>> {
        if self.with(|_, pty| pty.is_orphaned) {
            return Err(Errno::EIO);
        }
        Ok(Arc::new(TerminalFile::new(self.terminal.clone())))
    }

    fn with<R>(&self, work: impl FnOnce(&mut super::discipline::Discipline, &mut Pty) -> R) -> R {
        let mut state = self.terminal.state.lock();
        let State { discipline, pty, .. } = &mut *state;
        work(discipline, pty.get_or_insert_default())
    }

    /// What a read finds.
    fn state(&self) -> Readiness {
        self.with(|discipline, pty| Readiness {
            has_output: discipline.sendable() > 0,
            has_packet: pty.has_packets && pty.packet != 0,
            is_closed: pty.is_slave_closed,
            can_write: discipline.can_receive(),
        })
    }
}

struct Readiness {
    has_output: bool,
    has_packet: bool,
    is_closed: bool,
    can_write: bool,
}

impl FileOps for MasterFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let readiness = self.state();
        let mut count = 0;
        if readiness.has_packet {
            let packet = self.with(|_, pty| pty.packet);
            if sink.put(&[packet]) == 0 {
                return Err(Stop::Fault);
            }
            self.with(|_, pty| pty.packet &= !packet);
            return Ok(1);
        }
        if !readiness.has_output {
            return Err(if readiness.is_closed { Errno::EIO.into() } else { Stop::WouldBlock });
        }
        if self.with(|_, pty| pty.has_packets) {
            if sink.put(&[0]) == 0 {
                return Err(Stop::Fault);
            }
            count = 1;
        }
        let copied = self.terminal.copy_output(sink);
        if copied == 0 && sink.faulted() {
            return Err(Stop::Fault);
        }
        Ok(count + copied)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let mut written = 0;
        while source.remaining() > 0 {
            match self.terminal.receive_from(source) {
                0 => break,
                taken => written += taken,
            }
        }
        match written {
            0 if source.faulted() => Err(Stop::Fault),
            0 if source.remaining() > 0 => Err(Stop::WouldBlock),
            count => Ok(count),
        }
    }

    fn poll(&self) -> PollEvents {
        let readiness = self.state();
        let mut events = PollEvents::empty();
        if readiness.has_output {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if readiness.has_packet {
            events |= PollEvents::PRI | PollEvents::IN | PollEvents::RDNORM;
        }
        if readiness.can_write {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        if readiness.is_closed {
            events |= PollEvents::HUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.master_ready)
    }

    fn ioctl(&self, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        let terminal = &*self.terminal;
        let put = |argument: &mut dyn IoctlArgument, value: usize| {
            argument.put(&i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes()).map(|()| 0)
        };
        let get = |argument: &mut dyn IoctlArgument| {
            let mut bytes = [0; 4];
            argument.get(&mut bytes).map(|()| i32::from_ne_bytes(bytes) != 0)
        };
        match command {
            TIOCGPTN => put(argument, self.index as usize),
            TIOCSPTLCK => {
                let is_locked = get(argument)?;
                self.with(|_, pty| pty.is_locked = is_locked);
                Ok(0)
            }
            TIOCGPTLCK => put(argument, usize::from(self.with(|_, pty| pty.is_locked))),
            TIOCPKT => {
                let has_packets = get(argument)?;
                self.with(|_, pty| (pty.has_packets, pty.packet) = (has_packets, 0));
                Ok(0)
            }
            TIOCGPKT => put(argument, usize::from(self.with(|_, pty| pty.has_packets))),
            TIOCINQ => put(argument, self.with(|discipline, _| discipline.sendable())),
            TIOCOUTQ => put(argument, 0),
            TIOCSIG => {
                let signal = u32::try_from(argument.value()).unwrap_or(0);
                if !matches!(signal, SIGINT | SIGQUIT | SIGTSTP) {
                    return Err(Errno::EINVAL.into());
                }
                let foreground = terminal.ownership().foreground;
                if foreground != 0 {
                    terminal.with_jobs(|jobs| jobs.signal_group(foreground, signal));
                }
                Ok(0)
            }
            TIOCGPGRP => ioctl::group_of(terminal, argument, false),
            TIOCGSID => ioctl::session_of(terminal, argument, false),
            // The master's input is the slave's output.
            TCFLSH => {
                let which = match u32::try_from(argument.value()) {
                    Ok(TCIFLUSH) => TCOFLUSH,
                    Ok(TCOFLUSH) => TCIFLUSH,
                    Ok(TCIOFLUSH) => TCIOFLUSH,
                    _ => return Err(Errno::EINVAL.into()),
                };
                ioctl::flush(terminal, which as usize)
            }
            _ => ioctl::mode_ioctl(terminal, command, argument),
        }
    }

    fn release(&self) -> Io<'_, ()> {
        self.terminal.master_closed();
        Io::ready(Ok(()))
    }

    fn name(&self) -> String {
        "/dev/ptmx".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Pty {
    /// The queues were flushed.
    pub(super) fn note_flush(&mut self, is_input: bool, is_output: bool) {
        if self.has_packets {
            self.packet |= if is_input { TIOCPKT_FLUSHREAD as u8 } else { 0 };
            self.packet |= if is_output { TIOCPKT_FLUSHWRITE as u8 } else { 0 };
        }
    }

    /// Output was stopped, or let go.
    pub(super) fn note_flow(&mut self, is_stopped: bool) {
        if self.has_packets {
            let (now, before) = if is_stopped { (TIOCPKT_STOP, TIOCPKT_START) } else { (TIOCPKT_START, TIOCPKT_STOP) };
            self.packet = (self.packet & !(before as u8)) | now as u8;
        }
    }

    /// The settings changed: does ^S stop output on the other side's behalf?
    pub(super) fn note_settings(&mut self, old: &Termios, new: &Termios) {
        let stops = |termios: &Termios| {
            termios.input & IXON != 0 && termios.character(VSTART) == 0x11 && termios.character(VSTOP) == 0x13
        };
        if self.has_packets && stops(old) != stops(new) {
            let (now, before) =
                if stops(new) { (TIOCPKT_DOSTOP, TIOCPKT_NOSTOP) } else { (TIOCPKT_NOSTOP, TIOCPKT_DOSTOP) };
            self.packet = (self.packet & !(before as u8)) | now as u8;
        }
    }
}
