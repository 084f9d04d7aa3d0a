//! Children for tests: a closure that runs in a process of its own, and what it ended with.
#![allow(unsafe_code, reason = "std has no safe form of fork and credentials")]

use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use crate::{ensure, errno};

/// Longer than any wait takes in a test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a child does: its exit status is the answer.
pub fn child(work: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: the child runs the closure and leaves by _exit; nothing here holds a lock that it would want.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "errno {}", errno());
    if pid == 0 {
        let status = work();
        // SAFETY: at any time.
        unsafe { libc::_exit(status) };
    }
    Ok(pid)
}

/// The exit status of a child; 1000 and more: killed by a signal.
pub fn status_of(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 && errno() == libc::EINTR {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1000 + libc::WTERMSIG(status) }
}

/// What a child that does this ends with.
pub fn in_child(work: impl FnOnce() -> i32) -> Result<i32, String> {
    child(work).map(status_of)
}

/// Waits until something is so.
pub fn becomes(mut it: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !it() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Becomes a user without privileges.
pub fn drop_privileges(uid: u32, gid: u32) {
    // SAFETY: plain numbers; called in children only.
    unsafe {
        libc::setgroups(0, ptr::null());
        libc::setresgid(gid, gid, gid);
        libc::setresuid(uid, uid, uid);
    }
}
