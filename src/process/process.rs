//! A process: what the threads of one thread group share.
//!
//! A process is born with its first thread and lives on as a zombie until its parent has waited for it. Who is whose child,
//! and which numbers are taken, is in `table.rs`; this file is what a single process knows of itself.
//!
//! Next: `table.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use abi::Result;
use executor::Instant;
use executor::sync::{SpinLock, WaitQueue};

use super::image::Image;
use super::limits::Limits;
use super::signal::{Action, Signal, SignalSet};
use super::signal_queue::SignalQueue;
use super::table::ThreadPermit;
use super::thread::Thread;
use super::timers::IntervalTimers;

/// How a process came to its end, or a thread to its exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// exit(2) with this code; only its low 8 bits are seen by the parent.
    Exited(i32),
    /// A signal ended it.
    Killed(Signal),
    /// A signal ended it that by default writes a core file. (None is written here.)
    Dumped(Signal),
}

impl ExitStatus {
    /// As wait(2) packs it.
    pub fn wait_status(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => (code & 0xff) << 8,
            ExitStatus::Killed(signal) | ExitStatus::Dumped(signal) => signal.number() as i32,
        }
    }

    /// `si_code` and `si_status` of SIGCHLD and waitid(2).
    pub fn child_code(self) -> (i32, i32) {
        match self {
            ExitStatus::Exited(code) => (abi::general::CLD_EXITED as i32, code & 0xff),
            ExitStatus::Killed(signal) => (abi::general::CLD_KILLED as i32, signal.number() as i32),
            ExitStatus::Dumped(signal) => (abi::general::CLD_DUMPED as i32, signal.number() as i32),
        }
    }
}

/// What a process does about each signal; shared by clone(2) with CLONE_SIGHAND.
pub struct SignalHandlers {
    /// A child's are its parent's until one of the two changes them.
    actions: SpinLock<Arc<[Action; Signal::COUNT]>>,
}

impl Default for SignalHandlers {
    fn default() -> SignalHandlers {
        SignalHandlers::new(Arc::new([Action::default(); Signal::COUNT]))
    }
}

impl SignalHandlers {
    fn new(actions: Arc<[Action; Signal::COUNT]>) -> SignalHandlers {
        SignalHandlers { actions: SpinLock::ordered(super::rank::HANDLERS, actions) }
    }

    /// Exchanges what is to be done, if that takes no memory; says whether.
    #[inline]
    fn exchange_own(&self, signal: Signal, action: &mut Action) -> bool {
        match Arc::get_mut(&mut self.actions.lock()) {
            Some(own) => {
                core::mem::swap(&mut own[signal.index()], action);
                true
            }
            None => false,
        }
    }

    /// What is to be done about a signal.
    pub fn get(&self, signal: Signal) -> Action {
        self.actions.lock()[signal.index()]
    }

    /// Says what is to be done from now on; returns what was.
    pub fn set(&self, signal: Signal, action: Action) -> Action {
        core::mem::replace(&mut Arc::make_mut(&mut self.actions.lock())[signal.index()], action)
    }

    /// A copy for a new process.
    pub fn copy(&self) -> SignalHandlers {
        SignalHandlers::new(self.actions.lock().clone())
    }

    /// A copy for a new program: what was ignored stays ignored, what had a handler gets the default.
    pub fn copy_for_exec(&self) -> SignalHandlers {
        let actions = self.actions.lock().map(|action| match action.handler {
            Action::IGNORE => Action { handler: Action::IGNORE, ..Action::default() },
            _ => Action::default(),
        });
        SignalHandlers::new(Arc::new(actions))
    }
}

/// The part of a process's state that signals change.
#[derive(Default)]
pub struct ProcessSignals {
    /// Sent to the process as a whole, and not yet taken by a thread.
    pub pending: SignalQueue,
    /// What the first thread gave to exit(2), if it ended alone.
    pub leader_exit_code: i32,
    /// Set once: all threads are to end, and this is why.
    pub group_exit: Option<ExitStatus>,
    /// A thread is past exec's point of no return and waits until it is the only one: no thread may begin, and no other may exec.
    pub is_executing: bool,
    /// Set while the process is stopped or about to be: the signal that did it.
    pub stopped_by: Option<Signal>,
    /// The parent has not yet been told that the process stopped (waitpid with WUNTRACED).
    pub stop_is_news: bool,
    /// The parent has not yet been told that the process went on (WCONTINUED).
    pub continue_is_news: bool,
}

/// CPU time used, in nanoseconds.
#[derive(Default)]
pub struct CpuTimes {
    /// In user mode.
    pub user: AtomicU64,
    /// In the kernel.
    pub system: AtomicU64,
}

impl CpuTimes {
    /// User and system time, in nanoseconds.
    pub fn read(&self) -> (u64, u64) {
        (self.user.load(Ordering::Relaxed), self.system.load(Ordering::Relaxed))
    }

    /// Adds the time of one that has ended.
    pub fn add(&self, (user, system): (u64, u64)) {
        self.user.fetch_add(user, Ordering::Relaxed);
        self.system.fetch_add(system, Ordering::Relaxed);
    }
}

/// What is still told of a process when its first thread has ended.
pub struct Remains {
    /// Its name.
    pub name: [u8; 16],
    /// Who it acted for.
    pub credentials: Arc<fs::Credentials>,
    /// Its place in the counts of threads: a zombie counts until it was waited for.
    pub permit: Option<ThreadPermit>,
}

/// A thread group.
pub struct Process {
    /// Its number, that of its first thread.
    pub pid: i32,
    /// Its parent's number; changed with the process table locked.
    pub parent: AtomicI32,
    /// Its process group; changed with the process table locked.
    pub group: AtomicI32,
    /// Its session; changed with the process table locked.
    pub session: AtomicI32,
    /// The signal that tells its parent of its end; 0 for none.
    pub exit_signal: AtomicU32,
    /// Its living threads; the first thread leads until it exits.
    pub threads: SpinLock<Vec<Arc<Thread>>>,
    /// Signals for the whole process, and what they brought about.
    pub signals: SpinLock<ProcessSignals>,
    /// What to do about signals.
    handlers: SpinLock<Arc<SignalHandlers>>,
    /// Woken when a child changes its state: wait4(2) waits here.
    pub child_events: WaitQueue,
    /// Woken when a thread has ended, and when a stopped process may go on or is to end.
    pub thread_events: WaitQueue,
    /// Woken once, when it has let go of the memory it borrowed by vfork(2).
    pub released_memory: WaitQueue,
    /// Whether it still runs on memory borrowed by vfork(2).
    pub borrows_memory: AtomicBool,
    /// How it ended; set when the last thread has.
    pub exit_status: SpinLock<Option<ExitStatus>>,
    /// What it executes.
    pub image: SpinLock<Arc<Image>>,
    /// What it may use.
    pub limits: SpinLock<Limits>,
    /// CPU time of threads that have ended, and of the living as they account for it.
    pub times: CpuTimes,
    /// CPU time of children that were waited for.
    pub children_times: CpuTimes,
    /// When it began.
    pub started: Instant,
    /// setitimer(2).
    pub timers: IntervalTimers,
    /// prctl(PR_SET_CHILD_SUBREAPER).
    pub is_subreaper: AtomicBool,
    /// prctl(PR_SET_DUMPABLE).
    pub dumpable: AtomicU32,
    /// prctl(PR_SET_PDEATHSIG): what it gets when its parent ends; 0 for nothing.
    pub parent_death_signal: AtomicU32,
    /// What /proc tells of it as a zombie.
    pub remains: SpinLock<Option<Remains>>,
    /// How ready the system is to end it when memory runs out, -1000 to 1000: /proc/PID/oom_score_adj.
    pub oom_score_adjustment: AtomicI32,
    /// It has called execve since it was forked: its parent may no longer move it to another group.
    pub has_executed: AtomicBool,
}

impl Process {
    /// A process without threads yet.
    pub fn new(
        pid: i32,
        parent: &Relations,
        handlers: Arc<SignalHandlers>,
        image: Arc<Image>,
        limits: Limits,
    ) -> Process {
        Process {
            pid,
            parent: AtomicI32::new(parent.pid),
            group: AtomicI32::new(parent.group),
            session: AtomicI32::new(parent.session),
            exit_signal: AtomicU32::new(Signal::SIGCHLD.number() as u32),
            threads: SpinLock::ordered(super::rank::THREADS, Vec::new()),
            signals: SpinLock::ordered(super::rank::PROCESS_SIGNALS, ProcessSignals::default()),
            handlers: SpinLock::ordered(super::rank::PROCESS_HANDLERS, handlers),
            child_events: WaitQueue::new(),
            thread_events: WaitQueue::new(),
            released_memory: WaitQueue::new(),
            borrows_memory: AtomicBool::new(false),
            exit_status: SpinLock::new(None),
            image: SpinLock::new(image),
            limits: SpinLock::new(limits),
            times: CpuTimes::default(),
            children_times: CpuTimes::default(),
            started: crate::arch::clock::now(),
            timers: IntervalTimers::default(),
            is_subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            parent_death_signal: AtomicU32::new(0),
            remains: SpinLock::new(None),
            oom_score_adjustment: AtomicI32::new(0),
            has_executed: AtomicBool::new(false),
        }
    }

    /// What it does about signals.
    pub fn handlers(&self) -> Arc<SignalHandlers> {
        self.handlers.lock().clone()
    }

    /// What it does about one signal.
    pub fn action(&self, signal: Signal) -> Action {
        self.handlers.lock().get(signal)
    }

    /// Exchanges what it does about one signal.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: what it does was shared with its parent until now, and there is no memory for a copy.
    #[inline]
    pub fn exchange_action(&self, signal: Signal, action: &mut Action) -> Result<()> {
        if self.handlers.lock().exchange_own(signal, action) { Ok(()) } else { self.exchange_shared(signal, action) }
    }

    /// The same where a copy has to be made first.
    #[cold]
    fn exchange_shared(&self, signal: Signal, action: &mut Action) -> Result<()> {
        crate::mm::try_admit()?;
        *action = self.handlers.lock().set(signal, *action);
        Ok(())
    }

    /// Gives it its own set of handlers, as exec does.
    pub fn set_handlers(&self, handlers: Arc<SignalHandlers>) {
        let old = core::mem::replace(&mut *self.handlers.lock(), handlers);
        drop(old);
    }

    /// Its process group now.
    pub fn group(&self) -> i32 {
        self.group.load(Ordering::Relaxed)
    }

    /// Its session now.
    pub fn session(&self) -> i32 {
        self.session.load(Ordering::Relaxed)
    }

    /// Its parent's number now.
    pub fn parent(&self) -> i32 {
        self.parent.load(Ordering::Relaxed)
    }

    /// Its living threads, as they are now.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().clone()
    }

    /// One living thread, the leader if it lives: for what is true of all.
    pub fn any_thread(&self) -> Option<Arc<Thread>> {
        self.threads.lock().first().cloned()
    }

    /// Whether all its threads have ended.
    pub fn is_zombie(&self) -> bool {
        self.exit_status.lock().is_some()
    }

    /// Signals that wait for the process as a whole.
    pub fn pending(&self) -> SignalSet {
        self.signals.lock().pending.set()
    }
}

/// Where a new process stands among the others.
#[derive(Clone, Copy, Debug)]
pub struct Relations {
    /// Its parent.
    pub pid: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
}
