//! Checks of the heap's objects, in a kernel with debug assertions: what is freed is filled with a pattern that nobody may change, and
//! each object in use ends in a *red zone* that nobody may touch.
//!
//! ```text
//!   in use   │ what was asked for NEW NEW NEW │ red zone: its address and size, mixed │ whatever the class has more
//!   free     │ next │ FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED FREED │
//! ```
//!
//! A write past the end, a second free and a free with another layout are found when the object is freed; a write to what was freed,
//! when it is next given out. What is given out is filled with [`NEW`]: who reads it before writing it sees that.
//!
//! In other kernels [`ON`] is false, and nothing of this is compiled in. Frames have the same: `frames/poison.rs`.

use core::alloc::Layout;

/// Whether the checks are compiled in.
pub const ON: bool = cfg!(debug_assertions);

/// What freed memory is filled with.
const FREED: u8 = 0x5a;
/// What fresh memory is filled with.
const NEW: u8 = 0xa7;
/// Mixed with an object's address and size: its red zone.
const RED: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = size_of::<u64>();
/// Of a free object, the first bytes are the allocator's.
const LINK: usize = WORD;

/// What is asked of the allocator for an object of `layout`: room for the red zone.
#[inline]
pub fn around(layout: Layout) -> Layout {
    match Layout::from_size_align(layout.size().saturating_add(WORD), layout.align()) {
        Ok(larger) if ON => larger,
        _ => layout,
    }
}

fn red_zone(object: *mut u8, layout: Layout) -> u64 {
    (object.addr() as u64 ^ RED).rotate_left(23).wrapping_add(layout.size() as u64)
}

/// An object is given out: small ones, of `room` bytes in all, must not have been touched since they were freed.
///
/// # Safety
///
/// `object` has `room` bytes, at least those of `layout` with its red zone, and is the caller's.
pub unsafe fn taken(object: *mut u8, layout: Layout, room: Option<usize>) {
    if let Some(room) = room {
        // SAFETY: the caller's promise.
        let bytes = unsafe { core::slice::from_raw_parts(object.add(LINK.min(room)), room.saturating_sub(LINK)) };
        if let Some(at) = bytes.iter().position(|byte| *byte != FREED) {
            panic!(
                "heap: byte {} of {object:p} ({room} bytes) is {:#x}: written to after it was freed",
                at + LINK,
                bytes[at]
            );
        }
    }
    // SAFETY: the caller's promise; the red zone may lie at any address.
    unsafe {
        object.write_bytes(NEW, layout.size());
        object.add(layout.size()).cast::<u64>().write_unaligned(red_zone(object, layout));
    }
}

/// An object comes back, and is filled if it is a small one, of `room` bytes.
///
/// # Safety
///
/// As for [`taken`].
pub unsafe fn given_back(object: *mut u8, layout: Layout, room: Option<usize>) {
    // SAFETY: the caller's promise; the red zone may lie at any address.
    let found = unsafe { object.add(layout.size()).cast::<u64>().read_unaligned() };
    if found != red_zone(object, layout) {
        let what = if found == u64::from_ne_bytes([FREED; WORD]) {
            "freed twice"
        } else {
            "written past its end, or freed as something else"
        };
        panic!("heap: {object:p}, {} bytes: {what} (red zone {found:#x})", layout.size());
    }
    // SAFETY: the caller's promise.
    unsafe { object.write_bytes(FREED, room.unwrap_or(layout.size() + WORD)) };
}

/// Memory that is cut into objects: all of them are free.
///
/// # Safety
///
/// `memory` has `len` bytes and is the caller's.
pub unsafe fn slab_made(memory: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { memory.write_bytes(FREED, len) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn complaint(work: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("it is found");
        panic.downcast_ref::<String>().expect("a formatted message").clone()
    }

    const LAYOUT: Layout = Layout::new::<[u8; 21]>();
    const ROOM: usize = 32;

    fn an_object(memory: &mut [u8; ROOM]) -> *mut u8 {
        let object = memory.as_mut_ptr();
        // SAFETY: the array is the test's own, of ROOM bytes, enough for the layout and its red zone.
        unsafe {
            slab_made(object, ROOM);
            taken(object, LAYOUT, Some(ROOM));
        }
        object
    }

    fn give_back(object: *mut u8, layout: Layout) {
        // SAFETY: the array of `an_object` lives in its test.
        unsafe { given_back(object, layout, Some(ROOM)) }
    }

    #[test]
    fn an_object_may_be_filled_to_its_end_and_taken_again() {
        let mut memory = [0; ROOM];
        let object = an_object(&mut memory);
        // SAFETY: 21 bytes were asked for; the link is the allocator's.
        unsafe {
            object.write_bytes(1, LAYOUT.size());
            give_back(object, LAYOUT);
            object.cast::<u64>().write_unaligned(77);
            taken(object, LAYOUT, Some(ROOM));
            assert_eq!(object.read(), NEW);
        }
        give_back(object, LAYOUT);
    }

    #[test]
    fn one_byte_past_the_end_is_found() {
        let mut memory = [0; ROOM];
        let object = an_object(&mut memory);
        // SAFETY: inside the array.
        unsafe { object.add(LAYOUT.size()).write(0) };
        assert!(complaint(|| give_back(object, LAYOUT)).contains("past its end"));
    }

    #[test]
    fn a_second_free_and_one_of_another_size_are_found() {
        let mut memory = [0; ROOM];
        let object = an_object(&mut memory);
        assert!(complaint(|| give_back(object, Layout::new::<[u8; 20]>())).contains("as something else"));
        give_back(object, LAYOUT);
        assert!(complaint(|| give_back(object, LAYOUT)).contains("freed twice"));
    }

    #[test]
    fn a_write_to_what_was_freed_is_found() {
        let mut memory = [0; ROOM];
        let object = an_object(&mut memory);
        give_back(object, LAYOUT);
        // SAFETY: inside the array; taking what a test holds.
        unsafe {
            object.add(20).write(3);
            assert!(complaint(|| taken(object, LAYOUT, Some(ROOM))).contains("byte 20 "));
        }
    }
}
