//! Large objects that no run of contiguous frames can hold: single frames, mapped side by side in a window of their own.
//!
//! A page stays unmapped behind each object. The tables of the window are made when they are first needed and kept.
//! It exists on the bare machine only: the developer's machine has no page tables of the kernel's.
//!
//! Next: `../gate.rs`.

use alloc::vec::Vec;
use core::ptr::null_mut;

use executor::sync::SpinLock;

use crate::arch::direct_map;
use crate::arch::paging::{self, Entry, LEVELS, index};
use crate::mm::frames::{FRAME_SIZE, Frame, Purpose};
use crate::mm::{page_table, rank};

/// The window: in the same root entry as the kernel's stacks, which every address space shares.
const WINDOW: usize = 0xffff_c010_0000_0000;
const WINDOW_END: usize = 0xffff_c040_0000_0000;

/// The objects in the window: address and pages, in order.
static USED: SpinLock<Vec<(usize, usize)>> = SpinLock::ordered(rank::VMAP, Vec::new());

/// Whether an object lies in the window.
pub fn contains(pointer: *mut u8) -> bool {
    (WINDOW..WINDOW_END).contains(&pointer.addr())
}

/// Maps `count` fresh frames; null when there is no memory.
pub fn allocate(count: usize) -> *mut u8 {
    let Some(start) = claim(count) else { return null_mut() };
    for page in 0..count {
        let address = start + page * FRAME_SIZE;
        // SAFETY: the address lies in the window and was claimed above: nothing else is mapped there.
        if !unsafe { map(address) } {
            // SAFETY: so many pages were mapped, and nobody has seen them.
            unsafe { unmap(start, page) };
            forget(start);
            return null_mut();
        }
    }
    core::ptr::with_exposed_provenance_mut(start)
}

/// # Safety
///
/// The object came from [`allocate`] with this count, and nobody uses it any more.
pub unsafe fn free(pointer: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { unmap(pointer.addr(), count) };
    forget(pointer.addr());
}

/// Finds room for `count` pages and the one that stays free.
fn claim(count: usize) -> Option<usize> {
    let len = count.checked_add(1)?.checked_mul(FRAME_SIZE)?;
    let mut used = USED.lock();
    used.try_reserve(1).ok()?;
    let mut start = WINDOW;
    let mut place = 0;
    while let Some(&(address, pages)) = used.get(place) {
        if address - start >= len {
            break;
        }
        start = address + (pages + 1) * FRAME_SIZE;
        place += 1;
    }
    if WINDOW_END - start < len {
        return None;
    }
    used.insert(place, (start, count));
    Some(start)
}

fn forget(start: usize) {
    USED.lock().retain(|(address, _)| *address != start);
}

/// The entry for a page of the window; its tables are made if `makes` says so.
///
/// # Safety
///
/// `address` lies in the window.
unsafe fn entry(address: usize, makes: bool) -> Option<*mut Entry> {
    let mut table = page_table::kernel_root();
    for level in (1..LEVELS).rev() {
        let place = direct_map(table).cast::<Entry>().wrapping_add(index(address, level));
        // SAFETY: a table of the kernel's, behind the direct map; the window's tables are only changed under a claim.
        let below = unsafe { place.read_volatile() };
        table = if below.is_present() {
            below.physical()
        } else {
            let new = if makes { Frame::allocate_zeroed(Purpose::Kernel)?.into_raw() } else { return None };
            // SAFETY: as above; the entry was empty, and the new table is all zeros.
            unsafe { place.write_volatile(Entry::kernel_table(new)) };
            new
        };
    }
    Some(direct_map(table).cast::<Entry>().wrapping_add(index(address, 0)))
}

/// # Safety
///
/// Nothing is mapped at `address`, a page of the window that the caller has claimed.
unsafe fn map(address: usize) -> bool {
    // SAFETY: the caller's promise.
    let Some(place) = (unsafe { entry(address, true) }) else { return false };
    let Some(frame) = Frame::allocate(Purpose::Kernel) else { return false };
    // SAFETY: the entry is the caller's; from now on it owns the frame.
    unsafe { place.write_volatile(Entry::kernel_page(frame.into_raw(), false)) };
    true
}

/// # Safety
///
/// `count` pages from `start` on are mapped, and nobody uses them any more.
unsafe fn unmap(start: usize, count: usize) {
    for address in (start..start + count * FRAME_SIZE).step_by(FRAME_SIZE) {
        // SAFETY: the caller's promise: the entry exists and owns a frame.
        unsafe {
            let Some(place) = entry(address, false) else { continue };
            let mapped = place.read_volatile();
            place.write_volatile(Entry::EMPTY);
            paging::flush_page(address);
            drop(Frame::from_raw(mapped.physical()));
        }
    }
}
