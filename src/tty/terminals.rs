//! All terminals: found by device number, or by the session they control.
//!
//! The kernel makes one [`Terminals`], gives it the process table as [`JobControl`], adds a terminal for each line, opens device
//! nodes through [`Terminals::open`], and tells it when a session's leader ends.
//!
//! Next: `pty.rs`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use drivers::console::ByteChannel;
use executor::Instant;
use executor::sync::{Event, SpinLock};
use executor::time::TimerHandle;
use fs::{FileOps, OpenFlags};

use super::file::TerminalFile;
use super::job_control::{Caller, JobControl};
use super::pty::{MOST, MULTIPLEXER, MasterFile, SLAVE_MAJOR};
use super::terminal::Terminal;
use super::termios::Termios;
use crate::mm::MakeRoom;
use crate::tty::{Errno, Result, rank};

/// The device number of /dev/tty.
pub const CONTROLLING: (u32, u32) = (5, 0);
/// The device number of /dev/console.
pub const CONSOLE: (u32, u32) = (5, 1);

/// The device number of /dev/tty0: the screen's terminal in front, of which there is one.
pub const IN_FRONT: (u32, u32) = (4, 0);
/// The device number of /dev/tty1.
pub const FIRST_SCREEN: (u32, u32) = (4, 1);

/// The terminals of the machine.
pub struct Terminals {
    pub(super) jobs: Arc<dyn JobControl>,
    pub(super) now: Box<dyn Fn() -> Instant + Send + Sync>,
    list: SpinLock<Vec<Arc<Terminal>>>,
    console: SpinLock<Option<Arc<Terminal>>>,
    /// Notified when a read begins that VTIME limits.
    pub(super) deadlines: Event,
}

impl Terminals {
    /// None yet. `now` is the monotonic clock.
    pub fn new(jobs: Arc<dyn JobControl>, now: impl Fn() -> Instant + Send + Sync + 'static) -> Arc<Terminals> {
        Arc::new(Terminals {
            jobs,
            now: Box::new(now),
            list: SpinLock::ordered(rank::LIST, Vec::new()),
            console: SpinLock::new(None),
            deadlines: Event::new(),
        })
    }

    /// Adds a terminal on a channel; the future moves its bytes and is to be spawned.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn add(
        self: &Arc<Self>,
        device: (u32, u32),
        name: &str,
        termios: Termios,
        channel: Arc<dyn ByteChannel>,
    ) -> Result<(Arc<Terminal>, impl Future<Output = ()> + Send + 'static)> {
        let terminal = Terminal::new(self, device, String::from(name), termios, Some(channel))?;
        self.insert(terminal.clone())?;
        let run = terminal.clone().serve();
        Ok((terminal, run))
    }

    pub(super) fn insert(&self, terminal: Arc<Terminal>) -> Result<()> {
        let mut list = self.list.lock();
        list.make_room(1)?;
        list.push(terminal);
        Ok(())
    }

    /// Adds a pseudo-terminal; `false` if its number is taken.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn insert_pty(&self, terminal: &Arc<Terminal>) -> Result<bool> {
        let mut list = self.list.lock();
        let is_taken = list.iter().any(|each| each.device == terminal.device);
        if !is_taken {
            list.make_room(1)?;
            list.push(terminal.clone());
        }
        Ok(!is_taken)
    }

    /// The lowest number that no pseudo-terminal has.
    pub(super) fn free_pty_index(&self) -> Option<u32> {
        let mut taken = self.pty_indices();
        taken.sort_unstable();
        let free = taken.iter().zip(0..).find(|(index, expected)| **index != *expected);
        let free = free.map_or(taken.len() as u32, |(_, expected)| expected);
        (free < MOST).then_some(free)
    }

    /// The numbers of all pseudo-terminals: what /dev/pts lists.
    pub fn pty_indices(&self) -> Vec<u32> {
        let list = self.list.lock();
        list.iter().filter(|each| each.device.0 == SLAVE_MAJOR).map(|each| each.device.1).collect()
    }

    pub(super) fn remove(&self, terminal: &Terminal) {
        let removed = {
            let mut list = self.list.lock();
            let index = list.iter().position(|each| core::ptr::eq(&**each, terminal));
            index.map(|index| list.swap_remove(index))
        };
        drop(removed);
    }

    /// Makes a terminal the one that /dev/console means.
    pub fn set_console(&self, terminal: Arc<Terminal>) {
        *self.console.lock() = Some(terminal);
    }

    /// Chooses what /dev/console means, as Linux does: the last `console=` on the command line that is there (`console=ttyS0,115200`),
    /// else the screen, else the terminal that was added first. Returns its name.
    pub fn choose_console(&self, command_line: &[u8]) -> Option<String> {
        let words = command_line.split(|byte| byte.is_ascii_whitespace());
        let wishes = words.filter_map(|word| word.strip_prefix(b"console="));
        let names = wishes.filter_map(|wish| wish.split(|byte| *byte == b',').next());
        let wished = names.filter_map(|name| match name {
            b"tty0" => self.find(IN_FRONT),
            _ => self.find_named(name),
        });
        let any = || self.list.lock().first().cloned();
        let console = wished.last().or_else(|| self.find(FIRST_SCREEN)).or_else(any)?;
        let name = console.name.clone();
        self.set_console(console);
        Some(name)
    }

    /// The terminal whose device node is called so, below /dev.
    fn find_named(&self, name: &[u8]) -> Option<Arc<Terminal>> {
        let is_it = |terminal: &&Arc<Terminal>| terminal.name.strip_prefix("/dev/").map(str::as_bytes) == Some(name);
        self.list.lock().iter().find(is_it).cloned()
    }

    /// The terminal with this device number.
    pub fn find(&self, device: (u32, u32)) -> Option<Arc<Terminal>> {
        let device = if device == IN_FRONT { FIRST_SCREEN } else { device };
        self.list.lock().iter().find(|terminal| terminal.device == device).cloned()
    }

    /// The terminal that controls a session: /dev/tty for its processes, `tty_nr` in /proc/PID/stat.
    pub fn controlling(&self, session: i32) -> Option<Arc<Terminal>> {
        if session == 0 {
            return None;
        }
        self.list.lock().iter().find(|terminal| terminal.ownership().session == session).cloned()
    }

    /// Opens a terminal's device node, for the calling process.
    ///
    /// # Errors
    ///
    /// `ENXIO`: no such terminal, or /dev/tty without a controlling terminal. `EBUSY`: somebody has it for himself (TIOCEXCL).
    pub fn open(self: &Arc<Self>, device: (u32, u32), flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let caller = self.jobs.caller();
        if device == MULTIPLEXER {
            return Ok(MasterFile::open(self)?);
        }
        let terminal = match device {
            CONTROLLING => caller.and_then(|caller| self.controlling(caller.session)),
            CONSOLE => self.console.lock().clone(),
            _ => self.find(device),
        };
        let terminal = terminal.ok_or(Errno::ENXIO)?;
        terminal.check_open()?;
        if terminal.is_exclusive() && caller.is_some_and(|caller| !caller.may_administer) {
            return Err(Errno::EBUSY);
        }
        if let Some(caller) = caller
            && !flags.contains(OpenFlags::NOCTTY)
            && device != CONSOLE
            && flags.can_read()
        {
            self.adopt(&terminal, &caller);
        }
        Ok(Arc::new(TerminalFile::new(terminal)))
    }

    /// A session's leader without a terminal that opens one which is free makes it its controlling terminal.
    fn adopt(&self, terminal: &Terminal, caller: &Caller) {
        if caller.leads_session() && terminal.ownership().session == 0 && self.controlling(caller.session).is_none() {
            terminal.own(caller);
        }
    }

    /// The leader of a session has ended: its terminal is free, its foreground group is told.
    pub fn session_ended(&self, session: i32) {
        if let Some(terminal) = self.controlling(session) {
            terminal.leader_ended();
        }
    }

    /// Ends reads whose time is over (VTIME), for as long as the machine runs; to be spawned once.
    pub async fn run(self: Arc<Self>, timers: TimerHandle) {
        loop {
            let now = (self.now)();
            let terminals: Vec<Arc<Terminal>> = self.list.lock().clone();
            let next = terminals.iter().filter_map(|terminal| terminal.deadline(now)).min();
            drop(terminals);
            match next {
                None => {
                    self.deadlines.wait().await;
                }
                Some(deadline) => {
                    let mut changed = pin!(self.deadlines.wait());
                    let mut over = pin!(timers.sleep_until(deadline));
                    poll_fn(|context| {
                        let is_over = over.as_mut().poll(context).is_ready();
                        if changed.as_mut().poll(context).is_ready() || is_over {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    })
                    .await;
                    let terminals: Vec<Arc<Terminal>> = self.list.lock().clone();
                    for terminal in terminals {
                        terminal.ready.wake_all();
                    }
                }
            }
        }
    }
}
