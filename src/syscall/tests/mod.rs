//! System calls on the developer's machine: programs are lists of steps (`arch/host_machine.rs`), the clock is moved by hand, and all
//! else is the kernel's own code, from `thread.rs` down to the page tables.
//!
//! `world.rs` makes threads and programs; `calls.rs` runs whole programs; `cancelled.rs` drops calls at every poll.

mod calls;
mod cancelled;
mod world;
