//! Limits and accounts: getrlimit, prlimit64, getrusage, times, sysinfo.

use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};

use crate::arch;
use crate::mm::user::UserPtr;
use crate::process::limits::Limit;
use crate::process::{RunningThread, table};

/// getrlimit(2). `EINVAL`: no such resource. `EFAULT`.
pub async fn getrlimit(thread: &mut RunningThread, resource: usize, result: UserPtr<[u64; 2]>) -> Result<usize> {
    let limit = thread.process.limits.lock().get(resource)?;
    thread.put(result, &[limit.soft, limit.hard]).await?;
    Ok(0)
}

/// setrlimit(2). `EINVAL`, `EPERM`, `EFAULT`.
pub async fn setrlimit(thread: &mut RunningThread, resource: usize, new: UserPtr<[u64; 2]>) -> Result<usize> {
    let [soft, hard] = thread.get(new).await?;
    let may = thread.credentials.can(fs::permission::Capabilities::SYS_RESOURCE);
    thread.process.limits.lock().set(resource, Limit { soft, hard }, may)?;
    Ok(0)
}

/// prlimit64(2). `EINVAL`: no such resource, or soft above hard. `EPERM`: raised without privilege, or another user's process.
/// `ESRCH`, `EFAULT`.
pub async fn prlimit64(
    thread: &mut RunningThread,
    pid: i32,
    resource: usize,
    new: UserPtr<[u64; 2]>,
    old: UserPtr<[u64; 2]>,
) -> Result<usize> {
    let process = match pid {
        0 => thread.process.clone(),
        pid => table::process(pid).ok_or(Errno::ESRCH)?,
    };
    let may = thread.credentials.can(fs::permission::Capabilities::SYS_RESOURCE);
    if process.pid != thread.process.pid && !may {
        let own = thread.credentials.uid;
        if process.any_thread().is_none_or(|other| other.uid() != own) {
            return Err(Errno::EPERM);
        }
    }
    let new = if new.is_null() { None } else { Some(thread.get(new).await?) };
    let before = {
        let mut limits = process.limits.lock();
        let before = limits.get(resource)?;
        if let Some([soft, hard]) = new {
            limits.set(resource, Limit { soft, hard }, may)?;
        }
        before
    };
    if !old.is_null() {
        thread.put(old, &[before.soft, before.hard]).await?;
    }
    Ok(0)
}

/// `struct rusage` with these times, user and system, in nanoseconds; what is not counted is 0.
pub fn usage_of((user, system): (u64, u64)) -> [i64; 18] {
    let mut usage = [0; 18];
    let split = |nanoseconds: u64| [(nanoseconds / 1_000_000_000) as i64, (nanoseconds % 1_000_000_000 / 1000) as i64];
    usage[..2].copy_from_slice(&split(user));
    usage[2..4].copy_from_slice(&split(system));
    usage
}

/// getrusage(2). `EINVAL`: unknown `who`. `EFAULT`.
pub async fn getrusage(thread: &mut RunningThread, who: i32, result: UserPtr<[i64; 18]>) -> Result<usize> {
    thread.account();
    let mut usage = match who {
        0 => usage_of(thread.process.times.read()),
        general::RUSAGE_CHILDREN => usage_of(thread.process.children_times.read()),
        1 => usage_of((thread.cpu_time.load(Ordering::Relaxed), 0)),
        _ => return Err(Errno::EINVAL),
    };
    if who != general::RUSAGE_CHILDREN {
        usage[4] = (thread.space.usage().peak_resident / 1024) as i64;
    }
    thread.put(result, &usage).await?;
    Ok(0)
}

/// Ticks of times(2) in a second.
const TICKS: u64 = 100;

/// times(2). `EFAULT`.
pub async fn times(thread: &mut RunningThread, result: UserPtr<[i64; 4]>) -> Result<usize> {
    thread.account();
    let ticks = |nanoseconds: u64| (nanoseconds / (1_000_000_000 / TICKS)) as i64;
    let (user, system) = thread.process.times.read();
    let (children_user, children_system) = thread.process.children_times.read();
    if !result.is_null() {
        thread.put(result, &[ticks(user), ticks(system), ticks(children_user), ticks(children_system)]).await?;
    }
    Ok(ticks(arch::clock::now().as_nanos()) as usize)
}

/// sysinfo(2). `EFAULT`.
pub async fn sysinfo(thread: &mut RunningThread, result: UserPtr<[u64; 14]>) -> Result<usize> {
    let memory = crate::memory_info::read();
    let loads = crate::load::averages().map(|load| load << 5); // from 11 to 16 binary places
    let processes = table::thread_count() as u64;
    let information = [
        arch::clock::now().as_nanos() / 1_000_000_000,
        loads[0],
        loads[1],
        loads[2],
        memory.total,
        memory.free,
        memory.shared,
        memory.buffers,
        0,
        0,
        processes & 0xffff,
        0,
        0,
        1, // the unit: bytes
    ];
    thread.put(result, &information).await?;
    Ok(0)
}
