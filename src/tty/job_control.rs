//! What terminals need to know about processes, and the rules of job control that follow from it.
//!
//! To a terminal, sessions, process groups and processes are numbers. Whatever needs more than that is asked of [`JobControl`], which
//! the kernel's `process` module implements. The rules themselves are here, once: who may read, who may write, who may change
//! settings (credentials(7), setpgid(2), tcsetpgrp(3), POSIX 11.1.4).
//!
//! Next: `terminal.rs`. Exercise: why does a background read by a process that ignores SIGTTIN fail, and not just go on?

use abi::general::{SIGTTIN, SIGTTOU};

use crate::tty::{Errno, Result};

/// Who makes the call that is being answered on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The process (thread group).
    pub process: i32,
    /// Its process group.
    pub group: i32,
    /// Its session; it leads the session if this is its own number.
    pub session: i32,
    /// Whether it may administer the system (CAP_SYS_ADMIN).
    pub may_administer: bool,
    /// Effective user: the owner of a pseudo-terminal that it opens.
    pub user: u32,
}

impl Caller {
    /// Whether it leads its session.
    pub fn leads_session(&self) -> bool {
        self.process == self.session
    }
}

/// What the kernel tells terminals about processes, and does for them. Called without any lock of a terminal held; must not wait.
pub trait JobControl: Send + Sync {
    /// The process whose system call is being answered on this CPU; `None` in the kernel's own tasks, which may do everything.
    fn caller(&self) -> Option<Caller>;
    /// Whether the calling thread ignores or blocks `signal`.
    fn caller_ignores(&self, signal: u32) -> bool;
    /// Whether no process of the group has a parent in another group of the same session: nobody would ever continue it.
    fn is_orphaned(&self, group: i32) -> bool;
    /// The session that a process group is in; `None` if there is no such group.
    fn session_of(&self, group: i32) -> Option<i32>;
    /// Sends a signal to all processes of a group, as the kernel does it (`SI_KERNEL`). A group that is gone is no error.
    fn signal_group(&self, group: i32, signal: u32);
    /// Sends a signal to one process.
    fn signal_process(&self, process: i32, signal: u32);
}

/// To whom a terminal belongs: 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ownership {
    /// The session it controls.
    pub session: i32,
    /// The group in the foreground.
    pub foreground: i32,
}

impl Ownership {
    /// Whether the terminal is the caller's controlling terminal.
    pub fn controls(&self, caller: &Caller) -> bool {
        self.session != 0 && self.session == caller.session
    }

    /// Whether the caller is in the background of this, its controlling terminal.
    fn is_behind(&self, caller: &Caller) -> bool {
        self.controls(caller) && self.foreground != 0 && self.foreground != caller.group
    }
}

/// May the caller read from the terminal?
///
/// # Errors
///
/// `ERESTARTSYS`: it is in the background, and its group was stopped by SIGTTIN. `EIO`: it cannot be stopped.
pub fn check_read(jobs: &dyn JobControl, ownership: Ownership) -> Result<()> {
    let Some(caller) = jobs.caller().filter(|caller| ownership.is_behind(caller)) else { return Ok(()) };
    if jobs.caller_ignores(SIGTTIN) {
        return Err(Errno::EIO);
    }
    stop_group(jobs, &caller, SIGTTIN)
}

/// May the caller change the terminal, or write to it under TOSTOP?
///
/// # Errors
///
/// `ERESTARTSYS`: it is in the background, and its group was stopped by SIGTTOU. `EIO`: its group is orphaned.
pub fn check_change(jobs: &dyn JobControl, ownership: Ownership) -> Result<()> {
    match jobs.caller().filter(|caller| ownership.is_behind(caller)) {
        Some(caller) if !jobs.caller_ignores(SIGTTOU) => stop_group(jobs, &caller, SIGTTOU),
        _ => Ok(()),
    }
}

fn stop_group(jobs: &dyn JobControl, caller: &Caller, signal: u32) -> Result<()> {
    if jobs.is_orphaned(caller.group) {
        return Err(Errno::EIO);
    }
    jobs.signal_group(caller.group, signal);
    Err(Errno::ERESTARTSYS)
}
