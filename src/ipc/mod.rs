//! System V inter-process communication (sysvipc(7)): what has an identifier of its own, and stays until somebody removes it.
//!
//! `identifiers.rs` hands out identifiers and says who may do what; `semaphores.rs` is the one kind that there is so far, and
//! `undo.rs` what a process takes back of its operations when it ends.
//!
//! Next: `semaphores.rs`.

pub mod identifiers;
pub mod semaphores;
pub mod undo;
