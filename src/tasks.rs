//! The kernel's executor: the one of the `executor` crate, on this machine.
//!
//! Next: `boot.rs`.

use core::future::Future;

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use executor::time::TimerHandle;
use executor::{Class, Executor, Instant, Machine, TaskRef};

use crate::arch;

/// This machine, as the executor knows it.
pub struct ThisMachine;

impl Machine for ThisMachine {
    #[inline]
    fn now(&self) -> Instant {
        arch::clock::now()
    }

    #[inline]
    fn current_cpu(&self) -> usize {
        arch::cpu_id()
    }

    fn kick(&self, cpu: usize) {
        crate::counters::IPIS.add();
        arch::apic::send_kick(cpu);
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        arch::idle(nothing_to_do);
    }

    fn set_alarm(&self, at: Option<Instant>) {
        arch::apic::set_alarm(at);
    }
}

static EXECUTOR: OnceCell<Executor<ThisMachine>> = OnceCell::uninit();

/// Makes the executor; done once at boot, when the heap and the clock work.
pub fn init(cpus: usize) {
    EXECUTOR.init_once(|| Executor::new(ThisMachine, cpus));
}

/// The executor.
///
/// # Panics
///
/// Before [`init`].
#[inline]
pub fn executor() -> Executor<ThisMachine> {
    *EXECUTOR.get().expect("made at boot")
}

/// Clock and timers.
pub fn timers() -> TimerHandle {
    executor().timers()
}

/// How many CPUs run user threads.
pub fn cpu_count() -> usize {
    1
}

/// Runs a future of the kernel's own as a task.
pub fn spawn(class: Class, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
    executor().spawn(class, name, future)
}

/// Runs a future that user space asked for. `before` gets the task before it first runs on this CPU.
///
/// # Errors
///
/// `ENOMEM`.
pub fn try_spawn(
    class: Class,
    name: &'static str,
    before: impl FnOnce(TaskRef),
    future: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let task = executor().try_spawn(class, name, future).map_err(|_| Errno::ENOMEM)?;
    before(task);
    Ok(())
}
