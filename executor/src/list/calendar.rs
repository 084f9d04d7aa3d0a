//! An intrusive calendar queue (Brown, 1988): elements by their keys, to within a *day*, in O(1).
//!
//! ```text
//!        base                                            base + 64        Each day is a chain, first in, first out; the days
//!          │                                                 │            come round, one of 64 bits for each that has any.
//!          ▼                                                 ▼
//!    ──────┬─────┬─────┬─────┬─────┬─────┬─ … ─┬─────┬─────┬─────┬──────  What lies outside of them is in a heap. Where both
//!     heap │     │ A B │ C   │     │ D   │     │     │     │     │ heap    have an element of one day, the heap's goes first.
//!    ──────┴─────┴─────┴─────┴─────┴─────┴─ … ─┴─────┴─────┴─────┴──────
//! ```
//!
//! It is for keys that grow with what is taken out: whoever was taken out comes back a little later. The days begin some way
//! before the key that was taken out last, for those who come with a little credit. next: time/timers.rs.

use super::{Heap, Link};

/// A day's length, as a power of two: 131,072 of the key's units.
const DAY: u32 = 17;
/// How many days lie before that of the key that was taken out last.
const BEFORE: u64 = 12;
const DAYS: u64 = u64::BITS as u64;

/// A calendar of links. The caller keeps the elements alive and unmoved while they are in.
#[derive(Debug)]
pub(crate) struct Calendar {
    days: [Chain; DAYS as usize],
    /// The days that have any, a bit each.
    busy: u64,
    /// The first day that has a chain. Whatever is in one is not before it.
    base: u64,
    others: Heap,
}

/// The first and the last of a day, if it is busy.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: Link,
    last: Link,
}

// SAFETY: a calendar is nothing but pointers, and they are followed only on behalf of callers who vouch for the elements.
unsafe impl Send for Calendar {}

impl Calendar {
    pub(crate) const fn new() -> Self {
        let nobody = Chain { first: Link::dangling(), last: Link::dangling() };
        Self { days: [nobody; DAYS as usize], busy: 0, base: 0, others: Heap::new() }
    }

    /// The key of the element that [`Calendar::pop`] would take out.
    pub(crate) fn first_key(&self) -> Option<u64> {
        match self.first_day() {
            // SAFETY: the first of a busy day is an element: valid until it is taken out.
            Some(day) if !self.has_other_by(day) => unsafe { Some((*self.days[slot(day)].first.as_ptr()).key) },
            _ => self.others.first_key(),
        }
    }

    /// Puts `element` in at `key`.
    ///
    /// # Safety
    /// `element` is valid, in no collection, exclusively the caller's, and stays valid and unmoved until it is taken out.
    #[inline]
    pub(crate) unsafe fn insert(&mut self, element: Link, key: u64) {
        let day = key >> DAY;
        if self.busy == 0 {
            self.base = day.saturating_sub(BEFORE);
        }
        if day.wrapping_sub(self.base) >= DAYS {
            // SAFETY: the caller's promise is the same.
            return unsafe { self.others.insert(element, key) };
        }
        // SAFETY: exclusively the caller's, by contract; from here on an element of this calendar.
        unsafe {
            (*element.as_ptr()).next = None;
            (*element.as_ptr()).key = key;
        }
        let (bit, chain) = (1 << slot(day), &mut self.days[slot(day)]);
        if self.busy & bit == 0 {
            self.busy |= bit;
            chain.first = element;
        } else {
            // SAFETY: the last of a busy day is an element: valid, and this calendar's to touch, until it is taken out.
            unsafe { (*chain.last.as_ptr()).next = Some(element) };
        }
        chain.last = element;
    }

    /// Takes out an element of the first day that has any.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Link> {
        match self.first_day() {
            Some(day) if !self.has_other_by(day) => {
                // All others are of this day or later.
                self.base = self.base.max(day.saturating_sub(BEFORE));
                let chain = &mut self.days[slot(day)];
                let first = chain.first;
                // SAFETY: the first of a busy day is an element: valid, and this calendar's to touch, until it is taken out.
                match unsafe { (*first.as_ptr()).next } {
                    Some(next) => chain.first = next,
                    None => self.busy &= !(1 << slot(day)),
                }
                Some(first)
            }
            _ => self.others.pop(),
        }
    }

    /// The first busy day.
    #[inline]
    fn first_day(&self) -> Option<u64> {
        // Day `base` to the lowest bit.
        let ahead = self.busy.rotate_right(slot(self.base) as u32).trailing_zeros();
        (self.busy != 0).then(|| self.base + u64::from(ahead))
    }

    /// Whether the heap has an element of this day, or an earlier one.
    #[inline]
    fn has_other_by(&self, day: u64) -> bool {
        self.others.first_key().is_some_and(|key| key >> DAY <= day)
    }
}

/// Where a day stands among the 64.
#[inline]
fn slot(day: u64) -> usize {
    (day % DAYS) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::ptr::NonNull;

    use super::*;
    use crate::list::Links;

    const A_DAY: u64 = 1 << DAY;

    /// The numbers of those put in at these keys, in the order in which they come out.
    fn order(keys: &[u64]) -> Vec<usize> {
        let mut elements: Vec<Links> = keys.iter().map(|_| Links::new()).collect();
        let links: Vec<Link> = elements.iter_mut().map(NonNull::from).collect();
        let mut calendar = Calendar::new();
        for (&link, &key) in links.iter().zip(keys) {
            // SAFETY: the elements outlive the calendar, and are touched by it alone.
            unsafe { calendar.insert(link, key) };
        }
        let number = |link: Link| links.iter().position(|&other| other == link).expect("it was put in");
        core::iter::from_fn(|| calendar.pop().map(number)).collect()
    }

    #[test]
    fn days_come_in_their_order_and_within_one_the_first_goes_first() {
        assert_eq!(order(&[3 * A_DAY, A_DAY + 9, A_DAY, 2 * A_DAY, A_DAY + 5]), [1, 2, 4, 3, 0]);
    }

    #[test]
    fn what_is_far_off_on_either_side_is_not_lost() {
        let keys = [500 * A_DAY, 0, u64::MAX, 501 * A_DAY, 900 * A_DAY, 500 * A_DAY + 1, 499 * A_DAY];
        assert_eq!(order(&keys), [1, 6, 0, 5, 3, 4, 2]);
    }

    #[test]
    fn it_goes_on_for_many_days_and_never_back() {
        let mut elements: Vec<Links> = (0..100).map(|_| Links::new()).collect();
        let mut calendar = Calendar::new();
        for (index, element) in elements.iter_mut().enumerate() {
            // SAFETY: the elements outlive the calendar, and are touched by it alone.
            unsafe { calendar.insert(NonNull::from(element), index as u64 * A_DAY / 10) };
        }
        let mut state = 1_u64;
        let mut today = 0;
        for _ in 0..if cfg!(miri) { 500 } else { 100_000 } {
            let key = calendar.first_key().expect("a hundred are in");
            let link = calendar.pop().expect("a hundred are in");
            assert!(key >> DAY >= today, "{key} came after day {today}");
            today = key >> DAY;
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Mostly a little later, at times far off.
            let step = if state >> 60 == 0 { 200 * A_DAY } else { (state >> 32) % (20 * A_DAY) };
            // SAFETY: as above; it was just taken out.
            unsafe { calendar.insert(link, key + step) };
        }
        assert_eq!(core::iter::from_fn(|| calendar.pop()).count(), 100);
    }
}
