//! What is mounted: /proc/PID/mounts, mountinfo, and /proc/filesystems.
//!
//! A process is told of the mounts that it can reach from its root. Next: `fs/src/mount_table.rs`, which writes the text.

use alloc::vec::Vec;

use abi::Result;

use super::process::Subject;
use super::text::Text;
use crate::filesystems::KINDS;

/// /proc/filesystems.
pub fn file_systems() -> Vec<u8> {
    let mut text = Text::new();
    for kind in KINDS {
        text.add(format_args!("{}\t{}\n", if kind.needs_device { "" } else { "nodev" }, kind.name));
    }
    text.into_bytes()
}

/// /proc/PID/mounts: as fstab(5).
pub fn mounts(subject: &Subject) -> Result<Vec<u8>> {
    let view = subject.view()?;
    Ok(view.fs.mounts().mounts_text(&view.fs.root()))
}

/// /proc/PID/mountinfo.
pub fn mountinfo(subject: &Subject) -> Result<Vec<u8>> {
    let view = subject.view()?;
    Ok(view.fs.mounts().mount_info_text(&view.fs.root()))
}
