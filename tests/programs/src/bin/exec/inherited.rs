//! What a new program takes over from the old one, and what not (execve(2), "Effect on process attributes").

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use crate::support::{Case, End, Execution, FOLDER, Outcome, SELF, ensure, number, same, value, write};

pub const CASES: &[Case] = &[
    ("descriptors stay open with their flags and offsets, or close", descriptors),
    ("handlers are dropped, ignored signals stay ignored, pending ones pending", signals),
    ("the alternate stack is dropped", the_alternate_stack),
    ("a timer runs on", a_timer),
    ("directory, umask, limits and nice value are kept", attributes),
    ("/proc tells of the new program", what_proc_tells),
    ("the name is the file's that was called", the_name),
    ("a removed program runs on", a_removed_program),
];

fn descriptors() -> Outcome {
    write("data", b"0123456789", 0o644);
    let state = Execution::role("state").before(|| {
        let mut file =
            std::fs::OpenOptions::new().read(true).append(true).open("/tmp/exec-test/data").expect("it is there");
        file.seek(SeekFrom::Start(4)).expect("a place");
        let fd = file.into_raw_fd();
        // SAFETY: the child's own descriptors.
        unsafe {
            libc::dup2(fd, 20);
            libc::dup2(fd, 21);
            libc::fcntl(21, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::dup3(fd, 22, libc::O_CLOEXEC);
            libc::fcntl(22, libc::F_SETFD, 0);
            for other in 3..20 {
                libc::close(other);
            }
        }
    });
    // Which ones are open, with their flags and places: append and read-write, at 4.
    let text = state.text()?;
    same!(value(&text, "descriptor 20")?, "0o2002 at 4");
    same!(value(&text, "descriptor 22")?, "0o2002 at 4");
    ensure!(value(&text, "descriptor 21").is_err());
    // An offset is shared with those who share the file.
    let mut file = std::fs::File::open("/tmp/exec-test/data").map_err(|error| error.to_string())?;
    let mut bytes = [0; 3];
    file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
    let fd = file.into_raw_fd();
    let text = Execution::role("state")
        .before(move || {
            // SAFETY: the child's own descriptors.
            unsafe { libc::dup2(fd, 30) };
        })
        .text()?;
    same!(value(&text, "descriptor 30")?, "0o0 at 3");
    // SAFETY: it is ours.
    drop(unsafe { std::fs::File::from_raw_fd(fd) });
    Ok(())
}

extern "C" fn nothing(_: i32) {}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn bits(text: &str, name: &str) -> Result<u64, String> {
    u64::from_str_radix(value(text, name)?, 16).map_err(|error| error.to_string())
}

fn signals() -> Outcome {
    let text = Execution::role("state")
        .before(|| {
            // SAFETY: a handler that does nothing; the child's own signals.
            unsafe {
                libc::signal(libc::SIGUSR1, nothing as *const () as usize);
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                let mut set: libc::sigset_t = std::mem::zeroed();
                for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT, 40] {
                    libc::sigaddset(&raw mut set, signal);
                }
                libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
                libc::raise(libc::SIGUSR1);
                libc::kill(libc::getpid(), 40);
            }
        })
        .text()?;
    ensure!(bits(&text, "SigCgt")? & bit(libc::SIGUSR1) == 0);
    let ours = bit(libc::SIGTERM) | bit(libc::SIGCHLD) | bit(libc::SIGUSR1) | bit(libc::SIGUSR2);
    same!(bits(&text, "SigIgn")? & ours, bit(libc::SIGTERM) | bit(libc::SIGCHLD));
    same!(bits(&text, "SigBlk")?, bit(libc::SIGUSR1) | bit(libc::SIGUSR2) | bit(libc::SIGINT) | bit(40));
    same!(bits(&text, "SigPnd")?, bit(libc::SIGUSR1));
    same!(bits(&text, "ShdPnd")?, bit(40));
    // The new program can be ended by a signal that the old one caught.
    let end = Execution::role("state").before(|| {
        // SAFETY: as above.
        unsafe {
            libc::signal(libc::SIGUSR1, nothing as *const () as usize);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR2);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            libc::kill(libc::getpid(), libc::SIGUSR2);
        }
    });
    same!(end.end(), End::Exited(0));
    Ok(())
}

fn the_alternate_stack() -> Outcome {
    static mut STACK: [u8; 1 << 16] = [0; 1 << 16];
    let text = Execution::role("state")
        .before(|| {
            let stack = libc::stack_t { ss_sp: (&raw mut STACK).cast(), ss_flags: 0, ss_size: 1 << 16 };
            // SAFETY: memory that lives on.
            unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
        })
        .text()?;
    ensure!(number(&text, "alternate stack at")? != (&raw const STACK).addr() as u64);
    Ok(())
}

fn timer(milliseconds: i64) -> impl Fn() {
    move || {
        let mut timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 },
        };
        // SAFETY: a valid timer.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw mut timer, std::ptr::null_mut()) };
    }
}

fn a_timer() -> Outcome {
    let left = number(&Execution::role("state").before(timer(100_000)).text()?, "timer")?;
    ensure!((80..100).contains(&left));
    let started = std::time::Instant::now();
    same!(Execution::role("alarm").before(timer(400)).end(), End::Killed(libc::SIGALRM));
    ensure!(started.elapsed() < Duration::from_secs(15));
    Ok(())
}

fn attributes() -> Outcome {
    let text = Execution::role("state")
        .before(|| {
            // SAFETY: valid arguments.
            unsafe {
                libc::chdir(c"/tmp".as_ptr());
                libc::umask(0o137);
                libc::setpriority(libc::PRIO_PROCESS, 0, 7);
                let limit = libc::rlimit { rlim_cur: 123, rlim_max: 456 };
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
                libc::prctl(libc::PR_SET_DUMPABLE, 0);
            }
        })
        .text()?;
    for (name, wanted) in
        [("directory", "/tmp"), ("umask", "137"), ("nice", "7"), ("descriptors", "123"), ("dumpable", "1")]
    {
        same!(value(&text, name)?, wanted);
    }
    same!(number(&text, "death signal")?, libc::SIGUSR1 as u64);
    Ok(())
}

fn what_proc_tells() -> Outcome {
    let text = Execution::role("state").argument("extra \u{e9}").environment(["A=1", "B"]).text()?;
    same!(value(&text, "exe")?, SELF);
    same!(value(&text, "comm")?, "self");
    same!(value(&text, "cmdline")?, "/tmp/exec-test/self\\x00role\\x00state\\x00extra \\xc3\\xa9\\x00");
    same!(value(&text, "environ")?, "A=1\\x00B\\x00");
    // Through a link, and as a script.
    std::os::unix::fs::symlink(SELF, format!("{FOLDER}/other-name")).map_err(|error| error.to_string())?;
    let text = Execution::of(format!("{FOLDER}/other-name")).arguments(["called", "role", "state"]).text()?;
    same!(value(&text, "exe")?, SELF);
    same!(value(&text, "comm")?, "other-name");
    Ok(())
}

fn the_name() -> Outcome {
    let own = std::fs::read(SELF).map_err(|error| error.to_string())?;
    let path = write("a-name-of-more-than-15-bytes", &own, 0o755);
    let text = Execution::of(&path).arguments(["called", "role", "state"]).text()?;
    same!(value(&text, "comm")?, "a-name-of-more-");
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    // A script gives its own name, not its interpreter's.
    // It is called by a relative name, so that this is the role's.
    write("state", format!("#!{FOLDER}/self role\n").as_bytes(), 0o755);
    let text = Execution::of("state").text()?;
    same!(value(&text, "comm")?, "state");
    same!(value(&text, "exe")?, SELF);
    Ok(())
}

fn a_removed_program() -> Outcome {
    let own = std::fs::read(SELF).map_err(|error| error.to_string())?;
    let path = write("vanishing", &own, 0o755);
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let execution = Execution::of(SELF).arguments(["called", "role", "state"]).by(move |arguments, environment| {
        // SAFETY: the lists are ended by null pointers.
        unsafe { libc::fexecve(fd, arguments.cast(), environment.cast()) };
    });
    let text = execution.text()?;
    same!(value(&text, "exe")?, "/tmp/exec-test/vanishing (deleted)");
    Ok(())
}
