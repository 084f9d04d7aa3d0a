//! Whom a new program acts for: set-user-ID, set-group-ID, and what goes with them (execve(2), credentials(7), capabilities(7)).

use core::sync::atomic::Ordering;

use abi::general;
use fs::permission::Capabilities;
use fs::{Credentials, MountFlags, Path};

use super::thread::RunningThread;

/// What of personality(2) a program that acts for somebody else does not take over (PER_CLEAR_ON_SETID): READ_IMPLIES_EXEC,
/// ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO.
const CLEARED_PERSONALITY: u32 = 0x040_0000 | 0x004_0000 | 0x020_0000 | 0x010_0000;

/// Whom a new program acts for, and what follows.
pub struct NewIdentity {
    /// Its credentials.
    pub credentials: Credentials,
    /// AT_SECURE: it may do what its caller may not, so it must not trust its environment.
    pub is_secure: bool,
    /// Its personality(2).
    pub personality: u32,
}

impl RunningThread {
    /// Whom the program in this file will act for: its bits take effect unless the mount or prctl(2) forbids it.
    pub fn identity_for(&self, path: &Path) -> NewIdentity {
        let old = &*self.credentials;
        let mut new = Credentials { suid: old.euid, sgid: old.egid, fsuid: old.euid, fsgid: old.egid, ..old.clone() };
        let node = path.inode().metadata().attributes;
        let mut personality = self.personality.load(Ordering::Relaxed);
        if !path.mount.flags().contains(MountFlags::NOSUID) && !self.no_new_privileges.load(Ordering::Relaxed) {
            if node.mode & general::S_ISUID != 0 {
                (new.euid, new.suid, new.fsuid) = (node.uid, node.uid, node.uid);
                personality &= !CLEARED_PERSONALITY;
            }
            if node.mode & (general::S_ISGID | general::S_IXGRP) == general::S_ISGID | general::S_IXGRP {
                (new.egid, new.sgid, new.fsgid) = (node.gid, node.gid, node.gid);
                personality &= !CLEARED_PERSONALITY;
            }
        }
        grant_capabilities(&mut new);
        let is_secure = new.uid != new.euid || new.gid != new.egid;
        NewIdentity { credentials: new, is_secure, personality }
    }
}

/// What root may do, a program that becomes root may do (capabilities(7), "Capabilities and execution of programs by root").
fn grant_capabilities(new: &mut Credentials) {
    let is_root = new.uid == 0 || new.euid == 0;
    if is_root {
        new.permitted = new.inheritable | new.bounding;
        new.effective = if new.euid == 0 { new.permitted } else { Capabilities::empty() };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
}
