//! The command line: what a person can ask for.

use crate::guest::Lost;
use crate::machine::Options;
use crate::{bench, console, doctor, exec, image, packages, trace};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds Rouse and starts it in QEMU
#[derive(Debug, Parser)]
#[command(
    name = "rouse",
    bin_name = "cargo run --",
    version,
    max_term_width = 120,
    after_help = "Without a command, this terminal becomes the machine's console; leave with `poweroff` or Ctrl-A X."
)]
struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run one program in the guest, with its standard input, output, error and exit status passed through
    #[command(
        after_help = "Exit status: the program's (128 + n if signal n ended it, 127 not found, 126 cannot run); or\n  \
        240  the kernel panicked\n  241  triple fault or reset\n  242  the time limit passed\n  \
        243  the machine was switched off before the program ended\n  244  the machine could not be started\n\
        240 and above come with the kernel's last lines on standard error."
    )]
    Exec {
        /// Run the program on the machine's console, for programs that want a terminal
        #[arg(long, short)]
        tty: bool,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Run one program as exec does, and draw what the kernel did meanwhile: wakes, polls, system calls, interrupts
    #[command(after_help = "https://ui.perfetto.dev and chrome://tracing open the JSON. Exit status: as exec.")]
    Trace {
        /// Write a timeline for reading, a line for each thing that happened, instead of JSON for a viewer
        #[arg(long)]
        text: bool,
        /// The file to write (default: trace.json, Chrome's trace-event format; with --text, trace.txt)
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Measure Rouse beside Linux
    Bench {
        /// Only the rows whose names contain this (also: scale, hackbench, memory, boot, size, executor)
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Write every raw figure to a file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Save the table to docs/benchmarks.md
        #[arg(long)]
        save: bool,
    },
    /// Make a hybrid image for USB sticks and CDs, for BIOS and UEFI
    Image {
        /// The file to write
        #[arg(long, short, default_value = "rouse.iso", value_name = "FILE")]
        output: PathBuf,
    },
    /// Say what is installed, what is missing, and what would be done about it
    Doctor {
        /// Also provide what is missing
        #[arg(long)]
        fix: bool,
    },
}

/// The program that the words behind `cargo run --` would run in the guest, if any; for those who test what documents say. (A misspelt
/// option is taken for one.)
///
/// # Errors
/// The tool does not take this command line.
pub fn program(words: &[&str]) -> Result<Option<OsString>, clap::Error> {
    let arguments = Arguments::try_parse_from(["rouse"].iter().chain(words))?;
    Ok(match arguments.action {
        Some(Action::Exec { command, .. } | Action::Trace { command, .. }) => command.into_iter().next(),
        _ => None,
    })
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Lost>() {
            Some(lost) => {
                eprintln!("cargo run: {lost}");
                ExitCode::from(exec::status_of(lost))
            }
            None => {
                eprintln!("cargo run: {error:#}");
                ExitCode::from(exec::FAILED)
            }
        },
    }
}

fn act(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.options.yes {
        packages::assume_yes();
    }
    match &arguments.action {
        None => console::run(&arguments.options),
        Some(Action::Exec { tty, command }) => exec::run(&arguments.options, command, *tty),
        Some(Action::Trace { text, output, command }) => {
            let form = if *text { trace::Form::Timeline } else { trace::Form::Picture };
            trace::run(&arguments.options, command, form, output.as_deref())
        }
        Some(Action::Bench { only, json, save }) => {
            let wishes = bench::Wishes { only: only.clone(), save: *save, json: json.clone() };
            bench::run(&arguments.options, &wishes)
        }
        Some(Action::Image { output }) => image::run(&arguments.options, output).map(|()| ExitCode::SUCCESS),
        Some(Action::Doctor { fix }) => doctor::run(*fix),
    }
}
