//! What programs rely on of timers: timer_create and its kin, setitimer, alarm, timerfd.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux.
//! The system calls are made without the C library, which has a timer of its own around the kernel's.
#![allow(unsafe_code, reason = "a program that makes system calls by number has no safe form")]

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use test_programs::{Case, Outcome, ensure, errno};

/// `struct itimerspec`: interval and value, in seconds and nanoseconds.
type Setting = [i64; 4];

const MILLISECOND: i64 = 1_000_000;
const REALTIME: i32 = libc::CLOCK_REALTIME;
const MONOTONIC: i32 = libc::CLOCK_MONOTONIC;
const SIGNAL: i32 = 40;

fn call(number: libc::c_long, arguments: [usize; 4]) -> Result<usize, i32> {
    let [a, b, c, d] = arguments;
    // SAFETY: each case passes what the call wants, or what it must refuse.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => Err(errno()),
        result => Ok(result as usize),
    }
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}

fn create_with(clock: i32, event: usize) -> Result<usize, i32> {
    let mut id = -1_i32;
    call(libc::SYS_timer_create, [clock as usize, event, (&raw mut id).addr(), 0])?;
    Ok(id as usize)
}

/// `struct sigevent`: value, signal, notify, thread.
fn create(clock: i32, value: u64, signal: i32, notify: i32, thread: i32) -> Result<usize, i32> {
    let mut event = [0_u32; 16];
    (event[0], event[1]) = (value as u32, (value >> 32) as u32);
    (event[2], event[3], event[4]) = (signal as u32, notify as u32, thread as u32);
    create_with(clock, address(&event))
}

fn set(id: usize, absolute: bool, setting: Setting) -> Result<Setting, i32> {
    let mut old = [-1; 4];
    call(libc::SYS_timer_settime, [id, usize::from(absolute), address(&setting), (&raw mut old).addr()])?;
    Ok(old)
}

fn get(id: usize) -> Result<Setting, i32> {
    let mut now = [-1; 4];
    call(libc::SYS_timer_gettime, [id, (&raw mut now).addr(), 0, 0])?;
    Ok(now)
}

fn overrun(id: usize) -> Result<usize, i32> {
    call(libc::SYS_timer_getoverrun, [id, 0, 0, 0])
}

fn delete(id: usize) -> Result<usize, i32> {
    call(libc::SYS_timer_delete, [id, 0, 0, 0])
}

fn every(interval: i64) -> Setting {
    [0, interval, 0, interval]
}

fn once(value: i64) -> Setting {
    [0, 0, value / 1_000_000_000, value % 1_000_000_000]
}

fn sleep(milliseconds: u64) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end {
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }
}

/// Blocks signals for this thread, and those it makes.
fn block(signals: &[i32]) {
    // SAFETY: a set of this function's own.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// What a timer's signal tells.
#[derive(Debug, PartialEq)]
struct Told {
    code: i32,
    timer: i32,
    overrun: i32,
    value: u64,
}

/// Waits for a blocked signal.
fn take(signal: i32, milliseconds: i64) -> Option<Told> {
    // SAFETY: the set, the information and the time are this function's own.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let time = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * MILLISECOND };
        if libc::sigtimedwait(&raw const set, &raw mut info, &raw const time) != signal {
            return None;
        }
        let words = (&raw const info).cast::<i32>();
        let value = words.add(6).cast::<u64>().read_unaligned();
        Some(Told { code: info.si_code, timer: words.add(4).read(), overrun: words.add(5).read(), value })
    }
}

/// Runs `work` in a child; the status of its end.
fn in_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: no other thread runs when this is called; the child ends without unwinding.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(work()),
            child => {
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                status
            }
        }
    }
}

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_signal: i32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
}

fn on_signal(signal: i32, handler: usize) {
    // SAFETY: the handler only counts.
    unsafe { libc::signal(signal, handler) };
}

fn counter() -> usize {
    count as extern "C" fn(i32) as usize
}

fn once_it_sends_its_signal_with_its_value() -> Outcome {
    block(&[SIGNAL, libc::SIGALRM]);
    for clock in [REALTIME, MONOTONIC, libc::CLOCK_BOOTTIME, libc::CLOCK_TAI] {
        let value = 0x1234_5678_9abc_def0;
        let id = create(clock, value, SIGNAL, 0, 0).map_err(|errno| format!("clock {clock}: {errno}"))?;
        ensure!(get(id) == Ok([0; 4]));
        let before = Instant::now();
        ensure!(set(id, false, once(20 * MILLISECOND)) == Ok([0; 4]));
        let told = take(SIGNAL, 5_000);
        ensure!(told == Some(Told { code: libc::SI_TIMER, timer: id as i32, overrun: 0, value }), "{told:?}");
        ensure!(before.elapsed() >= Duration::from_millis(19), "{:?}", before.elapsed());
        ensure!(get(id) == Ok([0; 4]) && take(SIGNAL, 30).is_none());
        ensure!(delete(id) == Ok(0) && delete(id) == Err(libc::EINVAL));
    }
    let id = create_with(MONOTONIC, 0).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, once(1)).is_ok());
    let told = take(libc::SIGALRM, 5_000);
    ensure!(told.is_some_and(|told| told.code == libc::SI_TIMER && told.value as u32 == id as u32));
    ensure!(delete(id) == Ok(0));
    Ok(())
}

fn expiries_that_nobody_took_are_an_overrun() -> Outcome {
    block(&[SIGNAL]);
    let id = create(MONOTONIC, 5, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
    let start = Instant::now();
    ensure!(set(id, false, every(5 * MILLISECOND)).is_ok());
    sleep(103);
    let told = take(SIGNAL, 0).ok_or("no signal")?;
    ensure!((19..=start.elapsed().as_millis() as i32 / 5).contains(&told.overrun), "{told:?}");
    ensure!(overrun(id) == Ok(told.overrun as usize));
    // It goes on in its old rhythm.
    let next = take(SIGNAL, 1_000).ok_or("no second signal")?;
    ensure!(overrun(id) == Ok(next.overrun as usize));
    let now = get(id).map_err(|errno| format!("errno {errno}"))?;
    ensure!(now[..3] == [0, 5 * MILLISECOND, 0] && (1..=5 * MILLISECOND).contains(&now[3]), "{now:?}");
    // A timer faster than anybody can take note of.
    ensure!(set(id, false, every(1)).is_ok());
    while take(SIGNAL, 0).is_some_and(|told| told.overrun == 0) {}
    sleep(20);
    let told = take(SIGNAL, 1_000).ok_or("no signal of the fast one")?;
    ensure!(told.overrun > 10_000, "{told:?}");
    let stopped = set(id, false, [0, 7, 0, 0]).map_err(|errno| format!("errno {errno}"))?;
    ensure!(stopped[..2] == [0, 1] && get(id) == Ok([0; 4]), "{stopped:?}");
    ensure!(delete(id) == Ok(0));
    while take(SIGNAL, 0).is_some() {}
    Ok(())
}

fn setting_it_anew_tells_what_was() -> Outcome {
    block(&[SIGNAL]);
    let id = create(MONOTONIC, 0, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, [3, 4, 100, 5]) == Ok([0; 4]));
    let now = get(id).map_err(|errno| format!("errno {errno}"))?;
    ensure!(now[..2] == [3, 4] && (99..=100).contains(&now[2]), "{now:?}");
    let old = set(id, false, once(10 * MILLISECOND)).map_err(|errno| format!("errno {errno}"))?;
    ensure!(old[..2] == [3, 4] && (99..=100).contains(&old[2]), "{old:?}");
    ensure!(take(SIGNAL, 2_000).is_some());
    // Taken away, it does not ring.
    ensure!(set(id, false, once(300 * MILLISECOND)).is_ok() && delete(id) == Ok(0));
    ensure!(take(SIGNAL, 400).is_none());
    Ok(())
}

fn absolute_times_are_told_by_the_clock() -> Outcome {
    block(&[SIGNAL]);
    for clock in [REALTIME, MONOTONIC] {
        let now = |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: room for a time.
            unsafe { libc::clock_gettime(clock, &raw mut time) };
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        let id = create(clock, 0, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
        let at = now(clock) + 30 * MILLISECOND;
        ensure!(set(id, true, once(at)).is_ok() && take(SIGNAL, 5_000).is_some() && now(clock) >= at);
        // What is past rings at once, and often if it has an interval.
        ensure!(set(id, true, once(at - 100 * MILLISECOND)).is_ok() && take(SIGNAL, 5_000).is_some());
        let start = now(clock) - 1_000 * MILLISECOND;
        let since = [0, 100 * MILLISECOND, start / 1_000_000_000, start % 1_000_000_000];
        ensure!(set(id, true, since).is_ok());
        let told = take(SIGNAL, 5_000).ok_or("no signal")?;
        ensure!(told.overrun >= 9, "{told:?}");
        ensure!(delete(id) == Ok(0));
        while take(SIGNAL, 0).is_some() {}
    }
    Ok(())
}

fn a_silent_timer_is_only_asked() -> Outcome {
    let id = create(MONOTONIC, 0, 0, 1, 0).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, once(200 * MILLISECOND)).is_ok());
    let now = get(id).map_err(|errno| format!("errno {errno}"))?;
    ensure!(now[..3] == [0; 3] && (1..=200 * MILLISECOND).contains(&now[3]), "{now:?}");
    sleep(201);
    ensure!(get(id) == Ok([0; 4]));
    ensure!(set(id, false, every(10 * MILLISECOND)).is_ok());
    sleep(25);
    let now = get(id).map_err(|errno| format!("errno {errno}"))?;
    ensure!(now[..3] == [0, 10 * MILLISECOND, 0] && (1..=10 * MILLISECOND).contains(&now[3]), "{now:?}");
    ensure!(overrun(id) == Ok(0) && delete(id) == Ok(0));
    Ok(())
}

fn a_thread_gets_what_is_for_it_alone() -> Outcome {
    block(&[SIGNAL]);
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        // SAFETY: it only tells a number.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) };
        sender.send(tid as i32).expect("somebody waits");
        take(SIGNAL, 5_000)
    });
    let tid = receiver.recv().map_err(|error| error.to_string())?;
    let id = create(MONOTONIC, 9, SIGNAL, 4, tid).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, once(50 * MILLISECOND)).is_ok());
    ensure!(take(SIGNAL, 100).is_none());
    let told = other.join().map_err(|_| "the thread panicked")?;
    ensure!(told.as_ref().is_some_and(|told| told.value == 9 && told.timer == id as i32), "{told:?}");
    // Nobody is there any more to tell.
    ensure!(set(id, false, every(MILLISECOND)).is_ok());
    ensure!(take(SIGNAL, 20).is_none() && delete(id) == Ok(0));
    Ok(())
}

fn what_makes_no_sense_is_refused() -> Outcome {
    let einval = Err(libc::EINVAL);
    ensure!(create(10, 0, SIGNAL, 0, 0) == einval && create(99, 0, SIGNAL, 0, 0) == einval);
    for clock in [libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_MONOTONIC_COARSE] {
        ensure!(create(clock, 0, SIGNAL, 0, 0) == Err(libc::EOPNOTSUPP));
    }
    ensure!(create(MONOTONIC, 0, 0, 0, 0) == einval && create(MONOTONIC, 0, 65, 0, 0) == einval);
    ensure!(create(MONOTONIC, 0, SIGNAL, 3, 0) == einval && create(MONOTONIC, 0, SIGNAL, 77, 0) == einval);
    ensure!(create(MONOTONIC, 0, SIGNAL, 4, 1) == einval && create(MONOTONIC, 0, SIGNAL, 4, 0x3fff_fff0) == einval);
    ensure!(call(libc::SYS_timer_create, [MONOTONIC as usize, 0, 8, 0]) == Err(libc::EFAULT));
    ensure!(create_with(MONOTONIC, 8) == Err(libc::EFAULT));
    let unknown = 0x7fff_fff0;
    ensure!(get(unknown).is_err_and(|errno| errno == libc::EINVAL) && overrun(unknown) == einval);
    ensure!(set(unknown, false, once(1)).is_err_and(|errno| errno == libc::EINVAL) && delete(unknown) == einval);
    let id = create(MONOTONIC, 0, SIGNAL, 1, 0).map_err(|errno| format!("errno {errno}"))?;
    for wrong in [[0, 0, 0, -1], [0, 0, 0, 1_000_000_000], [0, 0, -1, 0], [0, -1, 1, 0], [0, 1_000_000_000, 1, 0]] {
        ensure!(set(id, false, wrong).is_err_and(|errno| errno == libc::EINVAL), "{wrong:?}");
    }
    ensure!(call(libc::SYS_timer_settime, [id, 0, 0, 0]) == einval);
    ensure!(call(libc::SYS_timer_settime, [id, 0, 8, 0]) == Err(libc::EFAULT));
    ensure!(call(libc::SYS_timer_gettime, [id, 8, 0, 0]) == Err(libc::EFAULT));
    ensure!(delete(id) == Ok(0));
    let many = in_child(|| {
        let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
        // SAFETY: a valid limit.
        unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const limit) };
        let errno = (0..100).find_map(|_| create(MONOTONIC, 0, SIGNAL, 0, 0).err());
        i32::from(errno != Some(libc::EAGAIN))
    });
    ensure!(many == 0);
    Ok(())
}

fn a_child_and_a_new_program_have_none() -> Outcome {
    use std::os::unix::process::CommandExt;
    let id = create(MONOTONIC, 0, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, once(3_600_000 * MILLISECOND)).is_ok());
    ensure!(in_child(|| i32::from(get(id) != Err(libc::EINVAL))) == 0);
    ensure!(delete(id) == Ok(0));
    let status = in_child(|| {
        let Ok(id) = create(MONOTONIC, 0, SIGNAL, 0, 0) else { return 1 };
        // SAFETY: it only sets a timer, which the new program keeps.
        unsafe { libc::alarm(1_000) };
        if set(id, false, once(10 * MILLISECOND)).is_err() {
            return 2;
        }
        drop(std::process::Command::new("/proc/self/exe").args(["after-exec", &id.to_string()]).exec());
        3
    });
    ensure!(status == 0, "{status:#x}");
    Ok(())
}

/// What the new program looks at: no timer of the old one, but its alarm.
fn after_exec(id: usize) -> i32 {
    sleep(30);
    if get(id) != Err(libc::EINVAL) {
        return 10;
    }
    // SAFETY: it only tells and unsets a timer.
    let left = unsafe { libc::alarm(0) };
    if (990..=1_000).contains(&left) { 0 } else { 11 }
}

fn an_ignored_signal_does_not_stop_its_timer() -> Outcome {
    block(&[]);
    on_signal(SIGNAL, libc::SIG_IGN);
    let id = create(MONOTONIC, 0, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
    ensure!(set(id, false, every(5 * MILLISECOND)).is_ok());
    sleep(30);
    SEEN.store(0, Ordering::Relaxed);
    on_signal(SIGNAL, counter());
    sleep(100);
    let seen = SEEN.load(Ordering::Relaxed);
    ensure!(seen >= 3, "{seen} signals");
    ensure!(delete(id) == Ok(0));
    Ok(())
}

/// Sets or unsets ITIMER_REAL: interval and value in microseconds.
fn set_interval_timer(interval: i64, value: i64) -> [i64; 4] {
    let setting = [interval / 1_000_000, interval % 1_000_000, value / 1_000_000, value % 1_000_000];
    let mut old = [-1_i64; 4];
    let _ = call(libc::SYS_setitimer, [0, address(&setting), (&raw mut old).addr(), 0]);
    old
}

fn the_interval_timer_rings_until_it_is_off() -> Outcome {
    block(&[]);
    on_signal(libc::SIGALRM, counter());
    SEEN.store(0, Ordering::Relaxed);
    let start = Instant::now();
    set_interval_timer(5_000, 5_000);
    sleep(103);
    let mut now = [-1_i64; 4];
    ensure!(call(libc::SYS_getitimer, [0, (&raw mut now).addr(), 0, 0]) == Ok(0));
    ensure!(now[..3] == [0, 5_000, 0] && (1..=5_000).contains(&now[3]), "{now:?}");
    let old = set_interval_timer(0, 0);
    let (seen, most) = (SEEN.load(Ordering::Relaxed), start.elapsed().as_millis() as i32 / 5);
    ensure!((3..=most).contains(&seen) && old[..3] == [0, 5_000, 0], "{seen} signals, {old:?}");
    sleep(20);
    ensure!(SEEN.load(Ordering::Relaxed) == seen);
    set_interval_timer(7, 0);
    ensure!(set_interval_timer(0, 0) == [0; 4]);
    // SAFETY: it only sets and unsets a timer.
    let left = unsafe { [libc::alarm(100), libc::alarm(50), libc::alarm(0), libc::alarm(0)] };
    ensure!(left == [0, 100, 50, 0], "{left:?}");
    Ok(())
}

/// A timer's file: its setting, and how many expiries a read tells of.
fn read_timer(fd: i32) -> Option<u64> {
    let mut count = 0_u64;
    // SAFETY: room for a number.
    let len = unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
    (len == 8).then_some(count)
}

fn a_timers_file_tells_how_often_it_expired() -> Outcome {
    // SAFETY: descriptors and times of this case's own.
    unsafe {
        let fd = libc::timerfd_create(MONOTONIC, libc::TFD_NONBLOCK);
        let set = |setting: Setting| call(libc::SYS_timerfd_settime, [fd as usize, 0, address(&setting), 0]);
        let ready = |milliseconds| {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            libc::poll(&raw mut poll, 1, milliseconds) == 1
        };
        ensure!(fd >= 0 && read_timer(fd).is_none() && !ready(0));
        ensure!(set(every(5 * MILLISECOND)) == Ok(0) && ready(1_000));
        ensure!(read_timer(fd).is_some_and(|count| count >= 1));
        sleep(53);
        let count = read_timer(fd).unwrap_or(0);
        ensure!(count >= 10, "{count}");
        ensure!(ready(1_000) && read_timer(fd).is_some());
        ensure!(set(every(1)) == Ok(0));
        sleep(20);
        let count = read_timer(fd).unwrap_or(0);
        ensure!(count >= 19_000_000, "{count}");
        ensure!(set(once(200 * MILLISECOND)) == Ok(0) && read_timer(fd).is_none());
        ensure!(ready(1_000) && ready(0) && read_timer(fd) == Some(1) && !ready(20));
        let mut now = [-1_i64; 4];
        ensure!(call(libc::SYS_timerfd_gettime, [fd as usize, (&raw mut now).addr(), 0, 0]) == Ok(0) && now == [0; 4]);
        // A reader that waits is woken.
        ensure!(set(once(20 * MILLISECOND)) == Ok(0));
        libc::fcntl(fd, libc::F_SETFL, 0);
        ensure!(read_timer(fd) == Some(1));
        libc::close(fd);
    }
    Ok(())
}

/// How many tasks this kernel has, where it tells.
fn tasks() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/rouse/counters").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("tasks "))?.parse().ok()
}

fn setting_a_timer_again_and_again_leaves_nothing_behind() -> Outcome {
    let before = tasks();
    let id = create(MONOTONIC, 0, SIGNAL, 0, 0).map_err(|errno| format!("errno {errno}"))?;
    // SAFETY: a descriptor and timers of this case's own.
    unsafe {
        let fd = libc::timerfd_create(MONOTONIC, 0);
        for round in 0..2_000 {
            libc::alarm(1_000 + round);
            ensure!(set(id, false, once(3_600_000 * MILLISECOND)).is_ok());
            ensure!(
                call(libc::SYS_timerfd_settime, [fd as usize, 0, address(&once(3_600_000 * MILLISECOND)), 0]) == Ok(0)
            );
            if round % 2 == 0 {
                ensure!(set(id, false, [0; 4]).is_ok() && libc::alarm(0) > 0);
            }
        }
        libc::alarm(0);
        libc::close(fd);
    }
    ensure!(delete(id) == Ok(0));
    sleep(20);
    if let (Some(before), Some(after)) = (before, tasks()) {
        ensure!(after <= before + 2, "{before} tasks before, {after} after");
    }
    Ok(())
}

const CASES: &[Case] = &[
    ("once it sends its signal with its value", once_it_sends_its_signal_with_its_value),
    ("expiries that nobody took are an overrun", expiries_that_nobody_took_are_an_overrun),
    ("setting it anew tells what was", setting_it_anew_tells_what_was),
    ("absolute times are told by the clock", absolute_times_are_told_by_the_clock),
    ("a silent timer is only asked", a_silent_timer_is_only_asked),
    ("a thread gets what is for it alone", a_thread_gets_what_is_for_it_alone),
    ("what makes no sense is refused", what_makes_no_sense_is_refused),
    ("a child and a new program have none", a_child_and_a_new_program_have_none),
    ("an ignored signal does not stop its timer", an_ignored_signal_does_not_stop_its_timer),
    ("the interval timer rings until it is off", the_interval_timer_rings_until_it_is_off),
    ("a timer's file tells how often it expired", a_timers_file_tells_how_often_it_expired),
    ("setting a timer again and again leaves nothing behind", setting_a_timer_again_and_again_leaves_nothing_behind),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, what, id] = &arguments[..]
        && what == "after-exec"
    {
        std::process::exit(after_exec(id.parse().unwrap_or(usize::MAX)));
    }
    std::process::exit(test_programs::run(CASES));
}
