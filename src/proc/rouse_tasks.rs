//! /proc/rouse/tasks: every task of the executor, a line each, oldest first. The columns, divided by blanks:
//!
//! | column | meaning |
//! |---|---|
//! | `id` | the task's number, never used twice |
//! | `class` | `driver`; `real:` and its priority; `user:` or `batch:` and its weight (nice 0 is 1024) |
//! | `state` | `waits`, `queued`, `running`, `done` |
//! | `cpu` | the CPU that polls it, or polled it last |
//! | `since` | milliseconds since its last poll ended: for how long it waits |
//! | `polls`, `time`, `worst` | how often it was polled; nanoseconds in all, user mode included; and the longest poll's, user mode aside |
//! | `wakes`, `by` | how often a wake queued it; who did last: `task:ID`, `irq:VECTOR`, `timer`, or `-` |
//! | `call` | the system call that it is in, if that may wait |
//! | `waits-at` | the line of the kernel's source that began its last wait |
//! | `what` | to the end of the line: a kernel task's name, or `PID/TID COMM` of a thread |
//!
//! Next: `../trace.rs`, which tells what happens one after the other.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use executor::{Cause, Class, TaskRef};

use super::text::Text;
use crate::process::{Thread, table as processes};
use crate::syscall::table::name as call_name;
use crate::tasks;

/// The whole text.
pub fn table() -> Vec<u8> {
    let now = tasks::executor().now();
    let mut text = Text::new();
    text.add(format_args!(
        "{:>6} {:<11} {:<7} {:>3} {:>9} {:>9} {:>12} {:>10} {:>9} {:<10} {:<16} {:<36} what\n",
        "id", "class", "state", "cpu", "since", "polls", "time", "worst", "wakes", "by", "call", "waits-at"
    ));
    for (task, thread) in everybody() {
        let state = match (task.is_done(), task.is_running(), task.is_notified()) {
            (true, _, _) => "done",
            (_, true, _) => "running",
            (_, _, true) => "queued",
            _ => "waits",
        };
        text.add(format_args!("{:>6} ", task.id()));
        match task.class() {
            Class::Driver => text.add(format_args!("{:<11}", "driver")),
            Class::RealTime { priority, .. } => text.add(format_args!("real:{priority:<6}")),
            Class::User { weight } => text.add(format_args!("user:{weight:<6}")),
            Class::Batch { weight } => text.add(format_args!("batch:{weight:<5}")),
        };
        let since = now.saturating_duration_since(task.idle_since()).as_millis();
        text.add(format_args!(" {state:<7} {:>3} {since:>9} {:>9}", task.cpu(), task.polls()));
        text.add(format_args!(
            " {:>12} {:>10}",
            tasks::executor().run_time(&task).as_nanos(),
            task.worst_poll().as_nanos()
        ));
        let len = text.len();
        text.add(format_args!(" {:>9} {}", task.wakes(), By(task.woken_by()))).pad(len + 21);
        let call = thread.as_ref().and_then(|thread| thread.call_in_progress());
        text.add(format_args!(" {:<16} ", call.map_or("-", call_name)));
        let len = text.len();
        match task.waits_at() {
            Some(place) => text.add(format_args!("{}:{}", place.file(), place.line())),
            None => text.add(format_args!("-")),
        };
        text.pad(len + 36).add(format_args!(" "));
        add_name(&mut text, &task, thread.as_deref());
        text.add(format_args!("\n"));
    }
    text.into_bytes()
}

/// What a task is: its name, or its thread's numbers and name.
pub fn add_name(text: &mut Text, task: &TaskRef, thread: Option<&Thread>) {
    match thread {
        Some(thread) => {
            text.add(format_args!("{}/{} ", thread.process.pid, thread.tid())).escaped(&thread.comm(), b"\n")
        }
        None => text.add(format_args!("{}", task.name())),
    };
}

/// Who has woken a task, as it is shown.
pub struct By(pub Cause);

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Unknown => f.write_str("-"),
            Cause::Task(id) => write!(f, "task:{id}"),
            Cause::Interrupt(vector) => write!(f, "irq:{vector:#x}"),
            Cause::Timer => f.write_str("timer"),
        }
    }
}

/// All tasks, oldest first, with those threads that they are. As many as there is memory for.
pub fn everybody() -> Vec<(TaskRef, Option<Arc<Thread>>)> {
    let mut threads: Vec<(u64, Arc<Thread>)> = Vec::new();
    processes::for_each_thread(|thread| {
        if let Some(task) = thread.task()
            && threads.try_reserve(1).is_ok()
        {
            threads.push((task.id(), thread.clone()));
        }
    });
    threads.sort_unstable_by_key(|(id, _)| *id);
    let mut all: Vec<(TaskRef, Option<Arc<Thread>>)> = Vec::new();
    tasks::executor().for_each_task(|task| {
        let place = threads.binary_search_by_key(&task.id(), |(id, _)| *id);
        let thread = place.ok().and_then(|place| threads.get(place)).map(|(_, thread)| thread.clone());
        if all.try_reserve(1).is_ok() {
            all.push((task.clone(), thread));
        }
    });
    all
}
