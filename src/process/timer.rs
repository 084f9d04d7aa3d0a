//! A timer of a program: what setitimer(2), timer_create(2) and timerfd_create(2) have in common.
//!
//! While it is set, a timer has one small task. The task sleeps until the next expiry, tells the timer's owner, and then rests until
//! somebody has taken note: a signal was delivered, a file was read. Only then is the next expiry waited for, and those that went by
//! meanwhile are counted. So a timer of a nanosecond costs no more than its program takes note of.
//!
//! ```text
//!        set ──► sleeps ──► due: owner told ──► rests ──► taken note of ──► sleeps …      once only: the task ends when it rests
//!                  ▲                │ owner does not want it (an ignored signal)
//!                  └────────────────┘ next expiry, but not within the next 10 ms
//! ```
//!
//! Setting it anew wakes the task, which looks again; so does the timer's end.
//!
//! Next: `timers.rs`, `posix_timer.rs`, `../files/timer.rs`, its three users.

use alloc::sync::{Arc, Weak};
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use abi::Result;
use executor::sync::SpinLock;
use executor::{Instant, TaskRef};

use crate::arch::clock;

/// Who is not listening is not told more often than this.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a timer is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimerSetting {
    /// Time from one expiry to the next; zero for a timer that rings once.
    pub interval: Duration,
    /// Time to the next expiry; zero for a timer that is off.
    pub value: Duration,
}

/// What has a timer.
pub trait Owner: Send + Sync + 'static {
    /// The timer.
    fn timer(&self) -> &Timer;

    /// It is due. Says whether somebody will take note of it ([`Timer::take_note`]).
    fn is_due(this: &Arc<Self>) -> bool;
}

/// A timer; off to begin with.
#[derive(Default)]
pub struct Timer(SpinLock<State>);

#[derive(Default)]
struct State {
    /// The first expiry that nobody has taken note of.
    next: Option<Instant>,
    interval: Duration,
    /// The owner was told of `next`.
    is_told: bool,
    /// Changes when it is set anew.
    generation: u64,
    task: Option<TaskRef>,
}

impl State {
    /// Counts the expiries up to `now`, and goes on to the first one behind it.
    fn pass(&mut self, now: Instant) -> u64 {
        let Some(next) = self.next.filter(|next| *next <= now) else { return 0 };
        self.is_told = false;
        if self.interval.is_zero() {
            self.next = None;
            return 1;
        }
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let passed = now.saturating_duration_since(next).as_nanos() / u128::from(interval) + 1;
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.next = Some(next.saturating_add(Duration::from_nanos(interval.saturating_mul(passed))));
        passed
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake();
        }
    }
}

impl Timer {
    /// What it is set to now.
    pub fn setting(&self) -> TimerSetting {
        let now = clock::now();
        let state = self.0.lock();
        let Some(next) = state.next else { return TimerSetting { interval: state.interval, value: Duration::ZERO } };
        let mut value = next.saturating_duration_since(now);
        if value.is_zero() && !state.interval.is_zero() {
            let late = now.saturating_duration_since(next).as_nanos() % state.interval.as_nanos();
            // Less than the interval, which may be a few hundred years.
            value = state.interval.saturating_sub(Duration::from_nanos(u64::try_from(late).unwrap_or(u64::MAX)));
        }
        TimerSetting { interval: state.interval, value }
    }

    /// Sets the timer of `owner` to ring at `next` and then in every `interval`; `None` turns it off.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: it is off then.
    pub fn set<O: Owner>(owner: &Arc<O>, next: Option<Instant>, interval: Duration) -> Result<()> {
        let mut state = owner.timer().0.lock();
        state.generation += 1;
        (state.next, state.interval, state.is_told) = (next, interval, false);
        if next.is_none() || state.task.is_some() {
            state.wake_task();
            return Ok(());
        }
        let mut task = None;
        let ring = ring(Arc::downgrade(owner));
        let spawned =
            crate::tasks::try_spawn(u64::MAX, executor::Class::Driver, "timer", |made| task = Some(made), ring);
        state.task = task;
        if spawned.is_err() {
            state.next = None;
        }
        spawned
    }

    /// Sets a timer that nobody is told of: it is only asked.
    pub fn set_silently(&self, next: Option<Instant>, interval: Duration) {
        let mut state = self.0.lock();
        (state.next, state.interval) = (next, interval);
    }

    /// Turns it off.
    pub fn stop(&self) {
        let mut state = self.0.lock();
        state.generation += 1;
        (state.next, state.interval, state.is_told) = (None, Duration::ZERO, false);
        state.wake_task();
    }

    /// What the owner was told has been dealt with: returns how many expiries there were up to now, the one that it was told of
    /// included; 0 if it was told of none.
    pub fn take_note(&self) -> u64 {
        let mut state = self.0.lock();
        if !state.is_told {
            return 0;
        }
        let passed = state.pass(clock::now());
        state.wake_task();
        passed
    }

    /// As [`take_note`](Self::take_note), but of expiries that the owner was not told of as well.
    pub fn take_all(&self) -> u64 {
        let mut state = self.0.lock();
        let passed = state.pass(clock::now());
        if passed > 0 {
            state.wake_task();
        }
        passed
    }

    /// Whether there are expiries to take note of.
    pub fn has_expired(&self) -> bool {
        self.0.lock().next.is_some_and(|next| next <= clock::now())
    }

    /// Nobody listens: it goes on by itself, unless it was set anew.
    fn go_on(&self, generation: u64) {
        let mut state = self.0.lock();
        if state.generation == generation {
            let horizon = if state.interval < PATIENCE { PATIENCE } else { Duration::ZERO };
            state.pass(clock::now().saturating_add(horizon));
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // It finds nobody to ring for, and ends.
        self.0.get_mut().wake_task();
    }
}

/// What is to be done about a timer next.
enum Step {
    End,
    Rest,
    SleepUntil(Instant),
    Tell(u64),
}

fn next_step(timer: &Timer) -> Step {
    let mut state = timer.0.lock();
    let step = match state.next {
        None => Step::End,
        Some(_) if state.is_told && state.interval.is_zero() => Step::End,
        Some(_) if state.is_told => Step::Rest,
        Some(next) if next > clock::now() => Step::SleepUntil(next),
        Some(_) => Step::Tell(state.generation),
    };
    match step {
        // Whoever sets it from now on makes a new task.
        Step::End => state.task = None,
        Step::Tell(_) => state.is_told = true,
        Step::Rest | Step::SleepUntil(_) => {}
    }
    step
}

/// The task: looks at the timer each time it is woken.
async fn ring<O: Owner>(owner: Weak<O>) {
    let mut sleep = pin!(crate::tasks::timers().sleep_until(Instant::NEVER));
    poll_fn(|context| {
        loop {
            let Some(owner) = owner.upgrade() else { return Poll::Ready(()) };
            match next_step(owner.timer()) {
                Step::End => return Poll::Ready(()),
                Step::Rest => return Poll::Pending,
                Step::SleepUntil(next) => {
                    if sleep.deadline() != next {
                        sleep.as_mut().reset(next);
                    }
                    if sleep.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                Step::Tell(generation) => {
                    if !O::is_due(&owner) {
                        owner.timer().go_on(generation);
                    }
                }
            }
        }
    })
    .await;
}
