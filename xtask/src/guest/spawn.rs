//! Starting QEMU so that nothing of it is left behind.

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// QEMU inherits descriptors without the close-on-exec flag; no other process must start in between.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts QEMU, which inherits these descriptors, and ends when the second value is dropped.
///
/// # Errors
/// It cannot be started.
pub(super) fn spawn(command: &Command, inherited: Vec<OwnedFd>, on_terminal: bool) -> Result<(Child, Sender<()>)> {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    for descriptor in &inherited {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    let started = spawn_bound(command, on_terminal);
    // Before the next machine starts.
    drop(inherited);
    started
}

/// Starts QEMU so that it ends when this process does, in whatever way.
///
/// The kernel kills it when the thread that started it ends, so a thread is kept for that; it ends when the leash is dropped.
fn spawn_bound(command: &Command, on_terminal: bool) -> Result<(Child, Sender<()>)> {
    let mut bound = if crate::packages::find("setpriv").is_some() {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL"]).arg(command.get_program());
        bound
    } else {
        Command::new(command.get_program())
    };
    bound.args(command.get_args());
    let (answer, child) = channel();
    let (leash, held) = channel::<()>();
    if !on_terminal {
        bound.stdin(Stdio::piped()).stdout(Stdio::piped());
    }
    bound.stderr(Stdio::piped());
    thread::spawn(move || {
        // Whoever asked is waiting.
        let _ = answer.send(bound.spawn());
        // Returns when the other end is dropped.
        let _ = held.recv();
    });
    Ok((child.recv()?.context("starting qemu-system-x86_64")?, leash))
}
