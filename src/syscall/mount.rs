//! Mounting: mount(2), umount2(2), pivot_root(2).

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use fs::{At, MountFlags, WalkFlags};

use crate::mm::user::UserPtr;
use crate::process::RunningThread;

/// The longest text of options: a page.
const OPTIONS_MAX: usize = 4095;
/// The flags that say what mount(2) is to do at all.
const OPERATIONS: u32 = general::MS_REMOUNT | general::MS_BIND | general::MS_MOVE | PROPAGATION;
/// Propagation between mounts: there is none, so that making a mount private changes nothing.
const PROPAGATION: u32 = general::MS_PRIVATE | general::MS_SHARED | general::MS_SLAVE | general::MS_UNBINDABLE;
/// An old way to say that the flags are flags.
const MAGIC: (u32, u32) = (0xc0ed_0000, 0xffff_0000);

async fn optional_text(thread: &mut RunningThread, text: UserPtr<u8>) -> Result<Vec<u8>> {
    if text.is_null() {
        return Ok(Vec::new());
    }
    thread.space.read_c_string(text, OPTIONS_MAX).await
}

/// mount(2). `EPERM`; `ENODEV`: no such file system; `EINVAL`: options it does not know, or flags that ask for shared mounts; `ENOTBLK`,
/// `ENXIO`, `EBUSY`; others as of a walk.
pub async fn mount(
    thread: &mut RunningThread,
    source: UserPtr<u8>,
    target: UserPtr<u8>,
    kind: UserPtr<u8>,
    flags: u32,
    options: UserPtr<u8>,
) -> Result<usize> {
    let flags = if flags & MAGIC.1 == MAGIC.0 { flags & !MAGIC.1 } else { flags };
    let source = optional_text(thread, source).await?;
    let target = thread.path(target).await?;
    let mount_flags = MountFlags::from_bits_truncate(flags);
    let caller = thread.caller();
    let to = At::working_directory(&target);
    match flags & OPERATIONS & !general::MS_REC {
        operation if operation & general::MS_REMOUNT != 0 => {
            Box::pin(caller.remount(to, mount_flags, operation & general::MS_BIND == 0)).await?;
        }
        operation if operation & general::MS_BIND != 0 => {
            let recursive = flags & general::MS_REC != 0;
            Box::pin(caller.bind_mount(At::working_directory(&source), to, recursive)).await?;
        }
        general::MS_MOVE => Box::pin(caller.move_mount(At::working_directory(&source), to)).await?,
        general::MS_PRIVATE => drop(Box::pin(caller.walk(to, WalkFlags::FOLLOW)).await?),
        0 => {
            let kind = optional_text(thread, kind).await?;
            let options = optional_text(thread, options).await?;
            if !thread.credentials.can(fs::permission::Capabilities::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            let made = Box::pin(crate::filesystems::make(thread, &kind, &source, &options)).await?;
            if mount_flags.contains(MountFlags::READ_ONLY) {
                made.set_read_only(true)?;
            }
            let place = Box::pin(thread.caller().walk(At::working_directory(&target), WalkFlags::FOLLOW)).await?;
            thread.fs.mounts().mount(made, mount_flags - MountFlags::READ_ONLY, &place)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// umount2(2). `EPERM`; `EINVAL`: not a mount, or unknown flags; `EBUSY`; others as of a walk.
pub async fn umount2(thread: &mut RunningThread, target: UserPtr<u8>, flags: u32) -> Result<usize> {
    let known = general::MNT_FORCE | general::MNT_DETACH | general::UMOUNT_NOFOLLOW;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let target = thread.path(target).await?;
    let walk = if flags & general::UMOUNT_NOFOLLOW != 0 { WalkFlags::empty() } else { WalkFlags::FOLLOW };
    let is_lazy = flags & general::MNT_DETACH != 0;
    Box::pin(thread.caller().unmount(At::working_directory(&target), walk, is_lazy)).await?;
    Ok(0)
}

/// pivot_root(2). `EPERM`, `EINVAL`, `EBUSY`; others as of a walk.
pub async fn pivot_root(thread: &mut RunningThread, new_root: UserPtr<u8>, put_old: UserPtr<u8>) -> Result<usize> {
    let new_root = thread.path(new_root).await?;
    let put_old = thread.path(put_old).await?;
    Box::pin(thread.caller().pivot_root(At::working_directory(&new_root), At::working_directory(&put_old))).await?;
    Ok(0)
}
