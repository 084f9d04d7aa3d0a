//! Timers as files (timerfd_create(2)).
//!
//! How often a timer has expired follows from the clock alone; a small task only wakes those who wait, at each expiry. Setting the
//! timer anew ends the old task by its generation.

use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::time::Duration;

use executor::Instant;
use executor::sync::{SpinLock, WaitQueue};
use fs::{Errno, FileOps, PollEvents, Sink, Stop};

use crate::arch::clock;
use crate::syscall::time::Clock;

/// A timer.
pub struct TimerFile {
    /// The clock that absolute times are told by.
    pub clock: Clock,
    state: SpinLock<State>,
    expired: WaitQueue,
}

#[derive(Default)]
struct State {
    generation: u64,
    next: Option<Instant>,
    interval: Duration,
    /// Expiries that were noted and not read.
    unread: u64,
}

impl State {
    /// Notes expiries up to now.
    fn catch_up(&mut self, now: Instant) {
        let Some(next) = self.next.filter(|next| *next <= now) else { return };
        if self.interval.is_zero() {
            self.unread += 1;
            self.next = None;
            return;
        }
        let late = now.saturating_duration_since(next).as_nanos() / self.interval.as_nanos() + 1;
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        self.unread = self.unread.saturating_add(late);
        let step = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(late);
        self.next = Some(next.saturating_add(Duration::from_nanos(step)));
    }
}

impl TimerFile {
    /// A timer that is off.
    pub fn new(clock: Clock) -> TimerFile {
        TimerFile { clock, state: SpinLock::new(State::default()), expired: WaitQueue::new() }
    }

    /// Interval and time to the next expiry; zero if it is off.
    pub fn remaining(&self) -> (Duration, Duration) {
        let now = clock::now();
        let mut state = self.state.lock();
        state.catch_up(now);
        (state.interval, state.next.map(|next| next.saturating_duration_since(now)).unwrap_or_default())
    }

    /// Sets it; `None` turns it off.
    pub fn set(self: &Arc<Self>, next: Option<Instant>, interval: Duration) {
        let mut state = self.state.lock();
        *state = State { generation: state.generation + 1, next, interval, unread: 0 };
        let generation = state.generation;
        drop(state);
        if next.is_some() {
            crate::tasks::spawn(executor::Class::Driver, "timerfd", ring(Arc::downgrade(self), generation));
        }
    }
}

async fn ring(timer: Weak<TimerFile>, generation: u64) {
    loop {
        let next = {
            let Some(timer) = timer.upgrade() else { return };
            let state = timer.state.lock();
            if state.generation != generation {
                return;
            }
            state.next
        };
        let Some(next) = next else { return };
        crate::tasks::timers().sleep_until(next).await;
        let Some(timer) = timer.upgrade() else { return };
        timer.state.lock().catch_up(clock::now());
        timer.expired.wake_all();
    }
}

impl FileOps for TimerFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut state = self.state.lock();
        state.catch_up(clock::now());
        if state.unread == 0 {
            return Err(Stop::WouldBlock);
        }
        if sink.put(&state.unread.to_ne_bytes()) < 8 {
            return Err(Stop::Fault);
        }
        state.unread = 0;
        Ok(8)
    }

    fn poll(&self) -> PollEvents {
        let mut state = self.state.lock();
        state.catch_up(clock::now());
        if state.unread > 0 { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.expired)
    }

    fn name(&self) -> alloc::string::String {
        "anon_inode:[timerfd]".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
