//! The real executor on two to eight simulated CPUs, under schedules drawn from seeds: interrupts, kicks and alarms that arrive late,
//! CPUs that stand still at the worst moment, stores that wait in a store buffer, timers, thefts, changes of affinity, user mode.
//!
//! What each seed must keep: every woken task is polled (else its play does not end, and the machine stands still for ever), no task is
//! polled on two CPUs at once or stands in two queues, no CPU sleeps while it has something to do, no timer is early or late without bound,
//! and in the end nothing is left.
//!
//! ```sh
//! cargo test -p executor --test simulation                                    # a thousand seeds
//! ROUSE_SEEDS=10000 cargo test -p executor --test simulation                  # as many as CI plays
//! ROUSE_SEED=4711 cargo test -p executor --test simulation -- --nocapture     # one seed, again
//! ```
//!
//! What it has found when the executor was broken on purpose, each within the first fifty seeds: no fence in `Status::publish`; no second
//! look in `sleep`; no kick of a CPU that sleeps; no kick of a thread in user mode that is woken; the `next` task lost at a theft;
//! NOTIFIED not set by a wake of a running task; `collect_all` that does not announce what it moves. A cancelled waiter that keeps the wake
//! that it was chosen for takes some thousand seeds. What it cannot find is a fence beside which x86 has a locked instruction anyway, as in
//! `Status::observe`: that is for loom (tests/loom_*.rs).
//!
//! next: machine.rs.
#![cfg(all(debug_assertions, not(loom), not(miri)))]

mod machine;
mod work;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use machine::Faults;

/// Plays one seed, on two to eight CPUs. How many steps it took.
fn play(seed: u64, faults: Faults) -> u64 {
    let cpus = 2 + (seed % 7) as usize;
    let mut alive = None;
    let world = machine::run(cpus, seed, faults, |executor| alive = Some(work::play_some(executor)));
    assert_eq!(alive.expect("it was played").load(SeqCst), 0, "a future was not dropped");
    world.steps()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Plays seeds from 1 on, on all CPUs of the host, until one fails: that one, and with what.
fn first_failure(count: u64, faults: Faults) -> Option<(u64, Box<dyn std::any::Any + Send>)> {
    let next = AtomicU64::new(1);
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed > count {
                        break;
                    }
                    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| play(seed, faults))) {
                        failure.lock().unwrap().get_or_insert((seed, cause));
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap()
}

#[test]
fn no_seed_loses_a_wake_polls_a_task_twice_or_leaves_anything_behind() {
    if let Some(seed) = number("ROUSE_SEED") {
        println!("seed {seed}: {} steps", play(seed, Faults::default()));
        return;
    }
    if let Some((seed, cause)) = first_failure(number("ROUSE_SEEDS").unwrap_or(1_000), Faults::default()) {
        println!("seed {seed} failed: play it again with ROUSE_SEED={seed}");
        resume_unwind(cause);
    }
}

#[test]
fn a_seed_is_played_the_same_way_each_time() {
    for seed in 1..20 {
        assert_eq!(play(seed, Faults::default()), play(seed, Faults::default()));
    }
}

#[test]
fn a_machine_that_loses_kicks_or_alarms_is_found_out() {
    for faults in
        [Faults { lost_kick: Some(5), ..Faults::default() }, Faults { lost_alarm: Some(3), ..Faults::default() }]
    {
        let (_, cause) = first_failure(1_000, faults).expect("a seed that notices");
        let words = cause.downcast_ref::<String>().map_or("", String::as_str);
        assert!(words.contains("sleep") || words.contains("late"), "{words}");
    }
}
