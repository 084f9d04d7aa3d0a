//! What is measured of whole machines, from plain runs only: memory, starting, sizes.
//!
//! next: `executor.rs`.

use super::machines::{LIMIT_SECONDS, short};
use super::rows::decimal;
use crate::guest::Guest;
use crate::kernel::{self, Profile};
use crate::machine::Options;
use crate::{image, progress};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Takes one kernel's figure.
type Take = fn(&Options) -> Result<f64>;

/// What is measured: its name, what that means, the unit, and how.
const WHOLE: &[(&str, &str, &str, Take)] = &[
    ("memory-thread", "the kernel's, for one more sleeping thread", "KiB", of_a_sleeping_thread),
    (
        "memory-process",
        "the kernel's, page tables included, for one more sleeping process",
        "KiB",
        of_a_sleeping_process,
    ),
    ("sleepers-100000", "the kernel's for each of 100,000 sleeping threads with 512 MiB", "KiB", of_many_sleepers),
    ("smallest-memory", "the least that it starts a program with", "MiB", smallest),
    ("boot", "from QEMU's start to the shell's prompt, plain", "s", boot),
    ("size", "the kernel's file without what only a debugger reads", "MiB", size),
];

/// One line of the table.
pub struct Line {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    /// On Rouse and on Linux; or why not.
    figures: [Result<f64, String>; 2],
}

/// Measures what is wanted, and prints it.
pub fn measure(options: &Options, is_wanted: impl Fn(&str) -> bool) -> Vec<Line> {
    let options = Options { icount: false, ..options.clone() };
    let mut lines = Vec::new();
    for (name, what, unit, take) in WHOLE.iter().filter(|(name, ..)| is_wanted(name)) {
        progress::step(&format!("measuring {name}"));
        let figures =
            [options.clone(), options.on_linux()].map(|options| take(&options).map_err(|error| short(&error)));
        let line = Line { name, what, unit, figures };
        print!("{}", line.text());
        lines.push(line);
    }
    lines
}

/// The table of all lines.
pub fn table(lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(Line::text).collect();
    format!("\n| the whole machine | Rouse | Linux | ratio |\n|---|---|---|---|\n{lines}")
}

impl Line {
    fn text(&self) -> String {
        let shown = self.figures.each_ref().map(|figure| match figure {
            Ok(value) => format!("{value:.2} {}", self.unit),
            Err(error) => error.clone(),
        });
        let ratio = match &self.figures {
            [Ok(rouse), Ok(linux)] => Some(rouse / linux),
            _ => None,
        };
        format!("| {}: {} | {} | {} | {} |\n", self.name, self.what, shown[0], shown[1], decimal(ratio))
    }

    /// Raw, for a file.
    pub fn json(&self) -> Value {
        let [rouse, linux] = self.figures.each_ref().map(|figure| match figure {
            Ok(value) => json!(value),
            Err(error) => json!(error),
        });
        json!({ "row": self.name, "unit": self.unit, "rouse": rouse, "linux": linux })
    }
}

fn of_a_sleeping_thread(options: &Options) -> Result<f64> {
    of_a_sleeper(&Options { memory: "2G".into(), ..options.clone() }, "--threads", [2_000, 20_000])
}

fn of_a_sleeping_process(options: &Options) -> Result<f64> {
    of_a_sleeper(&Options { memory: "2G".into(), ..options.clone() }, "--processes", [200, 4_000])
}

/// Threads that share one stack, so that the kernel's memory is all they need.
fn of_many_sleepers(options: &Options) -> Result<f64> {
    of_a_sleeper(&Options { memory: "512M".into(), ..options.clone() }, "--bare-threads", [1_000, 100_000])
}

/// KiB of kernel memory for one more sleeper: the slope between two counts.
fn of_a_sleeper(options: &Options, kind: &str, counts: [u32; 2]) -> Result<f64> {
    let mut guest = Guest::start(&Options { timeout: Some(LIMIT_SECONDS), ..options.clone() })?;
    // Both kernels' own limits are lower than what they can do.
    guest.shell(
        "for limit in kernel/threads-max kernel/pid_max vm/max_map_count; do echo 200000 > /proc/sys/$limit; done",
    )?;
    let mut used = |count: u32| -> Result<(f64, f64)> {
        let output = guest.run(&["bench", kind, &count.to_string()])?;
        let text = output.text();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [sleepers, free, own] = numbers[..] else { anyhow::bail!("{count} do not fit: {:?}", output.end) };
        anyhow::ensure!(sleepers >= f64::from(count), "only {sleepers} could be started");
        // What is free, and what the process itself holds, is not the kernel's.
        Ok((sleepers, free + own))
    };
    let ((few, before), (many, after)) = (used(counts[0])?, used(counts[1])?);
    guest.stop();
    Ok((before - after) / (many - few))
}

/// MiB, by bisection.
fn smallest(options: &Options) -> Result<f64> {
    /// Enough for both kernels.
    const ENOUGH: u32 = 256;
    /// Longer than a machine of that size takes to start, or to say that it cannot.
    const PATIENCE_SECONDS: u64 = 45;
    let starts = |mib: u32| {
        let options = Options { memory: format!("{mib}M"), timeout: Some(PATIENCE_SECONDS), ..options.clone() };
        let outcome = Guest::start(&options).and_then(|mut guest| guest.shell("echo started"));
        outcome.is_ok_and(|output| output.text().trim() == "started")
    };
    anyhow::ensure!(starts(ENOUGH), "not with {ENOUGH} MiB");
    let (mut too_little, mut enough) = (1, ENOUGH);
    while enough - too_little > 1 {
        let middle = too_little.midpoint(enough);
        if starts(middle) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(f64::from(enough))
}

/// Seconds; the better of two.
fn boot(options: &Options) -> Result<f64> {
    let (first, second) = (boot_to_prompt(options)?, boot_to_prompt(options)?);
    Ok(first.min(second).as_secs_f64())
}

/// MiB of the file that is loaded. Linux's is another format, and compressed.
fn size(options: &Options) -> Result<f64> {
    anyhow::ensure!(!options.kernel().is_linux(), "–");
    let kernel = std::fs::read(kernel::build(Profile::Optimized)?)?;
    Ok(image::loadable(&kernel)?.len() as f64 / f64::from(1 << 20))
}

/// From QEMU's start to the prompt of the shell on the serial console.
fn boot_to_prompt(options: &Options) -> Result<Duration> {
    const PROMPT: &[u8] = b":/# ";
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut qemu = options.command(&["init.mode=shell".into()])?;
    qemu.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = qemu.spawn()?;
    let mut console = child.stdout.take().context("it was asked for")?;
    let (found, prompt) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = console.read(&mut chunk) {
            seen.extend_from_slice(&chunk[..count]);
            if seen.windows(PROMPT.len()).any(|window| window == PROMPT) {
                // Whoever asked may have lost patience.
                let _ = found.send(start.elapsed());
                return;
            }
        }
    });
    let outcome = prompt.recv_timeout(PATIENCE).context("no prompt");
    child.kill()?;
    child.wait()?;
    outcome
}
