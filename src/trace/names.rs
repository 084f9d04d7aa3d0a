//! Numbers for what a record cannot hold: places in the source, and names of tasks. Both are static, and few.
//!
//! A table that only grows, without a lock: each cell is set once. Not for interrupt handlers, which could find a cell half set by
//! whom they interrupted; they have nothing to name.
//!
//! Next: `text.rs`.

use core::panic::Location;

use conquer_once::spin::OnceCell;

/// Where tasks wait.
pub static PLACES: Names<Location<'static>> = Names::new();
/// What tasks are called.
pub static NAMES: Names<str> = Names::new();

const CELLS: usize = 512;

/// Static things, by number.
pub struct Names<T: ?Sized + 'static>([OnceCell<&'static T>; CELLS]);

impl<T: ?Sized> Names<T> {
    const fn new() -> Names<T> {
        Names([const { OnceCell::uninit() }; CELLS])
    }

    /// The number of a thing, a new one if it has none yet; [`u32::MAX`] if all are taken.
    pub fn number_of(&self, thing: &'static T) -> u32 {
        // Addresses of neighbours differ by a few words.
        let first = core::ptr::from_ref(thing).addr() / 8;
        for step in 0..CELLS {
            let index = first.wrapping_add(step) % CELLS;
            let cell = &self.0[index];
            if !cell.is_initialized() {
                cell.init_once(|| thing);
            }
            if cell.try_get().is_ok_and(|known| core::ptr::eq(*known, thing)) {
                return index as u32;
            }
        }
        u32::MAX
    }

    /// The thing of a number.
    pub fn get(&self, number: u32) -> Option<&'static T> {
        self.0.get(number as usize)?.try_get().ok().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_one_number_and_a_full_table_says_so() {
        let names: Box<Names<u64>> = Box::new(Names::new());
        let things: &'static [u64] = Box::leak(vec![0; CELLS + 1].into_boxed_slice());
        let numbers: Vec<u32> = things[..CELLS].iter().map(|thing| names.number_of(thing)).collect();
        for (thing, number) in things.iter().zip(&numbers) {
            assert_eq!(names.number_of(thing), *number);
            assert!(names.get(*number).is_some_and(|known| core::ptr::eq(known, thing)));
        }
        assert_eq!(names.number_of(&things[CELLS]), u32::MAX);
        assert_eq!(names.get(u32::MAX), None);
    }
}
