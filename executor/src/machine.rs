//! What the executor needs of the machine that it runs on.
//!
//! Five functions, which the kernel implements over its local APICs and a test over a clock that it turns by hand
//! (testing.rs). next: executor.rs.

use crate::time::Instant;

/// What the executor needs of the machine. All of it is called on the CPU concerned, except `kick`.
pub trait Machine: Sync + 'static {
    /// The time since boot. It never goes back, and is the same on all CPUs.
    fn now(&self) -> Instant;

    /// The CPU that the caller runs on, from 0 up to the number given to [`Executor::new`](crate::Executor::new). Two threads of execution that run
    /// at the same time are never told the same number.
    fn current_cpu(&self) -> usize;

    /// Interrupts another CPU: ends its sleep, or its stay in user mode.
    fn kick(&self, cpu: usize);

    /// Sleeps until an interrupt. First turns interrupts off and asks `nothing_to_do`; if that is so, turns them on and halts,
    /// as one pair of instructions; else turns them on again. Returns with interrupts on.
    fn idle(&self, nothing_to_do: &dyn Fn() -> bool);

    /// Sets this CPU's one alarm to a point in time, in place of the former one; one in the past rings at once. Its interrupt
    /// handler calls [`Executor::alarm`](crate::Executor::alarm).
    fn set_alarm(&self, at: Option<Instant>);
}
