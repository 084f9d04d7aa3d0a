//! Records as text, a line each: `TIME CPU KIND …`, the time in nanoseconds since boot.
//!
//! | line | meaning |
//! |---|---|
//! | `spawn TASK BY CPU NAME` | a task was made by BY (`task:ID`, `irq:VECTOR`, `timer`, `-`) and queued on CPU |
//! | `wake TASK BY CPU` | a task that waited was woken and queued; its next poll is due to this |
//! | `notify BY CPU` | what runs on CPU was woken by BY |
//! | `move TASK CPU` | it may not run where it was |
//! | `poll TASK` … `pending TASK PLACE` or `ready TASK` | a poll, and how it ended; `requeue TASK` behind it: it was woken meanwhile |
//! | `timers` … `timers-done` | those whose deadline has come are woken |
//! | `irq VECTOR NAME` … `irq-done VECTOR` | an interrupt |
//! | `call TASK NAME ARGUMENTS` … `return TASK NAME VALUE` | a system call |
//! | `thread TASK PID/TID`, `exec TASK NAME`, `exit TASK PID/TID` | threads and programs |
//!
//! Next: `../proc/rouse.rs`, which shows it.

use super::names::{NAMES, PLACES};
use super::{Event, Record};
use crate::arch::irq;
use crate::proc::rouse_tasks::By;
use crate::proc::text::Text;
use crate::syscall::table::name;

/// Adds a record of this CPU.
pub fn add(text: &mut Text, on: usize, record: &Record) {
    text.add(format_args!("{} {on} ", record.time));
    match record.event {
        Event::Spawned { task, by, cpu, name } => {
            text.add(format_args!("spawn {task} {} {cpu} {}", By(by), NAMES.get(name).unwrap_or("?")))
        }
        Event::Woken { task, by, cpu } => text.add(format_args!("wake {task} {} {cpu}", By(by))),
        Event::Notified { by, cpu } => text.add(format_args!("notify {} {cpu}", By(by))),
        Event::Moved { task, cpu } => text.add(format_args!("move {task} {cpu}")),
        Event::PollBegins { task } => text.add(format_args!("poll {task}")),
        Event::Pending { task, place } => match PLACES.get(place) {
            Some(place) => text.add(format_args!("pending {task} {}:{}", place.file(), place.line())),
            None => text.add(format_args!("pending {task} -")),
        },
        Event::Ready { task } => text.add(format_args!("ready {task}")),
        Event::Requeued { task } => text.add(format_args!("requeue {task}")),
        Event::TimersFire => text.add(format_args!("timers")),
        Event::TimersFired => text.add(format_args!("timers-done")),
        Event::InterruptBegins { vector } => text.add(format_args!("irq {vector:#x} {}", irq::name(vector))),
        Event::InterruptEnds { vector } => text.add(format_args!("irq-done {vector:#x}")),
        Event::CallBegins { task, number, arguments: [first, second] } => {
            text.add(format_args!("call {task} {} {first:#x} {second:#x}", Call(number)))
        }
        Event::CallEnds { task, number, value } => text.add(format_args!("return {task} {} {value}", Call(number))),
        Event::Thread { task, pid, tid } => text.add(format_args!("thread {task} {pid}/{tid}")),
        Event::Executes { task, name } => {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            text.add(format_args!("exec {task} ")).escaped(name, b"\n")
        }
        Event::Exits { task, pid, tid } => text.add(format_args!("exit {task} {pid}/{tid}")),
    };
    text.add(format_args!("\n"));
}

/// A system call by its name in small letters, or its number if it has none.
struct Call(usize);

impl core::fmt::Display for Call {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match name(self.0) {
            "?" => write!(f, "{}", self.0),
            name => name.chars().try_for_each(|letter| write!(f, "{}", letter.to_ascii_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor::Cause;

    fn shown(event: Event) -> String {
        let mut text = Text::new();
        add(&mut text, 2, &Record { time: 1_000_000_007, event });
        String::from_utf8(text.into_bytes()).expect("plain ASCII")
    }

    #[test]
    fn each_record_is_a_line_of_words() {
        let place = PLACES.number_of(core::panic::Location::caller());
        let line = line!() - 1;
        assert_eq!(
            shown(Event::Pending { task: 9, place }),
            format!("1000000007 2 pending 9 src/trace/text.rs:{line}\n")
        );
        assert_eq!(shown(Event::Pending { task: 9, place: u32::MAX }), "1000000007 2 pending 9 -\n");
        assert_eq!(
            shown(Event::Woken { task: 9, by: Cause::Interrupt(0x31), cpu: 1 }),
            "1000000007 2 wake 9 irq:0x31 1\n"
        );
        let name = NAMES.number_of("virtio-blk");
        let spawned = Event::Spawned { task: 9, by: Cause::Task(3), cpu: 0, name };
        assert_eq!(shown(spawned), "1000000007 2 spawn 9 task:3 0 virtio-blk\n");
        let call = Event::CallBegins { task: 9, number: 257, arguments: [usize::MAX, 16] };
        assert_eq!(shown(call), "1000000007 2 call 9 openat 0xffffffffffffffff 0x10\n");
        assert_eq!(shown(Event::CallEnds { task: 9, number: 9999, value: -38 }), "1000000007 2 return 9 9999 -38\n");
        assert_eq!(
            shown(Event::Executes { task: 9, name: *b"a\nb\0\0\0\0\0\0\0\0\0\0\0\0\0" }),
            "1000000007 2 exec 9 a\\012b\n"
        );
    }
}
