//! The load averages: how many tasks wanted a CPU, over one, five and fifteen minutes (/proc/loadavg, sysinfo(2)).

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// Binary places of an average.
pub const PLACES: u32 = 11;
/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// How much of the old average stays at each sample: 2048 / e^(5 s / 1, 5, 15 min).
const KEEP: [u64; 3] = [1884, 2014, 2037];

static AVERAGES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The three averages, in units of 1/2048.
pub fn averages() -> [u64; 3] {
    [0, 1, 2].map(|index: usize| AVERAGES[index].load(Ordering::Relaxed))
}

/// Takes the samples: a task of its own.
pub async fn run() {
    loop {
        crate::tasks::timers().sleep(INTERVAL).await;
        let waiting = |cpu| crate::tasks::executor().statistics(cpu).waiting as u64;
        let active = (0..crate::tasks::cpu_count()).map(waiting).sum::<u64>();
        for (average, keep) in AVERAGES.iter().zip(KEEP) {
            let old = average.load(Ordering::Relaxed);
            average.store((old * keep + (active << PLACES) * (2048 - keep)) >> PLACES, Ordering::Relaxed);
        }
    }
}
