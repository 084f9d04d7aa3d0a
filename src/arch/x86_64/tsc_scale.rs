//! From ticks to nanoseconds and back, by one multiplication and a shift.
//!
//! `nanoseconds = ticks * multiplier >> 32`, with 128 bits in between, so that nothing overflows within 584 years of uptime. The
//! vDSO does the same arithmetic with the same numbers, so a program and the kernel never disagree.
//!
//! Next: `clock.rs`.

use core::num::NonZeroU64;

/// Bits by which a product is shifted.
pub const SHIFT: u32 = 32;
const NANOSECONDS: u64 = 1_000_000_000;

/// What the vDSO needs to tell the time as the kernel does: `(rdtsc - tsc_at_boot) * multiplier >> SHIFT` nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscParameters {
    /// The counter at boot.
    pub tsc_at_boot: u64,
    /// Nanoseconds a tick, times 2³².
    pub multiplier: u64,
}

/// The rate of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickScale {
    /// Nanoseconds a tick, times 2³².
    pub multiplier: u64,
    /// Ticks a nanosecond, times 2³².
    inverse: u64,
}

impl TickScale {
    /// The scale of a counter with so many ticks a second.
    pub fn from_hz(hz: NonZeroU64) -> TickScale {
        let scaled = |numerator: u64, denominator: u64| {
            let quotient = ((u128::from(numerator) << SHIFT) + u128::from(denominator) / 2) / u128::from(denominator);
            u64::try_from(quotient).unwrap_or(u64::MAX).max(1)
        };
        TickScale { multiplier: scaled(NANOSECONDS, hz.get()), inverse: scaled(hz.get(), NANOSECONDS) }
    }

    /// How long so many ticks take.
    #[inline(always)]
    pub const fn nanoseconds(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.multiplier as u128) >> SHIFT) as u64
    }

    /// How many ticks a time takes, rounded up; never 0, and at most what fits.
    pub const fn ticks(&self, nanoseconds: u64) -> u64 {
        let ticks = ((nanoseconds as u128 * self.inverse as u128) >> SHIFT) + 1;
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }
}

/// Ticks a second of one counter, from how far it and another of a known rate came in the same time; `None` if that makes no sense.
pub fn rate(ticks: u64, reference_ticks: u64, reference_hz: u64) -> Option<NonZeroU64> {
    let scaled = u128::from(ticks) * u128::from(reference_hz);
    NonZeroU64::new(u64::try_from(scaled.checked_div(reference_ticks.into())?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(hz: u64) -> TickScale {
        TickScale::from_hz(NonZeroU64::new(hz).expect("not zero"))
    }

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for hz in [1_000_000, 3_579_545, 1_000_000_000, 2_893_437_000, 5_200_000_000] {
            let elapsed = scale(hz).nanoseconds(hz);
            assert!(elapsed.abs_diff(NANOSECONDS) <= 1 + hz / (1 << 31), "{hz}: {elapsed}");
        }
    }

    #[test]
    fn an_hour_is_off_by_less_than_a_microsecond_a_second() {
        let hz = 2_893_437_123;
        assert!(scale(hz).nanoseconds(hz * 3600).abs_diff(3600 * NANOSECONDS) < 3_600_000);
    }

    #[test]
    fn a_deadline_in_ticks_is_not_before_the_deadline_in_time() {
        let scale = scale(2_500_000_001);
        for nanoseconds in [0, 1, 999, 1_000_000, 86_400 * NANOSECONDS] {
            let back = scale.nanoseconds(scale.ticks(nanoseconds));
            assert!(back + 2 + nanoseconds / 1_000_000_000 >= nanoseconds, "{nanoseconds}: {back}");
        }
        assert_eq!(scale.ticks(u64::MAX), scale.ticks(u64::MAX));
        assert!(scale.ticks(0) >= 1);
    }

    #[test]
    fn a_rate_follows_from_a_reference() {
        assert_eq!(rate(25_000_000, 35_795, 3_579_545).map(NonZeroU64::get), Some(2_500_031_428));
        assert_eq!(rate(1, 0, 3_579_545), None);
        assert_eq!(rate(0, 5, 3_579_545), None);
    }
}
