//! Waiting for children: wait4(2) and waitid(2).
//!
//! Next: `clone.rs`.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};

use super::process::{ExitStatus, Process};
use super::signal::Signal;
use super::table::{self, ProcessTable};
use super::thread::RunningThread;
use super::wait_event::Interruptible;

/// Which children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// All.
    Any,
    /// The one of this number.
    Pid(i32),
    /// Those of this process group.
    Group(i32),
}

/// What happened to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It has ended.
    Ended(ExitStatus),
    /// It was stopped.
    Stopped(Signal),
    /// It was let go on.
    Continued,
}

/// A child with news.
pub struct Report {
    /// The child's number.
    pub pid: i32,
    /// The child's real user.
    pub uid: u32,
    /// What happened.
    pub news: News,
    /// Its CPU time, user and system, with that of the children it waited for, in nanoseconds.
    pub times: (u64, u64),
}

impl RunningThread {
    /// Waits for news of a child. `options` are `WNOHANG`, `WEXITED`, `WSTOPPED`, `WCONTINUED`, `WNOWAIT`, `__WALL`, `__WCLONE`.
    /// `None`: with `WNOHANG`, there are no news.
    ///
    /// # Errors
    ///
    /// `ECHILD`: there are no such children. `ERESTARTSYS`: interrupted.
    pub async fn wait_for_child(&self, which: Which, options: u32) -> Result<Option<Report>> {
        let process = self.process.clone();
        let attempt = || match table::with(|table| look(table, &process, which, options)) {
            Ok(Some(report)) => Some(Ok(Some(report))),
            Ok(None) if options & general::WNOHANG != 0 => Some(Ok(None)),
            Ok(None) => None,
            Err(errno) => Some(Err(errno)),
        };
        self.wait_event(&process.child_events, Interruptible::BySignals, None, attempt).await?
    }
}

fn look(table: &mut ProcessTable, parent: &Process, which: Which, options: u32) -> Result<Option<Report>> {
    let mut has_any = false;
    let mut found = None;
    for child in table.children(parent.pid) {
        if !is_meant(child, which, options) {
            continue;
        }
        has_any = true;
        if let Some(news) = news_of(child, options) {
            found = Some((child.clone(), news));
            break;
        }
    }
    let Some((child, news)) = found else { return if has_any { Ok(None) } else { Err(Errno::ECHILD) } };
    let own = child.times.read();
    let of_children = child.children_times.read();
    let times = (own.0 + of_children.0, own.1 + of_children.1);
    let uid = child.image.lock().owner;
    if options & general::WNOWAIT == 0 && matches!(news, News::Ended(_)) {
        parent.children_times.add(times);
        table.remove_process(child.pid);
    }
    Ok(Some(Report { pid: child.pid, uid, news, times }))
}

fn is_meant(child: &Process, which: Which, options: u32) -> bool {
    let is_clone = child.exit_signal.load(Ordering::Relaxed) as usize != Signal::SIGCHLD.number();
    let kind_fits = options & general::__WALL != 0 || is_clone == (options & general::__WCLONE != 0);
    kind_fits
        && match which {
            Which::Any => true,
            Which::Pid(pid) => child.pid == pid,
            Which::Group(group) => child.group() == group,
        }
}

fn news_of(child: &Arc<Process>, options: u32) -> Option<News> {
    if let Some(status) = *child.exit_status.lock() {
        return (options & general::WEXITED != 0).then_some(News::Ended(status));
    }
    let keep = options & general::WNOWAIT != 0;
    let mut signals = child.signals.lock();
    if options & general::WSTOPPED != 0
        && signals.stop_is_news
        && let Some(signal) = signals.stopped_by
    {
        signals.stop_is_news = keep;
        return Some(News::Stopped(signal));
    }
    if options & general::WCONTINUED != 0 && signals.continue_is_news {
        signals.continue_is_news = keep;
        return Some(News::Continued);
    }
    None
}

impl News {
    /// As wait(2) packs it into an `int`.
    pub fn wait_status(self) -> i32 {
        match self {
            News::Ended(status) => status.wait_status(),
            News::Stopped(signal) => (signal.number() as i32) << 8 | 0x7f,
            News::Continued => 0xffff,
        }
    }

    /// `si_code` and `si_status`.
    pub fn child_code(self) -> (i32, i32) {
        match self {
            News::Ended(status) => status.child_code(),
            News::Stopped(signal) => (general::CLD_STOPPED as i32, signal.number() as i32),
            News::Continued => (general::CLD_CONTINUED as i32, Signal::SIGCONT.number() as i32),
        }
    }
}
