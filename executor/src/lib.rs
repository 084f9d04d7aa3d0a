//! Rouse's executor: runs futures on the CPUs of a machine that it knows nothing about.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod atomic;
mod cpu;
mod executor;
mod join;
#[allow(unsafe_code, reason = "intrusive links are raw pointers; what the module offers is safe")]
mod list;
mod run_queue;
mod state;
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

pub use executor::{CpuStatistics, Executor, Machine, yield_now};
pub use join::JoinHandle;
pub use sync::MAX_CPUS;
pub use task::{Class, SpawnError, TaskRef};
pub use time::Instant;
