//! What is measured: the same futures for each executor. They wait for [`Signal`]s, which are nobody's own.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use rustix::time::{ClockId, clock_gettime};

use crate::peers::{AsyncExecutor, Embassy, Peer, Rouse, Tokio};

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    /// How many of it are done in the time that is measured.
    pub count: usize,
    pub rouse: fn() -> Option<Duration>,
    pub tokio: fn() -> Option<Duration>,
    pub async_executor: fn() -> Option<Duration>,
    pub embassy: fn() -> Option<Duration>,
}

/// A row that runs `$measure::<Peer>()` for each.
macro_rules! row {
    ($name:literal, $count:expr, $measure:ident) => {
        Row {
            name: $name,
            count: $count,
            rouse: $measure::<Rouse>,
            tokio: $measure::<Tokio>,
            async_executor: $measure::<AsyncExecutor>,
            embassy: $measure::<Embassy>,
        }
    };
}

const TASKS: usize = 100_000;
const WAKES: usize = 500_000;
const YIELDS: usize = 1_000_000;
const CROSSINGS: usize = 20_000;
const TIMERS: usize = 1_000_000;

pub const ROWS: [Row; 7] = [
    row!("spawn, run, end", TASKS, spawn),
    row!("wake to poll, two tasks", 2 * WAKES, wake),
    row!("yield, alone", YIELDS, yield_alone),
    row!("yield, among 100", YIELDS, yield_among_many),
    row!("wake from another thread", CROSSINGS, cross),
    row!("1 M timers, set and taken back", TIMERS, timers_taken_back),
    // async-executor's timers ring in a thread of their companion's, whose time this would not count.
    Row { async_executor: || None, ..row!("1 M timers, set and rung", TIMERS, timers_rung) },
];

/// A notification for one task, as small as it can be.
#[derive(Default)]
pub struct Signal {
    is_set: AtomicBool,
    waiter: AtomicWaker,
}

impl Signal {
    pub fn notify(&self) {
        self.is_set.store(true, Ordering::Release);
        self.waiter.wake();
    }

    pub async fn wait(&self) {
        poll_fn(|context| {
            self.waiter.register(context.waker());
            if self.is_set.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The processor time that the calling thread takes for `work`.
fn processor_time(work: impl FnOnce()) -> Option<Duration> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    Some(now() - start)
}

fn spawn<P: Peer>() -> Option<Duration> {
    processor_time(|| P::run(TASKS, |_| async {}))
}

fn wake<P: Peer>() -> Option<Duration> {
    let pair = Arc::new([Signal::default(), Signal::default()]);
    processor_time(|| {
        P::run(2, move |side| {
            let pair = Arc::clone(&pair);
            async move {
                for _ in 0..WAKES {
                    if side == 0 {
                        pair[1].notify();
                        pair[0].wait().await;
                    } else {
                        pair[1].wait().await;
                        pair[0].notify();
                    }
                }
            }
        });
    })
}

fn yields<P: Peer>(tasks: usize) -> Option<Duration> {
    processor_time(|| {
        P::run(tasks, move |_| async move {
            for _ in 0..YIELDS / tasks {
                futures_lite::future::yield_now().await;
            }
        });
    })
}

fn yield_alone<P: Peer>() -> Option<Duration> {
    yields::<P>(1)
}

fn yield_among_many<P: Peer>() -> Option<Duration> {
    yields::<P>(100)
}

/// There and back: the other thread spins for the answer, the executor's thread sleeps in between.
fn cross<P: Peer>() -> Option<Duration> {
    let (call, answers) = (Arc::new(Signal::default()), Arc::new(AtomicUsize::new(0)));
    let (called, answered) = (Arc::clone(&call), Arc::clone(&answers));
    let start = Instant::now();
    let caller = thread::spawn(move || {
        for round in 1..=CROSSINGS {
            call.notify();
            while answers.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
        }
    });
    P::run(1, move |_| {
        let (called, answered) = (Arc::clone(&called), Arc::clone(&answered));
        async move {
            for _ in 0..CROSSINGS {
                called.wait().await;
                answered.fetch_add(1, Ordering::Release);
            }
        }
    });
    caller.join().expect("the caller only calls");
    Some(start.elapsed())
}

/// A timer of whichever executor.
type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Delays in no order, between `from` and `from + span` (a Weyl sequence by the golden ratio).
fn delay(index: usize, from: Duration, span: Duration) -> Duration {
    let fraction = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    from + span.mul_f64(fraction as f64 / (1 << 24) as f64)
}

/// Sets a million timers, each polled once, and hands them to `then`. None if the peer has no timers.
fn timers<P: Peer, F: Future<Output = ()> + Send + 'static>(
    from: Duration,
    span: Duration,
    then: fn(Vec<Timer>) -> F,
) -> Option<Duration> {
    // Those without timers say so here, outside of any runtime; those with may need theirs around them.
    if P::NAME == Embassy::NAME {
        return None;
    }
    processor_time(|| {
        P::run(1, move |_| async move {
            let mut all: Vec<Timer> = Vec::with_capacity(TIMERS);
            for index in 0..TIMERS {
                let Some(sleep) = P::sleep(delay(index, from, span)) else { return };
                let mut sleep: Timer = Box::pin(sleep);
                let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                all.push(sleep);
            }
            then(all).await;
        });
    })
}

fn timers_taken_back<P: Peer>() -> Option<Duration> {
    let hour = Duration::from_secs(3_600);
    timers::<P, _>(hour, hour, |all| async move { drop(all) })
}

fn timers_rung<P: Peer>() -> Option<Duration> {
    // All are set before the first rings; then the task waits for the last one.
    timers::<P, _>(Duration::from_secs(3), Duration::from_secs(1), |mut all| async move {
        for sleep in &mut all {
            sleep.await;
        }
    })
}
