//! System V inter-process communication (sysvipc(7)): what has an identifier of its own, and stays until somebody removes it.
//!
//! `identifiers.rs` hands out identifiers and says who may do what; the kinds are `semaphores.rs`, with `undo.rs` for what a process
//! takes back of its operations when it ends, `messages.rs` and `shared_memory.rs`.
//!
//! `posix_queue.rs` is of another family: message queues with names, behind descriptors.
//!
//! Next: `semaphores.rs`.

pub mod identifiers;
pub mod messages;
pub mod posix_queue;
pub mod semaphores;
pub mod shared_memory;
pub mod undo;
