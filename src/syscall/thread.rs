//! What the C library arranges for each thread: thread-local storage, the address to clear at its end, robust futexes,
//! restartable sequences (`src/process/rseq.rs`); and what prctl(2) says of it.

use core::num::NonZeroU32;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, prctl as pr};

use crate::arch;
use crate::mm::user::UserPtr;
use crate::process::signal::Signal;
use crate::process::{RunningThread, rseq, table};

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
    let len = NonZeroU32::new(len).ok_or(Errno::EINVAL)?;
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
    if len.get() < RSEQ_SIZE || !address.is_multiple_of(32) {
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
        pr::PR_SET_NO_NEW_PRIVS if a == 1 && b == 0 && c == 0 && d == 0 => {
            thread.no_new_privileges.store(true, Ordering::Relaxed);
        }
        pr::PR_GET_NO_NEW_PRIVS => return Ok(usize::from(thread.no_new_privileges.load(Ordering::Relaxed))),
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

/// personality(2): returns the old one. `EINVAL`: an execution domain other than Linux's.
pub fn personality(thread: &mut RunningThread, persona: u32) -> Result<usize> {
    let old = thread.personality.load(Ordering::Relaxed);
    if persona != u32::MAX {
        if persona & 0xff != 0 {
            return Err(Errno::EINVAL);
        }
        thread.personality.store(persona, Ordering::Relaxed);
    }
    Ok(old as usize)
}
