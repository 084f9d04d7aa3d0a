//! A record of every process that is made and every program that is executed, or fails to be: for those who must know what ran.
//!
//! Off by default; the word `audit=1` on the kernel's command line turns it on. A record is a line of the kernel log, of the target
//! `audit` at level info, which root reads with dmesg: time, process, real user, what was done, result. A new program's is written before
//! its first instruction.

use core::sync::atomic::{AtomicBool, Ordering};

use abi::{Errno, Result};
use fs::Path;

use crate::process::RunningThread;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Turns it on if the command line says so.
pub fn configure(command_line: &[u8]) {
    if command_line.split(u8::is_ascii_whitespace).any(|word| word == b"audit=1") {
        IS_ON.store(true, Ordering::Relaxed);
    }
}

fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Records an exec whose file was found.
pub fn executed(thread: &RunningThread, path: &Path, error: Option<Errno>) {
    if is_on() {
        record(thread, &path.display(&thread.fs.root()), error);
    }
}

/// Records an exec whose file was not found.
pub fn not_found(thread: &RunningThread, name: &[u8], error: Errno) {
    if is_on() {
        record(thread, name, Some(error));
    }
}

fn record(thread: &RunningThread, name: &[u8], error: Option<Errno>) {
    let (pid, uid) = (thread.process.pid, thread.credentials.uid);
    let result = error.map_or("ok", |errno| errno.name());
    log::info!(target: "audit", "exec pid={pid} uid={uid} path=\"{}\" result={result}", name.escape_ascii());
}

/// Records that a process was made, or why not.
pub fn process_made(thread: &RunningThread, outcome: Result<i32>) {
    if is_on() {
        let (pid, uid) = (thread.process.pid, thread.credentials.uid);
        match outcome {
            Ok(child) => log::info!(target: "audit", "fork pid={pid} uid={uid} child={child} result=ok"),
            Err(errno) => log::info!(target: "audit", "fork pid={pid} uid={uid} result={}", errno.name()),
        }
    }
}

/// Records that the kernel itself has started a process.
pub fn process_started(pid: i32, uid: u32, program: &[u8]) {
    if is_on() {
        log::info!(target: "audit", "spawn pid={pid} uid={uid} program=\"{}\" result=ok", program.escape_ascii());
    }
}
