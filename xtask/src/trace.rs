//! `cargo run -- trace -o FILE -- CMD…`: runs one program with the kernel's trace on, and makes a picture of what happened; with
//! `--text`, a timeline for reading.
//!
//! The program runs as by `exec`, through the guest's own `trace`, which switches /proc/rouse/trace on around it. The file is Chrome's
//! trace-event JSON, which <https://ui.perfetto.dev> and chrome://tracing open.
//!
//! next: `trace/records.rs`, what the kernel tells; `trace/picture.rs` and `trace/timeline.rs`, what becomes of it.

pub mod check;
mod names;
pub mod picture;
pub mod records;
pub mod timeline;

use crate::guest::Guest;
use crate::machine::Options;
use crate::progress;
use anyhow::{Context, Result, bail};
use picture::Picture;
use records::Trace;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;
use user_programs::protocol::{Command, End};

/// What becomes of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON, for the viewers that there are.
    Picture,
    /// Text, for reading.
    Timeline,
}

impl Form {
    /// The file's name, if nobody says.
    fn file(self) -> &'static str {
        match self {
            Form::Picture => "trace.json",
            Form::Timeline => "trace.txt",
        }
    }

    /// What to do with it.
    fn advice(self) -> &'static str {
        match self {
            Form::Picture => "; open it at https://ui.perfetto.dev or in chrome://tracing",
            Form::Timeline => "",
        }
    }
}

/// Runs the program, writes what happened, and answers the program's status.
///
/// # Errors
/// As `exec`; or this kernel has no trace, or the file cannot be written.
pub fn run(options: &Options, arguments: &[OsString], form: Form, output: Option<&Path>) -> Result<ExitCode> {
    let output = output.unwrap_or(Path::new(form.file()));
    let mut guest = Guest::start(options)?;
    guest.feed(io::stdin())?;
    let command: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.clone().into_vec()).collect();
    let (end, trace) = record(&mut guest, &command, &mut io::stdout().lock(), &mut io::stderr().lock())?;
    guest.stop();
    let file = BufWriter::new(std::fs::File::create(output).with_context(|| output.display().to_string())?);
    match form {
        Form::Picture => Picture::of(&trace).write(file),
        Form::Timeline => timeline::write(&trace, file),
    }
    .with_context(|| output.display().to_string())?;
    progress::step(&format!("{}: {} records{}", output.display(), trace.records.len(), form.advice()));
    if trace.lost > 0 {
        progress::step(&format!("{} older records were overwritten", trace.lost));
    }
    Ok(ExitCode::from(end.shell_status()))
}

/// Runs a program whose input is being fed, with the trace on, and fetches what was recorded.
///
/// # Errors
/// The machine ended, or this kernel has no trace.
pub fn record(
    guest: &mut Guest,
    command: &[Vec<u8>],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(End, Trace)> {
    let arguments = [&[b"trace".to_vec(), b"--".to_vec()], command].concat();
    let end = guest.carry(&Command { arguments, ..Command::default() }, stdout, stderr)?;
    let told = guest.run(&["trace"])?;
    if !told.is_success() {
        bail!("{}", String::from_utf8_lossy(&told.stderr).trim());
    }
    Ok((end, Trace::parse(&told.text())?))
}
