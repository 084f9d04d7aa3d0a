//! What the programs above the kernel share with each other and with the host tool.
//!
//! The programs themselves are in `src/bin`: plain Rust with the standard library, linked statically, so that they run on
//! any kernel with Linux's system calls and need no file but themselves.
//!
//! next: [`protocol`], what `cargo run -- exec` and init say to each other; then `src/bin/init/main.rs`.

pub mod protocol;
