//! Timers of a known rate, against which the others are measured.
//!
//! In order of preference: the HPET (its rate is in a register), the ACPI power management timer (3,579,545 Hz since 1996), the
//! interval timer of the first PC (1,193,182 Hz).
//!
//! Next: `clock.rs`.

use core::num::NonZeroU64;
use core::ptr::NonNull;
use core::time::Duration;

use super::acpi::{Register, platform};
use super::boot_paging::map_device;
use super::instructions::{inb, inl, outb};

const PM_TIMER_HZ: NonZeroU64 = NonZeroU64::new(3_579_545).expect("not zero");
const PIT_HZ: NonZeroU64 = NonZeroU64::new(1_193_182).expect("not zero");
/// Looks after which a timer that does not move is given up.
const PATIENCE: u32 = 2_000_000;

/// A timer of a known rate.
#[derive(Clone, Copy, Debug)]
pub enum Reference {
    /// The high-precision event timer.
    Hpet(Hpet),
    /// The power management timer: its port, and the bits it has.
    PmTimer(u16, u64),
    /// The interval timer's second channel, counting down from 65,535.
    Pit,
}

/// The high-precision event timer's main counter.
#[derive(Clone, Copy, Debug)]
pub struct Hpet {
    page: NonNull<u8>,
    hz: NonZeroU64,
    mask: u64,
}

// SAFETY: the pointer is to a page of device registers, mapped for ever; after `find` it is only read.
unsafe impl Send for Hpet {}
// SAFETY: as above.
unsafe impl Sync for Hpet {}

const CAPABILITIES: usize = 0;
const CONFIGURATION: usize = 0x10;
const COUNTER: usize = 0xf0;

impl Hpet {
    fn find() -> Option<Hpet> {
        let page = map_device(platform().hpet?, 4096)?;
        let at = |offset: usize| page.as_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: the registers lie in the page that was just mapped, aligned.
        let capabilities = unsafe { at(CAPABILITIES).read_volatile() };
        let femtoseconds = capabilities >> 32;
        // IA-PC HPET specification 1.0a, section 2.3.4: at most 100 ns a tick.
        if femtoseconds == 0 || femtoseconds > 100_000_000 {
            return None;
        }
        const IS_64_BIT: u64 = 1 << 13;
        const ENABLE: u64 = 1;
        const LEGACY_ROUTES: u64 = 2;
        // SAFETY: as above; enabling the main counter raises no interrupt.
        unsafe {
            let configuration = at(CONFIGURATION).read_volatile();
            at(CONFIGURATION).write_volatile(configuration & !LEGACY_ROUTES | ENABLE);
        }
        Some(Hpet {
            page,
            hz: NonZeroU64::new(1_000_000_000_000_000 / femtoseconds)?,
            mask: if capabilities & IS_64_BIT != 0 { u64::MAX } else { u32::MAX.into() },
        })
    }

    /// The main counter.
    pub fn read(&self) -> u64 {
        // SAFETY: the register lies in the mapped page, aligned.
        unsafe { self.page.as_ptr().add(COUNTER).cast::<u64>().read_volatile() & self.mask }
    }

    /// Its ticks a second.
    pub fn hz(&self) -> NonZeroU64 {
        self.hz
    }
}

impl Reference {
    /// The best one there is that moves.
    pub fn find() -> Option<Reference> {
        let candidates = [Hpet::find().map(Reference::Hpet), Reference::pm_timer(), Reference::pit()];
        candidates.into_iter().flatten().find(Reference::moves)
    }

    fn pm_timer() -> Option<Reference> {
        match platform().pm_timer? {
            (Register::Port(port), is_32_bit) => {
                Some(Reference::PmTimer(port, if is_32_bit { u32::MAX.into() } else { 0xff_ffff }))
            }
            (Register::Memory(_), _) => None,
        }
    }

    /// Starts channel 2, whose gate is in port 0x61, in mode 0 from the top. It stops mattering after 55 ms.
    fn pit() -> Option<Reference> {
        const GATE: u8 = 1;
        const SPEAKER: u8 = 2;
        let gate = inb(0x61) & !SPEAKER & !GATE;
        outb(0x61, gate);
        outb(0x43, 0b1011_0000);
        outb(0x42, 0xff);
        outb(0x42, 0xff);
        outb(0x61, gate | GATE);
        Some(Reference::Pit)
    }

    fn moves(&self) -> bool {
        let first = self.read();
        (0..10_000).any(|_| self.read() != first)
    }

    /// The counter, counting up.
    pub fn read(&self) -> u64 {
        match self {
            Reference::Hpet(hpet) => hpet.read(),
            Reference::PmTimer(port, mask) => u64::from(inl(*port)) & mask,
            Reference::Pit => {
                outb(0x43, 0b1000_0000);
                let low = inb(0x42);
                u64::from(0xffff - u16::from_le_bytes([low, inb(0x42)]))
            }
        }
    }

    /// Its ticks a second.
    pub fn hz(&self) -> NonZeroU64 {
        match self {
            Reference::Hpet(hpet) => hpet.hz(),
            Reference::PmTimer(..) => PM_TIMER_HZ,
            Reference::Pit => PIT_HZ,
        }
    }

    /// How far it came from one reading to a later one, less than one turn apart.
    pub fn elapsed(&self, from: u64, to: u64) -> u64 {
        let mask = match self {
            Reference::Hpet(hpet) => hpet.mask,
            Reference::PmTimer(_, mask) => *mask,
            Reference::Pit => 0xffff,
        };
        to.wrapping_sub(from) & mask
    }

    /// How many ticks a time takes.
    pub fn ticks_of(&self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.hz().get()) / 1_000_000_000) as u64
    }

    /// Waits until it has come so far; gives up if it stands still.
    pub fn wait(&self, from: u64, ticks: u64) {
        for _ in 0..PATIENCE {
            if self.elapsed(from, self.read()) >= ticks {
                return;
            }
            core::hint::spin_loop();
        }
    }
}
