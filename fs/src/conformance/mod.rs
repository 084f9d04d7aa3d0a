//! What every writable file system must do: a suite that each runs on itself, in the crate's tests.
//!
//! ```ignore
//! #[test]
//! fn it_does_what_every_file_system_does() {
//!     fs::conformance::check(|| MyFileSystem::new(..));
//! }
//! ```
//!
//! Each check gets a fresh, empty file system. [`against_host`] does random operations on it and on the host's own file system, and
//! compares.

#![allow(clippy::missing_panics_doc, reason = "a check panics if the file system fails it")]

mod against_host;
mod checks;
mod world;

pub use against_host::against_host;
pub use world::{World, install, pages, read_all, read_at, run, write_at};

use alloc::sync::Arc;

use crate::FileSystem;

/// Runs all checks, each on a fresh file system.
pub fn check(fresh: impl Fn() -> Arc<dyn FileSystem>) {
    for (name, check) in checks::ALL {
        std::println!("checking: {name}");
        check(&mut World::new(fresh()));
    }
}
