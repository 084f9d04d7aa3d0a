//! Deadlines: one timing wheel per CPU (list/wheel.rs), whose nodes live in the sleeping futures.
//!
//! Going to sleep inserts the future's own node, dropping the future takes it out again (no memory, O(1)); when the alarm rings,
//! the executor pops what is due and wakes it, exactly and in order. The alarm is set only when a deadline comes first that is earlier than what
//! it is set to; when a deadline is taken back it is left alone, and rings once for nothing at most. (Where many deadlines lie
//! together and far off, it is set to when that time begins, and then to the first of them.) next: sleep.rs.
//!
//! Exercise: a million sleeps with timeouts that never fire. How often is the alarm set?

use core::{fmt, panic::Location, task::Waker};

use super::{Instant, Sleep, Timeout};
use crate::list::{Home, Wheel};

/// What hangs in the wheel.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Woken when the deadline is reached; none once it is.
    pub(crate) waker: Option<Waker>,
}

/// What a sleeping future needs of the executor, whatever its machine is.
pub(crate) trait Clock: Sync {
    fn now(&self) -> Instant;
    /// The CPU that this is called on.
    fn here(&self) -> usize;
    fn timers(&'static self, cpu: usize) -> &'static Home<Wheel, Timer>;
    /// `deadline` is now the first of `cpu`.
    fn earliest_is(&self, cpu: usize, deadline: Instant);
}

/// The executor's clock and timers, for whoever does not know the type of its machine. As small as a pointer, and `Copy`.
#[derive(Clone, Copy)]
pub struct TimerHandle(pub(crate) &'static dyn Clock);

impl TimerHandle {
    /// The time.
    #[must_use]
    #[inline]
    pub fn now(self) -> Instant {
        self.0.now()
    }

    /// Waits until `deadline`.
    #[track_caller]
    #[inline]
    pub fn sleep_until(self, deadline: Instant) -> Sleep {
        Sleep::new(self, deadline, Location::caller())
    }

    /// The same for a future that is seen to wait elsewhere: where it was itself called.
    pub fn sleep_until_for(self, deadline: Instant, location: &'static Location<'static>) -> Sleep {
        Sleep::new(self, deadline, location)
    }

    /// Waits for `duration`.
    #[track_caller]
    #[inline]
    pub fn sleep(self, duration: core::time::Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Runs `future`, but only until `deadline`: then it is dropped, and the answer is [`Elapsed`](super::Elapsed).
    #[track_caller]
    pub fn timeout_at<F: Future>(self, deadline: Instant, future: F) -> Timeout<F> {
        Timeout::new(self.sleep_until(deadline), future)
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimerHandle")
    }
}

/// How many wakers are taken out of the wheel before its lock is released to wake them.
const BATCH: usize = 8;
/// How many batches are woken at most before other tasks have a turn.
const BATCHES: usize = 32;

/// Wakes those whose deadline is not after `now`. Returns the first deadline that remains; it may be due as well.
pub(crate) fn fire(timers: &Home<Wheel, Timer>, now: Instant) -> Option<Instant> {
    let mut first = None;
    for _ in 0..BATCHES {
        let mut due: [Option<Waker>; BATCH] = [const { None }; BATCH];
        let mut locked = timers.lock();
        for slot in &mut due {
            let Some(timer) = locked.pop_up_to(now.as_nanos()) else { break };
            *slot = timer.waker.take();
        }
        first = locked.first_key().map(Instant::from_nanos);
        drop(locked);
        // Woken without the lock: a waker may be anybody's code.
        due.into_iter().flatten().for_each(Waker::wake);
        if first.is_none_or(|first| first > now) {
            break;
        }
    }
    first
}
