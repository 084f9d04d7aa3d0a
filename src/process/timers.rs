//! The timers of a process: setitimer(2), alarm(2) and timer_create(2).
//!
//! ITIMER_REAL and those of timer_create(2) are [`Timer`]s, which send signals. ITIMER_VIRTUAL and ITIMER_PROF count CPU time and are
//! looked at when a thread accounts for its time.
//!
//! Next: `posix_timer.rs`.

use alloc::sync::Arc;
use core::time::Duration;

use abi::Result;
use executor::sync::SpinLock;

use super::posix_timer::PosixTimers;
use super::process::Process;
use super::send;
use super::signal::{Origin, Signal, SignalInfo};
use super::timer::{Owner, Timer, TimerSetting};
use crate::arch::clock;

/// A timer over CPU time: expiry in nanoseconds of the process's CPU time.
#[derive(Clone, Copy, Default)]
struct CpuTimer {
    interval: u64,
    expires: Option<u64>,
}

/// The timers of a process.
#[derive(Default)]
pub struct IntervalTimers {
    /// ITIMER_REAL.
    real: Timer,
    /// ITIMER_VIRTUAL and ITIMER_PROF.
    cpu: SpinLock<[CpuTimer; 2]>,
    /// timer_create(2).
    pub posix: PosixTimers,
}

/// Which CPU-time timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuTimerKind {
    /// User time only: SIGVTALRM.
    Virtual = 0,
    /// User and system time: SIGPROF.
    Profile = 1,
}

impl IntervalTimers {
    /// What ITIMER_REAL is set to now.
    pub fn real(&self) -> TimerSetting {
        self.real.setting()
    }

    /// Sets ITIMER_REAL of a process; returns what it was.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: it is off then.
    pub fn set_real(process: &Arc<Process>, setting: TimerSetting) -> Result<TimerSetting> {
        let old = process.timers.real();
        if setting.value.is_zero() {
            process.timers.real.stop();
        } else {
            Timer::set(process, Some(clock::now().saturating_add(setting.value)), setting.interval)?;
        }
        Ok(old)
    }

    /// Turns all off, at the end of a process.
    pub fn disarm_all(&self) {
        self.real.stop();
        self.posix.clear();
    }

    /// A signal was taken to be delivered: if it is a timer's, that timer goes on, and the signal tells of what was missed.
    pub fn delivered(&self, info: &mut SignalInfo) {
        match &mut info.origin {
            Origin::Timer { id, overrun, .. } => *overrun = self.posix.delivered(*id),
            _ if info.signal == Signal::SIGALRM => {
                self.real.take_note();
            }
            _ => {}
        }
    }

    /// What a CPU-time timer is set to, at `now` nanoseconds of CPU time.
    pub fn cpu(&self, kind: CpuTimerKind, now: u64) -> TimerSetting {
        let timer = self.cpu.lock()[kind as usize];
        let value = timer.expires.map_or(0, |at| at.saturating_sub(now).max(1));
        TimerSetting { interval: Duration::from_nanos(timer.interval), value: Duration::from_nanos(value) }
    }

    /// Sets a CPU-time timer at `now` nanoseconds of CPU time; returns what it was.
    pub fn set_cpu(&self, kind: CpuTimerKind, now: u64, setting: TimerSetting) -> TimerSetting {
        let old = self.cpu(kind, now);
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let value = nanoseconds(setting.value);
        self.cpu.lock()[kind as usize] = CpuTimer {
            interval: nanoseconds(setting.interval),
            expires: (value != 0).then(|| now.saturating_add(value)),
        };
        old
    }

    /// Whether any CPU-time timer is on.
    pub fn counts_cpu_time(&self) -> bool {
        self.cpu.lock().iter().any(|timer| timer.expires.is_some())
    }

    /// Looks at the CPU-time timers; returns the signals that are due.
    pub fn expire_cpu(&self, user: u64, system: u64) -> [Option<Signal>; 2] {
        let mut timers = self.cpu.lock();
        let mut check = |kind: CpuTimerKind, now: u64, signal| {
            let timer = &mut timers[kind as usize];
            let is_due = timer.expires.is_some_and(|at| at <= now);
            if is_due {
                timer.expires = (timer.interval != 0).then(|| now.saturating_add(timer.interval));
            }
            is_due.then_some(signal)
        };
        [
            check(CpuTimerKind::Virtual, user, Signal::SIGVTALRM),
            check(CpuTimerKind::Profile, user.saturating_add(system), Signal::SIGPROF),
        ]
    }
}

impl Owner for Process {
    fn timer(&self) -> &Timer {
        &self.timers.real
    }

    fn is_due(this: &Arc<Self>) -> bool {
        send::by_timer(this, None, SignalInfo::kernel(Signal::SIGALRM))
    }
}
