//! Sending signals.
//!
//! A sender enters the signal in a queue, picks a thread that wants it, sets that thread's attention bit, and wakes its task:
//! always, without a look at what the thread seems to be doing. A thread that is about to wait registers first and looks at its
//! attention bits then, so one of the two sees the other.
//!
//! Next: `deliver.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};

use super::process::{ExitStatus, Process, ProcessSignals};
use super::signal::{Action, DefaultAction, Origin, Signal, SignalInfo, SignalSet};
use super::table;
use super::thread::{Thread, attention};

/// Sends a signal to a process as a whole: whichever thread wants it takes it.
///
/// # Errors
///
/// `EAGAIN`: a real-time signal, and too many wait already.
pub fn to_process(process: &Arc<Process>, info: SignalInfo) -> Result<()> {
    post(process, None, info).map(drop)
}

/// Sends a signal to one thread.
///
/// # Errors
///
/// `EAGAIN`: a real-time signal, and too many wait already.
pub fn to_thread(thread: &Arc<Thread>, info: SignalInfo) -> Result<()> {
    post(&thread.process, Some(thread), info).map(drop)
}

/// Sends a timer's signal. Says whether it waits to be delivered now: not if it is ignored, or there is no room.
pub fn by_timer(process: &Arc<Process>, directed: Option<&Arc<Thread>>, info: SignalInfo) -> bool {
    post(process, directed, info) == Ok(true)
}

/// Sends a signal to all processes of a group. Says whether there were any.
pub fn to_group(group: i32, info: SignalInfo) -> bool {
    let members = table::with(|table| table.group(group));
    for process in &members {
        // A process whose queue is full misses a real-time signal, as with kill(2) on a group, which reports success if any took it.
        let _ = to_process(process, info);
    }
    !members.is_empty()
}

/// Sends a signal that the thread itself has caused and must not miss: if it is blocked or ignored, the default action is
/// restored first, so that a program cannot fault for ever.
pub fn force(thread: &Arc<Thread>, info: SignalInfo) {
    let process = &thread.process;
    let mut signals = thread.signals.lock();
    let is_blocked = signals.blocked.contains(info.signal);
    if is_blocked {
        signals.blocked.remove(info.signal);
    }
    let handlers = process.handlers();
    let action = handlers.get(info.signal);
    if is_blocked || action.handler == Action::IGNORE {
        handlers.set(info.signal, Action { handler: Action::DEFAULT, ..action });
    }
    signals.pending.push(info);
    drop(signals);
    thread.alert(attention::SIGNAL);
}

/// Sends a thread a signal that its own call has caused (SIGPIPE, SIGXFSZ), as a signal like any other: ignored or blocked if the
/// program says so.
pub fn to_caller(thread: &Arc<Thread>, signal: Signal) {
    // Never a real-time signal, so there is always room.
    let _ = to_thread(thread, SignalInfo::kernel(signal));
}

/// Ends a process: all its threads, for this reason. The first reason stands.
pub fn end_group(process: &Process, status: ExitStatus) {
    let threads = process.threads.lock();
    process.signals.lock().group_exit.get_or_insert(status);
    for thread in threads.iter() {
        thread.alert(attention::END);
    }
}

/// Says whether the signal has an effect: it was not thrown away.
fn post(process: &Arc<Process>, directed: Option<&Arc<Thread>>, info: SignalInfo) -> Result<bool> {
    let signal = info.signal;
    let threads = process.threads.lock();
    let mut signals = process.signals.lock();
    if signals.group_exit.is_some() || threads.is_empty() {
        return Ok(false);
    }
    if signal == Signal::SIGKILL {
        signals.group_exit = Some(ExitStatus::Killed(signal));
        signals.stopped_by = None;
        for thread in threads.iter() {
            thread.alert(attention::END);
        }
        drop(signals);
        drop(threads);
        process.thread_events.wake_all();
        return Ok(true);
    }
    let has_continued = prepare_stop_and_continue(&mut signals, &threads, signal);
    let result = enqueue(process, &mut signals, &threads, directed, info);
    drop(signals);
    drop(threads);
    if has_continued {
        process.thread_events.wake_all();
        notify_parent(process, ChildNews::Continued);
    }
    result
}

/// A stop signal takes back a SIGCONT that waits, and the other way round; SIGCONT also lets a stopped process go on, even if
/// it is blocked or ignored. Says whether it did.
fn prepare_stop_and_continue(signals: &mut ProcessSignals, threads: &[Arc<Thread>], signal: Signal) -> bool {
    let discard = if signal == Signal::SIGCONT {
        SignalSet::STOPPING
    } else if SignalSet::STOPPING.contains(signal) {
        SignalSet::of(&[Signal::SIGCONT])
    } else {
        return false;
    };
    signals.pending.discard(discard);
    for thread in threads {
        thread.signals.lock().pending.discard(discard);
    }
    let was_stopped = signal == Signal::SIGCONT && signals.stopped_by.take().is_some();
    if was_stopped {
        signals.stop_is_news = false;
        signals.continue_is_news = true;
    }
    was_stopped
}

fn enqueue(
    process: &Process,
    signals: &mut ProcessSignals,
    threads: &[Arc<Thread>],
    directed: Option<&Arc<Thread>>,
    info: SignalInfo,
) -> Result<bool> {
    let signal = info.signal;
    let wants = |thread: &Arc<Thread>| !thread.signals.lock().blocked.contains(signal);
    let receiver = match directed {
        Some(thread) => Some(thread).filter(|thread| wants(thread)),
        None => threads.iter().find(|thread| wants(thread)),
    };
    // A blocked signal waits even if it is ignored: the program may take it with sigwait(3).
    let is_init = process.pid == 1 && process.action(signal).handler == Action::DEFAULT;
    if receiver.is_some() && (process.action(signal).ignores(signal) || is_init && is_fatal(signal)) {
        return Ok(false);
    }
    let had_room = match directed {
        Some(thread) => thread.signals.lock().pending.push(info),
        None => signals.pending.push(info),
    };
    if !had_room {
        return Err(Errno::EAGAIN);
    }
    match receiver {
        Some(thread) => thread.alert(attention::SIGNAL),
        // Nobody takes it now; but a sigtimedwait(2) may wait for it although it is blocked.
        None => match directed {
            Some(thread) => thread.wake(),
            None => threads.iter().for_each(|thread| thread.wake()),
        },
    }
    Ok(true)
}

/// Makes all threads look at the signals that wait for the process as a whole: the one that was chosen for them has ended or blocks them
/// now.
pub fn redirect(signals: &ProcessSignals, threads: &[Arc<Thread>]) {
    let waiting = signals.pending.set();
    if waiting.is_empty() {
        return;
    }
    for thread in threads {
        if !waiting.without(thread.signals.lock().blocked).is_empty() {
            thread.alert(attention::SIGNAL);
        }
    }
}

/// Init gets no signal for which it has no handler.
fn is_fatal(signal: Signal) -> bool {
    matches!(signal.default_action(), DefaultAction::Terminate | DefaultAction::Core | DefaultAction::Stop)
}

/// What a child has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildNews {
    /// It has ended.
    Ended(ExitStatus),
    /// A signal stopped it.
    Stopped(Signal),
    /// It goes on.
    Continued,
}

/// Tells a child's parent: by SIGCHLD, and by waking its wait4(2). Says whether the parent wants no zombie left.
pub fn notify_parent(child: &Arc<Process>, news: ChildNews) -> bool {
    let Some(parent) = table::process(child.parent()) else { return true };
    let action = parent.action(Signal::SIGCHLD);
    let (code, status) = match news {
        ChildNews::Ended(status) => status.child_code(),
        ChildNews::Stopped(signal) => (general::CLD_STOPPED as i32, signal.number() as i32),
        ChildNews::Continued => (general::CLD_CONTINUED as i32, Signal::SIGCONT.number() as i32),
    };
    let is_end = matches!(news, ChildNews::Ended(_));
    let signal = if is_end { child.exit_signal.load(Ordering::Relaxed) as usize } else { Signal::SIGCHLD.number() };
    let is_wanted = is_end || !action.has(general::SA_NOCLDSTOP);
    let leaves_no_zombie = is_end
        && signal == Signal::SIGCHLD.number()
        && (action.handler == Action::IGNORE || action.has(general::SA_NOCLDWAIT));
    if is_wanted
        && !(leaves_no_zombie && action.handler == Action::IGNORE)
        && let Ok(signal) = Signal::new(signal)
    {
        let (user, system) = child.times.read();
        let uid = child.any_thread().map(|thread| thread.uid()).unwrap_or_else(|| child.image.lock().owner);
        let ticks = |nanoseconds: u64| (nanoseconds / 10_000_000) as i64;
        let origin =
            Origin::Child { code, pid: child.pid, uid, status, user_time: ticks(user), system_time: ticks(system) };
        let _ = to_process(&parent, SignalInfo { signal, origin });
    }
    parent.child_events.wake_all();
    leaves_no_zombie
}

/// When a process leaves or changes its group, groups may become orphaned; those that have stopped members get SIGHUP and
/// SIGCONT, so that nobody is left stopped for ever (setpgid(2), POSIX `_exit`).
pub fn hang_up_if_orphaned_and_stopped(groups: &[i32]) {
    for group in groups {
        let members =
            table::with(|table| if table.is_orphaned(*group, None) { table.group(*group) } else { Vec::new() });
        if members.iter().any(|member| member.signals.lock().stopped_by.is_some()) {
            to_group(*group, SignalInfo::kernel(Signal::SIGHUP));
            to_group(*group, SignalInfo::kernel(Signal::SIGCONT));
        }
    }
}
