//! The kernel (being written)
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod arch;
