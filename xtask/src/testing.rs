//! What the whole-system tests in `tests/` share: running machines that several tests use, and the comparison with Linux.
//!
//! A machine is started when a test first wants it and serves all tests of its file, one after the other: booting costs more than
//! testing. One that is lost (a panic, a time limit) fails the test that had it; the next test gets a new one.
//!
//! `ROUSE_TEST_KERNEL=linux cargo test` runs the tests of Rouse on Linux: what they demand must hold there first.

use crate::guest::{Guest, Output};
use crate::machine::Options;
use crate::typist::{Typist, at_the_console};
use anyhow::Result;
use std::sync::{Mutex, PoisonError};

/// A program may take so long, on the slowest machine that runs the tests.
const TIME_LIMIT_SECONDS: u64 = 600;

/// A machine that is started when it is first wanted.
pub struct Machine {
    options: fn() -> Options,
    linux: bool,
    guest: Mutex<Option<Guest>>,
}

impl Machine {
    /// Rouse, with its own checks compiled in.
    pub const fn rouse(options: fn() -> Options) -> Self {
        Self { options, linux: false, guest: Mutex::new(None) }
    }

    /// Linux on the same machine.
    pub const fn linux(options: fn() -> Options) -> Self {
        Self { options, linux: true, guest: Mutex::new(None) }
    }

    /// Lets `work` use the machine.
    ///
    /// # Panics
    /// The machine cannot be started, or is lost: that fails the test.
    pub fn with<T>(&self, work: impl FnOnce(&mut Guest) -> Result<T>) -> T {
        let mut slot = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that a machine that fails is not used again.
        let guest = slot.take().map_or_else(|| Guest::start(&self.options()), Ok);
        let mut guest = guest.unwrap_or_else(|error| panic!("{}: {error:#}", self.name()));
        let outcome = work(&mut guest).unwrap_or_else(|error| panic!("{}: {error:#}", self.name()));
        *slot = Some(guest);
        outcome
    }

    fn options(&self) -> Options {
        let options = under_test((self.options)());
        if self.linux { options.on_linux() } else { options }
    }

    fn name(&self) -> &'static str {
        if self.linux { "Linux" } else { "Rouse" }
    }
}

/// A machine for a test: with the kernel's own checks, a time limit, and the kernel that `ROUSE_TEST_KERNEL` names.
#[must_use]
pub fn under_test(options: Options) -> Options {
    let kernel = std::env::var("ROUSE_TEST_KERNEL").unwrap_or_else(|_| options.kernel.clone());
    Options { kernel, checked: true, timeout: options.timeout.or(Some(TIME_LIMIT_SECONDS)), ..options }
}

/// Runs each shell script on both machines, and fails with a list of those whose output or status differ.
///
/// # Panics
/// A script behaves differently, or a machine is lost.
pub fn same_on_both(rouse: &Machine, linux: &Machine, scripts: &[&str]) {
    let run_all = |machine: &Machine| -> Vec<Output> {
        machine.with(|guest| scripts.iter().map(|script| guest.shell(script)).collect())
    };
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(|| run_all(linux));
        let here = run_all(rouse);
        (here, there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let different = scripts.iter().zip(here.iter().zip(&there)).filter(|(_, (here, there))| here != there);
    let report: Vec<String> = different
        .map(|(script, (here, there))| format!("$ {script}\n--- Rouse: {}\n--- Linux: {}", shown(here), shown(there)))
        .collect();
    assert!(report.is_empty(), "{} of {} differ:\n{}", report.len(), scripts.len(), report.join("\n"));
}

/// Lets somebody type at the console of both machines, where a program runs; it must end there in the same way.
///
/// # Panics
/// The person does not see what they wait for, the program ends differently, or a machine is lost.
pub fn same_dialogue(rouse: &Machine, linux: &Machine, arguments: &[&str], person: fn(&mut Typist) -> Result<()>) {
    let converse = |machine: &Machine| machine.with(|guest| at_the_console(guest, arguments, person));
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(|| converse(linux));
        let here = converse(rouse);
        (here, there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    assert!(here == there, "--- Rouse: {}\n--- Linux: {}", shown(&here), shown(&there));
}

fn shown(output: &Output) -> String {
    format!("{:?}\n{}{}", output.end, output.text(), String::from_utf8_lossy(&output.stderr))
}
