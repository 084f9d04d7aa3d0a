//! The executor: on each CPU a loop that takes a task from the CPU's queue, polls it, and sleeps when there is none.
//!
//! It knows neither hardware nor processes. What it needs of a machine is the [`Machine`] trait: a clock, an alarm, which CPU
//! this is, a way to kick another CPU, and a way to sleep. A test hands it one whose clock it turns by hand.
//!
//! User code is run by a task from within its poll. The executor is told so by [`Executor::enter_user`] and
//! [`Executor::exit_user`], and says through [`Executor::should_leave_user`] when the task is to come back: because it was
//! woken, or because somebody else is to have the CPU. next: executor/turn.rs (the loop), executor/wake.rs (who is
//! kicked), cpu.rs (why that is enough), executor/user_mode.rs.
//!
//! Exercise: a task is spawned on a CPU whose only user thread computes without ever making a system call. Follow the calls by
//! which the new task gets its first poll.

mod turn;
mod user_mode;
mod wake;

use alloc::{boxed::Box, vec::Vec};
use core::{future::Future, num::NonZeroU64, sync::atomic as plain, task::Poll, time::Duration};

pub use user_mode::{UserMode, UserVisit};

use self::{turn::Driver, wake::Origin};
use crate::{
    atomic::{AtomicU64, Ordering},
    cause::Cause,
    cpu::{Cpu, Demands},
    join::{JoinHandle, join_slot},
    machine::{Machine, TraceEvent},
    run_queue,
    statistics::CpuStatistics,
    sync::MAX_CPUS,
    task::{self, Class, NewTask, Registry, SpawnError, TaskRef},
    time::{Instant, Sleep, Timeout, TimerHandle},
};

/// Runs tasks on the CPUs of a machine. A copyable handle; what it stands for is made once and never goes away.
pub struct Executor<M: Machine>(&'static Shared<M>);

impl<M: Machine> Clone for Executor<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Executor<M> {}

struct Shared<M> {
    machine: M,
    cpus: Box<[Cpu]>,
    /// The CPUs that sleep, a bit each: a hint for wakes and spawns.
    idle: [AtomicU64; MAX_CPUS / 64],
    /// [`Machine::trace`] is to be told.
    is_traced: plain::AtomicBool,
    tasks: Registry,
}

impl<M: Machine> Executor<M> {
    /// An executor for a machine of `cpus` CPUs. It is never freed.
    ///
    /// # Panics
    /// If `cpus` is 0, or more than [`MAX_CPUS`].
    pub fn new(machine: M, cpus: usize) -> Self {
        Self::build(machine, cpus, None)
    }

    /// For tests: an executor on which tasks go in an order drawn from `seed`, drivers and users alike.
    pub fn shuffled(machine: M, cpus: usize, seed: NonZeroU64) -> Self {
        Self::build(machine, cpus, Some(seed))
    }

    fn build(machine: M, cpus: usize, seed: Option<NonZeroU64>) -> Self {
        assert!((1..=MAX_CPUS).contains(&cpus), "a machine has between 1 and {MAX_CPUS} CPUs");
        let cpus: Vec<Cpu> = (0..cpus).map(|_| Cpu::new(cpus, seed)).collect();
        Self(Box::leak(Box::new(Shared {
            machine,
            cpus: cpus.into_boxed_slice(),
            idle: core::array::from_fn(|_| AtomicU64::new(0)),
            is_traced: plain::AtomicBool::new(false),
            tasks: Registry::new(),
        })))
    }

    /// The machine.
    pub fn machine(self) -> &'static M {
        &self.0.machine
    }

    /// Runs `future` as a task.
    ///
    /// # Panics
    /// If there is no memory for it; see [`Executor::try_spawn`] for what user space can cause.
    pub fn spawn(self, class: Class, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
        self.try_spawn(class, name, future).expect("the kernel's own tasks are spawned while there is memory")
    }

    /// Runs `future` as a task.
    ///
    /// # Errors
    /// There is no memory for it; the future comes back.
    pub fn try_spawn<F>(self, class: Class, name: &'static str, future: F) -> Result<TaskRef, SpawnError<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.try_spawn_on(u64::MAX, class, name, |_| {}, future)
    }

    /// The same, on certain CPUs only ([`TaskRef::set_affinity`]); `before` sees the task before any CPU can poll it.
    ///
    /// # Errors
    /// There is no memory for it; the future comes back.
    pub fn try_spawn_on<F>(
        self,
        affinity: u64,
        class: Class,
        name: &'static str,
        before: impl FnOnce(&TaskRef),
        future: F,
    ) -> Result<TaskRef, SpawnError<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = self.0;
        let cpu = shared.machine.current_cpu();
        let floor = shared.cpus[cpu].inbox.floor();
        let virtual_runtime =
            shared.cpus[cpu].current.with(|parent| run_queue::time_of_child(parent, floor)).unwrap_or(floor);
        let new = NewTask { name, class, cpu, affinity, virtual_runtime };
        let (task, runnable) = task::spawn(shared, &new, future)?;
        before(&task);
        shared.tasks.enter(&task);
        shared.queue(runnable, Origin::Spawn);
        Ok(task)
    }

    /// Runs `future` as a task whose result can be awaited.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn spawn_with_result<F>(self, class: Class, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (slot, wrapped) = join_slot(future);
        JoinHandle::new(slot, self.spawn(class, name, wrapped))
    }

    /// Runs tasks on this CPU, for ever.
    pub fn run(self, cpu: usize) -> ! {
        loop {
            self.run_until(cpu, || false);
        }
    }

    /// Runs tasks on this CPU until `is_over`, which is asked before each turn; whoever makes it so kicks the CPU.
    pub fn run_until(self, cpu: usize, is_over: impl Fn() -> bool) {
        let mut driver = Driver::new(self.0, cpu);
        while !is_over() {
            if !self.0.turn(cpu, &mut driver.again) {
                self.0.sleep(cpu);
            }
        }
    }

    /// Runs tasks on this CPU until all of them wait. Timers that are due are fired.
    pub fn run_until_idle(self) {
        let cpu = self.0.machine.current_cpu();
        let mut driver = Driver::new(self.0, cpu);
        while self.0.turn(cpu, &mut driver.again) {}
    }

    /// Polls one task of this CPU, if one is there. Says whether it was. For tests that look between two polls.
    pub fn run_one(self) -> bool {
        let cpu = self.0.machine.current_cpu();
        let mut driver = Driver::new(self.0, cpu);
        self.0.turn(cpu, &mut driver.again)
    }

    /// The task that this CPU is polling.
    #[must_use]
    pub fn current(self) -> Option<TaskRef> {
        self.0.here().current.with(TaskRef::clone)
    }

    /// Whether another task waits for this CPU: when a long loop in the kernel is to [`yield_now`]. It costs a few loads, so it may be
    /// asked each time round.
    #[must_use]
    pub fn should_yield(self) -> bool {
        let cpu = self.0.here();
        cpu.demands.has(Demands::RESCHEDULE) || !cpu.has_nothing_to_do()
    }

    /// Shows all tasks to `look`, oldest first. Tasks that come or go meanwhile may be shown, or not.
    pub fn for_each_task(self, look: impl FnMut(&TaskRef)) {
        self.0.tasks.for_each(look);
    }

    /// For how long `task` has been polled until now; [`TaskRef::run_time`] knows of finished polls only.
    #[must_use]
    pub fn run_time(self, task: &TaskRef) -> Duration {
        let finished = task.run_time();
        let cpu = &self.0.cpus[task.cpu()];
        // A hint: what is looked at goes on meanwhile.
        if task.is_running() && cpu.cause.get() == task.id() {
            finished + self.now().saturating_duration_since(Instant::from_nanos(cpu.stamp.load(Ordering::Relaxed)))
        } else {
            finished
        }
    }

    /// How many tasks exist, the finished ones to which somebody holds a reference included.
    #[must_use]
    pub fn task_count(self) -> usize {
        self.0.tasks.count()
    }

    /// What `cpu` has done.
    ///
    /// # Panics
    /// If there is no such CPU.
    #[must_use]
    pub fn statistics(self, cpu: usize) -> CpuStatistics {
        let cpu = &self.0.cpus[cpu];
        cpu.count.read(cpu.waiting())
    }

    /// For tests: whether `cpu` has nothing at all to do, so that it may sleep.
    #[cfg(not(target_os = "none"))]
    #[doc(hidden)]
    #[must_use]
    pub fn is_at_rest(self, cpu: usize) -> bool {
        self.0.cpus[cpu].has_nothing_to_do()
    }

    /// The clock and the timers, as a handle that does not know the machine.
    #[must_use]
    pub fn timers(self) -> TimerHandle {
        TimerHandle(self.0)
    }

    /// The time.
    #[must_use]
    pub fn now(self) -> Instant {
        self.0.machine.now()
    }

    /// Waits until `deadline`.
    #[track_caller]
    pub fn sleep_until(self, deadline: Instant) -> Sleep {
        self.timers().sleep_until(deadline)
    }

    /// Runs `future`, but only until `deadline`.
    #[track_caller]
    pub fn timeout_at<F: Future>(self, deadline: Instant, future: F) -> Timeout<F> {
        self.timers().timeout_at(deadline, future)
    }

    /// Runs what an interrupt of this CPU is to do: what it wakes counts as woken by the interrupt `vector`, and goes through
    /// the queues that an interrupt may use. With interrupts off.
    #[inline]
    pub fn in_interrupt<R>(self, vector: u8, serve: impl FnOnce() -> R) -> R {
        let shared = self.0;
        let cause = &shared.here().cause;
        let former = cause.get();
        cause.set(Cause::Interrupt(vector).encode());
        shared.trace(move || TraceEvent::InterruptBegins { vector });
        let result = serve();
        shared.trace(move || TraceEvent::InterruptEnds { vector });
        cause.set(former);
        result
    }

    /// Has [`Machine::trace`] told of everything that happens, or of nothing any more.
    pub fn set_traced(self, is_traced: bool) {
        self.0.is_traced.store(is_traced, Ordering::Relaxed);
    }

    /// The alarm of this CPU rang. For its interrupt handler, and for nobody else.
    pub fn alarm(self) {
        // The timers themselves are looked at between two polls.
        self.0.here().demands.set(Demands::ALARM);
    }
}

impl<M: Machine> Shared<M> {
    #[inline]
    fn here(&self) -> &Cpu {
        &self.cpus[self.machine.current_cpu()]
    }

    /// Tells the machine of an event, if it wants to know: a load and a branch where it does not.
    #[inline(always)]
    fn trace(&self, event: impl FnOnce() -> TraceEvent) {
        if self.is_traced() {
            self.tell(event);
        }
    }

    #[inline(always)]
    fn is_traced(&self) -> bool {
        self.is_traced.load(Ordering::Relaxed)
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, event: impl FnOnce() -> TraceEvent) {
        self.machine.trace(&event());
    }
}

/// Lets the other tasks of this CPU go first, once.
///
/// # Cancel safety
/// Nothing is lost.
pub fn yield_now() -> impl Future<Output = ()> + Send + Sync {
    let mut has_yielded = false;
    core::future::poll_fn(move |context| {
        if core::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}
