//! Large objects that no run of contiguous frames can hold: single frames, mapped side by side in a window of their own.
//!
//! A page stays unmapped behind each object. The tables of the window are made when they are first needed and kept. Objects are freed
//! anywhere, under locks too, so a freed one only becomes *dead*: its frames and its place are given back by a task
//! ([`bury`]), when all CPUs have forgotten where they were.
//! It exists on the bare machine only: the developer's machine has no page tables of the kernel's.
//!
//! Next: `../gate.rs`.

use alloc::vec::Vec;
use core::ptr::null_mut;

use executor::sync::{Event, SpinLock};

use crate::arch::direct_map;
use crate::arch::paging::{Entry, LEVELS, index};
use crate::mm::MakeRoom;
use crate::mm::frames::{FRAME_SIZE, Frame, Purpose};
use crate::mm::{page_table, rank, shootdown};

/// The window: in the same root entry as the kernel's stacks, which every address space shares.
const WINDOW: usize = 0xffff_c010_0000_0000;
const WINDOW_END: usize = 0xffff_c040_0000_0000;

/// What is in the window, in order.
static OBJECTS: SpinLock<Vec<Object>> = SpinLock::ordered(rank::VMAP, Vec::new());
static SOMEBODY_DIED: Event = Event::new();

struct Object {
    address: usize,
    pages: usize,
    is_dead: bool,
}

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
            die(start);
            return null_mut();
        }
    }
    core::ptr::with_exposed_provenance_mut(start)
}

/// # Safety
///
/// The object came from [`allocate`], and nobody uses it any more.
pub unsafe fn free(pointer: *mut u8) {
    die(pointer.addr());
}

fn die(address: usize) {
    let mut objects = OBJECTS.lock();
    if let Some(object) = objects.iter_mut().find(|object| object.address == address) {
        object.is_dead = true;
    }
    drop(objects);
    SOMEBODY_DIED.notify();
}

/// Gives back what dead objects took, for ever: one task of the kernel's runs it.
///
/// # Cancel safety
///
/// Nothing is held while it waits.
pub async fn bury() {
    loop {
        SOMEBODY_DIED.wait().await;
        while let Some((address, pages)) = some_dead() {
            // SAFETY: nobody uses a dead object, and it is in the list until all of this is done.
            unsafe {
                hide(address, pages);
                shootdown::SHOOTDOWN.flush_kernel();
                give_back(address, pages);
            }
            OBJECTS.lock().retain(|object| object.address != address);
        }
    }
}

fn some_dead() -> Option<(usize, usize)> {
    let objects = OBJECTS.lock();
    objects.iter().find(|object| object.is_dead).map(|object| (object.address, object.pages))
}

/// Finds room for `count` pages and the one that stays free.
fn claim(count: usize) -> Option<usize> {
    let len = count.checked_add(1)?.checked_mul(FRAME_SIZE)?;
    let mut objects = OBJECTS.lock();
    objects.make_room(1).ok()?;
    let mut start = WINDOW;
    let mut place = 0;
    while let Some(&Object { address, pages, .. }) = objects.get(place) {
        if address - start >= len {
            break;
        }
        start = address + (pages + 1) * FRAME_SIZE;
        place += 1;
    }
    if WINDOW_END - start < len {
        return None;
    }
    objects.insert(place, Object { address: start, pages: count, is_dead: false });
    Some(start)
}

/// The entry for a page of the window; its tables are made if `makes` says so.
///
/// # Safety
///
/// `address` lies in the window; where tables are to be made, the lock of the objects is held.
unsafe fn entry(address: usize, makes: bool) -> Option<*mut Entry> {
    let mut table = page_table::kernel_root();
    for level in (1..LEVELS).rev() {
        let place = direct_map(table).cast::<Entry>().wrapping_add(index(address, level));
        // SAFETY: a table of the kernel's, behind the direct map; tables are added under the lock, and never taken away.
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
    let Some(frame) = Frame::allocate(Purpose::Kernel) else { return false };
    let objects = OBJECTS.lock();
    // SAFETY: the caller's promise.
    let Some(place) = (unsafe { entry(address, true) }) else { return false };
    drop(objects);
    // SAFETY: the entry is the caller's; from now on it owns the frame.
    unsafe { place.write_volatile(Entry::kernel_page(frame.into_raw(), false)) };
    true
}

/// Keeps everybody from the pages, whose frames the entries still name.
///
/// # Safety
///
/// Nobody uses the object.
unsafe fn hide(start: usize, count: usize) {
    for address in (start..start + count * FRAME_SIZE).step_by(FRAME_SIZE) {
        // SAFETY: the caller's promise; a page of an object that found no memory may have no entry, or an empty one.
        unsafe {
            let Some(place) = entry(address, false) else { continue };
            place.write_volatile(Entry::from_bits(place.read_volatile().physical()));
        }
    }
}

/// Frees the frames of the pages that were hidden.
///
/// # Safety
///
/// No CPU remembers where they were.
unsafe fn give_back(start: usize, count: usize) {
    for address in (start..start + count * FRAME_SIZE).step_by(FRAME_SIZE) {
        // SAFETY: the caller's promise; an entry that names a frame owns a reference to it.
        unsafe {
            let Some(place) = entry(address, false) else { continue };
            let hidden = place.read_volatile();
            place.write_volatile(Entry::EMPTY);
            if !hidden.is_empty() {
                drop(Frame::from_raw(hidden.physical()));
            }
        }
    }
}
