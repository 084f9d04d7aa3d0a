//! What the tool says of itself: on standard error, one line for each thing done, nothing for what was there already; in colour only
//! on a terminal that has it.

use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Says what is being done, if that takes a noticeable time or changes something.
pub fn step(what: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        anstream::eprintln!("   \x1b[32m…\x1b[0m {what}");
    }
}

/// Says something that the person should know.
pub fn note(what: &str) {
    anstream::eprintln!("   \x1b[33m!\x1b[0m {what}");
}

/// Leaves out the steps from now on: for tests, whose output is read by others.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}
