//! Who a thread is and acts for: process, group and session numbers; users, groups and capabilities (credentials(7)).

use abi::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use fs::Credentials;
use fs::permission::Capabilities;

use crate::mm::user::UserPtr;
use crate::process::send;
use crate::process::table;
use crate::process::{Process, RunningThread};

/// getpid(2).
pub fn getpid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.pid as usize)
}

/// gettid(2).
pub fn gettid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.tid() as usize)
}

/// getppid(2).
pub fn getppid(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.parent() as usize)
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

/// getpgrp(2).
pub fn getpgrp(thread: &mut RunningThread) -> Result<usize> {
    Ok(thread.process.group() as usize)
}

fn process_or_self(thread: &RunningThread, pid: i32) -> Result<Arc<Process>> {
    if pid == 0 { Ok(thread.process.clone()) } else { table::process(pid).ok_or(Errno::ESRCH) }
}

/// getpgid(2). `ESRCH`: no such process.
pub fn getpgid(thread: &mut RunningThread, pid: i32) -> Result<usize> {
    process_or_self(thread, pid).map(|process| process.group() as usize)
}

/// getsid(2). `ESRCH`: no such process.
pub fn getsid(thread: &mut RunningThread, pid: i32) -> Result<usize> {
    process_or_self(thread, pid).map(|process| process.session() as usize)
}

/// setsid(2). `EPERM`: it leads a group already, or another process is in a group of its number.
pub fn setsid(thread: &mut RunningThread) -> Result<usize> {
    let process = thread.process.clone();
    table::with(|table| {
        if table.has_group(process.pid) {
            return Err(Errno::EPERM);
        }
        table.start_session(&process);
        Ok(process.pid as usize)
    })
}

/// setpgid(2). `EINVAL`: a negative group. `ESRCH`: neither the caller nor a child of it. `EACCES`: a child that has executed a
/// program since. `EPERM`: a session leader, another session, or a group that is not of the session.
pub fn setpgid(thread: &mut RunningThread, pid: i32, group: i32) -> Result<usize> {
    if group < 0 || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let caller = thread.process.clone();
    let old = table::with(|table| {
        let target = if pid == 0 { caller.clone() } else { table.process(pid).ok_or(Errno::ESRCH)? };
        let group = if group == 0 { target.pid } else { group };
        if target.pid != caller.pid {
            if target.parent() != caller.pid || target.is_zombie() {
                return Err(Errno::ESRCH);
            }
            if target.session() != caller.session() {
                return Err(Errno::EPERM);
            }
            if target.has_executed.load(Ordering::Relaxed) {
                return Err(Errno::EACCES);
            }
        }
        if target.session() == target.pid {
            return Err(Errno::EPERM);
        }
        let is_of_session = table.group(group).first().is_some_and(|member| member.session() == caller.session());
        if group != target.pid && !is_of_session {
            return Err(Errno::EPERM);
        }
        let old = target.group();
        table.set_group(&target, group);
        Ok(old)
    })?;
    send::hang_up_if_orphaned_and_stopped(&[old]);
    Ok(0)
}

/// No change, in the set*id calls that take several ids.
const KEEP: u32 = u32::MAX;

impl RunningThread {
    /// Replaces the credentials of this thread. (The C library sees to it that all threads of a process do so.)
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.permit.change_user(credentials.uid);
        self.credentials = Arc::new(credentials);
        if let Some(view) = self.view.lock().as_mut() {
            view.credentials = self.credentials.clone();
        }
    }

    fn change_users(&mut self, change: impl FnOnce(&mut Credentials) -> Result<()>) -> Result<usize> {
        let old = self.credentials.clone();
        let mut new = Credentials::clone(&old);
        change(&mut new)?;
        new.fsuid = new.euid;
        adjust_capabilities(&old, &mut new);
        if new.euid != old.euid || new.egid != old.egid {
            self.process.dumpable.store(0, Ordering::Relaxed);
        }
        self.set_credentials(new);
        Ok(0)
    }

    fn change_groups(&mut self, change: impl FnOnce(&mut Credentials) -> Result<()>) -> Result<usize> {
        let mut new = Credentials::clone(&self.credentials);
        change(&mut new)?;
        new.fsgid = new.egid;
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

/// setuid(2). `EPERM`: neither privileged nor the real or saved user. `EINVAL`: -1.
pub fn setuid(thread: &mut RunningThread, uid: u32) -> Result<usize> {
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    thread.change_users(|new| {
        if new.can(Capabilities::SETUID) {
            (new.uid, new.suid) = (uid, uid);
        } else if uid != new.uid && uid != new.suid {
            return Err(Errno::EPERM);
        }
        new.euid = uid;
        Ok(())
    })
}

/// setgid(2). `EPERM`, `EINVAL` as setuid(2).
pub fn setgid(thread: &mut RunningThread, gid: u32) -> Result<usize> {
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    thread.change_groups(|new| {
        if new.can(Capabilities::SETGID) {
            (new.gid, new.sgid) = (gid, gid);
        } else if gid != new.gid && gid != new.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = gid;
        Ok(())
    })
}

/// setreuid(2). `EPERM`: an id that is none of its own, without privilege.
pub fn setreuid(thread: &mut RunningThread, real: u32, effective: u32) -> Result<usize> {
    thread.change_users(|new| {
        let old = (new.uid, new.euid, new.suid);
        let may = new.can(Capabilities::SETUID);
        if real != KEEP {
            if !may && real != old.0 && real != old.1 {
                return Err(Errno::EPERM);
            }
            new.uid = real;
        }
        if effective != KEEP {
            if !may && effective != old.0 && effective != old.1 && effective != old.2 {
                return Err(Errno::EPERM);
            }
            new.euid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.0 {
            new.suid = new.euid;
        }
        Ok(())
    })
}

/// setregid(2). `EPERM` as setreuid(2).
pub fn setregid(thread: &mut RunningThread, real: u32, effective: u32) -> Result<usize> {
    thread.change_groups(|new| {
        let old = (new.gid, new.egid, new.sgid);
        let may = new.can(Capabilities::SETGID);
        if real != KEEP {
            if !may && real != old.0 && real != old.1 {
                return Err(Errno::EPERM);
            }
            new.gid = real;
        }
        if effective != KEEP {
            if !may && effective != old.0 && effective != old.1 && effective != old.2 {
                return Err(Errno::EPERM);
            }
            new.egid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.0 {
            new.sgid = new.egid;
        }
        Ok(())
    })
}

/// setresuid(2). `EPERM`: an id that is none of its own, without privilege.
pub fn setresuid(thread: &mut RunningThread, real: u32, effective: u32, saved: u32) -> Result<usize> {
    thread.change_users(|new| {
        let own = [new.uid, new.euid, new.suid];
        let may = new.can(Capabilities::SETUID);
        let allowed = |id: u32| id == KEEP || may || own.contains(&id);
        if ![real, effective, saved].into_iter().all(allowed) {
            return Err(Errno::EPERM);
        }
        let pick = |id: u32, old: u32| if id == KEEP { old } else { id };
        (new.uid, new.euid, new.suid) = (pick(real, own[0]), pick(effective, own[1]), pick(saved, own[2]));
        Ok(())
    })
}

/// setresgid(2). `EPERM` as setresuid(2).
pub fn setresgid(thread: &mut RunningThread, real: u32, effective: u32, saved: u32) -> Result<usize> {
    thread.change_groups(|new| {
        let own = [new.gid, new.egid, new.sgid];
        let may = new.can(Capabilities::SETGID);
        let allowed = |id: u32| id == KEEP || may || own.contains(&id);
        if ![real, effective, saved].into_iter().all(allowed) {
            return Err(Errno::EPERM);
        }
        let pick = |id: u32, old: u32| if id == KEEP { old } else { id };
        (new.gid, new.egid, new.sgid) = (pick(real, own[0]), pick(effective, own[1]), pick(saved, own[2]));
        Ok(())
    })
}

/// setfsuid(2): returns the old one, whether it changed or not.
pub fn setfsuid(thread: &mut RunningThread, uid: u32) -> Result<usize> {
    let mut new = Credentials::clone(&thread.credentials);
    let old = new.fsuid;
    if [new.uid, new.euid, new.suid, new.fsuid].contains(&uid) || new.can(Capabilities::SETUID) && uid != KEEP {
        new.fsuid = uid;
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

/// getresuid(2). `EFAULT`.
pub async fn getresuid(
    thread: &mut RunningThread,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<usize> {
    let credentials = thread.credentials.clone();
    thread.put(real, &credentials.uid).await?;
    thread.put(effective, &credentials.euid).await?;
    thread.put(saved, &credentials.suid).await?;
    Ok(0)
}

/// getresgid(2). `EFAULT`.
pub async fn getresgid(
    thread: &mut RunningThread,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<usize> {
    let credentials = thread.credentials.clone();
    thread.put(real, &credentials.gid).await?;
    thread.put(effective, &credentials.egid).await?;
    thread.put(saved, &credentials.sgid).await?;
    Ok(0)
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
    groups.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for index in 0..count {
        groups.push(thread.get(list.element(index)).await?);
    }
    let mut new = Credentials::clone(&thread.credentials);
    new.groups = groups.into();
    thread.set_credentials(new);
    Ok(0)
}

/// The versions of `struct __user_cap_header_struct` and how many words of data each has.
const CAPABILITY_VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];

async fn capability_header(thread: &mut RunningThread, header: UserPtr<[u32; 2]>) -> Result<(usize, i32, bool)> {
    let [version, pid] = thread.get(header).await?;
    match CAPABILITY_VERSIONS.iter().find(|(known, _)| *known == version) {
        Some((_, words)) => Ok((*words, pid as i32, true)),
        None => {
            thread.put(header, &[CAPABILITY_VERSIONS[2].0, pid]).await?;
            Ok((0, pid as i32, false))
        }
    }
}

/// capget(2). `EINVAL`: an unknown version (the preferred one is stored). `ESRCH`: no such process. `EFAULT`.
pub async fn capget(thread: &mut RunningThread, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (words, pid, is_known) = capability_header(thread, header).await?;
    if !is_known {
        return if data.is_null() { Ok(0) } else { Err(Errno::EINVAL) };
    }
    let credentials = if pid == 0 || pid == thread.tid() {
        thread.credentials.clone()
    } else {
        let other = table::thread(pid).ok_or(Errno::ESRCH)?;
        let view = other.view.lock();
        view.as_ref().map(|view| view.credentials.clone()).ok_or(Errno::ESRCH)?
    };
    let sets = [credentials.effective, credentials.permitted, credentials.inheritable].map(|set| set.bits());
    for word in 0..words {
        let part = sets.map(|set| (set >> (32 * word)) as u32);
        thread.put(data.element(word), &part).await?;
    }
    Ok(0)
}

/// capset(2). `EPERM`: more than is permitted, or another process. `EINVAL`, `EFAULT`.
pub async fn capset(thread: &mut RunningThread, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (words, pid, is_known) = capability_header(thread, header).await?;
    if !is_known {
        return Err(Errno::EINVAL);
    }
    if pid != 0 && pid != thread.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let part = thread.get(data.element(word)).await?;
        for (set, bits) in sets.iter_mut().zip(part) {
            *set |= u64::from(bits) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(Capabilities::from_bits_truncate);
    let mut new = Credentials::clone(&thread.credentials);
    let may_inherit = new.inheritable | new.permitted;
    let exceeds = !new.permitted.contains(permitted)
        || !permitted.contains(effective)
        || !new.can(Capabilities::SETPCAP) && !may_inherit.contains(inheritable);
    if exceeds {
        return Err(Errno::EPERM);
    }
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    thread.set_credentials(new);
    Ok(0)
}
