//! The I/O APICs: which vector an interrupt line raises, and whether it may.
//!
//! Each serves a range of global interrupt numbers; each line has a 64-bit redirection entry, reached through an index and a data
//! register, hence the lock. It is taken with interrupts off, because the interrupt entry masks level-triggered lines.
//!
//! Next: `irq.rs`.

use core::ptr::NonNull;

use executor::sync::SpinLock;

use super::acpi::{Route, platform};
use super::boot_paging::map_device;
use super::cpu::interrupts_off;

const INDEX: usize = 0x00;
const DATA: usize = 0x10;
const VERSION: u32 = 1;
const FIRST_ENTRY: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
const CONTROLLERS_MAX: usize = 8;

struct Controller {
    page: NonNull<u8>,
    first: u32,
    count: u32,
}

// SAFETY: the page of registers stays mapped, and is used under the lock only.
unsafe impl Send for Controller {}

static CONTROLLERS: SpinLock<[Option<Controller>; CONTROLLERS_MAX]> = SpinLock::new([const { None }; CONTROLLERS_MAX]);

impl Controller {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: both registers lie in the mapped page; the lock keeps the pair together.
        unsafe {
            self.page.as_ptr().add(INDEX).cast::<u32>().write_volatile(register);
            self.page.as_ptr().add(DATA).cast::<u32>().read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in read.
        unsafe {
            self.page.as_ptr().add(INDEX).cast::<u32>().write_volatile(register);
            self.page.as_ptr().add(DATA).cast::<u32>().write_volatile(value);
        }
    }

    fn entry(&self, global: u32) -> u32 {
        FIRST_ENTRY + 2 * (global - self.first)
    }
}

/// Maps the controllers and masks every line.
pub(super) fn init() {
    let mut controllers = CONTROLLERS.lock();
    for (slot, &(address, first)) in controllers.iter_mut().zip(platform().io_apics()) {
        let Some(page) = map_device(address, 4096) else { continue };
        let mut controller = Controller { page, first, count: 0 };
        let version = controller.read(VERSION);
        // All ones: nobody is there.
        if version == u32::MAX {
            continue;
        }
        controller.count = (version >> 16 & 0xff) + 1;
        for line in 0..controller.count {
            controller.write(FIRST_ENTRY + 2 * line, MASKED);
        }
        *slot = Some(controller);
    }
}

fn with_controller<R>(global: u32, work: impl FnOnce(&Controller) -> R) -> Option<R> {
    interrupts_off(|| {
        let controllers = CONTROLLERS.lock();
        let mine =
            |controller: &&Controller| global.checked_sub(controller.first).is_some_and(|line| line < controller.count);
        controllers.iter().flatten().find(mine).map(work)
    })
}

/// Sends a line to `vector` of the CPU with this local APIC number; it stays masked. Says whether there is such a line.
pub(super) fn route(route: Route, vector: u8, apic_id: u8) -> bool {
    let mut low = MASKED | u32::from(vector);
    if route.signal.is_level {
        low |= LEVEL;
    }
    if route.signal.is_active_low {
        low |= ACTIVE_LOW;
    }
    with_controller(route.global, |controller| {
        let entry = controller.entry(route.global);
        controller.write(entry + 1, u32::from(apic_id) << 24);
        controller.write(entry, low);
    })
    .is_some()
}

/// Masks a line, or lets it through.
pub(super) fn set_masked(global: u32, masked: Masked) {
    with_controller(global, |controller| {
        let entry = controller.entry(global);
        let others = controller.read(entry) & !MASKED;
        controller.write(entry, if masked == Masked::Yes { others | MASKED } else { others });
    });
}

/// Whether a line is silent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Masked {
    Yes,
    No,
}
