//! User mode, as the executor sees it: a time in which a CPU does not look at its queues by itself.
//!
//! The task that a CPU polls runs user code from within its poll. The CPU publishes that, looks once more whether there is
//! anything for it (cpu.rs says why in this order), and is then brought back by a trap of the user code's own, by its alarm, or
//! by a kick. Nobody waits for the CPU? Then no alarm is set: a lone thread computes without a tick.
//!
//! What a thread does, each time round:
//!
//! ```text
//!  user_mode().visit(|visit| … visit.must_end() …) ─► Trap::Syscall, PageFault … ─► answer it
//!          ▲                                  ├► Trap::Tick ─────────────────► yield_now()
//!          │                                  └► Trap::Kick ─► acknowledge_kick() ─ true ─► yield_now()
//!          └──── look for signals ◄────────────────────────────────┴─ false ─┘
//! ```
//!
//! next: sync/wait_queue.rs. Exercise: why does `acknowledge_kick` clear the notification *before* the thread looks for signals?

use core::{fmt, marker::PhantomData};

use super::{Executor, Shared};
use crate::{
    atomic::Ordering,
    cpu::{Cpu, Demands, Mode},
    machine::Machine,
    sync::assert_no_lock_held,
    task::TaskRef,
};

impl<M: Machine> Executor<M> {
    /// User mode, for the task that this CPU is polling: found once, and then visited as often as its system calls are answered at once.
    ///
    /// ```
    /// # use executor::{Executor, Machine};
    /// # struct Context; enum Trap { Kick }
    /// # fn arch_enter_user(context: &mut Context, leave: impl Fn() -> bool) -> Trap { Trap::Kick }
    /// # fn example(executor: Executor<impl Machine>, context: &mut Context) -> Trap {
    /// executor.user_mode().visit(|visit| arch_enter_user(context, || visit.must_end()))
    /// # }
    /// ```
    #[inline]
    #[must_use]
    pub fn user_mode(self) -> UserMode<M> {
        UserMode(UserVisit { shared: self.0, cpu: self.0.here(), stays_here: PhantomData })
    }

    /// The task that this CPU is polling is about to enter user mode. After this, and with interrupts off, it asks
    /// [`Executor::should_leave_user`] before it goes. [`UserMode::visit`] does this and the next in one.
    pub fn enter_user(self) {
        self.0.here().enter_user();
    }

    /// The task that this CPU is polling has come back from user mode.
    pub fn exit_user(self) {
        self.0.here().status.publish(Mode::Kernel);
    }

    /// Whether the task that this CPU is polling must not enter, or stay in, user mode: it was woken (a signal, for example), the
    /// alarm rang, or another task is to have the CPU. Asked with interrupts off right before user mode is entered, and at the end
    /// of each interrupt that came from user mode.
    #[must_use]
    pub fn should_leave_user(self) -> bool {
        self.user_mode().0.must_end()
    }

    /// What a thread does when it was told to leave user mode: takes note of its being woken, so that it may go back once it has
    /// looked for the reason. True if it is to [`yield_now`](crate::yield_now) as well, because the CPU is wanted, or may not run it any more.
    #[must_use = "if the CPU is wanted, user mode cannot be entered before the task has yielded"]
    pub fn acknowledge_kick(self) -> bool {
        let cpu = self.0.here();
        let here = self.0.machine.current_cpu();
        let may_stay = cpu.current.with(|task| {
            task.clear_notified();
            task.facts().allows(here)
        });
        may_stay == Some(false) || cpu.demands.has(Demands::RESCHEDULE | Demands::ALARM)
    }
}

/// User mode on this CPU, for the task that it is polling: see [`Executor::user_mode`]. It stays on its CPU.
pub struct UserMode<M: Machine>(UserVisit<M>);

impl<M: Machine> UserMode<M> {
    /// Runs user code: publishes that the CPU is in user mode while `visit` runs, and lets it ask whether it must come back.
    #[inline]
    pub fn visit<R>(&self, visit: impl FnOnce(&UserVisit<M>) -> R) -> R {
        let cpu = self.0.cpu;
        cpu.enter_user();
        let result = visit(&self.0);
        cpu.status.publish(Mode::Kernel);
        result
    }
}

impl<M: Machine> fmt::Debug for UserMode<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserMode")
    }
}

/// A stay in user mode: see [`UserMode::visit`].
pub struct UserVisit<M: Machine> {
    shared: &'static Shared<M>,
    cpu: &'static Cpu,
    stays_here: PhantomData<*const ()>,
}

impl<M: Machine> UserVisit<M> {
    /// Whether the task must not enter, or stay in, user mode: see [`Executor::should_leave_user`].
    #[inline]
    #[must_use]
    pub fn must_end(&self) -> bool {
        // Relaxed: this CPU's own.
        (self.cpu.demands.any() | u8::from(self.cpu.company.load(Ordering::Relaxed))) != 0 && self.is_wanted_back()
            || self.cpu.current.with(TaskRef::is_notified).unwrap_or(false)
    }

    #[cold]
    fn is_wanted_back(&self) -> bool {
        let cpu = self.cpu;
        // Somebody waits: the task has a slice only. (Whoever begins to wait after this sees `User`, and kicks.)
        if cpu.take_company() && cpu.slice_end.load(Ordering::Relaxed) == u64::MAX && cpu.has_waiting() {
            self.shared.begin_slice(cpu, self.shared.machine.now());
        }
        cpu.demands.has(Demands::RESCHEDULE | Demands::ALARM)
    }
}

impl<M: Machine> fmt::Debug for UserVisit<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserVisit")
    }
}

impl Cpu {
    /// See [`Executor::enter_user`].
    #[inline]
    fn enter_user(&self) {
        assert_no_lock_held();
        self.status.publish(Mode::User);
    }
}
