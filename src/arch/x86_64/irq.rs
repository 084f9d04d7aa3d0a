//! Interrupts: from a vector to whoever waits for it.
//!
//! ```text
//! 0x20–0x2f  the two old controllers: silenced, ignored          0xf0  this CPU's alarm: the executor's timers
//! 0x30–0xef  device lines, each with an Event                    0xf1  a kick from another CPU: look around
//!                                                                0xf2  another CPU's wish: forget translations
//!                                                                0xff  spurious
//! ```
//!
//! A device's interrupt does three things: mask the line if it is level-triggered, notify its event, end the interrupt. The driver's
//! task does the rest, and lets the line through again when it next waits. Lines are handed out once and kept.
//!
//! Next: `drivers/src/irq.rs`, the driver's side.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use conquer_once::spin::OnceCell;
use drivers::irq::{InterruptSource, IrqControl, IrqLine, MsiMessage};
use executor::sync::Event;

use super::acpi::{Route, platform};
use super::cpu::with_cpu;
use super::io_apic::{self, Masked};
use super::madt::Signal;
use super::{apic, cpu_features::cpu_features};

/// Vectors below are exceptions.
pub const FIRST_VECTOR: u8 = 32;
const FIRST_DEVICE: u8 = 0x30;
const DEVICES: usize = 0xc0;
/// This CPU's alarm.
pub const ALARM_VECTOR: u8 = 0xf0;
/// Another CPU's kick.
pub const KICK_VECTOR: u8 = 0xf1;
/// Another CPU wants translations forgotten.
pub const SHOOTDOWN_VECTOR: u8 = 0xf2;
/// What the local APIC raises when an interrupt vanished before it could be delivered.
pub const SPURIOUS_VECTOR: u8 = 0xff;
/// Stands for "no line of an I/O APIC": a message.
const NO_LINE: u32 = u32::MAX;

/// One device vector.
struct Line {
    event: Event,
    /// The global interrupt number, or [`NO_LINE`].
    global: AtomicU32,
    is_level: AtomicBool,
    is_masked: AtomicBool,
    count: AtomicU64,
}

static LINES: [Line; DEVICES] = [const {
    Line {
        event: Event::new(),
        global: AtomicU32::new(NO_LINE),
        is_level: AtomicBool::new(false),
        is_masked: AtomicBool::new(true),
        count: AtomicU64::new(0),
    }
}; DEVICES];
static NEXT_LINE: AtomicU8 = AtomicU8::new(0);
static ON_ALARM: OnceCell<fn()> = OnceCell::uninit();

/// What an interrupt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// This CPU's alarm.
    Alarm,
    /// Anything else; its handler has run.
    Other,
}

impl Served {
    /// Whether it was the alarm.
    pub fn is_alarm(self) -> bool {
        self == Served::Alarm
    }
}

/// Has `ring` called by each CPU's alarm interrupt, with interrupts off: it may wake tasks, and take no lock that a task may hold.
pub fn set_alarm_handler(ring: fn()) {
    let _ = ON_ALARM.try_init_once(|| ring);
}

/// Serves one interrupt, with interrupts off: as the cause of whatever it wakes, once there are tasks.
pub(super) fn dispatch(vector: u8) -> Served {
    match crate::tasks::try_executor() {
        Some(executor) => executor.in_interrupt(vector, || serve_vector(vector)),
        None => serve_vector(vector),
    }
}

fn serve_vector(vector: u8) -> Served {
    match vector {
        ALARM_VECTOR => {
            apic::end_of_interrupt();
            if let Ok(ring) = ON_ALARM.try_get() {
                ring();
            }
            return Served::Alarm;
        }
        KICK_VECTOR => apic::end_of_interrupt(),
        SHOOTDOWN_VECTOR => {
            // First: who asks from now on sends another interrupt.
            apic::end_of_interrupt();
            crate::mm::serve_shootdown();
        }
        SPURIOUS_VECTOR => {}
        _ => {
            if let Some(line) = vector.checked_sub(FIRST_DEVICE).and_then(|index| LINES.get(usize::from(index))) {
                serve(line);
            }
        }
    }
    Served::Other
}

fn serve(line: &Line) {
    // Relaxed: a count, and facts that were settled before the line was first unmasked.
    line.count.fetch_add(1, Ordering::Relaxed);
    if line.is_level.load(Ordering::Relaxed) {
        line.is_masked.store(true, Ordering::Relaxed);
        io_apic::set_masked(line.global.load(Ordering::Relaxed), Masked::Yes);
    }
    line.event.notify();
    apic::end_of_interrupt();
}

/// What a vector is for, in a word.
pub fn name(vector: u8) -> &'static str {
    match vector {
        ALARM_VECTOR => "alarm",
        KICK_VECTOR => "kick",
        SHOOTDOWN_VECTOR => "shootdown",
        SPURIOUS_VECTOR => "spurious",
        _ => "device",
    }
}

/// Serves an NMI: another CPU reports a panic, and this one stops; or else the machine complains.
pub(super) fn non_maskable() {
    if crate::panic::is_under_way() {
        super::power::halt();
    }
    with_cpu(|cpu| log::error!("NMI on CPU {}", cpu.id()));
}

/// How a line is masked: by its vector's index.
struct Control;

impl IrqControl for Control {
    fn unmask(&self, line: u32) {
        set_masked(line, Masked::No);
    }

    fn mask(&self, line: u32) {
        set_masked(line, Masked::Yes);
    }
}

fn set_masked(line: u32, masked: Masked) {
    let Some(line) = LINES.get(line as usize) else { return };
    // Relaxed: the line's own task and its interrupt are the only writers, on whichever CPU; the controller's lock orders the rest.
    let global = line.global.load(Ordering::Relaxed);
    if global != NO_LINE && line.is_masked.swap(masked == Masked::Yes, Ordering::Relaxed) != (masked == Masked::Yes) {
        io_apic::set_masked(global, masked);
    }
}

/// Takes the next free vector.
fn allocate() -> Option<(u8, &'static Line)> {
    // Relaxed: only distinctness matters. The counter stops at the end.
    let take = |next: u8| (usize::from(next) < DEVICES).then_some(next + 1);
    let index = NEXT_LINE.try_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
    Some((index, &LINES[usize::from(index)]))
}

/// An interrupt of its own for a device that sends messages (MSI, MSI-X): the line to wait on, and what the device must write where.
/// `None`: all vectors are taken.
pub fn allocate_msi() -> Option<(IrqLine, MsiMessage)> {
    let (index, line) = allocate()?;
    let vector = FIRST_DEVICE + index;
    // Intel SDM volume 3, section 11.11: fixed delivery, edge, physical destination. A message reaches APIC numbers below 256.
    let message = MsiMessage { address: 0xfee0_0000 | u64::from(boot_apic_id()) << 12, data: vector.into() };
    Some((IrqLine::new(index.into(), &line.event, &Control), message))
}

/// The line of an ISA interrupt, masked until a driver waits on it. `None`: there is no such line, or no vector.
pub fn isa_line(number: u8) -> Option<IrqLine> {
    global_line(platform().isa(number)?)
}

/// The line of a PCI interrupt pin, by its global number: level-triggered, active low.
pub fn pci_line(global: u32) -> Option<IrqLine> {
    global_line(Route { global, signal: Signal { is_level: true, is_active_low: true } })
}

/// Any line of an I/O APIC, masked until a driver waits on it.
pub fn global_line(route: Route) -> Option<IrqLine> {
    let (index, line) = allocate()?;
    // Relaxed: the line is masked; unmasking it takes the controller's lock.
    line.global.store(route.global, Ordering::Relaxed);
    line.is_level.store(route.signal.is_level, Ordering::Relaxed);
    io_apic::route(route, FIRST_DEVICE + index, boot_apic_id())
        .then(|| IrqLine::new(index.into(), &line.event, &Control))
}

fn boot_apic_id() -> u8 {
    u8::try_from(cpu_features().apic_id).unwrap_or(0)
}

/// The kernel's vectors, as bus drivers see them.
pub struct Vectors;

impl InterruptSource for Vectors {
    fn allocate_message(&self) -> Option<(IrqLine, MsiMessage)> {
        allocate_msi()
    }
}

/// How often each device vector that is in use has been raised: (vector, global line if it is one, count).
pub fn counts() -> impl Iterator<Item = (u8, Option<u32>, u64)> {
    let used = usize::from(NEXT_LINE.load(Ordering::Relaxed));
    LINES.iter().take(used).zip(FIRST_DEVICE..).map(|(line, vector)| {
        let global = line.global.load(Ordering::Relaxed);
        (vector, (global != NO_LINE).then_some(global), line.count.load(Ordering::Relaxed))
    })
}
