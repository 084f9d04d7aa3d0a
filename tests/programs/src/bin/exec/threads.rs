//! exec where there are others: threads, a parent that waits in vfork, a shared descriptor table.

use std::os::fd::IntoRawFd;
use std::sync::Barrier;
use std::time::Duration;

use crate::support::{Case, End, Execution, Outcome, case_in_child, ensure, pipe, same, value, wait};

pub const CASES: &[Case] = &[
    ("a thread that is not the first keeps the process's number", a_thread_that_is_not_the_first),
    ("the leader's exec ends the other threads", the_leader_ends_the_others),
    ("of two threads that execute at once one does", two_at_once),
    ("threads that are being made do not survive", threads_being_made),
    ("a parent in vfork goes on when its child has executed", a_parent_in_vfork),
    ("a descriptor table that is shared is not closed for the others", a_shared_table),
    ("the word for a thread's end is cleared in memory that others still use", the_word_is_cleared),
    ("processes beyond the limit are refused and nothing is left of them", beyond_the_limit),
];

fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(100)));
    }
}

/// Runs `work` in a child that has a pipe for standard output; what came through it, and how the child ended.
fn with_output(work: impl FnOnce()) -> (End, String) {
    let (mut from, to) = pipe();
    // SAFETY: this program has one thread here; the child ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the child's own descriptors.
        unsafe { (libc::dup2(to, 1), libc::close(to)) };
        work();
        // SAFETY: as above.
        unsafe { libc::_exit(99) };
    }
    // SAFETY: nobody uses it here.
    unsafe { libc::close(to) };
    let mut text = String::new();
    let _ = std::io::Read::read_to_string(&mut from, &mut text);
    (wait(child), format!("{text}child: {child}\n"))
}

fn a_thread_that_is_not_the_first() -> Outcome {
    for leader_ends in [false, true] {
        let (end, text) = with_output(|| {
            sleepers(5);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(if leader_ends { 100 } else { 1 }));
                Execution::role("state").here();
            });
            if leader_ends {
                // SAFETY: ends the first thread alone.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            std::thread::sleep(Duration::from_secs(100));
        });
        same!(end, End::Exited(0));
        same!(value(&text, "pid")?, value(&text, "child")?);
        same!(value(&text, "tid")?, value(&text, "child")?);
        same!(value(&text, "Threads")?, "1");
    }
    Ok(())
}

fn the_leader_ends_the_others() -> Outcome {
    let (end, text) = with_output(|| {
        sleepers(20);
        // Some of them never make a system call.
        for _ in 0..2 {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        std::thread::sleep(Duration::from_millis(20));
        Execution::role("state").here();
    });
    same!(end, End::Exited(0));
    same!(value(&text, "Threads")?, "1");
    same!(value(&text, "tid")?, value(&text, "child")?);
    Ok(())
}

fn two_at_once() -> Outcome {
    for _ in 0..20 {
        let (end, text) = with_output(|| {
            static TOGETHER: Barrier = Barrier::new(4);
            for _ in 0..3 {
                std::thread::spawn(|| {
                    TOGETHER.wait();
                    Execution::role("state").here();
                });
            }
            TOGETHER.wait();
            Execution::role("state").here();
            std::thread::sleep(Duration::from_secs(100));
        });
        same!(end, End::Exited(0));
        same!(text.matches("Threads").count(), 1);
        same!(value(&text, "Threads")?, "1");
        same!(value(&text, "pid")?, value(&text, "child")?);
    }
    Ok(())
}

fn threads_being_made() -> Outcome {
    for _ in 0..5 {
        let (end, text) = with_output(|| {
            for _ in 0..3 {
                std::thread::spawn(|| {
                    loop {
                        if let Ok(other) = std::thread::Builder::new().stack_size(16 << 10).spawn(|| {}) {
                            let _ = other.join();
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(20));
            Execution::role("state").here();
        });
        same!(end, End::Exited(0));
        same!(value(&text, "Threads")?, "1");
    }
    Ok(())
}

/// A child on borrowed memory, with a stack of its own: waits, executes, and exits with the errno if that fails.
fn borrow(execution: &Execution, flags: i32, delay_ms: u64, child_tid: *mut u32) -> i32 {
    extern "C" fn child(work: *mut libc::c_void) -> i32 {
        // SAFETY: the parent waits, and what it lent lives on.
        let (execution, delay_ms) = unsafe { *work.cast::<(&Execution, u64)>() };
        let time = libc::timespec { tv_sec: 0, tv_nsec: delay_ms as i64 * 1_000_000 };
        // SAFETY: a valid time.
        unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
        execution.here()
    }
    let mut stack = vec![0_u128; 16 << 10];
    let mut work = (execution, delay_ms);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | flags;
    // SAFETY: a stack that lives until the child has let go of the memory.
    unsafe {
        let top = stack.as_mut_ptr_range().end;
        let none = std::ptr::null_mut::<libc::c_void>();
        libc::clone(child, top.cast(), flags, (&raw mut work).cast(), none, none, child_tid)
    }
}

fn a_parent_in_vfork() -> Outcome {
    case_in_child(|| {
        let (mut from, to) = pipe();
        // SAFETY: the child's standard output is this pipe.
        unsafe { libc::dup2(to, 1) };
        let started = std::time::Instant::now();
        let child = borrow(&Execution::role("pause"), 0, 200, std::ptr::null_mut());
        ensure!(child > 0 && started.elapsed() >= Duration::from_millis(200));
        // It went on although the child still runs.
        let mut byte = [0];
        std::io::Read::read_exact(&mut from, &mut byte).map_err(|error| error.to_string())?;
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        same!(wait(child), End::Killed(libc::SIGKILL));
        let child = borrow(&Execution::of("/tmp/exec-test/nowhere"), 0, 0, std::ptr::null_mut());
        same!(wait(child), End::Exited(libc::ENOENT));
        // Whatever the child's exec has replaced, it was not the parent's memory.
        same!(value(&Execution::role("show").text()?, "environment")?, "");
        Ok(())
    })
}

/// clone(2) without a stack: like fork, with more shared.
fn clone(flags: i32, child_tid: usize) -> i32 {
    // SAFETY: the child goes on with a copy of this stack, or, with CLONE_VFORK, alone.
    unsafe { libc::syscall(libc::SYS_clone, flags as usize, 0, 0, child_tid, 0) as i32 }
}

fn a_shared_table() -> Outcome {
    case_in_child(|| {
        let file = std::fs::File::open("/proc/self/exe").map_err(|error| error.to_string())?;
        let fd = file.into_raw_fd();
        // SAFETY: an own descriptor.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        let child = clone(libc::CLONE_FILES | libc::SIGCHLD, 0);
        if child == 0 {
            Execution::role("quiet").here();
            // SAFETY: the child ends without unwinding.
            unsafe { libc::_exit(1) };
        }
        same!(wait(child), End::Exited(0));
        // Here it is still open.
        // SAFETY: only looks.
        same!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, libc::FD_CLOEXEC);
        // A failed exec leaves the table shared.
        let child = clone(libc::CLONE_FILES | libc::SIGCHLD, 0);
        if child == 0 {
            Execution::of("/tmp/exec-test/nowhere").here();
            // SAFETY: the descriptor is shared with the parent; the child ends.
            unsafe {
                libc::close(fd);
                libc::_exit(0);
            }
        }
        same!(wait(child), End::Exited(0));
        // SAFETY: only looks.
        same!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1);
        Ok(())
    })
}

fn the_word_is_cleared() -> Outcome {
    case_in_child(|| {
        // SAFETY: fresh memory that parent and child share.
        let word = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).cast::<u32>()
        };
        // SAFETY: the word is ours.
        unsafe { word.write_volatile(77) };
        // By fork the memory is the child's own, but the page is shared: Linux clears the word only where the memory itself is shared.
        let child = clone(libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD, word.addr());
        if child == 0 {
            Execution::role("quiet").here();
            // SAFETY: the child ends without unwinding.
            unsafe { libc::_exit(1) };
        }
        same!(wait(child), End::Exited(0));
        // SAFETY: as above.
        same!(unsafe { word.read_volatile() }, 77);
        let child = borrow(&Execution::role("pause"), libc::CLONE_CHILD_CLEARTID, 0, word);
        ensure!(child > 0);
        // SAFETY: as above. The child still runs.
        let value = unsafe { word.read_volatile() };
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        same!(wait(child), End::Killed(libc::SIGKILL));
        same!(value, 0);
        Ok(())
    })
}

fn beyond_the_limit() -> Outcome {
    case_in_child(|| {
        // SAFETY: the child gives its rights up, and limits itself.
        unsafe {
            libc::setgid(4321);
            libc::setuid(4321);
            let limit = libc::rlimit { rlim_cur: 4, rlim_max: 4 };
            libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit);
        }
        for _ in 0..3 {
            let mut children = vec![];
            for round in 0..6 {
                // SAFETY: this process has one thread; the child waits to be killed.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: as above.
                    unsafe {
                        libc::pause();
                        libc::_exit(0);
                    }
                }
                if round < 3 {
                    ensure!(child > 0);
                    children.push(child);
                } else {
                    ensure!(child == -1 && crate::support::errno() == libc::EAGAIN);
                }
            }
            for &child in &children {
                // SAFETY: our own child; the record is a local.
                unsafe {
                    libc::kill(child, libc::SIGKILL);
                    let mut news = std::mem::zeroed();
                    let options = libc::WEXITED | libc::WNOWAIT;
                    ensure!(libc::waitid(libc::P_PID, child as libc::id_t, &raw mut news, options) == 0);
                }
            }
            // SAFETY: it fails, or the child ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            ensure!(child == -1 && crate::support::errno() == libc::EAGAIN, "a zombie counts until it was waited for");
            for child in children {
                same!(wait(child), End::Killed(libc::SIGKILL));
            }
        }
        Ok(())
    })
}
