//! Making threads and processes: fork(2), vfork(2), clone(2), clone3(2), and the kernel's own first process.
//!
//! In order: the permit (so that no limit is overrun by a race), everything that may fail, and only then what others can see.
//! Up to that line a failure drops what was made, and nothing is left behind.
//!
//! Next: `exec.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};
use fs::permission::Capabilities;

use super::deliver::AlternateStack;
use super::process::{Process, Relations};
use super::signal::Signal;
use super::table::{self, ThreadPermit};
use super::thread::{self, OnCpu, RunningThread, Thread, View};
use super::wait_event::Interruptible;
use crate::ipc::undo::UndoList;
use crate::mm::MakeRoom;

/// A flag of clone3(2) that does not fit 32 bits: the child has no signal handlers.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// What clone3(2) is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequest {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where to store the pidfd, with CLONE_PIDFD.
    pub pidfd: usize,
    /// Where the child clears and stores its number (CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID).
    pub child_tid: usize,
    /// Where the parent stores the child's number (CLONE_PARENT_SETTID).
    pub parent_tid: usize,
    /// What the parent gets when the child ends; 0 for nothing.
    pub exit_signal: u64,
    /// The child's stack pointer; 0 for the parent's.
    pub stack_pointer: usize,
    /// The child's FS base, with CLONE_SETTLS.
    pub thread_local: usize,
}

impl CloneRequest {
    fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// Refuses what does not go together (clone(2), "ERRORS") and what there is not.
    fn check(&self) -> Result<()> {
        let namespaces = general::CLONE_NEWNS
            | general::CLONE_NEWCGROUP
            | general::CLONE_NEWUTS
            | general::CLONE_NEWIPC
            | general::CLONE_NEWUSER
            | general::CLONE_NEWPID
            | general::CLONE_NEWNET;
        let needs = |flag, other| self.has(flag) && !self.has(other);
        let is_contradictory = needs(general::CLONE_THREAD, general::CLONE_SIGHAND)
            || needs(general::CLONE_SIGHAND, general::CLONE_VM)
            || self.has(namespaces)
            || self.has(general::CLONE_PIDFD)
            || self.exit_signal != 0 && Signal::new(self.exit_signal as usize).is_err();
        if is_contradictory { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl RunningThread {
    /// Makes a child as the request says; returns its number. With CLONE_VFORK, waits until the child has let go of the memory.
    ///
    /// # Errors
    ///
    /// `EINVAL`: flags that do not go together, or that ask for what there is not (namespaces, pidfds). `EAGAIN`: too many threads, of
    /// the system or of the user. `ENOMEM`.
    pub async fn make_child(&mut self, request: CloneRequest) -> Result<usize> {
        request.check()?;
        let made = self.make(&request).await;
        if !request.has(general::CLONE_THREAD) {
            crate::audit::process_made(self, made.as_ref().map(|child| child.tid()).map_err(|errno| *errno));
        }
        let child = made?;
        let tid = child.tid();
        if request.has(general::CLONE_VFORK) {
            let process = child.process.clone();
            let is_released = || (!process.borrows_memory.load(Ordering::Acquire)).then_some(());
            let _ = self.wait_event(&process.released_memory, Interruptible::ByKill, None, is_released).await;
        }
        Ok(tid as usize)
    }

    /// The child, which runs already.
    async fn make(&mut self, request: &CloneRequest) -> Result<Arc<Thread>> {
        let permit = self.take_permit()?;
        let running = self.copy(request, permit)?;
        let child = running.shared().clone();
        // Before it can run: it may end at once on another CPU, and clears the same word then (pthread_join waits for that).
        if request.has(general::CLONE_PARENT_SETTID) {
            // As on Linux, a bad address is not reported.
            let _ = self.space.write_user_bytes(request.parent_tid, &child.tid().to_ne_bytes()).await;
        }
        let set_child_tid = if request.has(general::CLONE_CHILD_SETTID) { request.child_tid } else { 0 };
        start(running, set_child_tid)?;
        Ok(child)
    }

    /// The right to one more thread, counted against RLIMIT_NPROC of the real user unless it is exempt.
    fn take_permit(&self) -> Result<ThreadPermit> {
        let credentials = &self.credentials;
        let is_exempt = credentials.can(Capabilities::SYS_RESOURCE) || credentials.can(Capabilities::SYS_ADMIN);
        let limit = self.process.limits.lock().soft(general::RLIMIT_NPROC);
        ThreadPermit::take(credentials.uid, (!is_exempt).then_some(limit))
    }

    /// Makes the child, unseen by anybody yet but for its reserved number.
    fn copy(&mut self, request: &CloneRequest, permit: ThreadPermit) -> Result<Box<RunningThread>> {
        let is_thread = request.has(general::CLONE_THREAD);
        let space = if request.has(general::CLONE_VM) { self.space.clone() } else { self.space.fork()? };
        let files = if request.has(general::CLONE_FILES) { self.files.clone() } else { Arc::new(self.files.copy()?) };
        let fs = if request.has(general::CLONE_FS) { self.fs.clone() } else { Arc::new(self.fs.fork()) };
        let number = ReservedNumber::take()?;
        let process = if is_thread { self.process.clone() } else { self.new_process(request, number.0) };
        let mut context = self.context;
        context.set_return_value(0);
        if request.stack_pointer != 0 {
            context.rsp = request.stack_pointer as u64;
        }
        if request.has(general::CLONE_SETTLS) {
            context.fs_base = request.thread_local as u64;
        }
        let clear = if request.has(general::CLONE_CHILD_CLEARTID) { request.child_tid } else { 0 };
        let shares_stack = request.has(general::CLONE_VM) && !request.has(general::CLONE_VFORK);
        let alternate_stack = if shares_stack { AlternateStack::NONE } else { self.alternate_stack };
        let vector = {
            let mut own = self.vector.lock();
            own.save();
            own.try_clone()?
        };
        let blocked = self.signals.lock().blocked;
        let view = View { space, files, fs, credentials: self.credentials.clone() };
        let shared = Thread::new(number.0, process, blocked, *self.name.lock(), clear, view.clone(), vector);
        shared.scheduling.set(self.scheduling.get().of_child());
        let mut running = RunningThread::new(shared, context, view, permit)?;
        number.keep();
        running.alternate_stack = alternate_stack;
        running.rseq = if is_thread { None } else { self.rseq };
        if running.rseq.is_some() {
            // The copy of the area says what the original says: if that is right, there is nothing to write.
            running.told.take_over(&self.told);
        }
        running.no_new_privileges.store(self.no_new_privileges.load(Ordering::Relaxed), Ordering::Relaxed);
        running.personality.store(self.personality.load(Ordering::Relaxed), Ordering::Relaxed);
        if request.has(general::CLONE_SYSVSEM) {
            running.semaphore_undo = Some(self.semaphore_undo.get_or_insert_with(UndoList::new).clone());
        }
        Ok(running)
    }

    fn new_process(&self, request: &CloneRequest, pid: i32) -> Arc<Process> {
        let parent = if request.has(general::CLONE_PARENT) { self.process.parent() } else { self.process.pid };
        let relations = Relations { pid: parent, group: self.process.group(), session: self.process.session() };
        let handlers = self.process.handlers();
        let handlers = if request.has(general::CLONE_SIGHAND) {
            handlers
        } else if request.flags & CLONE_CLEAR_SIGHAND != 0 {
            Arc::new(handlers.copy_for_exec())
        } else {
            Arc::new(handlers.copy())
        };
        let image = self.process.image.lock().clone();
        let limits = *self.process.limits.lock();
        let process = Process::new(pid, &relations, handlers, image, limits);
        process.exit_signal.store(request.exit_signal as u32, Ordering::Relaxed);
        process.borrows_memory.store(request.has(general::CLONE_VFORK), Ordering::Relaxed);
        let adjustment = self.process.oom_score_adjustment.load(Ordering::Relaxed);
        process.oom_score_adjustment.store(adjustment, Ordering::Relaxed);
        process.dumpable.store(self.process.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        Arc::new(process)
    }
}

/// A thread number that goes back to the table unless it is kept.
pub struct ReservedNumber(pub i32);

impl ReservedNumber {
    /// Takes one.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: all are taken.
    pub fn take() -> Result<ReservedNumber> {
        table::with(|table| table.reserve()).map(ReservedNumber)
    }

    /// Keeps it.
    pub fn keep(self) -> i32 {
        let number = self.0;
        core::mem::forget(self);
        number
    }
}

impl Drop for ReservedNumber {
    fn drop(&mut self) {
        table::with(|table| table.forget(self.0));
    }
}

/// Makes a thread known to all and lets it run; it writes its number to `set_child_tid` first, unless that is 0. If there is no memory
/// for its task, it is forgotten again.
///
/// # Errors
///
/// `ENOMEM`.
pub fn start(running: Box<RunningThread>, set_child_tid: usize) -> Result<()> {
    start_with(running, async move |running: Box<RunningThread>| {
        if set_child_tid != 0 {
            let tid = running.tid();
            // As on Linux, a bad address is not reported: there is nobody to report it to.
            let _ = running.space.write_user_bytes(set_child_tid, &tid.to_ne_bytes()).await;
        }
        running
    })
}

/// As [`start`]; `first` is what the thread does before it enters user mode.
///
/// # Errors
///
/// `ENOMEM`.
pub fn start_with<F: Future<Output = Box<RunningThread>> + Send + 'static>(
    running: Box<RunningThread>,
    first: impl FnOnce(Box<RunningThread>) -> F + Send + 'static,
) -> Result<()> {
    let thread = running.shared().clone();
    let (tid, process) = (thread.tid(), thread.process.clone());
    let is_first = tid == process.pid;
    {
        let mut threads = process.threads.lock();
        // A process that is ending, or becoming another program, starts no more threads: its end would wait for them for ever.
        let is_closed = {
            let signals = process.signals.lock();
            signals.group_exit.is_some() || signals.is_executing
        };
        if is_closed || threads.make_room(1).is_err() {
            drop(threads);
            table::with(|table| table.forget(tid));
            return Err(Errno::EAGAIN);
        }
        threads.push(thread.clone());
    }
    table::with(|table| {
        table.add_thread(tid, thread.clone());
        if is_first {
            table.add_process(process.clone());
        }
    });
    let life = OnCpu::new(thread.clone(), async move { thread::run(first(running).await).await });
    let class = thread.scheduling.get().class();
    // Whoever makes a thread hands down where it may run.
    let affinity = crate::tasks::executor().current().map_or(u64::MAX, |parent| parent.affinity());
    let spawned = crate::tasks::try_spawn(affinity, class, "thread", |task| thread.set_task(task), life);
    if spawned.is_err() {
        let mut threads = process.threads.lock();
        threads.retain(|other| !Arc::ptr_eq(other, &thread));
        drop(threads);
        table::with(|table| {
            table.remove_thread(tid);
            if is_first {
                table.remove_process(process.pid);
            }
        });
        return Err(Errno::ENOMEM);
    }
    crate::trace::thread_made(&thread);
    Ok(())
}
