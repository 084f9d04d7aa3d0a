//! Where things lie in a program's address space, and how chance moves them.
//!
//! ```text
//!   0x10000      program (or, position-independent, at 2/3 of the space)  brk ──►
//!                                                    ◄── mmap   gap   ◄── stack
//!   0x7ffffffff000
//! ```
//!
//! The entropy is Linux's on x86_64: 28 bits of pages for mmap and for position-independent programs, 22 bits of pages and
//! the low bits of the stack pointer for the stack, 32 MiB for brk. `personality(ADDR_NO_RANDOMIZE)` takes it all away.

use super::frames::FRAME_SIZE;
use super::vma::STACK_GUARD;
use crate::arch::paging::USER_END;

/// The lowest address a program may map, as Linux's `vm.mmap_min_addr`: a null pointer with an offset still faults.
pub const LOWEST: usize = 0x1_0000;
const MMAP_PAGES: u64 = 1 << 28;
const STACK_PAGES: u64 = 1 << 22;
const BRK_BYTES: u64 = 0x0200_0000;
const SMALLEST_GAP: usize = 128 << 20;
const LARGEST_GAP: usize = USER_END / 6 * 5;

/// The bases that chance has chosen for one program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The address behind the stack.
    pub stack_top: usize,
    /// Mappings without an address are placed below this.
    pub mmap_base: usize,
    /// Where a position-independent program is loaded.
    pub program_base: usize,
    /// How far behind the program's last page brk begins.
    pub brk_gap: usize,
}

impl Layout {
    /// A layout for a program whose stack may grow to `stack_limit` bytes; `random` gives 64 random bits at a time, or is `None`
    /// where addresses are to be the same each time.
    pub fn new(stack_limit: u64, random: Option<&mut dyn FnMut() -> u64>) -> Layout {
        let mut none = || 0;
        let is_random = random.is_some();
        let random = random.unwrap_or(&mut none);
        let pages = |of: u64, random: &mut dyn FnMut() -> u64| (random() % of) as usize * FRAME_SIZE;
        let stack_top = USER_END - pages(STACK_PAGES, random);
        let slack = if is_random { STACK_PAGES as usize * FRAME_SIZE } else { 0 };
        let gap = usize::try_from(stack_limit).unwrap_or(usize::MAX).saturating_add(STACK_GUARD + slack);
        let gap = gap.clamp(SMALLEST_GAP, LARGEST_GAP) & !(FRAME_SIZE - 1);
        Layout {
            stack_top,
            mmap_base: USER_END - gap - pages(MMAP_PAGES, random),
            program_base: ((USER_END / 3 * 2) & !(FRAME_SIZE - 1)) + pages(MMAP_PAGES, random),
            brk_gap: pages(BRK_BYTES / FRAME_SIZE as u64, random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_chance_two_layouts_are_the_same_and_the_stack_is_at_the_top() {
        let layout = Layout::new(8 << 20, None);
        assert_eq!(layout, Layout::new(8 << 20, None));
        assert_eq!((layout.stack_top, layout.brk_gap), (USER_END, 0));
    }

    #[test]
    fn with_chance_every_base_moves_and_stays_in_order() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 8
        };
        let (a, b) = (Layout::new(8 << 20, Some(&mut random)), Layout::new(8 << 20, Some(&mut random)));
        assert!(a.stack_top != b.stack_top && a.mmap_base != b.mmap_base && a.program_base != b.program_base);
        for layout in [a, b] {
            assert!(layout.program_base + (1 << 40) < layout.mmap_base);
            assert!(layout.mmap_base + (8 << 20) < layout.stack_top);
            assert!(
                [layout.stack_top, layout.mmap_base, layout.program_base].iter().all(|base| base % FRAME_SIZE == 0)
            );
        }
    }

    #[test]
    fn an_unlimited_stack_still_leaves_room_for_mappings() {
        assert!(Layout::new(u64::MAX, None).mmap_base > USER_END / 8);
    }
}
