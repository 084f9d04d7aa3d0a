//! Whom a thread acts for: users and groups (credentials(7)).
//!
//! Users and groups go by the same rules, which stand once, in `Ids`; what differs is the privilege that is asked for and what
//! follows from a change. next: `capabilities.rs`.

use abi::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use fs::Credentials;
use fs::permission::Capabilities;

use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;

/// No change, in the set*id calls that take several ids.
const KEEP: u32 = u32::MAX;

/// The three ids that a thread has of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
}

impl Ids {
    fn users(credentials: &Credentials) -> Ids {
        Ids { real: credentials.uid, effective: credentials.euid, saved: credentials.suid }
    }

    fn groups(credentials: &Credentials) -> Ids {
        Ids { real: credentials.gid, effective: credentials.egid, saved: credentials.sgid }
    }

    /// setuid(2), setgid(2): all three with privilege, else the effective one to one of the others.
    fn set(self, id: u32, is_privileged: bool) -> Result<Ids> {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if is_privileged {
            Ok(Ids { real: id, effective: id, saved: id })
        } else if id == self.real || id == self.saved {
            Ok(Ids { effective: id, ..self })
        } else {
            Err(Errno::EPERM)
        }
    }

    /// setreuid(2), setregid(2): the saved id follows the effective one, if the real one was set or the effective one differs from it.
    fn set_real_and_effective(self, real: u32, effective: u32, is_privileged: bool) -> Result<Ids> {
        let may_be_real = is_privileged || [KEEP, self.real, self.effective].contains(&real);
        let may_be_effective = is_privileged || effective == KEEP || self.contains(effective);
        if !may_be_real || !may_be_effective {
            return Err(Errno::EPERM);
        }
        let mut new = Ids { real: pick(real, self.real), effective: pick(effective, self.effective), ..self };
        if real != KEEP || effective != KEEP && effective != self.real {
            new.saved = new.effective;
        }
        Ok(new)
    }

    /// setresuid(2), setresgid(2): each to one of the three.
    fn set_all(self, real: u32, effective: u32, saved: u32, is_privileged: bool) -> Result<Ids> {
        let may_be = |id: u32| is_privileged || id == KEEP || self.contains(id);
        if ![real, effective, saved].into_iter().all(may_be) {
            return Err(Errno::EPERM);
        }
        Ok(Ids {
            real: pick(real, self.real),
            effective: pick(effective, self.effective),
            saved: pick(saved, self.saved),
        })
    }

    fn contains(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

fn pick(new: u32, old: u32) -> u32 {
    if new == KEEP { old } else { new }
}

/// The capabilities that go and come with the file system's user (capabilities(7)).
const OF_FILES: Capabilities = Capabilities::CHOWN
    .union(Capabilities::DAC_OVERRIDE)
    .union(Capabilities::DAC_READ_SEARCH)
    .union(Capabilities::FOWNER)
    .union(Capabilities::FSETID)
    .union(Capabilities::LINUX_IMMUTABLE)
    .union(Capabilities::MKNOD)
    .union(Capabilities::MAC_OVERRIDE);

impl RunningThread {
    /// Replaces the credentials of this thread. (The C library sees to it that all threads of a process do so.)
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.permit.change_user(credentials.uid);
        self.credentials = Arc::new(credentials);
        if let Some(view) = self.view.lock().as_mut() {
            view.credentials = self.credentials.clone();
        }
    }

    /// Sets the three user ids to what `change` makes of them; it is told whether the thread is privileged.
    fn change_users(&mut self, change: impl FnOnce(Ids, bool) -> Result<Ids>) -> Result<usize> {
        let old = &*self.credentials;
        let ids = change(Ids::users(old), old.can(Capabilities::SETUID))?;
        let mut new =
            Credentials { uid: ids.real, euid: ids.effective, suid: ids.saved, fsuid: ids.effective, ..old.clone() };
        adjust_capabilities(old, &mut new);
        if new.euid != old.euid {
            self.process.dumpable.store(0, Ordering::Relaxed);
        }
        self.set_credentials(new);
        Ok(0)
    }

    /// Sets the three group ids likewise.
    fn change_groups(&mut self, change: impl FnOnce(Ids, bool) -> Result<Ids>) -> Result<usize> {
        let old = &*self.credentials;
        let ids = change(Ids::groups(old), old.can(Capabilities::SETGID))?;
        let new =
            Credentials { gid: ids.real, egid: ids.effective, sgid: ids.saved, fsgid: ids.effective, ..old.clone() };
        if new.egid != old.egid {
            self.process.dumpable.store(0, Ordering::Relaxed);
        }
        self.set_credentials(new);
        Ok(0)
    }
}

/// What leaving or becoming user 0 does to capabilities (capabilities(7), "Effect of user ID changes").
fn adjust_capabilities(old: &Credentials, new: &mut Credentials) {
    let was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
    let is_root = new.uid == 0 || new.euid == 0 || new.suid == 0;
    if was_root && !is_root {
        new.permitted = Capabilities::empty();
        new.effective = Capabilities::empty();
        new.ambient = Capabilities::empty();
    } else if old.euid == 0 && new.euid != 0 {
        new.effective = Capabilities::empty();
    } else if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
}

/// getuid(2).
pub fn getuid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.credentials.uid as usize)
}

/// getgid(2).
pub fn getgid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.credentials.gid as usize)
}

/// geteuid(2).
pub fn geteuid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.credentials.euid as usize)
}

/// getegid(2).
pub fn getegid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.credentials.egid as usize)
}

/// setuid(2). `EPERM`: neither privileged nor the real or saved user. `EINVAL`: -1.
pub fn setuid(thread: &mut RunningThread, uid: u32) -> Result<usize> {
    thread.change_users(|ids, is_privileged| ids.set(uid, is_privileged))
}

/// setgid(2). `EPERM`, `EINVAL` as setuid(2).
pub fn setgid(thread: &mut RunningThread, gid: u32) -> Result<usize> {
    thread.change_groups(|ids, is_privileged| ids.set(gid, is_privileged))
}

/// setreuid(2). `EPERM`: an id that is none of its own, without privilege.
pub fn setreuid(thread: &mut RunningThread, real: u32, effective: u32) -> Result<usize> {
    thread.change_users(|ids, is_privileged| ids.set_real_and_effective(real, effective, is_privileged))
}

/// setregid(2). `EPERM` as setreuid(2).
pub fn setregid(thread: &mut RunningThread, real: u32, effective: u32) -> Result<usize> {
    thread.change_groups(|ids, is_privileged| ids.set_real_and_effective(real, effective, is_privileged))
}

/// setresuid(2). `EPERM`: an id that is none of its own, without privilege.
pub fn setresuid(thread: &mut RunningThread, real: u32, effective: u32, saved: u32) -> Result<usize> {
    thread.change_users(|ids, is_privileged| ids.set_all(real, effective, saved, is_privileged))
}

/// setresgid(2). `EPERM` as setresuid(2).
pub fn setresgid(thread: &mut RunningThread, real: u32, effective: u32, saved: u32) -> Result<usize> {
    thread.change_groups(|ids, is_privileged| ids.set_all(real, effective, saved, is_privileged))
}

/// setfsuid(2): returns the old one, whether it changed or not.
pub fn setfsuid(thread: &mut RunningThread, uid: u32) -> Result<usize> {
    let mut new = Credentials::clone(&thread.credentials);
    let old = new.fsuid;
    if [new.uid, new.euid, new.suid, new.fsuid].contains(&uid) || new.can(Capabilities::SETUID) && uid != KEEP {
        new.fsuid = uid;
        if old == 0 && uid != 0 {
            new.effective.remove(OF_FILES);
        } else if old != 0 && uid == 0 {
            new.effective |= new.permitted & OF_FILES;
        }
        thread.set_credentials(new);
    }
    Ok(old as usize)
}

/// setfsgid(2): returns the old one, whether it changed or not.
pub fn setfsgid(thread: &mut RunningThread, gid: u32) -> Result<usize> {
    let mut new = Credentials::clone(&thread.credentials);
    let old = new.fsgid;
    if [new.gid, new.egid, new.sgid, new.fsgid].contains(&gid) || new.can(Capabilities::SETGID) && gid != KEEP {
        new.fsgid = gid;
        thread.set_credentials(new);
    }
    Ok(old as usize)
}

async fn put_each(thread: &RunningThread, places: [UserPtr<u32>; 3], numbers: [u32; 3]) -> Result<usize> {
    for (place, number) in places.into_iter().zip(numbers) {
        thread.put(place, &number).await?;
    }
    Ok(0)
}

/// getresuid(2). `EFAULT`.
pub async fn getresuid(
    thread: &mut RunningThread,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<usize> {
    let numbers = [thread.credentials.uid, thread.credentials.euid, thread.credentials.suid];
    put_each(thread, [real, effective, saved], numbers).await
}

/// getresgid(2). `EFAULT`.
pub async fn getresgid(
    thread: &mut RunningThread,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<usize> {
    let numbers = [thread.credentials.gid, thread.credentials.egid, thread.credentials.sgid];
    put_each(thread, [real, effective, saved], numbers).await
}

/// The most supplementary groups: NGROUPS_MAX.
const GROUPS_MAX: usize = 65_536;

/// getgroups(2). `EINVAL`: room for too few. `EFAULT`.
pub async fn getgroups(thread: &mut RunningThread, room: i32, list: UserPtr<u32>) -> Result<usize> {
    let groups = thread.credentials.groups.clone();
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    if room != 0 {
        if room < groups.len() {
            return Err(Errno::EINVAL);
        }
        for (index, group) in groups.iter().enumerate() {
            thread.put(list.element(index), group).await?;
        }
    }
    Ok(groups.len())
}

/// setgroups(2). `EPERM`: without CAP_SETGID. `EINVAL`: more than 65,536. `ENOMEM`, `EFAULT`.
pub async fn setgroups(thread: &mut RunningThread, count: usize, list: UserPtr<u32>) -> Result<usize> {
    if !thread.credentials.can(Capabilities::SETGID) {
        return Err(Errno::EPERM);
    }
    if count > GROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut groups = Vec::new();
    groups.make_exact_room(count)?;
    for index in 0..count {
        groups.push(thread.get(list.element(index)).await?);
    }
    let mut new = Credentials::clone(&thread.credentials);
    new.groups = groups.into();
    thread.set_credentials(new);
    Ok(0)
}
