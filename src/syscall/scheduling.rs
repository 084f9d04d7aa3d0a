//! Who runs how long and where: sched_*(2), setpriority(2), getcpu(2).

use abi::{Errno, Result, general};
use alloc::sync::Arc;
use alloc::vec::Vec;
use fs::permission::Capabilities;

use crate::arch;
use crate::mm::user::UserPtr;
use crate::process::scheduling::{Policy, Scheduling};
use crate::process::{RunningThread, Thread, table};

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

/// Whether the thread may change how another one is scheduled: its own user's, or with CAP_SYS_NICE.
fn may_change(thread: &RunningThread, target: &Thread) -> bool {
    let (own, uid) = (&thread.credentials, target.uid());
    uid == own.euid || uid == own.uid || own.can(Capabilities::SYS_NICE)
}

/// Whether the thread may lower a nice value to this: RLIMIT_NICE allows it, or CAP_SYS_NICE.
fn may_be_nice(thread: &RunningThread, nice: i8) -> bool {
    let limit = thread.process.limits.lock().soft(general::RLIMIT_NICE);
    (20 - i64::from(nice)) as u64 <= limit || thread.credentials.can(Capabilities::SYS_NICE)
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
    if !may_change(thread, &target) {
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

/// Sets how a thread is scheduled, if that makes sense and is allowed. `EINVAL`: a priority that the policy does not have. `EPERM`.
fn set(thread: &RunningThread, target: &Thread, wanted: Scheduling) -> Result<()> {
    let priorities = if wanted.policy.is_real_time() { 1..=99 } else { 0..=0 };
    if !priorities.contains(&wanted.priority) {
        return Err(Errno::EINVAL);
    }
    let present = target.scheduling.get();
    if !thread.credentials.can(Capabilities::SYS_NICE) {
        let is_nicer = !wanted.policy.is_real_time() && wanted.nice < present.nice && !may_be_nice(thread, wanted.nice);
        let limit = thread.process.limits.lock().soft(general::RLIMIT_RTPRIO);
        let is_more_urgent = wanted.policy.is_real_time()
            && (wanted.policy != present.policy && limit == 0
                || wanted.priority > present.priority && u64::from(wanted.priority) > limit);
        // Who was set back to SCHED_IDLE comes out of it only as far as it may be nice.
        let leaves_idle =
            present.policy == Policy::Idle && wanted.policy != Policy::Idle && !may_be_nice(thread, present.nice);
        let drops_reset = present.is_reset_on_fork && !wanted.is_reset_on_fork;
        if is_nicer || is_more_urgent || leaves_idle || drops_reset || !may_change(thread, target) {
            return Err(Errno::EPERM);
        }
    }
    apply(target, wanted);
    Ok(())
}

fn apply(target: &Thread, wanted: Scheduling) {
    target.scheduling.set(wanted);
    if let Some(task) = target.task() {
        task.set_class(wanted.class());
        // Wherever it runs or waits for its turn, it is queued again as what it is now.
        task.wake();
    }
}

/// sched_getscheduler(2). `ESRCH`, `EINVAL`.
pub fn sched_getscheduler(thread: &mut RunningThread, tid: i32) -> Result<usize> {
    let set = thread_or_self(thread, tid)?.scheduling.get();
    let flag = if set.is_reset_on_fork { general::SCHED_RESET_ON_FORK } else { 0 };
    Ok((set.policy.number() | flag) as usize)
}

/// sched_getparam(2). `ESRCH`, `EINVAL`, `EFAULT`.
pub async fn sched_getparam(thread: &mut RunningThread, tid: i32, parameter: UserPtr<i32>) -> Result<usize> {
    let priority = thread_or_self(thread, tid)?.scheduling.get().priority;
    thread.put(parameter, &i32::from(priority)).await?;
    Ok(0)
}

/// sched_setscheduler(2). `EINVAL`: there is no such policy, or it has no such priority. `EOPNOTSUPP`: SCHED_DEADLINE. `EPERM`: more than
/// RLIMIT_RTPRIO and RLIMIT_NICE allow without CAP_SYS_NICE. `ESRCH`, `EFAULT`.
pub async fn sched_setscheduler(
    thread: &mut RunningThread,
    tid: i32,
    policy: u32,
    parameter: UserPtr<i32>,
) -> Result<usize> {
    let target = thread_or_self(thread, tid)?;
    let priority = priority(thread.get(parameter).await?)?;
    let is_reset_on_fork = policy & general::SCHED_RESET_ON_FORK != 0;
    let policy = Policy::of_number(policy & !general::SCHED_RESET_ON_FORK)?;
    let nice = target.scheduling.get().nice;
    set(thread, &target, Scheduling { policy, nice, priority, is_reset_on_fork })?;
    Ok(0)
}

/// sched_setparam(2): as sched_setscheduler(2) without a change of policy.
pub async fn sched_setparam(thread: &mut RunningThread, tid: i32, parameter: UserPtr<i32>) -> Result<usize> {
    let target = thread_or_self(thread, tid)?;
    let priority = priority(thread.get(parameter).await?)?;
    set(thread, &target, Scheduling { priority, ..target.scheduling.get() })?;
    Ok(0)
}

fn priority(given: i32) -> Result<u8> {
    u8::try_from(given).map_err(|_| Errno::EINVAL)
}

/// Length of `struct sched_attr` as of Linux 3.14; what came later are hints that are not taken.
const ATTR_LEN: usize = 48;

/// sched_setattr(2). `EINVAL`: a flag or policy that there is not, or a priority that the policy does not have. `EOPNOTSUPP`:
/// SCHED_DEADLINE, and hints of utilisation. `E2BIG`: a structure of a size that is not known, with something in it. `EPERM`, `ESRCH`, `EFAULT`.
pub async fn sched_setattr(thread: &mut RunningThread, tid: i32, attr: UserPtr<u8>, flags: u32) -> Result<usize> {
    const TAKEN: u64 =
        (general::SCHED_FLAG_RESET_ON_FORK | general::SCHED_FLAG_KEEP_POLICY | general::SCHED_FLAG_KEEP_PARAMS) as u64;
    const REFUSED: u64 = general::SCHED_FLAG_UTIL_CLAMP as u64;
    if tid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size_field: UserPtr<u32> = UserPtr::new(attr.address());
    let size = match thread.get(size_field).await? as usize {
        0 => ATTR_LEN,
        size => size,
    };
    if !(ATTR_LEN..=fs::PAGE_SIZE).contains(&size) {
        thread.put(size_field, &(ATTR_LEN as u32)).await?;
        return Err(Errno::E2BIG);
    }
    for index in ATTR_LEN..size {
        if thread.get(attr.element(index)).await? != 0 {
            thread.put(size_field, &(ATTR_LEN as u32)).await?;
            return Err(Errno::E2BIG);
        }
    }
    // The structure's words: size and policy; flags; nice and priority; the deadline's three.
    let [first, flags, third, ..]: [u64; 6] = thread.get(UserPtr::new(attr.address())).await?;
    let (policy, nice, priority) = ((first >> 32) as u32, third as i32, (third >> 32) as u32);
    if flags & REFUSED != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & !TAKEN != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let target = thread_or_self(thread, tid)?;
    let present = target.scheduling.get();
    let mut wanted = Scheduling { is_reset_on_fork: has(general::SCHED_FLAG_RESET_ON_FORK), ..present };
    let policy = if has(general::SCHED_FLAG_KEEP_POLICY) { present.policy } else { Policy::of_number(policy)? };
    // As on Linux, the policy goes with the parameters.
    if !has(general::SCHED_FLAG_KEEP_PARAMS) {
        wanted.policy = policy;
        wanted.priority = u8::try_from(priority).map_err(|_| Errno::EINVAL)?;
        if !wanted.policy.is_real_time() {
            wanted.nice = bounded(nice);
        }
    }
    set(thread, &target, wanted)?;
    Ok(0)
}

/// sched_getattr(2). `EINVAL`: a flag, or room for less than the structure. `ESRCH`, `EFAULT`.
pub async fn sched_getattr(
    thread: &mut RunningThread,
    tid: i32,
    attr: UserPtr<[u64; 6]>,
    size: u32,
    flags: u32,
) -> Result<usize> {
    if tid < 0 || flags != 0 || !(ATTR_LEN..=fs::PAGE_SIZE).contains(&(size as usize)) {
        return Err(Errno::EINVAL);
    }
    let set = thread_or_self(thread, tid)?.scheduling.get();
    let flags = if set.is_reset_on_fork { general::SCHED_FLAG_RESET_ON_FORK } else { 0 };
    let nice = if set.policy.is_real_time() { 0 } else { i32::from(set.nice).cast_unsigned() };
    let first = ATTR_LEN as u64 | u64::from(set.policy.number()) << 32;
    let third = u64::from(nice) | u64::from(set.priority) << 32;
    thread.put(attr, &[first, flags.into(), third, 0, 0, 0]).await?;
    Ok(0)
}

/// sched_get_priority_max(2). `EINVAL`: no such policy.
pub fn sched_get_priority_max(_thread: &mut RunningThread, policy: u32) -> Result<usize> {
    match policy {
        general::SCHED_FIFO | general::SCHED_RR => Ok(99),
        general::SCHED_NORMAL | general::SCHED_BATCH | general::SCHED_IDLE | general::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2). `EINVAL`: no such policy.
pub fn sched_get_priority_min(thread: &mut RunningThread, policy: u32) -> Result<usize> {
    sched_get_priority_max(thread, policy).map(|most| most.min(1))
}

/// sched_rr_get_interval(2): how long it runs before another one has its turn; 0: it never gives way to its like. `ESRCH`, `EINVAL`, `EFAULT`.
pub async fn sched_rr_get_interval(thread: &mut RunningThread, tid: i32, result: UserPtr<[i64; 2]>) -> Result<usize> {
    let interval = match thread_or_self(thread, tid)?.scheduling.get().policy {
        Policy::Fifo => core::time::Duration::ZERO,
        Policy::RoundRobin => executor::REAL_TIME_TURN,
        Policy::Normal | Policy::Batch | Policy::Idle => executor::SLICE,
    };
    thread.put(result, &[interval.as_secs() as i64, interval.subsec_nanos().into()]).await?;
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

/// Whom getpriority(2) and setpriority(2) mean: a thread, or all threads of a process group or of a user. `ESRCH`: nobody. `EINVAL`.
fn meant(thread: &RunningThread, which: u32, who: i32) -> Result<Vec<Arc<Thread>>> {
    let found: Vec<Arc<Thread>> = match (which, who) {
        (general::PRIO_PROCESS, 0) => alloc::vec![thread.shared().clone()],
        (general::PRIO_PROCESS, tid) => table::thread(tid).into_iter().collect(),
        (general::PRIO_PGRP, group) => {
            let group = if group == 0 { thread.process.group() } else { group };
            let processes = table::with(|table| table.group(group));
            processes.iter().flat_map(|process| process.threads()).collect()
        }
        (general::PRIO_USER, who) => {
            let uid = if who == 0 { thread.credentials.uid } else { who as u32 };
            let processes: Vec<_> = table::with(|table| table.processes().cloned().collect());
            processes.iter().flat_map(|process| process.threads()).filter(|thread| thread.uid() == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// getpriority(2): 20 minus the lowest nice value, so that it is never negative. `EINVAL`, `ESRCH`.
pub fn getpriority(thread: &mut RunningThread, which: u32, who: i32) -> Result<usize> {
    let lowest = meant(thread, which, who)?.iter().map(|thread| thread.scheduling.get().nice).min();
    Ok((20 - lowest.unwrap_or(0)) as usize)
}

/// setpriority(2). `EINVAL`, `ESRCH`; `EACCES`: lower than RLIMIT_NICE allows without CAP_SYS_NICE; `EPERM`: another user's thread. Whom
/// it can, it changes; the last error is the answer.
pub fn setpriority(thread: &mut RunningThread, which: u32, who: i32, nice: i32) -> Result<usize> {
    let nice = bounded(nice);
    let mut outcome = Ok(0);
    for target in meant(thread, which, who)? {
        let present = target.scheduling.get();
        if !may_change(thread, &target) {
            outcome = Err(Errno::EPERM);
        } else if nice < present.nice && !may_be_nice(thread, nice) {
            outcome = Err(Errno::EACCES);
        } else {
            apply(&target, Scheduling { nice, ..present });
        }
    }
    outcome
}

/// A nice value within its bounds.
fn bounded(nice: i32) -> i8 {
    nice.clamp(-20, 19) as i8
}
