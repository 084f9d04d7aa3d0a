//! The kernel binary: on the bare machine, the library with an entry point; on the developer's machine it only says how to
//! start it.
//!
//! The entry point itself is assembly, in `arch/x86_64/entry.rs`; the linker script names it.
//!
//! Next: `boot.rs`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate rouse as _;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is the kernel; start it with: cargo run");
}
