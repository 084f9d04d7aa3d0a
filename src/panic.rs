//! The last words: what happened, where, and who called.
//!
//! A panic, a double fault or any trap that the kernel did not expect ends here. The report goes to the first serial port, polled,
//! and through [`set_screen`] to whatever shows text; then the emulator is left with status [`EXIT_STATUS`], or the machine halts. The
//! code takes no lock and allocates nothing; it stops the other CPUs first, by an interrupt that cannot be masked. A second panic while
//! reporting the first halts at once.
//!
//! Next: `symbols.rs`; `arch/x86_64/power.rs`, which leaves.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use conquer_once::spin::OnceCell;

use crate::arch::backtrace::Frames;
use crate::arch::stacks::stack_at;
use crate::arch::trap_entry::TrapFrame;
use crate::arch::user_context::vector;
use crate::arch::{power, serial_emergency, smp, symbol_table};
use crate::symbols::Symbols;

/// What is written to the emulator's exit device: QEMU ends with twice this plus one.
pub const EXIT_STATUS: u8 = 0x70;

/// Which CPU reports a panic; [`NOBODY`] if all is well.
static REPORTER: AtomicUsize = AtomicUsize::new(NOBODY);
const NOBODY: usize = usize::MAX;
static SCREEN: OnceCell<fn(&str)> = OnceCell::uninit();
static LOG_TAIL: OnceCell<LogTail> = OnceCell::uninit();

/// Hands the last lines of the log to its argument, one by one.
pub type LogTail = fn(&mut dyn FnMut(&str));

/// Has the report shown by `show` too, which must work without locks.
pub fn set_screen(show: fn(&str)) {
    let _ = SCREEN.try_init_once(|| show);
}

/// Has the report end with the last lines of the kernel log, which `tail` hands over one by one; it must work without locks.
pub fn set_log_tail(tail: LogTail) {
    let _ = LOG_TAIL.try_init_once(|| tail);
}

/// Writes to the serial port and to the screen.
struct Report;

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        serial_emergency::write(text.as_bytes());
        if let Ok(show) = SCREEN.try_get() {
            show(text);
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let _ = writeln!(Report, "\nkernel panic: {}", info.message());
    if let Some(place) = info.location() {
        let _ = writeln!(Report, "  at {place}");
    }
    backtrace(Frames::from_here());
    end()
}

/// Reports a trap that the kernel did not expect of itself; `address` is what CR2 held.
pub fn unexpected_trap(frame: &TrapFrame, address: u64) -> ! {
    begin();
    let name = exception_name(frame.vector as u8);
    let _ = writeln!(Report, "\nkernel panic: {name} in the kernel, code {:#x}", frame.code);
    let is_fault = matches!(frame.vector as u8, vector::PAGE_FAULT | vector::DOUBLE_FAULT);
    if let Some(stack) = stack_at(address).filter(|stack| is_fault && stack.is_guard) {
        let _ = writeln!(Report, "  stack overflow: {address:#x} is beyond the end of the {stack}");
    } else if is_fault {
        let _ = writeln!(Report, "  address {address:#018x}");
    }
    registers(frame);
    let _ = write!(Report, "  at ");
    line(frame.rip);
    backtrace(Frames::from(frame.rbp));
    end()
}

fn begin() {
    crate::arch::instructions::disable_interrupts();
    // Early in boot, when a CPU cannot say yet which it is, there is only one.
    let here = if smp::online() > 1 { crate::arch::cpu_id() } else { 0 };
    // Relaxed: only one CPU's panic is reported, whichever comes first.
    match REPORTER.compare_exchange(NOBODY, here, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => smp::stop_others(),
        Err(reporter) if reporter == here => {
            serial_emergency::write(b"\nkernel panic while reporting a panic\n");
            power::exit(EXIT_STATUS);
        }
        Err(_) => power::halt(),
    }
}

/// Whether some CPU reports a panic: the others stop then.
pub fn is_under_way() -> bool {
    REPORTER.load(Ordering::Relaxed) != NOBODY
}

fn end() -> ! {
    if let Ok(tail) = LOG_TAIL.try_get() {
        let _ = writeln!(Report, "last lines of the log:");
        tail(&mut |text| {
            let _ = writeln!(Report, "  {text}");
        });
    }
    let _ = writeln!(Report, "end of report");
    power::exit(EXIT_STATUS)
}

fn registers(frame: &TrapFrame) {
    let rows = [
        [("rip", frame.rip), ("rsp", frame.rsp), ("flg", frame.rflags)],
        [("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx)],
        [("rdx", frame.rdx), ("rsi", frame.rsi), ("rdi", frame.rdi)],
        [("rbp", frame.rbp), ("r8 ", frame.r8), ("r9 ", frame.r9)],
        [("r10", frame.r10), ("r11", frame.r11), ("r12", frame.r12)],
        [("r13", frame.r13), ("r14", frame.r14), ("r15", frame.r15)],
    ];
    for [(a, x), (b, y), (c, z)] in rows {
        let _ = writeln!(Report, "  {a} {x:016x}  {b} {y:016x}  {c} {z:016x}");
    }
}

/// Lines of a backtrace; a recursion counts as one.
const LINES_MAX: usize = 40;

fn backtrace(frames: Frames) {
    let _ = writeln!(Report, "called from:");
    let mut frames = frames.peekable();
    for _ in 0..LINES_MAX {
        let Some(address) = frames.next() else { return };
        let mut repeated = 0;
        while frames.next_if_eq(&address).is_some() {
            repeated += 1;
        }
        let _ = write!(Report, "  ");
        // A return address points behind the call.
        line(address.saturating_sub(1));
        if repeated > 0 {
            let _ = writeln!(Report, "  … and {repeated} times more from there");
        }
    }
    let _ = writeln!(Report, "  …");
}

fn line(address: u64) {
    let _ = match Symbols::new(symbol_table()).find(address) {
        Some(symbol) => writeln!(Report, "{address:#018x} {} + {:#x}", symbol.name, symbol.offset),
        None => writeln!(Report, "{address:#018x}"),
    };
}

fn exception_name(number: u8) -> &'static str {
    match number {
        vector::DIVIDE_ERROR => "divide error",
        vector::DEBUG => "debug exception",
        vector::NMI => "NMI",
        vector::BREAKPOINT => "breakpoint",
        vector::OVERFLOW => "overflow",
        vector::BOUND_RANGE => "bound range exceeded",
        vector::INVALID_OPCODE => "invalid opcode",
        vector::DEVICE_NOT_AVAILABLE => "device not available",
        vector::DOUBLE_FAULT => "double fault",
        vector::INVALID_TSS => "invalid task state segment",
        vector::SEGMENT_NOT_PRESENT => "segment not present",
        vector::STACK_FAULT => "stack segment fault",
        vector::GENERAL_PROTECTION => "general protection fault",
        vector::PAGE_FAULT => "page fault",
        vector::X87 => "x87 floating-point exception",
        vector::ALIGNMENT_CHECK => "alignment check",
        vector::MACHINE_CHECK => "machine check",
        vector::SIMD => "SIMD floating-point exception",
        _ => "unexpected exception",
    }
}
