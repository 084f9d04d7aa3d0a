//! Interval timers: setitimer(2) and alarm(2).
//!
//! ITIMER_REAL runs as a small task that sleeps until the next expiry; setting the timer anew makes the old task stop by its
//! generation. ITIMER_VIRTUAL and ITIMER_PROF count CPU time and are looked at when a thread accounts for its time.

use alloc::sync::{Arc, Weak};
use core::time::Duration;

use executor::Instant;
use executor::sync::SpinLock;

use super::process::Process;
use super::send;
use super::signal::{Signal, SignalInfo};

/// What a timer is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimerSetting {
    /// Time from one expiry to the next; zero for a timer that rings once.
    pub interval: Duration,
    /// Time to the next expiry; zero for a timer that is off.
    pub value: Duration,
}

#[derive(Default)]
struct RealTimer {
    generation: u64,
    interval: Duration,
    expires: Option<Instant>,
}

/// A timer over CPU time: expiry in nanoseconds of the process's CPU time.
#[derive(Clone, Copy, Default)]
struct CpuTimer {
    interval: u64,
    expires: Option<u64>,
}

/// The three timers of a process.
#[derive(Default)]
pub struct IntervalTimers {
    real: SpinLock<RealTimer>,
    cpu: SpinLock<[CpuTimer; 2]>,
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
        let timer = self.real.lock();
        let value = timer.expires.map(|at| at.saturating_duration_since(crate::arch::clock::now())).unwrap_or_default();
        TimerSetting { interval: timer.interval, value }
    }

    /// Sets ITIMER_REAL of a process; returns what it was.
    pub fn set_real(process: &Arc<Process>, setting: TimerSetting) -> TimerSetting {
        let old = process.timers.real();
        let mut timer = process.timers.real.lock();
        timer.generation += 1;
        timer.interval = setting.interval;
        timer.expires = (!setting.value.is_zero()).then(|| crate::arch::clock::now().saturating_add(setting.value));
        if timer.expires.is_some() {
            let ring = ring_real(Arc::downgrade(process), timer.generation);
            drop(timer);
            crate::tasks::spawn(executor::Class::Driver, "itimer", ring);
        }
        old
    }

    /// Turns all off, at the end of a process.
    pub fn disarm_all(&self) {
        let mut timer = self.real.lock();
        timer.generation += 1;
        timer.expires = None;
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

async fn ring_real(process: Weak<Process>, generation: u64) {
    loop {
        let Some(at) = next_expiry(&process, generation) else { return };
        crate::tasks::timers().sleep_until(at).await;
        let Some(process) = process.upgrade() else { return };
        {
            let mut timer = process.timers.real.lock();
            if timer.generation != generation {
                return;
            }
            timer.expires = (!timer.interval.is_zero()).then(|| at.saturating_add(timer.interval));
        }
        let _ = send::to_process(&process, SignalInfo::kernel(Signal::SIGALRM));
    }
}

fn next_expiry(process: &Weak<Process>, generation: u64) -> Option<Instant> {
    let process = process.upgrade()?;
    let timer = process.timers.real.lock();
    if timer.generation == generation { timer.expires } else { None }
}
