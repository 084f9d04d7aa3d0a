//! Signals: actions, masks, waiting for them, sending them with information.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};
use executor::sync::WaitQueue;

use super::time;
use crate::mm::user::UserPtr;
use crate::process::deliver::AlternateStack;
use crate::process::signal::{Action, SIGNAL_INFO_SIZE, Signal, SignalInfo, SignalSet};
use crate::process::thread::attention;
use crate::process::wait_event::Interruptible;
use crate::process::{RunningThread, send, table};

/// Size of the kernel's `sigset_t` in bytes; the calls are told it to be sure.
const SET_SIZE: usize = 8;

fn check_set_size(size: usize) -> Result<()> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

/// rt_sigaction(2), if the memory it is about is there.
#[inline(always)] // called from one place, the table
pub fn rt_sigaction_now(
    thread: &mut RunningThread,
    number: usize,
    new: UserPtr<Action>,
    old: UserPtr<Action>,
    size: usize,
) -> Option<Result<usize>> {
    // Nothing may have changed when the call is left to `rt_sigaction` after all.
    if !old.is_null() && !new.is_null() {
        return None;
    }
    match new.non_null() {
        Some(new) => {
            let mut action = thread.try_get(new)?;
            Some(exchange_action(thread, number, &mut action, size).map(|()| 0))
        }
        None => match current_action(thread, number, size) {
            Ok(action) if !old.is_null() => thread.try_put(old, &action).then_some(Ok(0)),
            outcome => Some(outcome.map(|_| 0)),
        },
    }
}

/// rt_sigaction(2). `EINVAL`: no such signal, one that cannot be caught, or a wrong set size. `EFAULT`.
pub async fn rt_sigaction(
    thread: &mut RunningThread,
    number: usize,
    new: UserPtr<Action>,
    old: UserPtr<Action>,
    size: usize,
) -> Result<usize> {
    let before = match new.non_null() {
        Some(new) => {
            let mut action = thread.get(new).await?;
            exchange_action(thread, number, &mut action, size)?;
            action
        }
        None => current_action(thread, number, size)?,
    };
    if !old.is_null() {
        thread.put(old, &before).await?;
    }
    Ok(0)
}

fn current_action(thread: &RunningThread, number: usize, size: usize) -> Result<Action> {
    check_set_size(size)?;
    Signal::new(number).map(|signal| thread.process.action(signal))
}

/// Exchanges what is done about a signal.
#[inline(always)] // at the two places it is called from, of which one is rare
fn exchange_action(thread: &RunningThread, number: usize, action: &mut Action, size: usize) -> Result<()> {
    check_set_size(size)?;
    let signal = Signal::new(number)?;
    if SignalSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    action.correct_mask();
    let ignores = action.ignores(signal);
    thread.process.exchange_action(signal, action)?;
    if ignores {
        discard_waiting(thread, signal);
    }
    Ok(())
}

/// A signal that is ignored from now on does not wait any longer (POSIX, `sigaction`).
fn discard_waiting(thread: &RunningThread, signal: Signal) {
    let threads = thread.process.threads.lock();
    thread.process.signals.lock().pending.discard_one(signal);
    for other in threads.iter() {
        other.signals.lock().pending.discard_one(signal);
    }
}

/// rt_sigprocmask(2), if the memory it is about is there.
pub fn rt_sigprocmask_now(
    thread: &mut RunningThread,
    how: u32,
    new: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> Option<Result<usize>> {
    let set = match new.non_null() {
        Some(new) => Some(SignalSet(thread.try_get(new)?)),
        None => None,
    };
    let before = thread.blocked();
    match mask_after(before, how, set, size) {
        // Before the mask changes: if this cannot be done now, the call begins anew.
        Ok(_) if !old.is_null() && !thread.try_put(old, &before.0) => None,
        Ok(after) => {
            thread.set_blocked(after);
            Some(Ok(0))
        }
        Err(errno) => Some(Err(errno)),
    }
}

/// rt_sigprocmask(2). `EINVAL`: unknown `how`, wrong set size. `EFAULT`.
pub async fn rt_sigprocmask(
    thread: &mut RunningThread,
    how: u32,
    new: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    let set = match new.non_null() {
        Some(new) => Some(SignalSet(thread.get(new).await?)),
        None => None,
    };
    let before = thread.blocked();
    thread.set_blocked(mask_after(before, how, set, size)?);
    if !old.is_null() {
        thread.put(old, &before.0).await?;
    }
    Ok(0)
}

fn mask_after(before: SignalSet, how: u32, set: Option<SignalSet>, size: usize) -> Result<SignalSet> {
    check_set_size(size)?;
    let Some(set) = set else { return Ok(before) };
    match how {
        general::SIG_BLOCK => Ok(before.union(set)),
        general::SIG_UNBLOCK => Ok(before.without(set)),
        general::SIG_SETMASK => Ok(set),
        _ => Err(Errno::EINVAL),
    }
}

/// rt_sigpending(2). `EINVAL`, `EFAULT`.
pub async fn rt_sigpending(thread: &mut RunningThread, set: UserPtr<u64>, size: usize) -> Result<usize> {
    check_set_size(size)?;
    let (waiting, blocked) = {
        let own = thread.signals.lock();
        (own.pending.set(), own.blocked)
    };
    let waiting = waiting.union(thread.process.pending()).intersection(blocked);
    thread.put(set, &waiting.0).await?;
    Ok(0)
}

/// rt_sigreturn(2), if the frame is there.
pub fn rt_sigreturn_now(thread: &mut RunningThread) -> Option<Result<usize>> {
    thread.return_from_handler_now().map(Ok)
}

/// rt_sigreturn(2).
pub async fn rt_sigreturn(thread: &mut RunningThread) -> Result<usize> {
    // Rare, and large: not a part of every thread.
    Box::pin(thread.return_from_handler()).await
}

impl RunningThread {
    /// Blocks other signals for the rest of this call; what was blocked before comes back when it is over, or when the handler that
    /// interrupts it returns.
    pub fn replace_blocked_for_this_call(&mut self, mask: SignalSet) {
        let before = self.signals.lock().blocked;
        self.saved_mask.get_or_insert(before);
        self.attention.fetch_or(attention::AFTERMATH, Ordering::Relaxed);
        self.set_blocked(mask);
    }

    /// Whether a signal waits that is not blocked.
    pub fn has_signal(&self) -> bool {
        let own = self.signals.lock();
        let (waiting, blocked) = (own.pending.set(), own.blocked);
        drop(own);
        !waiting.union(self.process.pending()).without(blocked).is_empty()
    }

    /// Waits for a signal, and for nothing else.
    async fn wait_for_signal(&mut self) -> Result<usize> {
        let nothing = WaitQueue::new();
        // If somebody else has taken the signal, no handler runs, and the call is made again.
        let never = || None::<usize>;
        self.wait_event(&nothing, Interruptible::BySignals, None, never).await.map_err(|_| Errno::ERESTARTNOHAND)
    }
}

/// pause(2): always `EINTR` in the end.
pub async fn pause(thread: &mut RunningThread) -> Result<usize> {
    thread.wait_for_signal().await
}

/// rt_sigsuspend(2). `EINTR` in the end; `EINVAL`, `EFAULT`.
pub async fn rt_sigsuspend(thread: &mut RunningThread, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    check_set_size(size)?;
    let mask = SignalSet(thread.get(mask).await?);
    thread.replace_blocked_for_this_call(mask);
    thread.wait_for_signal().await
}

/// rt_sigtimedwait(2). `EAGAIN`: none came in time. `EINTR`: another signal was handled. `EINVAL`, `EFAULT`.
pub async fn rt_sigtimedwait(
    thread: &mut RunningThread,
    set: UserPtr<u64>,
    information: UserPtr<[u8; SIGNAL_INFO_SIZE]>,
    timeout: UserPtr<[i64; 2]>,
    size: usize,
) -> Result<usize> {
    check_set_size(size)?;
    let wanted = SignalSet(thread.get(set).await?).without(SignalSet::UNBLOCKABLE);
    let deadline =
        if timeout.is_null() { None } else { Some(time::after(time::duration(thread.get(timeout).await?)?)) };
    let shared = thread.shared().clone();
    let take = || {
        let mut process = shared.process.signals.lock();
        shared.signals.lock().pending.take(wanted).or_else(|| process.pending.take(wanted))
    };
    // The senders of blocked signals wake every thread of the process, so no queue of its own is needed.
    let nothing = WaitQueue::new();
    let mut info = match thread.wait_event(&nothing, Interruptible::BySignals, deadline, take).await {
        Ok(info) => info,
        Err(Errno::ETIMEDOUT) => return Err(Errno::EAGAIN),
        Err(_) => return Err(Errno::EINTR),
    };
    thread.process.timers.delivered(&mut info);
    if !information.is_null() {
        thread.put(information, &info.to_bytes()).await?;
    }
    Ok(info.signal.number())
}

async fn queued(
    thread: &mut RunningThread,
    number: usize,
    information: UserPtr<[u8; SIGNAL_INFO_SIZE]>,
) -> Result<SignalInfo> {
    let signal = Signal::new(number)?;
    let info = SignalInfo::queued(signal, &thread.get(information).await?);
    // Only the kernel may say that a signal comes from the kernel or from kill(2).
    Ok(info)
}

/// rt_sigqueueinfo(2). `EPERM`: information that only the kernel gives, for another process. `ESRCH`, `EINVAL`, `EAGAIN`, `EFAULT`.
pub async fn rt_sigqueueinfo(
    thread: &mut RunningThread,
    pid: i32,
    number: usize,
    information: UserPtr<[u8; SIGNAL_INFO_SIZE]>,
) -> Result<usize> {
    let info = queued(thread, number, information).await?;
    let target = table::process(pid).ok_or(Errno::ESRCH)?;
    let pretends = info.code() >= 0 || info.code() == general::SI_TKILL;
    if pretends && pid != thread.process.pid || !thread.may_signal(&target, Some(info.signal)) {
        return Err(Errno::EPERM);
    }
    send::to_process(&target, info).map(|()| 0)
}

/// rt_tgsigqueueinfo(2). As rt_sigqueueinfo(2).
pub async fn rt_tgsigqueueinfo(
    thread: &mut RunningThread,
    pid: i32,
    tid: i32,
    number: usize,
    information: UserPtr<[u8; SIGNAL_INFO_SIZE]>,
) -> Result<usize> {
    let info = queued(thread, number, information).await?;
    let target = table::thread(tid).filter(|target| target.process.pid == pid).ok_or(Errno::ESRCH)?;
    let pretends = info.code() >= 0 || info.code() == general::SI_TKILL;
    if pretends && pid != thread.process.pid || !thread.may_signal(&target.process, Some(info.signal)) {
        return Err(Errno::EPERM);
    }
    send::to_thread(&target, info).map(|()| 0)
}

/// The smallest alternative stack: MINSIGSTKSZ.
const SMALLEST_STACK: u64 = 2048;

/// sigaltstack(2). `EPERM`: it runs on it now. `ENOMEM`: too small. `EINVAL`: unknown flags. `EFAULT`.
pub async fn sigaltstack(thread: &mut RunningThread, new: UserPtr<[u64; 3]>, old: UserPtr<[u64; 3]>) -> Result<usize> {
    let before = thread.alternate_stack;
    let is_on_it = before.flags & general::SS_DISABLE == 0 && before.contains(thread.context.rsp as usize);
    if !new.is_null() {
        let [base, flags, size] = thread.get(new).await?;
        let flags = flags as u32;
        if is_on_it {
            return Err(Errno::EPERM);
        }
        let mode = flags & !general::SS_AUTODISARM;
        thread.alternate_stack = match mode {
            general::SS_DISABLE => AlternateStack { flags, ..AlternateStack::NONE },
            0 | general::SS_ONSTACK if size < SMALLEST_STACK => return Err(Errno::ENOMEM),
            0 | general::SS_ONSTACK => {
                AlternateStack { base: base as usize, size: size as usize, flags: flags & general::SS_AUTODISARM }
            }
            _ => return Err(Errno::EINVAL),
        };
    }
    if !old.is_null() {
        let flags = if is_on_it { general::SS_ONSTACK } else { before.flags };
        thread.put(old, &[before.base as u64, u64::from(flags), before.size as u64]).await?;
    }
    Ok(0)
}
