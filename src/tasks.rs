//! The kernel's executor: the one of the `executor` crate, on this machine.
//!
//! Next: `boot.rs`.

use core::future::Future;

use abi::{Errno, Result};
#[cfg(target_os = "none")]
use conquer_once::spin::OnceCell;
use executor::time::TimerHandle;
use executor::{Class, Executor, Instant, LongPoll, Machine, TaskRef, TraceEvent};

use crate::process::table;
use crate::{arch, counters};

/// This machine, as the executor knows it.
pub struct ThisMachine;

impl Machine for ThisMachine {
    #[inline]
    fn now(&self) -> Instant {
        arch::clock::now()
    }

    #[inline]
    fn current_cpu(&self) -> usize {
        // On the developer's machine each test has an executor of its own, with one CPU.
        if cfg!(target_os = "none") { arch::cpu_id() } else { 0 }
    }

    fn kick(&self, cpu: usize) {
        arch::apic::send_kick(cpu);
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        crate::mm::hold_lazily();
        arch::idle(nothing_to_do);
    }

    fn set_alarm(&self, at: Option<Instant>) {
        arch::apic::set_alarm(at);
    }

    #[inline]
    fn user_time(&self) -> u64 {
        counters::USER_TIME.get_here()
    }

    fn trace(&self, event: &TraceEvent) {
        crate::trace::executor_event(event);
    }

    fn long_poll(&self, poll: &LongPoll) {
        match table::thread_of_task(poll.task) {
            Some(thread) => {
                let (comm, call) = (thread.comm(), thread.call_in_progress());
                let call = call.map_or("no system call", crate::syscall::table::name);
                log::info!("{poll}; thread {} {}, now in {call}", thread.tid(), comm.escape_ascii());
            }
            None => log::info!("{poll}"),
        }
    }
}

#[cfg(target_os = "none")]
static EXECUTOR: OnceCell<Executor<ThisMachine>> = OnceCell::uninit();

#[cfg(not(target_os = "none"))]
std::thread_local! {
    static EXECUTOR: Executor<ThisMachine> = Executor::new(ThisMachine, 1);
}

/// Makes the executor; done once at boot, when the heap and the clock work.
#[cfg(target_os = "none")]
pub fn init(cpus: usize) {
    EXECUTOR.init_once(|| Executor::new(ThisMachine, cpus));
}

/// The executor.
///
/// # Panics
///
/// Before [`init`].
#[cfg(target_os = "none")]
#[inline]
pub fn executor() -> Executor<ThisMachine> {
    *EXECUTOR.get().expect("made at boot")
}

/// The executor, if it has been made.
#[cfg(target_os = "none")]
#[inline]
pub fn try_executor() -> Option<Executor<ThisMachine>> {
    EXECUTOR.get().copied()
}

/// The executor of this test.
#[cfg(not(target_os = "none"))]
pub fn executor() -> Executor<ThisMachine> {
    EXECUTOR.with(|executor| *executor)
}

/// Clock and timers.
pub fn timers() -> TimerHandle {
    executor().timers()
}

/// How many CPUs run tasks.
pub fn cpu_count() -> usize {
    arch::cpus_online()
}

/// All CPUs that run tasks, a bit each.
pub fn all_cpus() -> u64 {
    match cpu_count() {
        64.. => u64::MAX,
        count => (1 << count) - 1,
    }
}

/// The life of a CPU other than the boot CPU.
#[cfg(target_os = "none")]
pub fn run_other_cpu(cpu: usize) -> ! {
    arch::start_interrupts();
    executor().run(cpu)
}

/// How many CPUs the command line allows: `maxcpus=N`, as Linux; 0 means 1 as well.
pub fn cpu_limit(command_line: &[u8]) -> usize {
    let stated = |word: &[u8]| core::str::from_utf8(word.strip_prefix(b"maxcpus=")?).ok()?.parse::<usize>().ok();
    let words = command_line.split(|byte| byte.is_ascii_whitespace()).take_while(|word| *word != b"--");
    words.filter_map(stated).last().unwrap_or(arch::MAX_CPUS).clamp(1, arch::MAX_CPUS)
}

/// Runs a future of the kernel's own as a task.
pub fn spawn(class: Class, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
    executor().spawn(class, name, future)
}

/// Runs a future that user space asked for, on some of the CPUs. `before` gets the task before it first runs.
///
/// # Errors
///
/// `ENOMEM`.
pub fn try_spawn(
    affinity: u64,
    class: Class,
    name: &'static str,
    before: impl FnOnce(TaskRef),
    future: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let before = |task: &TaskRef| before(task.clone());
    executor().try_spawn_on(affinity, class, name, before, future).map(drop).map_err(|_| Errno::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_limits_the_number_of_cpus() {
        assert_eq!(cpu_limit(b"quiet maxcpus=3 -- maxcpus=7"), 3);
        assert_eq!(cpu_limit(b"maxcpus=0"), 1);
        assert_eq!(cpu_limit(b"maxcpus=1000 x"), arch::MAX_CPUS);
        assert_eq!(cpu_limit(b"maxcpus=x"), arch::MAX_CPUS);
    }
}
