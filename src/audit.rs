//! A record of every program that is executed, or fails to be: for those who must know what ran.
//!
//! Off by default; `audit=1` on the kernel's command line turns it on. A record is a line of the kernel log, at level info, which
//! root reads with dmesg: time, process, real user, path, result. It is written before the new program's first instruction.

use core::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use fs::Path;

use crate::process::RunningThread;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Turns it on.
pub fn turn_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Records an exec.
pub fn executed(thread: &RunningThread, path: &Path, error: Option<Errno>) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    let name = path.display(&thread.fs.root());
    let name = name.escape_ascii();
    let (pid, uid) = (thread.process.pid, thread.credentials.uid);
    match error {
        None => log::info!(target: "audit", "exec pid={pid} uid={uid} path=\"{name}\" result=ok"),
        Some(errno) => log::info!(target: "audit", "exec pid={pid} uid={uid} path=\"{name}\" result={}", errno.name()),
    }
}
