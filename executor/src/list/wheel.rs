//! An intrusive hierarchical timing wheel (Varghese and Lauck, 1987) that is exact: O(1) to put in and to take out.
//!
//! A key is a time; its *tick* is what it is above the lowest 10 bits, 54 bits in 7 digits of 8. The wheel stands at a tick, too:
//!
//! ```text
//!   a key of this tick, or an earlier one ─────────────────────────────────────────► near, a heap: exact, and small
//!                                                                                         ▲
//!   a later one: the highest digit in which its tick differs     ┌─┬─┬─ … ─┬─┐ level 0 ───┤ advance(): when the wheel comes to
//!   from the wheel's is its level, the digit is its slot ──────► ├─┼─┼─ … ─┼─┤ level 1 ───┤ a slot, what is in there goes to
//!                                                                ├─┼─┼─ … ─┼─┤   …        │ lower levels, or near
//!                                                                └─┴─┴─ … ─┴─┘ level 6 ───┘
//! ```
//!
//! So an element moves 7 times at most, mostly once, and whoever is taken out before is never sorted at all. Where an element is
//! need not be remembered: as long as it is in a slot, the digits above are the wheel's own.
//!
//! The wheel advances as far as the time that is asked for, slot by slot. Which key is the first is known exactly if it is near, or
//! with few others in its slot; else only when its slot begins, and who waits for it is to ask again then. Elements with equal
//! keys leave in the order in which they came. next: list/node.rs, time/timers.rs.
//!
//! Exercise: why is whatever is in a slot later than all that is near, and than all that is in a slot of a lower level?

use alloc::boxed::Box;

use super::{Heap, Link, Links};

/// A tick's length, as a power of two: 1,024 of the key's units, so that few are near.
const TICK: u32 = 10;
/// Bits of a digit. Each move of an element is mostly a miss of the cache: digits of 6 bits would need a third more.
const DIGIT: u32 = 8;
const SLOTS: usize = 1 << DIGIT;
const LEVELS: usize = (u64::BITS - TICK).div_ceil(DIGIT) as usize;
/// In a slot with more elements than this the first is not looked for.
const FEW: usize = 8;

/// A wheel of links. The caller keeps the elements alive and unmoved while they are in.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// 14 KiB: not a part of this, so that it can be moved.
    levels: Box<[Level]>,
    /// The levels that have any, a bit each.
    busy: u32,
    /// Where it stands.
    tick: u64,
    /// No key is smaller.
    first: u64,
    near: Heap,
    /// Of the last element that came.
    sequence: u64,
}

#[derive(Debug)]
struct Level {
    /// The first of each slot, if it is busy.
    slots: [Option<Link>; SLOTS],
    /// The slots that have any, a bit each.
    busy: [u64; SLOTS / 64],
}

// SAFETY: a wheel is nothing but pointers, and they are followed only on behalf of callers who vouch for the elements.
unsafe impl Send for Wheel {}

impl Wheel {
    pub(crate) fn new() -> Self {
        let level = |_| Level { slots: [None; SLOTS], busy: [0; SLOTS / 64] };
        Self {
            levels: (0..LEVELS).map(level).collect(),
            busy: 0,
            tick: 0,
            first: u64::MAX,
            near: Heap::new(),
            sequence: 0,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.busy == 0 && self.near.is_empty()
    }

    /// No key is smaller than this; None if it is empty.
    #[inline]
    pub(crate) fn first_key(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Puts `element` in at `key`.
    ///
    /// # Safety
    /// `element` is valid, in no collection, exclusively the caller's, and stays valid and unmoved until it is taken out.
    #[inline]
    pub(crate) unsafe fn insert(&mut self, element: Link, key: u64) {
        self.first = if self.is_empty() { key } else { self.first.min(key) };
        self.sequence += 1;
        // SAFETY: exclusively the caller's, by contract; from here on an element of this wheel.
        unsafe {
            *element.as_ptr() = Links { key, sequence: self.sequence, ..Links::new() };
            self.place(element, key);
        }
    }

    /// Takes out `element`.
    ///
    /// # Safety
    /// `element` is in this wheel.
    pub(crate) unsafe fn remove(&mut self, element: Link) {
        // SAFETY: `element` is this wheel's, by contract.
        let (next, previous, key) =
            unsafe { ((*element.as_ptr()).next, (*element.as_ptr()).previous, (*element.as_ptr()).key) };
        let Some((level, slot)) = self.place_of(key) else {
            // SAFETY: it is in the wheel, and not in a slot.
            return unsafe { self.near.remove(element) };
        };
        match previous {
            // SAFETY: elements of this wheel are valid, and its own to touch, until they are taken out.
            Some(previous) => unsafe { (*previous.as_ptr()).next = next },
            None => self.set_slot(level, slot, next),
        }
        if let Some(next) = next {
            // SAFETY: as above.
            unsafe { (*next.as_ptr()).previous = previous };
        }
    }

    /// Takes out an element with the smallest key, if that is at most `limit`. If there is none, [`Wheel::first_key`] is afterwards more
    /// than `limit`.
    pub(crate) fn pop_up_to(&mut self, limit: u64) -> Option<Link> {
        if self.first > limit {
            return None;
        }
        loop {
            // Whatever is in a slot comes later than what is near.
            match self.near.first_key() {
                Some(first) if first <= limit => return self.near.pop(),
                Some(first) => {
                    self.first = first;
                    return None;
                }
                None => {}
            }
            if !self.advance(limit >> TICK) {
                self.first = self.look();
                return None;
            }
        }
    }

    /// Comes to the next busy slot, if that begins at the tick `limit` or earlier, else to `limit`. Says whether there is such a slot.
    fn advance(&mut self, limit: u64) -> bool {
        let Some((level, slot, start)) = self.first_slot().filter(|first| first.2 <= limit) else {
            self.tick = self.tick.max(limit);
            return false;
        };
        let (_, has_more) = self.first_of_few(level, slot);
        // Few are placed where they belong at once, not level by level. Many are not made near all at once, which would have to sort them.
        let last = start | ((1 << (DIGIT * level as u32)) - 1);
        self.tick = if has_more { start } else { last.min(limit) };
        let mut next = self.levels[level].slots[slot];
        self.set_slot(level, slot, None);
        while let Some(element) = next {
            // SAFETY: elements of this wheel are valid, and its own to touch; each leaves the chain before it is placed.
            unsafe {
                next = (*element.as_ptr()).next.take();
                (*element.as_ptr()).previous = None;
                self.place(element, (*element.as_ptr()).key);
            }
        }
        true
    }

    /// The first busy slot: its level, its number there, and the tick at which it begins.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        if self.busy == 0 {
            return None;
        }
        // What is in lower levels comes earlier.
        let level = self.busy.trailing_zeros();
        let slot = self.levels[level as usize].first_busy()?;
        let below = DIGIT * level;
        let above = self.tick >> below >> DIGIT << DIGIT;
        Some((level as usize, slot, (above | slot as u64) << below))
    }

    /// The smallest key of a slot, of the first few in there; and whether there are more.
    fn first_of_few(&self, level: usize, slot: usize) -> (u64, bool) {
        let mut next = self.levels[level].slots[slot];
        let mut first = u64::MAX;
        for _ in 0..FEW {
            let Some(element) = next else { break };
            // SAFETY: an element of this wheel: valid until it is taken out.
            let links = unsafe { element.as_ref() };
            first = first.min(links.key);
            next = links.next;
        }
        (first, next.is_some())
    }

    /// The smallest key as far as it can be told at once.
    fn look(&self) -> u64 {
        let in_slots = |(level, slot, start)| match self.first_of_few(level, slot) {
            (first, false) => first,
            (_, true) => start << TICK,
        };
        self.near.first_key().or_else(|| self.first_slot().map(in_slots)).unwrap_or(u64::MAX)
    }

    /// Links an element where it belongs.
    ///
    /// # Safety
    /// `element` is this wheel's, has its key and its sequence, and is linked to nothing.
    #[inline]
    unsafe fn place(&mut self, element: Link, key: u64) {
        let Some((level, slot)) = self.place_of(key) else {
            // SAFETY: by contract.
            return unsafe { self.near.insert_ranked(element) };
        };
        let former = self.levels[level].slots[slot];
        // SAFETY: by contract; elements of a slot are valid, and this wheel's to touch.
        unsafe {
            (*element.as_ptr()).next = former;
            if let Some(former) = former {
                (*former.as_ptr()).previous = Some(element);
            }
        }
        self.set_slot(level, slot, Some(element));
    }

    /// The level and the slot of what has this key, or None if it is near.
    #[inline]
    fn place_of(&self, key: u64) -> Option<(usize, usize)> {
        let tick = key >> TICK;
        (tick > self.tick).then(|| {
            let level = level_of(tick ^ self.tick);
            (level, digit(tick, level))
        })
    }

    #[inline]
    fn set_slot(&mut self, index: usize, slot: usize, first: Option<Link>) {
        let level = &mut self.levels[index];
        level.slots[slot] = first;
        let word = &mut level.busy[slot / 64];
        if first.is_some() {
            *word |= 1 << (slot % 64);
            self.busy |= 1 << index;
        } else {
            *word &= !(1 << (slot % 64));
            let is_busy = level.busy.iter().any(|&word| word != 0);
            self.busy = self.busy & !(1 << index) | u32::from(is_busy) << index;
        }
    }
}

impl Level {
    #[inline]
    fn first_busy(&self) -> Option<usize> {
        let word = self.busy.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.busy[word].trailing_zeros() as usize)
    }
}

/// The highest digit in which two ticks differ, given their difference by exclusive or.
#[inline]
fn level_of(difference: u64) -> usize {
    (difference.ilog2() / DIGIT) as usize
}

#[inline]
fn digit(tick: u64, level: usize) -> usize {
    (tick >> (DIGIT * level as u32)) as usize % SLOTS
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::ptr::NonNull;
    use std::collections::BTreeMap;

    use super::*;

    fn number(links: &[Link], link: Link) -> usize {
        links.iter().position(|&other| other == link).expect("it was put in")
    }

    #[test]
    fn those_of_one_time_leave_in_the_order_in_which_they_came_from_however_far() {
        for time in [0, 1, 1 << 20, 1 << 40, u64::MAX - 1, u64::MAX] {
            let mut elements: Vec<Links> = (0..20).map(|_| Links::new()).collect();
            let links: Vec<Link> = elements.iter_mut().map(NonNull::from).collect();
            let mut wheel = Wheel::new();
            // SAFETY: the elements outlive the wheel, and are touched by it alone.
            links.iter().for_each(|&link| unsafe { wheel.insert(link, time) });
            let order: Vec<usize> =
                core::iter::from_fn(|| wheel.pop_up_to(time)).map(|link| number(&links, link)).collect();
            assert_eq!(order, (0..20).collect::<Vec<_>>());
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn nothing_leaves_early_or_is_passed_over() {
        const COUNT: usize = 64;
        for seed in 1..=if cfg!(miri) { 1 } else { 30_u64 } {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut draw = move |limit: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % limit
            };
            let mut elements: Vec<Links> = (0..COUNT).map(|_| Links::new()).collect();
            let links: Vec<Link> = elements.iter_mut().map(NonNull::from).collect();
            let mut wheel = Wheel::new();
            // What the wheel is to hold: by time and order.
            let mut model: BTreeMap<(u64, u64), usize> = BTreeMap::new();
            let mut keys: [Option<(u64, u64)>; COUNT] = [None; COUNT];
            let (mut now, mut sequence) = (draw(1 << 40), 0);
            for _ in 0..3_000 {
                let index = draw(COUNT as u64) as usize;
                match keys[index].take() {
                    Some(key) => {
                        model.remove(&key);
                        // SAFETY: it is in.
                        unsafe { wheel.remove(links[index]) };
                    }
                    None => {
                        let span = 1 << draw(45);
                        // Some lie in the past.
                        let key = (now + draw(span)).saturating_sub(draw(1 << 12));
                        sequence += 1;
                        model.insert((key, sequence), index);
                        keys[index] = Some((key, sequence));
                        // SAFETY: the elements outlive the wheel, and are touched by it alone; this one is not in.
                        unsafe { wheel.insert(links[index], key) };
                    }
                }
                let first = model.keys().next().map(|key| key.0);
                assert!(wheel.first_key() <= first && wheel.first_key().is_some() == first.is_some());
                if draw(8) == 0 {
                    let span = 1 << draw(44);
                    now += draw(span);
                    while let Some(link) = wheel.pop_up_to(now) {
                        let (key, index) = model.pop_first().expect("the wheel has no more than the model");
                        assert!(key.0 <= now, "early");
                        assert_eq!(number(&links, link), index);
                        keys[index] = None;
                    }
                    assert!(model.keys().next().is_none_or(|key| key.0 > now), "late");
                    assert!(wheel.first_key().is_none_or(|first| first > now));
                }
            }
        }
    }

    #[test]
    fn the_first_of_a_few_is_known_exactly() {
        let mut elements: Vec<Links> = (0..FEW).map(|_| Links::new()).collect();
        let links: Vec<Link> = elements.iter_mut().map(NonNull::from).collect();
        let mut wheel = Wheel::new();
        for (index, &link) in links.iter().enumerate() {
            // SAFETY: the elements outlive the wheel, and are touched by it alone.
            unsafe { wheel.insert(link, (1 << 40) + 1_000_000 * (index as u64 + 1)) };
        }
        let first = wheel.pop_up_to((1 << 40) + 1_000_000).expect("it is due");
        assert_eq!(number(&links, first), 0);
        assert!(wheel.pop_up_to((1 << 40) + 1_500_000).is_none());
        assert_eq!(wheel.first_key(), Some((1 << 40) + 2_000_000));
    }
}
