//! Runs futures: Rouse's executor, its timers, and what its tasks share and wait with.
//!
//! A *task* is a future on the heap that may be polled by any CPU. An [`Executor`] keeps, for each CPU, a queue of the tasks
//! that can go on, and polls them one after the other; a task that waits is in no queue, costs its cell of memory and nothing
//! else, and comes back when its waker is woken. Every thread of every process of the kernel is such a task, and so is every
//! driver.
//!
//! This crate knows no hardware, no process and no Linux. What it needs of the world is the [`Machine`] trait: a clock, an
//! alarm, a way to interrupt another CPU, and a way to sleep.
//!
//! # Who drives an executor
//!
//! Nobody but the CPUs themselves. Each calls [`Executor::run`] once, on its kernel stack, and never comes back: it polls what
//! is in its queue, takes from another CPU's queue if its own is empty, and else sleeps until an interrupt. There is no thread
//! behind it, and no task is ever polled from within another one. Whoever makes a task able to go on (another task, or an
//! interrupt handler) wakes it; that queues it, and kicks a CPU if the one that is to run it would not look by itself.
//!
//! The machine below has one CPU, which is the thread that runs this example; its alarm is the time-out of its sleep.
//!
//! ```
//! use executor::{Class, Executor, Instant, Machine};
//! use std::{sync::OnceLock, sync::atomic::{AtomicBool, AtomicU64, Ordering}, thread, time::Duration};
//!
//! struct Host {
//!     start: std::time::Instant,
//!     alarm: AtomicU64,
//! }
//!
//! static EXECUTOR: OnceLock<Executor<Host>> = OnceLock::new();
//! static IS_DONE: AtomicBool = AtomicBool::new(false);
//!
//! impl Machine for Host {
//!     fn now(&self) -> Instant {
//!         Instant::BOOT + self.start.elapsed()
//!     }
//!     fn current_cpu(&self) -> usize {
//!         0
//!     }
//!     fn kick(&self, _cpu: usize) {
//!         unreachable!("there is no other CPU");
//!     }
//!     fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
//!         let alarm = Instant::from_nanos(self.alarm.load(Ordering::SeqCst));
//!         if nothing_to_do() {
//!             thread::park_timeout(alarm - self.now()); // `sti; hlt`
//!         }
//!         if alarm <= self.now() {
//!             self.alarm.store(u64::MAX, Ordering::SeqCst);
//!             EXECUTOR.get().expect("it runs").alarm(); // the interrupt handler
//!         }
//!     }
//!     fn set_alarm(&self, at: Option<Instant>) {
//!         self.alarm.store(at.map_or(u64::MAX, Instant::as_nanos), Ordering::SeqCst);
//!     }
//! }
//!
//! let host = Host { start: std::time::Instant::now(), alarm: AtomicU64::new(u64::MAX) };
//! let executor = *EXECUTOR.get_or_init(|| Executor::new(host, 1));
//! let timers = executor.timers();
//! executor.spawn(Class::NORMAL, "nap", async move {
//!     timers.sleep(Duration::from_millis(5)).await;
//!     IS_DONE.store(true, Ordering::SeqCst);
//! });
//! // A kernel says `executor.run(0)`.
//! executor.run_until(0, || IS_DONE.load(Ordering::SeqCst));
//! assert!(executor.now() >= Instant::BOOT + Duration::from_millis(5));
//! ```
//!
//! # What there is
//!
//! | to | use |
//! |---|---|
//! | start a task | [`Executor::spawn`], [`Executor::try_spawn`] where user space decides, [`Executor::spawn_with_result`] |
//! | wait | [`sync`], [`time`] |
//! | wait for several things | `futures_util::{select_biased!, join!, future::select, …}`: every wait here may be dropped half-way |
//! | give way | [`yield_now`] |
//! | name a task, wake it | [`TaskRef`] |
//! | run user code | [`Executor::user_mode`], [`Executor::should_leave_user`], [`Executor::acknowledge_kick`] |
//! | see what happens | [`waits_here`], [`TaskRef`]'s questions, [`Executor::statistics`], [`Executor::set_traced`] with [`TraceEvent`] |
//! | test all of it | [`testing`]: a clock turned by hand, seeded schedules, dropping a future at every await |
//!
//! What an interrupt handler may call, within [`Executor::in_interrupt`]: [`TaskRef::wake`], `Waker::wake`, [`sync::Event::notify`],
//! [`Executor::alarm`]. They take no lock and no memory. Nothing is freed in them: a cell whose last reference goes is put on a list, and freed between two polls.
//!
//! # What it is checked with
//!
//! ```sh
//! cargo test -p executor                # with a clock turned by hand, on real threads, and on simulated CPUs: tests/simulation
//! RUSTFLAGS="--cfg loom" cargo test -p executor --release --target-dir target/loom --test 'loom_*'    # every interleaving
//! cargo run --release -p executor-benchmarks    # beside other executors
//! MIRIFLAGS=-Zmiri-ignore-leaks cargo +nightly miri test -p executor --tests   # executors are never freed: these leak
//! ```
//!
//! next: task.rs, the life of a task.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod atomic;
mod cause;
mod cpu;
mod executor;
mod join;
#[allow(unsafe_code, reason = "intrusive links are raw pointers; what the module offers is safe")]
mod list;
mod machine;
mod run_queue;
mod state;
mod statistics;
pub mod sync;
#[allow(
    unsafe_code,
    reason = "a task's cell is shared with its wakers through raw pointers; what the module offers is safe"
)]
mod task;
#[cfg(not(target_os = "none"))]
pub mod testing;
pub mod time;

pub use core::time::Duration;

pub use cause::Cause;
pub use executor::{Executor, UserMode, UserVisit, yield_now};
pub use join::JoinHandle;
pub use machine::{LongPoll, Machine, TraceEvent};
pub use run_queue::{REAL_TIME_TURN, SLICE};
pub use statistics::CpuStatistics;
pub use sync::MAX_CPUS;
pub use task::{Class, SpawnError, TaskRef, waits_here};
pub use time::Instant;
