//! ioctl(2) on terminals: ioctl_tty(2) is the specification.
//!
//! A command copies in first, acts, and copies out last, so that it can be repeated after a fault of user memory. Commands that change
//! the terminal stop callers in the background, as `tcsetattr` and its family must.
//!
//! Next: `terminals.rs`.

use abi::general::{TCIFLUSH, TCIOFF, TCIOFLUSH, TCION, TCOFLUSH, TCOOFF, TCOON, VSTART, VSTOP};
use abi::general::{TIOCM_CAR, TIOCM_CTS, TIOCM_DSR, TIOCM_DTR, TIOCM_RTS};
use abi::ioctl::{
    TCFLSH, TCGETS, TCGETS2, TCSBRK, TCSBRKP, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW, TCSETSW2, TCXONC, TIOCCBRK,
    TIOCEXCL, TIOCGETD, TIOCGEXCL, TIOCGPGRP, TIOCGSID, TIOCGWINSZ, TIOCINQ, TIOCMGET, TIOCNOTTY, TIOCNXCL, TIOCOUTQ,
    TIOCSBRK, TIOCSCTTY, TIOCSETD, TIOCSPGRP, TIOCSTI, TIOCSWINSZ, TIOCVHANGUP,
};
use fs::{IoctlArgument, Stop};

use super::discipline::Discipline;
use super::file::TerminalFile;
use super::job_control::{self, Caller, JobControl};
use super::terminal::{Terminal, WindowSize};
use super::termios::{TERMIO_SIZE, TERMIOS_SIZE, TERMIOS2_SIZE};
use crate::tty::{Errno, Result};

/// Linux's numbers for `struct termio`, which linux-raw-sys does not list.
const TCGETA: u32 = 0x5405;
const TCSETA: u32 = 0x5406;
const TCSETAW: u32 = 0x5407;
const TCSETAF: u32 = 0x5408;
/// The same as TIOCINQ under its other name.
const _: () = assert!(TIOCINQ == 0x541b);

/// When a change of settings takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    /// After all output has been sent.
    Drained,
    /// The same, and unread input is forgotten.
    Flushed,
}

/// What an ioctl on an open terminal does.
///
/// # Errors
///
/// `ENOTTY`: no such command, or it asks about a controlling terminal and this is not the caller's. `EIO`: hung up. Others as
/// ioctl_tty(2) lists them. [`Stop::WouldBlock`]: output must be sent first.
pub(super) fn terminal_ioctl(
    file: &TerminalFile,
    command: u32,
    argument: &mut dyn IoctlArgument,
) -> Result<usize, Stop> {
    let terminal = &*file.terminal;
    if file.is_hung_up() {
        return Err(Stop::Errno(if command == TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO }));
    }
    match command {
        TIOCGPGRP => group_of(terminal, argument, true),
        TIOCSPGRP => set_foreground(terminal, argument),
        TIOCGSID => session_of(terminal, argument, true),
        TIOCSCTTY => become_controlling(terminal, argument.value()),
        TIOCNOTTY => give_up(terminal),
        TIOCVHANGUP => {
            must_administer(terminal)?;
            terminal.hang_up();
            Ok(0)
        }
        TIOCOUTQ => put_int(argument, terminal.unsent()),
        TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 | TCSETA | TCSETAW | TCSETAF | TCFLSH | TCXONC
        | TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => {
            terminal.with_jobs(|jobs| job_control::check_change(jobs, terminal.ownership())).unwrap_or(Ok(()))?;
            mode_ioctl(terminal, command, argument)
        }
        _ => mode_ioctl(terminal, command, argument),
    }
}

/// The commands that work on either end of a pseudo-terminal, and ask nothing about the caller.
///
/// # Errors
///
/// `ENOTTY`: no such command. `EINVAL`: a value that makes no sense. [`Stop::WouldBlock`], [`Stop::Fault`].
pub(super) fn mode_ioctl(terminal: &Terminal, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
    match command {
        TCGETS => put_settings(terminal, argument, TERMIOS_SIZE),
        TCGETS2 => put_settings(terminal, argument, TERMIOS2_SIZE),
        TCSETS => set_settings(terminal, argument, TERMIOS_SIZE, When::Now),
        TCSETSW => set_settings(terminal, argument, TERMIOS_SIZE, When::Drained),
        TCSETSF => set_settings(terminal, argument, TERMIOS_SIZE, When::Flushed),
        TCSETS2 => set_settings(terminal, argument, TERMIOS2_SIZE, When::Now),
        TCSETSW2 => set_settings(terminal, argument, TERMIOS2_SIZE, When::Drained),
        TCSETSF2 => set_settings(terminal, argument, TERMIOS2_SIZE, When::Flushed),
        TCGETA => {
            let bytes = terminal.state.lock().discipline.termios().to_termio();
            argument.put(&bytes).map(|()| 0)
        }
        TCSETA => set_settings(terminal, argument, TERMIO_SIZE, When::Now),
        TCSETAW => set_settings(terminal, argument, TERMIO_SIZE, When::Drained),
        TCSETAF => set_settings(terminal, argument, TERMIO_SIZE, When::Flushed),
        TIOCGWINSZ => {
            let size = terminal.state.lock().size;
            let mut bytes = [0; 8];
            for (place, number) in bytes.chunks_exact_mut(2).zip([size.rows, size.columns, size.width, size.height]) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
            argument.put(&bytes).map(|()| 0)
        }
        TIOCSWINSZ => {
            let mut bytes = [0; 8];
            argument.get(&mut bytes)?;
            let number = |place: usize| u16::from_ne_bytes([bytes[place], bytes[place + 1]]);
            terminal.resize(WindowSize { rows: number(0), columns: number(2), width: number(4), height: number(6) });
            Ok(0)
        }
        TIOCINQ => {
            let state = terminal.state.lock();
            let input = &state.discipline.input;
            let count = if state.discipline.is_canonical() { input.line_bytes() } else { input.len() };
            drop(state);
            put_int(argument, count)
        }
        TCFLSH => flush(terminal, argument.value()),
        TCXONC => flow(terminal, argument.value()),
        // A break is not sent: none of the lines has one. With an argument, TCSBRK is tcdrain(3).
        TCSBRK | TCSBRKP => drained(terminal),
        TIOCSBRK | TIOCCBRK => Ok(0),
        TIOCEXCL | TIOCNXCL => {
            terminal.state.lock().is_exclusive = command == TIOCEXCL;
            Ok(0)
        }
        TIOCGEXCL => {
            let is_exclusive = terminal.state.lock().is_exclusive;
            put_int(argument, usize::from(is_exclusive))
        }
        TIOCGETD => put_int(argument, 0),
        TIOCSETD => match get_int(argument)? {
            0 => Ok(0),
            _ => Err(Errno::EINVAL.into()),
        },
        TIOCMGET if terminal.channel().is_some() => {
            put_int(argument, (TIOCM_DTR | TIOCM_RTS | TIOCM_CTS | TIOCM_CAR | TIOCM_DSR) as usize)
        }
        // Typing in somebody else's name: Linux can be told to refuse it, and this kernel always does.
        TIOCSTI => Err(Errno::EIO.into()),
        _ => Err(Errno::ENOTTY.into()),
    }
}

fn put_int(argument: &mut dyn IoctlArgument, value: usize) -> Result<usize, Stop> {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    argument.put(&value.to_ne_bytes()).map(|()| 0)
}

fn get_int(argument: &mut dyn IoctlArgument) -> Result<i32, Stop> {
    let mut bytes = [0; 4];
    argument.get(&mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

fn put_settings(terminal: &Terminal, argument: &mut dyn IoctlArgument, size: usize) -> Result<usize, Stop> {
    let bytes = terminal.state.lock().discipline.termios().to_bytes();
    argument.put(&bytes[..size]).map(|()| 0)
}

fn set_settings(terminal: &Terminal, argument: &mut dyn IoctlArgument, size: usize, when: When) -> Result<usize, Stop> {
    let mut bytes = [0; TERMIOS2_SIZE];
    argument.get(&mut bytes[..size])?;
    if when != When::Now {
        drained(terminal)?;
    }
    let mut termios = terminal.state.lock().discipline.termios().clone();
    if size == TERMIO_SIZE {
        let mut short = [0; TERMIO_SIZE];
        short.copy_from_slice(&bytes[..TERMIO_SIZE]);
        termios.set_from_termio(&short);
    } else {
        termios.set_from_bytes(&bytes[..size]);
    }
    if when == When::Flushed {
        terminal.change(|state| state.discipline.flush_input());
    }
    terminal.set_termios(termios);
    Ok(0)
}

/// Succeeds when all output has been sent. The line's end is not waited for when ^S holds it back: that could be for ever.
fn drained(terminal: &Terminal) -> Result<usize, Stop> {
    if terminal.unsent() == 0 || terminal.channel().is_none() { Ok(0) } else { Err(Stop::WouldBlock) }
}

/// TCFLSH.
pub(super) fn flush(terminal: &Terminal, which: usize) -> Result<usize, Stop> {
    let which = u32::try_from(which).map_err(|_| Errno::EINVAL)?;
    if !matches!(which, TCIFLUSH | TCOFLUSH | TCIOFLUSH) {
        return Err(Errno::EINVAL.into());
    }
    terminal.change(|state| {
        if which != TCOFLUSH {
            state.discipline.flush_input();
        }
        if which != TCIFLUSH {
            state.discipline.output.flush();
        }
        if let Some(pty) = &mut state.pty {
            pty.note_flush(which != TCOFLUSH, which != TCIFLUSH);
        }
    });
    Ok(0)
}

fn flow(terminal: &Terminal, action: usize) -> Result<usize, Stop> {
    let send = |discipline: &mut Discipline, index: u32| match discipline.termios().character(index) {
        0 => {}
        character => {
            discipline.output.put_plain(&[character]);
        }
    };
    match u32::try_from(action).map_err(|_| Errno::EINVAL)? {
        TCOOFF => terminal.change(|state| state.discipline.hold(true)),
        TCOON => terminal.change(|state| state.discipline.hold(false)),
        TCIOFF => terminal.change(|state| send(&mut state.discipline, VSTOP)),
        TCION => terminal.change(|state| send(&mut state.discipline, VSTART)),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

// ---- the controlling terminal ----

/// The caller, if the terminal is its controlling terminal.
fn controlled(terminal: &Terminal) -> Result<Caller> {
    let caller = terminal.with_jobs(|jobs| jobs.caller()).flatten().ok_or(Errno::ENOTTY)?;
    if terminal.ownership().controls(&caller) { Ok(caller) } else { Err(Errno::ENOTTY) }
}

/// TIOCGPGRP; the master of a pseudo-terminal may ask without being controlled by it.
pub(super) fn group_of(terminal: &Terminal, argument: &mut dyn IoctlArgument, is_own: bool) -> Result<usize, Stop> {
    if is_own {
        controlled(terminal)?;
    }
    put_int(argument, usize::try_from(terminal.ownership().foreground).unwrap_or(0))
}

/// TIOCGSID.
pub(super) fn session_of(terminal: &Terminal, argument: &mut dyn IoctlArgument, is_own: bool) -> Result<usize, Stop> {
    if is_own {
        controlled(terminal)?;
    }
    match terminal.ownership().session {
        0 => Err(Errno::ENOTTY.into()),
        session => put_int(argument, usize::try_from(session).unwrap_or(0)),
    }
}

fn set_foreground(terminal: &Terminal, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
    terminal.with_jobs(|jobs| job_control::check_change(jobs, terminal.ownership())).unwrap_or(Ok(()))?;
    let caller = controlled(terminal)?;
    let group = get_int(argument)?;
    if group < 0 {
        return Err(Errno::EINVAL.into());
    }
    match terminal.with_jobs(|jobs| jobs.session_of(group)).flatten() {
        None => Err(Errno::ESRCH.into()),
        Some(session) if session != caller.session => Err(Errno::EPERM.into()),
        Some(_) => {
            let mut state = terminal.state.lock();
            if !state.ownership.controls(&caller) {
                return Err(Errno::ENOTTY.into());
            }
            state.ownership.foreground = group;
            Ok(0)
        }
    }
}

fn become_controlling(terminal: &Terminal, steal: usize) -> Result<usize, Stop> {
    let terminals = terminal.terminals.upgrade().ok_or(Errno::EIO)?;
    let caller = terminals.jobs.caller().ok_or(Errno::EPERM)?;
    let ownership = terminal.ownership();
    if caller.leads_session() && ownership.controls(&caller) {
        return Ok(0);
    }
    let may_steal = steal == 1 && caller.may_administer;
    let is_taken = ownership.session != 0 && !may_steal;
    if !caller.leads_session() || is_taken || terminals.controlling(caller.session).is_some() {
        return Err(Errno::EPERM.into());
    }
    terminal.own(&caller);
    Ok(0)
}

fn give_up(terminal: &Terminal) -> Result<usize, Stop> {
    let caller = controlled(terminal)?;
    if caller.leads_session() {
        terminal.abandon();
    }
    // Sessions hold terminals here, not single processes: for one that does not lead its session nothing changes.
    Ok(0)
}

fn must_administer(terminal: &Terminal) -> Result<()> {
    let caller = terminal.with_jobs(|jobs: &dyn JobControl| jobs.caller()).flatten();
    if caller.is_none_or(|caller| caller.may_administer) { Ok(()) } else { Err(Errno::EPERM) }
}
