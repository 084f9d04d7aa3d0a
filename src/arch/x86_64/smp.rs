//! The other CPUs: how they are started, one after the other, by the one that booted.
//!
//! ```text
//!   boot CPU                                      the other one
//!   INIT to all, 10 ms                            reset, waits
//!   its stacks, its record → MAILBOX
//!   start-up message ───────────────────────────► trampoline, in real mode, in a page below 1 MiB
//!                                                 32 bits, boot tables, 64 bits, final tables, its own stack
//!                                                 entered(): descriptor tables, vector registers, local APIC
//!   STAGE is ARRIVED? ◄────────────────────────── STAGE ← ARRIVED
//!   its time stamp counter between two of ours? ◄► answers with its counter each time it is asked
//!   STAGE ← GO ─────────────────────────────────► its timer, and then the executor, for ever
//! ```
//!
//! A CPU that does not answer is reset again and left out, and so is one whose time stamp counter shows another time than ours, for
//! then the clock would go back as a thread moves. Their order is that of the firmware's table; the numbers have no holes.
//!
//! Next: `cpu.rs`. Exercise: why may a CPU that answers too late do no harm?

use alloc::boxed::Box;
use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use conquer_once::spin::OnceCell;
use executor::time::TimerHandle;

use super::acpi::platform;
use super::boot_paging::{kernel_root, map_stacks};
use super::cpu::{self, Cpu};
use super::cpu_features::cpu_features;
use super::entry::DIRECT_MAP;
use super::instructions::rdtsc_ordered;
use super::stacks::{MAX_CPUS, StackKind};
use super::{apic, clock, power, vector};

/// The page that the trampoline is copied to; `boot.rs` keeps the first 64 KiB out of all other use.
const TRAMPOLINE: u64 = 0x8000;
/// Between the reset and the start-up message (Intel MultiProcessor Specification 1.4, appendix B.4).
const RESET_TIME: Duration = Duration::from_millis(10);
/// When a CPU gets the second start-up message, if it has not come by then.
const SECOND_MESSAGE: Duration = Duration::from_micros(200);
/// When it is given up: an emulator on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often the two counters are compared.
const COMPARISONS: u32 = 16;
/// When comparing is given up, because the other CPU is an emulator's thread that does not run now.
const COMPARING: u64 = 20_000_000;

// Real mode, with CS at the page. It knows nothing but its address and one far pointer into `.boot`, where the rest is linked
// where it is loaded; that part takes what the boot CPU's path in `entry.rs` takes: the same tables, the same bits.
global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .global trampoline_start
    .global trampoline_end
    .code16
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl (trampoline_gdt_pointer - trampoline_start + {page})
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $other_cpu_32
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    # 0x08: 32-bit code
    .quad 0x00af9a000000ffff    # 0x10: 64-bit code
    .quad 0x00cf92000000ffff    # 0x18: data
trampoline_gdt_pointer:
    .short 31
    .long trampoline_gdt - trampoline_start + {page}
trampoline_end:

    .section .boot.text, "ax"
    .code32
other_cpu_32:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x80000001, %eax
    cpuid
    movl %edx, %ebp
    movl $1f, %ebx
    jmp boot_enable_paging      # in entry.rs
1:  ljmpl $0x10, $other_cpu_64
    .code64
other_cpu_64:
    movabsq $other_cpu_high, %rax
    jmp *%rax

    .text
other_cpu_high:                 # seen alike by the boot tables and the final ones
    movq {mailbox}, %rax
    movq %rax, %cr3
    movq {mailbox} + 8, %rsp
    xorl %ebp, %ebp
    pushq $0
    jmp {entered}
    "#,
    page = const TRAMPOLINE,
    mailbox = sym MAILBOX,
    entered = sym entered,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// What the CPU that is being started needs before it has a stack. The assembly knows the order.
#[repr(C)]
struct Mailbox {
    root: AtomicU64,
    stack: AtomicU64,
    record: AtomicPtr<Cpu>,
    number: AtomicUsize,
}

static MAILBOX: Mailbox = Mailbox {
    root: AtomicU64::new(0),
    stack: AtomicU64::new(0),
    record: AtomicPtr::new(core::ptr::null_mut()),
    number: AtomicUsize::new(0),
};

/// How far the CPU that is being started has come.
static STAGE: AtomicU32 = AtomicU32::new(NOT_THERE);
/// It was sent its message.
const NOT_THERE: u32 = 0;
/// It runs, and waits for what it is told.
const ARRIVED: u32 = 1;
/// It is asked for its counter, and is ARRIVED again when it has answered in [`READING`].
const ASKED: u32 = 2;
/// It may run tasks.
const GO: u32 = 3;
static READING: AtomicU64 = AtomicU64::new(0);

/// How many CPUs run.
static ONLINE: AtomicUsize = AtomicUsize::new(1);
/// What a CPU does once it runs.
static LIFE: OnceCell<fn(usize) -> !> = OnceCell::uninit();

/// How many CPUs run; their numbers are those below.
pub fn online() -> usize {
    // Acquire: pairs with the Release of bring_up(), before which the CPU's records were made.
    ONLINE.load(Ordering::Acquire)
}

/// How many CPUs there may ever be, of which the command line allows `limit`.
pub fn possible(limit: usize) -> usize {
    platform().cpus().len().clamp(1, MAX_CPUS).min(limit.max(1))
}

/// Starts the other CPUs, until `possible` run; `frames` gives contiguous, zeroed pages for ever, and each CPU goes on with `life`.
pub async fn start(possible: usize, timers: TimerHandle, frames: fn(u64) -> Option<u64>, life: fn(usize) -> !) {
    let _ = LIFE.try_init_once(|| life);
    if possible <= 1 {
        return;
    }
    place_trampoline();
    let boot = apic::id();
    let others = || platform().cpus().iter().copied().filter(|&id| id != boot);
    others().take(possible - 1).for_each(apic::send_init);
    timers.sleep(RESET_TIME).await;
    for apic_id in others() {
        if online() == possible {
            break;
        }
        bring_up(apic_id, online(), timers, frames).await;
    }
    log::info!("{} CPUs run", online());
}

/// Stops all other CPUs, whatever they do: for a panic. They do not come back.
pub(crate) fn stop_others() {
    if online() > 1 {
        let here = cpu::cpu_id();
        (0..online()).filter(|&cpu| cpu != here).filter_map(cpu::apic_id_of).for_each(apic::send_nmi);
    }
}

fn place_trampoline() {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: the bytes between the two labels are constants; the page is RAM that boot.rs claimed, and nobody else uses it.
    unsafe {
        let len = end.offset_from_unsigned(start);
        core::ptr::copy_nonoverlapping(start, (DIRECT_MAP + TRAMPOLINE) as *mut u8, len);
    }
}

/// Starts one CPU, with this number if it comes.
async fn bring_up(apic_id: u32, number: usize, timers: TimerHandle, frames: fn(u64) -> Option<u64>) {
    // Made for the first CPU that tries to be this number; one that failed leaves them for the next.
    if MAILBOX.number.load(Ordering::Relaxed) != number {
        if map_stacks(number as u64, &mut |count| frames(count)).is_none() {
            log::warn!("no memory for the stacks of CPU {number}: it is left out");
            return;
        }
        MAILBOX.record.store(Box::leak(Box::new(Cpu::new())), Ordering::Relaxed);
        MAILBOX.number.store(number, Ordering::Relaxed);
        MAILBOX.root.store(kernel_root(), Ordering::Relaxed);
        MAILBOX.stack.store(StackKind::Main.top(number as u64), Ordering::Relaxed);
    }
    // SeqCst: what was put into the mailbox comes before the message.
    STAGE.store(NOT_THERE, Ordering::SeqCst);
    let page = (TRAMPOLINE >> 12) as u8;
    apic::send_start_up(apic_id, page);
    timers.sleep(SECOND_MESSAGE).await;
    if STAGE.load(Ordering::Acquire) == NOT_THERE {
        apic::send_start_up(apic_id, page);
    }
    let deadline = clock::now() + PATIENCE;
    while STAGE.load(Ordering::Acquire) == NOT_THERE {
        if clock::now() > deadline {
            // Whatever it is about to do ends here; it waits for another start-up message, which does not come.
            apic::send_init(apic_id);
            log::warn!("the CPU with APIC number {apic_id} did not start: it is left out");
            return;
        }
        timers.sleep(SECOND_MESSAGE).await;
    }
    if let Some(ticks) = counter_difference() {
        apic::send_init(apic_id);
        log::warn!("the CPU with APIC number {apic_id} is off by {ticks} ticks in time: it is left out");
        return;
    }
    // Release: pairs with the Acquire of online(). Before the CPU can do anything that others see.
    ONLINE.store(number + 1, Ordering::Release);
    STAGE.store(GO, Ordering::Release);
}

/// By how many ticks the other CPU's counter shows another time than ours; `None` if by none that can be told.
fn counter_difference() -> Option<u64> {
    if !clock::is_tsc() {
        return None;
    }
    let began = rdtsc_ordered();
    let mut worst = None;
    for _ in 0..COMPARISONS {
        let before = rdtsc_ordered();
        STAGE.store(ASKED, Ordering::Release);
        while STAGE.load(Ordering::Acquire) == ASKED {
            core::hint::spin_loop();
        }
        let (theirs, after) = (READING.load(Ordering::Relaxed), rdtsc_ordered());
        if !(before..=after).contains(&theirs) {
            worst = worst.max(Some(if theirs < before { before - theirs } else { theirs - after }));
        }
        if clock::nanoseconds_of(after.wrapping_sub(began)) > COMPARING {
            break;
        }
    }
    worst
}

/// The first Rust function of another CPU, on its own stack, with the final tables.
extern "C" fn entered() -> ! {
    let number = MAILBOX.number.load(Ordering::Relaxed);
    let features = cpu_features();
    // SAFETY: the record was leaked for the CPU that is started now, and one is started at a time; interrupts are off since the
    // trampoline; its stacks are mapped: this runs on one of them.
    unsafe { cpu::init_other_cpu(&mut *MAILBOX.record.load(Ordering::Relaxed), number, features) };
    vector::init_cpu(features);
    apic::init_cpu();
    cpu::set_apic_id(apic::id());
    STAGE.store(ARRIVED, Ordering::Release);
    loop {
        match STAGE.load(Ordering::Acquire) {
            ASKED => {
                READING.store(rdtsc_ordered(), Ordering::Relaxed);
                STAGE.store(ARRIVED, Ordering::Release);
            }
            GO => break,
            _ => core::hint::spin_loop(),
        }
    }
    apic::start_timer();
    match LIFE.try_get() {
        Ok(life) => life(number),
        Err(_) => power::halt(),
    }
}
