//! What the file systems need of the world around them, handed in once at boot: the time of day, and the devices behind device
//! nodes.
//!
//! Next: `file_system.rs`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use conquer_once::spin::OnceCell;

use crate::inode::{Kind, Timestamp};
use crate::{Errno, FileOps, OpenFlags, Result};

/// The devices that device nodes stand for. The kernel implements it over its table of devices.
pub trait DeviceTable: Send + Sync {
    /// Opens a device: `kind` says whether `represents` (as `makedev` packs it) numbers a character or a block device.
    ///
    /// # Errors
    ///
    /// `ENXIO`: there is no such device. Whatever else the device has to say.
    fn open(&self, kind: Kind, represents: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;
}

/// See [`install`].
pub struct Environment {
    /// The time of day; may be coarse, must be cheap.
    pub now: fn() -> Timestamp,
    /// What device nodes open.
    pub devices: &'static dyn DeviceTable,
}

static ENVIRONMENT: OnceCell<Environment> = OnceCell::uninit();

/// Hands the environment in. Only the first call counts.
pub fn install(environment: Environment) {
    ENVIRONMENT.init_once(|| environment);
}

/// The time of day; the epoch until [`install`] was called.
pub fn now() -> Timestamp {
    ENVIRONMENT.get().map_or_else(Timestamp::default, |environment| (environment.now)())
}

/// Opens the device that a device node stands for.
pub(crate) fn open_device(kind: Kind, represents: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    ENVIRONMENT.get().ok_or(Errno::ENXIO)?.devices.open(kind, represents, flags)
}

/// A device number for a file system without a device (major number 0), as tmpfs and procfs have.
pub fn anonymous_device() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    make_device(0, NEXT.fetch_add(1, Ordering::Relaxed) as u32)
}

/// A device number from its major and minor part, packed as makedev(3) does.
pub const fn make_device(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    ((major & 0xffff_f000) << 32) | ((major & 0xfff) << 8) | ((minor & 0xffff_ff00) << 12) | (minor & 0xff)
}

/// The major part of a device number.
pub const fn major(device: u64) -> u32 {
    (((device >> 32) & 0xffff_f000) | ((device >> 8) & 0xfff)) as u32
}

/// The minor part of a device number.
pub const fn minor(device: u64) -> u32 {
    (((device >> 12) & 0xffff_ff00) | (device & 0xff)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_comes_apart_as_it_was_put_together() {
        for (number, parts) in [(0x103, (1, 3)), (0x501, (5, 1)), (make_device(259, 70_000), (259, 70_000))] {
            assert_eq!((major(number), minor(number)), parts);
        }
        assert_eq!(make_device(8, 17), 0x811);
    }
}
