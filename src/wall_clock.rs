//! The time of day: the monotonic clock and an offset.
//!
//! The offset is what the real-time clock said at boot; clock_settime(2) changes it, and the vDSO is told.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::arch;

/// Nanoseconds from 1970 to boot.
static OFFSET: AtomicU64 = AtomicU64::new(0);

/// Now, since 1970.
pub fn now() -> Duration {
    Duration::from_nanos(offset().saturating_add(arch::clock::now().as_nanos()))
}

/// Sets it: it is this now, since 1970.
pub fn set(time: Duration) {
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let offset = time.saturating_sub(arch::clock::now().as_nanos());
    OFFSET.store(offset, Ordering::Relaxed);
    crate::vdso::publish();
}

/// Nanoseconds from 1970 to boot.
pub fn offset() -> u64 {
    OFFSET.load(Ordering::Relaxed)
}

/// When the machine booted, in seconds since 1970: `btime` in /proc/stat.
pub fn boot_time() -> u64 {
    offset() / 1_000_000_000
}

/// Now, as file systems want it.
pub fn timestamp() -> fs::inode::Timestamp {
    let now = now();
    fs::inode::Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
}
