//! What programs rely on of restartable sequences (rseq(2)): whatever comes between two instructions of a sequence ends it.
//!
//! Each sequence here is an endless loop: only the kernel can end it, by sending the program to the abort handler. The C library has
//! registered an area of its own for each thread, so the program starts itself again with that turned off. It passes on Linux.
#![allow(unsafe_code, reason = "restartable sequences are made of instructions and addresses")]

use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// `struct rseq`.
#[repr(C, align(32))]
#[derive(Default)]
struct Area {
    cpu_id_start: u32,
    cpu_id: u32,
    sequence: u64,
    flags: u32,
    padding: [u32; 3],
}

const SIGNATURE: u32 = 0x5305_3053;
const UNREGISTER: i32 = 1;
static SIGNALS: AtomicI32 = AtomicI32::new(0);

fn rseq(area: *mut Area, flags: i32, signature: u32) -> Result<(), i32> {
    // SAFETY: the area outlives its registration, or the call is one that must be refused.
    match unsafe { libc::syscall(libc::SYS_rseq, area, size_of::<Area>(), flags, signature) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// Loops in a sequence until it is aborted. The word before the abort handler is `SIGNATURE`.
fn loop_until_aborted(area: *mut Area) {
    // SAFETY: the sequence changes nothing but `scratch` and the area's pointer to it.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 3f]",
            "mov [{area} + 8], {scratch}",
            "2: pause",
            "jmp 2b",
            "4: .long 0x53053053",
            "5:",
            ".pushsection .data.rel.ro, \"aw\"",
            ".balign 32",
            "3: .long 0, 0",
            ".quad 2b, 4b - 2b, 5b",
            ".popsection",
            area = in(reg) area,
            scratch = out(reg) _,
        );
    }
}

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// From then on every ten milliseconds.
fn alarm_in_ten_milliseconds() {
    let time = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    let setting = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the handler does nothing but add to an atomic number, and the timer's setting is a valid one.
    unsafe {
        libc::signal(libc::SIGALRM, count as *const () as usize);
        libc::setitimer(libc::ITIMER_REAL, &raw const setting, std::ptr::null_mut());
    }
}

fn only_cpu_0() {
    // SAFETY: a set of CPUs is plain data.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
}

fn the_area_is_registered_once() {
    let mut area = Box::new(Area { cpu_id: u32::MAX, ..Area::default() });
    let mut other = Box::new(Area::default());
    let at = &raw mut *area;
    assert_eq!(rseq(at.wrapping_byte_add(4), 0, SIGNATURE), Err(libc::EINVAL), "alignment");
    assert_eq!(rseq(at, UNREGISTER, SIGNATURE), Err(libc::EINVAL), "nothing is registered");
    assert_eq!(rseq(at, 0, SIGNATURE), Ok(()));
    // SAFETY: the kernel writes there, and only between two instructions of this thread.
    assert_eq!(unsafe { at.read_volatile() }.cpu_id, 0, "pinned to CPU 0");
    assert_eq!(rseq(at, 0, SIGNATURE), Err(libc::EBUSY));
    assert_eq!(rseq(at, 0, SIGNATURE + 1), Err(libc::EPERM));
    assert_eq!(rseq(&raw mut *other, 0, SIGNATURE), Err(libc::EINVAL));
    assert_eq!(rseq(at, UNREGISTER, SIGNATURE + 1), Err(libc::EPERM));
    assert_eq!(rseq(at, UNREGISTER, SIGNATURE), Ok(()));
    // SAFETY: as above.
    assert_eq!(unsafe { at.read_volatile() }.cpu_id, u32::MAX, "not registered");
}

fn a_signal_ends_a_sequence() {
    let mut area = Box::new(Area::default());
    let at = &raw mut *area;
    assert_eq!(rseq(at, 0, SIGNATURE), Ok(()));
    alarm_in_ten_milliseconds();
    // On a busy machine another program's turn ends it too.
    while SIGNALS.load(Ordering::Relaxed) == 0 {
        loop_until_aborted(at);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { at.read_volatile() }.sequence, 0, "the kernel clears the pointer");
    assert_eq!(rseq(at, UNREGISTER, SIGNATURE), Ok(()));
}

fn another_threads_turn_ends_a_sequence() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let other = std::thread::spawn(|| {
        while !IS_OVER.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let mut area = Box::new(Area::default());
    let at = &raw mut *area;
    assert_eq!(rseq(at, 0, SIGNATURE), Ok(()));
    for _ in 0..3 {
        loop_until_aborted(at);
    }
    IS_OVER.store(true, Ordering::Relaxed);
    other.join().expect("it only looks at a flag");
    assert_eq!(rseq(at, UNREGISTER, SIGNATURE), Ok(()));
}

/// Registered with a signature that no abort handler has: the program must not be sent anywhere, and not go on for ever either.
fn loop_under_a_wrong_signature() {
    let mut area = Box::new(Area::default());
    assert_eq!(rseq(&raw mut *area, 0, SIGNATURE + 1), Ok(()));
    // The standard library handles SIGSEGV, takes its handler out, and returns; the second one ends the program.
    alarm_in_ten_milliseconds();
    loop_until_aborted(&raw mut *area);
}

fn again(what: &str) -> std::process::ExitStatus {
    let mut program = Command::new("/proc/self/exe");
    program.arg(what).env("GLIBC_TUNABLES", "glibc.pthread.rseq=0").status().expect("this program starts again")
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {
            let cases = again("cases");
            assert!(cases.success(), "{cases}");
            let wrong = again("wrong");
            assert_eq!(wrong.signal(), Some(libc::SIGSEGV), "{wrong}");
            println!("restartable sequences hold");
        }
        Some("wrong") => loop_under_a_wrong_signature(),
        Some(_) => {
            only_cpu_0();
            the_area_is_registered_once();
            a_signal_ends_a_sequence();
            another_threads_turn_ends_a_sequence();
        }
    }
    ExitCode::SUCCESS
}
