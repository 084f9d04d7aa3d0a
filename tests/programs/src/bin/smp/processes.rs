//! Children, signals and programs that begin and end while others compute.

use super::*;

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

pub fn children_start_and_end_on_all_cpus_at_once(time: Duration) -> Outcome {
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

pub fn signals_find_threads_that_compute(time: Duration) -> Outcome {
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

/// Starts a thread for each CPU that computes for ever.
fn compute_everywhere() {
    for _ in 0..cpus() {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop()
            }
        });
    }
}

pub fn busy_children_are_killed_stopped_and_ended(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut round = 0;
    while Instant::now() < end {
        // SAFETY: the child computes until it is ended, with threads that do the same.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                compute_everywhere();
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

pub fn an_exec_ends_the_other_threads(time: Duration) -> Outcome {
    let path = myself();
    let end = Instant::now() + time;
    let mut round = 0;
    while Instant::now() < end {
        // SAFETY: the child executes this program anew.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                compute_everywhere();
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
