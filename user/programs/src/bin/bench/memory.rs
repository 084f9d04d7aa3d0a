//! What a sleeping thread or process costs the kernel: free memory, less what the process itself holds, with so many of them asleep.

use crate::raw::{self, Sleeper};
use std::process::ExitCode;
use std::time::Duration;

const STACK: usize = 16 << 10;

/// Starts threads that sleep, and prints how many there are, the free memory and the process's own, in KiB.
///
/// The slope between two counts is the cost of one: what is there once cancels out.
pub fn sleeping_threads(count: usize) -> ExitCode {
    let mut started = 0;
    for _ in 0..count {
        let sleeper = || std::thread::sleep(Duration::from_secs(3600));
        if std::thread::Builder::new().stack_size(STACK).spawn(sleeper).is_err() {
            break;
        }
        started += 1;
    }
    report(started);
    // The threads end with the process.
    std::process::exit(if started == count { 0 } else { 1 });
}

/// The same with threads or processes that have no memory of their own at all: they share this one's, stack included, and touch none.
pub fn bare_sleepers(kind: Sleeper, count: usize) -> ExitCode {
    let started = raw::start_sleepers(kind, count);
    report(started);
    raw::end_sleepers();
    if started == count { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(started: usize) {
    // All of them have to have fallen asleep.
    std::thread::sleep(Duration::from_secs(2));
    let free = field("/proc/meminfo", "MemFree:");
    let own = field("/proc/self/status", "VmRSS:");
    println!("{started} {free} {own}");
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
