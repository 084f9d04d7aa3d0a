//! Exclusive use of something across an `.await`.
//!
//! A semaphore of one permit in front of the value. Unlocking hands the permit to whoever has waited longest: it never
//! becomes free in between, so a newcomer cannot overtake. A waiter that is dropped after the permit was handed to it, hands it on.
//!
//! Not for what a few instructions settle: that is [`SpinLock`](super::SpinLock)'s. And no open file's lock is held over a
//! blocking read. next: rw_lock.rs.

#![allow(clippy::disallowed_types, reason = "the cell behind the permit; it is never waited for")]

use core::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
};

use super::semaphore::Semaphore;

/// Exclusive use across an `.await`, first come, first served.
pub struct Mutex<T> {
    permit: Semaphore,
    /// Never contended: who has the permit is alone. (So this crate needs no unsafe code here.)
    value: spin::mutex::SpinMutex<T>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self { permit: Semaphore::new(1), value: spin::mutex::SpinMutex::new(value) }
    }

    /// An unlocked mutex.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self { permit: Semaphore::new(1), value: spin::mutex::SpinMutex::new(value) }
    }

    /// Waits for the mutex.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place in the queue; a permit that was on its way goes to the next.
    #[track_caller]
    pub fn lock(&self) -> impl Future<Output = MutexGuard<'_, T>> {
        let permit = self.permit.acquire(1);
        async move {
            permit.await;
            self.guard()
        }
    }

    /// Takes the mutex if it is free, and nobody waits for it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.permit.try_acquire(1).then(|| self.guard())
    }

    /// The value, of which the caller proves to be the only user.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value, when the mutex is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    fn guard(&self) -> MutexGuard<'_, T> {
        let value = self.value.try_lock().expect("there is one permit, and the caller has it");
        MutexGuard { value: Some(value), permit: &self.permit }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// The right to use what is in a [`Mutex`]. Unlike a spin lock's guard it may be held over an `.await`.
#[must_use = "the mutex is unlocked at once if its guard is not kept"]
pub struct MutexGuard<'a, T> {
    /// None only while it is being dropped: the cell is released before the permit.
    value: Option<spin::mutex::SpinMutexGuard<'a, T>>,
    permit: &'a Semaphore,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a guard has its value until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a guard has its value until it is dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.permit.release(1);
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
