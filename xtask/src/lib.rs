//! The host tool behind `cargo run`: it provides what is missing, builds the kernel and the root it starts with, starts QEMU, and
//! carries a program's standard streams in and out. The whole-system tests use it as a library ([`guest::Guest`]).
//!
//! ```text
//! cli ── doctor            what is here, what is missing
//!     ├─ console           cargo run
//!     ├─ exec ── guest     cargo run -- exec, and the tests
//!     ├─ bench ─ guest
//!     └─ image
//!         machine          what is to be started: kernel + root + options → QEMU's command line
//!           kernel · linux · root · disk      where these come from
//!             initrd · libraries · programs   the root that lives in memory
//!               packages · toolchain          set-up: Debian's packages, the kernel target
//! ```
//!
//! Everything it makes is under `target/`; everything it says of itself goes to standard error.
//!
//! next: `cli.rs`, then `guest.rs`.

#![allow(clippy::large_stack_frames, reason = "the bound is for kernel stacks; the host's are large")]

pub mod bench;
pub mod cli;
pub mod console;
pub mod doctor;
pub mod exec;
pub mod guest;
pub mod image;
pub mod initrd;
pub mod kernel;
pub mod libraries;
pub mod linux;
pub mod machine;
pub mod packages;
pub mod paths;
pub mod programs;
pub mod progress;
pub mod root;
pub mod suite;
pub mod symbols;
pub mod terminal;
pub mod testing;
pub mod toolchain;
pub mod trace;
pub mod typist;
