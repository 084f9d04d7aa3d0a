//! Who may do what: credentials, capabilities, and the check of a node's permission bits (path_resolution(7), capabilities(7)).
//!
//! Next: `walk.rs`.

use alloc::sync::Arc;

use bitflags::bitflags;

use crate::inode::{Kind, Permissions};
use crate::{Errno, Inode, Result};

bitflags! {
    /// What access is asked for; the bits are those of access(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u32 {
        /// To execute a file, or to search a folder.
        const EXECUTE = 1;
        /// To write.
        const WRITE = 2;
        /// To read.
        const READ = 4;
    }

    /// Capabilities; the bit numbers are Linux's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Capabilities: u64 {
        /// Change owners.
        const CHOWN = 1 << 0;
        /// Ignore permission bits.
        const DAC_OVERRIDE = 1 << 1;
        /// Ignore permission bits for reading and searching.
        const DAC_READ_SEARCH = 1 << 2;
        /// Act as the owner of any file.
        const FOWNER = 1 << 3;
        /// Keep set-user-ID and set-group-ID bits.
        const FSETID = 1 << 4;
        /// Send signals to anyone.
        const KILL = 1 << 5;
        /// Take any group id.
        const SETGID = 1 << 6;
        /// Take any user id.
        const SETUID = 1 << 7;
        /// Hand out capabilities.
        const SETPCAP = 1 << 8;
        /// Change immutable files.
        const LINUX_IMMUTABLE = 1 << 9;
        /// Bind to ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;
        /// Broadcast.
        const NET_BROADCAST = 1 << 11;
        /// Configure the network.
        const NET_ADMIN = 1 << 12;
        /// Raw sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory.
        const IPC_LOCK = 1 << 14;
        /// Ignore the owners of System V objects.
        const IPC_OWNER = 1 << 15;
        /// Load kernel modules.
        const SYS_MODULE = 1 << 16;
        /// Raw I/O.
        const SYS_RAWIO = 1 << 17;
        /// chroot(2).
        const SYS_CHROOT = 1 << 18;
        /// Trace any process.
        const SYS_PTRACE = 1 << 19;
        /// Accounting.
        const SYS_PACCT = 1 << 20;
        /// Mount, and administer in general.
        const SYS_ADMIN = 1 << 21;
        /// Reboot.
        const SYS_BOOT = 1 << 22;
        /// Raise priorities.
        const SYS_NICE = 1 << 23;
        /// Exceed resource limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set the clock.
        const SYS_TIME = 1 << 25;
        /// Configure terminals.
        const SYS_TTY_CONFIG = 1 << 26;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Take leases.
        const LEASE = 1 << 28;
        /// Write to the audit log.
        const AUDIT_WRITE = 1 << 29;
        /// Control auditing.
        const AUDIT_CONTROL = 1 << 30;
        /// Set file capabilities.
        const SETFCAP = 1 << 31;
        /// Override mandatory access control.
        const MAC_OVERRIDE = 1 << 32;
        /// Administer mandatory access control.
        const MAC_ADMIN = 1 << 33;
        /// Read the kernel log.
        const SYSLOG = 1 << 34;
        /// Wake the system.
        const WAKE_ALARM = 1 << 35;
        /// Keep the system awake.
        const BLOCK_SUSPEND = 1 << 36;
        /// Read the audit log.
        const AUDIT_READ = 1 << 37;
        /// Performance monitoring.
        const PERFMON = 1 << 38;
        /// eBPF.
        const BPF = 1 << 39;
        /// Checkpoint and restore.
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// Who a thread is (credentials(7)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective user.
    pub euid: u32,
    /// Effective group.
    pub egid: u32,
    /// Saved user.
    pub suid: u32,
    /// Saved group.
    pub sgid: u32,
    /// The user that file access is decided by.
    pub fsuid: u32,
    /// The group that file access is decided by.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Capabilities that count now.
    pub effective: Capabilities,
    /// Capabilities that may be made effective.
    pub permitted: Capabilities,
    /// Capabilities that exec may pass on.
    pub inheritable: Capabilities,
    /// Capabilities that exec may ever grant.
    pub bounding: Capabilities,
    /// Capabilities that exec of an unprivileged program keeps.
    pub ambient: Capabilities,
}

impl Credentials {
    /// Root, with everything.
    pub fn root() -> Credentials {
        Credentials { effective: Capabilities::all(), permitted: Capabilities::all(), ..Credentials::user(0, 0) }
    }

    /// A user without any capability.
    pub fn user(uid: u32, gid: u32) -> Credentials {
        Credentials {
            uid,
            gid,
            euid: uid,
            egid: gid,
            suid: uid,
            sgid: gid,
            fsuid: uid,
            fsgid: gid,
            groups: Arc::from([]),
            effective: Capabilities::empty(),
            permitted: Capabilities::empty(),
            inheritable: Capabilities::empty(),
            bounding: Capabilities::all(),
            ambient: Capabilities::empty(),
        }
    }

    /// The credentials that access(2) decides by: the real ids instead of the effective ones.
    pub fn as_real(&self) -> Credentials {
        let effective = if self.uid == 0 { self.permitted } else { Capabilities::empty() };
        Credentials { fsuid: self.uid, fsgid: self.gid, effective, ..self.clone() }
    }

    /// Whether a capability counts now.
    pub fn can(&self, capability: Capabilities) -> bool {
        self.effective.contains(capability)
    }

    /// Whether file access is decided as a member of this group.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// Whether it owns the node, or may act as if.
    pub fn owns(&self, node: Permissions) -> bool {
        self.fsuid == node.uid || self.can(Capabilities::FOWNER)
    }
}

/// Checks access to a node by its permission bits and the capabilities.
///
/// # Errors
///
/// `EACCES`.
pub fn check(credentials: &Credentials, inode: &dyn Inode, access: Access) -> Result<()> {
    allows(credentials, inode.permissions(), inode.core().kind, access)
}

fn allows(credentials: &Credentials, node: Permissions, kind: Kind, access: Access) -> Result<()> {
    let class = if credentials.fsuid == node.uid {
        node.mode >> 6
    } else if credentials.is_in_group(node.gid) {
        node.mode >> 3
    } else {
        node.mode
    };
    if access.difference(Access::from_bits_truncate(class)).is_empty() {
        return Ok(());
    }
    // Root may do anything but execute a file that nobody may execute.
    let nobody_may_execute = kind != Kind::Directory && node.mode & 0o111 == 0;
    if credentials.can(Capabilities::DAC_OVERRIDE) && !(access.contains(Access::EXECUTE) && nobody_may_execute) {
        return Ok(());
    }
    let only_looks = if kind == Kind::Directory { Access::READ | Access::EXECUTE } else { Access::READ };
    if credentials.can(Capabilities::DAC_READ_SEARCH) && only_looks.contains(access) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks that an entry may be taken out of a folder: the right to write it, and in a sticky folder also the ownership of the folder
/// or of the entry.
///
/// # Errors
///
/// `EACCES`; `EPERM` because of the sticky bit.
pub fn check_removal(credentials: &Credentials, folder: &dyn Inode, entry: &dyn Inode) -> Result<()> {
    check(credentials, folder, Access::WRITE | Access::EXECUTE)?;
    let permissions = folder.permissions();
    let is_sticky = permissions.mode & 0o1000 != 0;
    if is_sticky && credentials.fsuid != permissions.uid && !credentials.owns(entry.permissions()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(credentials: &Credentials, mode: u32, kind: Kind, access: Access) -> bool {
        allows(credentials, Permissions { mode, uid: 10, gid: 20 }, kind, access).is_ok()
    }

    #[test]
    fn only_the_first_class_that_fits_counts() {
        let owner = Credentials::user(10, 20);
        assert!(!may(&owner, 0o077, Kind::Regular, Access::READ), "the group's rights do not help the owner");
        let member = Credentials { groups: Arc::from([7, 20]), ..Credentials::user(11, 21) };
        assert!(may(&member, 0o040, Kind::Regular, Access::READ));
        assert!(!may(&member, 0o004, Kind::Regular, Access::READ), "others' rights do not help the group");
        assert!(may(&Credentials::user(12, 22), 0o002, Kind::Regular, Access::WRITE));
        assert!(!may(&Credentials::user(12, 22), 0o772, Kind::Regular, Access::WRITE | Access::READ));
    }

    #[test]
    fn root_executes_only_what_somebody_may_execute_but_searches_any_folder() {
        let root = Credentials::root();
        assert!(may(&root, 0, Kind::Regular, Access::READ | Access::WRITE));
        assert!(!may(&root, 0o666, Kind::Regular, Access::EXECUTE));
        assert!(may(&root, 0o010, Kind::Regular, Access::EXECUTE));
        assert!(may(&root, 0, Kind::Directory, Access::EXECUTE));
    }

    #[test]
    fn the_capability_to_read_and_search_does_not_write() {
        let reader = Credentials { effective: Capabilities::DAC_READ_SEARCH, ..Credentials::user(12, 22) };
        assert!(may(&reader, 0, Kind::Regular, Access::READ));
        assert!(may(&reader, 0, Kind::Directory, Access::READ | Access::EXECUTE));
        assert!(!may(&reader, 0, Kind::Regular, Access::READ | Access::WRITE));
        assert!(!may(&reader, 0o111, Kind::Regular, Access::READ | Access::EXECUTE), "not both for a file");
    }

    #[test]
    fn user_zero_without_capabilities_is_an_ordinary_user() {
        assert!(!may(&Credentials::user(0, 0), 0o700, Kind::Regular, Access::READ));
    }
}
