//! The vDSO as a C library finds and uses it, against the system calls that it stands for.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux.
//! With the argument `set-clock` it also sets the clock, and back; with `where` it only says where its vDSO is.
#![allow(unsafe_code, reason = "a program that takes a mapped object apart has no safe form")]

use std::ffi::CStr;
use std::process::Command;

use test_programs::{Outcome, ensure, errno, run_one};

type Case = test_programs::Case<fn(&Vdso) -> Outcome>;

const PAGE: usize = 4096;
/// CLOCK_REALTIME, MONOTONIC, MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE, BOOTTIME, TAI.
const CLOCKS: [i32; 7] = [0, 1, 4, 5, 6, 7, 11];

type ClockFunction = unsafe extern "C" fn(i32, *mut [i64; 2]) -> i32;

/// What was found through AT_SYSINFO_EHDR.
struct Vdso {
    base: usize,
    /// Bytes of the object.
    used: usize,
    /// Bytes of its area.
    len: usize,
    clock_gettime: ClockFunction,
    clock_getres: ClockFunction,
    gettimeofday: unsafe extern "C" fn(*mut [i64; 2], *mut [i32; 2]) -> i32,
    time: unsafe extern "C" fn(*mut i64) -> i64,
    getcpu: unsafe extern "C" fn(*mut u32, *mut u32, usize) -> i32,
}

/// Reads a value of the mapped object.
fn at<T: Copy>(address: usize) -> T {
    // SAFETY: the caller stays within the object, as its headers describe it.
    unsafe { (address as *const T).read_unaligned() }
}

fn string(address: usize) -> &'static str {
    // SAFETY: an address in the object's string table, which ends with a zero.
    unsafe { CStr::from_ptr(address as *const _) }.to_str().unwrap_or("?")
}

fn base() -> usize {
    // SAFETY: it only looks a number up.
    unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) as usize }
}

/// Where the area of the object ends.
fn area_end() -> Result<usize, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).ok_or("no [vdso] in maps")?;
    let end = line.split(['-', ' ']).nth(1).unwrap_or_default();
    usize::from_str_radix(end, 16).map_err(|error| format!("{line}: {error}"))
}

impl Vdso {
    /// Takes the object apart as vdso(7) says: program headers, dynamic section, symbols with the version LINUX_2.6.
    fn find() -> Result<Vdso, String> {
        let base = base();
        ensure!(base != 0 && base.is_multiple_of(PAGE) && at::<[u8; 4]>(base) == *b"\x7fELF");
        let (table, count) = (base + at::<u64>(base + 32) as usize, usize::from(at::<u16>(base + 56)));
        let header =
            |wanted: u32| (0..count).map(|index| table + index * 56).find(|header| at::<u32>(*header) == wanted);
        let (load, dynamic) = (header(1).ok_or("no PT_LOAD")?, header(2).ok_or("no PT_DYNAMIC")?);
        let bias = base + at::<u64>(load + 8) as usize - at::<u64>(load + 16) as usize;
        let used = at::<u64>(load + 40) as usize;
        let dynamic = bias + at::<u64>(dynamic + 16) as usize;
        let entry = |tag: u64| {
            let entries = (0..64).map(|index| dynamic + index * 16).take_while(|entry| at::<u64>(*entry) != 0);
            let mut found = entries.filter(|entry| at::<u64>(*entry) == tag);
            found.next().map(|entry| at::<u64>(entry + 8) as usize)
        };
        let address = |tag| entry(tag).map(|offset| bias + offset).ok_or(format!("no dynamic entry {tag:#x}"));
        let (hash, symbols, strings) = (address(4)?, address(6)?, address(5)?);
        let (versions, definitions) = (address(0x6fff_fff0)?, address(0x6fff_fffc)?);
        ensure!(string(strings + entry(14).ok_or("no name")?) == "linux-vdso.so.1");
        let version_name = |wanted: u16| {
            let mut definition = definitions;
            loop {
                if at::<u16>(definition + 4) == wanted {
                    return string(strings + at::<u32>(definition + at::<u32>(definition + 12) as usize) as usize);
                }
                match at::<u32>(definition + 16) as usize {
                    0 => return "?",
                    step => definition += step,
                }
            }
        };
        let find = |name: &str| -> Result<usize, String> {
            for index in 1..at::<u32>(hash + 4) as usize {
                let symbol = symbols + index * 24;
                if string(strings + at::<u32>(symbol) as usize) == name {
                    let version = version_name(at::<u16>(versions + index * 2) & 0x7fff);
                    ensure!(version == "LINUX_2.6", "{name} has version {version}");
                    return Ok(bias + at::<u64>(symbol + 8) as usize);
                }
            }
            Err(format!("no symbol {name}"))
        };
        for plain in ["clock_gettime", "clock_getres", "gettimeofday", "time", "getcpu"] {
            ensure!(find(plain)? == find(&format!("__vdso_{plain}"))?);
        }
        // SAFETY: vdso(7) promises these functions with these prototypes.
        unsafe {
            Ok(Vdso {
                base,
                used,
                len: area_end()? - base,
                clock_gettime: std::mem::transmute::<usize, ClockFunction>(find("__vdso_clock_gettime")?),
                clock_getres: std::mem::transmute::<usize, ClockFunction>(find("__vdso_clock_getres")?),
                gettimeofday: std::mem::transmute::<usize, unsafe extern "C" fn(*mut [i64; 2], *mut [i32; 2]) -> i32>(
                    find("__vdso_gettimeofday")?,
                ),
                time: std::mem::transmute::<usize, unsafe extern "C" fn(*mut i64) -> i64>(find("__vdso_time")?),
                getcpu: std::mem::transmute::<usize, unsafe extern "C" fn(*mut u32, *mut u32, usize) -> i32>(find(
                    "__vdso_getcpu",
                )?),
            })
        }
    }

    fn read(&self, clock: i32) -> Result<[i64; 2], i32> {
        let mut time = [0; 2];
        // SAFETY: the function takes a clock and room for a time.
        match unsafe { (self.clock_gettime)(clock, &raw mut time) } {
            0 => Ok(time),
            error => Err(error),
        }
    }

    fn resolution(&self, clock: i32) -> Result<[i64; 2], i32> {
        let mut time = [0; 2];
        // SAFETY: the function takes a clock and room for a time.
        match unsafe { (self.clock_getres)(clock, &raw mut time) } {
            0 => Ok(time),
            error => Err(error),
        }
    }
}

/// The system call behind a function of a clock and a time.
fn call(number: libc::c_long, clock: i32) -> Result<[i64; 2], i32> {
    let mut time = [0_i64; 2];
    // SAFETY: both calls take a clock and room for a time.
    match unsafe { libc::syscall(number, clock, &raw mut time) } {
        0 => Ok(time),
        _ => Err(-errno()),
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

fn dies_of(status: i32, signal: i32) -> bool {
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal
}

fn maps_shows_both_areas_side_by_side(vdso: &Vdso) -> Outcome {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let find = |name: &str| -> Result<(usize, usize, &str), String> {
        let line = maps.lines().find(|line| line.ends_with(name)).ok_or(format!("no {name}"))?;
        let (range, rest) = line.split_once(' ').ok_or("a short line")?;
        let (start, end) = range.split_once('-').ok_or("no range")?;
        let number = |text| usize::from_str_radix(text, 16).map_err(|error| format!("{text}: {error}"));
        Ok((number(start)?, number(end)?, rest))
    };
    let (image, data) = (find("[vdso]")?, find("[vvar]")?);
    ensure!(image.0 == vdso.base && image.1 == vdso.base + vdso.len && image.1 >= vdso.base + vdso.used, "{maps}");
    // Newer kernels have more pages of data in between.
    ensure!((data.1..=data.1 + 8 * PAGE).contains(&image.0), "{maps}");
    ensure!(image.2.starts_with("r-xp 00000000 00:00 0 ") && data.2.starts_with("r--p 00000000 00:00 0 "), "{maps}");
    Ok(())
}

fn no_clock_goes_back_between_function_and_system_call(vdso: &Vdso) -> Outcome {
    for clock in CLOCKS {
        let mut last = [0; 2];
        for _ in 0..3_000 {
            for read in [vdso.read(clock), call(libc::SYS_clock_gettime, clock), vdso.read(clock)] {
                let time = read.map_err(|error| format!("clock {clock}: {error}"))?;
                ensure!(time >= last && (0..1_000_000_000).contains(&time[1]), "clock {clock}: {last:?} then {time:?}");
                last = time;
            }
        }
    }
    Ok(())
}

fn gettimeofday_and_time_agree_with_their_system_calls(vdso: &Vdso) -> Outcome {
    let mut last = [0; 2];
    let mut last_second = 0;
    for round in 0..1_000 {
        let (mut here, mut there, mut zone) = ([0_i64; 2], [0_i64; 2], [1_i32; 2]);
        let mut second = 0;
        // SAFETY: both take room for a time and a zone; `time` takes room for a number.
        unsafe {
            let (order, zone) = (round % 2 == 0, &raw mut zone);
            if order {
                ensure!((vdso.gettimeofday)(&raw mut here, zone) == 0);
            }
            ensure!(libc::syscall(libc::SYS_gettimeofday, &raw mut there, 0) == 0);
            if !order {
                ensure!((vdso.gettimeofday)(&raw mut here, zone) == 0);
            }
            ensure!((vdso.gettimeofday)(std::ptr::null_mut(), std::ptr::null_mut()) == 0);
            let (earlier, later) = if order { (here, there) } else { (there, here) };
            ensure!(last <= earlier && earlier <= later, "{last:?} {earlier:?} {later:?}");
            last = later;
            ensure!((0..1_000_000).contains(&here[1]));
            let first = libc::syscall(libc::SYS_time, 0);
            ensure!((vdso.time)(&raw mut second) == second && (vdso.time)(std::ptr::null_mut()) >= second);
            ensure!(last_second <= first && first <= second && second <= libc::syscall(libc::SYS_time, 0));
            last_second = second;
        }
        ensure!(zone == [0, 0]);
    }
    Ok(())
}

fn getcpu_tells_where_the_thread_runs(vdso: &Vdso) -> Outcome {
    // SAFETY: valid places for results; the affinity is the one the thread has.
    unsafe {
        let (mut cpu, mut node, mut kernel_cpu, mut kernel_node) = (77_u32, 77_u32, 78_u32, 78_u32);
        ensure!(libc::syscall(libc::SYS_getcpu, &raw mut kernel_cpu, &raw mut kernel_node, 0) == 0);
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(kernel_cpu as usize, &mut set);
        ensure!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0);
        ensure!(libc::syscall(libc::SYS_getcpu, &raw mut kernel_cpu, &raw mut kernel_node, 0) == 0);
        ensure!((vdso.getcpu)(&raw mut cpu, &raw mut node, 0) == 0);
        ensure!((cpu, node) == (kernel_cpu, kernel_node));
        ensure!((vdso.getcpu)(std::ptr::null_mut(), std::ptr::null_mut(), 0) == 0);
    }
    Ok(())
}

fn clocks_that_the_page_does_not_tell_are_asked_of_the_kernel(vdso: &Vdso) -> Outcome {
    for clock in [2, 3] {
        let before = call(libc::SYS_clock_gettime, clock);
        let read = vdso.read(clock);
        ensure!(before.is_ok() && read.is_ok() && before <= read && read <= call(libc::SYS_clock_gettime, clock));
    }
    for clock in [10, 12, 15, 1000, i32::MAX] {
        ensure!(vdso.read(clock) == Err(-libc::EINVAL), "clock {clock}");
        ensure!(call(libc::SYS_clock_gettime, clock) == Err(-libc::EINVAL), "clock {clock}");
        ensure!(vdso.resolution(clock) == Err(-libc::EINVAL), "clock {clock}");
    }
    for clock in CLOCKS.into_iter().chain([2, 3]) {
        ensure!(vdso.resolution(clock) == call(libc::SYS_clock_getres, clock), "clock {clock}");
        // SAFETY: without room for a result there is none.
        ensure!(unsafe { (vdso.clock_getres)(clock, std::ptr::null_mut()) } == 0);
    }
    Ok(())
}

/// Every function that makes no system call, a thousand times.
fn use_it(vdso: &Vdso) -> bool {
    (0..1_000).all(|_| {
        let (mut time, mut second, mut cpu) = ([0; 2], 0, 0);
        // SAFETY: room for each result.
        let others = unsafe {
            (vdso.gettimeofday)(&raw mut time, std::ptr::null_mut()) == 0
                && (vdso.time)(&raw mut second) > 0
                && (vdso.getcpu)(&raw mut cpu, std::ptr::null_mut(), 0) == 0
        };
        others && CLOCKS.into_iter().all(|clock| vdso.read(clock).is_ok() && vdso.resolution(clock).is_ok())
    })
}

/// The kernel's count of system calls, where it tells.
fn system_calls() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/rouse/counters").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("system_calls "))?.parse().ok()
}

fn no_function_makes_a_system_call(vdso: &Vdso) -> Outcome {
    if let (Some(start), Some(before)) = (system_calls(), system_calls()) {
        ensure!(use_it(vdso));
        let calls = system_calls().unwrap_or(u64::MAX) - before;
        // What counting costs, and a few for whoever else is awake: not a hundredth of the seventeen thousand.
        ensure!(calls <= before - start + 100, "{calls} system calls, {} for counting", before - start);
        return Ok(());
    }
    // On Linux: a process that is killed by any but exit. (Where the clock is not the counter, Linux must make the calls.)
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    if !source.is_ok_and(|source| source.trim() == "tsc") {
        return Ok(());
    }
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(LOAD, 0, 0),
        step(IS, libc::SYS_exit as u32, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    let status = in_child(|| {
        // SAFETY: from the filter on the child only uses the vDSO and ends.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
                return 2;
            }
            libc::syscall(libc::SYS_exit, i32::from(!use_it(vdso)));
        }
        3
    });
    ensure!(status == 0, "status {status:#x}");
    Ok(())
}

fn where_is_it(randomized: bool) -> Result<String, String> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg("where");
    if !randomized {
        // SAFETY: one system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
    }
    let output = command.output().map_err(|error| error.to_string())?;
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn its_place_is_chosen_by_chance(_vdso: &Vdso) -> Outcome {
    let places = (0..6).map(|_| where_is_it(true)).collect::<Result<std::collections::BTreeSet<_>, _>>()?;
    ensure!(places.len() >= 5, "{places:?}");
    ensure!(where_is_it(false)? == where_is_it(false)?);
    Ok(())
}

fn a_program_may_take_it_away_from_itself(vdso: &Vdso) -> Outcome {
    let (base, len) = (vdso.base as *mut libc::c_void, vdso.len);
    let data = (vdso.base - PAGE) as *mut libc::c_void;
    // SAFETY: each child does to its own vDSO what it then must live with, or die of.
    unsafe {
        let unmapped = in_child(|| {
            let is_gone = libc::munmap(base, len) == 0;
            i32::from(!is_gone || call(libc::SYS_clock_gettime, 1).is_err())
        });
        ensure!(unmapped == 0);
        let without_image = in_child(|| {
            libc::munmap(base, len);
            vdso.read(1).map_or(1, |_| 2)
        });
        ensure!(dies_of(without_image, libc::SIGSEGV), "{without_image:#x}");
        let moved = in_child(|| {
            let room = libc::mmap(std::ptr::null_mut(), len, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let is_there = libc::mremap(base, len, len, flags, room) == room;
            i32::from(!is_there || at::<[u8; 4]>(room as usize) != *b"\x7fELF")
        });
        ensure!(moved == 0, "{moved:#x}");
        let grown = libc::mremap(base, len, len + PAGE, libc::MREMAP_MAYMOVE);
        ensure!(grown == libc::MAP_FAILED && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT));
        let writes_data = in_child(|| {
            data.cast::<u8>().write_volatile(1);
            0
        });
        ensure!(dies_of(writes_data, libc::SIGSEGV), "{writes_data:#x}");
        ensure!(libc::mprotect(data, PAGE, libc::PROT_READ | libc::PROT_WRITE) == -1);
        ensure!(std::io::Error::last_os_error().raw_os_error() == Some(libc::EACCES));
        // A debugger's breakpoint: the child's copy changes, nobody else's.
        let end = vdso.base + len - 1;
        let before = at::<u8>(end);
        let patched = in_child(|| {
            if libc::mprotect(base, len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) != 0 {
                return 1;
            }
            (end as *mut u8).write_volatile(before ^ 0xff);
            i32::from(at::<u8>(end) != before ^ 0xff || vdso.read(1).is_err())
        });
        ensure!(patched == 0 && at::<u8>(end) == before, "{patched:#x}");
    }
    Ok(())
}

fn children_and_threads_have_it_too(vdso: &Vdso) -> Outcome {
    let before = vdso.read(1);
    let child = in_child(|| i32::from(vdso.read(1) < before));
    ensure!(child == 0);
    let in_thread = std::thread::scope(|scope| scope.spawn(|| vdso.read(1)).join());
    ensure!(in_thread.is_ok_and(|time| time >= before && time <= call(libc::SYS_clock_gettime, 1)));
    Ok(())
}

const CASES: &[Case] = &[
    ("maps shows both areas side by side", maps_shows_both_areas_side_by_side),
    ("no clock goes back between function and system call", no_clock_goes_back_between_function_and_system_call),
    ("gettimeofday and time agree with their system calls", gettimeofday_and_time_agree_with_their_system_calls),
    ("getcpu tells where the thread runs", getcpu_tells_where_the_thread_runs),
    (
        "clocks that the page does not tell are asked of the kernel",
        clocks_that_the_page_does_not_tell_are_asked_of_the_kernel,
    ),
    ("no function makes a system call", no_function_makes_a_system_call),
    ("its place is chosen by chance", its_place_is_chosen_by_chance),
    ("a program may take it away from itself", a_program_may_take_it_away_from_itself),
    ("children and threads have it too", children_and_threads_have_it_too),
];

/// Sets the clock an hour ahead and back: the page is told at once.
fn a_new_time_is_seen_at_once(vdso: &Vdso) -> Outcome {
    let (wall, since_boot) = (vdso.read(0).unwrap_or_default(), vdso.read(1).unwrap_or_default());
    let set = |seconds: i64| {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
        // SAFETY: a valid time.
        unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) == 0 }
    };
    ensure!(set(wall[0] + 3600));
    let (ahead, asked) = (vdso.read(0), call(libc::SYS_clock_gettime, 0));
    ensure!(ahead >= Ok([wall[0] + 3600, 0]) && ahead <= asked, "{wall:?} {ahead:?} {asked:?}");
    ensure!(vdso.read(1) >= Ok(since_boot) && vdso.read(1) < Ok([since_boot[0] + 1800, 0]));
    ensure!(set(wall[0]));
    ensure!(vdso.read(0) < Ok([wall[0] + 1800, 0]));
    Ok(())
}

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("where") {
        print!("{:#x}", base());
        return;
    }
    let vdso = match Vdso::find() {
        Ok(vdso) => vdso,
        Err(reason) => {
            println!("it is found by its symbols: {reason}");
            std::process::exit(100);
        }
    };
    let run = |(name, case): &Case| run_one(name, case, |case| case(&vdso));
    let mut failures: i32 = CASES.iter().map(run).sum();
    if argument.as_deref() == Some("set-clock") {
        failures += run(&("a new time is seen at once", a_new_time_is_seen_at_once));
    }
    std::process::exit(failures);
}
