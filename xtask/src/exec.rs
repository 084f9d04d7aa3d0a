//! `cargo run -- exec -- CMD…`: one program in a machine of its own, as if it ran here.
//!
//! Standard output and error carry only what the program wrote; the exit status is the program's, as a shell tells it.

use crate::guest::{Failure, Guest, Lost};
use crate::machine::Options;
use crate::{progress, terminal};
use anyhow::Result;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use user_programs::protocol::{Command, End};

/// Exit status: the kernel panicked.
pub const PANIC: u8 = 240;
/// Exit status: triple fault or reset.
pub const RESET: u8 = 241;
/// Exit status: the time limit has passed.
pub const TIMED_OUT: u8 = 242;
/// Exit status: the machine was switched off before the program ended.
pub const POWERED_OFF: u8 = 243;
/// Exit status: the tool could not do its work.
pub const FAILED: u8 = 244;

/// Runs the program and answers its status.
///
/// # Errors
/// Something that is needed cannot be provided, or the machine ended before the program ([`Lost`]).
pub fn run(options: &Options, arguments: &[OsString], on_terminal: bool) -> Result<ExitCode> {
    let saved = on_terminal.then(terminal::save);
    let mut guest =
        if on_terminal { Guest::start_on_terminal(options, &terminal::words())? } else { Guest::start(options)? };
    let mut environment = Vec::new();
    if let Some(term) = std::env::var_os("TERM") {
        environment.push([b"TERM=".to_vec(), term.into_vec()].concat());
    }
    let command = Command {
        arguments: arguments.iter().map(|argument| argument.clone().into_vec()).collect(),
        environment,
        directory: Vec::new(),
        on_terminal,
    };
    if on_terminal {
        guest.follow_this_terminal()?;
        guest.feed(io::empty())?;
    } else {
        guest.feed(io::stdin())?;
    }
    let end = guest.carry(&command, &mut io::stdout().lock(), &mut io::stderr().lock())?;
    guest.stop();
    drop(saved);
    if let End::NotStarted(errno) = end {
        let program = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let why = io::Error::from_raw_os_error(errno.cast_signed());
        progress::note(&format!("{program} cannot be started there: {why}"));
    }
    Ok(ExitCode::from(end.shell_status()))
}

/// The exit status that stands for a machine's end.
pub fn status_of(lost: &Lost) -> u8 {
    match lost.failure {
        Failure::Panic => PANIC,
        Failure::Reset => RESET,
        Failure::TimedOut => TIMED_OUT,
        Failure::PoweredOff => POWERED_OFF,
        Failure::Machine => FAILED,
    }
}
