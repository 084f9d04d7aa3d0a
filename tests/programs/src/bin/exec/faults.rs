//! What becomes of an exec when something is lacking: memory for one allocation, or a page of a disk. Asked of Rouse alone, whose
//! /proc/rouse lets things fail on demand: `exec allocations`, `exec disk FOLDER`.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::files;
use crate::support::{End, Execution, FOLDER, Outcome, case_in_child, ensure, errno, pipe, same, wait};

const ALLOCATION_FAULT: &str = "/proc/rouse/allocation-fault";
const BLOCK_FAULT: &str = "/proc/rouse/block-fault";

/// What must come back: memory in use (in KiB, the page cache aside), tasks, processes.
#[derive(Clone, Copy, Debug)]
struct Inventory {
    memory: i64,
    tasks: u64,
    processes: usize,
    descriptors: usize,
}

impl Inventory {
    fn take() -> Result<Inventory, String> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let meminfo = read("/proc/meminfo")?;
        let field = |name: &str| -> i64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        let counters = read("/proc/rouse/counters")?;
        let tasks = counters.lines().find_map(|line| line.strip_prefix("tasks ")?.parse().ok()).unwrap_or(0);
        let entries = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
        let numbers = std::fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten();
        let is_number = |name: std::ffi::OsString| name.to_string_lossy().parse::<u32>().is_ok();
        Ok(Inventory {
            memory: field("MemTotal") - field("MemFree") - field("Cached") - field("Buffers"),
            tasks,
            processes: numbers.filter(|entry| is_number(entry.file_name())).count(),
            descriptors: entries("/proc/self/fd"),
        })
    }

    fn compare(self, later: Inventory) -> Outcome {
        let same =
            self.tasks == later.tasks && self.processes == later.processes && self.descriptors == later.descriptors;
        // Caches of the allocators breathe by some pages.
        if same && later.memory - self.memory < 256 { Ok(()) } else { Err(format!("{self:?}, later {later:?}")) }
    }
}

fn demand(countdown: Option<u32>) -> Outcome {
    let text = countdown.map_or("off".to_owned(), |countdown| countdown.to_string());
    std::fs::write(ALLOCATION_FAULT, text).map_err(|error| error.to_string())
}

fn has_struck() -> bool {
    std::fs::read_to_string(ALLOCATION_FAULT).is_ok_and(|left| left == "off\n")
}

/// Lets each allocation in `work` fail, one after the other: `work` says what became of it, and how often it was `ENOMEM`. It is run in a
/// child, which must live on.
fn each_failure(name: &str, work: impl Fn() -> Result<(), i32>) -> Outcome {
    let mut refused = 0;
    for countdown in 0..2000 {
        let before = Inventory::take()?;
        let (mut ended, mut status) = (false, 0);
        case_in_child(|| {
            demand(Some(countdown))?;
            match work() {
                Ok(()) => Ok(()),
                Err(libc::ENOMEM | libc::EAGAIN) if has_struck() => Err("refused".into()),
                Err(errno) => Err(format!("errno {errno}, struck: {}", has_struck())),
            }
        })
        .or_else(|why| {
            status = i32::from(why == "refused");
            // Some of the programs end with a status of their own, and then there is nothing to say.
            if status == 1 || why.is_empty() { Ok(()) } else { Err(format!("{name}, failure {countdown}: {why}")) }
        })?;
        refused += status;
        if !has_struck() {
            ended = true;
        }
        demand(None)?;
        if countdown > 8 {
            before.compare(Inventory::take()?).map_err(|why| format!("{name}, failure {countdown}: {why}"))?;
        }
        if ended {
            println!("{name}: {countdown} allocations, {refused} failures were told");
            return if refused > 0 { Ok(()) } else { Err(format!("{name}: nothing failed")) };
        }
    }
    Err(format!("{name}: it does not end"))
}

/// Each allocation of fork, of making a thread's process by vfork, and of exec fails once; each time the caller lives on, is told, and
/// nothing is lost.
pub fn allocations() -> Outcome {
    crate::support::prepare();
    files::make(FOLDER.as_ref(), FOLDER);
    let memory = vec![1_u8; 3 << 20]; // so that there are page tables to copy
    each_failure("fork", || {
        // SAFETY: this process has one thread; the child ends at once.
        let child = unsafe { libc::fork() };
        match child {
            // SAFETY: as above.
            0 => unsafe { libc::_exit(0) },
            -1 => Err(errno()),
            child => {
                wait(child);
                Ok(())
            }
        }
    })?;
    ensure!(memory.iter().all(|byte| *byte == 1));
    for (name, execution) in [
        ("exec of a static program", Execution::of("/tmp/exec-test/tiny")),
        ("exec of a script", Execution::of("/tmp/exec-test/script")),
        ("exec with an interpreter", Execution::of("/tmp/exec-test/interpreted")),
        ("exec with storage", Execution::of("/tmp/exec-test/storage")),
    ] {
        // The new programs make no calls that could fail, and their page faults try again.
        each_failure(name, || Err(execution.here()))?;
    }
    Ok(())
}

fn set_disk(faults: &str) -> Outcome {
    std::fs::write(BLOCK_FAULT, faults).map_err(|error| format!("{faults}: {error}"))
}

/// Forgets what was read, so that it must be read again.
fn forget() -> Outcome {
    std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| format!("drop_caches: {error}"))
}

/// Executes programs of a file system on a disk that is slow, and that fails.
pub fn disk(folder: &str) -> Outcome {
    let program = || Execution::of(format!("{folder}/program")).arguments(["program", "role", "quiet"]);
    same!(program().end(), End::Exited(0));
    let before = Inventory::take()?;
    slow(folder)?;
    failing(folder)?;
    set_disk("off")?;
    forget()?;
    same!(program().end(), End::Exited(0));
    before.compare(Inventory::take()?)
}

fn slow(folder: &str) -> Outcome {
    forget()?;
    set_disk("delay=1s,on=reads")?;
    let started = Instant::now();
    // SAFETY: this process has one thread; the child only executes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        Execution::of(format!("{folder}/program")).arguments(["program", "role", "quiet"]).here();
        // SAFETY: the child ends without unwinding.
        unsafe { libc::_exit(1) };
    }
    // Meanwhile this process is never kept waiting for long: short sleeps, files in memory, children.
    let (mut longest, mut steps) = (Duration::ZERO, 0);
    let end = loop {
        let step = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        ensure!(std::fs::read("/proc/self/stat").is_ok());
        // SAFETY: this process has one thread; the child ends at once.
        let other = unsafe { libc::fork() };
        if other == 0 {
            // SAFETY: as above.
            unsafe { libc::_exit(3) };
        }
        same!(wait(other), End::Exited(3));
        longest = longest.max(step.elapsed());
        steps += 1;
        let mut status = 0;
        // SAFETY: room for a status.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            break status;
        }
    };
    set_disk("off")?;
    same!(end, 0);
    println!(
        "slow: {} ms, meanwhile {steps} steps, the longest {} ms",
        started.elapsed().as_millis(),
        longest.as_millis()
    );
    ensure!(started.elapsed() >= Duration::from_secs(1) && steps >= 5);
    // A wait on the disk in a step would be a second at least.
    ensure!(longest < Duration::from_millis(950));
    Ok(())
}

fn failing(folder: &str) -> Outcome {
    // Everything fails: the old program goes on with EIO, its memory, handlers and descriptors as they were.
    forget()?;
    set_disk("eio=all,on=reads")?;
    let all = case_in_child(|| {
        let memory = vec![7_u8; 100_000];
        same!(Execution::of(format!("{folder}/program")).here(), libc::EIO);
        ensure!(memory.iter().all(|byte| *byte == 7));
        Ok(())
    });
    set_disk("off")?;
    all?;
    // One read fails, each in turn: before the commit it is EIO; after it, the new program is killed as it touches the page; and then
    // there is a number of reads that is enough.
    for (name, status, least) in [("interpreted", 42, 2), ("script", 42, 2), ("program", 0, 1)] {
        let (told, killed) = each_read(&format!("{folder}/{name}"), status)?;
        println!("{name}: {told} times EIO, {killed} times killed, then it ran");
        ensure!(told >= least);
    }
    after_the_commit(folder)
}

/// A program runs, its pages are forgotten, and the disk fails: it is killed as it goes on.
fn after_the_commit(folder: &str) -> Outcome {
    let ((mut from_child, to_here), (from_here, to_child)) = (pipe(), pipe());
    let input = from_here.as_raw_fd();
    // SAFETY: this process has one thread; the child only executes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the child's own descriptors.
        unsafe { (libc::dup2(input, 0), libc::dup2(to_here, 1), libc::close(to_child)) };
        Execution::of(format!("{folder}/program")).arguments(["program", "role", "await"]).here();
        // SAFETY: the child ends without unwinding.
        unsafe { libc::_exit(1) };
    }
    let mut byte = [0];
    from_child.read_exact(&mut byte).map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_millis(50)); // so that it is in its read
    forget()?;
    set_disk("eio=all,on=reads")?;
    // SAFETY: one byte, and descriptors that nobody else uses.
    unsafe { (libc::write(to_child, byte.as_ptr().cast(), 1), libc::close(to_child), libc::close(to_here)) };
    let end = wait(child);
    set_disk("off")?;
    same!(end, End::Killed(libc::SIGBUS));
    Ok(())
}

/// How often it was told, and how often the program was killed, before nothing that was needed failed any more.
fn each_read(path: &str, status: i32) -> Result<(u32, u32), String> {
    let (mut told, mut killed) = (0, 0);
    for nth in 1..1000 {
        forget()?;
        set_disk(&format!("eio=nth:{nth},on=reads"))?;
        let end = Execution::of(path).arguments(["program", "role", "quiet"]).end();
        set_disk("off")?;
        match end {
            End::Refused(libc::EIO) if killed == 0 => told += 1,
            End::Killed(libc::SIGBUS | libc::SIGKILL) => killed += 1,
            End::Exited(found) if found == status => return Ok((told, killed)),
            other => return Err(format!("{path}, read {nth}: {}", other.words())),
        }
    }
    Err("it never ran".into())
}
