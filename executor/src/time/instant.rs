//! A point in time, as the machine's monotonic clock counts it. next: timers.rs.

use core::{
    fmt,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A point in time: nanoseconds since boot. It reaches 584 years.
///
/// Sums saturate: a deadline too far away to be written down is [`Instant::NEVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment of boot.
    pub const BOOT: Self = Self(0);
    /// Later than every other: as a deadline, none.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The time from `earlier` to this point; none if it is not earlier.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from `earlier` to this point, or None if that is negative.
    #[must_use]
    pub const fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        match self.0.checked_sub(earlier.0) {
            Some(nanos) => Some(Duration::from_nanos(nanos)),
            None => None,
        }
    }

    /// The point `duration` later, or None if that cannot be written down.
    #[must_use]
    #[inline]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }

    /// The point `duration` earlier, or None if that is before boot.
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }

    /// The point `duration` later, at most [`Instant::NEVER`].
    #[must_use]
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self::NEVER)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// The time from `earlier` to this point; none if it is not earlier.
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Display for Instant {
    /// Seconds and microseconds since boot, as a kernel log shows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_and_checked_sums_say_so() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(late.checked_add(Duration::from_secs(1)), None);
        assert_eq!(Instant::BOOT + Duration::MAX, Instant::NEVER);
        assert_eq!(Instant::from_nanos(5) - Instant::from_nanos(7), Duration::ZERO);
        assert_eq!(Instant::from_nanos(5).checked_duration_since(Instant::from_nanos(7)), None);
    }

    #[test]
    fn it_is_shown_as_seconds() {
        assert_eq!(Instant::from_nanos(12_003_004_000).to_string(), "   12.003004");
    }
}
