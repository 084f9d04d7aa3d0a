//! Atomics that are the processor's own until a simulation runs on the thread: then each access is a step of a simulated CPU, and
//! goes through the simulated memory. next: memory.rs.

pub(crate) use core::sync::atomic::Ordering;
use core::{fmt, ptr, sync::atomic};

use super::memory::{self, Found, Step};

/// As [`core::sync::atomic::fence`].
#[inline]
pub(crate) fn fence(order: Ordering) {
    if memory::is_simulated() {
        memory::step(Step::Next);
        if order == Ordering::SeqCst {
            memory::drain();
        }
    }
    atomic::fence(order);
}

/// A read-modify-write that is made by somebody else's code is about to come.
#[inline]
pub(crate) fn foreign_step() {
    memory::step(Step::Next);
    if memory::is_simulated() {
        memory::drain();
    }
}

/// An atomic of the processor's, its type, and how its value is kept as 64 bits.
macro_rules! simulated {
    ($name:ident, $type:ty, $to_bits:expr, $from_bits:expr, [$($operation:ident),*]) => {
        /// As the processor's own.
        #[derive(Default)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code, reason = "all of them offer the same")]
        impl $name {
            #[inline]
            pub(crate) const fn new(value: $type) -> Self {
                Self(atomic::$name::new(value))
            }

            fn address(&self) -> usize {
                ptr::from_ref(self).addr()
            }

            #[inline]
            pub(crate) fn load(&self, order: Ordering) -> $type {
                if memory::is_simulated() {
                    memory::step(Step::Next);
                    match memory::load(self.address()) {
                        Found::Buffered(bits) => return $from_bits(bits),
                        Found::Drained(bits) => self.0.store($from_bits(bits), Ordering::SeqCst),
                        Found::Nothing => {}
                    }
                }
                self.0.load(order)
            }

            #[inline]
            pub(crate) fn store(&self, value: $type, order: Ordering) {
                if memory::is_simulated() {
                    memory::step(Step::Next);
                    if order != Ordering::SeqCst {
                        return memory::store(self.address(), $to_bits(value));
                    }
                    self.settle();
                }
                self.0.store(value, order);
            }

            /// Makes the word current, as a read-modify-write finds it.
            fn settle(&self) {
                memory::drain();
                if let Some(bits) = memory::settle(self.address()) {
                    self.0.store($from_bits(bits), Ordering::SeqCst);
                }
            }

            #[inline]
            fn begin(&self) {
                if memory::is_simulated() {
                    memory::step(Step::Next);
                    self.settle();
                }
            }

            #[inline]
            pub(crate) fn compare_exchange(
                &self, old: $type, new: $type, success: Ordering, failure: Ordering,
            ) -> Result<$type, $type> {
                self.begin();
                self.0.compare_exchange(old, new, success, failure)
            }

            #[inline]
            pub(crate) fn compare_exchange_weak(
                &self, old: $type, new: $type, success: Ordering, failure: Ordering,
            ) -> Result<$type, $type> {
                self.begin();
                self.0.compare_exchange_weak(old, new, success, failure)
            }

            $(
                #[inline]
                pub(crate) fn $operation(&self, value: $type, order: Ordering) -> $type {
                    self.begin();
                    self.0.$operation(value, order)
                }
            )*
        }

        impl Drop for $name {
            #[inline]
            fn drop(&mut self) {
                if memory::is_simulated() {
                    memory::forget(self.address());
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

simulated!(AtomicBool, bool, u64::from, |bits: u64| bits != 0, [swap]);
simulated!(AtomicU8, u8, u64::from, |bits: u64| bits as u8, [swap, fetch_or, fetch_and]);
simulated!(AtomicU32, u32, u64::from, |bits: u64| bits as u32, [swap, fetch_add]);
simulated!(AtomicU64, u64, |value: u64| value, |bits: u64| bits, [swap, fetch_add, fetch_or, fetch_and]);
simulated!(
    AtomicUsize,
    usize,
    |value: usize| value as u64,
    |bits: u64| bits as usize,
    [swap, fetch_add, fetch_sub, fetch_and]
);

/// As the processor's own. Its stores do not wait in the buffer: a pointer is more than its bits.
#[derive(Debug)]
pub(crate) struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    #[inline]
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(value))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        memory::step(Step::Next);
        self.0.load(order)
    }

    #[inline]
    pub(crate) fn store(&self, value: *mut T, order: Ordering) {
        memory::step(Step::Next);
        memory::drain();
        self.0.store(value, order);
    }

    #[inline]
    pub(crate) fn swap(&self, value: *mut T, order: Ordering) -> *mut T {
        memory::step(Step::Next);
        memory::drain();
        self.0.swap(value, order)
    }

    #[inline]
    pub(crate) fn compare_exchange_weak(
        &self,
        old: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        memory::step(Step::Next);
        memory::drain();
        self.0.compare_exchange_weak(old, new, success, failure)
    }
}
