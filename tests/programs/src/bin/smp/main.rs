//! What programs rely on when their threads run on several CPUs at once: translations that are taken away are gone everywhere, wakes are
//! not lost, signals find threads that compute, affinity holds, and the clock does not go back.
//!
//! Each case is a function that runs for about half a second, or as many milliseconds as the first argument says; further arguments name
//! the cases to run. The program says which have failed, and exits with their number. It passes on Linux.
#![allow(unsafe_code, reason = "a program that tries raw mappings and signals has no safe form")]

mod cpus;
mod memory;
mod processes;
mod waiting;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, compiler_fence};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use test_programs::{Outcome, ensure, run_one};

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
/// How long anything may take that should take no time, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

type Case = test_programs::Case<fn(Duration) -> Outcome>;

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

fn pipe() -> (std::fs::File, std::fs::File) {
    let mut ends = [0; 2];
    // SAFETY: two fresh descriptors, owned from here on.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]).into(), OwnedFd::from_raw_fd(ends[1]).into())
    }
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

fn handle(signal: i32, handler: usize) {
    // SAFETY: a valid action with an empty mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, null_mut());
    }
}

const CASES: &[Case] = &[
    ("replaced", memory::a_mapping_that_was_replaced_is_seen_by_nobody),
    ("protected", memory::memory_that_was_made_read_only_is_written_by_nobody),
    ("unmapped", memory::memory_that_was_unmapped_faults_everywhere),
    ("fork", memory::a_fork_loses_no_write_of_other_threads),
    ("futex", waiting::futex_players_never_wait_for_a_wake_that_was_lost),
    ("conditions", waiting::a_lock_and_its_conditions_lose_nobody),
    ("pipes", waiting::what_goes_through_pipes_arrives_whole_and_in_order),
    ("sendfile", waiting::a_file_that_is_sent_through_a_full_pipe_arrives_whole),
    ("children", processes::children_start_and_end_on_all_cpus_at_once),
    ("signals", processes::signals_find_threads_that_compute),
    ("busy", processes::busy_children_are_killed_stopped_and_ended),
    ("exec", processes::an_exec_ends_the_other_threads),
    ("affinity", cpus::a_thread_runs_where_it_was_told_to),
    ("clock", cpus::the_clock_never_goes_back_from_one_cpu_to_another),
    ("membarrier", cpus::a_barrier_of_one_thread_is_one_for_all),
    ("weights", cpus::busy_programs_share_a_cpu_by_their_weights),
    ("threads", waiting::threads_come_and_go_by_the_hundred),
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
    let is_wanted = |name: &str| named.is_empty() || named.iter().any(|one| one == name);
    let wanted = CASES.iter().filter(|(name, _)| is_wanted(name));
    std::process::exit(wanted.map(|(name, case)| run_one(name, case, |case| case(time))).sum());
}
