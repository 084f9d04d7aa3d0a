//! What is made by whoever asks first.
//!
//! A [`OnceCell`] of conquer-once is set once and then read without a lock. Its own `get_or_init` ends in a panic when the value is
//! made between its look and its attempt (version 0.4); [`get_or_init`] here asks in an order that has no such moment.

use conquer_once::spin::OnceCell;

/// The cell's value, made by `init` if nobody has made it yet. Who comes while another makes it spins until it is there: `init` is
/// to be short, and not to ask for the cell itself. Not for interrupt handlers.
#[inline]
pub fn get_or_init<T>(cell: &OnceCell<T>, init: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => {
            cell.init_once(init);
            cell.get().expect("it has been made by now")
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_threads_that_ask_at_once_get_one_value() {
        for _ in 0..200 {
            let cell = OnceCell::uninit();
            let made = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let value = *get_or_init(&cell, || made.fetch_add(1, Ordering::Relaxed) + 7);
                        assert_eq!(value, 7);
                    });
                }
            });
            assert_eq!(made.load(Ordering::Relaxed), 1);
        }
    }
}
