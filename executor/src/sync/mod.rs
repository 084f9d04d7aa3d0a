//! What tasks share and wait with.
//!
//! | need | use | from an interrupt handler |
//! |---|---|---|
//! | a few instructions on shared data | [`SpinLock`] | no |
//! | wait until something is so | [`WaitQueue`], [`fn@wait_until`] | no |
//! | wait for an interrupt | [`Event`] | [`Event::notify`] yes |
//! | exclusive use across an `.await` | [`Mutex`], [`RwLock`] | no |
//! | hand values from task to task | [`channel()`] | no |
//! | make a value once, on first use | [`get_or_init`] | no |
//! | be told, again and again, that a queue was woken | [`Observer`] | no |
//!
//! Waiting for several things at once needs nothing from here: `futures_util::{select_biased, future::join, …}` work on these
//! futures as on any others, because dropping any of them half-way is harmless, and each says so. next: wait_queue.rs.

pub mod channel;
mod event;
pub(crate) mod lock_order;
mod mutex;
mod observer;
mod once;
mod rw_lock;
mod semaphore;
mod spin_lock;
mod wait_queue;
mod wait_until;
mod waiter;

pub use channel::channel;
pub use event::Event;
pub use lock_order::{MAX_CPUS, Rank, assert_no_lock_held, track_lock_order};
pub use mutex::{Mutex, MutexGuard};
pub use observer::{Observe, Observer};
pub use once::get_or_init;
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Acquire, Semaphore};
pub use spin_lock::{SpinGuard, SpinLock};
pub use wait_queue::WaitQueue;
pub use wait_until::wait_until;
pub use waiter::{Wait, Waiter};
