//! A terminal: a line discipline between a line and the files that programs have open on it.
//!
//! ```text
//!   programs ── TerminalFile ── Terminal { Discipline, size, session, foreground } ── run() ── ByteChannel (serial, console, screen)
//!                                                                                  └── MasterFile (pseudo-terminal)
//! ```
//!
//! Everything is an attempt under one short spin lock. Programs wait on its `ready` queue. The lower side is either a [`ByteChannel`],
//! served by the future that [`Terminals::add`] returns, or the master of a pseudo-terminal, which calls [`Terminal::receive`] and
//! takes the output itself.
//!
//! A hang-up (the line is gone, or the session's leader is) raises the terminal's generation: files opened before it read the end
//! of file and can do nothing else (POSIX 11.1.10).
//!
//! Next: `file.rs`. Exercise: which wake-up would be lost if `serve` looked for work before it registered?

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use abi::general::{ICANON, SIGCONT, SIGHUP, SIGWINCH, TOSTOP, VMIN, VTIME};
use drivers::console::ByteChannel;
use executor::Instant;
use executor::sync::{Event, SpinLock, WaitQueue};
use fs::{PollEvents, Sink, Source, Stop};

use super::discipline::{Discipline, Events};
use super::job_control::{self, Caller, JobControl, Ownership};
use super::pty::Pty;
use super::terminals::Terminals;
use super::termios::Termios;
use crate::tty::{Errno, Result, rank};

/// An expired VTIME that nobody came to collect for so long belongs to a read that was given up.
const STALE_AFTER: Duration = Duration::from_millis(200);

/// The size of the window, `struct winsize`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Pixels across, or 0.
    pub width: u16,
    /// Pixels down, or 0.
    pub height: u16,
}

/// A read that VTIME limits.
struct TimedRead {
    /// When it ends.
    deadline: Instant,
    /// How much there was to read when the clock was started: more restarts it.
    seen: usize,
}

pub(super) struct State {
    pub(super) discipline: Discipline,
    pub(super) size: WindowSize,
    pub(super) ownership: Ownership,
    /// TIOCEXCL: no more opens.
    pub(super) is_exclusive: bool,
    /// Files of this generation are open.
    pub(super) opens: usize,
    /// How many hang-ups there were.
    pub(super) generation: u64,
    timed_read: Option<TimedRead>,
    /// What a slave of a pseudo-terminal has besides.
    pub(super) pty: Option<Pty>,
}

/// A terminal.
pub struct Terminal {
    /// Major and minor number of its device node.
    pub device: (u32, u32),
    /// Its path, such as `/dev/ttyS0`.
    pub name: String,
    pub(super) terminals: Weak<Terminals>,
    pub(super) state: SpinLock<State>,
    channel: Option<Arc<dyn ByteChannel>>,
    /// Woken whenever reading, writing or polling may have a new answer.
    pub(super) ready: WaitQueue,
    /// The same for the master of a pseudo-terminal.
    pub(super) master_ready: WaitQueue,
    /// Tells `serve` that there is room for input or new output.
    work: Event,
}

impl Terminal {
    /// A terminal over `channel`, or over the master of a pseudo-terminal.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        terminals: &Arc<Terminals>,
        device: (u32, u32),
        name: String,
        termios: Termios,
        channel: Option<Arc<dyn ByteChannel>>,
    ) -> Result<Arc<Terminal>> {
        let state = State {
            discipline: Discipline::new(termios)?,
            size: WindowSize::default(),
            ownership: Ownership::default(),
            is_exclusive: false,
            opens: 0,
            generation: 0,
            timed_read: None,
            pty: None,
        };
        Ok(Arc::new(Terminal {
            device,
            name,
            terminals: Arc::downgrade(terminals),
            state: SpinLock::ordered(rank::TERMINAL, state),
            channel,
            ready: WaitQueue::new(),
            master_ready: WaitQueue::new(),
            work: Event::new(),
        }))
    }

    fn jobs(&self) -> Option<Arc<Terminals>> {
        self.terminals.upgrade()
    }

    pub(super) fn with_jobs<R>(&self, work: impl FnOnce(&dyn JobControl) -> R) -> Option<R> {
        self.jobs().map(|terminals| work(&*terminals.jobs))
    }

    /// The channel below, unless this is a pseudo-terminal.
    pub(super) fn channel(&self) -> Option<&Arc<dyn ByteChannel>> {
        self.channel.as_ref()
    }

    /// May it be opened by its name?
    ///
    /// # Errors
    ///
    /// `EIO`: a slave that is locked, or has lost its master.
    pub(super) fn check_open(&self) -> Result<()> {
        let state = self.state.lock();
        let is_refused = state.pty.as_ref().is_some_and(|pty| pty.is_locked || pty.is_orphaned);
        if is_refused { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Who made this pseudo-terminal; root for other terminals.
    pub(super) fn pty_owner(&self) -> u32 {
        self.state.lock().pty.as_ref().map_or(0, |pty| pty.owner)
    }

    /// Whether somebody has it for himself.
    pub(super) fn is_exclusive(&self) -> bool {
        self.state.lock().is_exclusive
    }

    /// Makes it the controlling terminal of the caller's session, with the caller's group in the foreground.
    pub(super) fn own(&self, caller: &Caller) {
        self.state.lock().ownership = Ownership { session: caller.session, foreground: caller.group };
    }

    /// The session's leader lets go of it (TIOCNOTTY): the foreground group is told.
    pub(super) fn abandon(&self) {
        let ownership = core::mem::take(&mut self.state.lock().ownership);
        self.tell_foreground(ownership);
    }

    fn tell_foreground(&self, ownership: Ownership) {
        if ownership.foreground != 0 {
            self.with_jobs(|jobs| {
                jobs.signal_group(ownership.foreground, SIGHUP);
                jobs.signal_group(ownership.foreground, SIGCONT);
            });
        }
    }

    /// A file of this generation was closed for the last time.
    pub(super) fn closed(&self, generation: u64) {
        let is_last = self.change(|state| {
            if state.generation != generation || state.opens == 0 {
                return false;
            }
            state.opens -= 1;
            if state.opens == 0 {
                state.is_exclusive = false;
                if let Some(pty) = &mut state.pty {
                    pty.is_slave_closed = true;
                }
            }
            state.opens == 0
        });
        if is_last && let Some(channel) = &self.channel {
            channel.set_open(false);
        }
    }

    /// To whom it belongs.
    pub fn ownership(&self) -> Ownership {
        self.state.lock().ownership
    }

    // ---- the upper side: programs ----

    /// Attempts to read, for a file of this generation.
    ///
    /// # Errors
    ///
    /// `EIO`, `ERESTARTSYS` by the rules of job control; [`Stop::WouldBlock`]; [`Stop::Fault`].
    pub fn read(&self, generation: u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if self.state.lock().generation != generation {
            return Ok(0);
        }
        self.with_jobs(|jobs| job_control::check_read(jobs, self.ownership())).unwrap_or(Ok(()))?;
        let mut state = self.state.lock();
        if state.generation != generation || sink.remaining() == 0 {
            return Ok(0);
        }
        let result =
            if state.discipline.is_canonical() { read_line(&mut state, sink) } else { self.read_raw(&mut state, sink) };
        drop(state);
        if matches!(result, Ok(count) if count > 0) {
            self.work.notify();
            self.master_ready.wake_all();
        }
        result
    }

    /// A read in raw mode: what VMIN and VTIME ask for (termios(3), "Canonical and noncanonical mode").
    fn read_raw(&self, state: &mut State, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let termios = state.discipline.termios();
        let (minimum, tenths) = (usize::from(termios.character(VMIN)), termios.character(VTIME));
        let there = state.discipline.input.len();
        let is_enough = there >= minimum.min(sink.remaining()) && (there > 0 || tenths == 0);
        if !is_enough && !self.is_time_up(state, minimum, tenths) {
            return Err(Stop::WouldBlock);
        }
        state.timed_read = None;
        let copied = state.discipline.input.read_raw(sink);
        if copied.faulted && copied.bytes == 0 { Err(Stop::Fault) } else { Ok(copied.bytes) }
    }

    /// Whether a read that has not enough yet is over by time. Starts the clock, and restarts it with each byte.
    fn is_time_up(&self, state: &mut State, minimum: usize, tenths: u8) -> bool {
        let there = state.discipline.input.len();
        // With a minimum, the clock runs only between bytes.
        if tenths == 0 || (minimum > 0 && there == 0) {
            return false;
        }
        let Some(terminals) = self.jobs() else { return true };
        let now = (terminals.now)();
        match &state.timed_read {
            Some(read) if read.seen == there && now < read.deadline => false,
            Some(read) if read.seen == there && now < read.deadline.saturating_add(STALE_AFTER) => true,
            _ => {
                let deadline = now.saturating_add(Duration::from_millis(100 * u64::from(tenths)));
                state.timed_read = Some(TimedRead { deadline, seen: there });
                terminals.deadlines.notify();
                false
            }
        }
    }

    /// When a timed read ends, if one is going on and its end is still to come.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.state.lock().timed_read.as_ref().map(|read| read.deadline).filter(|deadline| *deadline > now)
    }

    /// Attempts to write, for a file of this generation.
    ///
    /// # Errors
    ///
    /// `EIO` after a hang-up; `ERESTARTSYS` by the rules of job control; [`Stop::WouldBlock`]; [`Stop::Fault`].
    pub fn write(&self, generation: u64, source: &mut dyn Source) -> Result<usize, Stop> {
        let (ownership, is_guarded) = {
            let state = self.state.lock();
            (state.ownership, state.discipline.termios().local & TOSTOP != 0)
        };
        if is_guarded {
            self.with_jobs(|jobs| job_control::check_change(jobs, ownership)).unwrap_or(Ok(()))?;
        }
        let mut state = self.state.lock();
        if state.generation != generation {
            return Err(Stop::Errno(Errno::EIO));
        }
        if source.remaining() == 0 {
            return Ok(0);
        }
        let written = self.write_some(&mut state, source);
        drop(state);
        self.work.notify();
        self.master_ready.wake_all();
        match written {
            0 if source.faulted() => Err(Stop::Fault),
            0 => Err(Stop::WouldBlock),
            count => Ok(count),
        }
    }

    fn write_some(&self, state: &mut State, source: &mut dyn Source) -> usize {
        let mut written = 0;
        let mut chunk = [0; 512];
        while source.remaining() > 0 && !state.discipline.is_stopped() {
            // One byte may become eight (a tab), and what was taken must fit.
            let room = state.discipline.output.room() / 8;
            let len = chunk.len().min(room);
            let taken = if len == 0 { 0 } else { source.take(&mut chunk[..len]) };
            if taken == 0 {
                break;
            }
            state.discipline.write(&chunk[..taken]);
            written += taken;
            self.push_output(state);
        }
        written
    }

    /// What poll(2) says to a file of this generation.
    pub fn poll(&self, generation: u64) -> PollEvents {
        let state = self.state.lock();
        let readable = PollEvents::IN | PollEvents::RDNORM;
        let writable = PollEvents::OUT | PollEvents::WRNORM;
        if state.generation != generation {
            return readable | writable | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        let discipline = &state.discipline;
        let termios = discipline.termios();
        let is_readable = if termios.local & ICANON != 0 {
            discipline.input.has_line()
        } else {
            let minimum = if termios.character(VTIME) == 0 { usize::from(termios.character(VMIN)) } else { 1 };
            discipline.input.len() >= minimum.max(1)
        };
        if is_readable {
            events |= readable;
        }
        if !discipline.is_stopped() && discipline.output.room() >= 256 {
            events |= writable;
        }
        events
    }

    // ---- the lower side ----

    /// Takes bytes from the line; returns how many found room.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let events = self.receive_locked(&mut state, bytes);
        let foreground = state.ownership.foreground;
        drop(state);
        self.announce(events, foreground);
        events.taken
    }

    /// Takes a part of what the master's writer gives; returns how much.
    pub(super) fn receive_from(&self, source: &mut dyn Source) -> usize {
        let mut state = self.state.lock();
        let mut chunk = [0; 256];
        let room = state.discipline.room().min(chunk.len());
        let taken = if room == 0 { 0 } else { source.take(&mut chunk[..room]) };
        let events = self.receive_locked(&mut state, &chunk[..taken]);
        let foreground = state.ownership.foreground;
        drop(state);
        if taken > 0 {
            self.announce(events, foreground);
        }
        taken
    }

    fn receive_locked(&self, state: &mut State, bytes: &[u8]) -> Events {
        let was_stopped = state.discipline.is_stopped();
        let events = state.discipline.receive(bytes);
        let is_stopped = state.discipline.is_stopped();
        if let Some(pty) = &mut state.pty {
            if is_stopped != was_stopped {
                pty.note_flow(is_stopped);
            }
            if events.has_flushed {
                pty.note_flush(true, true);
            }
        }
        self.push_output(state);
        events
    }

    fn announce(&self, events: Events, foreground: i32) {
        if events.signals != 0 && foreground != 0 {
            self.with_jobs(|jobs| events.signal_numbers().for_each(|signal| jobs.signal_group(foreground, signal)));
        }
        self.ready.wake_all();
        self.master_ready.wake_all();
    }

    /// Whether [`Terminal::receive`] would take something.
    pub fn can_receive(&self) -> bool {
        self.state.lock().discipline.can_receive()
    }

    /// Copies output to the master's reader, but not what ^S holds back; returns how much.
    pub(super) fn copy_output(&self, sink: &mut dyn Sink) -> usize {
        let mut state = self.state.lock();
        let mut copied = 0;
        while sink.remaining() > 0 && state.discipline.sendable() > 0 {
            let front = state.discipline.output.front();
            let wanted = front.len().min(sink.remaining()).min(state.discipline.sendable());
            let taken = sink.put(&front[..wanted]);
            state.discipline.output.consume(taken);
            copied += taken;
            if taken < wanted {
                break;
            }
        }
        drop(state);
        if copied > 0 {
            self.ready.wake_all();
        }
        copied
    }

    /// The master of this pseudo-terminal was closed: a hang-up, and the name is free.
    pub(super) fn master_closed(&self) {
        self.change(|state| {
            if let Some(pty) = &mut state.pty {
                pty.is_orphaned = true;
            }
        });
        if let Some(terminals) = self.terminals.upgrade() {
            terminals.remove(self);
        }
        self.hang_up();
    }

    /// Hands output to the channel, as much as it takes.
    fn push_output(&self, state: &mut State) {
        let Some(channel) = &self.channel else { return };
        let discipline = &mut state.discipline;
        while !discipline.is_stopped() && !discipline.output.is_empty() {
            if !channel.is_connected() {
                discipline.output.flush();
                return;
            }
            match channel.try_write(discipline.output.front()) {
                0 => return,
                taken => discipline.output.consume(taken),
            }
        }
    }

    /// How many bytes of output have not left yet.
    pub(super) fn unsent(&self) -> usize {
        let waiting = self.state.lock().discipline.output.len();
        waiting + self.channel.as_ref().map_or(0, |channel| channel.unsent())
    }

    /// Serves the channel, for as long as the machine runs.
    pub(super) async fn serve(self: Arc<Self>) {
        let Some(channel) = self.channel.clone() else { return };
        let mut held = Held { bytes: [0; 256], start: 0, end: 0 };
        let mut was_connected = channel.is_connected();
        loop {
            let mut readable = pin!(channel.readable().wait());
            let mut writable = pin!(channel.writable().wait());
            let mut work = pin!(self.work.wait());
            // Register first, then look: what arrives in between is seen by one or the other.
            poll_fn(|context| {
                let is_woken = readable.as_mut().poll(context).is_ready()
                    | writable.as_mut().poll(context).is_ready()
                    | work.as_mut().poll(context).is_ready();
                if is_woken || self.has_work(&*channel, &held) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            while self.move_input(&*channel, &mut held) {}
            self.push_output(&mut self.state.lock());
            self.ready.wake_all();
            if was_connected && !channel.is_connected() {
                self.hang_up();
            }
            was_connected = channel.is_connected();
        }
    }

    fn has_work(&self, channel: &dyn ByteChannel, held: &Held) -> bool {
        let state = self.state.lock();
        let has_input = held.start < held.end || channel.can_read();
        let has_output = !state.discipline.is_stopped() && !state.discipline.output.is_empty();
        (has_input && state.discipline.can_receive()) || (has_output && channel.can_write())
    }

    /// Moves a chunk from the channel to the discipline; `false` when there is nothing to move, or no room for it.
    fn move_input(&self, channel: &dyn ByteChannel, held: &mut Held) -> bool {
        if held.start == held.end {
            if !self.can_receive() {
                return false;
            }
            (held.start, held.end) = (0, channel.try_read(&mut held.bytes));
        }
        let taken = self.receive(&held.bytes[held.start..held.end]);
        held.start += taken;
        taken > 0
    }

    // ---- both ----

    /// Sets the size of the window and tells the foreground group if it is another.
    pub fn resize(&self, size: WindowSize) {
        let mut state = self.state.lock();
        let is_new = core::mem::replace(&mut state.size, size) != size;
        let foreground = state.ownership.foreground;
        drop(state);
        if is_new && foreground != 0 {
            self.with_jobs(|jobs| jobs.signal_group(foreground, SIGWINCH));
        }
    }

    /// Changes the settings.
    pub(super) fn set_termios(&self, termios: Termios) {
        let mut state = self.state.lock();
        let State { discipline, pty, .. } = &mut *state;
        if let Some(pty) = pty {
            pty.note_settings(discipline.termios(), &termios);
        }
        discipline.set_termios(termios);
        self.push_output(&mut state);
        drop(state);
        self.notify_all();
    }

    /// Changes something that readers, writers and the line may be waiting for.
    pub(super) fn change<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = work(&mut state);
        self.push_output(&mut state);
        drop(state);
        self.notify_all();
        result
    }

    fn notify_all(&self) {
        self.work.notify();
        self.ready.wake_all();
        self.master_ready.wake_all();
    }

    /// The line is gone: the session's leader is told (SIGHUP, SIGCONT), and all open files are dead from now on.
    pub fn hang_up(&self) {
        let ownership = self.disconnect();
        if ownership.session != 0 {
            self.with_jobs(|jobs| {
                jobs.signal_process(ownership.session, SIGHUP);
                jobs.signal_process(ownership.session, SIGCONT);
            });
        }
    }

    /// The session's leader has ended: the foreground group is told, and the terminal belongs to nobody.
    pub(super) fn leader_ended(&self) {
        let ownership =
            if self.channel.is_some() { self.disconnect() } else { core::mem::take(&mut self.state.lock().ownership) };
        self.tell_foreground(ownership);
    }

    fn disconnect(&self) -> Ownership {
        let mut state = self.state.lock();
        state.generation += 1;
        state.opens = 0;
        state.is_exclusive = false;
        state.timed_read = None;
        state.discipline.flush_input();
        state.discipline.output.flush();
        state.discipline.hold(false);
        let ownership = core::mem::take(&mut state.ownership);
        drop(state);
        self.notify_all();
        ownership
    }
}

/// Input that was taken from the channel and has found no room yet.
struct Held {
    bytes: [u8; 256],
    start: usize,
    end: usize,
}

/// A read in canonical mode: one line, or what fits of it.
fn read_line(state: &mut State, sink: &mut dyn Sink) -> Result<usize, Stop> {
    if !state.discipline.input.has_line() {
        return Err(Stop::WouldBlock);
    }
    let copied = state.discipline.input.read_line(sink);
    if copied.faulted && copied.bytes == 0 { Err(Stop::Fault) } else { Ok(copied.bytes) }
}
