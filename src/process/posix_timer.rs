//! The timers of timer_create(2).
//!
//! A timer sends its signal once and rests until that signal is delivered (`timer.rs`); how often it would have rung meanwhile is told as
//! the overrun, in the signal and by timer_getoverrun(2).
//!
//! Next: `../syscall/timer.rs`.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicI32, Ordering};

use abi::{Errno, Result};
use executor::sync::SpinLock;

use super::process::Process;
use super::send;
use super::signal::{Origin, Signal, SignalInfo};
use super::thread::Thread;
use super::timer::{Owner, Timer};
use crate::syscall::time::Clock;

/// Whom a timer tells.
pub enum Notice {
    /// Nobody (SIGEV_NONE).
    None,
    /// The process (SIGEV_SIGNAL), by this signal.
    Process(Signal),
    /// One thread (SIGEV_THREAD_ID), by this signal.
    Thread(Signal, Weak<Thread>),
}

/// One timer.
pub struct PosixTimer {
    /// Its number in its process.
    pub id: i32,
    /// The clock that absolute times are told by.
    pub clock: Clock,
    /// What the signal carries (`sigev_value`).
    value: u64,
    notice: Notice,
    process: Weak<Process>,
    timer: Timer,
    /// The overrun of the signal that was delivered last.
    last_overrun: AtomicI32,
}

impl PosixTimer {
    /// Whether nobody is told.
    pub fn is_silent(&self) -> bool {
        matches!(self.notice, Notice::None)
    }

    /// The overrun of the signal that was delivered last.
    pub fn last_overrun(&self) -> i32 {
        self.last_overrun.load(Ordering::Relaxed)
    }

    /// It is being set anew: old overruns are forgotten.
    pub fn forget_overrun(&self) {
        self.last_overrun.store(0, Ordering::Relaxed);
    }
}

impl Owner for PosixTimer {
    fn timer(&self) -> &Timer {
        &self.timer
    }

    fn is_due(this: &Arc<Self>) -> bool {
        let info = |signal| SignalInfo { signal, origin: Origin::Timer { id: this.id, overrun: 0, value: this.value } };
        let Some(process) = this.process.upgrade() else { return false };
        match &this.notice {
            Notice::None => false,
            Notice::Process(signal) => send::by_timer(&process, None, info(*signal)),
            Notice::Thread(signal, thread) => match thread.upgrade() {
                Some(thread) => send::by_timer(&process, Some(&thread), info(*signal)),
                None => false,
            },
        }
    }
}

/// The timers of one process.
#[derive(Default)]
pub struct PosixTimers(SpinLock<Table>);

#[derive(Default)]
struct Table {
    timers: BTreeMap<i32, Arc<PosixTimer>>,
    next: i32,
}

impl PosixTimers {
    /// Makes a timer, off; returns its number. `value` is `sigev_value`, or `None` for the number itself.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: there are `limit` already.
    pub fn create(
        &self,
        process: &Arc<Process>,
        limit: u64,
        clock: Clock,
        notice: Notice,
        value: Option<u64>,
    ) -> Result<i32> {
        let mut table = self.0.lock();
        if table.timers.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let mut id = table.next;
        while table.timers.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        table.next = id.checked_add(1).unwrap_or(0);
        let timer = PosixTimer {
            id,
            clock,
            value: value.unwrap_or(id as u64),
            notice,
            process: Arc::downgrade(process),
            timer: Timer::default(),
            last_overrun: AtomicI32::new(0),
        };
        table.timers.insert(id, Arc::new(timer));
        Ok(id)
    }

    /// The timer with this number.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.0.lock().timers.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Takes a timer away.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none.
    pub fn delete(&self, id: i32) -> Result<()> {
        // Dropped when the lock is given back.
        let removed = self.0.lock().timers.remove(&id);
        removed.map(drop).ok_or(Errno::EINVAL)
    }

    /// Takes all away: at exec and at the end.
    pub fn clear(&self) {
        let all = core::mem::take(&mut self.0.lock().timers);
        drop(all);
    }

    /// A timer's signal is being delivered: returns its overrun, and lets the timer go on.
    pub fn delivered(&self, id: i32) -> i32 {
        let Ok(timer) = self.get(id) else { return 0 };
        let overrun = i32::try_from(timer.timer.take_note().saturating_sub(1)).unwrap_or(i32::MAX);
        timer.last_overrun.store(overrun, Ordering::Relaxed);
        overrun
    }
}
