//! What a trace's tasks are called.
//!
//! next: `picture.rs` and `timeline.rs`, which show them.

use super::records::pair;

/// What the kernel calls the task of every thread.
pub const THREAD: &str = "thread";

/// A task, as a person knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Its process and thread, if it is one.
    pub numbers: Option<(u64, u64)>,
    /// Its name: a program's, or a driver's.
    pub name: String,
}

impl Name {
    /// Takes note of a name as the kernel tells it: `PID/TID NAME` for a thread.
    pub fn introduce(&mut self, told: &str) {
        let (first, rest) = told.split_once(' ').unwrap_or((told, ""));
        match pair(first) {
            Some(numbers) => (self.numbers, self.name) = (Some(numbers), rest.into()),
            None => self.name = told.into(),
        }
    }

    /// The name with its numbers; `id` is the task's.
    pub fn title(&self, id: u64) -> String {
        match self.numbers {
            Some((pid, tid)) if pid == tid => format!("{pid} {}", self.name),
            Some((pid, tid)) => format!("{pid}/{tid} {}", self.name),
            None if self.name.is_empty() => format!("task {id}"),
            None => self.name.clone(),
        }
    }
}
