//! How threads share a CPU: policies, priorities, nice values (sched(7)). It passes on Linux.
//!
//! Without an argument it runs the cases, says which have failed, and exits with their number. `shares` and `latency` print figures
//! instead, for a machine that counts instructions.
#![allow(unsafe_code, reason = "a program that makes system calls by number has no safe form")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use test_programs::{Case, Outcome, ensure};

fn call(number: libc::c_long, arguments: [usize; 4]) -> Result<usize, i32> {
    let [a, b, c, d] = arguments;
    // SAFETY: each case passes what the call wants, or what it must refuse.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => Ok(result as usize),
    }
}

const MYSELF: i32 = 0;

fn set_scheduler(tid: i32, policy: i32, priority: i32) -> Result<(), i32> {
    let address = std::ptr::from_ref(&priority).addr();
    call(libc::SYS_sched_setscheduler, [tid as usize, policy as usize, address, 0]).map(drop)
}

fn scheduler(tid: i32) -> Result<i32, i32> {
    call(libc::SYS_sched_getscheduler, [tid as usize, 0, 0, 0]).map(|policy| policy as i32)
}

fn priority(tid: i32) -> Result<i32, i32> {
    let mut priority = -1_i32;
    call(libc::SYS_sched_getparam, [tid as usize, (&raw mut priority).addr(), 0, 0])?;
    Ok(priority)
}

fn set_nice(which: u32, who: i32, nice: i32) -> Result<(), i32> {
    call(libc::SYS_setpriority, [which as usize, who as usize, nice as usize, 0]).map(drop)
}

fn nice(which: u32, who: i32) -> Result<i32, i32> {
    call(libc::SYS_getpriority, [which as usize, who as usize, 0, 0]).map(|answer| 20 - answer as i32)
}

/// `struct sched_attr`, as of Linux 3.14.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
}

fn attributes(tid: i32) -> Result<Attributes, i32> {
    let mut found = Attributes::default();
    call(libc::SYS_sched_getattr, [tid as usize, (&raw mut found).addr(), size_of::<Attributes>(), 0])?;
    Ok(found)
}

fn set_attributes(tid: i32, wanted: Attributes) -> Result<(), i32> {
    let wanted = Attributes { size: size_of::<Attributes>() as u32, ..wanted };
    call(libc::SYS_sched_setattr, [tid as usize, std::ptr::from_ref(&wanted).addr(), 0, 0]).map(drop)
}

fn pin(cpu: u32) {
    let mask = 1_u64 << cpu;
    call(libc::SYS_sched_setaffinity, [0, 8, std::ptr::from_ref(&mask).addr(), 0]).expect("there is such a CPU");
}

fn tid() -> i32 {
    call(libc::SYS_gettid, [0; 4]).expect("it cannot fail") as i32
}

/// Runs `body` in a child process, whose outcome it answers.
fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    // SAFETY: the cases have no other threads at this time.
    match unsafe { libc::fork() } {
        0 => {
            let outcome = body();
            if let Err(said) = &outcome {
                eprintln!("in the child: {said}");
            }
            // SAFETY: ends the process, which shares nothing that is to be flushed.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status outlives the call.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
            Ok(())
        }
    }
}

/// What this thread has used of a CPU.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Threads that all compute on CPU 0 for the same `span`; what each has had of it. `prepare` sets each one up.
fn compete<T: Copy + Send + 'static>(span: Duration, each: &[T], prepare: fn(T)) -> Vec<Duration> {
    let end = Arc::new(OnceLock::new());
    let start = |&what: &T| {
        let end = Arc::clone(&end);
        thread::spawn(move || {
            pin(0);
            prepare(what);
            let end: Instant = loop {
                match end.get() {
                    Some(end) => break *end,
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            let before = cpu_time();
            while Instant::now() < end {}
            cpu_time() - before
        })
    };
    let threads: Vec<_> = each.iter().map(start).collect();
    // They have set themselves up and sleep.
    thread::sleep(Duration::from_millis(200));
    end.get_or_init(|| Instant::now() + span);
    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

fn policies_are_kept_by_each_thread() -> Outcome {
    for (policy, urgency) in
        [(libc::SCHED_FIFO, 10), (libc::SCHED_RR, 99), (libc::SCHED_BATCH, 0), (libc::SCHED_IDLE, 0)]
    {
        let in_thread = thread::spawn(move || {
            (set_scheduler(MYSELF, policy, urgency), scheduler(MYSELF), priority(tid()), attributes(MYSELF))
        });
        let (set, found, urgent, attributes) = in_thread.join().expect("it does not panic");
        ensure!(set == Ok(()), "policy {policy}: {set:?}");
        ensure!((found, urgent) == (Ok(policy), Ok(urgency)), "policy {policy}: {found:?} {urgent:?}");
        let attributes = attributes.map_err(|error| format!("sched_getattr: {error}"))?;
        ensure!((attributes.policy, attributes.priority) == (policy as u32, urgency as u32), "{attributes:?}");
        ensure!((scheduler(MYSELF), priority(MYSELF)) == (Ok(libc::SCHED_OTHER), Ok(0)));
    }
    Ok(())
}

fn what_makes_no_sense_is_refused() -> Outcome {
    let invalid = Err(libc::EINVAL);
    for (policy, urgency) in
        [(libc::SCHED_FIFO, 0), (libc::SCHED_FIFO, 100), (libc::SCHED_RR, -1), (libc::SCHED_OTHER, 1), (4, 0), (99, 0)]
    {
        ensure!(set_scheduler(MYSELF, policy, urgency) == invalid, "policy {policy}, priority {urgency}");
    }
    ensure!(set_scheduler(-1, libc::SCHED_OTHER, 0) == invalid);
    ensure!(set_scheduler(999_999, libc::SCHED_OTHER, 0) == Err(libc::ESRCH));
    ensure!(call(libc::SYS_sched_setscheduler, [0, 0, 8, 0]) == Err(libc::EFAULT));
    ensure!(set_attributes(MYSELF, Attributes { policy: 99, ..Attributes::default() }) == invalid);
    ensure!(set_attributes(MYSELF, Attributes { flags: 1 << 40, ..Attributes::default() }) == invalid);
    let mut short = Attributes { size: 40, ..Attributes::default() };
    ensure!(call(libc::SYS_sched_setattr, [0, (&raw mut short).addr(), 0, 0]) == Err(libc::E2BIG));
    ensure!(short.size >= 48, "it says how large the structure is: {}", short.size);
    ensure!(call(libc::SYS_sched_getattr, [0, (&raw mut short).addr(), 40, 0]) == Err(libc::EINVAL));
    ensure!(call(libc::SYS_sched_setattr, [0, (&raw mut short).addr(), 1, 0]) == Err(libc::EINVAL));
    Ok(())
}

fn attributes_set_what_they_say() -> Outcome {
    in_child(|| {
        let batch = Attributes { policy: libc::SCHED_BATCH as u32, nice: 7, ..Attributes::default() };
        ensure!(set_attributes(MYSELF, batch) == Ok(()));
        let found = attributes(MYSELF).map_err(|error| error.to_string())?;
        ensure!((found.policy, found.nice) == (batch.policy, 7), "{found:?}");
        ensure!(nice(libc::PRIO_PROCESS, 0) == Ok(7));
        // Only the flag changes: on Linux the policy goes with the parameters.
        const RESET_ON_FORK: u64 = 1;
        const KEEP_PARAMETERS: u64 = 0x10;
        let other = Attributes { flags: KEEP_PARAMETERS | RESET_ON_FORK, nice: 3, ..Attributes::default() };
        ensure!(set_attributes(MYSELF, other) == Ok(()));
        let found = attributes(MYSELF).map_err(|error| error.to_string())?;
        ensure!((found.policy, found.nice, found.flags) == (batch.policy, 7, RESET_ON_FORK), "{found:?}");
        let fifo = Attributes { policy: libc::SCHED_FIFO as u32, priority: 3, ..Attributes::default() };
        ensure!(set_attributes(MYSELF, fifo) == Ok(()));
        ensure!((scheduler(MYSELF), priority(MYSELF)) == (Ok(libc::SCHED_FIFO), Ok(3)));
        Ok(())
    })
}

fn a_child_inherits_unless_that_is_to_be_reset() -> Outcome {
    in_child(|| {
        ensure!(set_nice(libc::PRIO_PROCESS, 0, -4) == Ok(()));
        ensure!(set_scheduler(MYSELF, libc::SCHED_RR, 5) == Ok(()));
        in_child(|| {
            ensure!((scheduler(MYSELF), priority(MYSELF)) == (Ok(libc::SCHED_RR), Ok(5)));
            Ok(())
        })?;
        ensure!(set_scheduler(MYSELF, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 5) == Ok(()));
        ensure!(scheduler(MYSELF) == Ok(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK));
        in_child(|| {
            ensure!((scheduler(MYSELF), priority(MYSELF)) == (Ok(libc::SCHED_OTHER), Ok(0)));
            ensure!(nice(libc::PRIO_PROCESS, 0) == Ok(0));
            Ok(())
        })
    })
}

fn a_nice_value_is_a_threads_own() -> Outcome {
    in_child(|| {
        let main = tid();
        let other = thread::spawn(move || {
            let set = set_nice(libc::PRIO_PROCESS, 0, 6);
            (set, nice(libc::PRIO_PROCESS, 0), nice(libc::PRIO_PROCESS, main), tid())
        });
        let (set, own, mains, _) = other.join().map_err(|_| "it panicked")?;
        ensure!((set, own, mains) == (Ok(()), Ok(6), Ok(0)));
        ensure!(nice(libc::PRIO_PROCESS, 0) == Ok(0));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 1000) == Ok(()));
        ensure!(nice(libc::PRIO_PROCESS, 0) == Ok(19), "it is kept within its bounds");
        ensure!(set_nice(libc::PRIO_PROCESS, 999_999, 0) == Err(libc::ESRCH));
        ensure!(set_nice(9, 0, 0) == Err(libc::EINVAL));
        Ok(())
    })
}

fn who_may_not_is_refused() -> Outcome {
    // SAFETY: takes no pointer.
    let parent = unsafe { libc::getppid() };
    in_child(move || {
        ensure!(call(libc::SYS_setresuid, [65_534, 65_534, 65_534, 0]) == Ok(0));
        ensure!(set_scheduler(MYSELF, libc::SCHED_FIFO, 1) == Err(libc::EPERM));
        ensure!(set_scheduler(MYSELF, libc::SCHED_BATCH, 0) == Ok(()));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 5) == Ok(()));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 4) == Err(libc::EACCES));
        ensure!(set_attributes(MYSELF, Attributes { nice: 4, ..Attributes::default() }) == Err(libc::EPERM));
        ensure!(set_nice(libc::PRIO_PROCESS, parent, 5) == Err(libc::EPERM));
        ensure!(set_scheduler(parent, libc::SCHED_BATCH, 0) == Err(libc::EPERM));
        ensure!(set_scheduler(MYSELF, libc::SCHED_IDLE, 0) == Ok(()));
        ensure!(
            set_scheduler(MYSELF, libc::SCHED_OTHER, 0) == Err(libc::EPERM),
            "its nice value is above what it may have"
        );
        Ok(())
    })
}

fn limits_allow_as_much_as_they_say() -> Outcome {
    in_child(|| {
        for (resource, most) in [(libc::RLIMIT_RTPRIO, 10), (libc::RLIMIT_NICE, 18)] {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: the limit outlives the call.
            ensure!(unsafe { libc::setrlimit(resource, &raw const limit) } == 0);
        }
        ensure!(call(libc::SYS_setresuid, [65_534, 65_534, 65_534, 0]) == Ok(0));
        ensure!(set_scheduler(MYSELF, libc::SCHED_FIFO, 11) == Err(libc::EPERM));
        ensure!(set_scheduler(MYSELF, libc::SCHED_FIFO, 10) == Ok(()));
        ensure!(set_scheduler(MYSELF, libc::SCHED_OTHER, 0) == Ok(()));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 9) == Ok(()));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 2) == Ok(()));
        ensure!(set_nice(libc::PRIO_PROCESS, 0, 1) == Err(libc::EACCES));
        Ok(())
    })
}

fn turns_have_a_length() -> Outcome {
    in_child(|| {
        let interval = || {
            let mut interval = [-1_i64; 2];
            call(libc::SYS_sched_rr_get_interval, [0, (&raw mut interval).addr(), 0, 0]).map(|_| interval)
        };
        ensure!(interval().is_ok_and(|[seconds, rest]| seconds == 0 && rest >= 0));
        ensure!(set_scheduler(MYSELF, libc::SCHED_RR, 1) == Ok(()));
        ensure!(interval().is_ok_and(|[seconds, rest]| seconds == 0 && rest > 0));
        ensure!(set_scheduler(MYSELF, libc::SCHED_FIFO, 1) == Ok(()));
        ensure!(interval() == Ok([0, 0]));
        Ok(())
    })
}

fn a_real_time_thread_goes_ahead_and_leaves_a_little() -> Outcome {
    let had = compete(Duration::from_secs(3), &[libc::SCHED_FIFO, libc::SCHED_OTHER], |policy| {
        set_scheduler(MYSELF, policy, i32::from(policy == libc::SCHED_FIFO) * 5).expect("it may");
    });
    ensure!(had[0] > Duration::from_millis(2400), "{had:?}");
    ensure!(had[1] > Duration::from_millis(20) && had[1] < Duration::from_millis(600), "{had:?}");
    Ok(())
}

fn an_idle_thread_has_what_others_leave() -> Outcome {
    let had = compete(Duration::from_secs(2), &[libc::SCHED_IDLE, libc::SCHED_OTHER], |policy| {
        set_scheduler(MYSELF, policy, 0).expect("it may");
    });
    ensure!(had[0] < Duration::from_millis(200), "{had:?}");
    ensure!(had[1] > Duration::from_millis(1600), "{had:?}");
    Ok(())
}

/// What threads of nice 0 and 5 have had of one CPU, in nanoseconds.
fn shares() {
    let had = compete(Duration::from_secs(2), &[0, 5], |nice| {
        set_nice(libc::PRIO_PROCESS, 0, nice).expect("it may");
    });
    println!("{} {}", had[0].as_nanos(), had[1].as_nanos());
}

/// How late a thread that sleeps and is woken by the clock, and one that it wakes, run among 100 that compute on one CPU: the worst of 20
/// times, in nanoseconds. Both use far less than their share: who has used more waits for the others, and should.
fn latency() {
    const CROWD: usize = 100;
    let over = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(CROWD + 1));
    let (send, receive) = std::sync::mpsc::channel::<Instant>();
    let woken = thread::spawn(move || {
        pin(0);
        receive.iter().map(|sent| sent.elapsed()).max().unwrap_or_default()
    });
    let sleeper = thread::spawn(move || {
        pin(0);
        // Meanwhile the crowd begins.
        thread::sleep(Duration::from_millis(500));
        let mut late = Duration::ZERO;
        for _ in 0..20 {
            const PAUSE: Duration = Duration::from_millis(20);
            let due = Instant::now() + PAUSE;
            thread::sleep(PAUSE);
            late = late.max(due.elapsed());
            send.send(Instant::now()).expect("it listens");
        }
        late
    });
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let (over, start) = (Arc::clone(&over), Arc::clone(&start));
            thread::spawn(move || {
                pin(0);
                start.wait();
                while !over.load(Ordering::Relaxed) {}
            })
        })
        .collect();
    start.wait();
    let slept = sleeper.join().expect("it does not panic");
    let woken = woken.join().expect("it does not panic");
    over.store(true, Ordering::Relaxed);
    crowd.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    println!("{} {}", slept.as_nanos(), woken.as_nanos());
}

const CASES: &[Case] = &[
    ("policies are kept by each thread", policies_are_kept_by_each_thread),
    ("what makes no sense is refused", what_makes_no_sense_is_refused),
    ("attributes set what they say", attributes_set_what_they_say),
    ("a child inherits unless that is to be reset", a_child_inherits_unless_that_is_to_be_reset),
    ("a nice value is a thread's own", a_nice_value_is_a_threads_own),
    ("who may not is refused", who_may_not_is_refused),
    ("limits allow as much as they say", limits_allow_as_much_as_they_say),
    ("turns have a length", turns_have_a_length),
    ("a real-time thread goes ahead, and leaves a little", a_real_time_thread_goes_ahead_and_leaves_a_little),
    ("an idle thread has what others leave", an_idle_thread_has_what_others_leave),
];

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("shares") => return shares(),
        Some("latency") => return latency(),
        _ => {}
    }
    std::process::exit(test_programs::run(CASES));
}
