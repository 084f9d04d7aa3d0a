//! `cargo run`: a machine whose console is this terminal.

use crate::machine::Options;
use crate::{progress, terminal};
use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use user_programs::protocol::CONTROL_PORT;

/// Starts the machine and waits for its end.
///
/// # Errors
/// Something that is needed cannot be provided, or QEMU cannot be started.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut words = vec!["init.mode=shell".to_owned()];
    words.extend(terminal::words());
    let mut qemu = options.command(&words)?;
    if io::stdin().is_terminal() {
        // Ctrl-A X ends QEMU, Ctrl-A C is its monitor; every other key is the guest's, ^C too.
        qemu.args(["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"]);
        qemu.args(["-mon", "chardev=console"]);
        progress::step("starting; leave with `poweroff`, or with Ctrl-A X");
    } else {
        qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    }
    let saved = terminal::save();
    let deadline = options.time_limit().map(|limit| Instant::now() + limit);
    let (sizes, theirs) = Options::add_port(&mut qemu, CONTROL_PORT)?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut child = qemu.spawn().context("starting qemu-system-x86_64")?;
    drop(theirs);
    terminal::follow(sizes)?;
    let status = loop {
        if let Some(deadline) = deadline {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                drop(saved);
                progress::note("the time limit has passed");
                return Ok(ExitCode::from(crate::exec::TIMED_OUT));
            }
            thread::sleep(Duration::from_millis(50));
        } else {
            break child.wait()?;
        }
    };
    drop(saved);
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(code) if code > 1 && code % 2 == 1 => ExitCode::from(crate::exec::PANIC),
        _ => ExitCode::from(crate::exec::FAILED),
    })
}
