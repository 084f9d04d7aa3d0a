//! What happens, one thing after the other: wakes, polls, system calls, interrupts, processes. Read and switched by /proc/rouse/trace;
//! `cargo run -- trace` makes a picture of it.
//!
//! ```text
//!   executor ── Machine::trace ─┐
//!   system calls, processes ────┴─► record() ─► this CPU's ring (ring.rs) ─► /proc/rouse/trace (file.rs) as text (text.rs)
//! ```
//!
//! While it is off it costs a load and a branch at each place, and at a system call one instruction: the number is combined with the
//! thread's [`Mark`], which makes an unknown one of it while the trace is on, so that it is not answered at once. The way of calls that
//! wait leads to [`call_begins`], which takes the call down and asks the thread to look around when it is answered
//! ([`attention::TRACE`]); [`look`] then takes down what was returned. A thread learns that the trace was switched in the same way: on
//! its way back to user mode.
//!
//! The rings are made when the trace is first switched on, and stay.
//!
//! Next: `trace/ring.rs`.

mod file;
mod names;
mod ring;
mod text;

use core::num::NonZeroU32;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use executor::{Cause, TraceEvent};

pub use file::node;
use names::{NAMES, PLACES};
use ring::{Ring, WORDS};

use crate::arch::{self, MAX_CPUS};
use crate::process::thread::attention;
use crate::process::{RunningThread, Thread, table};
use crate::tasks;

/// How many records each CPU keeps, if nobody says.
const RECORDS: usize = 1 << 14;

static RINGS: [OnceCell<Ring>; MAX_CPUS] = [const { OnceCell::uninit() }; MAX_CPUS];
/// 0 while the trace is off, else [`MARK`].
static CALL_MARK: AtomicUsize = AtomicUsize::new(0);
/// A bit that no system call's number has.
const MARK: usize = 1 << 63;

/// What a record tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// A task that was made, with the number of its name, who made it, and where it is queued.
    Spawned {
        task: u64,
        by: Cause,
        cpu: usize,
        name: u32,
    },
    /// A task that waited was woken, and queued there.
    Woken {
        task: u64,
        by: Cause,
        cpu: usize,
    },
    /// What runs on that CPU was woken.
    Notified {
        by: Cause,
        cpu: usize,
    },
    /// A task is queued on another CPU, because it may not run where it was.
    Moved {
        task: u64,
        cpu: usize,
    },
    PollBegins {
        task: u64,
    },
    /// The task waits, at the place of that number.
    Pending {
        task: u64,
        place: u32,
    },
    Ready {
        task: u64,
    },
    Requeued {
        task: u64,
    },
    TimersFire,
    TimersFired,
    InterruptBegins {
        vector: u8,
    },
    InterruptEnds {
        vector: u8,
    },
    CallBegins {
        task: u64,
        number: usize,
        arguments: [usize; 2],
    },
    CallEnds {
        task: u64,
        number: usize,
        value: isize,
    },
    /// A thread was made, or is there.
    Thread {
        task: u64,
        pid: i32,
        tid: i32,
    },
    /// A process executes a program of this name.
    Executes {
        task: u64,
        name: [u8; 16],
    },
    /// A thread ends.
    Exits {
        task: u64,
        pid: i32,
        tid: i32,
    },
}

/// A record as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    /// Nanoseconds since boot.
    time: u64,
    event: Event,
}

/// Whether it is switched on.
#[inline]
pub fn is_on() -> bool {
    // Relaxed: whoever sees it a little late records a little less.
    CALL_MARK.load(Ordering::Relaxed) != 0
}

/// A thread's share in the trace.
#[derive(Clone, Copy, Debug)]
pub struct Mark(
    /// What its system calls' numbers are combined with: 0, or [`MARK`] if the trace was on when it last looked.
    usize,
);

impl Mark {
    /// That of a thread that is made now.
    #[allow(clippy::new_without_default, reason = "it depends on when")]
    pub fn new() -> Mark {
        Mark(CALL_MARK.load(Ordering::Relaxed))
    }

    /// The number of a system call; one that there is not while the trace is on.
    #[inline(always)]
    pub fn marked(&self, number: usize) -> usize {
        number | self.0
    }

    /// The thread's system calls are to be taken down.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0 != 0
    }
}

/// A thread begins a system call: takes that down, and asks the thread to look around when it is answered. To be told only while the
/// thread's [`Mark`] is on.
#[cold]
pub fn call_begins(thread: &mut RunningThread, number: usize) {
    let [first, second, ..] = thread.context.call_arguments();
    record(Event::CallBegins { task: task_of(thread), number, arguments: [first, second] });
    // Numbers of calls that there are fit.
    thread.traced = NonZeroU32::new((number as u32).wrapping_add(1));
    thread.attention.fetch_or(attention::TRACE, Ordering::Relaxed);
}

/// A thread was asked to look: a system call was answered, or the trace was switched.
#[cold]
pub fn look(thread: &mut RunningThread) {
    thread.trace.0 = CALL_MARK.load(Ordering::Relaxed);
    // A call may have waited until long after the trace was switched off.
    if let Some(number) = thread.traced.take().filter(|_| is_on()) {
        let value = thread.context.return_value();
        record(Event::CallEnds { task: task_of(thread), number: number.get() as usize - 1, value });
    }
}

/// Switches it on, with room for so many records on each CPU; the first time decides how many.
///
/// # Errors
///
/// `EINVAL`: no power of two between 64 and 2²⁰. `EBUSY`: there are rings of another size. `ENOMEM`.
fn switch_on(records: Option<usize>) -> Result<()> {
    for place in &RINGS[..tasks::cpu_count().min(MAX_CPUS)] {
        match place.try_get() {
            Ok(ring) if records.is_none_or(|records| records == ring.len()) => {}
            Ok(_) => return Err(Errno::EBUSY),
            Err(_) => {
                let ring = Ring::new(records.unwrap_or(RECORDS))?;
                // Somebody else may have been first: then theirs is as good.
                let _ = place.try_init_once(|| ring);
            }
        }
    }
    tasks::executor().set_traced(true);
    mark_calls(MARK);
    // So that even those are known by name that end before the trace is read.
    table::for_each_thread(|thread| thread_made(thread));
    Ok(())
}

fn switch_off() {
    tasks::executor().set_traced(false);
    mark_calls(0);
}

/// Sets the mark and has all threads look at it, but wakes none: who sleeps looks when it goes on.
fn mark_calls(mark: usize) {
    CALL_MARK.store(mark, Ordering::Relaxed);
    // After the mark: a thread that is made from now on has it already, and who looks because of this finds it (AcqRel).
    table::for_each_thread(|thread| {
        thread.attention.fetch_or(attention::TRACE, Ordering::AcqRel);
    });
}

fn clear() {
    rings().for_each(|(_, ring)| ring.clear());
}

fn rings() -> impl Iterator<Item = (usize, &'static Ring)> {
    RINGS.iter().enumerate().filter_map(|(cpu, ring)| Some((cpu, ring.try_get().ok()?)))
}

fn record(event: Event) {
    let time = arch::clock::now().as_nanos();
    if let Some(Ok(ring)) = RINGS.get(arch::cpu_id()).map(OnceCell::try_get) {
        ring.push(Record { time, event }.encode());
    }
}

/// Takes down what the executor tells.
pub fn executor_event(event: &TraceEvent) {
    record(match *event {
        TraceEvent::Spawned { task, by, cpu, name } => Event::Spawned { task, by, cpu, name: NAMES.number_of(name) },
        TraceEvent::Woken { task, by, cpu } => Event::Woken { task, by, cpu },
        TraceEvent::Notified { by, cpu } => Event::Notified { by, cpu },
        TraceEvent::Moved { task, cpu } => Event::Moved { task, cpu },
        TraceEvent::PollBegins { task } => Event::PollBegins { task },
        TraceEvent::PollEnds { task, is_ready: true, .. } => Event::Ready { task },
        TraceEvent::PollEnds { task, waits_at, .. } => {
            Event::Pending { task, place: waits_at.map_or(u32::MAX, |place| PLACES.number_of(place)) }
        }
        TraceEvent::Requeued { task } => Event::Requeued { task },
        TraceEvent::TimersFire => Event::TimersFire,
        TraceEvent::TimersFired => Event::TimersFired,
        TraceEvent::InterruptBegins { vector } => Event::InterruptBegins { vector },
        TraceEvent::InterruptEnds { vector } => Event::InterruptEnds { vector },
    });
}

fn task_of(thread: &Thread) -> u64 {
    thread.task().map_or(0, |task| task.id())
}

/// A thread was made, perhaps with a process around it; or is there when the trace begins.
pub fn thread_made(thread: &Thread) {
    if is_on() {
        let (pid, tid) = (thread.process.pid, thread.tid());
        record(Event::Thread { task: task_of(thread), pid, tid });
        record(Event::Executes { task: task_of(thread), name: *thread.name.lock() });
    }
}

/// A thread has executed a program, and has its name.
pub fn executed(thread: &Thread) {
    if is_on() {
        record(Event::Executes { task: task_of(thread), name: *thread.name.lock() });
    }
}

/// A thread ends.
pub fn exits(thread: &Thread) {
    if is_on() {
        record(Event::Exits { task: task_of(thread), pid: thread.process.pid, tid: thread.tid() });
    }
}

impl Record {
    /// As words: the time; the kind, with a small number above it; three more.
    fn encode(self) -> [u64; WORDS] {
        let two = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let (kind, small, rest) = match self.event {
            Event::Spawned { task, by, cpu, name } => (0, cpu as u64, [task, by.encode(), name.into()]),
            Event::Woken { task, by, cpu } => (1, cpu as u64, [task, by.encode(), 0]),
            Event::Notified { by, cpu } => (2, cpu as u64, [0, by.encode(), 0]),
            Event::Moved { task, cpu } => (3, cpu as u64, [task, 0, 0]),
            Event::PollBegins { task } => (4, 0, [task, 0, 0]),
            Event::Pending { task, place } => (5, place.into(), [task, 0, 0]),
            Event::Ready { task } => (6, 0, [task, 0, 0]),
            Event::Requeued { task } => (7, 0, [task, 0, 0]),
            Event::TimersFire => (8, 0, [0; 3]),
            Event::TimersFired => (9, 0, [0; 3]),
            Event::InterruptBegins { vector } => (10, vector.into(), [0; 3]),
            Event::InterruptEnds { vector } => (11, vector.into(), [0; 3]),
            Event::CallBegins { task, number, arguments: [first, second] } => {
                (12, number as u32 as u64, [task, first as u64, second as u64])
            }
            Event::CallEnds { task, number, value } => (13, number as u32 as u64, [task, value as u64, 0]),
            Event::Thread { task, pid, tid } => (14, 0, [task, two(pid as u32, tid as u32), 0]),
            Event::Executes { task, name } => {
                let [first, second] = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|i| name[at + i])));
                (15, 0, [task, first, second])
            }
            Event::Exits { task, pid, tid } => (16, 0, [task, two(pid as u32, tid as u32), 0]),
        };
        let [a, b, c] = rest;
        [self.time, kind | small << 8, a, b, c]
    }

    /// `None`: these are no words of [`Record::encode`].
    fn decode([time, kind, task, b, c]: [u64; WORDS]) -> Option<Record> {
        let small = kind >> 8;
        let cpu = small as usize;
        let event = match kind & 0xff {
            0 => Event::Spawned { task, by: Cause::decode(b), cpu, name: c as u32 },
            1 => Event::Woken { task, by: Cause::decode(b), cpu },
            2 => Event::Notified { by: Cause::decode(b), cpu },
            3 => Event::Moved { task, cpu },
            4 => Event::PollBegins { task },
            5 => Event::Pending { task, place: small as u32 },
            6 => Event::Ready { task },
            7 => Event::Requeued { task },
            8 => Event::TimersFire,
            9 => Event::TimersFired,
            10 => Event::InterruptBegins { vector: small as u8 },
            11 => Event::InterruptEnds { vector: small as u8 },
            12 => Event::CallBegins { task, number: cpu, arguments: [b as usize, c as usize] },
            13 => Event::CallEnds { task, number: cpu, value: b as isize },
            14 => Event::Thread { task, pid: (b >> 32) as i32, tid: b as i32 },
            15 => {
                let mut name = [0; 16];
                name[..8].copy_from_slice(&b.to_le_bytes());
                name[8..].copy_from_slice(&c.to_le_bytes());
                Event::Executes { task, name }
            }
            16 => Event::Exits { task, pid: (b >> 32) as i32, tid: b as i32 },
            _ => return None,
        };
        Some(Record { time, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let (task, cpu) = (u64::from(u32::MAX) + 5, 63);
        let causes = [Cause::Unknown, Cause::Task(7), Cause::Interrupt(0xf0), Cause::Timer];
        let woken = causes.map(|by| Event::Woken { task, by, cpu });
        let others = [
            Event::Spawned { task, by: Cause::Task(1), cpu, name: 3 },
            Event::Notified { by: Cause::Timer, cpu },
            Event::Moved { task, cpu },
            Event::PollBegins { task },
            Event::Pending { task, place: u32::MAX },
            Event::Ready { task },
            Event::Requeued { task },
            Event::TimersFire,
            Event::TimersFired,
            Event::InterruptBegins { vector: 0xff },
            Event::InterruptEnds { vector: 0x30 },
            Event::CallBegins { task, number: 435, arguments: [usize::MAX, 1 << 40] },
            Event::CallEnds { task, number: 0, value: -11 },
            Event::Thread { task, pid: 4_194_303, tid: 2 },
            Event::Executes { task, name: *b"sixteen bytes ok" },
            Event::Exits { task, pid: 1, tid: 4_194_303 },
        ];
        for event in woken.into_iter().chain(others) {
            let record = Record { time: 1 << 60, event };
            assert_eq!(Record::decode(record.encode()), Some(record));
        }
        assert_eq!(Record::decode([0, 200, 0, 0, 0]), None);
    }
}
