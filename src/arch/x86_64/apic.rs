//! The local APIC: this CPU's timer, the interrupts it sends to others, and the end of each it receives.
//!
//! Where the CPU has x2APIC, its registers are MSRs; else they lie in one page of memory, the same for every CPU. The timer runs in
//! one-shot mode, or against the time stamp counter itself where the CPU can (TSC-deadline, untested here: QEMU's emulator lacks it).
//!
//! Next: `irq.rs`, which gives vectors their meaning; `clock.rs`, which measures the timer.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use conquer_once::spin::OnceCell;
use executor::Instant;

use super::acpi::platform;
use super::boot_paging::map_device;
use super::clock;
use super::cpu_features::cpu_features;
use super::instructions::{rdmsr, wrmsr};
use super::irq::{ALARM_VECTOR, KICK_VECTOR, SHOOTDOWN_VECTOR, SPURIOUS_VECTOR};
use super::tsc_scale::TickScale;
use crate::counters::DEVICE_ACCESSES;

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;

/// Register numbers: offsets in the page; an MSR is 0x800 plus a sixteenth.
mod register {
    pub const ID: u32 = 0x20;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const END_OF_INTERRUPT: u32 = 0xb0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const ERROR_STATUS: u32 = 0x280;
    pub const COMMAND: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const TIMER: u32 = 0x320;
    pub const THERMAL: u32 = 0x330;
    pub const PERFORMANCE: u32 = 0x340;
    pub const LINT0: u32 = 0x350;
    pub const LINT1: u32 = 0x360;
    pub const ERROR: u32 = 0x370;
    pub const INITIAL_COUNT: u32 = 0x380;
    pub const CURRENT_COUNT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
}

const MASKED: u32 = 1 << 16;
const NMI_DELIVERY: u32 = 4 << 8;
const DEADLINE_MODE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const PENDING: u32 = 1 << 12;
const PHYSICAL_FIXED_ASSERT: u32 = 1 << 14;
const INIT: u32 = 5 << 8 | 1 << 14;
const START_UP: u32 = 6 << 8 | 1 << 14;
const NMI: u32 = 4 << 8 | 1 << 14;

#[derive(Clone, Copy)]
enum Access {
    Msr,
    Memory(NonNull<u8>),
}

// SAFETY: the pointer is to the page of device registers that each CPU sees as its own, mapped for ever.
unsafe impl Send for Access {}
// SAFETY: as above; each access is one volatile load or store.
unsafe impl Sync for Access {}

static ACCESS: OnceCell<Access> = OnceCell::uninit();
static TIMER_SCALE: OnceCell<TickScale> = OnceCell::uninit();
static IPIS_SENT: AtomicU64 = AtomicU64::new(0);

impl Access {
    #[inline]
    fn read(self, register: u32) -> u32 {
        match self {
            // SAFETY: x2APIC is on, so the register's MSR exists.
            Access::Msr => unsafe { rdmsr(0x800 + (register >> 4)) as u32 },
            // SAFETY: inside the mapped page, aligned.
            Access::Memory(page) => unsafe { page.as_ptr().add(register as usize).cast::<u32>().read_volatile() },
        }
    }

    #[inline]
    fn write(self, register: u32, value: u32) {
        match self {
            // SAFETY: x2APIC is on; only defined registers are written, with defined bits.
            Access::Msr => unsafe { wrmsr(0x800 + (register >> 4), value.into()) },
            // SAFETY: inside the mapped page, aligned.
            Access::Memory(page) => unsafe {
                page.as_ptr().add(register as usize).cast::<u32>().write_volatile(value);
            },
        }
    }
}

fn access() -> Option<Access> {
    ACCESS.try_get().ok().copied()
}

/// Turns on the local APIC of the executing CPU, all its sources masked but for NMIs.
pub(super) fn init_cpu() {
    const ENABLE: u64 = 1 << 11;
    const X2APIC: u64 = 1 << 10;
    // SAFETY: every 64-bit CPU has this register; the bits that are set are those that CPUID allows.
    let is_x2apic = unsafe {
        let base = rdmsr(APIC_BASE);
        let is_x2apic = cpu_features().x2apic || base & X2APIC != 0;
        wrmsr(APIC_BASE, base | ENABLE | if is_x2apic { X2APIC } else { 0 });
        is_x2apic
    };
    let _ = ACCESS.try_init_once(|| match is_x2apic {
        true => Access::Msr,
        false => Access::Memory(map_device(platform().local_apic, 4096).expect("tables for the first device mapping")),
    });
    let Some(apic) = access() else { return };
    apic.write(register::TASK_PRIORITY, 0);
    for source in [register::TIMER, register::THERMAL, register::PERFORMANCE, register::LINT0, register::ERROR] {
        apic.write(source, MASKED);
    }
    apic.write(register::LINT1, NMI_DELIVERY);
    apic.write(register::ERROR_STATUS, 0);
    apic.write(register::SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    apic.write(register::DIVIDE, DIVIDE_BY_1);
    end_of_interrupt();
}

/// The number of the executing CPU's local APIC.
pub fn id() -> u32 {
    match access() {
        Some(Access::Msr) => Access::Msr.read(register::ID),
        Some(memory) => memory.read(register::ID) >> 24,
        None => cpu_features().apic_id,
    }
}

/// Lets the timer count down from the top, so that its rate can be measured; returns the count so far when asked.
pub(super) fn start_measuring() -> impl Fn() -> u32 {
    let apic = access();
    if let Some(apic) = apic {
        apic.write(register::TIMER, MASKED | u32::from(ALARM_VECTOR));
        apic.write(register::INITIAL_COUNT, u32::MAX);
    }
    move || apic.map_or(0, |apic| u32::MAX - apic.read(register::CURRENT_COUNT))
}

/// Says how fast the timers of all CPUs count.
pub(super) fn set_timer_scale(scale: TickScale) {
    let _ = TIMER_SCALE.try_init_once(|| scale);
}

/// Lets the executing CPU's timer ring from now on.
pub(super) fn start_timer() {
    let Some(apic) = access() else { return };
    apic.write(register::INITIAL_COUNT, 0);
    let mode = if uses_tsc_deadline() { DEADLINE_MODE } else { 0 };
    apic.write(register::TIMER, mode | u32::from(ALARM_VECTOR));
}

fn uses_tsc_deadline() -> bool {
    cpu_features().tsc_deadline && clock::is_tsc()
}

/// Sets the executing CPU's alarm, in place of the former one. One in the past rings at once; one beyond the timer's range rings
/// early, and whoever is woken finds that it is not yet time.
#[inline]
pub fn set_alarm(at: Option<Instant>) {
    let Some(apic) = access() else { return };
    DEVICE_ACCESSES.add();
    if uses_tsc_deadline() {
        let deadline = at.map_or(0, |at| clock::instant_to_tsc(at.as_nanos()).max(1));
        // SAFETY: the CPU has this register; a deadline in the past rings at once.
        unsafe { wrmsr(TSC_DEADLINE, deadline) };
        return;
    }
    let count = match (at, TIMER_SCALE.try_get()) {
        (Some(at), Ok(scale)) => {
            let left = at.as_nanos().saturating_sub(clock::now_nanoseconds());
            u32::try_from(scale.ticks(left)).unwrap_or(u32::MAX)
        }
        _ => 0,
    };
    apic.write(register::INITIAL_COUNT, count);
}

/// Says that the interrupt in service has been dealt with.
#[inline]
pub fn end_of_interrupt() {
    if let Some(apic) = access() {
        DEVICE_ACCESSES.add();
        apic.write(register::END_OF_INTERRUPT, 0);
    }
}

/// Interrupts another CPU, so that it looks around: it leaves its sleep, or user mode.
pub fn send_kick(cpu: usize) {
    if let Some(apic_id) = super::cpu::apic_id_of(cpu) {
        send(apic_id, PHYSICAL_FIXED_ASSERT | u32::from(KICK_VECTOR));
    }
}

/// Interrupts another CPU, so that it forgets translations.
pub fn send_shootdown(cpu: usize) {
    if let Some(apic_id) = super::cpu::apic_id_of(cpu) {
        send(apic_id, PHYSICAL_FIXED_ASSERT | u32::from(SHOOTDOWN_VECTOR));
    }
}

/// Resets a CPU: it waits for a start-up message then.
pub(super) fn send_init(apic_id: u32) {
    send(apic_id, INIT);
}

/// Lets a CPU that was reset begin, in real mode, at the page of this number.
pub(super) fn send_start_up(apic_id: u32, page: u8) {
    send(apic_id, START_UP | u32::from(page));
}

/// Interrupts another CPU even if it has interrupts off. For a panic.
pub(super) fn send_nmi(apic_id: u32) {
    send(apic_id, NMI);
}

fn send(apic_id: u32, command: u32) {
    // Relaxed: a count.
    IPIS_SENT.fetch_add(1, Ordering::Relaxed);
    match access() {
        // SAFETY: x2APIC is on; the command register takes destination and command in one write.
        Some(Access::Msr) => unsafe { wrmsr(0x830, u64::from(apic_id) << 32 | u64::from(command)) },
        Some(memory) => super::cpu::interrupts_off(|| {
            // The two halves belong together: an interrupt handler may send too.
            while memory.read(register::COMMAND) & PENDING != 0 {
                core::hint::spin_loop();
            }
            memory.write(register::COMMAND_HIGH, apic_id << 24);
            memory.write(register::COMMAND, command);
            DEVICE_ACCESSES.add_many(3);
        }),
        None => {}
    }
}

/// How many interrupts CPUs have sent to each other.
pub fn ipis_sent() -> u64 {
    IPIS_SENT.load(Ordering::Relaxed)
}
