//! What programs rely on when their threads run on several CPUs at once: translations that are taken away are gone everywhere, wakes are
//! not lost, signals find threads that compute, affinity holds, and the clock does not go back.
//!
//! Each case is a function that runs for about half a second, or as many milliseconds as the first argument says; further arguments name
//! the cases to run. The program says which have failed, and exits with their number. It passes on Linux.
#![allow(unsafe_code, reason = "a program that tries raw mappings and signals has no safe form")]

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, compiler_fence};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE};

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
/// How long anything may take that should take no time, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome = Result<(), String>;

macro_rules! ensure {
    ($condition:expr $(, $($argument:tt)*)?) => {
        if !$condition {
            let detail = String::new() $(+ &format!($($argument)*))?;
            return Err(format!("line {}: {} {detail}", line!(), stringify!($condition)));
        }
    };
}

fn map(address: usize, pages: usize, flags: i32) -> *mut u8 {
    // SAFETY: a fresh mapping, or one in place of memory that only the case itself uses.
    let at = unsafe { libc::mmap(address as *mut _, pages * PAGE, RW, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
    assert_ne!(at, MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    at.cast()
}

/// A word of memory that the case has mapped, by its address.
fn word(address: usize) -> &'static AtomicU64 {
    // SAFETY: aligned; the case keeps something mapped there as long as threads look.
    unsafe { &*(address as *const AtomicU64) }
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get())
}

/// Threads that run `work` until the closure's flag says that it is over; fails with the first that fails.
fn while_others<R>(
    count: usize,
    work: impl Fn(usize, &AtomicBool) -> Outcome + Send + Sync,
    main: impl FnOnce(&AtomicBool) -> R,
) -> Result<R, String> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others: Vec<_> = (0..count)
            .map(|number| {
                let (work, is_over) = (&work, &is_over);
                scope.spawn(move || {
                    let outcome = work(number, is_over);
                    if outcome.is_err() {
                        is_over.store(true, SeqCst);
                    }
                    outcome
                })
            })
            .collect();
        let result = main(&is_over);
        is_over.store(true, SeqCst);
        for other in others {
            other.join().map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok(result)
    })
}

fn until(end: Instant, is_over: &AtomicBool) -> bool {
    Instant::now() < end && !is_over.load(Relaxed)
}

fn a_mapping_that_was_replaced_is_seen_by_nobody(time: Duration) -> Outcome {
    const PAGES: usize = 24;
    let region = map(0, PAGES, 0) as usize;
    let generation = AtomicU64::new(0);
    let read = |_: usize, is_over: &AtomicBool| {
        let mut page = 0;
        while !is_over.load(Relaxed) {
            let least = generation.load(Acquire);
            let seen = word(region + page * PAGE).load(Relaxed);
            // Zero: the next one is being made.
            ensure!(seen == 0 || seen >= least, "page {page}: {seen}, published {least}");
            page = (page + 1) % PAGES;
        }
        Ok(())
    };
    while_others(cpus().max(2), read, |is_over| {
        let end = Instant::now() + time;
        let mut round = 0u64;
        while until(end, is_over) {
            round += 1;
            // Of one page, of some, of all: flushed page by page, or at once.
            let (first, count) = match round % 3 {
                0 => (0, PAGES),
                1 => ((round as usize * 7) % PAGES, 1),
                _ => ((round as usize * 5) % (PAGES - 6), 6),
            };
            if round.is_multiple_of(4) {
                // SAFETY: the case's own memory, whose content is meant to go.
                unsafe { libc::madvise((region + first * PAGE) as *mut _, count * PAGE, libc::MADV_DONTNEED) };
            } else {
                map(region + first * PAGE, count, MAP_FIXED);
            }
            for page in first..first + count {
                word(region + page * PAGE).store(round, Relaxed);
            }
            if count == PAGES {
                generation.store(round, Release);
            }
        }
    })
}

extern "C" fn try_again(_signal: i32) {
    // SAFETY: may be called in a handler.
    unsafe { libc::sched_yield() };
}

fn handle(signal: i32, handler: usize) {
    // SAFETY: a valid action with an empty mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, null_mut());
    }
}

fn memory_that_was_made_read_only_is_written_by_nobody(time: Duration) -> Outcome {
    const PAGES: usize = 20;
    handle(libc::SIGSEGV, try_again as *const () as usize);
    let region = map(0, PAGES, 0) as usize;
    let write = |number: usize, is_over: &AtomicBool| {
        while !is_over.load(Relaxed) {
            for page in 0..PAGES {
                word(region + page * PAGE + number * 8).fetch_add(1, Relaxed);
            }
        }
        Ok(())
    };
    let writers = cpus().max(2);
    let outcome = while_others(writers, write, |is_over| {
        let end = Instant::now() + time;
        let sum =
            |page: usize| (0..writers).map(|number| word(region + page * PAGE + number * 8).load(Relaxed)).sum::<u64>();
        let mut round = 0;
        while until(end, is_over) {
            round += 1;
            let (first, count) = if round % 2 == 0 { (0, PAGES) } else { (round * 7 % PAGES, 1) };
            let at = (region + first * PAGE) as *mut _;
            // SAFETY: the case's own memory; who writes to it meanwhile tries again.
            unsafe { libc::mprotect(at, count * PAGE, PROT_READ) };
            let before: Vec<u64> = (first..first + count).map(sum).collect();
            (0..200).for_each(|_| std::hint::spin_loop());
            let after: Vec<u64> = (first..first + count).map(sum).collect();
            // SAFETY: as above.
            unsafe { libc::mprotect(at, count * PAGE, RW) };
            ensure!(before == after, "round {round}, pages {first}+{count}");
        }
        Ok(())
    });
    handle(libc::SIGSEGV, libc::SIG_DFL);
    outcome?
}

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static REPAIRED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_and_repair(_signal: i32) {
    FAULTS.fetch_add(1, SeqCst);
    map(REPAIRED.load(SeqCst), 1, MAP_FIXED);
}

fn memory_that_was_unmapped_faults_everywhere(time: Duration) -> Outcome {
    handle(libc::SIGSEGV, count_and_repair as *const () as usize);
    let page = map(0, 1, 0) as usize;
    REPAIRED.store(page, SeqCst);
    let (phase, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // In odd phases it reads what is there, in even ones what is not there any more; in between it does not touch it.
    let read = |_: usize, is_over: &AtomicBool| {
        let mut known = 0;
        while !is_over.load(Relaxed) {
            let now = phase.load(Acquire);
            if now == known {
                std::hint::spin_loop();
                continue;
            }
            let before = FAULTS.load(SeqCst);
            word(page).load(Relaxed);
            let faults = FAULTS.load(SeqCst) - before;
            ensure!(faults == usize::from(now % 2 == 0), "phase {now}: {faults} faults");
            known = now;
            answered.store(known, Release);
        }
        Ok(())
    };
    let outcome = while_others(1, read, |is_over| {
        let end = Instant::now() + time;
        let mut number = 0;
        let mut tell = || {
            number += 1;
            phase.store(number, Release);
            while answered.load(Acquire) != number && !is_over.load(Relaxed) {
                std::hint::spin_loop();
            }
        };
        word(page).store(1, Relaxed);
        while until(end, is_over) {
            tell();
            // SAFETY: the case's own page, which the reader's handler maps again.
            unsafe { libc::munmap(page as *mut _, PAGE) };
            tell();
        }
    });
    handle(libc::SIGSEGV, libc::SIG_DFL);
    outcome
}

fn a_fork_loses_no_write_of_other_threads(time: Duration) -> Outcome {
    let writers = cpus().clamp(2, 4);
    const PAGES: usize = 8;
    let region = map(0, writers * PAGES, 0) as usize;
    let write = |number: usize, is_over: &AtomicBool| {
        let mut count = 0u64;
        while !is_over.load(Relaxed) {
            count += 1;
            for page in 0..PAGES {
                let place = word(region + (number * PAGES + page) * PAGE);
                ensure!(place.load(Relaxed) == count - 1, "page {page}: {} of {}", place.load(Relaxed), count - 1);
                place.store(count, Relaxed);
            }
        }
        Ok(())
    };
    while_others(writers, write, |is_over| {
        let end = Instant::now() + time;
        while until(end, is_over) {
            // SAFETY: the child only looks at memory and exits.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    let mut bad = 0;
                    for number in 0..writers {
                        let value = |page| word(region + (number * PAGES + page) * PAGE).load(Relaxed);
                        let first = value(0);
                        // Written in order: no later page is ahead, none is behind by more than one.
                        bad |= i32::from((1..PAGES).any(|page| value(page) > first || first - value(page) > 1));
                        // What is written here is not seen there.
                        word(region + number * PAGES * PAGE).store(u64::MAX, Relaxed);
                    }
                    libc::_exit(bad);
                }
                let mut status = -1;
                ensure!(child > 0 && libc::waitpid(child, &raw mut status, 0) == child);
                ensure!(status == 0, "the child saw a torn copy: {status}");
            }
        }
        Ok(())
    })?
}

fn futex(at: &AtomicU32, operation: i32, value: u32) -> i64 {
    // SAFETY: the word lives during the call.
    unsafe { libc::syscall(libc::SYS_futex, at.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, value, 0usize) }
}

fn futex_players_never_wait_for_a_wake_that_was_lost(time: Duration) -> Outcome {
    let pairs = cpus().clamp(2, 4);
    let turns: Vec<AtomicU32> = (0..2 * pairs).map(|_| AtomicU32::new(0)).collect();
    let rounds = AtomicU64::new(0);
    let end = Instant::now() + time;
    let is_late = AtomicBool::new(false);
    let play = |number: usize, _: &AtomicBool| {
        let (turn, player) = (&turns[number / 2], number as u32 % 2);
        loop {
            let now = turn.load(Acquire);
            if now == u32::MAX {
                return Ok(());
            }
            if now % 2 != player {
                futex(turn, libc::FUTEX_WAIT, now);
                continue;
            }
            rounds.fetch_add(1, Relaxed);
            let next = if Instant::now() > end { u32::MAX } else { now + 1 };
            turn.store(next, Release);
            futex(turn, libc::FUTEX_WAKE, 1);
        }
    };
    while_others(2 * pairs, play, |_| {
        // The players end by themselves; a wake that is lost leaves two waiting, which the deadline shows.
        let deadline = end + PATIENCE;
        while turns[..pairs].iter().any(|turn| turn.load(Relaxed) != u32::MAX) {
            if Instant::now() > deadline {
                is_late.store(true, SeqCst);
                turns.iter().for_each(|turn| {
                    turn.store(u32::MAX, SeqCst);
                    futex(turn, libc::FUTEX_WAKE, 9);
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    })?;
    ensure!(!is_late.load(SeqCst), "after {} rounds", rounds.load(SeqCst));
    ensure!(rounds.load(SeqCst) > 20);
    Ok(())
}

fn a_lock_and_its_conditions_lose_nobody(time: Duration) -> Outcome {
    const ROOM: u64 = 3;
    /// What waits in the queue, what was taken out of it, and whether no more will come.
    type State = (u64, u64, bool);
    let (lock, has_some, has_room) = (Mutex::<State>::default(), Condvar::new(), Condvar::new());
    let (end, pairs) = (Instant::now() + time, cpus().clamp(2, 4));
    let give = || {
        while Instant::now() < end {
            let state = lock.lock().expect("nobody panics");
            let (mut state, late) =
                has_room.wait_timeout_while(state, PATIENCE, |state| state.0 >= ROOM).expect("as above");
            ensure!(!late.timed_out(), "who gives waits in vain");
            state.0 += 1;
            has_some.notify_one();
        }
        Ok(())
    };
    let take = || {
        loop {
            let state = lock.lock().expect("nobody panics");
            let waits = |state: &mut State| state.0 == 0 && !state.2;
            let (mut state, late) = has_some.wait_timeout_while(state, PATIENCE, waits).expect("as above");
            ensure!(!late.timed_out(), "who takes waits in vain");
            if state.0 == 0 {
                return Ok(());
            }
            *state = (state.0 - 1, state.1 + 1, state.2);
            has_room.notify_one();
        }
    };
    thread::scope(|scope| -> Outcome {
        let givers: Vec<_> = (0..pairs).map(|_| scope.spawn(give)).collect();
        let takers: Vec<_> = (0..pairs).map(|_| scope.spawn(take)).collect();
        let join =
            |one: thread::ScopedJoinHandle<'_, Outcome>| one.join().map_err(|_| "a thread panicked".to_owned())?;
        let given = givers.into_iter().try_for_each(join);
        lock.lock().expect("nobody panics").2 = true;
        has_some.notify_all();
        given.and(takers.into_iter().try_for_each(join))
    })?;
    let state = lock.into_inner().expect("nobody panics");
    ensure!(state.0 == 0 && state.1 > 3, "{state:?}");
    Ok(())
}

fn pipe() -> (std::fs::File, std::fs::File) {
    let mut ends = [0; 2];
    // SAFETY: two fresh descriptors, owned from here on.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]).into(), OwnedFd::from_raw_fd(ends[1]).into())
    }
}

fn what_goes_through_pipes_arrives_whole_and_in_order(time: Duration) -> Outcome {
    let rings = cpus().clamp(2, 4);
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let players: Vec<_> = (0..rings)
            .map(|ring| {
                scope.spawn(move || -> Outcome {
                    let ((mut there, mut go), (mut back, mut come)) = (pipe(), pipe());
                    let echo = thread::spawn(move || {
                        let mut bytes = [0; 700];
                        while let Ok(len @ 1..) = there.read(&mut bytes) {
                            if come.write_all(&bytes[..len]).is_err() {
                                return;
                            }
                        }
                    });
                    let mut count = 0u64;
                    while Instant::now() < end || count == 0 {
                        let len = [1, 8, 700, 9000][count as usize % 4];
                        let sent: Vec<u8> =
                            (0..len).map(|index| (index as u64 * 31 + count + ring as u64) as u8).collect();
                        let mut got = vec![0; len];
                        thread::scope(|scope| {
                            let sent = &sent;
                            let go = &mut go;
                            if len > 4096 {
                                scope.spawn(move || go.write_all(sent));
                            } else {
                                go.write_all(sent).expect("the echo reads");
                            }
                            back.read_exact(&mut got)
                        })
                        .map_err(|error| error.to_string())?;
                        ensure!(sent == got, "message {count} of {len} bytes");
                        count += 1;
                    }
                    drop(go);
                    echo.join().map_err(|_| "the echo panicked".to_owned())?;
                    Ok(())
                })
            })
            .collect();
        players.into_iter().try_for_each(|player| player.join().map_err(|_| "a player panicked".to_owned())?)
    })
}

fn myself() -> std::ffi::CString {
    let path = std::fs::read_link("/proc/self/exe").expect("/proc is mounted");
    std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL")
}

/// Becomes this program anew, which exits with this code.
fn become_one_that_exits(path: &std::ffi::CStr, code: &std::ffi::CStr) -> ! {
    // SAFETY: valid strings; what follows a failure is an exit.
    unsafe {
        let arguments = [path.as_ptr(), c"exit".as_ptr(), code.as_ptr(), std::ptr::null()];
        libc::execv(path.as_ptr(), arguments.as_ptr());
        libc::_exit(99)
    }
}

fn children_start_and_end_on_all_cpus_at_once(time: Duration) -> Outcome {
    let path = myself();
    let end = Instant::now() + time;
    let makers = cpus().clamp(2, 4) + 1;
    thread::scope(|scope| {
        let makers: Vec<_> = (0..makers)
            .map(|_| {
                let path = &path;
                scope.spawn(move || -> Outcome {
                    let mut count = 0;
                    while Instant::now() < end || count == 0 {
                        let code = count % 50;
                        let text = std::ffi::CString::new(code.to_string()).expect("no NUL");
                        // SAFETY: the child only executes, or exits.
                        let child = unsafe { libc::fork() };
                        if child == 0 {
                            if count % 3 == 0 {
                                become_one_that_exits(path, &text);
                            }
                            // SAFETY: as above.
                            unsafe { libc::_exit(code) };
                        }
                        let mut status = 0;
                        // SAFETY: a status of its own.
                        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
                        ensure!(child > 0 && ended == child && status == code << 8, "{child} {ended} {status:#x}");
                        count += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        makers.into_iter().try_for_each(|maker| maker.join().map_err(|_| "a maker panicked".to_owned())?)
    })
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_signal: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

fn wait_until(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::yield_now();
    }
    true
}

fn signals_find_threads_that_compute(time: Duration) -> Outcome {
    handle(libc::SIGUSR1, note as *const () as usize);
    let threads = cpus().max(2);
    let numbers: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
    let compute = |number: usize, is_over: &AtomicBool| {
        // SAFETY: only asks.
        numbers[number].store(unsafe { libc::gettid() } as usize, SeqCst);
        while !is_over.load(Relaxed) {
            std::hint::spin_loop();
        }
        Ok(())
    };
    let outcome = while_others(threads, compute, |is_over| {
        let end = Instant::now() + time;
        let mut round = 0;
        while until(end, is_over) {
            let target = &numbers[round % threads];
            ensure!(wait_until(|| target.load(SeqCst) != 0));
            let before = HANDLED.load(SeqCst);
            // SAFETY: a handler is set.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target.load(SeqCst) as i32, libc::SIGUSR1) };
            ensure!(wait_until(|| HANDLED.load(SeqCst) > before), "round {round}");
            round += 1;
        }
        Ok(())
    });
    handle(libc::SIGUSR1, libc::SIG_DFL);
    outcome?
}

fn busy_children_are_killed_stopped_and_ended(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut round = 0;
    while Instant::now() < end {
        // SAFETY: the child computes until it is ended, with threads that do the same.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                for _ in 0..cpus() {
                    thread::spawn(|| {
                        loop {
                            std::hint::spin_loop()
                        }
                    });
                }
                if round % 3 == 2 {
                    libc::_exit(7);
                }
                loop {
                    std::hint::spin_loop();
                }
            }
            ensure!(child > 0);
            let mut status = 0;
            match round % 3 {
                0 => {
                    if round % 2 == 0 {
                        thread::sleep(Duration::from_millis(2));
                    }
                    libc::kill(child, libc::SIGKILL);
                    ensure!(
                        libc::waitpid(child, &raw mut status, 0) == child && status == libc::SIGKILL,
                        "{status:#x}"
                    );
                }
                1 => {
                    libc::kill(child, libc::SIGSTOP);
                    ensure!(
                        libc::waitpid(child, &raw mut status, libc::WUNTRACED) == child && libc::WIFSTOPPED(status)
                    );
                    libc::kill(child, libc::SIGCONT);
                    ensure!(
                        libc::waitpid(child, &raw mut status, libc::WCONTINUED) == child && libc::WIFCONTINUED(status)
                    );
                    libc::kill(child, libc::SIGTERM);
                    ensure!(
                        libc::waitpid(child, &raw mut status, 0) == child && status == libc::SIGTERM,
                        "{status:#x}"
                    );
                }
                _ => ensure!(libc::waitpid(child, &raw mut status, 0) == child && status == 7 << 8, "{status:#x}"),
            }
        }
        round += 1;
    }
    Ok(())
}

fn an_exec_ends_the_other_threads(time: Duration) -> Outcome {
    let path = myself();
    let end = Instant::now() + time;
    let mut round = 0;
    while Instant::now() < end {
        // SAFETY: the child executes this program anew.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                for _ in 0..cpus() {
                    thread::spawn(|| {
                        loop {
                            std::hint::spin_loop()
                        }
                    });
                }
                let makers = if round % 2 == 0 { 0 } else { 2 };
                for _ in 0..makers {
                    // New threads come while it ends the old ones, and others want to execute as well.
                    let path = path.clone();
                    thread::spawn(move || {
                        for _ in 0..8 {
                            let _ = thread::Builder::new()
                                .stack_size(1 << 16)
                                .spawn(|| thread::sleep(Duration::from_secs(9)));
                        }
                        become_one_that_exits(&path, c"33")
                    });
                }
                become_one_that_exits(&path, c"33");
            }
            let mut status = 0;
            ensure!(child > 0 && libc::waitpid(child, &raw mut status, 0) == child && status == 33 << 8, "{status:#x}");
        }
        round += 1;
    }
    Ok(())
}

fn here() -> usize {
    let mut cpu = u32::MAX;
    // SAFETY: stores a number.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, null_mut::<u32>(), null_mut::<u32>()) };
    cpu as usize
}

fn move_to(cpu: usize) -> bool {
    // SAFETY: a set of CPUs by value.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

fn a_thread_runs_where_it_was_told_to(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let threads = 2 * cpus();
    thread::scope(|scope| {
        let movers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || -> Outcome {
                    let mut cpu = number % cpus();
                    let mut moves = 0;
                    while Instant::now() < end || moves < cpus() {
                        ensure!(move_to(cpu), "CPU {cpu}");
                        for look in 0..40 {
                            ensure!(here() == cpu, "on {} instead of {cpu}", here());
                            // SAFETY: only asks; the C library may answer from its restartable-sequence area.
                            ensure!(unsafe { libc::sched_getcpu() } as usize == cpu, "look {look}");
                            match look % 10 {
                                3 => thread::yield_now(),
                                7 => thread::sleep(Duration::from_micros(50)),
                                _ => {}
                            }
                        }
                        // SAFETY: asks for the set.
                        unsafe {
                            let mut set: libc::cpu_set_t = std::mem::zeroed();
                            ensure!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) == 0);
                            ensure!(libc::CPU_COUNT(&set) == 1 && libc::CPU_ISSET(cpu, &set));
                        }
                        let inherited = thread::spawn(here).join().map_err(|_| "the child panicked".to_owned())?;
                        ensure!(inherited == cpu);
                        cpu = (cpu + 1) % cpus();
                        moves += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        movers.into_iter().try_for_each(|mover| mover.join().map_err(|_| "a mover panicked".to_owned())?)
    })?;
    // SAFETY: sets of CPUs by value.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        ensure!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == -1);
        libc::CPU_SET(1000, &mut set);
        ensure!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == -1);
    }
    Ok(())
}

fn now() -> u64 {
    // SAFETY: a structure of its own.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

fn the_clock_never_goes_back_from_one_cpu_to_another(time: Duration) -> Outcome {
    let latest = Mutex::new(0u64);
    let published = AtomicU64::new(0);
    let end = Instant::now() + time;
    let look = |number: usize, _: &AtomicBool| {
        move_to(number % cpus());
        while Instant::now() < end {
            let before = published.load(Acquire);
            let own = now();
            ensure!(own >= before, "{} ns back", before - own);
            published.fetch_max(own, Release);
            let mut latest = latest.lock().expect("nobody panics");
            let own = now();
            ensure!(own >= *latest, "under a lock: {} ns back", *latest - own);
            *latest = own;
        }
        Ok(())
    };
    while_others(cpus().max(2), look, |_| thread::sleep(time))
}

fn a_barrier_of_one_thread_is_one_for_all(time: Duration) -> Outcome {
    const REGISTER: i32 = 16;
    const PRIVATE_EXPEDITED: i32 = 8;
    // SAFETY: registers this process, or fails.
    let membarrier = |command: i32| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    ensure!(membarrier(REGISTER) == 0);
    let (x, y, round, both_missed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (seen_by_fast, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let fast = |_: usize, is_over: &AtomicBool| {
        let mut known = 0;
        while !is_over.load(Relaxed) {
            let now = round.load(Acquire);
            if now != known {
                known = now;
                x.store(now, Relaxed);
                compiler_fence(SeqCst);
                seen_by_fast.store(y.load(Relaxed), Relaxed);
                done.store(now, Release);
            }
        }
        Ok(())
    };
    while_others(1, fast, |is_over| {
        let end = Instant::now() + time;
        let mut number = 0;
        while until(end, is_over) {
            number += 1;
            round.store(number, Release);
            y.store(number, Relaxed);
            membarrier(PRIVATE_EXPEDITED);
            let own = x.load(Relaxed);
            while done.load(Acquire) != number && !is_over.load(Relaxed) {
                std::hint::spin_loop();
            }
            both_missed.fetch_add(u64::from(own != number && seen_by_fast.load(Relaxed) != number), Relaxed);
        }
    })?;
    ensure!(both_missed.load(SeqCst) == 0, "{} times", both_missed.load(SeqCst));
    Ok(())
}

/// Computes on CPU 0 with this nice value until the time is up; tells how much CPU time it had, in microseconds.
fn compute_with_nice(nice: i32, start: &std::fs::File, mut result: std::fs::File, time: Duration) -> ! {
    move_to(0);
    // SAFETY: this process's own priority, and its own usage.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        let mut byte = [0];
        let _ = (&*start).read(&mut byte);
        let before = cpu_time();
        let end = Instant::now() + time;
        while Instant::now() < end {
            (0..500).for_each(|_| std::hint::spin_loop());
        }
        let _ = result.write_all(&(cpu_time() - before).to_ne_bytes());
        libc::_exit(0)
    }
}

fn cpu_time() -> u64 {
    // SAFETY: a structure of its own.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        micros(usage.ru_utime) + micros(usage.ru_stime)
    }
}

fn busy_programs_share_a_cpu_by_their_weights(time: Duration) -> Outcome {
    const WEIGHTS: [(i32, f64); 2] = [(0, 1024.0), (5, 335.0)];
    let time = time.max(Duration::from_millis(1500));
    let (start, mut go) = pipe();
    let mut results = Vec::new();
    let mut children = Vec::new();
    for (nice, _) in WEIGHTS {
        let (read, write) = pipe();
        // SAFETY: the child computes and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            compute_with_nice(nice, &start, write, time);
        }
        drop(write);
        results.push(read);
        children.push(child);
    }
    thread::sleep(Duration::from_millis(50));
    go.write_all(b"go").map_err(|error| error.to_string())?;
    let mut had = Vec::new();
    for mut result in results {
        let mut bytes = [0; 8];
        result.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        had.push(u64::from_ne_bytes(bytes) as f64);
    }
    for child in children {
        // SAFETY: its status is not looked at.
        unsafe { libc::waitpid(child, null_mut(), 0) };
    }
    let share = had[0] / (had[0] + had[1]);
    let fair = WEIGHTS[0].1 / (WEIGHTS[0].1 + WEIGHTS[1].1);
    let off = (share / fair - 1.0).abs();
    println!("  shares {share:.4}, by weight {fair:.4}: off by {:.2} %", off * 100.0);
    let is_fair = off < 0.1;
    ensure!(is_fair);
    Ok(())
}

fn threads_come_and_go_by_the_hundred(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut rounds = 0u64;
    while Instant::now() < end || rounds == 0 {
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for number in 0..12 {
                let sum = &sum;
                scope.spawn(move || {
                    let memory = vec![number as u8; 3 * PAGE];
                    sum.fetch_add(memory.iter().map(|&byte| u64::from(byte)).sum::<u64>(), Relaxed);
                });
            }
        });
        ensure!(sum.load(SeqCst) == (0..12).sum::<u64>() * 3 * PAGE as u64);
        rounds += 1;
    }
    Ok(())
}

type Case = (&'static str, fn(Duration) -> Outcome);

const CASES: &[Case] = &[
    ("replaced", a_mapping_that_was_replaced_is_seen_by_nobody),
    ("protected", memory_that_was_made_read_only_is_written_by_nobody),
    ("unmapped", memory_that_was_unmapped_faults_everywhere),
    ("fork", a_fork_loses_no_write_of_other_threads),
    ("futex", futex_players_never_wait_for_a_wake_that_was_lost),
    ("conditions", a_lock_and_its_conditions_lose_nobody),
    ("pipes", what_goes_through_pipes_arrives_whole_and_in_order),
    ("children", children_start_and_end_on_all_cpus_at_once),
    ("signals", signals_find_threads_that_compute),
    ("busy", busy_children_are_killed_stopped_and_ended),
    ("exec", an_exec_ends_the_other_threads),
    ("affinity", a_thread_runs_where_it_was_told_to),
    ("clock", the_clock_never_goes_back_from_one_cpu_to_another),
    ("membarrier", a_barrier_of_one_thread_is_one_for_all),
    ("weights", busy_programs_share_a_cpu_by_their_weights),
    ("threads", threads_come_and_go_by_the_hundred),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, exit, code] = &arguments[..]
        && exit == "exit"
    {
        std::process::exit(code.parse().unwrap_or(98));
    }
    let time = Duration::from_millis(arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(500));
    let named = arguments.get(2..).unwrap_or(&[]);
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|one| one == name)) {
        let began = Instant::now();
        match case(time) {
            Ok(()) => println!("{name}: ok, {} ms", began.elapsed().as_millis()),
            Err(text) => {
                println!("{name}: FAILED: {text}");
                failed += 1;
            }
        }
    }
    std::process::exit(failed);
}
