//! The kernel log: what `log::info!` and its like write, dmesg(1) shows and a panic report ends with.
//!
//! Records go into a ring without locks (`log/records.rs`), so logging allocates nothing and is allowed anywhere, interrupt handlers
//! and panics included. Warnings and worse are also printed at once through a hook, polled; everything else waits to be
//! asked for: /dev/kmsg (`log/kmsg.rs`), syslog(2) (`log/syslog.rs`).
//!
//! ```text
//!   log::warn! ─┐                    ┌─► RECORDS ──► /dev/kmsg, syslog(2), tail() in a panic report
//!   /dev/kmsg ──┴─► append(priority) ┼─► console hook, if the level asks for it
//!                                    └─► ARRIVED ──► run() ──► READERS (a wait queue may not be woken in an interrupt)
//! ```
//!
//! On the command line: `loglevel=N` prints what is more urgent than N (as Linux), `quiet` errors only, `debug` everything, recorded
//! detail included. The default is 5: warnings and worse.
//!
//! Next: `log/records.rs`.

pub mod kmsg;
pub mod records;
pub mod syslog;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use conquer_once::spin::OnceCell;
use executor::sync::{Event, WaitQueue};
use log::{Level, LevelFilter, Log, Metadata};

pub use kmsg::KmsgFile;
pub use records::{Record, Records, TEXT_MAX};
pub use syslog::{levels, needs_privilege, syslog};

/// Messages less urgent than this are not printed, unless the command line says otherwise.
const DEFAULT_CONSOLE_LEVEL: u8 = 5;

static RECORDS: Records = Records::new();
static CLOCK: OnceCell<fn() -> u64> = OnceCell::uninit();
static CONSOLE: OnceCell<fn(&[u8])> = OnceCell::uninit();
/// Levels below this number are printed.
static CONSOLE_LEVEL: AtomicU8 = AtomicU8::new(DEFAULT_CONSOLE_LEVEL);
static ARRIVED: Event = Event::new();
static READERS: WaitQueue = WaitQueue::new();

struct Backend;

static BACKEND: Backend = Backend;

impl Log for Backend {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut line = Line::new();
        let area = area_of(record.target());
        // Writing to a line cannot fail: what does not fit is cut off.
        let _ = write!(line, "{area}: {}", record.args());
        append(priority_of(record.level()), line.bytes());
    }

    fn flush(&self) {}
}

/// The part of the kernel that speaks: `rouse::mm::heap` is `mm`, `virtio::block` is `virtio`.
fn area_of(target: &str) -> &str {
    let path = target.strip_prefix("rouse::").unwrap_or(target);
    path.split("::").next().unwrap_or(path)
}

/// Linux's number for a level, facility 0 (the kernel).
fn priority_of(level: Level) -> u16 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A line under construction, at most a record long.
struct Line {
    text: [u8; TEXT_MAX],
    len: usize,
}

impl Line {
    const fn new() -> Line {
        Line { text: [0; TEXT_MAX], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = text.len().min(TEXT_MAX - self.len);
        self.text[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Starts the log: from here on `log::info!` and its like are recorded.
pub fn init() {
    // It fails if it was called before: then the log is there already.
    let _ = log::set_logger(&BACKEND);
    log::set_max_level(LevelFilter::Info);
}

/// Gives records a time: nanoseconds since boot.
pub fn set_clock(nanoseconds: fn() -> u64) {
    let _ = CLOCK.try_init_once(|| nanoseconds);
}

/// Says where urgent messages are printed; called in any context, must not lock or wait.
pub fn set_console(print: fn(&[u8])) {
    let _ = CONSOLE.try_init_once(|| print);
}

/// Obeys the command line: `loglevel=N`, `quiet`, `debug`, `ignore_loglevel`. The last word counts.
pub fn configure(command_line: &[u8]) {
    for word in command_line.split(|byte| byte.is_ascii_whitespace()) {
        let number = || core::str::from_utf8(word.strip_prefix(b"loglevel=")?).ok()?.parse().ok();
        let level = match word {
            b"quiet" => Some(4),
            b"debug" => Some(10),
            b"ignore_loglevel" => Some(u8::MAX),
            _ => number(),
        };
        if word == b"debug" {
            log::set_max_level(LevelFilter::Trace);
        }
        if let Some(level) = level {
            set_console_level(level);
        }
    }
}

/// Prints only messages more urgent than `level` (0 is the most urgent) from now on; returns what it was.
pub fn set_console_level(level: u8) -> u8 {
    // Relaxed: a number by itself.
    CONSOLE_LEVEL.swap(level, Ordering::Relaxed)
}

/// Records a message of a priority (facility × 8 + level), and prints it if it is urgent. A newline at its end is dropped.
pub fn append(priority: u16, text: &[u8]) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let time = CLOCK.try_get().map_or(0, |clock| clock());
    RECORDS.append(priority, time, text);
    if (priority & 7) < u16::from(CONSOLE_LEVEL.load(Ordering::Relaxed))
        && let Ok(print) = CONSOLE.try_get()
    {
        let mut stamp = Line::new();
        let _ = write!(stamp, "{}", Stamp(time));
        print(stamp.bytes());
        print(text);
        print(b"\n");
    }
    ARRIVED.notify();
}

/// Wakes those who wait for records, for as long as the machine runs; to be spawned once.
pub async fn run() {
    loop {
        ARRIVED.wait().await;
        READERS.wake_all();
    }
}

/// Where readers of the log wait.
pub fn wait_queue() -> &'static WaitQueue {
    &READERS
}

/// Hands the last lines to `show`, the oldest first: for a panic report. Takes no lock.
pub fn tail(show: &mut dyn FnMut(&str)) {
    const LINES: u64 = 20;
    let end = RECORDS.end();
    let mut record = Record::new();
    for sequence in RECORDS.first().max(end.saturating_sub(LINES))..end {
        if RECORDS.read(sequence, &mut record) {
            let mut line = Line::new();
            let _ = write!(line, "{}", Stamp(record.time));
            let text = record.text().utf8_chunks().next().map_or("", |chunk| chunk.valid());
            let _ = line.write_str(text);
            show(line.bytes().utf8_chunks().next().map_or("", |chunk| chunk.valid()));
        }
    }
}

/// A time stamp as Linux prints it: `[    1.234567] `.
struct Stamp(u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 / 1000;
        write!(f, "[{:5}.{:06}] ", micros / 1_000_000, micros % 1_000_000)
    }
}

/// Lets a message through so often and no more: for what user space could make the kernel say again and again.
///
/// ```
/// static LIMIT: rouse::log::RateLimit = rouse::log::RateLimit::new(2, 1_000_000_000);
/// assert!(LIMIT.allows(0) && LIMIT.allows(1) && !LIMIT.allows(2));
/// assert!(LIMIT.allows(1_000_000_001));
/// ```
pub struct RateLimit {
    burst: u32,
    interval: u64,
    /// When the present interval began, in nanoseconds.
    began: AtomicU64,
    /// How many were let through in it.
    used: AtomicU64,
}

impl RateLimit {
    /// At most `burst` messages in `interval` nanoseconds.
    pub const fn new(burst: u32, interval: u64) -> RateLimit {
        RateLimit { burst, interval, began: AtomicU64::new(0), used: AtomicU64::new(0) }
    }

    /// Whether one more may pass at `now` (nanoseconds). Two CPUs at the edge of an interval may let one too many through.
    pub fn allows(&self, now: u64) -> bool {
        // Relaxed: an estimate, which orders nothing.
        if now.saturating_sub(self.began.load(Ordering::Relaxed)) > self.interval {
            self.began.store(now, Ordering::Relaxed);
            self.used.store(0, Ordering::Relaxed);
        }
        self.used.fetch_add(1, Ordering::Relaxed) < u64::from(self.burst)
    }

    /// Whether one more may pass now.
    pub fn allows_now(&self) -> bool {
        self.allows(CLOCK.try_get().map_or(0, |clock| clock()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_the_part_of_the_kernel_that_speaks() {
        assert_eq!(area_of("rouse::mm::heap"), "mm");
        assert_eq!(area_of("virtio::block"), "virtio");
        assert_eq!(area_of("fs"), "fs");
    }

    #[test]
    fn a_time_stamp_looks_like_linuxs() {
        assert_eq!(format!("{}", Stamp(12_345_678_900)), "[   12.345678] ");
        assert_eq!(format!("{}", Stamp(0)), "[    0.000000] ");
    }

    #[test]
    fn the_command_line_sets_what_is_printed() {
        configure(b"root=/dev/vda loglevel=7 quiet");
        assert_eq!(set_console_level(DEFAULT_CONSOLE_LEVEL), 4);
        configure(b"loglevel=x  loglevel=2");
        assert_eq!(set_console_level(DEFAULT_CONSOLE_LEVEL), 2);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_off() {
        let mut line = Line::new();
        for _ in 0..100 {
            line.write_str("0123456789").expect("cutting off is no error");
        }
        assert_eq!(line.bytes().len(), TEXT_MAX);
    }
}
