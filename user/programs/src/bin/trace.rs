//! Runs a program with Rouse's trace on: `trace [-n RECORDS] CMD…`; without a program, prints what was recorded.
//!
//! `cargo run -- trace` uses it for both, and makes a picture of what it prints. The exit status is the program's, as a shell tells it.
//!
//! next: `src/trace/file.rs` of the kernel, which says what the records mean.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

const TRACE: &str = "/proc/rouse/trace";
/// Room for so many records on each CPU, if nobody says.
const RECORDS: u64 = 1 << 17;
const USAGE: u8 = 2;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let mut records = RECORDS;
    if words.next_if(|word| word == "-n").is_some() {
        match words.next().and_then(|count| count.to_str()?.parse().ok()) {
            Some(count) => records = count,
            None => return complain(USAGE, "usage: trace [-n RECORDS] [CMD…]"),
        }
    }
    words.next_if(|word| word == "--");
    let Some(program) = words.next() else { return print() };
    let arguments: Vec<OsString> = words.collect();
    if let Err(error) = order("clear").and_then(|()| order(&format!("on {records}"))) {
        return complain(CANNOT_RUN, &format!("{TRACE}: {error}"));
    }
    let ended = Command::new(&program).args(arguments).status();
    // What can fail here could have failed above.
    let _ = order("off");
    match ended {
        Ok(status) => match status.signal() {
            Some(signal) => ExitCode::from(128 + signal as u8),
            None => ExitCode::from(status.code().unwrap_or(1) as u8),
        },
        Err(error) => {
            let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
            complain(code, &format!("{}: {error}", program.display()))
        }
    }
}

fn order(word: &str) -> std::io::Result<()> {
    File::options().write(true).open(TRACE)?.write_all(word.as_bytes())
}

fn print() -> ExitCode {
    let copied = File::open(TRACE).and_then(|mut trace| std::io::copy(&mut trace, &mut std::io::stdout()));
    match copied {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => complain(1, &format!("{TRACE}: {error}")),
    }
}

fn complain(code: u8, complaint: &str) -> ExitCode {
    eprintln!("trace: {complaint}");
    ExitCode::from(code)
}
