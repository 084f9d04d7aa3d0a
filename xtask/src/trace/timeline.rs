//! A trace as text, for reading and quoting: a line for each thing that happened, a column for each CPU.
//!
//! ```text
//!        µs  CPU 0                                         CPU 1
//!     0.000  ┌ poll 3 cat
//!     4.100  │ read(0x3, 0x7f00)
//!     9.300  └ waits at drivers/virtio/src/request_queue.rs:300
//!   250.000                                                ┌ interrupt 0x31 (device)
//!   250.700                                                │ wakes virtio-blk
//! ```
//!
//! What is between `┌` and `└` happens within it; an empty column is a CPU that is between two polls, or asleep. Times count from the
//! first line.
//!
//! next: `tests/trace.rs` and `docs/async.md`, which use it.

use super::names::{Name, THREAD};
use super::records::{Event, Record, Trace};
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// Characters of a CPU's column.
const WIDTH: usize = 56;

/// Writes a trace as a timeline.
///
/// # Errors
/// It cannot be written.
pub fn write(trace: &Trace, mut to: impl Write) -> Result<()> {
    let cpus = trace.records.iter().map(|record| record.cpu + 1).max().unwrap_or(0);
    let first = trace.records.first().map_or(0, |record| record.time);
    let mut reader = Reader { names: BTreeMap::new(), depths: vec![0; cpus] };
    for (id, name) in &trace.names {
        reader.name(*id).introduce(name);
    }
    let heads: Vec<String> = (0..cpus).map(|cpu| format!("CPU {cpu}")).collect();
    writeln!(to, "{:>12}  {}", "µs", row(&heads))?;
    for (index, record) in trace.records.iter().enumerate() {
        let next = trace.records[index + 1..].iter().find(|next| next.cpu == record.cpu);
        if let Some(said) = reader.say(record, next.map(|next| &next.event)) {
            let micros = (record.time - first) as f64 / 1e3;
            writeln!(to, "{micros:>12.3}  {}", row(&reader.cells(record.cpu, &said)))?;
        }
    }
    to.flush()
}

/// Cells side by side.
fn row(cells: &[String]) -> String {
    let padded: Vec<String> = cells.iter().map(|cell| format!("{cell:<WIDTH$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

/// Something that happened, in words, and whether it begins or ends something on its CPU.
struct Said {
    text: String,
    mark: &'static str,
    depth: usize,
}

/// Follows a trace through time.
struct Reader {
    names: BTreeMap<u64, Name>,
    /// How many things each CPU is in the midst of.
    depths: Vec<usize>,
}

impl Reader {
    fn name(&mut self, id: u64) -> &mut Name {
        self.names.entry(id).or_default()
    }

    fn title(&self, id: u64) -> String {
        self.names.get(&id).map_or_else(|| format!("task {id}"), |name| name.title(id))
    }

    /// The row of something that happened on a CPU.
    fn cells(&self, cpu: usize, said: &Said) -> Vec<String> {
        let bars = |depth: usize| "│ ".repeat(depth);
        let cell = |(other, depth): (usize, &usize)| {
            if other == cpu { format!("{}{}{}", bars(said.depth), said.mark, said.text) } else { bars(*depth) }
        };
        self.depths.iter().enumerate().map(cell).collect()
    }

    /// What a record is in words; `None` if it is only about names. `next` is what happened next on the same CPU.
    fn say(&mut self, record: &Record, next: Option<&Event>) -> Option<Said> {
        let cpu = record.cpu;
        match &record.event {
            Event::Spawn { task, cpu: on, name, .. } => {
                if name != THREAD {
                    self.name(*task).introduce(name);
                }
                self.within(cpu, format!("makes {name}{}", elsewhere(cpu, *on)))
            }
            Event::Wake { task, cpu: on, .. } => {
                self.within(cpu, format!("wakes {}{}", self.title(*task), elsewhere(cpu, *on)))
            }
            Event::Notify { cpu: other, .. } if *other == cpu => self.within(cpu, "is woken while it runs".into()),
            Event::Notify { cpu: other, .. } => self.within(cpu, format!("wakes what runs on CPU {other}")),
            Event::Move { task } => self.within(cpu, format!("gives {} to another CPU", self.title(*task))),
            Event::Poll { task } => self.begin(cpu, format!("poll {}", self.title(*task))),
            Event::Pending { task, place } => match next {
                Some(Event::Requeue { task: again }) if again == task => self.end(cpu, "is queued again".into()),
                _ => self.end(cpu, format!("waits at {place}")),
            },
            Event::Ready { .. } => self.end(cpu, "ends".into()),
            Event::Requeue { .. } => None,
            Event::Timers => self.begin(cpu, "deadlines have come".into()),
            Event::Irq { vector, name } => self.begin(cpu, format!("interrupt {vector} ({name})")),
            Event::TimersDone | Event::IrqDone => self.end(cpu, String::new()),
            Event::Call { name, arguments, .. } => {
                self.within(cpu, format!("{name}({})", arguments.replace(' ', ", ")))
            }
            Event::Return { name, value, .. } => self.within(cpu, format!("{name} returns {value}")),
            Event::Thread { task, pid, tid } => {
                self.name(*task).numbers = Some((*pid, *tid));
                None
            }
            Event::Exec { task, name } => {
                let known = self.name(*task);
                let is_news = known.name != *name;
                known.name.clone_from(name);
                if is_news { self.within(cpu, format!("{} has this name now", self.title(*task))) } else { None }
            }
            Event::Exit { .. } => self.within(cpu, "exits".into()),
        }
    }

    fn within(&self, cpu: usize, text: String) -> Option<Said> {
        Some(Said { text, mark: "", depth: self.depths[cpu] })
    }

    fn begin(&mut self, cpu: usize, text: String) -> Option<Said> {
        self.depths[cpu] += 1;
        Some(Said { text, mark: "┌ ", depth: self.depths[cpu] - 1 })
    }

    /// What ends may have begun before the trace.
    fn end(&mut self, cpu: usize, text: String) -> Option<Said> {
        self.depths[cpu] = self.depths[cpu].saturating_sub(1);
        Some(Said { text, mark: "└ ", depth: self.depths[cpu] })
    }
}

/// Where a task is queued, if that is not here.
fn elsewhere(here: usize, there: usize) -> String {
    if here == there { String::new() } else { format!(", for CPU {there}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut bytes = Vec::new();
        write(&Trace::parse(text).expect("a trace"), &mut bytes).expect("memory takes all");
        String::from_utf8(bytes).expect("it is text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_thing_has_a_line_in_its_cpus_column_and_within_what_it_is_part_of() {
        let lines = shown(
            "# rouse-trace 1\n# task 4 virtio-blk\n# task 9 3/3 cat\n# cpu 0 records 5 lost 0\n\
             1000 0 poll 9\n1100 0 call 9 read 0x3 0x7f00\n2000 0 return 9 read 4096\n2500 0 pending 9 a.rs:7\n2501 0 requeue 9\n\
             # cpu 1 records 4 lost 0\n1200 1 irq 0x31 device\n1210 1 wake 4 irq:0x31 0\n1220 1 irq-done 0x31\n3000 1 pending 9 b.rs:5\n",
        );
        let beside = |left: &str, right: &str| format!("{left:<WIDTH$}  {right}");
        assert_eq!(
            lines,
            [
                format!("{:>12}  {}", "µs", beside("CPU 0", "CPU 1")),
                format!("{:>12}  ┌ poll 3 cat", "0.000"),
                format!("{:>12}  │ read(0x3, 0x7f00)", "0.100"),
                format!("{:>12}  {}", "0.200", beside("│", "┌ interrupt 0x31 (device)")),
                format!("{:>12}  {}", "0.210", beside("│", "│ wakes virtio-blk, for CPU 0")),
                format!("{:>12}  {}", "0.220", beside("│", "└")),
                format!("{:>12}  │ read returns 4096", "1.000"),
                format!("{:>12}  └ is queued again", "1.500"),
                format!("{:>12}  {}", "2.000", beside("", "└ waits at b.rs:5")),
            ]
        );
    }

    #[test]
    fn a_task_is_called_as_it_is_called_at_that_time() {
        let lines = shown(
            "# rouse-trace 1\n# cpu 0 records 9 lost 0\n1 0 thread 9 3/3\n1 0 exec 9 sh\n2 0 poll 9\n3 0 exec 9 cat\n3 0 exec 9 cat\n\
             4 0 exit 9 3/3\n5 0 ready 9\n6 0 poll 8\n",
        );
        let said: Vec<&str> = lines[1..].iter().filter_map(|line| line.get(14..)).collect();
        assert_eq!(
            said,
            [
                "3 sh has this name now",
                "┌ poll 3 sh",
                "│ 3 cat has this name now",
                "│ exits",
                "└ ends",
                "┌ poll task 8"
            ]
        );
    }
}
