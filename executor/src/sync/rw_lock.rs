//! Shared or exclusive use of something across an `.await`.
//!
//! A semaphore of many permits: a reader takes one, a writer all. Both queue up in one line, so that neither can starve the
//! other. next: channel.rs.

#![allow(clippy::disallowed_types, reason = "the cell behind the permits; it is never waited for")]

use core::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
};

use super::semaphore::Semaphore;

/// How many readers there may be at once.
const READERS: usize = u32::MAX as usize;

/// Many readers or one writer, across an `.await`, first come, first served.
pub struct RwLock<T> {
    permits: Semaphore,
    /// Never contended: the permits see to that. (So this crate needs no unsafe code here.)
    value: spin::rwlock::RwLock<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self { permits: Semaphore::new(READERS), value: spin::rwlock::RwLock::new(value) }
    }

    /// An unlocked lock.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self { permits: Semaphore::new(READERS), value: spin::rwlock::RwLock::new(value) }
    }

    /// Waits until it may read. A reader must not wait for the lock again: a writer may have come in between.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place in the queue.
    #[track_caller]
    pub fn read(&self) -> impl Future<Output = ReadGuard<'_, T>> {
        let permit = self.permits.acquire(1);
        async move {
            permit.await;
            self.reader()
        }
    }

    /// Waits until it may write.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place in the queue.
    #[track_caller]
    pub fn write(&self) -> impl Future<Output = WriteGuard<'_, T>> {
        let permit = self.permits.acquire(READERS);
        async move {
            permit.await;
            self.writer()
        }
    }

    /// Reads, if nobody writes or waits.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        self.permits.try_acquire(1).then(|| self.reader())
    }

    /// Writes, if nobody reads, writes or waits.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.permits.try_acquire(READERS).then(|| self.writer())
    }

    /// The value, of which the caller proves to be the only user.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn reader(&self) -> ReadGuard<'_, T> {
        let value = self.value.try_read().expect("a writer has all permits, and the caller has one");
        ReadGuard { value: Some(value), permits: &self.permits }
    }

    fn writer(&self) -> WriteGuard<'_, T> {
        let value = self.value.try_write().expect("the caller has all permits");
        WriteGuard { value: Some(value), permits: &self.permits }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// The right to read what is in a [`RwLock`].
#[must_use = "the lock is released at once if its guard is not kept"]
pub struct ReadGuard<'a, T> {
    /// None only while it is being dropped: the cell is released before the permit.
    value: Option<spin::rwlock::RwLockReadGuard<'a, T>>,
    permits: &'a Semaphore,
}

/// The right to change what is in a [`RwLock`].
#[must_use = "the lock is released at once if its guard is not kept"]
pub struct WriteGuard<'a, T> {
    /// None only while it is being dropped: the cell is released before the permits.
    value: Option<spin::rwlock::RwLockWriteGuard<'a, T>>,
    permits: &'a Semaphore,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a guard has its value until it is dropped")
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a guard has its value until it is dropped")
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a guard has its value until it is dropped")
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.permits.release(1);
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.permits.release(READERS);
    }
}

impl<T: fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
