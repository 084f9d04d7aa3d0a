//! `cargo run -- bench`: what Rouse costs beside Linux, with the same binary on the same machine, in one run.
//!
//! Four tables. `rows.rs`: what one program does, counted with `-icount` (one instruction is one nanosecond: the cost of code, and it
//! repeats) and timed (traps, TLB and wake-ups, on a machine that does other things too). `many.rs`: what several workers do on several
//! CPUs. `whole.rs`: memory, starting, size. `executor.rs`: the executor without a kernel.
//!
//! next: `bench/figure.rs`; `user/programs/src/bin/bench`, which runs in the guest.

mod executor;
mod figure;
mod machines;
mod many;
mod rows;
mod whole;

use crate::machine::Options;
use crate::{paths, programs, progress};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What is to be measured, and where figures go.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Only rows whose names contain this.
    pub only: Option<String>,
    /// Save the tables to docs/benchmarks.md.
    pub save: bool,
    /// Write every raw figure to this file.
    pub json: Option<PathBuf>,
}

/// Everything that was measured.
#[derive(Default)]
struct Report {
    rows: Vec<rows::Row>,
    many: Vec<many::Row>,
    whole: Vec<whole::Line>,
    executor: String,
}

/// Measures the rows that are wanted, prints their tables, and saves them if asked to. With `--icount` only what repeats is measured; with
/// more than one CPU the rows are timed only.
///
/// # Errors
/// The guest's program does not compile, a file cannot be written, or there is no such row.
pub fn run(options: &Options, wishes: &Wishes) -> Result<ExitCode> {
    // What is shipped is what is measured.
    let options = &Options { optimized: true, ..options.clone() };
    let is_wanted = |name: &str| wishes.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let program = guest_program()?;
    let wanted = |list: &str| -> Result<Vec<String>> {
        Ok(names(&program, list)?.into_iter().filter(|name| is_wanted(name)).collect())
    };
    let mut report = Report { rows: rows::measure(options, &wanted("--list")?), ..Report::default() };
    if !options.icount {
        report.many = many::measure(options, &wanted("--list-many")?);
        print!("{}", many::table(&report.many));
        report.whole = whole::measure(options, is_wanted);
        if is_wanted("executor") {
            report.executor = executor::measure()?;
            println!("{}", report.executor);
        }
    }
    anyhow::ensure!(!report.is_empty(), "there is no such row");
    if let Some(file) = &wishes.json {
        std::fs::write(file, format!("{:#}\n", report.json())).with_context(|| file.display().to_string())?;
    }
    if wishes.save {
        let path = paths::workspace().join("docs/benchmarks.md");
        std::fs::create_dir_all(path.parent().context("docs is a folder")?)?;
        std::fs::write(&path, report.page())?;
        progress::step(&format!("saved to {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The program that runs in the guest. Asked for its rows, it runs here.
fn guest_program() -> Result<PathBuf> {
    let built = programs::build("user-programs")?;
    built.into_iter().find(|(name, _)| name == "bench").map(|(_, path)| path).context("there is no program bench")
}

fn names(program: &Path, list: &str) -> Result<Vec<String>> {
    let output = Command::new(program).arg(list).output().with_context(|| program.display().to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

impl Report {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.many.is_empty() && self.whole.is_empty() && self.executor.is_empty()
    }

    fn json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(rows::Row::json).collect::<Vec<_>>(),
            "cpus": self.many.iter().map(many::Row::json).collect::<Vec<_>>(),
            "machine": self.whole.iter().map(whole::Line::json).collect::<Vec<_>>(),
            "executor": self.executor,
        })
    }

    fn page(&self) -> String {
        let host = std::thread::available_parallelism().map_or(1, usize::from);
        let tables = [
            rows::table(&self.rows),
            many::table(&self.many),
            whole::table(&self.whole),
            executor::section(&self.executor),
        ];
        let [rows, many, whole, executor] = tables;
        format!(
            "# What Rouse costs beside Linux\n\n\
             Made by `cargo run --release -- bench --save`: the same static binary on both kernels in QEMU's TCG, Debian's Linux 6.1. A ratio \
             below 1 is in Rouse's favour.\n\n\
             \"icount\" is `-icount shift=0,sleep=off` on one CPU: one guest instruction is one nanosecond, so the figure counts instructions, and \
             repeats. \"bare\" is Linux with `mitigations=off`. \"plain\" is the best of two timed runs, and \"spread\" what the other differs by \
             at most: the host does other things too, so this is an order of magnitude and no more. The last column is what Rouse's own \
             counters (`/proc/rouse/counters`) rose by for one operation: an instruction count takes a page-table switch (`cr3_loads`), a \
             flush, an interrupt to another CPU (`ipis`) or a device access for one instruction.\n\n{rows}{}{many}{whole}{executor}",
            if many.is_empty() {
                String::new()
            } else {
                format!(
                    "\nOn several CPUs there are only plain runs, with a thread of the host for each CPU; this host has {host}, so more CPUs \
                     than that can gain nothing. `scale-*`: each worker does the same to things of its own, all together so often a second. \
                     `hackbench-*`: two groups of 20 senders and 20 receivers, 100 messages from each to each. `wake-latency`: how late workers \
                     run after a thread woke them by futex, the median, what 99 of 100 do not exceed, and the worst. In brackets: the gain over \
                     one CPU.\n"
                )
            }
        )
    }
}
