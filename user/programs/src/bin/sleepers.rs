//! Shows what a thread costs when it is a future: starts many that sleep, and says what they took.
//!
//! Usage: `sleepers [COUNT]`. On Linux each takes a kernel stack; on Rouse a sleeping thread is a few hundred bytes of state.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

static AWAKE: AtomicUsize = AtomicUsize::new(0);

fn main() {
    const DEFAULT: usize = 2_000;
    const STACK: usize = 16 << 10;
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(DEFAULT);
    let (free, start) = (free_kib(), Instant::now());
    let sleep = || {
        thread::sleep(Duration::from_secs(2));
        AWAKE.fetch_add(1, Ordering::Relaxed);
    };
    let threads: Vec<_> =
        (0..count).map_while(|_| thread::Builder::new().stack_size(STACK).spawn(sleep).ok()).collect();
    println!("{} threads asleep after {:.2} s", threads.len(), start.elapsed().as_secs_f64());
    if !threads.is_empty() {
        let taken = free.saturating_sub(free_kib());
        println!(
            "{taken} KiB of memory, {:.1} KiB for each, its user stack included",
            taken as f64 / threads.len() as f64
        );
    }
    for thread in threads {
        // A thread that panicked is missing in the count below.
        let _ = thread.join();
    }
    println!("{} woke up after {:.2} s", AWAKE.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
}

fn free_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
