//! Checks of free frames, in a kernel with debug assertions: a frame is filled when it is freed, and whoever writes to it from then on, a
//! device included, is found when it is next given out.
//!
//! ```text
//!   free     │ seal: its number, mixed │ FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED … │
//! ```
//!
//! A frame without its seal has not been freed since the machine was started. In other kernels nothing of this is compiled in. The
//! heap's objects have the same: `heap/red_zone.rs`.

use super::FRAME_SIZE;
use crate::arch;

/// What a free frame is filled with, but for its first word.
const FREED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
/// Mixed with a frame's number: its seal.
const SEAL: u64 = 0xd1b5_4a32_d192_ed03;
const WORDS: usize = FRAME_SIZE / size_of::<u64>();

/// Frames are freed.
///
/// # Safety
///
/// `count` frames from `first` on are RAM that nobody uses.
#[inline]
pub unsafe fn given_back(first: u32, count: usize) {
    if cfg!(debug_assertions) {
        for number in first..first + count as u32 {
            // SAFETY: the caller's promise.
            fill(unsafe { words(number) }, number);
        }
    }
}

/// Frames are given out.
///
/// # Safety
///
/// As for [`given_back`].
#[inline]
pub unsafe fn taken(first: u32, count: usize) {
    if cfg!(debug_assertions) {
        for number in first..first + count as u32 {
            // SAFETY: the caller's promise.
            verify(unsafe { words(number) }, number);
        }
    }
}

/// # Safety
///
/// The frame is RAM that nobody uses while the slice is.
unsafe fn words<'a>(number: u32) -> &'a mut [u64] {
    let memory = arch::direct_map(u64::from(number) * FRAME_SIZE as u64).cast();
    // SAFETY: the direct map covers all RAM; the rest is the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(memory, WORDS) }
}

fn seal(number: u32) -> u64 {
    (u64::from(number) ^ SEAL).rotate_left(31)
}

fn fill(words: &mut [u64], number: u32) {
    words.fill(FREED);
    words[0] = seal(number);
}

fn verify(words: &mut [u64], number: u32) {
    if words[0] != seal(number) {
        return;
    }
    words[0] = FREED;
    if let Some(at) = words.iter().position(|word| *word != FREED) {
        panic!("frame {number:#x}: word {at} is {:#x}: written to after it was freed", words[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_frame_may_be_taken_again() {
        let mut frame = [3; WORDS];
        verify(&mut frame, 9);
        assert_eq!(frame, [3; WORDS], "this one was never freed");
        for _ in 0..2 {
            fill(&mut frame, 9);
            verify(&mut frame, 9);
        }
    }

    #[test]
    #[should_panic(expected = "frame 0x9: word 511 is 0x0: written to after it was freed")]
    fn a_write_to_a_freed_frame_is_found() {
        let mut frame = [3; WORDS];
        fill(&mut frame, 9);
        frame[511] = 0;
        verify(&mut frame, 9);
    }
}
