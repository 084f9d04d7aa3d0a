//! User mode, as the executor sees it: a time in which a CPU does not look at its queues by itself.
//!
//! The task that a CPU polls runs user code from within its poll. The CPU publishes that, looks once more whether there is
//! anything for it (cpu.rs says why in this order), and is then brought back by a trap of the user code's own, by its alarm, or
//! by a kick. Nobody waits for the CPU? Then no alarm is set: a lone thread computes without a tick.
//!
//! What a thread does, each time round:
//!
//! ```text
//!  in_user_mode(|visit| … visit.must_end() …) ─► Trap::Syscall, PageFault … ─► answer it
//!          ▲                                  ├► Trap::Tick ─────────────────► yield_now()
//!          │                                  └► Trap::Kick ─► acknowledge_kick() ─ true ─► yield_now()
//!          └──── look for signals ◄────────────────────────────────┴─ false ─┘
//! ```
//!
//! next: sync/wait_queue.rs. Exercise: why does `acknowledge_kick` clear the notification *before* the thread looks for signals?

use core::fmt;

use super::{Executor, Shared};
use crate::{
    atomic::Ordering,
    cpu::{Cpu, Mode},
    machine::Machine,
    sync::assert_no_lock_held,
    task::TaskRef,
};

impl<M: Machine> Executor<M> {
    /// Runs user code, on behalf of the task that this CPU is polling: publishes that the CPU is in user mode while `visit` runs,
    /// and lets it ask whether it must come back. `visit` stays on this CPU.
    ///
    /// ```
    /// # use executor::{Executor, Machine};
    /// # struct Context; enum Trap { Kick }
    /// # fn arch_enter_user(context: &mut Context, leave: impl Fn() -> bool) -> Trap { Trap::Kick }
    /// # fn example(executor: Executor<impl Machine>, context: &mut Context) -> Trap {
    /// executor.in_user_mode(|visit| arch_enter_user(context, || visit.must_end()))
    /// # }
    /// ```
    #[inline]
    pub fn in_user_mode<R>(self, visit: impl FnOnce(&UserVisit<'_>) -> R) -> R {
        let shared = self.0;
        let cpu = shared.here();
        shared.enter_user(cpu);
        let result = visit(&UserVisit(cpu));
        cpu.status.publish(Mode::Kernel);
        result
    }

    /// The task that this CPU is polling is about to enter user mode. After this, and with interrupts off, it asks
    /// [`Executor::should_leave_user`] before it goes. [`Executor::in_user_mode`] does this and the next in one.
    pub fn enter_user(self) {
        self.0.enter_user(self.0.here());
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
        UserVisit(self.0.here()).must_end()
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
        may_stay == Some(false) || cpu.reschedule.load(Ordering::Relaxed) || cpu.alarm_due.load(Ordering::Relaxed)
    }
}

/// A stay in user mode: see [`Executor::in_user_mode`].
pub struct UserVisit<'a>(&'a Cpu);

impl UserVisit<'_> {
    /// Whether the task must not enter, or stay in, user mode: see [`Executor::should_leave_user`].
    #[inline]
    #[must_use]
    pub fn must_end(&self) -> bool {
        let cpu = self.0;
        cpu.reschedule.load(Ordering::Relaxed)
            || cpu.alarm_due.load(Ordering::Relaxed)
            || cpu.current.with(TaskRef::is_notified).unwrap_or(false)
    }
}

impl fmt::Debug for UserVisit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserVisit")
    }
}

impl<M: Machine> Shared<M> {
    /// See [`Executor::enter_user`].
    #[inline]
    fn enter_user(&self, cpu: &Cpu) {
        assert_no_lock_held();
        cpu.was_in_user_mode.store(true, Ordering::Relaxed);
        cpu.status.publish(Mode::User);
        // Somebody waits: the task has a slice only. (Whoever begins to wait after this sees `User`, and kicks.)
        if cpu.has_waiting() && cpu.slice_end.load(Ordering::Relaxed) == u64::MAX {
            self.begin_slice(cpu, self.machine.now());
        }
    }
}
