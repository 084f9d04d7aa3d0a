//! Clocks and sleeping.
//!
//! Next: `timer.rs`.

use core::time::Duration;

use abi::{Errno, Result, general};
use executor::Instant;
use executor::sync::WaitQueue;

use crate::arch;
use crate::mm::try_box;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::wait_event::Interruptible;
use crate::wall_clock;

/// `struct timespec`: seconds and nanoseconds.
pub type Timespec = [i64; 2];

/// Turns a `timespec` that means a length of time into one.
///
/// # Errors
///
/// `EINVAL`: negative, or a billion nanoseconds or more.
pub fn duration([seconds, nanoseconds]: Timespec) -> Result<Duration> {
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    match u32::try_from(nanoseconds) {
        Ok(nanoseconds) if nanoseconds < 1_000_000_000 => Ok(Duration::new(seconds, nanoseconds)),
        _ => Err(Errno::EINVAL),
    }
}

/// Turns a `timeval` that means a length of time into one.
///
/// # Errors
///
/// `EINVAL`: negative, or a million microseconds or more.
pub fn duration_of_timeval([seconds, microseconds]: [i64; 2]) -> Result<Duration> {
    if !(0..1_000_000).contains(&microseconds) {
        return Err(Errno::EINVAL);
    }
    duration([seconds, microseconds * 1000])
}

/// As a `timespec`.
pub fn timespec(duration: Duration) -> Timespec {
    [duration.as_secs() as i64, i64::from(duration.subsec_nanos())]
}

/// As a `timeval`.
pub fn timeval(duration: Duration) -> [i64; 2] {
    [duration.as_secs() as i64, i64::from(duration.subsec_micros())]
}

/// So long from now; the end of time if that is too far.
pub fn after(duration: Duration) -> Instant {
    arch::clock::now().saturating_add(duration)
}

/// A clock of clock_gettime(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Time of day.
    Realtime,
    /// Since boot.
    Monotonic,
    /// CPU time of the calling process.
    Process,
    /// CPU time of the calling thread.
    Thread,
}

impl Clock {
    /// From its number.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none.
    pub fn new(id: u32) -> Result<Clock> {
        match id {
            general::CLOCK_REALTIME
            | general::CLOCK_REALTIME_COARSE
            | general::CLOCK_REALTIME_ALARM
            | general::CLOCK_TAI => Ok(Clock::Realtime),
            general::CLOCK_MONOTONIC
            | general::CLOCK_MONOTONIC_COARSE
            | general::CLOCK_MONOTONIC_RAW
            | general::CLOCK_BOOTTIME
            | general::CLOCK_BOOTTIME_ALARM => Ok(Clock::Monotonic),
            general::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Process),
            general::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Thread),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What it shows now.
    pub fn read(self, thread: &mut RunningThread) -> Duration {
        match self {
            Clock::Realtime => wall_clock::now(),
            Clock::Monotonic => Duration::from_nanos(arch::clock::now().as_nanos()),
            Clock::Process => {
                thread.account();
                let (user, system) = thread.process.times.read();
                Duration::from_nanos(user.saturating_add(system))
            }
            Clock::Thread => {
                thread.account();
                Duration::from_nanos(thread.cpu_time.load(core::sync::atomic::Ordering::Relaxed))
            }
        }
    }

    /// When it will show this.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: a clock of CPU time.
    pub fn instant(self, at: Duration) -> Result<Instant> {
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Clock::Realtime => Ok(Instant::from_nanos(nanoseconds.saturating_sub(wall_clock::offset()))),
            Clock::Monotonic => Ok(Instant::from_nanos(nanoseconds)),
            Clock::Process | Clock::Thread => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// clock_gettime(2). `EINVAL`: no such clock. `EFAULT`.
pub async fn clock_gettime(thread: &mut RunningThread, id: u32, result: UserPtr<Timespec>) -> Result<usize> {
    let time = timespec(Clock::new(id)?.read(thread));
    thread.put(result, &time).await?;
    Ok(0)
}

/// clock_gettime(2), when its result can be stored at once.
pub fn clock_gettime_now(thread: &mut RunningThread, id: u32, result: UserPtr<Timespec>) -> Option<Result<usize>> {
    let clock = match Clock::new(id) {
        Ok(clock) => clock,
        Err(errno) => return Some(Err(errno)),
    };
    let time = timespec(clock.read(thread));
    thread.try_put(result, &time).then_some(Ok(0))
}

/// clock_getres(2). `EINVAL`: no such clock. `EFAULT`.
pub async fn clock_getres(thread: &mut RunningThread, id: u32, result: UserPtr<Timespec>) -> Result<usize> {
    Clock::new(id)?;
    if !result.is_null() {
        thread.put(result, &[0, 1]).await?;
    }
    Ok(0)
}

/// clock_settime(2). `EPERM`: without CAP_SYS_TIME. `EINVAL`: a clock that cannot be set. `EFAULT`.
pub async fn clock_settime(thread: &mut RunningThread, id: u32, time: UserPtr<Timespec>) -> Result<usize> {
    let time = duration(thread.get(time).await?)?;
    if id != general::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    if !thread.credentials.can(fs::permission::Capabilities::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    wall_clock::set(time);
    Ok(0)
}

/// settimeofday(2). `EPERM`, `EINVAL`, `EFAULT`. A time zone is accepted and has no effect.
pub async fn settimeofday(
    thread: &mut RunningThread,
    time: UserPtr<[i64; 2]>,
    _zone: UserPtr<[i32; 2]>,
) -> Result<usize> {
    if !thread.credentials.can(fs::permission::Capabilities::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    if !time.is_null() {
        wall_clock::set(duration_of_timeval(thread.get(time).await?)?);
    }
    Ok(0)
}

/// gettimeofday(2). `EFAULT`.
pub async fn gettimeofday(
    thread: &mut RunningThread,
    time: UserPtr<[i64; 2]>,
    zone: UserPtr<[i32; 2]>,
) -> Result<usize> {
    if !time.is_null() {
        thread.put(time, &timeval(wall_clock::now())).await?;
    }
    if !zone.is_null() {
        thread.put(zone, &[0, 0]).await?;
    }
    Ok(0)
}

/// time(2). `EFAULT`.
pub async fn time(thread: &mut RunningThread, result: UserPtr<i64>) -> Result<usize> {
    let seconds = wall_clock::now().as_secs() as i64;
    if !result.is_null() {
        thread.put(result, &seconds).await?;
    }
    Ok(seconds as usize)
}

/// A sleep that a signal interrupted and restart_syscall(2) goes on with.
#[derive(Clone, Copy, Debug)]
pub struct SleepToFinish {
    deadline: Instant,
    remaining: UserPtr<Timespec>,
}

async fn sleep(thread: &mut RunningThread, sleep: SleepToFinish, is_relative: bool) -> Result<usize> {
    let nothing = WaitQueue::new();
    match thread.wait_event(&nothing, Interruptible::BySignals, Some(sleep.deadline), || None::<()>).await {
        Err(Errno::ETIMEDOUT) | Ok(()) => Ok(0),
        Err(_) if !is_relative => Err(Errno::ERESTARTNOHAND),
        Err(_) => {
            if !sleep.remaining.is_null() {
                let left = sleep.deadline.saturating_duration_since(arch::clock::now());
                thread.put(sleep.remaining, &timespec(left)).await?;
            }
            thread.restart = Some(try_box(sleep)?);
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

/// nanosleep(2). `EINTR`: a handler ran; the rest is stored. `EINVAL`, `EFAULT`.
pub async fn nanosleep(
    thread: &mut RunningThread,
    request: UserPtr<Timespec>,
    remaining: UserPtr<Timespec>,
) -> Result<usize> {
    let deadline = after(duration(thread.get(request).await?)?);
    sleep(thread, SleepToFinish { deadline, remaining }, true).await
}

/// clock_nanosleep(2). `EINTR`, `EINVAL`, `EOPNOTSUPP`, `EFAULT`.
pub async fn clock_nanosleep(
    thread: &mut RunningThread,
    id: u32,
    flags: u32,
    request: UserPtr<Timespec>,
    remaining: UserPtr<Timespec>,
) -> Result<usize> {
    let clock = Clock::new(id)?;
    let time = duration(thread.get(request).await?)?;
    match clock {
        Clock::Thread => return Err(Errno::EINVAL),
        Clock::Process => return Err(Errno::EOPNOTSUPP),
        _ => {}
    }
    let is_relative = flags & general::TIMER_ABSTIME == 0;
    let deadline = if is_relative { after(time) } else { clock.instant(time)? };
    sleep(thread, SleepToFinish { deadline, remaining }, is_relative).await
}

/// restart_syscall(2). `EINTR`: there is nothing to go on with.
pub async fn restart_syscall(thread: &mut RunningThread) -> Result<usize> {
    match thread.restart.take() {
        Some(unfinished) => sleep(thread, *unfinished, true).await,
        None => Err(Errno::EINTR),
    }
}
