//! What is measured on several CPUs: as many workers as one asks for, and how much they do in a given time, or how long they take.
//!
//! - `scale-*`: each worker does the same to things of its own, as the tests of will-it-scale do; more CPUs should do more.
//! - `hackbench-*`: groups of 20 senders and 20 receivers, each sender writing to each receiver of its group, as hackbench does.
//! - `wake-latency`: a thread wakes workers by futex, and they note how late they run, as schbench does.
//!
//! next: `crew.rs`.

use crate::crew::{self, Kind};
use crate::raw;
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::futex;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a row measures.
const WHILE: Duration = Duration::from_millis(600);

/// One row: a figure, its unit, and more about it.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Takes the figure with so many workers.
    pub measure: fn(usize) -> io::Result<String>,
}

/// All rows.
pub const ROWS: &[Row] = &[
    Row { name: "scale-getppid-threads", measure: |count| scale(Kind::Threads, count, getppid) },
    Row { name: "scale-getppid-processes", measure: |count| scale(Kind::Processes, count, getppid) },
    Row { name: "scale-open-close-threads", measure: |count| scale(Kind::Threads, count, open_close) },
    Row { name: "scale-open-close-processes", measure: |count| scale(Kind::Processes, count, open_close) },
    Row { name: "scale-pipe-threads", measure: |count| scale(Kind::Threads, count, pipe) },
    Row { name: "scale-pipe-processes", measure: |count| scale(Kind::Processes, count, pipe) },
    Row { name: "scale-page-fault-threads", measure: |count| scale(Kind::Threads, count, page_fault) },
    Row { name: "scale-page-fault-processes", measure: |count| scale(Kind::Processes, count, page_fault) },
    Row { name: "scale-futex-threads", measure: |count| scale(Kind::Threads, count, futex_wake) },
    Row { name: "scale-futex-processes", measure: |count| scale(Kind::Processes, count, futex_wake) },
    Row { name: "scale-mmap-threads", measure: |count| scale(Kind::Threads, count, map) },
    Row { name: "scale-mmap-processes", measure: |count| scale(Kind::Processes, count, map) },
    Row { name: "hackbench-threads-pipes", measure: |_| hackbench(Kind::Threads, pipe_channel) },
    Row { name: "hackbench-threads-sockets", measure: |_| hackbench(Kind::Threads, socket_channel) },
    Row { name: "hackbench-processes-pipes", measure: |_| hackbench(Kind::Processes, pipe_channel) },
    Row { name: "hackbench-processes-sockets", measure: |_| hackbench(Kind::Processes, socket_channel) },
    Row { name: "wake-latency", measure: wake_latency },
];

/// Does something over and over until the time is over; answers how often.
type Work = fn(usize) -> io::Result<u64>;

/// Operations a second, of all workers together.
fn scale(kind: Kind, count: usize, work: Work) -> io::Result<String> {
    let (took, done) = crew::run(kind, count, work)?;
    let total: u64 = done.iter().sum();
    let least = done.iter().min().copied().unwrap_or(0) as f64 / (total as f64 / count as f64);
    Ok(format!("{:.1} /s least={least:.2}", total as f64 / took.as_secs_f64()))
}

/// Repeats an operation, and looks at the clock now and then.
fn repeat(mut operation: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
    /// A look at the clock is small beside so many.
    const AT_ONCE: u64 = 32;
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < WHILE {
        (0..AT_ONCE).try_for_each(|_| operation())?;
        done += AT_ONCE;
    }
    Ok(done)
}

fn getppid(_worker: usize) -> io::Result<u64> {
    repeat(|| {
        let _ = rustix::process::getppid();
        Ok(())
    })
}

fn open_close(worker: usize) -> io::Result<u64> {
    let path = format!("/tmp/bench-{}-{worker}", std::process::id());
    File::create(&path)?;
    let name = std::ffi::CString::new(path.clone())?;
    let done = repeat(|| Ok(open(&name, OFlags::RDONLY, Mode::empty()).map(drop)?))?;
    std::fs::remove_file(path)?;
    Ok(done)
}

/// 512 bytes into a pipe and out of it.
fn pipe(_worker: usize) -> io::Result<u64> {
    let (mut reader, mut writer) = io::pipe()?;
    let mut bytes = [7; 512];
    repeat(|| {
        writer.write_all(&bytes)?;
        reader.read_exact(&mut bytes)
    })
}

/// First touches of fresh pages; the mapping and unmapping of 64 at once is counted in.
fn page_fault(_worker: usize) -> io::Result<u64> {
    const PAGES: u64 = 64;
    Ok(repeat(|| raw::map_and_touch(None, PAGES as usize * 4096))? * PAGES)
}

fn futex_wake(_worker: usize) -> io::Result<u64> {
    let word = AtomicU32::new(0);
    repeat(|| Ok(futex::wake(&word, futex::Flags::PRIVATE, 1).map(drop)?))
}

/// Maps a megabyte, touches nothing, and unmaps it.
fn map(_worker: usize) -> io::Result<u64> {
    repeat(|| raw::map_and_unmap(1 << 20))
}

/// Where what is written to the second comes out of the first.
type Channel = (OwnedFd, OwnedFd);

fn pipe_channel() -> io::Result<Channel> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

fn socket_channel() -> io::Result<Channel> {
    let (reader, writer) = UnixStream::pair()?;
    Ok((reader.into(), writer.into()))
}

/// Seconds that it takes until all messages have arrived.
fn hackbench(kind: Kind, make: fn() -> io::Result<Channel>) -> io::Result<String> {
    /// Senders of a group, and receivers.
    const EACH: usize = 20;
    const GROUPS: usize = 2;
    const LOOPS: usize = 100;
    const MESSAGE: usize = 100;
    let channels: Vec<Channel> = (0..GROUPS * EACH).map(|_| make()).collect::<Result<_, _>>()?;
    let (took, _) = crew::run(kind, GROUPS * EACH * 2, |worker| {
        let (group, member) = (worker / (EACH * 2), worker % (EACH * 2));
        let group = &channels[group * EACH..][..EACH];
        let mut message = [b'm'; MESSAGE];
        if let Some((reader, _)) = group.get(member) {
            for _ in 0..EACH * LOOPS {
                let mut got = 0;
                while got < MESSAGE {
                    match rustix::io::read(reader, &mut message[got..])? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        more => got += more,
                    }
                }
            }
        } else {
            for _ in 0..LOOPS {
                for (_, writer) in group {
                    let mut sent = 0;
                    while sent < MESSAGE {
                        sent += rustix::io::write(writer, &message[sent..])?;
                    }
                }
            }
        }
        Ok(0)
    })?;
    Ok(format!("{:.4} s", took.as_secs_f64()))
}

/// A worker of `wake_latency`, as the thread that wakes it sees it.
#[derive(Default)]
struct Sleeper {
    /// 1: it is to run.
    word: AtomicU32,
    /// When it was woken, in nanoseconds since the beginning.
    woken: AtomicU64,
}

/// How late workers run after they were woken: the median, and beside it what 99 of 100 do not exceed, and the worst, in nanoseconds.
/// Two workers for each CPU, each of which works for 50 µs, tells the waker, and sleeps.
fn wake_latency(cpus: usize) -> io::Result<String> {
    const WORK: Duration = Duration::from_micros(50);
    const MESSAGES: Duration = Duration::from_secs(2);
    let sleepers: Vec<Sleeper> = (0..cpus * 2).map(|_| Sleeper::default()).collect();
    // Whoever has worked; and a word for its waker to sleep on.
    let (idle, bell, is_over) = (Mutex::new(Vec::new()), AtomicU32::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let now = || began.elapsed().as_nanos() as u64;
    let worker = |number: usize| -> Vec<u64> {
        let own = &sleepers[number];
        let mut late = Vec::with_capacity(1 << 16);
        loop {
            if let Ok(mut idle) = idle.lock() {
                idle.push(number);
            }
            bell.fetch_add(1, Ordering::Release);
            // Nobody may wait: then nobody is woken.
            let _ = futex::wake(&bell, futex::Flags::PRIVATE, 1);
            while own.word.swap(0, Ordering::Acquire) == 0 {
                // Woken, or interrupted, or the word has changed: it is looked at again in any case.
                let _ = futex::wait(&own.word, futex::Flags::PRIVATE, 0, None);
            }
            if is_over.load(Ordering::Acquire) {
                return late;
            }
            late.push(now().saturating_sub(own.woken.load(Ordering::Relaxed)));
            let end = Instant::now() + WORK;
            while Instant::now() < end {}
        }
    };
    let mut late: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..sleepers.len()).map(|number| scope.spawn(move || worker(number))).collect();
        let wake = |number: usize| {
            let sleeper: &Sleeper = &sleepers[number];
            sleeper.woken.store(now(), Ordering::Relaxed);
            sleeper.word.store(1, Ordering::Release);
            let _ = futex::wake(&sleeper.word, futex::Flags::PRIVATE, 1);
        };
        while began.elapsed() < MESSAGES {
            let seen = bell.load(Ordering::Acquire);
            let ready = idle.lock().map(|mut idle| std::mem::take(&mut *idle)).unwrap_or_default();
            if ready.is_empty() {
                let _ = futex::wait(&bell, futex::Flags::PRIVATE, seen, None);
            }
            ready.into_iter().for_each(wake);
        }
        is_over.store(true, Ordering::Release);
        (0..sleepers.len()).for_each(wake);
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    late.sort_unstable();
    let at = |part: f64| late.get((late.len() as f64 * part) as usize).or(late.last()).copied().unwrap_or(0);
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    Ok(format!("{p50} ns p99={p99} max={max} wakes={}", late.len()))
}
