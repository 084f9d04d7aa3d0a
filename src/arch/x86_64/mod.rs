//! x86_64: boot, descriptor tables, traps, user mode, interrupts, clock, power.
//!
//! Only this folder holds assembly or names a register. Files that are pure data or arithmetic compile on every host and are
//! tested there; those that execute privileged instructions exist on the bare machine only.
//!
//! Next: `entry.rs` (the first instruction), `user_mode.rs` (ring 3 and back), `trap.rs`.

pub mod user_context;

pub use user_context::{Call, Exception, GeneralRegisters, PageFault, Trap, UserContext};
