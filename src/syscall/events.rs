//! epoll, eventfd, timerfd.

use alloc::sync::Arc;
use core::time::Duration;

use abi::{Errno, Result, general};
use executor::Instant;
use fs::{OpenFile, OpenFlags};

use super::poll::replace_mask;
use super::time::{self, Clock, Timespec};
use crate::files::epoll::{Epoll, EpollFile, Event};
use crate::files::event::EventCounter;
use crate::files::timer::TimerFile;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::wait_event::Interruptible;

/// epoll_create(2). `EINVAL`: not a positive size. `EMFILE`, `ENOMEM`.
pub fn epoll_create(thread: &mut RunningThread, size: i32) -> Result<usize> {
    if size <= 0 { Err(Errno::EINVAL) } else { epoll_create1(thread, 0) }
}

/// epoll_create1(2). `EINVAL`: unknown flags. `EMFILE`, `ENOMEM`.
pub fn epoll_create1(thread: &mut RunningThread, flags: u32) -> Result<usize> {
    if flags & !general::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = EpollFile(Arc::new(Epoll::default()));
    let flags = OpenFlags::RDWR | OpenFlags::from_bits_truncate(flags);
    thread.new_file(Arc::new(file), flags).map(|fd| fd.0 as usize)
}

fn epoll_of(file: &OpenFile) -> Result<Arc<Epoll>> {
    file.ops.as_any().downcast_ref::<EpollFile>().map(|epoll| epoll.0.clone()).ok_or(Errno::EINVAL)
}

/// `struct epoll_event`, which is packed on x86_64: events, then the low and the high half of the data.
type EventWords = [u32; 3];

/// epoll_ctl(2). `EBADF`; `EINVAL`: not an epoll instance, itself, or an unknown operation; `EEXIST`, `ENOENT`, `EPERM`, `ELOOP`, `EFAULT`.
pub async fn epoll_ctl(
    thread: &mut RunningThread,
    fd: Fd,
    operation: u32,
    target: Fd,
    event: UserPtr<EventWords>,
) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let watched = thread.files.get(target)?;
    let epoll = epoll_of(&file)?;
    if Arc::ptr_eq(&file, &watched) {
        return Err(Errno::EINVAL);
    }
    let get = async || {
        let [events, low, high] = thread.get(event).await?;
        Ok::<_, Errno>(Event { events, data: u64::from(low) | u64::from(high) << 32 })
    };
    match operation {
        general::EPOLL_CTL_ADD => epoll.add(target.0, &watched, get().await?)?,
        general::EPOLL_CTL_MOD => epoll.modify(target.0, &watched, get().await?)?,
        general::EPOLL_CTL_DEL => epoll.remove(target.0, &watched)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// The most events of one call.
const EVENTS_MAX: usize = i32::MAX as usize / 12;
/// The most events that one call returns, however much room there is.
const AT_ONCE: usize = 1024;

async fn wait(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<EventWords>,
    count: i32,
    deadline: Option<Instant>,
) -> Result<usize> {
    let count = usize::try_from(count).ok().filter(|count| (1..=EVENTS_MAX).contains(count)).ok_or(Errno::EINVAL)?;
    let file = thread.files.get(fd)?;
    let epoll = epoll_of(&file)?;
    let attempt = || {
        let events = epoll.take(count.min(AT_ONCE));
        (!events.is_empty()).then_some(events)
    };
    let events = match thread.wait_event(epoll.changed(), Interruptible::BySignals, deadline, attempt).await {
        Ok(events) => events,
        Err(Errno::ETIMEDOUT) => return Ok(0),
        Err(_) => return Err(Errno::EINTR),
    };
    for (index, event) in events.iter().enumerate() {
        thread.put(list.element(index), &[event.events, event.data as u32, (event.data >> 32) as u32]).await?;
    }
    Ok(events.len())
}

fn deadline_of_milliseconds(timeout: i32) -> Option<Instant> {
    u64::try_from(timeout).ok().map(|ms| time::after(Duration::from_millis(ms)))
}

/// epoll_wait(2). `EBADF`, `EINVAL`, `EINTR`, `EFAULT`.
pub async fn epoll_wait(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<EventWords>,
    count: i32,
    timeout: i32,
) -> Result<usize> {
    wait(thread, fd, list, count, deadline_of_milliseconds(timeout)).await
}

/// epoll_pwait(2). As epoll_wait(2).
pub async fn epoll_pwait(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<EventWords>,
    count: i32,
    timeout: i32,
    mask: UserPtr<u64>,
) -> Result<usize> {
    replace_mask(thread, mask, 8).await?;
    wait(thread, fd, list, count, deadline_of_milliseconds(timeout)).await
}

/// epoll_pwait2(2). As epoll_wait(2).
pub async fn epoll_pwait2(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<EventWords>,
    count: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
) -> Result<usize> {
    let deadline =
        if timeout.is_null() { None } else { Some(time::after(time::duration(thread.get(timeout).await?)?)) };
    replace_mask(thread, mask, 8).await?;
    wait(thread, fd, list, count, deadline).await
}

/// eventfd(2), as the kernel first had it.
pub fn eventfd(thread: &mut RunningThread, count: u32) -> Result<usize> {
    eventfd2(thread, count, 0)
}

/// eventfd2(2). `EINVAL`: unknown flags. `EMFILE`, `ENOMEM`.
pub fn eventfd2(thread: &mut RunningThread, count: u32, flags: u32) -> Result<usize> {
    let known = general::EFD_CLOEXEC | general::EFD_NONBLOCK | general::EFD_SEMAPHORE;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let counter = EventCounter::new(u64::from(count), flags & general::EFD_SEMAPHORE != 0);
    let flags = OpenFlags::RDWR | OpenFlags::from_bits_truncate(flags & !general::EFD_SEMAPHORE);
    thread.new_file(Arc::new(counter), flags).map(|fd| fd.0 as usize)
}

/// timerfd_create(2). `EINVAL`: no such clock, or unknown flags. `EMFILE`, `ENOMEM`.
pub fn timerfd_create(thread: &mut RunningThread, clock: u32, flags: u32) -> Result<usize> {
    let clock = match Clock::new(clock)? {
        Clock::Process | Clock::Thread => return Err(Errno::EINVAL),
        clock => clock,
    };
    if flags & !(general::TFD_CLOEXEC | general::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = OpenFlags::RDWR | OpenFlags::from_bits_truncate(flags);
    // Behind an Arc of its own, for the task that wakes its readers.
    thread.new_file(Arc::new(TimerFile::new(clock)), flags).map(|fd| fd.0 as usize)
}

fn timer_of(file: &OpenFile) -> Result<Arc<TimerFile>> {
    let ops: Arc<dyn core::any::Any + Send + Sync> = file.ops.clone();
    ops.downcast::<TimerFile>().map_err(|_| Errno::EINVAL)
}

/// `struct itimerspec`: interval, then value.
type TimerWords = [Timespec; 2];

/// timerfd_settime(2). `EBADF`; `EINVAL`: not a timer, unknown flags, or times out of range; `EFAULT`.
pub async fn timerfd_settime(
    thread: &mut RunningThread,
    fd: Fd,
    flags: u32,
    new: UserPtr<TimerWords>,
    old: UserPtr<TimerWords>,
) -> Result<usize> {
    if flags & !(general::TFD_TIMER_ABSTIME | general::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = thread.get(new).await?;
    let (interval, value) = (time::duration(interval)?, time::duration(value)?);
    let timer = timer_of(&*thread.files.get(fd)?)?;
    let before = timer.setting();
    let next = match value {
        Duration::ZERO => None,
        value if flags & general::TFD_TIMER_ABSTIME != 0 => Some(timer.clock.instant(value)?),
        value => Some(time::after(value)),
    };
    timer.set(next, interval)?;
    if !old.is_null() {
        thread.put(old, &[time::timespec(before.interval), time::timespec(before.value)]).await?;
    }
    Ok(0)
}

/// timerfd_gettime(2). `EBADF`, `EINVAL`: not a timer. `EFAULT`.
pub async fn timerfd_gettime(thread: &mut RunningThread, fd: Fd, result: UserPtr<TimerWords>) -> Result<usize> {
    let timer = timer_of(&*thread.files.get(fd)?)?;
    let now = timer.setting();
    thread.put(result, &[time::timespec(now.interval), time::timespec(now.value)]).await?;
    Ok(0)
}
