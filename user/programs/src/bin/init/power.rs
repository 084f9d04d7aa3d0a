//! The end: everything on disk, then off.

use rustix::system::{RebootCommand, reboot};
use std::time::Duration;

/// Syncs the disks and powers the machine off.
pub fn off() -> ! {
    end(RebootCommand::PowerOff)
}

/// Syncs the disks and ends in the way asked for.
pub fn end(how: RebootCommand) -> ! {
    rustix::fs::sync();
    if let Err(error) = reboot(how) {
        eprintln!("init: the machine does not go off: {error}");
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
