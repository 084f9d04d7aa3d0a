//! Rouse's executor beside three others on the developer's machine, without a kernel: what a spawn, a wake, a yield, a wake from another
//! thread and a million timers cost.
//!
//! ```sh
//! cargo run --release -p executor-benchmarks                  # all rows
//! cargo run --release -p executor-benchmarks -- wake spawn    # those with these words in their names
//! ```
//!
//! Each row runs the same futures on all of them (rows.rs), three times in turn; the least time counts, since whatever else the machine does
//! only adds to it. Times are of the thread's own use of a processor, but for the wake from another thread, where waiting is
//! the matter.
//!
//! The clock that Rouse is handed is the processor's counter and a multiplication, as in the kernel. It is read once in each poll, since
//! each task's time is accounted and shared by weight, and counted polls, wakes and the longest poll are shown in /proc/rouse/tasks; the
//! others do none of this. With all of it a yield alone takes 415 instructions of Rouse's and of the futures themselves, among 100 551, a
//! wake to a poll 602, a spawn to its end 1,181 (valgrind --tool=callgrind).
//!
//! Where Rouse is behind, and why:
//!
//! - *Spawn*: each task is entered in a list of all, by number, with its name and what is known about it: 208 bytes that are filled, and
//!   miss the cache when 100,000 of them wait. async-executor keeps less. Embassy's tasks are static memory that is never given back.
//! - *Wake to poll*: level with tokio, whose tasks on one thread need no lock and no clock.
//! - *Yield among 100*: tokio's queue is a plain line, Rouse's goes by the time that each task has had (a calendar, list/calendar.rs), under
//!   a lock that other CPUs try to steal by. Embassy's queue is a stack without fairness, emptied at once.
//! - *1 M timers, rung*: the misses of the cache are what counts, for both. Tokio's wheel is exact to a millisecond and moves a timer
//!   down fewer levels; Rouse's (list/wheel.rs) is exact to the nanosecond, and in order.
//! - *Wake from another thread*: a futex of the host's on either side, the same for all.
//!
//! next: peers.rs.

mod peers;
mod rows;

use std::time::Duration;

use peers::{AsyncExecutor, Embassy, Peer, Rouse, Tokio};
use rows::{ROWS, Row};

/// How often each is measured.
const ROUNDS: usize = 3;

/// The best of what was measured, for each peer that can do it, in the order of [`NAMES`].
type Best = [Option<Duration>; NAMES.len()];

const NAMES: [&str; 4] = [Rouse::NAME, Tokio::NAME, AsyncExecutor::NAME, Embassy::NAME];

fn main() {
    println!("nanoseconds for each, and how many times Rouse's that is\n");
    print!("{:32}", "");
    NAMES.iter().for_each(|name| print!("{name:>24}"));
    println!();
    // Words of the rows' names choose among them.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |row: &Row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str()));
    for row in ROWS.into_iter().filter(is_wanted) {
        let best = measure(&row);
        print!("{:32}", row.name);
        let own = best[0].map(|own| own.as_secs_f64());
        for time in best {
            let cell = match time {
                None => "–".to_owned(),
                Some(time) => {
                    let each = time.as_secs_f64() * 1e9 / row.count as f64;
                    format!("{each:.1} ({:.2}×)", time.as_secs_f64() / own.unwrap_or(f64::NAN))
                }
            };
            print!("{cell:>24}");
        }
        println!();
    }
}

fn measure(row: &Row) -> Best {
    let mut best: Best = [None; NAMES.len()];
    for _ in 0..ROUNDS {
        let times = [(row.rouse)(), (row.tokio)(), (row.async_executor)(), (row.embassy)()];
        for (best, time) in best.iter_mut().zip(times) {
            *best = [*best, time].into_iter().flatten().min();
        }
    }
    best
}
