//! Exercise 5: who goes next?
//!
//! A policy for one CPU (`world/cpu.rs`) with which
//!
//! - tasks that are always busy have time in proportion to their weights;
//! - a task that mostly sleeps goes within a slice or two of its wake, however many are busy;
//! - a task that has slept for long does not make up for it afterwards: nobody waits for it to catch up.
//!
//! The starting point has tasks take turns. That keeps the third promise, and neither of the others. With the least virtual time first
//! (time divided by weight) it is easy to keep the first two and to break the third: what must happen when a task comes back?
//!
//! Compare: `pop_user` and `catch_up` in `executor/src/run_queue.rs`. Test: `tests/fairness.rs`.

use crate::world::cpu::{Policy, TaskId};
use std::collections::VecDeque;
use std::time::Duration;

/// Your policy.
#[derive(Debug, Default)]
pub struct Fair {
    waiting: VecDeque<TaskId>,
}

impl Policy for Fair {
    fn enqueue(&mut self, task: TaskId, _weight: u64) {
        self.waiting.push_back(task);
    }

    fn next(&mut self) -> Option<TaskId> {
        self.waiting.pop_front()
    }

    fn ran(&mut self, _task: TaskId, _weight: u64, _time: Duration) {}
}
