//! The cache of metadata blocks, bounded, and the clock by which it forgets.
//!
//! A block is kept as read-only bytes; what was used since the clock's hand last came by gets a second chance. Evicting only
//! drops the cache's reference: who works with a block keeps it.
//!
//! Next: `view.rs`, through which the rest sees blocks.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::Hash;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use executor::sync::SpinLock;
use hashbrown::HashMap;

/// A metadata block in memory.
pub(crate) struct Block {
    /// Where it is.
    pub(crate) number: u64,
    /// Its content.
    pub(crate) bytes: Vec<u8>,
    /// As what its checksum was found right, so that it is computed once; 0 is "not yet".
    verified_as: AtomicU64,
}

impl Block {
    pub(crate) fn new(number: u64, bytes: Vec<u8>) -> Arc<Block> {
        Arc::new(Block { number, bytes, verified_as: AtomicU64::new(0) })
    }

    /// Whether it was found right in this role before.
    pub(crate) fn is_verified(&self, role: u64) -> bool {
        self.verified_as.load(Ordering::Relaxed) == role
    }

    /// Notes that it is right in this role. A lost race only means that it is checked again, so the ordering may be relaxed.
    pub(crate) fn set_verified(&self, role: u64) {
        self.verified_as.store(role, Ordering::Relaxed);
    }
}

/// At most so many values by number; the ones used least lately are forgotten first.
pub(crate) struct Clock<K, V> {
    state: SpinLock<State<K, V>>,
}

struct State<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// The order in which the hand comes by.
    hand: VecDeque<K>,
    limit: usize,
}

struct Slot<V> {
    value: Arc<V>,
    was_used: AtomicBool,
}

impl<K: Copy + Eq + Hash, V> Clock<K, V> {
    pub(crate) fn new(limit: usize) -> Clock<K, V> {
        Clock { state: SpinLock::new(State { slots: HashMap::new(), hand: VecDeque::new(), limit }) }
    }

    /// The value of that number, if it is here.
    pub(crate) fn get(&self, key: K) -> Option<Arc<V>> {
        let state = self.state.lock();
        let slot = state.slots.get(&key)?;
        slot.was_used.store(true, Ordering::Relaxed);
        Some(slot.value.clone())
    }

    /// Whether it is here, without using it.
    pub(crate) fn contains(&self, key: K) -> bool {
        self.state.lock().slots.contains_key(&key)
    }

    /// Keeps a value, unless memory is short; what has to go for it is dropped after the lock.
    pub(crate) fn insert(&self, key: K, value: Arc<V>) {
        let evicted;
        {
            let mut state = self.state.lock();
            if state.limit == 0 || state.slots.try_reserve(1).is_err() || state.hand.try_reserve(1).is_err() {
                return;
            }
            let slot = Slot { value, was_used: AtomicBool::new(false) };
            let replaced = state.slots.insert(key, slot);
            if replaced.is_none() {
                state.hand.push_back(key);
            }
            evicted = (replaced, if state.slots.len() > state.limit { state.evict() } else { None });
        }
        drop(evicted);
    }

    /// Forgets everything and keeps nothing from now on.
    pub(crate) fn close(&self) {
        let slots = {
            let mut state = self.state.lock();
            state.limit = 0;
            state.hand = VecDeque::new();
            core::mem::take(&mut state.slots)
        };
        drop(slots);
    }
}

impl<K: Copy + Eq + Hash, V> State<K, V> {
    /// Turns the hand until it meets a value that was not used since its last visit.
    fn evict(&mut self) -> Option<Slot<V>> {
        for _ in 0..=self.hand.len() {
            let key = self.hand.pop_front()?;
            match self.slots.get(&key) {
                Some(slot) if slot.was_used.swap(false, Ordering::Relaxed) => self.hand.push_back(key),
                _ => return self.slots.remove(&key),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Clock::new(4);
        for key in 0..100u64 {
            cache.insert(key, Arc::new(key));
            cache.get(0);
        }
        assert_eq!(cache.get(0).as_deref(), Some(&0), "it was used all the time");
        assert_eq!((0..100).filter(|key| cache.contains(*key)).count(), 4);
    }

    #[test]
    fn a_closed_cache_keeps_nothing() {
        let cache = Clock::new(4);
        let value = Arc::new(7);
        cache.insert(1u64, value.clone());
        cache.close();
        cache.insert(2, value.clone());
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
