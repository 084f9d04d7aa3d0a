//! The page that the vDSO's functions read.
//!
//! ```text
//!   kernel                              program
//!   sequence: odd                       read the sequence: odd? again
//!   the fields                          read the fields and the counter
//!   sequence: the next even             read the sequence: changed? again
//! ```
//!
//! Next: `mod.rs`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use drivers::hw::Page;

use super::super::tsc_scale::TscParameters;

/// What lies at the beginning of the page.
#[repr(C)]
pub struct Data {
    /// Odd while the rest is being written.
    pub(super) sequence: AtomicU32,
    /// 1 if the clock is the time stamp counter; else the functions make system calls.
    pub(super) is_tsc: AtomicU32,
    /// The counter at boot.
    pub(super) tsc_at_boot: AtomicU64,
    /// Nanoseconds a tick, times 2³².
    pub(super) multiplier: AtomicU64,
    /// Nanoseconds from 1970 to boot.
    pub(super) wall_at_boot: AtomicU64,
}

impl Data {
    /// The data in a page of zeros, which belongs to the vDSO from now on.
    pub fn of_page(page: &Page) -> &Data {
        // SAFETY: a page is aligned and larger than this; it lives as long as the borrow; zeros are a valid value, and whoever
        // else looks at these bytes does so through atomics, or is a program, which only reads.
        unsafe { page.pointer().cast::<Data>().as_ref() }
    }

    /// Tells programs how the clocks go: `None` for a clock that they cannot read. One caller at a time.
    pub fn publish(&self, clock: Option<TscParameters>, wall_at_boot: u64) {
        let even = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(even.wrapping_add(1), Ordering::Relaxed);
        // Release: who sees a field of the new ones sees the odd number too. Pairs with the order in which x86 loads.
        fence(Ordering::Release);
        if let Some(clock) = clock {
            self.tsc_at_boot.store(clock.tsc_at_boot, Ordering::Relaxed);
            self.multiplier.store(clock.multiplier, Ordering::Relaxed);
        }
        self.wall_at_boot.store(wall_at_boot, Ordering::Relaxed);
        self.is_tsc.store(u32::from(clock.is_some()), Ordering::Relaxed);
        // Release: who sees the even number sees all fields.
        self.sequence.store(even.wrapping_add(2), Ordering::Release);
    }
}
