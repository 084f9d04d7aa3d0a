//! A trace as a picture: Chrome's trace-event format, as Perfetto and chrome://tracing show it.
//!
//! ```text
//! CPUs             CPU 0   [poll 3/3 cat     ]─┐      [irq 0x31]  [poll virtio-blk]  [poll 3/3 cat …
//!                                              │           └── wakes ──►      └── wakes ──►
//! 3 cat            3       [read                                                              ]
//!                               [waits at fs/src/…                            ][queued]
//! kernel tasks     virtio-blk   waits at … ──────────────────────►[poll]  waits at …
//! ```
//!
//! A track for each CPU: polls, interrupts and expiring timers as slices; an arrow leads from each wake to the poll that it causes. A
//! track for each thread, below its process: system calls as slices, and within them what it waits for. A track for each of the
//! kernel's own tasks.
//!
//! The format: "Trace Event Format" (Google, 2016), the JSON object form; `X` is a slice, `s` and `f` are an arrow's ends, `i` an
//! instant, `M` a name.

use super::names::{Name, THREAD};
use super::records::{Event, Trace};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// The "process" whose "threads" are the CPUs: no process of the guest has this number.
pub const CPUS: u64 = 1 << 23;
/// The "process" of the kernel's own tasks.
pub const KERNEL: u64 = CPUS + 1;

/// The events of a picture.
#[derive(Debug, Default)]
pub struct Picture {
    events: Vec<(u64, Value)>,
    lost: u64,
}

/// Where in the picture something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Track {
    pid: u64,
    tid: u64,
}

/// A slice that has begun.
#[derive(Debug)]
struct Open {
    since: u64,
    kind: &'static str,
    name: String,
    args: Value,
}

/// What is known of a task while the trace is followed.
#[derive(Debug, Default)]
struct Task {
    name: Name,
    /// The system call that it is in.
    call: Option<Open>,
    /// Where and since when it waits.
    wait: Option<(u64, String)>,
    /// Since when it is queued.
    queued: Option<u64>,
    /// The wake that its next poll is due to, if that happened within a slice: when, and on which CPU.
    woken: Option<(u64, usize)>,
}

impl Task {
    fn track(&self, id: u64) -> Track {
        self.name.numbers.map_or(Track { pid: KERNEL, tid: id }, |(pid, tid)| Track { pid, tid })
    }
}

/// Follows a trace through time.
#[derive(Default)]
struct Draftsman {
    picture: Picture,
    tasks: BTreeMap<u64, Task>,
    /// What each CPU is in the midst of, the innermost last.
    cpus: BTreeMap<usize, Vec<Open>>,
    arrows: u64,
}

impl Picture {
    /// Draws a trace.
    pub fn of(trace: &Trace) -> Self {
        let mut draftsman = Draftsman::default();
        for (id, name) in &trace.names {
            draftsman.task(*id).name.introduce(name);
        }
        for record in &trace.records {
            draftsman.draw(record.time, record.cpu, &record.event);
        }
        draftsman.finish(trace.records.last().map_or(0, |last| last.time));
        let mut picture = draftsman.picture;
        // Of slices that begin together the longer comes first: it is around the others.
        let length = |event: &Value| event["dur"].as_f64().unwrap_or(0.0);
        picture.events.sort_by(|(a, first), (b, second)| a.cmp(b).then(length(second).total_cmp(&length(first))));
        picture.lost = trace.lost;
        picture
    }

    /// The events, in the order of their times.
    pub fn events(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().map(|(_, event)| event)
    }

    /// Writes it as JSON, an event a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, mut to: impl Write) -> Result<()> {
        write!(to, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost\":{}}},\"traceEvents\":[", self.lost)?;
        for (index, event) in self.events().enumerate() {
            to.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut to, event)?;
        }
        to.write_all(b"\n]}\n")?;
        to.flush()
    }

    fn slice(&mut self, track: Track, end: u64, open: Open) {
        let Open { since, kind, name, args } = open;
        let Track { pid, tid } = track;
        let event = json!({"ph": "X", "cat": kind, "name": name, "pid": pid, "tid": tid,
            "ts": micros(since), "dur": micros(end.saturating_sub(since)), "args": args});
        self.events.push((since, event));
    }

    fn instant(&mut self, track: Track, time: u64, name: String) {
        let Track { pid, tid } = track;
        let event = json!({"ph": "i", "s": "t", "name": name, "pid": pid, "tid": tid, "ts": micros(time)});
        self.events.push((time, event));
    }

    fn name(&mut self, what: &str, track: Track, name: &str) {
        let Track { pid, tid } = track;
        self.events.push((0, json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}})));
    }
}

/// Chrome counts in microseconds; three more digits are the nanoseconds, exactly enough for a day.
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

fn of_cpu(cpu: usize) -> Track {
    // Number 0 means something else to some viewers.
    Track { pid: CPUS, tid: cpu as u64 + 1 }
}

impl Draftsman {
    fn draw(&mut self, time: u64, cpu: usize, event: &Event) {
        match event {
            Event::Spawn { task, by, name, .. } => {
                // A thread is introduced by what follows.
                if name != THREAD {
                    self.task(*task).name.introduce(name);
                }
                self.woken(*task, time, cpu, by);
            }
            Event::Wake { task, by, .. } => self.woken(*task, time, cpu, by),
            Event::Notify { by, cpu: other } => self.picture.instant(of_cpu(*other), time, format!("woken by {by}")),
            Event::Move { task } => self.task(*task).queued = Some(time),
            Event::Poll { task } => self.poll(*task, time, cpu),
            Event::Pending { task, place } => {
                let since = self.end(cpu, time, "poll", json!({"then": "waits", "at": place}));
                self.draw_own_poll(*task, since, time);
                self.task(*task).wait = Some((time, place.clone()));
            }
            Event::Ready { task } => {
                let since = self.end(cpu, time, "poll", json!({"then": "ends"}));
                self.draw_own_poll(*task, since, time);
                self.close(*task, time);
            }
            Event::Requeue { task } => {
                // It does not wait: it only lets others go first.
                let task = self.task(*task);
                task.queued = task.wait.take().map(|(since, _)| since);
            }
            Event::Timers => self.begin(cpu, time, "timers", "timers".into(), json!({})),
            Event::TimersDone => drop(self.end(cpu, time, "timers", json!({}))),
            Event::Irq { vector, name } => {
                self.begin(cpu, time, "irq", format!("irq {name}"), json!({"vector": vector}));
            }
            Event::IrqDone => drop(self.end(cpu, time, "irq", json!({}))),
            Event::Call { task, name, arguments } => {
                let args = json!({"arguments": arguments});
                self.task(*task).call = Some(Open { since: time, kind: "call", name: name.clone(), args });
            }
            Event::Return { task, name, value } => {
                let (track, call) = (self.track(*task), self.task(*task).call.take());
                // The call of a return without one was before the trace, or is lost.
                if let Some(mut call) = call.filter(|call| call.name == *name) {
                    call.args["result"] = json!(value);
                    self.picture.slice(track, time, call);
                }
            }
            Event::Thread { task, pid, tid } => self.task(*task).name.numbers = Some((*pid, *tid)),
            Event::Exec { task, name } => {
                self.task(*task).name.name.clone_from(name);
                let track = self.track(*task);
                self.picture.instant(track, time, format!("is now {name}"));
            }
            Event::Exit { task } => {
                let track = self.track(*task);
                self.picture.instant(track, time, "exits".into());
            }
        }
    }

    fn task(&mut self, id: u64) -> &mut Task {
        self.tasks.entry(id).or_default()
    }

    fn track(&mut self, id: u64) -> Track {
        self.task(id).track(id)
    }

    /// A slice begins on a CPU.
    fn begin(&mut self, cpu: usize, since: u64, kind: &'static str, name: String, args: Value) {
        self.cpus.entry(cpu).or_default().push(Open { since, kind, name, args });
    }

    /// The innermost slice of a CPU ends, if it is of this kind, and it is told when it began; else that was before the trace.
    fn end(&mut self, cpu: usize, time: u64, kind: &str, more: Value) -> Option<u64> {
        let mut open = self.cpus.entry(cpu).or_default().pop_if(|open| open.kind == kind)?;
        if let (Some(args), Some(more)) = (open.args.as_object_mut(), more.as_object()) {
            args.extend(more.clone());
        }
        let since = open.since;
        self.picture.slice(of_cpu(cpu), time, open);
        Some(since)
    }

    /// A poll of one of the kernel's own tasks is drawn on the task's track, too. Threads have their system calls there.
    fn draw_own_poll(&mut self, id: u64, since: Option<u64>, time: u64) {
        let task = self.task(id);
        // One that nobody has introduced may be a thread.
        let is_the_kernels = task.name.numbers.is_none() && !task.name.name.is_empty();
        if let Some(since) = since.filter(|_| is_the_kernels) {
            let track = self.track(id);
            self.picture.slice(track, time, Open { since, kind: "poll", name: "poll".into(), args: json!({}) });
        }
    }

    /// A task was woken on a CPU.
    fn woken(&mut self, id: u64, time: u64, cpu: usize, by: &str) {
        let is_within_a_slice = self.cpus.get(&cpu).is_some_and(|open| !open.is_empty());
        let track = self.track(id);
        let task = self.task(id);
        task.queued = Some(time);
        task.woken = is_within_a_slice.then_some((time, cpu));
        if let Some((since, place)) = task.wait.take() {
            let args = json!({"woken by": by});
            let open = Open { since, kind: "wait", name: format!("waits at {place}"), args };
            self.picture.slice(track, time, open);
        }
    }

    /// A poll begins.
    fn poll(&mut self, id: u64, time: u64, cpu: usize) {
        let (track, title) = (self.track(id), self.task(id).name.title(id));
        self.begin(cpu, time, "poll", title, json!({"task": id}));
        let task = self.task(id);
        let (queued, woken) = (task.queued.take(), task.woken.take());
        // A wait without a wake: that was lost, or its record is.
        if let Some((since, place)) = task.wait.take() {
            let open = Open { since, kind: "wait", name: format!("waits at {place}"), args: json!({}) };
            self.picture.slice(track, time, open);
        }
        if let Some(since) = queued {
            self.picture.slice(track, time, Open { since, kind: "queued", name: "queued".into(), args: json!({}) });
        }
        if let Some((woken, waker)) = woken.filter(|(woken, _)| *woken <= time) {
            self.arrows += 1;
            let id = self.arrows;
            for (phase, at, cpu) in [("s", woken, waker), ("f", time, cpu)] {
                let Track { pid, tid } = of_cpu(cpu);
                let mut event = json!({"ph": phase, "cat": "wake", "name": "wake", "id": id, "pid": pid, "tid": tid,
                    "ts": micros(at)});
                if phase == "f" {
                    event["bp"] = json!("e");
                }
                self.picture.events.push((at, event));
            }
        }
    }

    /// A task is over, or the trace is.
    fn close(&mut self, id: u64, time: u64) {
        let track = self.track(id);
        let task = self.task(id);
        let (call, wait, queued) = (task.call.take(), task.wait.take(), task.queued.take());
        if let Some(call) = call {
            self.picture.slice(track, time, call);
        }
        if let Some((since, place)) = wait {
            let open = Open { since, kind: "wait", name: format!("waits at {place}"), args: json!({}) };
            self.picture.slice(track, time, open);
        }
        if let Some(since) = queued {
            self.picture.slice(track, time, Open { since, kind: "queued", name: "queued".into(), args: json!({}) });
        }
    }

    /// Closes what is open, and names the tracks.
    fn finish(&mut self, time: u64) {
        for (cpu, open) in std::mem::take(&mut self.cpus) {
            open.into_iter().for_each(|open| self.picture.slice(of_cpu(cpu), time, open));
            self.picture.name("thread_name", of_cpu(cpu), &format!("CPU {cpu}"));
        }
        let ids: Vec<u64> = self.tasks.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id, time));
        for (pid, name, place) in [(CPUS, "CPUs", -2), (KERNEL, "kernel tasks", -1)] {
            self.picture.name("process_name", Track { pid, tid: 0 }, name);
            let order = json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": place}});
            self.picture.events.push((0, order));
        }
        for (id, task) in &self.tasks {
            let track = task.track(*id);
            self.picture.name("thread_name", track, &task.name.title(*id));
            if track.pid == track.tid {
                self.picture.name("process_name", track, &task.name.title(*id));
            }
        }
    }
}

#[cfg(test)]
mod tests;
