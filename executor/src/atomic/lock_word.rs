//! A spin lock as a simulation sees it: a word whose release waits in the store buffer like every other store.
//!
//! The real lock below it is released at once; nobody gets at it before this word says so. next: memory.rs.

use super::{
    memory::{self, Step},
    simulated::{AtomicBool, Ordering},
};

/// The word of one lock. Outside of a simulation it is not touched.
pub(crate) struct LockWord(AtomicBool);

/// The word is taken; given back when this is dropped.
pub(crate) struct Held<'a>(Option<&'a AtomicBool>);

impl LockWord {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn acquire(&self) -> Held<'_> {
        loop {
            match self.try_acquire() {
                Some(held) => return held,
                None => memory::step(Step::Spin),
            }
        }
    }

    pub(crate) fn try_acquire(&self) -> Option<Held<'_>> {
        if !memory::is_simulated() {
            return Some(Held(None));
        }
        let is_taken = self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        is_taken.then(|| Held(Some(&self.0)))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.0 {
            word.store(false, Ordering::Release);
        }
    }
}
