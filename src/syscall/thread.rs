//! What the C library arranges for each thread: thread-local storage, the address to clear at its end, robust futexes,
//! restartable sequences (`src/process/rseq.rs`); and what prctl(2) and sched_*(2) say of it.

use core::sync::atomic::Ordering;

use abi::{Errno, Result, general, prctl as pr};
use executor::Class;

use crate::arch;
use crate::mm::user::UserPtr;
use crate::process::signal::Signal;
use crate::process::{Process, RunningThread, Thread, rseq, table};
use alloc::sync::Arc;

/// set_tid_address(2).
pub fn set_tid_address(thread: &mut RunningThread, address: usize) -> Result<usize> {
    thread.clear_child_tid.store(address, Ordering::Relaxed);
    Ok(thread.tid() as usize)
}

/// Size of `struct robust_list_head`.
const ROBUST_LIST_HEAD: usize = 24;

/// set_robust_list(2). `EINVAL`: a wrong size.
pub fn set_robust_list(thread: &mut RunningThread, head: usize, len: usize) -> Result<usize> {
    if len != ROBUST_LIST_HEAD {
        return Err(Errno::EINVAL);
    }
    thread.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

/// get_robust_list(2). `ESRCH`, `EPERM`: another user's thread. `EFAULT`.
pub async fn get_robust_list(
    thread: &mut RunningThread,
    tid: i32,
    head: UserPtr<u64>,
    len: UserPtr<u64>,
) -> Result<usize> {
    let target = if tid == 0 { thread.shared().clone() } else { table::thread(tid).ok_or(Errno::ESRCH)? };
    if target.uid() != thread.credentials.euid && !thread.credentials.can(fs::permission::Capabilities::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let value = target.robust_list.load(Ordering::Relaxed) as u64;
    thread.put(len, &(ROBUST_LIST_HEAD as u64)).await?;
    thread.put(head, &value).await?;
    Ok(0)
}

/// Codes of arch_prctl(2), from `asm/prctl.h`.
const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;

/// arch_prctl(2). `EINVAL`: unknown code. `EPERM`: an address outside user space. `EFAULT`.
pub async fn arch_prctl(thread: &mut RunningThread, code: u32, address: usize) -> Result<usize> {
    let is_user = address < arch::user_context::USER_END as usize;
    match code {
        ARCH_SET_FS | ARCH_SET_GS if !is_user => return Err(Errno::EPERM),
        ARCH_SET_FS => thread.context.fs_base = address as u64,
        ARCH_SET_GS => thread.context.gs_base = address as u64,
        ARCH_GET_FS => thread.put(UserPtr::new(address), &thread.context.fs_base.clone()).await?,
        ARCH_GET_GS => thread.put(UserPtr::new(address), &thread.context.gs_base.clone()).await?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// The least that `struct rseq` has.
const RSEQ_SIZE: u32 = 32;

/// The one flag of rseq(2).
const RSEQ_UNREGISTER: u32 = 1;

/// rseq(2). `EINVAL`: a wrong size, alignment or flag, or not the area that was registered. `EBUSY`: registered already. `EPERM`: a
/// wrong signature. `EFAULT`.
pub async fn rseq(thread: &mut RunningThread, address: usize, len: u32, flags: u32, signature: u32) -> Result<usize> {
    let area = rseq::Area { address, len, signature };
    if flags & RSEQ_UNREGISTER != 0 {
        return match thread.rseq {
            Some(registered) if registered == area && flags == RSEQ_UNREGISTER => {
                thread.forget_rseq();
                thread.put(UserPtr::new(address), &[0, u32::MAX]).await?;
                Ok(0)
            }
            Some(registered) if registered.address == address && registered.len == len => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        };
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(registered) = thread.rseq {
        return Err(match registered {
            same if same == area => Errno::EBUSY,
            other if other.address == address && other.len == len => Errno::EPERM,
            _ => Errno::EINVAL,
        });
    }
    if len < RSEQ_SIZE || !address.is_multiple_of(32) {
        return Err(Errno::EINVAL);
    }
    thread.rseq = Some(area);
    let told = thread.tell_rseq().await;
    if told.is_err() {
        thread.forget_rseq();
    }
    told.map(|()| 0)
}

/// prctl(2). `EINVAL`: an option that there is not, or a wrong argument. `EFAULT`, `EPERM`.
pub async fn prctl(thread: &mut RunningThread, option: u32, a: usize, b: usize, c: usize, d: usize) -> Result<usize> {
    let process = thread.process.clone();
    match option {
        pr::PR_SET_NAME => {
            let mut name: [u8; 16] = thread.get_name(a).await?;
            name[15] = 0;
            *thread.name.lock() = name;
        }
        pr::PR_GET_NAME => {
            let name = *thread.name.lock();
            thread.put(UserPtr::new(a), &name).await?;
        }
        pr::PR_SET_PDEATHSIG => {
            if a != 0 {
                Signal::new(a)?;
            }
            process.parent_death_signal.store(a as u32, Ordering::Relaxed);
        }
        pr::PR_GET_PDEATHSIG => {
            let signal = process.parent_death_signal.load(Ordering::Relaxed) as i32;
            thread.put(UserPtr::new(a), &signal).await?;
        }
        pr::PR_GET_DUMPABLE => return Ok(process.dumpable.load(Ordering::Relaxed) as usize),
        pr::PR_SET_DUMPABLE if a <= 1 => process.dumpable.store(a as u32, Ordering::Relaxed),
        pr::PR_SET_CHILD_SUBREAPER => process.is_subreaper.store(a != 0, Ordering::Relaxed),
        pr::PR_GET_CHILD_SUBREAPER => {
            let is_subreaper = i32::from(process.is_subreaper.load(Ordering::Relaxed));
            thread.put(UserPtr::new(a), &is_subreaper).await?;
        }
        pr::PR_SET_NO_NEW_PRIVS if a == 1 && b == 0 && c == 0 && d == 0 => thread.no_new_privileges = true,
        pr::PR_GET_NO_NEW_PRIVS => return Ok(usize::from(thread.no_new_privileges)),
        pr::PR_CAPBSET_READ => {
            let capability = 1u64.checked_shl(a as u32).filter(|_| a < 41).ok_or(Errno::EINVAL)?;
            return Ok(usize::from(thread.credentials.bounding.bits() & capability != 0));
        }
        pr::PR_GET_KEEPCAPS | pr::PR_GET_SECCOMP => return Ok(0),
        pr::PR_GET_TIMERSLACK => return Ok(50_000),
        pr::PR_SET_TIMERSLACK => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// sched_yield(2).
pub async fn sched_yield(_thread: &mut RunningThread) -> Result<usize> {
    executor::yield_now().await;
    Ok(0)
}

fn thread_or_self(thread: &RunningThread, tid: i32) -> Result<Arc<Thread>> {
    match tid {
        0 => Ok(thread.shared().clone()),
        tid if tid < 0 => Err(Errno::EINVAL),
        tid => table::thread(tid).ok_or(Errno::ESRCH),
    }
}

/// sched_getaffinity(2). `EINVAL`: room for too few CPUs. `ESRCH`, `EFAULT`.
pub async fn sched_getaffinity(thread: &mut RunningThread, tid: i32, size: usize, mask: UserPtr<u64>) -> Result<usize> {
    let target = thread_or_self(thread, tid)?;
    if size * 8 < crate::tasks::cpu_count() || !size.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let allowed = target.task().map_or(u64::MAX, |task| task.affinity());
    thread.put(mask, &(allowed & crate::tasks::all_cpus())).await?;
    Ok(8)
}

/// sched_setaffinity(2). `EINVAL`: a mask without a CPU that runs. `EPERM`: another user's thread. `ESRCH`, `EFAULT`.
pub async fn sched_setaffinity(thread: &mut RunningThread, tid: i32, size: usize, mask: UserPtr<u8>) -> Result<usize> {
    let target = thread_or_self(thread, tid)?;
    let mut bytes = [0; 8];
    for (index, byte) in bytes.iter_mut().enumerate().take(size) {
        *byte = thread.get(mask.element(index)).await?;
    }
    let (wanted, all) = (u64::from_le_bytes(bytes), crate::tasks::all_cpus());
    let own = &thread.credentials;
    let uid = target.uid();
    if uid != own.euid && uid != own.uid && !own.can(fs::permission::Capabilities::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if wanted & all == 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(task) = target.task() {
        task.set_affinity(if wanted & all == all { u64::MAX } else { wanted & all });
        // It looks around, and is queued where it may run.
        task.wake();
    }
    if Arc::ptr_eq(&target, thread.shared()) {
        executor::yield_now().await;
    }
    Ok(0)
}

/// sched_getscheduler(2): SCHED_OTHER. `ESRCH`, `EINVAL`.
pub fn sched_getscheduler(thread: &mut RunningThread, tid: i32) -> Result<usize> {
    thread_or_self(thread, tid).map(|_| general::SCHED_NORMAL as usize)
}

/// sched_getparam(2): priority 0. `ESRCH`, `EINVAL`, `EFAULT`.
pub async fn sched_getparam(thread: &mut RunningThread, tid: i32, parameter: UserPtr<i32>) -> Result<usize> {
    thread_or_self(thread, tid)?;
    thread.put(parameter, &0).await?;
    Ok(0)
}

/// sched_setscheduler(2) and sched_setparam(2): only the fair class. `EINVAL`: a priority that it does not have. `EPERM`: a
/// real-time class. `ESRCH`, `EFAULT`.
pub async fn sched_setscheduler(
    thread: &mut RunningThread,
    tid: i32,
    policy: u32,
    parameter: UserPtr<i32>,
) -> Result<usize> {
    thread_or_self(thread, tid)?;
    let priority = thread.get(parameter).await?;
    match policy & !general::SCHED_RESET_ON_FORK {
        general::SCHED_NORMAL | general::SCHED_BATCH | general::SCHED_IDLE if priority == 0 => Ok(0),
        general::SCHED_FIFO | general::SCHED_RR if (1..=99).contains(&priority) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_setparam(2). As sched_setscheduler(2) without a change of class.
pub async fn sched_setparam(thread: &mut RunningThread, tid: i32, parameter: UserPtr<i32>) -> Result<usize> {
    sched_setscheduler(thread, tid, general::SCHED_NORMAL, parameter).await
}

/// sched_get_priority_max(2). `EINVAL`: no such class.
pub fn sched_get_priority_max(_thread: &mut RunningThread, policy: u32) -> Result<usize> {
    match policy {
        general::SCHED_FIFO | general::SCHED_RR => Ok(99),
        general::SCHED_NORMAL | general::SCHED_BATCH | general::SCHED_IDLE | general::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2). `EINVAL`: no such class.
pub fn sched_get_priority_min(thread: &mut RunningThread, policy: u32) -> Result<usize> {
    sched_get_priority_max(thread, policy).map(|most| most.min(1))
}

/// sched_rr_get_interval(2). `ESRCH`, `EINVAL`, `EFAULT`.
pub async fn sched_rr_get_interval(thread: &mut RunningThread, tid: i32, result: UserPtr<[i64; 2]>) -> Result<usize> {
    thread_or_self(thread, tid)?;
    thread.put(result, &[0, 4_000_000]).await?;
    Ok(0)
}

/// getcpu(2). `EFAULT`.
pub async fn getcpu(thread: &mut RunningThread, cpu: UserPtr<u32>, node: UserPtr<u32>, _cache: usize) -> Result<usize> {
    if !cpu.is_null() {
        thread.put(cpu, &(arch::cpu_id() as u32)).await?;
    }
    if !node.is_null() {
        thread.put(node, &0).await?;
    }
    Ok(0)
}

/// Whom getpriority(2) and setpriority(2) mean.
fn processes(thread: &RunningThread, which: u32, who: i32) -> Result<alloc::vec::Vec<Arc<Process>>> {
    let found: alloc::vec::Vec<_> = table::with(|table| match (which, who) {
        (general::PRIO_PROCESS, 0) => alloc::vec![thread.process.clone()],
        (general::PRIO_PROCESS, pid) => table.process(pid).into_iter().collect(),
        (general::PRIO_PGRP, 0) => table.group(thread.process.group()),
        (general::PRIO_PGRP, group) => table.group(group),
        (general::PRIO_USER, who) => {
            let uid = if who == 0 { thread.credentials.uid } else { who as u32 };
            let is_theirs = |process: &&Arc<Process>| process.any_thread().is_some_and(|thread| thread.uid() == uid);
            table.processes().filter(is_theirs).cloned().collect()
        }
        _ => alloc::vec::Vec::new(),
    });
    match which {
        general::PRIO_PROCESS | general::PRIO_PGRP | general::PRIO_USER if found.is_empty() => Err(Errno::ESRCH),
        general::PRIO_PROCESS | general::PRIO_PGRP | general::PRIO_USER => Ok(found),
        _ => Err(Errno::EINVAL),
    }
}

/// getpriority(2): 20 minus the lowest nice value, so that it is never negative. `EINVAL`, `ESRCH`.
pub fn getpriority(thread: &mut RunningThread, which: u32, who: i32) -> Result<usize> {
    let lowest = processes(thread, which, who)?.iter().map(|process| process.nice.load(Ordering::Relaxed)).min();
    Ok((20 - lowest.unwrap_or(0)) as usize)
}

/// setpriority(2). `EINVAL`, `ESRCH`; `EACCES`: a higher priority without CAP_SYS_NICE; `EPERM`: another user's process.
pub fn setpriority(thread: &mut RunningThread, which: u32, who: i32, nice: i32) -> Result<usize> {
    let nice = nice.clamp(-20, 19);
    let may = thread.credentials.can(fs::permission::Capabilities::SYS_NICE);
    for process in processes(thread, which, who)? {
        let is_own = process.any_thread().is_none_or(|other| {
            let uid = other.uid();
            uid == thread.credentials.euid || uid == thread.credentials.uid
        });
        if !is_own && !may {
            return Err(Errno::EPERM);
        }
        if nice < process.nice.load(Ordering::Relaxed) && !may {
            return Err(Errno::EACCES);
        }
        process.nice.store(nice, Ordering::Relaxed);
        for member in process.threads() {
            if let Some(task) = member.task() {
                task.set_class(class(nice));
            }
        }
    }
    Ok(0)
}

/// The share of CPU time that goes with a nice value: each step is a factor of about 1.25 (sched(7)).
pub fn weight(nice: i32) -> u32 {
    // 16 binary places, so that twenty divisions lose nothing that matters.
    let steps = 0..nice.unsigned_abs();
    let scaled = steps.fold(1024u64 << 16, |weight, _| if nice > 0 { weight * 4 / 5 } else { weight * 5 / 4 });
    (scaled >> 16) as u32
}

/// The class of a user thread with this nice value.
pub fn class(nice: i32) -> Class {
    Class::User { weight: weight(nice) }
}

/// personality(2): returns the old one. `EINVAL`: an execution domain other than Linux's.
pub fn personality(thread: &mut RunningThread, persona: u32) -> Result<usize> {
    let old = thread.personality;
    if persona != u32::MAX {
        if persona & 0xff != 0 {
            return Err(Errno::EINVAL);
        }
        thread.personality = persona;
    }
    Ok(old as usize)
}
