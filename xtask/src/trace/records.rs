//! What the kernel's trace tells: the text of /proc/rouse/trace, read.
//!
//! The kernel's `src/trace/text.rs` has the table of its lines. Each CPU's records come in the order in which it wrote them; here they
//! are put in the order of their times.
//!
//! next: `names.rs`.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// A trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What the tasks that lived at the end were called then.
    pub names: BTreeMap<u64, String>,
    /// What happened, in the order of time.
    pub records: Vec<Record>,
    /// How many records were overwritten.
    pub lost: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since boot.
    pub time: u64,
    /// The CPU that it happened on.
    pub cpu: usize,
    /// What.
    pub event: Event,
}

/// What happened. Tasks go by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what their names say")]
pub enum Event {
    /// A task was made by somebody, and queued on a CPU.
    Spawn { task: u64, by: String, cpu: usize, name: String },
    /// A task that waited was woken by somebody, and queued on a CPU.
    Wake { task: u64, by: String, cpu: usize },
    /// What runs on a CPU was woken.
    Notify { by: String, cpu: usize },
    /// A task was queued elsewhere.
    Move { task: u64 },
    /// A poll begins.
    Poll { task: u64 },
    /// It ended in a wait.
    Pending { task: u64, place: String },
    /// It ended, and the task with it.
    Ready { task: u64 },
    /// The task was woken meanwhile.
    Requeue { task: u64 },
    /// Deadlines have come.
    Timers,
    /// Those who waited for them are woken.
    TimersDone,
    /// An interrupt.
    Irq { vector: String, name: String },
    /// It was served.
    IrqDone,
    /// A system call.
    Call { task: u64, name: String, arguments: String },
    /// Its answer.
    Return { task: u64, name: String, value: i64 },
    /// A thread was made.
    Thread { task: u64, pid: u64, tid: u64 },
    /// A thread has this name now.
    Exec { task: u64, name: String },
    /// A thread ends.
    Exit { task: u64 },
}

impl Trace {
    /// Reads the kernel's text.
    ///
    /// # Errors
    /// It is not such a text; the line is told.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        if lines.next() != Some("# rouse-trace 1") {
            bail!("the guest's trace is of another kind");
        }
        let mut trace = Self::default();
        for line in lines {
            trace.add(line).with_context(|| format!("the trace's line {line:?}"))?;
        }
        // Stable: what happened at the same time stays in the order in which its CPU wrote it.
        trace.records.sort_by_key(|record| record.time);
        Ok(trace)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        if let Some(header) = line.strip_prefix("# ") {
            match header.split(' ').collect::<Vec<_>>()[..] {
                ["task", id, ..] => {
                    let name = header.splitn(3, ' ').nth(2).unwrap_or_default();
                    self.names.insert(id.parse()?, name.to_owned());
                }
                ["cpu", _, "records", _, "lost", count] => self.lost += count.parse::<u64>()?,
                _ => bail!("an unknown heading"),
            }
            return Ok(());
        }
        let (time, rest) = line.split_once(' ').context("no time")?;
        let (cpu, rest) = rest.split_once(' ').context("no CPU")?;
        self.records.push(Record { time: time.parse()?, cpu: cpu.parse()?, event: Event::parse(rest)? });
        Ok(())
    }
}

impl Event {
    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        // What comes last may contain blanks.
        let from = |index: usize| words[index..].join(" ");
        Ok(match words[..] {
            ["spawn", task, by, cpu, _, ..] => {
                Event::Spawn { task: task.parse()?, by: by.into(), cpu: cpu.parse()?, name: from(4) }
            }
            ["wake", task, by, cpu] => Event::Wake { task: task.parse()?, by: by.into(), cpu: cpu.parse()? },
            ["notify", by, cpu] => Event::Notify { by: by.into(), cpu: cpu.parse()? },
            ["move", task, _] => Event::Move { task: task.parse()? },
            ["poll", task] => Event::Poll { task: task.parse()? },
            ["pending", task, place] => Event::Pending { task: task.parse()?, place: place.into() },
            ["ready", task] => Event::Ready { task: task.parse()? },
            ["requeue", task] => Event::Requeue { task: task.parse()? },
            ["timers"] => Event::Timers,
            ["timers-done"] => Event::TimersDone,
            ["irq", vector, name] => Event::Irq { vector: vector.into(), name: name.into() },
            ["irq-done", _] => Event::IrqDone,
            ["call", task, name, ..] => Event::Call { task: task.parse()?, name: name.into(), arguments: from(3) },
            ["return", task, name, value] => {
                Event::Return { task: task.parse()?, name: name.into(), value: value.parse()? }
            }
            ["thread", task, numbers] => {
                let (pid, tid) = pair(numbers).context("no numbers")?;
                Event::Thread { task: task.parse()?, pid, tid }
            }
            ["exec", task, ..] => Event::Exec { task: task.parse()?, name: from(2) },
            ["exit", task, _] => Event::Exit { task: task.parse()? },
            _ => bail!("an unknown event"),
        })
    }
}

/// `PID/TID` as two numbers.
pub fn pair(text: &str) -> Option<(u64, u64)> {
    let (pid, tid) = text.split_once('/')?;
    Some((pid.parse().ok()?, tid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_several_cpus_are_put_in_the_order_of_time() {
        let text = "# rouse-trace 1\n# task 4 virtio-blk\n# task 9 3/3 my prog\n# cpu 0 records 2 lost 7\n10 0 poll 4\n30 0 pending 4 a.rs:5\n\
                    # cpu 1 records 1 lost 1\n20 1 exec 9 two words\n";
        let trace = Trace::parse(text).expect("a trace");
        let times: Vec<_> = trace.records.iter().map(|record| (record.time, record.cpu)).collect();
        assert_eq!(times, [(10, 0), (20, 1), (30, 0)]);
        assert_eq!(trace.records[1].event, Event::Exec { task: 9, name: "two words".into() });
        assert_eq!((trace.lost, trace.names[&9].as_str()), (8, "3/3 my prog"));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert!(Trace::parse("").is_err());
        let error = Trace::parse("# rouse-trace 1\n10 0 jump 4\n").expect_err("an unknown event");
        assert!(format!("{error:#}").contains("10 0 jump 4"), "{error:#}");
    }
}
