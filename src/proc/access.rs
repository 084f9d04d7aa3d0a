//! Who may look into another process (ptrace(2), "Ptrace access mode checking"): a program of the same user, if the process has
//! not been made undumpable, and who has CAP_SYS_PTRACE.

use abi::{Errno, Result};
use core::sync::atomic::Ordering;
use fs::Credentials;
use fs::permission::Capabilities;

use crate::process::{Process, current};

/// Checks that the caller may look into `process`. The kernel's own tasks may.
///
/// # Errors
///
/// `EACCES`.
pub fn check(process: &Process) -> Result<()> {
    if may_look_into(process) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Whether the caller may look into `process`.
pub fn may_look_into(process: &Process) -> bool {
    let Some(caller) = current::get() else { return true };
    if core::ptr::eq(&*caller.process, process) {
        return true;
    }
    let Some(own) = caller.view.lock().as_ref().map(|view| view.credentials.clone()) else { return false };
    if own.can(Capabilities::SYS_PTRACE) {
        return true;
    }
    let target = process.any_thread().and_then(|thread| Some(thread.view.lock().as_ref()?.credentials.clone()));
    target.is_some_and(|target| is_same_user(&own, &target)) && process.dumpable.load(Ordering::Relaxed) == 1
}

fn is_same_user(own: &Credentials, target: &Credentials) -> bool {
    [target.uid, target.euid, target.suid] == [own.fsuid; 3]
        && [target.gid, target.egid, target.sgid] == [own.fsgid; 3]
        && own.permitted.contains(target.permitted)
}
