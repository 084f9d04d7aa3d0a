//! Machines that stay up between rows; one that was lost is started again.
//!
//! next: `rows.rs`.

use super::figure::Figure;
use crate::guest::Guest;
use crate::machine::Options;
use crate::progress;
use anyhow::{Context, Result};
use std::time::Duration;

/// A row that takes longer than this, with its machine's start, is given up.
pub const LIMIT_SECONDS: u64 = 300;

/// A place for one machine.
pub struct Slot {
    options: Options,
    guest: Option<Guest>,
}

impl Slot {
    /// A machine that is started when it is first wanted.
    pub fn new(options: &Options) -> Self {
        Self { options: Options { timeout: None, ..options.clone() }, guest: None }
    }

    /// Starts it now. One that does not start is tried again, and its failure told, when it is used.
    pub fn start(&mut self) {
        let _ = self.guest();
        self.rest();
    }

    fn guest(&mut self) -> Result<&mut Guest> {
        if self.guest.is_none() {
            self.guest = Some(Guest::start(&self.options)?);
        }
        self.guest.as_mut().context("it was just started")
    }

    /// Keeps a machine that counts instructions from taking the host's time from others.
    fn rest(&self) {
        if let Some(guest) = self.guest.as_ref().filter(|_| self.options.icount) {
            guest.pause();
        }
    }

    /// The figure that the guest's program takes with these arguments; `None`, and a note, if it cannot.
    pub fn measure(&mut self, arguments: &[&str]) -> Option<Figure> {
        let command: Vec<&str> = ["bench"].iter().chain(arguments).copied().collect();
        let outcome = self.guest().and_then(|guest| {
            guest.set_time_limit(Duration::from_secs(LIMIT_SECONDS));
            guest.go_on();
            guest.run(&command)
        });
        self.rest();
        let what = format!("{} on {}", arguments.join(" "), self.options.kernel);
        match outcome {
            Ok(output) if output.is_success() => Figure::parse(&output.text()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                progress::note(&format!("{what}: {:?} {said}", output.end));
                None
            }
            Err(error) => {
                self.guest = None;
                progress::note(&format!("{what}: {}", short(&error)));
                None
            }
        }
    }
}

/// The first line of an error.
pub fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Starts machines at once: a start leaves a host's second CPU idle, and Linux's is long.
pub fn start_all<'a>(slots: impl Iterator<Item = &'a mut Slot>) {
    std::thread::scope(|scope| {
        for slot in slots {
            scope.spawn(|| slot.start());
        }
    });
}
