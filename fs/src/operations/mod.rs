//! The operations on names, one async method of [`Caller`] each: what the system calls of the same names do, after their
//! arguments were copied in.
//!
//! - `open.rs`: open. - `names.rs`: mkdir, mknod, symlink, link, unlink, rmdir. - `rename.rs`: rename.
//! - `attributes.rs`: stat, chmod, chown, utimens, truncate, access, statfs, readlink. - `places.rs`: chdir, chroot, mounts.
//!
//! Each walks first, then takes the lock of the folder that changes, looks the name up again under it, checks permissions, and
//! asks the inode. Checks come in Linux's order where programs can tell: that something exists is said before that the file
//! system is read-only.
//!
//! Next: `open.rs`.

mod attributes;
mod names;
mod open;
mod places;
mod rename;

pub use attributes::TimeChange;

use crate::context::Caller;
use crate::inode::{Kind, NewOwner};
use crate::path::Path;
use crate::permission::{Access, Capabilities, check};
use crate::{Result, environment};

impl Caller<'_> {
    /// Checks that something may be added to a folder.
    fn check_may_add(&self, folder: &Path) -> Result<()> {
        folder.mount.check_writable()?;
        check(self.credentials, &**folder.inode(), Access::WRITE | Access::EXECUTE)
    }

    /// Owner and permissions of what it makes in a folder: a set-group-ID folder hands its group on, and to folders the bit too.
    fn new_owner(&self, folder: &Path, kind: Kind, mode: u32) -> NewOwner {
        let parent = folder.inode().permissions();
        let mut mode = mode & 0o7777;
        if kind != Kind::Symlink {
            mode &= !self.context.umask();
        }
        let inherits = parent.mode & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { self.credentials.fsgid };
        if kind == Kind::Directory {
            mode = if inherits { mode | 0o2000 } else { mode };
        } else if mode & 0o2010 == 0o2010 && !self.may_set_group_id(gid) {
            mode &= !0o2000;
        }
        NewOwner { mode, uid: self.credentials.fsuid, gid, time: environment::now() }
    }

    /// Whether it may leave the set-group-ID bit on a file of this group.
    fn may_set_group_id(&self, gid: u32) -> bool {
        self.credentials.is_in_group(gid) || self.credentials.can(Capabilities::FSETID)
    }
}
