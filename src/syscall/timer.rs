//! Timers that send signals: setitimer(2), alarm(2), timer_create(2).
//!
//! Next: `../process/timer.rs`.

use alloc::sync::Arc;
use core::time::Duration;

use abi::{Errno, Result, general};

use super::time::{self, Clock, Timespec};
use crate::mm::user::UserPtr;
use crate::process::posix_timer::{Notice, PosixTimer};
use crate::process::timer::{Owner, Timer, TimerSetting};
use crate::process::timers::{CpuTimerKind, IntervalTimers};
use crate::process::{RunningThread, Signal, table};

fn setting([interval_seconds, interval_micros, value_seconds, value_micros]: [i64; 4]) -> Result<TimerSetting> {
    let interval = time::duration_of_timeval([interval_seconds, interval_micros])?;
    let value = time::duration_of_timeval([value_seconds, value_micros])?;
    // A timer that is off has no interval.
    Ok(if value.is_zero() { TimerSetting::default() } else { TimerSetting { interval, value } })
}

fn words(setting: TimerSetting) -> [i64; 4] {
    let interval = time::timeval(setting.interval);
    // A timer that is on never shows zero.
    let value = if setting.value.is_zero() { Duration::ZERO } else { setting.value.max(Duration::from_micros(1)) };
    let value = time::timeval(value);
    [interval[0], interval[1], value[0], value[1]]
}

fn cpu_timer(thread: &mut RunningThread, which: u32) -> Result<(CpuTimerKind, u64)> {
    thread.account();
    let (user, system) = thread.process.times.read();
    match which {
        general::ITIMER_VIRTUAL => Ok((CpuTimerKind::Virtual, user)),
        general::ITIMER_PROF => Ok((CpuTimerKind::Profile, user.saturating_add(system))),
        _ => Err(Errno::EINVAL),
    }
}

/// getitimer(2). `EINVAL`: no such timer. `EFAULT`.
pub async fn getitimer(thread: &mut RunningThread, which: u32, result: UserPtr<[i64; 4]>) -> Result<usize> {
    let setting = if which == general::ITIMER_REAL {
        thread.process.timers.real()
    } else {
        let (kind, now) = cpu_timer(thread, which)?;
        thread.process.timers.cpu(kind, now)
    };
    thread.put(result, &words(setting)).await?;
    Ok(0)
}

/// setitimer(2). `EINVAL`: no such timer, or a time out of range. `EFAULT`, `ENOMEM`.
pub async fn setitimer(
    thread: &mut RunningThread,
    which: u32,
    new: UserPtr<[i64; 4]>,
    old: UserPtr<[i64; 4]>,
) -> Result<usize> {
    let new = if new.is_null() { TimerSetting::default() } else { setting(thread.get(new).await?)? };
    let before = if which == general::ITIMER_REAL {
        IntervalTimers::set_real(&thread.process, new)?
    } else {
        let (kind, now) = cpu_timer(thread, which)?;
        thread.process.timers.set_cpu(kind, now, new)
    };
    if !old.is_null() {
        thread.put(old, &words(before)).await?;
    }
    Ok(0)
}

/// alarm(2): returns the seconds that were left, rounded to at least one. `ENOMEM`.
pub fn alarm(thread: &mut RunningThread, seconds: u32) -> Result<usize> {
    let setting = TimerSetting { interval: Duration::ZERO, value: Duration::from_secs(u64::from(seconds)) };
    let before = IntervalTimers::set_real(&thread.process, setting)?.value;
    let rounded = before.as_secs() + u64::from(before.subsec_nanos() >= 500_000_000);
    Ok(if before.is_zero() { 0 } else { rounded.max(1) as usize })
}

/// `struct sigevent`, as words of 32 bits: value (two), signal, how to notify, thread.
type EventWords = [u32; 16];
/// `struct itimerspec`: interval, then value.
type TimerWords = [Timespec; 2];

/// Which clocks a timer may go by, as Linux has it.
fn clock(id: u32) -> Result<Clock> {
    match id {
        general::CLOCK_REALTIME
        | general::CLOCK_MONOTONIC
        | general::CLOCK_BOOTTIME
        | general::CLOCK_TAI
        | general::CLOCK_REALTIME_ALARM
        | general::CLOCK_BOOTTIME_ALARM => Clock::new(id),
        // Of the others, those that only tell the time have no timers; CPU time is looked at too seldom to have any.
        _ => Clock::new(id).and(Err(Errno::EOPNOTSUPP)),
    }
}

/// What `struct sigevent` asks for: whom to tell, and what of.
fn notice(thread: &RunningThread, event: &EventWords) -> Result<(Notice, u64)> {
    let value = u64::from(event[0]) | u64::from(event[1]) << 32;
    let signal = || Signal::new(event[2] as usize);
    let notice = match event[3] {
        general::SIGEV_NONE => Notice::None,
        // The C library's threads are its own affair.
        general::SIGEV_SIGNAL | general::SIGEV_THREAD => Notice::Process(signal()?),
        general::SIGEV_THREAD_ID => {
            let receiver = table::thread(event[4] as i32).filter(|other| Arc::ptr_eq(&other.process, &thread.process));
            Notice::Thread(signal()?, Arc::downgrade(&receiver.ok_or(Errno::EINVAL)?))
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok((notice, value))
}

/// timer_create(2). `EINVAL`: no such clock, way to notify, signal or thread. `EOPNOTSUPP`: the clock has no timers. `EAGAIN`: too many
/// timers. `EFAULT`.
pub async fn timer_create(
    thread: &mut RunningThread,
    id: u32,
    event: UserPtr<EventWords>,
    result: UserPtr<i32>,
) -> Result<usize> {
    let clock = clock(id)?;
    let (notice, value) = if event.is_null() {
        (Notice::Process(Signal::SIGALRM), None)
    } else {
        let event = thread.get(event).await?;
        let (notice, value) = notice(thread, &event)?;
        (notice, Some(value))
    };
    let process = thread.process.clone();
    let limit = process.limits.lock().soft(general::RLIMIT_SIGPENDING);
    let timer = process.timers.posix.create(&process, limit, clock, notice, value)?;
    if let Err(errno) = thread.put(result, &timer).await {
        process.timers.posix.delete(timer)?;
        return Err(errno);
    }
    Ok(0)
}

fn timer_words(timer: &PosixTimer) -> TimerWords {
    let setting = timer.timer().setting();
    [time::timespec(setting.interval), time::timespec(setting.value)]
}

/// timer_settime(2). `EINVAL`: no such timer, or times out of range. `EFAULT`, `ENOMEM`.
pub async fn timer_settime(
    thread: &mut RunningThread,
    id: i32,
    flags: u32,
    new: UserPtr<TimerWords>,
    old: UserPtr<TimerWords>,
) -> Result<usize> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = thread.get(new).await?;
    let (interval, value) = (time::duration(interval)?, time::duration(value)?);
    let timer = thread.process.timers.posix.get(id)?;
    let before = timer_words(&timer);
    timer.forget_overrun();
    if value.is_zero() {
        timer.timer().stop();
    } else {
        let is_absolute = flags & general::TIMER_ABSTIME != 0;
        let next = if is_absolute { timer.clock.instant(value)? } else { time::after(value) };
        if timer.is_silent() {
            timer.timer().set_silently(Some(next), interval);
        } else {
            Timer::set(&timer, Some(next), interval)?;
        }
    }
    if !old.is_null() {
        thread.put(old, &before).await?;
    }
    Ok(0)
}

/// timer_gettime(2). `EINVAL`: no such timer. `EFAULT`.
pub async fn timer_gettime(thread: &mut RunningThread, id: i32, result: UserPtr<TimerWords>) -> Result<usize> {
    let timer = thread.process.timers.posix.get(id)?;
    thread.put(result, &timer_words(&timer)).await?;
    Ok(0)
}

/// timer_getoverrun(2). `EINVAL`: no such timer.
pub fn timer_getoverrun(thread: &mut RunningThread, id: i32) -> Result<usize> {
    Ok(thread.process.timers.posix.get(id)?.last_overrun() as usize)
}

/// timer_delete(2). `EINVAL`: no such timer. A signal that waits already is delivered.
pub fn timer_delete(thread: &mut RunningThread, id: i32) -> Result<usize> {
    thread.process.timers.posix.delete(id).map(|()| 0)
}
