//! A CPU that several tasks share, as a scheduler sees it: simulated, on a clock of its own.
//!
//! Each task computes for a while and sleeps for a while, for ever. The policy is asked who goes next, and told who ran for how long. A
//! task runs until it sleeps or its slice is over; nobody is interrupted by a wake.

use std::collections::BTreeMap;
use std::time::Duration;

/// The longest that a task runs before the policy is asked again.
pub const SLICE: Duration = Duration::from_millis(3);

/// Which task.
pub type TaskId = usize;

/// Who goes next.
pub trait Policy {
    /// A task can go on: it was just made, or has slept, or has used its slice up. Its weight is its share, relative to the others'.
    fn enqueue(&mut self, task: TaskId, weight: u64);
    /// Takes the task out that goes next.
    fn next(&mut self) -> Option<TaskId>;
    /// This task has run for so long. It is told before the task is queued again.
    fn ran(&mut self, task: TaskId, weight: u64, time: Duration);
}

/// What a task does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Its share, relative to the others'.
    pub weight: u64,
    /// For how long it computes,
    pub runs: Duration,
    /// before it sleeps for so long; zero: it never sleeps.
    pub sleeps: Duration,
    /// When it is made.
    pub begins: Duration,
}

impl Load {
    /// A task that computes without end.
    pub fn busy(weight: u64) -> Load {
        Load { weight, runs: Duration::MAX, sleeps: Duration::ZERO, begins: Duration::ZERO }
    }
}

/// How a task fared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// For how long it ran.
    pub ran: Duration,
    /// The longest that it waited for the CPU when it was made or had slept.
    pub worst_latency: Duration,
}

/// Lets tasks share a CPU for a time, from 0 on.
pub fn share(policy: &mut dyn Policy, loads: &[Load], end: Duration) -> Vec<Fate> {
    let mut fates = vec![Fate::default(); loads.len()];
    let mut left: Vec<Duration> = loads.iter().map(|load| load.runs).collect();
    // Since when a task that has slept waits for its first turn.
    let mut woken: Vec<Option<Duration>> = vec![None; loads.len()];
    // By time, then by number.
    let mut asleep: BTreeMap<(Duration, TaskId), ()> =
        loads.iter().enumerate().map(|(task, load)| ((load.begins, task), ())).collect();
    let mut now = Duration::ZERO;
    while now < end {
        while let Some(((at, task), ())) =
            asleep.first_key_value().map(|(key, ())| (*key, ())).filter(|((at, _), ())| *at <= now)
        {
            asleep.remove(&(at, task));
            woken[task] = Some(at);
            policy.enqueue(task, loads[task].weight);
        }
        let Some(task) = policy.next() else {
            now = asleep.first_key_value().map_or(end, |((at, _), ())| *at);
            continue;
        };
        if let Some(since) = woken[task].take() {
            fates[task].worst_latency = fates[task].worst_latency.max(now - since);
        }
        let time = SLICE.min(left[task]);
        now += time;
        fates[task].ran += time;
        policy.ran(task, loads[task].weight, time);
        if left[task] != Duration::MAX {
            left[task] -= time;
        }
        if left[task].is_zero() {
            left[task] = loads[task].runs;
            asleep.insert((now + loads[task].sleeps, task), ());
        } else {
            policy.enqueue(task, loads[task].weight);
        }
    }
    fates
}
