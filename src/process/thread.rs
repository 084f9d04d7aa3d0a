//! **A thread is a future.** This page is the heart of the kernel.
//!
//! [`run`] is the whole life of a user thread. The executor polls it; each `.await` in it may suspend it; and while it is
//! suspended it is a value on the heap, without a stack. `enter_user` is a plain call: it leaves for ring 3 on this CPU and
//! comes back with the reason why the program stopped.
//!
//! A thread has two halves. [`Thread`] is what others may see and touch: its signals, its name, its task to wake.
//! [`RunningThread`] is what only the thread itself touches, and so needs no lock: registers, the descriptor table it uses, the
//! address space it runs in. `run` owns the running half.
//!
//! Next: `arch/x86_64/user_mode.rs`, below `enter_user`; `syscall/table.rs`, below `answer`. Exercise: where does a thread
//! that waits for a pipe notice that it was killed?

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::task::{Context, Poll};

use abi::Result;
use conquer_once::spin::OnceCell;
use executor::sync::SpinLock;
use executor::{Executor, TaskRef};
use fs::{Credentials, FsContext};
use pin_project_lite::pin_project;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::current;
use super::deliver::AlternateStack;
use super::fd_table::FdTable;
use super::process::Process;
use super::rseq;
use super::scheduling::SharedScheduling;
use super::signal::SignalSet;
use super::signal_queue::SignalQueue;
use super::table::ThreadPermit;
use crate::arch::{self, FaultRecord, Trap, UserContext, VectorState};
use crate::counters;
use crate::ipc::undo::UndoList;
use crate::mm::AddressSpace;
use crate::mm::heap::try_box;
use crate::mm::user::UserPtr;
use crate::syscall;
use crate::tasks::ThisMachine;
use crate::trace;

/// Bytes of the future that a thread is: what a sleeping thread costs is this, its two halves, and its vector registers. With what the
/// executor keeps of a task it just fits into one of the heap's sizes. What is larger goes into a box (`large` in the table of calls).
/// Checked builds keep more.
const LARGEST_LIFE: usize = if cfg!(debug_assertions) { 1024 } else { 560 };

/// The life of a user thread, from its first instruction to its last.
pub async fn run(mut thread: Box<RunningThread>) {
    while thread.is_undisturbed() || thread.deliver_signals().await.is_alive() {
        match thread.enter_user() {
            None => {} // a system call that could be answered at once
            Some(Trap::Syscall) => {
                if let Some(number) = thread.begin_call() {
                    let result = syscall::table::answer(&mut thread, number).await;
                    thread.end_call(result);
                }
            }
            Some(Trap::PageFault(fault)) => thread.fault_in(fault).await,
            Some(Trap::Tick | Trap::Kick) => thread.give_way().await, // and then look whether a signal has come
            Some(Trap::Error(exception)) => thread.raise(exception),
        }
    }
    thread.exit().await;
}

/// Whether a thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It goes on in user mode.
    GoesOn,
    /// It is to end.
    Ends,
}

impl Life {
    /// Whether it goes on.
    pub fn is_alive(self) -> bool {
        self == Life::GoesOn
    }
}

/// Why a thread is to look around before it returns to user mode; bits of [`Thread::attention`].
///
/// A sender sets a bit and *then* wakes the task, whatever the thread seems to be doing; only the thread itself clears bits.
pub mod attention {
    /// There may be a signal to deliver.
    pub const SIGNAL: u32 = 1;
    /// The whole process is to end, or this thread is to make room for an exec.
    pub const END: u32 = 2;
    /// The process is to stop.
    pub const STOP: u32 = 4;
    /// A system call was interrupted, and is to be made again or to fail; or an old signal mask is to be restored.
    pub const AFTERMATH: u32 = 8;
    /// It may have been interrupted, or runs on another CPU, and its restartable-sequence area does not say so yet.
    pub const PLACE: u32 = 16;
    /// The trace was switched on or off, or wants to know what the system call has returned.
    pub const TRACE: u32 = 32;
}

/// In place of a system call's number.
const NO_CALL: u32 = u32::MAX;

/// The half of a thread that others may see.
pub struct Thread {
    /// Its number. It changes once at most: a thread that executes a program takes over its leader's.
    pub tid: AtomicI32,
    /// The thread group it belongs to.
    pub process: Arc<Process>,
    /// What it is to look at: bits of [`attention`].
    pub attention: AtomicU32,
    /// Signals sent to this thread alone, and those it does not want now.
    pub signals: SpinLock<ThreadSignals>,
    /// What others look at (in /proc) of the running half.
    pub view: SpinLock<Option<View>>,
    /// `comm`: the first 15 bytes of the program's name, or what prctl(PR_SET_NAME) said.
    pub name: SpinLock<[u8; 16]>,
    /// Cleared and woken when the thread ends (set_tid_address(2)).
    pub clear_child_tid: AtomicUsize,
    /// How it shares the CPUs with others (sched(7)).
    pub scheduling: SharedScheduling,
    /// The head of the list of robust futexes (set_robust_list(2)).
    pub robust_list: AtomicUsize,
    /// CPU time used, in nanoseconds.
    pub cpu_time: AtomicU64,
    /// Its vector registers, while no CPU holds them. Only the thread's own task takes the lock.
    pub vector: SpinLock<VectorState>,
    /// prctl(PR_SET_NO_NEW_PRIVS): exec grants nothing from now on.
    pub no_new_privileges: AtomicBool,
    /// personality(2).
    pub personality: AtomicU32,
    /// What exit(2) was given.
    pub exit_code: AtomicI32,
    /// Where its program was told that it runs.
    pub told: rseq::Told,
    /// Up to when its CPU time is accounted for, in nanoseconds.
    accounted: AtomicU64,
    /// The number of the system call that it is in, if that may wait; else [`NO_CALL`].
    call: AtomicU32,
    /// Ticks of the CPU's counter in user mode that are not accounted for yet.
    user_ticks: AtomicU64,
    task: OnceCell<TaskRef>,
}

/// The signals of one thread.
pub struct ThreadSignals {
    /// Sent and not yet taken.
    pub pending: SignalQueue,
    /// Not wanted now.
    pub blocked: SignalSet,
}

/// Shared parts of the running half, for those who look from outside.
#[derive(Clone)]
pub struct View {
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// Its open files.
    pub files: Arc<FdTable>,
    /// Its place in the file systems.
    pub fs: Arc<FsContext>,
    /// Who it acts for.
    pub credentials: Arc<Credentials>,
}

pin_project! {
    /// Polls a thread's life, with its vector registers in this CPU while it runs and saved when it waits, so that it may go on
    /// elsewhere; and keeps account of its CPU time.
    ///
    /// A future written by hand: an `async fn` would hold the life twice, as its argument and as what it awaits.
    pub struct OnCpu<F> {
        thread: Arc<Thread>,
        #[pin]
        life: F,
    }
}

impl<F: Future<Output = ()>> OnCpu<F> {
    /// The life of a thread, as a task polls it.
    pub fn new(thread: Arc<Thread>, life: F) -> OnCpu<F> {
        const { assert!(size_of::<Self>() <= LARGEST_LIFE, "a thread that sleeps must not need more memory than this") };
        OnCpu { thread, life }
    }
}

impl<F: Future<Output = ()>> Future for OnCpu<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let thread = this.thread;
        thread.accounted.store(arch::clock::now().as_nanos(), Ordering::Relaxed);
        thread.vector.lock().restore();
        thread.note_place();
        current::set(Some(thread.clone()));
        let outcome = this.life.poll(context);
        if outcome.is_pending() {
            thread.vector.lock().save();
        }
        thread.account();
        current::set(None);
        outcome
    }
}

/// The half of a thread that only the thread itself touches. It stays in one place, in a box: a future would keep a copy of it for
/// each `async fn` that it is handed to by value.
pub struct RunningThread {
    shared: Arc<Thread>,
    /// Its user-mode registers.
    pub context: UserContext,
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// Its open files.
    pub files: Arc<FdTable>,
    /// Its working directory, root and umask.
    pub fs: Arc<FsContext>,
    /// Who it acts for.
    pub credentials: Arc<Credentials>,
    /// Its alternative signal stack (sigaltstack(2)).
    pub alternate_stack: AlternateStack,
    /// The signal mask to go back to once the call that replaced it (sigsuspend, ppoll, …) is over.
    pub saved_mask: Option<SignalSet>,
    /// One more than the number of the system call that was interrupted, while it may be restarted.
    pub call_to_restart: Option<NonZeroU32>,
    /// How restart_syscall(2) goes on with an interrupted sleep.
    pub restart: Option<Box<syscall::time::SleepToFinish>>,
    /// The restartable-sequence area (rseq(2)).
    pub rseq: Option<rseq::Area>,
    /// The fault that the last fault signal is about, for its frame.
    pub last_fault: FaultRecord,
    /// Its place in the system's and its user's count of threads.
    pub permit: ThreadPermit,
    /// How much of a write the fast path has done before the call had to wait.
    pub written_before: u32,
    /// What semop(2) takes back when the last thread that shares it ends; made when it is first wanted.
    pub semaphore_undo: Option<Arc<UndoList>>,
    /// What the trace has to do with its system calls.
    pub trace: trace::Mark,
    /// One more than the number of the system call whose return the trace is to take down.
    pub traced: Option<NonZeroU32>,
    /// The executor, at hand: user mode is entered through it each time.
    executor: Executor<ThisMachine>,
}

impl Deref for RunningThread {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        &self.shared
    }
}

impl Thread {
    /// A thread that nobody knows of yet.
    pub fn new(
        tid: i32,
        process: Arc<Process>,
        blocked: SignalSet,
        name: [u8; 16],
        clear_child_tid: usize,
        view: View,
        vector: VectorState,
    ) -> Arc<Thread> {
        let signals = ThreadSignals { pending: SignalQueue::default(), blocked };
        Arc::new(Thread {
            tid: AtomicI32::new(tid),
            process,
            attention: AtomicU32::new(0),
            signals: SpinLock::ordered(super::rank::THREAD_SIGNALS, signals),
            view: SpinLock::new(Some(view)),
            name: SpinLock::new(name),
            clear_child_tid: AtomicUsize::new(clear_child_tid),
            scheduling: SharedScheduling::default(),
            robust_list: AtomicUsize::new(0),
            cpu_time: AtomicU64::new(0),
            vector: SpinLock::new(vector),
            no_new_privileges: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            exit_code: AtomicI32::new(0),
            told: rseq::Told::default(),
            accounted: AtomicU64::new(0),
            call: AtomicU32::new(NO_CALL),
            user_ticks: AtomicU64::new(0),
            task: OnceCell::uninit(),
        })
    }

    /// Its number.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Its real user.
    pub fn uid(&self) -> u32 {
        self.view.lock().as_ref().map_or(0, |view| view.credentials.uid)
    }

    /// Says which task it is; done once, before the task first runs.
    pub fn set_task(&self, task: TaskRef) {
        self.task.init_once(|| task);
    }

    /// Its task, once it has one.
    pub fn task(&self) -> Option<&TaskRef> {
        self.task.get()
    }

    /// Wakes its task, whatever it waits for: it looks again.
    pub fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake();
        }
    }

    /// Adds the CPU time since the last look to its own and its process's account. By the thread itself.
    pub fn account(&self) {
        let now = arch::clock::now().as_nanos();
        let total = now.saturating_sub(self.accounted.swap(now, Ordering::Relaxed));
        let user = arch::clock::nanoseconds_of(self.user_ticks.swap(0, Ordering::Relaxed)).min(total);
        self.cpu_time.fetch_add(total, Ordering::Relaxed);
        counters::USER_TIME.add_many(user);
        counters::SYSTEM_TIME.add_many(total - user);
        let times = &self.process.times;
        times.add((user, total - user));
        if self.process.timers.counts_cpu_time() {
            let (user, system) = times.read();
            for signal in self.process.timers.expire_cpu(user, system).into_iter().flatten() {
                let _ = super::send::to_process(&self.process, super::SignalInfo::kernel(signal));
            }
        }
    }

    /// The system call that it is in, if that may wait: for those who look.
    pub fn call_in_progress(&self) -> Option<usize> {
        match self.call.load(Ordering::Relaxed) {
            NO_CALL => None,
            number => Some(number as usize),
        }
    }

    /// Says which system call it is in. By the thread itself.
    pub fn set_call_in_progress(&self, number: Option<usize>) {
        // Numbers of calls that there are fit.
        self.call.store(number.map_or(NO_CALL, |number| number as u32), Ordering::Relaxed);
    }

    /// Its name.
    pub fn comm(&self) -> Vec<u8> {
        let name = *self.name.lock();
        name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    }

    /// Sets a bit of [`attention`] and wakes it, in this order.
    pub fn alert(&self, bits: u32) {
        self.attention.fetch_or(bits, Ordering::AcqRel);
        self.wake();
    }
}

impl RunningThread {
    /// The running half of a thread.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(
        shared: Arc<Thread>,
        context: UserContext,
        view: View,
        permit: ThreadPermit,
    ) -> Result<Box<RunningThread>> {
        try_box(RunningThread {
            shared,
            context,
            space: view.space,
            files: view.files,
            fs: view.fs,
            credentials: view.credentials,
            alternate_stack: AlternateStack::NONE,
            saved_mask: None,
            call_to_restart: None,
            restart: None,
            rseq: None,
            last_fault: FaultRecord::default(),
            permit,
            written_before: 0,
            semaphore_undo: None,
            trace: trace::Mark::new(),
            traced: None,
            executor: crate::tasks::executor(),
        })
    }

    /// The half that others may see.
    pub fn shared(&self) -> &Arc<Thread> {
        &self.shared
    }
}

/// Crossing into user mode and back, and copying small values.
impl RunningThread {
    /// Leaves for ring 3 on this CPU; returns when the program has stopped, with the reason. System calls that need not wait are
    /// answered on the spot; if one of them, or somebody meanwhile, gave the thread something to look at, no reason is left.
    #[inline]
    pub fn enter_user(&mut self) -> Option<Trap> {
        let user_mode = self.executor.user_mode();
        loop {
            // A call may have looked into another program's memory.
            self.space.activate();
            let trap = user_mode.visit(|visit| {
                let ticks = &self.shared.user_ticks;
                // Relaxed: only the thread itself counts, and looks at the sum.
                let count = |change: u64| {
                    ticks.store(ticks.load(Ordering::Relaxed).wrapping_add(change), Ordering::Relaxed);
                };
                count(arch::clock::ticks().wrapping_neg());
                let trap = arch::enter_user(&mut self.context, || visit.must_end());
                count(arch::clock::ticks());
                trap
            });
            if trap != Trap::Syscall || !self.answer_at_once() {
                return Some(trap);
            }
            if !self.is_undisturbed() {
                return None;
            }
        }
    }

    /// The registers' part of `struct rt_sigframe`, saved now: bytes of the area, with the marks that programs look for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn vector_frame(&self) -> Result<Vec<u8>> {
        let mut vector = self.vector.lock();
        vector.save();
        vector.to_signal_frame()
    }

    /// Takes note of a wake, and lets others have the CPU if they are to have it.
    pub async fn give_way(&mut self) {
        if crate::tasks::executor().acknowledge_kick() {
            self.told.forget();
            executor::yield_now().await;
        }
    }

    /// Gives the thread a descriptor table of its own, if it shares one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn unshare_files(&mut self) -> Result<()> {
        self.files = Arc::new(self.files.copy()?);
        if let Some(view) = self.view.lock().as_mut() {
            view.files = self.files.clone();
        }
        Ok(())
    }

    /// Reads up to 16 bytes of a name, ended by a NUL, as prctl(PR_SET_NAME) gives it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub async fn get_name(&self, address: usize) -> Result<[u8; 16]> {
        let mut name = [0; 16];
        for (index, byte) in name.iter_mut().enumerate().take(15) {
            *byte = self.get(UserPtr::new(address.wrapping_add(index))).await?;
            if *byte == 0 {
                break;
            }
        }
        Ok(name)
    }

    /// Reads a value from user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub async fn get<T: FromBytes>(&self, from: UserPtr<T>) -> Result<T> {
        self.space.read_user(from).await
    }

    /// Writes a value to user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub async fn put<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> Result<()> {
        self.space.write_user(to, value).await
    }

    /// Reads a value from user memory if it is there.
    #[inline(always)]
    pub fn try_get<T: FromBytes>(&self, from: UserPtr<T>) -> Option<T> {
        self.space.active().read(from).ok()
    }

    /// Writes a value to user memory if it is there; says whether.
    #[inline(always)]
    pub fn try_put<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> bool {
        self.space.active().write(to, value).is_ok()
    }
}
