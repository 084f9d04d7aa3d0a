//! What this program is when a case executes it: each role prints what it finds, as lines of `name: value`.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::support::text;

/// The role that the arguments ask for.
pub fn wanted(arguments: &[OsString]) -> Option<fn()> {
    let called = arguments.first().map(|name| name.as_bytes()).unwrap_or_default();
    if called == b"show" || called.ends_with(b"/show") || called.starts_with(b"/dev/fd/") {
        return Some(show);
    }
    if arguments.get(1).is_none_or(|argument| argument != "role") {
        // With a list of arguments that is empty, Linux makes one of them.
        return called.is_empty().then_some(show as fn());
    }
    let (_, role) = ROLES.iter().find(|(name, _)| arguments.get(2).is_some_and(|wanted| wanted == name))?;
    Some(*role)
}

const ROLES: &[(&str, fn())] = &[
    ("show", show),
    ("state", state),
    ("vector", vector),
    ("places", places),
    ("lengths", lengths),
    ("deep", deep),
    ("stack-code", stack_code),
    ("pause", pause),
    ("alarm", alarm),
    ("await", || {
        pause_for_input();
        places();
    }),
    ("quiet", || ()),
];

fn joined(strings: impl Iterator<Item = OsString>) -> String {
    strings.map(|string| string.as_bytes().escape_ascii().to_string()).collect::<Vec<_>>().join("|")
}

fn environment() -> Vec<Vec<u8>> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut list = vec![];
    // SAFETY: the C library's list, ended by a null pointer; nobody changes it here.
    unsafe {
        let mut at = environ;
        while !(*at).is_null() {
            list.push(std::ffi::CStr::from_ptr(*at).to_bytes().to_vec());
            at = at.add(1);
        }
    }
    list
}

/// Arguments and environment.
fn show() {
    println!("arguments:{}", joined(std::env::args_os()));
    let list = environment().iter().map(|entry| entry.escape_ascii().to_string()).collect::<Vec<_>>();
    println!("environment:{}", list.join("|"));
}

fn call(number: libc::c_long, a: usize, b: usize, c: usize) -> i64 {
    // SAFETY: the callers pass what the calls want.
    unsafe { libc::syscall(number, a, b, c) }
}

/// Who and what the process is.
fn state() {
    let mut out = String::new();
    let _ = writeln!(out, "pid: {}", std::process::id());
    let _ = writeln!(out, "tid: {}", call(libc::SYS_gettid, 0, 0, 0));
    let _ = writeln!(out, "ppid: {}", call(libc::SYS_getppid, 0, 0, 0));
    let mut ids = [0_u32; 6];
    let at = |index: usize| (&raw const ids[index]).addr();
    call(libc::SYS_getresuid, at(0), at(1), at(2));
    call(libc::SYS_getresgid, at(3), at(4), at(5));
    // SAFETY: the numbers were stored behind the compiler's back.
    let ids = unsafe { (&raw mut ids).read_volatile() };
    let _ = writeln!(out, "ids: {ids:?}");
    // SAFETY: no memory is involved.
    unsafe {
        let _ = writeln!(out, "secure: {}", libc::getauxval(libc::AT_SECURE));
        let _ = writeln!(out, "dumpable: {}", libc::prctl(libc::PR_GET_DUMPABLE));
        let mut signal = 0_i32;
        libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal);
        let _ = writeln!(out, "death signal: {signal}");
        let _ = writeln!(out, "no new privileges: {}", libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        let mut stack: libc::stack_t = std::mem::zeroed();
        libc::syscall(libc::SYS_sigaltstack, 0, &raw mut stack);
        // The Rust runtime makes one of its own; it does so after the kernel has dropped the old one.
        let _ = writeln!(out, "alternate stack at: {:#x}", stack.ss_sp.addr());
        let mut timer: libc::itimerval = std::mem::zeroed();
        libc::getitimer(libc::ITIMER_REAL, &raw mut timer);
        let _ = writeln!(out, "timer: {}", timer.it_value.tv_sec);
        let _ = writeln!(out, "persona: {:#x}", libc::personality(0xffff_ffff));
        let _ = writeln!(out, "nice: {}", libc::getpriority(libc::PRIO_PROCESS, 0));
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let _ = writeln!(out, "descriptors: {}", limit.rlim_cur);
        let mask = libc::umask(0);
        let _ = writeln!(out, "umask: {mask:o}");
    }
    let _ = writeln!(out, "directory: {}", std::env::current_dir().unwrap_or_default().display());
    let read = |name: &str| std::fs::read(format!("/proc/self/{name}")).unwrap_or_default();
    let _ = writeln!(out, "comm: {}", text(&read("comm")).trim_end());
    let exe = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let _ = writeln!(out, "exe: {}", exe.display());
    let _ = writeln!(out, "cmdline: {}", read("cmdline").escape_ascii());
    let _ = writeln!(out, "environ: {}", read("environ").escape_ascii());
    for line in text(&read("status")).lines() {
        let name = line.split(':').next().unwrap_or_default();
        if ["Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapEff"].contains(&name) {
            let _ = writeln!(out, "{line}");
        }
    }
    for fd in 3..40 {
        // SAFETY: only looks.
        let (flags, place) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
        if flags >= 0 {
            let _ = writeln!(out, "descriptor {fd}: {:#o} at {place}", flags & !0o100_000);
        }
    }
    print!("{out}");
}

/// The auxiliary vector, compared with what is so.
fn vector() {
    // SAFETY: no memory but the vector's own strings, which live as long as the process.
    unsafe {
        let value = |key| libc::getauxval(key);
        let keys = [
            libc::AT_PHDR,
            libc::AT_PHENT,
            libc::AT_PHNUM,
            libc::AT_PAGESZ,
            libc::AT_BASE,
            libc::AT_FLAGS,
            libc::AT_ENTRY,
            libc::AT_UID,
            libc::AT_EUID,
            libc::AT_GID,
            libc::AT_EGID,
            libc::AT_PLATFORM,
            libc::AT_HWCAP,
            libc::AT_CLKTCK,
            libc::AT_SECURE,
            libc::AT_RANDOM,
            libc::AT_HWCAP2,
            libc::AT_EXECFN,
            libc::AT_MINSIGSTKSZ,
        ];
        let bytes = std::fs::read("/proc/self/auxv").unwrap_or_default();
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight"))).collect();
        let in_file = |key: u64| words.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
        // The C library changes its own copy of what the processor can do.
        for key in keys {
            println!("has {key}: {}", in_file(key).is_some());
            println!(
                "same in /proc {key}: {}",
                [libc::AT_HWCAP, libc::AT_HWCAP2].contains(&key) || in_file(key) == Some(value(key))
            );
        }
        println!("ends: {}", words.len().is_multiple_of(2) && words.ends_with(&[0, 0]));
        for key in [
            libc::AT_PHENT,
            libc::AT_PAGESZ,
            libc::AT_BASE,
            libc::AT_FLAGS,
            libc::AT_UID,
            libc::AT_EUID,
            libc::AT_GID,
            libc::AT_EGID,
            libc::AT_CLKTCK,
            libc::AT_SECURE,
            libc::AT_PHNUM,
        ] {
            println!("value {key}: {}", value(key));
        }
        let (told, real) = (in_file(libc::AT_HWCAP).unwrap_or(0), u64::from(std::arch::x86_64::__cpuid(1).edx));
        println!("features: {}", told & !real == 0 && told & 1 << 26 != 0); // some may be hidden, SSE2 is there
        println!("name: {}", std::ffi::CStr::from_ptr(value(libc::AT_EXECFN) as *const _).to_string_lossy());
        println!("platform: {}", std::ffi::CStr::from_ptr(value(libc::AT_PLATFORM) as *const _).to_string_lossy());
        let random = std::slice::from_raw_parts(value(libc::AT_RANDOM) as *const u8, 16);
        println!("random: {random:02x?}");
        println!("signal stack: {}", (1024..1 << 20).contains(&value(libc::AT_MINSIGSTKSZ)));
        println!("header in place: {}", *((value(libc::AT_PHDR) & !4095) as *const [u8; 4]) == *b"\x7fELF");
    }
}

/// Where things lie.
fn places() {
    let variable = 0_u8;
    // SAFETY: a mapping that is only looked at.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), 4096, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        println!("program: {:#x}", (places as *const ()).addr() & !4095);
        println!("stack: {:#x}", (&raw const variable).addr());
        println!("mapping: {:#x}", map.addr());
        println!("brk: {:#x}", call(libc::SYS_brk, 0, 0, 0));
        println!("vdso: {:#x}", libc::getauxval(libc::AT_SYSINFO_EHDR));
    }
    for line in text(&std::fs::read("/proc/self/maps").unwrap_or_default()).lines() {
        if line.ends_with("[stack]") {
            println!("stack area: {line}");
        }
    }
}

/// How many and how long the arguments and the environment are, and whether they are what the caller made.
fn lengths() {
    let sum = |list: &[Vec<u8>]| -> u64 {
        list.iter().flatten().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
    };
    let arguments: Vec<Vec<u8>> = std::env::args_os().map(|argument| argument.as_bytes().to_vec()).collect();
    for (name, list) in [("arguments", arguments), ("environment", environment())] {
        let len: usize = list.iter().map(Vec::len).sum();
        println!("{name}: {} strings, {len} bytes, sum {:x}", list.len(), sum(&list));
    }
}

/// Uses the stack until there is no more, and says how far it came: the handler runs on another stack.
fn deep() {
    static mut LOWEST: usize = usize::MAX;
    static mut HIGHEST: usize = 0;
    extern "C" fn ended(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid siginfo; this program has one thread.
        unsafe {
            let used = HIGHEST - LOWEST;
            let below = LOWEST.wrapping_sub((*info).si_addr().addr());
            println!("used: {}", used >> 10);
            println!("code: {}", (*info).si_code);
            println!("just below: {}", below < 64 << 10);
            libc::_exit(0);
        }
    }
    #[inline(never)]
    fn deeper(level: usize, last: usize) -> usize {
        let place = [level as u8; 4000];
        let place = std::hint::black_box(&place);
        // SAFETY: this program has one thread.
        unsafe { LOWEST = LOWEST.min(place.as_ptr().addr()) };
        if level == last { 0 } else { deeper(level + 1, last) + usize::from(place[level % 4000]) }
    }
    // SAFETY: memory of its own for the handler, which only prints and exits.
    unsafe {
        let here = 0_u8;
        HIGHEST = (&raw const here).addr();
        let stack = libc::stack_t {
            ss_sp: libc::mmap(std::ptr::null_mut(), 1 << 20, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            ss_flags: 0,
            ss_size: 1 << 20,
        };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ended as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
    }
    println!("{}", deeper(0, std::hint::black_box(usize::MAX)));
}

/// Tries to run code on the stack; must die of it.
fn stack_code() {
    let code = std::hint::black_box([0xb8_u8, 7, 0, 0, 0, 0xc3]); // mov eax, 7; ret
    // SAFETY: the bytes are a function of this signature, if they may be executed at all.
    let result = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(code.as_ptr())() };
    std::process::exit(result);
}

/// Says that it is there, and waits for a byte.
fn pause_for_input() {
    println!("waiting");
    let mut byte = [0];
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut byte);
}

fn pause() {
    println!("waiting");
    // SAFETY: no memory is involved.
    unsafe { libc::pause() };
}

/// Waits for a timer that the program before has set.
fn alarm() {
    std::thread::sleep(std::time::Duration::from_secs(20));
}
