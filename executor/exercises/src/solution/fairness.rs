//! Solution 5: the least virtual time goes next, and nobody is far behind the floor.
//!
//! Virtual time is time divided by weight. The floor is that of the task that went last: it never goes back. A task that comes back from
//! sleep is brought up to it, all but half a slice, so that it goes soon and has little to catch up with.

use crate::world::cpu::{Policy, SLICE, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The weight whose virtual time is time.
const ORDINARY: u64 = 1024;

/// Time in proportion to weight.
#[derive(Debug, Default)]
pub struct Fair {
    /// By virtual time, in nanoseconds.
    waiting: BTreeSet<(u64, TaskId)>,
    /// What each task has had.
    had: BTreeMap<TaskId, u64>,
    floor: u64,
}

impl Policy for Fair {
    fn enqueue(&mut self, task: TaskId, _weight: u64) {
        let credit = SLICE.as_nanos() as u64 / 2;
        let had = self.had.entry(task).or_default();
        *had = (*had).max(self.floor.saturating_sub(credit));
        self.waiting.insert((*had, task));
    }

    fn next(&mut self) -> Option<TaskId> {
        let (had, task) = self.waiting.pop_first()?;
        self.floor = self.floor.max(had);
        Some(task)
    }

    fn ran(&mut self, task: TaskId, weight: u64, time: Duration) {
        *self.had.entry(task).or_default() += time.as_nanos() as u64 * ORDINARY / weight.max(1);
    }
}
