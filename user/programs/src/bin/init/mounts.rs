//! The file systems that programs expect to find.
//!
//! A young kernel may not have them all: what cannot be mounted is left out, and the programs that need it will say so.

use rustix::mount::{MountFlags, mount};
use std::ffi::CStr;
use std::fs;

/// Before anything else: the device nodes and the kernel's own files.
pub fn early() {
    let secure = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    attach("proc", "/proc", secure, None);
    attach("sysfs", "/sys", secure, None);
    attach("devtmpfs", "/dev", MountFlags::NOSUID, None);
}

/// On the final root: what lives in memory.
pub fn late() {
    let devices = MountFlags::NOSUID | MountFlags::NOEXEC;
    attach("devpts", "/dev/pts", devices, Some(c"mode=620,ptmxmode=666"));
    attach("tmpfs", "/dev/shm", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777"));
    attach("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777"));
    for (name, target) in [("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2")]
    {
        // Where devtmpfs has them already, this changes nothing.
        let _ = std::os::unix::fs::symlink(format!("/proc/{target}"), format!("/dev/{name}"));
    }
    let _ = rustix::system::sethostname(b"rouse");
}

/// Mounts `kind` on `target`, which is made if it is missing.
pub fn attach(kind: &str, target: &str, flags: MountFlags, options: Option<&CStr>) {
    // A folder that exists, and a root that is read-only, are both fine: the mount is what tells.
    let _ = fs::create_dir_all(target);
    let _ = mount(kind, target, kind, flags, options);
}
