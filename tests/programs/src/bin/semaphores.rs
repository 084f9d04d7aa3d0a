//! What programs rely on of System V semaphores: keys, values, operations that are done all or none, waiting, and ends.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux, as root.
#![allow(unsafe_code, reason = "std has no safe form of semaphores, fork and credentials")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use test_programs::children::{PATIENCE, becomes, child, drop_privileges, in_child, status_of};
use test_programs::{Case, Outcome, ensure, errno};

/// A set that is removed when the case ends.
struct Set(i32);

impl Set {
    fn new(values: &[u16]) -> Result<Set, String> {
        // SAFETY: plain numbers.
        let id = unsafe { libc::semget(libc::IPC_PRIVATE, values.len() as i32, 0o600) };
        ensure!(id >= 0, "errno {}", errno());
        let set = Set(id);
        ensure!(set.control(0, libc::SETALL, values.as_ptr() as usize) == 0);
        Ok(set)
    }

    fn control(&self, number: i32, command: i32, argument: usize) -> i32 {
        // SAFETY: whoever passes an address passes one of room enough for the command.
        unsafe { libc::semctl(self.0, number, command, argument) }
    }

    fn value(&self, number: i32) -> i32 {
        self.control(number, libc::GETVAL, 0)
    }

    fn waiters(&self, number: i32) -> i32 {
        self.control(number, libc::GETNCNT, 0)
    }

    /// Operations: 0, or the number of the error.
    fn operate(&self, operations: &[(u16, i16, i32)]) -> i32 {
        self.operate_within(operations, None)
    }

    fn operate_within(&self, operations: &[(u16, i16, i32)], limit: Option<libc::timespec>) -> i32 {
        let mut array: Vec<libc::sembuf> = operations.iter().map(|&(n, c, f)| operation(n, c, f)).collect();
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the array and the time outlive the call.
        let answer = unsafe { libc::syscall(libc::SYS_semtimedop, self.0, array.as_mut_ptr(), array.len(), limit) };
        if answer == 0 { 0 } else { errno() }
    }

    /// IPC_STAT.
    fn description(&self) -> Result<libc::semid_ds, String> {
        let mut about = MaybeUninit::<libc::semid_ds>::zeroed();
        ensure!(self.control(0, libc::IPC_STAT, about.as_mut_ptr() as usize) == 0, "errno {}", errno());
        // SAFETY: all zeros is valid, and the kernel has filled it.
        Ok(unsafe { about.assume_init() })
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.control(0, libc::IPC_RMID, 0);
    }
}

fn operation(number: u16, change: i16, flags: i32) -> libc::sembuf {
    libc::sembuf { sem_num: number, sem_op: change, sem_flg: flags as i16 }
}

fn get(key: i32, count: i32, flags: i32) -> i32 {
    // SAFETY: plain numbers.
    unsafe { libc::semget(key, count, flags) }
}

fn a_key_finds_its_set_until_it_is_removed() -> Outcome {
    let key = 0x526f_0000 | std::process::id() as i32 & 0xffff;
    ensure!(get(key, 1, 0o600) == -1 && errno() == libc::ENOENT);
    ensure!(get(key, 0, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, -1, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, 32_001, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::EINVAL);
    let set = Set(get(key, 3, libc::IPC_CREAT | 0o640));
    ensure!(set.0 >= 0, "errno {}", errno());
    ensure!(get(key, 0, 0) == set.0 && get(key, 3, libc::IPC_CREAT) == set.0);
    ensure!(get(key, 4, 0) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, 3, libc::IPC_CREAT | libc::IPC_EXCL) == -1 && errno() == libc::EEXIST);
    let stranger = in_child(|| {
        drop_privileges(1234, 1234);
        i32::from(get(key, 3, 0o400) == -1 && errno() == libc::EACCES && get(key, 3, 0) >= 0)
    })?;
    ensure!(stranger == 1);
    let other = Set::new(&[0])?;
    ensure!(other.0 != set.0);
    let old = set.0;
    drop(set);
    ensure!(get(key, 3, 0) == -1 && errno() == libc::ENOENT);
    ensure!(Set(old).value(0) == -1 && errno() == libc::EINVAL);
    let again = Set(get(key, 1, libc::IPC_CREAT | 0o600));
    ensure!(again.0 >= 0 && again.0 != old, "an identifier was used again: {old}");
    Ok(())
}

fn values_are_set_and_told_within_their_limits() -> Outcome {
    let set = Set::new(&[1, 2, 32_767])?;
    ensure!((set.value(0), set.value(1), set.value(2)) == (1, 2, 32_767));
    ensure!(set.control(1, libc::SETVAL, 7) == 0 && set.value(1) == 7);
    ensure!(set.control(1, libc::SETVAL, 32_768) == -1 && errno() == libc::ERANGE);
    ensure!(set.control(1, libc::SETVAL, usize::MAX) == -1 && errno() == libc::ERANGE);
    ensure!(set.control(3, libc::SETVAL, 1) == -1 && errno() == libc::EINVAL);
    ensure!(set.control(-1, libc::GETVAL, 1) == -1 && errno() == libc::EINVAL);
    let large: [u16; 3] = [0, 40_000, 0];
    ensure!(set.control(0, libc::SETALL, large.as_ptr() as usize) == -1 && errno() == libc::ERANGE);
    let mut values = [0_u16; 3];
    ensure!(set.control(0, libc::GETALL, values.as_mut_ptr() as usize) == 0 && values == [1, 7, 32_767]);
    ensure!(set.control(0, libc::GETALL, 8) == -1 && errno() == libc::EFAULT);
    ensure!(set.control(0, libc::SETALL, 8) == -1 && errno() == libc::EFAULT);
    ensure!(set.control(0, libc::IPC_STAT, 8) == -1 && errno() == libc::EFAULT);
    ensure!(set.control(0, 99, 0) == -1 && errno() == libc::EINVAL);
    ensure!(Set(-1).value(0) == -1 && errno() == libc::EINVAL);
    let pid = child(|| set.operate(&[(1, 1, 0)]))?;
    ensure!(status_of(pid) == 0);
    ensure!(set.control(1, libc::GETPID, 0) == pid && set.control(0, libc::GETPID, 0) != pid);
    Ok(())
}

fn operations_are_done_all_or_none() -> Outcome {
    let set = Set::new(&[3, 0, 32_767])?;
    let nowait = libc::IPC_NOWAIT;
    ensure!(set.operate(&[(0, -1, 0), (1, 2, 0)]) == 0 && (set.value(0), set.value(1)) == (2, 2));
    ensure!(set.operate(&[(0, -1, 0), (1, -3, nowait)]) == libc::EAGAIN && (set.value(0), set.value(1)) == (2, 2));
    ensure!(set.operate(&[(0, -1, 0), (1, 0, nowait)]) == libc::EAGAIN && set.value(0) == 2);
    ensure!(set.operate(&[(0, -2, 0), (2, 1, 0)]) == libc::ERANGE && (set.value(0), set.value(2)) == (2, 32_767));
    ensure!(set.operate(&[(0, -2, 0), (0, 0, nowait), (0, 5, 0), (0, -1, 0)]) == 0 && set.value(0) == 4);
    ensure!(set.operate(&[(0, 1, 0), (3, 1, 0)]) == libc::EFBIG && set.value(0) == 4);
    ensure!(set.operate(&[]) == libc::EINVAL);
    ensure!(set.operate(&[(0, 0, nowait); 501]) == libc::E2BIG);
    ensure!(set.operate(&[(1, -2, 0)]) == 0 && set.operate(&[(1, 0, 0); 500]) == 0);
    ensure!(Set(-1).operate(&[(0, 1, 0)]) == libc::EINVAL);
    ensure!(Set(i32::MAX).operate(&[(0, 1, 0)]) == libc::EINVAL);
    // SAFETY: there is nothing at this address, which the kernel is to say.
    let answer = unsafe { libc::semop(set.0, ptr::without_provenance_mut(8), 1) };
    ensure!(answer == -1 && errno() == libc::EFAULT);
    Ok(())
}

fn a_sleeper_is_served_by_whoever_makes_it_possible() -> Outcome {
    let set = Set::new(&[0, 0])?;
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| set.operate(&[(0, -2, 0), (1, 1, 0)]));
        ensure!(becomes(|| set.waiters(0) == 1));
        ensure!(set.control(0, libc::GETZCNT, 0) == 0 && set.waiters(1) == 0);
        ensure!(set.operate(&[(0, 1, 0)]) == 0 && set.value(0) == 1 && set.waiters(0) == 1);
        ensure!(set.operate(&[(0, 1, 0)]) == 0);
        // What it waited for is done: nobody can come before it.
        ensure!((set.value(0), set.value(1), set.waiters(0)) == (0, 1, 0));
        ensure!(set.operate(&[(0, -1, libc::IPC_NOWAIT)]) == libc::EAGAIN);
        ensure!(sleeper.join().is_ok_and(|outcome| outcome == 0));
        let sleeper = scope.spawn(|| set.operate(&[(1, 0, 0)]));
        ensure!(becomes(|| set.control(1, libc::GETZCNT, 0) == 1));
        ensure!(set.control(1, libc::SETVAL, 0) == 0);
        ensure!(sleeper.join().is_ok_and(|outcome| outcome == 0));
        Ok(())
    })
}

fn who_came_first_is_served_first() -> Outcome {
    let set = Set::new(&[0])?;
    let next = AtomicI32::new(0);
    thread::scope(|scope| {
        let mut sleepers = Vec::new();
        for number in 0..5 {
            let (set, next) = (&set, &next);
            sleepers.push(scope.spawn(move || {
                let outcome = set.operate(&[(0, -1, 0)]);
                (outcome, number == next.fetch_add(1, Ordering::SeqCst))
            }));
            ensure!(becomes(|| set.waiters(0) == number + 1));
        }
        for number in 0..5 {
            ensure!(set.operate(&[(0, 1, 0)]) == 0);
            ensure!(becomes(|| next.load(Ordering::SeqCst) == number + 1));
        }
        for sleeper in sleepers {
            ensure!(sleeper.join().is_ok_and(|outcome| outcome == (0, true)));
        }
        Ok(())
    })
}

fn a_removal_wakes_all_who_wait() -> Outcome {
    let set = Set::new(&[0, 1])?;
    thread::scope(|scope| {
        let lower = scope.spawn(|| set.operate(&[(0, -1, 0)]));
        let zero = scope.spawn(|| set.operate(&[(1, 0, libc::SEM_UNDO)]));
        ensure!(becomes(|| set.waiters(0) == 1 && set.control(1, libc::GETZCNT, 0) == 1));
        ensure!(set.control(0, libc::IPC_RMID, 0) == 0);
        ensure!(lower.join().is_ok_and(|outcome| outcome == libc::EIDRM));
        ensure!(zero.join().is_ok_and(|outcome| outcome == libc::EIDRM));
        Ok(())
    })
}

fn a_signal_interrupts_for_good() -> Outcome {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let set = Set::new(&[0])?;
    let pid = child(|| {
        // SAFETY: all zeros is a valid sigaction; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
        }
        set.operate(&[(0, -1, 0)])
    })?;
    ensure!(becomes(|| set.waiters(0) == 1));
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGUSR1) };
    ensure!(status_of(pid) == libc::EINTR);
    ensure!(set.waiters(0) == 0);
    // A stop interrupts it, too (signal(7)).
    let pid = child(|| set.operate(&[(0, -1, 0)]))?;
    ensure!(becomes(|| set.waiters(0) == 1));
    // SAFETY: our own child.
    unsafe {
        libc::kill(pid, libc::SIGSTOP);
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, libc::WUNTRACED);
        libc::kill(pid, libc::SIGCONT);
    }
    ensure!(status_of(pid) == libc::EINTR);
    // Who is killed leaves the line.
    let pid = child(|| set.operate(&[(0, -1, 0)]))?;
    ensure!(becomes(|| set.waiters(0) == 1));
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(status_of(pid) == 1000 + libc::SIGKILL && set.waiters(0) == 0);
    ensure!(set.operate(&[(0, 1, 0)]) == 0 && set.value(0) == 1);
    Ok(())
}

fn a_wait_ends_when_its_time_is_over() -> Outcome {
    let set = Set::new(&[0])?;
    let time = |seconds, nanoseconds| Some(libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds });
    let began = Instant::now();
    ensure!(set.operate_within(&[(0, -1, 0)], time(0, 30_000_000)) == libc::EAGAIN);
    ensure!(began.elapsed() >= Duration::from_millis(30) && set.waiters(0) == 0);
    ensure!(set.operate_within(&[(0, -1, 0)], time(0, 0)) == libc::EAGAIN);
    ensure!(set.operate_within(&[(0, -1, 0)], time(0, -1)) == libc::EINVAL);
    ensure!(set.operate_within(&[(0, 1, 0)], time(0, 1_000_000_000)) == libc::EINVAL && set.value(0) == 0);
    ensure!(set.operate_within(&[(0, 1, 0)], time(100, 0)) == 0 && set.value(0) == 1);
    Ok(())
}

fn what_is_to_be_taken_back_is_taken_back_at_the_end() -> Outcome {
    let set = Set::new(&[5, 0, 1])?;
    let undo = libc::SEM_UNDO;
    let ended = in_child(|| {
        let both = set.operate(&[(0, -3, undo), (1, 4, undo)]);
        both + i32::from((set.value(0), set.value(1)) != (2, 4))
    });
    ensure!(ended? == 0 && (set.value(0), set.value(1)) == (5, 0));
    // Also of one that is killed, and for those who wait.
    let holder = child(|| {
        set.operate(&[(2, -1, undo)]);
        loop {
            thread::sleep(PATIENCE);
        }
    })?;
    ensure!(becomes(|| set.value(2) == 0));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| set.operate(&[(2, -1, 0)]));
        ensure!(becomes(|| set.waiters(2) == 1));
        // SAFETY: our own child.
        unsafe { libc::kill(holder, libc::SIGKILL) };
        ensure!(sleeper.join().is_ok_and(|outcome| outcome == 0));
        Ok(())
    })?;
    ensure!(status_of(holder) == 1000 + libc::SIGKILL && set.value(2) == 0);
    // SETVAL forgets what was to be taken back; a child inherits nothing; a value does not become negative.
    let ended = in_child(|| {
        set.operate(&[(0, -3, undo)]);
        set.control(0, libc::SETVAL, 9);
        set.operate(&[(1, 6, undo)]);
        let child = in_child(|| 0);
        let unchanged = set.value(1) == 6 && child == Ok(0);
        set.operate(&[(1, -6, 0)]);
        i32::from(!unchanged)
    });
    ensure!(ended? == 0 && (set.value(0), set.value(1)) == (9, 0), "{} {}", set.value(0), set.value(1));
    // The limit.
    ensure!(in_child(|| set.operate(&[(1, 32_767, undo)]) + set.operate(&[(1, -32_767, 0)]))? == 0);
    ensure!(
        in_child(|| {
            let first = set.operate(&[(1, 32_767, undo), (1, -32_767, 0)]);
            first * 100 + set.operate(&[(1, 2, undo), (1, -2, 0)])
        })? == libc::ERANGE
    );
    Ok(())
}

fn threads_share_what_is_to_be_taken_back() -> Outcome {
    let set = Set::new(&[5])?;
    let ended = in_child(|| {
        thread::scope(|scope| {
            let outcome = scope.spawn(|| set.operate(&[(0, -2, libc::SEM_UNDO)])).join().unwrap_or(99);
            // The thread has ended, the process has not.
            thread::sleep(Duration::from_millis(20));
            outcome + i32::from(set.value(0) != 3)
        })
    })?;
    ensure!(ended == 0, "{ended}");
    ensure!(set.value(0) == 5);
    Ok(())
}

fn the_owner_decides_who_may_do_what() -> Outcome {
    let set = Set::new(&[1])?;
    let mut about = set.description()?;
    // SAFETY: plain calls.
    let own = unsafe { libc::getuid() };
    ensure!((about.sem_perm.uid, about.sem_perm.cuid, about.sem_perm.mode & 0o777) == (own, own, 0o600));
    ensure!(about.sem_nsems == 1 && about.sem_otime == 0 && about.sem_ctime > 0);
    ensure!(set.operate(&[(0, 1, 0)]) == 0 && set.description()?.sem_otime > 0);
    let as_stranger = |work: &dyn Fn() -> bool| {
        in_child(|| {
            drop_privileges(1234, 1234);
            i32::from(!work())
        })
    };
    let read = || set.value(0) == 2;
    let alter = || set.operate(&[(0, 1, 0)]) == 0;
    let is_denied = |errno: i32| errno == libc::EACCES;
    ensure!(as_stranger(&|| !read() && is_denied(errno()) && is_denied(set.operate(&[(0, 1, 0)])))? == 0);
    ensure!(as_stranger(&|| set.control(0, libc::IPC_RMID, 0) == -1 && errno() == libc::EPERM)? == 0);
    about.sem_perm.mode = 0o1644;
    about.sem_perm.gid = 77;
    ensure!(set.control(0, libc::IPC_SET, &raw const about as usize) == 0);
    let seen = set.description()?.sem_perm;
    ensure!((seen.mode & 0o1777, seen.gid, seen.cgid == 77) == (0o644, 77, false));
    ensure!(as_stranger(&|| read() && !alter() && set.control(0, libc::SETVAL, 1) == -1 && is_denied(errno()))? == 0);
    ensure!(as_stranger(&|| set.operate(&[(0, 0, libc::IPC_NOWAIT)]) == libc::EAGAIN)? == 0);
    about.sem_perm.uid = 1234;
    ensure!(set.control(0, libc::IPC_SET, &raw const about as usize) == 0);
    ensure!(as_stranger(&|| read() && alter() && set.control(0, libc::IPC_RMID, 0) == 0)? == 0);
    Ok(())
}

fn what_there_is_can_be_looked_up() -> Outcome {
    let set = Set::new(&[1, 2, 3])?;
    let mut limits = [0_i32; 10];
    ensure!(set.control(0, libc::IPC_INFO, limits.as_mut_ptr() as usize) >= 0);
    ensure!(limits[1..] == [32_000, 1_024_000_000, 1_024_000_000, 32_000, 500, 500, 20, 32_767, 32_767], "{limits:?}");
    let largest = set.control(0, libc::SEM_INFO, limits.as_mut_ptr() as usize);
    ensure!(largest >= 0 && limits[7] >= 1 && limits[9] >= 3, "{limits:?}");
    let mut about = MaybeUninit::<libc::semid_ds>::zeroed();
    let by_index = |index: i32, about: &mut MaybeUninit<libc::semid_ds>| {
        Set::control(&std::mem::ManuallyDrop::new(Set(index)), 0, libc::SEM_STAT, about.as_mut_ptr() as usize)
    };
    ensure!((0..=largest).any(|index| by_index(index, &mut about) == set.0));
    ensure!(by_index(largest + 1, &mut about) == -1 && errno() == libc::EINVAL);
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    ensure!(read("/proc/sys/kernel/sem")? == "32000\t1024000000\t500\t32000\n");
    let table = read("/proc/sysvipc/sem")?;
    ensure!(table.lines().next().is_some_and(|line| {
        line.split_whitespace().eq(["key", "semid", "perms", "nsems", "uid", "gid", "cuid", "cgid", "otime", "ctime"])
    }));
    let id = set.0.to_string();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&id));
    ensure!(
        line.is_some_and(|line| line.starts_with("         0 ") && line[21..].starts_with("   600          3 ")),
        "{table}"
    );
    Ok(())
}

fn nothing_is_lost_among_many() -> Outcome {
    const WORKERS: usize = 8;
    const ROUNDS: i32 = 300;
    let set = Set::new(&[1, 0])?;
    let inside = AtomicI32::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut faults = 0;
                    for _ in 0..ROUNDS {
                        faults += i32::from(set.operate(&[(0, -1, libc::SEM_UNDO)]) != 0);
                        faults += inside.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        faults += i32::from(set.operate(&[(0, 1, libc::SEM_UNDO), (1, 1, 0)]) != 0);
                    }
                    faults
                })
            })
            .collect();
        for worker in workers {
            ensure!(worker.join().is_ok_and(|faults| faults == 0));
        }
        ensure!((set.value(0), set.value(1)) == (1, WORKERS as i32 * ROUNDS));
        Ok(())
    })?;
    // Two processes that hand a turn to and fro.
    let turns = Set::new(&[0, 0])?;
    let pid =
        child(|| (0..500).map(|_| turns.operate(&[(0, -1, 0)]) + turns.operate(&[(1, 1, 0)])).max().unwrap_or(1))?;
    for _ in 0..500 {
        ensure!(turns.operate(&[(0, 1, 0)]) == 0 && turns.operate(&[(1, -1, 0)]) == 0);
    }
    ensure!(status_of(pid) == 0 && turns.value(0) == 0 && turns.value(1) == 0);
    Ok(())
}

const CASES: &[Case] = &[
    ("a key finds its set until it is removed", a_key_finds_its_set_until_it_is_removed),
    ("values are set and told within their limits", values_are_set_and_told_within_their_limits),
    ("operations are done all or none", operations_are_done_all_or_none),
    ("a sleeper is served by whoever makes it possible", a_sleeper_is_served_by_whoever_makes_it_possible),
    ("who came first is served first", who_came_first_is_served_first),
    ("a removal wakes all who wait", a_removal_wakes_all_who_wait),
    ("a signal interrupts for good", a_signal_interrupts_for_good),
    ("a wait ends when its time is over", a_wait_ends_when_its_time_is_over),
    ("what is to be taken back is taken back at the end", what_is_to_be_taken_back_is_taken_back_at_the_end),
    ("threads share what is to be taken back", threads_share_what_is_to_be_taken_back),
    ("the owner decides who may do what", the_owner_decides_who_may_do_what),
    ("what there is can be looked up", what_there_is_can_be_looked_up),
    ("nothing is lost among many", nothing_is_lost_among_many),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
