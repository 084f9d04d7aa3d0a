//! Who a thread is: its number, its process, group and session (credentials(7)).
//!
//! Next: `credentials.rs`, whom it acts for.

use abi::{Errno, Result};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::process::send;
use crate::process::table;
use crate::process::{Process, RunningThread};

/// getpid(2).
pub fn getpid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.pid as usize)
}

/// gettid(2).
pub fn gettid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.tid() as usize)
}

/// getppid(2).
pub fn getppid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.parent() as usize)
}

/// getpgrp(2).
pub fn getpgrp(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.group() as usize)
}

fn process_or_self(thread: &RunningThread, pid: i32) -> Result<Arc<Process>> {
    if pid == 0 { Ok(thread.process.clone()) } else { table::process(pid).ok_or(Errno::ESRCH) }
}

/// getpgid(2). `ESRCH`: no such process.
pub fn getpgid(thread: &mut RunningThread, pid: i32) -> Result<usize> {
    process_or_self(thread, pid).map(|process| process.group() as usize)
}

/// getsid(2). `ESRCH`: no such process.
pub fn getsid(thread: &mut RunningThread, pid: i32) -> Result<usize> {
    process_or_self(thread, pid).map(|process| process.session() as usize)
}

/// setsid(2). `EPERM`: it leads a group already, or another process is in a group of its number.
pub fn setsid(thread: &mut RunningThread) -> Result<usize> {
    let process = thread.process.clone();
    table::with(|table| {
        if table.has_group(process.pid) {
            return Err(Errno::EPERM);
        }
        table.start_session(&process);
        Ok(process.pid as usize)
    })
}

/// setpgid(2). `EINVAL`: a negative group. `ESRCH`: neither the caller nor a child of it. `EACCES`: a child that has executed a
/// program since. `EPERM`: a session leader, another session, or a group that is not of the session.
pub fn setpgid(thread: &mut RunningThread, pid: i32, group: i32) -> Result<usize> {
    if group < 0 || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let caller = thread.process.clone();
    let old = table::with(|table| {
        let target = if pid == 0 { caller.clone() } else { table.process(pid).ok_or(Errno::ESRCH)? };
        let group = if group == 0 { target.pid } else { group };
        if target.pid != caller.pid {
            if target.parent() != caller.pid || target.is_zombie() {
                return Err(Errno::ESRCH);
            }
            if target.session() != caller.session() {
                return Err(Errno::EPERM);
            }
            if target.has_executed.load(Ordering::Relaxed) {
                return Err(Errno::EACCES);
            }
        }
        if target.session() == target.pid {
            return Err(Errno::EPERM);
        }
        let is_of_session = table.group(group).first().is_some_and(|member| member.session() == caller.session());
        if group != target.pid && !is_of_session {
            return Err(Errno::EPERM);
        }
        let old = target.group();
        table.set_group(&target, group);
        Ok(old)
    })?;
    send::hang_up_if_orphaned_and_stopped(&[old]);
    Ok(0)
}
