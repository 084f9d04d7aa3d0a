//! Timers as files (timerfd_create(2)).
//!
//! How often a timer has expired follows from the clock alone: whoever reads or polls the file asks for it. The timer's task only
//! wakes those who wait.

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;

use abi::Result;
use executor::Instant;
use executor::sync::{SpinLock, WaitQueue};
use fs::{Errno, FileOps, PollEvents, Sink, Stop};

use crate::process::timer::{Owner, Timer, TimerSetting};
use crate::syscall::time::Clock;

/// A timer.
pub struct TimerFile {
    /// The clock that absolute times are told by.
    pub clock: Clock,
    timer: Timer,
    /// Expiries that were noted and could not be handed over.
    unread: SpinLock<u64>,
    expired: WaitQueue,
}

impl TimerFile {
    /// A timer that is off.
    pub fn new(clock: Clock) -> TimerFile {
        TimerFile { clock, timer: Timer::default(), unread: SpinLock::new(0), expired: WaitQueue::new() }
    }

    /// What it is set to now.
    pub fn setting(&self) -> TimerSetting {
        self.timer.setting()
    }

    /// Sets it; `None` turns it off. What was not read is forgotten.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: it is off then.
    pub fn set(self: &Arc<Self>, next: Option<Instant>, interval: Duration) -> Result<()> {
        let mut unread = self.unread.lock();
        *unread = 0;
        Timer::set(self, next, interval)
    }
}

impl Owner for TimerFile {
    fn timer(&self) -> &Timer {
        &self.timer
    }

    fn is_due(this: &Arc<Self>) -> bool {
        this.expired.wake_all();
        true
    }
}

impl FileOps for TimerFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut unread = self.unread.lock();
        *unread = unread.saturating_add(self.timer.take_all());
        if *unread == 0 {
            return Err(Stop::WouldBlock);
        }
        if sink.put(&unread.to_ne_bytes()) < 8 {
            return Err(Stop::Fault);
        }
        *unread = 0;
        Ok(8)
    }

    fn poll(&self) -> PollEvents {
        let is_ready = *self.unread.lock() > 0 || self.timer.has_expired();
        if is_ready { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
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
