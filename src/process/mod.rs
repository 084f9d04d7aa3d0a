//! Processes and threads: what runs, what it may use, how it begins, and how it ends.
//!
//! Start with `thread.rs`: the life of a user thread is one async function on one page. `process.rs` is what threads share,
//! `table.rs` who is whose child. A thread is made by `clone.rs`, gets its program from `exec.rs`, and ends in `exit.rs`;
//! `wait.rs` is the parent's side of that. Signals: `signal.rs` (data), `send.rs`, `deliver.rs`. Restartable sequences: `rseq.rs`.

pub mod clone;
pub mod current;
pub mod deliver;
pub mod elf_plan;
pub mod exec;
pub mod exec_commit;
pub mod exec_credentials;
pub mod executable;
pub mod exit;
pub mod fd_table;
pub mod image;
pub mod job_control;
pub mod limits;
pub mod load;
pub mod posix_timer;
#[allow(clippy::module_inception, reason = "the folder is about processes; this file is the type")]
pub mod process;
pub mod rseq;
pub mod scheduling;
pub mod script;
pub mod search;
pub mod send;
pub mod signal;
pub mod signal_queue;
pub mod spawn;
pub mod start_stack;
pub mod table;
pub mod thread;
pub mod timer;
pub mod timers;
pub mod tls_image;
pub mod wait;
pub mod wait_event;

pub use process::{ExitStatus, Process};
pub use signal::{Signal, SignalInfo, SignalSet};
pub use thread::{RunningThread, Thread};

/// The order in which the locks of this folder are taken: a lock may be taken while those of lower rank are held.
pub mod rank {
    use executor::sync::Rank;

    /// The process table.
    pub const TABLE: Rank = Rank::new(10);
    /// The threads of a process.
    pub const THREADS: Rank = Rank::new(12);
    /// Signals of a process.
    pub const PROCESS_SIGNALS: Rank = Rank::new(14);
    /// Signals of a thread.
    pub const THREAD_SIGNALS: Rank = Rank::new(16);
    /// Which handlers a process uses.
    pub const PROCESS_HANDLERS: Rank = Rank::new(18);
    /// The handlers themselves.
    pub const HANDLERS: Rank = Rank::new(20);
}
