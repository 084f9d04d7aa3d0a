//! For tests, of this crate and of others: a machine whose clock is turned by hand, seeded schedules, and dropping futures
//! half-way. Not compiled into the kernel.
//!
//! ```
//! use executor::{Class, testing::Bench};
//! use std::time::Duration;
//!
//! let bench = Bench::new();
//! let timers = bench.executor().timers();
//! let nap = bench.executor().spawn_with_result(Class::NORMAL, "nap", async move {
//!     timers.sleep(Duration::from_secs(1)).await;
//!     "rested"
//! });
//! bench.advance(Duration::from_millis(999));
//! assert_eq!(nap.try_take(), None);
//! bench.advance(Duration::from_millis(1));
//! assert_eq!(nap.try_take(), Some("rested"));
//! ```

use alloc::{boxed::Box, sync::Arc, task::Wake, vec::Vec};
use core::{
    future::Future,
    num::NonZeroU64,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{cell::Cell, panic, println, sync::Mutex, thread_local};

/// Many CPUs on one thread, one step at a time: see tests/simulation.
#[cfg(all(debug_assertions, not(any(loom, miri))))]
#[doc(hidden)]
pub mod simulation {
    pub use crate::{
        atomic::memory::{Step, buffered, drain, drain_one, play, simulate, step},
        sync::lock_order::record::exchange as exchange_held_locks,
    };
}

use crate::{Class, Executor, Instant, JoinHandle, LongPoll, Machine, TaskRef, TraceEvent};
#[doc(hidden)]
pub use crate::{
    cpu::{Mode, Status},
    state::{State, Suspend, Wake as StateWake},
};

thread_local! {
    /// The CPU that this thread plays.
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// A machine for tests: its clock stands still until it is turned, it never sleeps, and it keeps count of what it is asked.
#[derive(Debug, Default)]
pub struct HandMachine {
    now: AtomicU64,
    alarm: Mutex<Option<Instant>>,
    alarms_set: AtomicUsize,
    kicked: Mutex<Vec<usize>>,
    user_time: AtomicU64,
    traced: Mutex<Vec<TraceEvent>>,
    long_polls: Mutex<Vec<LongPoll>>,
}

impl Machine for HandMachine {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Ordering::SeqCst))
    }

    fn current_cpu(&self) -> usize {
        CPU.get()
    }

    fn kick(&self, cpu: usize) {
        self.kicked.lock().expect("no test panics in here").push(cpu);
    }

    fn idle(&self, _nothing_to_do: &dyn Fn() -> bool) {}

    fn set_alarm(&self, at: Option<Instant>) {
        self.alarms_set.fetch_add(1, Ordering::SeqCst);
        *self.alarm.lock().expect("no test panics in here") = at;
    }

    fn user_time(&self) -> u64 {
        self.user_time.load(Ordering::SeqCst)
    }

    fn trace(&self, event: &TraceEvent) {
        self.traced.lock().expect("no test panics in here").push(*event);
    }

    fn long_poll(&self, poll: &LongPoll) {
        self.long_polls.lock().expect("no test panics in here").push(*poll);
    }
}

impl HandMachine {
    /// What the alarm is set to.
    pub fn alarm(&self) -> Option<Instant> {
        *self.alarm.lock().expect("no test panics in here")
    }

    /// How often the alarm was set.
    pub fn alarms_set(&self) -> usize {
        self.alarms_set.load(Ordering::SeqCst)
    }

    /// The CPUs that were kicked since this was last asked.
    pub fn take_kicked(&self) -> Vec<usize> {
        core::mem::take(&mut *self.kicked.lock().expect("no test panics in here"))
    }

    /// So much of the time that a poll takes is spent in user mode.
    pub fn spend_in_user_mode(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("a test lasts less than 584 years");
        self.user_time.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    /// What was traced since this was last asked.
    pub fn take_traced(&self) -> Vec<TraceEvent> {
        core::mem::take(&mut *self.traced.lock().expect("no test panics in here"))
    }

    /// The long polls that were told of since this was last asked.
    pub fn take_long_polls(&self) -> Vec<LongPoll> {
        core::mem::take(&mut *self.long_polls.lock().expect("no test panics in here"))
    }

    /// Turns the clock, and nothing else: inside a task, this is time that its poll takes.
    pub fn turn_clock(&self, by: Duration) {
        self.now.fetch_add(u64::try_from(by.as_nanos()).expect("a test lasts less than 584 years"), Ordering::SeqCst);
    }
}

/// Runs `body` as if on CPU `cpu` of every [`HandMachine`].
pub fn on_cpu<R>(cpu: usize, body: impl FnOnce() -> R) -> R {
    struct Back(usize);
    impl Drop for Back {
        fn drop(&mut self) {
            CPU.set(self.0);
        }
    }
    let _back = Back(CPU.replace(cpu));
    body()
}

/// An executor on a [`HandMachine`].
#[derive(Clone, Copy)]
pub struct Bench(Executor<HandMachine>);

impl core::fmt::Debug for Bench {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Bench").field(self.machine()).finish()
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// One CPU.
    pub fn new() -> Self {
        Self::with_cpus(1)
    }

    /// Several CPUs; see [`on_cpu`].
    pub fn with_cpus(cpus: usize) -> Self {
        Self(Executor::new(HandMachine::default(), cpus))
    }

    /// One CPU, on which tasks go in an order drawn from `seed`.
    pub fn shuffled(seed: NonZeroU64) -> Self {
        Self(Executor::shuffled(HandMachine::default(), 1, seed))
    }

    /// The executor.
    pub fn executor(self) -> Executor<HandMachine> {
        self.0
    }

    /// The machine.
    pub fn machine(self) -> &'static HandMachine {
        self.0.machine()
    }

    /// Spawns an ordinary user task.
    pub fn spawn(self, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
        self.0.spawn(Class::NORMAL, "test", future)
    }

    /// Spawns an ordinary user task with a result.
    pub fn start<F: Future<Output: Send> + Send + 'static>(self, future: F) -> JoinHandle<F::Output> {
        self.0.spawn_with_result(Class::NORMAL, "test", future)
    }

    /// Runs all tasks until they wait.
    pub fn settle(self) {
        self.0.run_until_idle();
    }

    /// Turns the clock from alarm to alarm until `by` has passed, and runs what wakes up at each.
    pub fn advance(self, by: Duration) {
        let end = self.0.now() + by;
        self.settle();
        while let Some(alarm) = self.machine().alarm().filter(|&alarm| alarm <= end) {
            *self.machine().alarm.lock().expect("no test panics in here") = None;
            self.machine().turn_clock(alarm - self.0.now());
            self.0.alarm();
            self.settle();
        }
        self.machine().turn_clock(end - self.0.now());
        self.settle();
    }

    /// Runs `future` to its end, turning the clock where everybody waits for it.
    ///
    /// # Panics
    /// If it is not ready, and no timer is set that could change that: a deadlock.
    pub fn block_on<F: Future<Output: Send> + Send + 'static>(self, future: F) -> F::Output {
        let handle = self.start(future);
        loop {
            self.settle();
            if let Some(output) = handle.try_take() {
                return output;
            }
            let alarm = self.machine().alarm().expect("deadlock: the future waits, and no timer is set");
            self.advance(alarm - self.0.now());
        }
    }
}

/// Runs `test` on executors with `count` different schedules. If it panics, the seed is printed; run
/// [`with_seed`] with it to see that schedule again. The environment variable `ROUSE_SEED` replaces all seeds by one.
pub fn with_seeds(count: u64, test: impl Fn(Bench) + panic::RefUnwindSafe) {
    if let Some(seed) = std::env::var("ROUSE_SEED").ok().and_then(|text| text.parse().ok()) {
        return with_seed(seed, &test);
    }
    // Consecutive seeds would give schedules that begin alike: spread them (Weyl sequence, golden ratio).
    let step = 0x9E37_79B9_7F4A_7C15_u64;
    for index in 1..=count {
        with_seed(NonZeroU64::new(step.wrapping_mul(index)).unwrap_or(NonZeroU64::MIN), &test);
    }
}

/// Runs `test` on an executor with the schedule that `seed` stands for, and prints the seed if it panics.
pub fn with_seed(seed: NonZeroU64, test: &(impl Fn(Bench) + panic::RefUnwindSafe)) {
    if let Err(cause) = panic::catch_unwind(|| test(Bench::shuffled(seed))) {
        println!("this schedule failed: run again with ROUSE_SEED={seed}");
        panic::resume_unwind(cause);
    }
}

/// Polls a future from `make` k times and drops it, for every k from 0 up to the poll at which it is ready. Between two polls
/// `between` is called with the number of polls so far (to make the future's wait come true, say); after each drop, `check` is
/// to see that nothing was lost and nothing leaks. Returns how many polls the future needs.
///
/// # Panics
/// If the future is not ready after 1,000 polls.
pub fn cancel_at_every_await<F: Future>(
    mut make: impl FnMut() -> F,
    mut between: impl FnMut(usize),
    mut check: impl FnMut(usize),
) -> usize {
    let counter = Arc::new(WakeCounter::default());
    let waker = Waker::from(Arc::clone(&counter));
    let mut context = Context::from_waker(&waker);
    for polls in 0..1_000 {
        let mut future: Pin<Box<F>> = Box::pin(make());
        let mut is_ready = false;
        for done in 0..polls {
            is_ready = future.as_mut().poll(&mut context).is_ready();
            if is_ready {
                break;
            }
            between(done + 1);
        }
        drop(future);
        check(polls);
        if is_ready {
            return polls;
        }
    }
    panic!("the future is not ready after 1,000 polls");
}

/// A waker that counts.
#[derive(Debug, Default)]
pub struct WakeCounter(AtomicUsize);

impl WakeCounter {
    /// How often it was woken.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls `future` once with `waker`.
pub fn poll_once<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}
