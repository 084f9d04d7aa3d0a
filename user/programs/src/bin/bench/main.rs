//! Measures what a kernel costs: the same binary on Rouse and on Linux, so that only the kernels differ.
//!
//! `bench ROW` measures one row and prints a line: the cost of one operation, its unit, and what Rouse's own counters
//! (`/proc/rouse/counters`) rose by for each operation. `bench --list` names the rows. Rows that need a second process start this
//! program again as `bench --child ROLE`. `bench --many ROW WORKERS` takes a figure with several workers, for several CPUs, and
//! `bench --list-many` names those rows.
//!
//! next: `measure.rs`, how one figure is taken; `rows.rs`, what is measured; `many.rs`, on several CPUs.

mod child;
mod crew;
mod many;
mod measure;
mod memory;
#[allow(unsafe_code, reason = "fork and sigaction are what is measured, and have no safe form")]
mod raw;
mod rows;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--list"] => {
            rows::ROWS.iter().for_each(|row| println!("{}", row.name));
            ExitCode::SUCCESS
        }
        ["--list-many"] => {
            many::ROWS.iter().for_each(|row| println!("{}", row.name));
            ExitCode::SUCCESS
        }
        ["--many", name, workers] => {
            let row = many::ROWS.iter().find(|row| row.name == *name);
            match row.zip(workers.parse().ok()) {
                Some((row, workers)) => report((row.measure)(workers)),
                None => usage(),
            }
        }
        ["--child", role] => child::run(role),
        ["--threads", count] => memory::sleeping_threads(count.parse().unwrap_or(0)),
        ["--bare-threads", count] => memory::bare_sleepers(raw::Sleeper::Thread, count.parse().unwrap_or(0)),
        ["--processes", count] => memory::bare_sleepers(raw::Sleeper::Process, count.parse().unwrap_or(0)),
        [name] => match rows::ROWS.iter().find(|row| row.name == *name) {
            Some(row) => report((row.measure)()),
            None => usage(),
        },
        _ => usage(),
    }
}

fn report(outcome: std::io::Result<impl std::fmt::Display>) -> ExitCode {
    match outcome {
        Ok(figure) => {
            println!("{figure}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: bench ROW | --list | --many ROW WORKERS | --list-many | --threads COUNT | --bare-threads COUNT | --processes COUNT"
    );
    ExitCode::from(2)
}
