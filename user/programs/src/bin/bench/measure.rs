//! How one figure is taken: the cheapest of several batches, each long enough for the clock.
//!
//! The minimum, because whatever else happens on a machine only ever adds.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

const BATCHES: usize = 9;
const LONG_ENOUGH: Duration = Duration::from_millis(3);
const COUNTERS: &str = "/proc/rouse/counters";

/// What one operation costs.
pub struct Figure {
    value: f64,
    unit: &'static str,
    /// By how much each of the kernel's own counters rose for one operation.
    counters: BTreeMap<String, f64>,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} {}", self.value, self.unit)?;
        self.counters
            .iter()
            // What shows as 0.00 is the clock's and other tasks' doing.
            .filter(|(_, count)| **count >= 0.005)
            .try_for_each(|(name, count)| write!(f, " {name}={count:.2}"))
    }
}

impl Figure {
    /// The figure for one of so many equal parts of an operation.
    #[must_use]
    pub fn divided_by(mut self, parts: usize) -> Self {
        self.value /= parts as f64;
        self.counters.values_mut().for_each(|count| *count /= parts as f64);
        self
    }
}

/// Nanoseconds for one `operation`.
///
/// # Errors
/// The operation's own.
pub fn each(mut operation: impl FnMut() -> io::Result<()>) -> io::Result<Figure> {
    best_batch(|count| {
        let start = Instant::now();
        (0..count).try_for_each(|_| operation())?;
        Ok(start.elapsed())
    })
}

/// Nanoseconds for one `operation`, after each of which `undo` makes the next one possible. Only the operation is timed, so it
/// must be long beside a look at the clock; the counters count both.
///
/// # Errors
/// The operations' own.
pub fn each_undone(
    mut operation: impl FnMut() -> io::Result<()>,
    mut undo: impl FnMut() -> io::Result<()>,
) -> io::Result<Figure> {
    best_batch(|count| {
        (0..count).try_fold(Duration::ZERO, |total, _| {
            let start = Instant::now();
            operation()?;
            let total = total + start.elapsed();
            undo()?;
            Ok(total)
        })
    })
}

/// The figure of the cheapest batch. `time` answers how long so many operations took.
fn best_batch(mut time: impl FnMut(u32) -> io::Result<Duration>) -> io::Result<Figure> {
    let mut count = 1;
    while time(count)? < LONG_ENOUGH && count < 1 << 24 {
        count *= 2;
    }
    // What reading the counters itself adds to them is seen between these two.
    let (earlier, before) = (counters(), counters());
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        best = best.min(time(count)?);
    }
    let risen = counters().into_iter().map(|(name, after)| {
        let [earlier, before] = [&earlier, &before].map(|counters| counters.get(&name).copied().unwrap_or(0));
        let rise = after.saturating_sub(before).saturating_sub(before.saturating_sub(earlier));
        let each = rise as f64 / (f64::from(count) * BATCHES as f64);
        (name, each)
    });
    Ok(Figure { value: best.as_secs_f64() * 1e9 / f64::from(count), unit: "ns", counters: risen.collect() })
}

/// Megabytes a second, where `operation` moves `bytes`.
///
/// # Errors
/// The operation's own.
pub fn bandwidth(bytes: usize, operation: impl FnMut() -> io::Result<()>) -> io::Result<Figure> {
    let figure = each(operation)?;
    Ok(Figure { value: bytes as f64 * 1e3 / figure.value, unit: "MB/s", ..figure })
}

fn counters() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(COUNTERS).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}
