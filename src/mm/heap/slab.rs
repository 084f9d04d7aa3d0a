//! Slabs: runs of frames cut into objects of one size.
//!
//! A slab's bookkeeping is in its first frame's metadata: how many objects are handed out, and its neighbours in the class's
//! list of slabs that have free objects (*partial*). The free objects themselves form a list whose head is kept in the
//! metadata's `references` field as an offset; the other frames of the slab name the first one in `next`.
//!
//! ```text
//!   frames ──make──► partial ──last free object taken──► full (in no list)
//!     ▲                │ ▲─────────an object comes back────────┘
//!     └──all came back─┘
//! ```

use core::alloc::Layout;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use executor::sync::SpinLock;

use super::red_zone;
use crate::arch;
use crate::mm::frames::{self, FRAME_SIZE, Metadata, State};
use crate::mm::rank;

/// How many size classes there are: eight in steps of 16 up to 128, then four to each doubling up to 4096.
pub const CLASSES: usize = 28;
const LARGEST: usize = 4096;
const _: () = assert!(LARGEST <= FRAME_SIZE, "an object of any class fits in one frame");
/// "No further free object", as an offset.
const NONE: u32 = u32::MAX;

/// A free object.
pub struct Object {
    /// The next free one.
    pub next: *mut Object,
}

/// A class's slabs.
struct Class {
    /// The first frame of the first slab with free objects; 0 for none.
    partial: u32,
    /// Slabs of which no object is handed out; one is kept.
    empty: usize,
}

static SLABS: [SpinLock<Class>; CLASSES] =
    [const { SpinLock::ordered(rank::HEAP, Class { partial: 0, empty: 0 }) }; CLASSES];
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Frames in slabs.
pub fn frames_held() -> usize {
    HELD.load(Relaxed)
}

/// The class whose objects fit `layout`; `None` if it needs whole frames.
#[inline]
pub const fn class_of(layout: Layout) -> Option<usize> {
    // A power of two divides every later object's offset; up to 16 every class does.
    let size = if layout.align() <= 16 {
        layout.size()
    } else if layout.size() > layout.align() {
        layout.size().next_power_of_two()
    } else {
        layout.align()
    };
    if size <= 128 {
        return Some(size.saturating_sub(1) / 16);
    }
    if size > LARGEST {
        return None;
    }
    let top = (size - 1).ilog2() as usize;
    Some(8 + (top - 7) * 4 + ((size - 1) >> (top - 2)) % 4)
}

/// The size of a class's objects.
pub const fn size_of_class(class: usize) -> usize {
    if class < 8 { (class + 1) * 16 } else { (5 + class % 4) << (class / 4 + 3) }
}

/// How many objects move between a CPU's list and the slabs at once.
#[inline]
pub const fn batch(class: usize) -> usize {
    BATCHES[class] as usize
}

const BATCHES: [u8; CLASSES] = {
    let mut batches = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let fitting = 8192 / size_of_class(class);
        batches[class] = if fitting > 32 { 32 } else { fitting as u8 };
        class += 1;
    }
    batches
};

/// The binary logarithm of the frames in one slab: so that at least eight objects fit, and little is left over. While memory is in
/// pieces, slabs are smaller.
const fn slab_order(class: usize) -> u8 {
    match size_of_class(class) {
        0..=512 => 0,
        513..=1024 => 1,
        1025..=2048 => 2,
        _ => 3,
    }
}

/// Takes up to a batch of objects: their list, and how many; null when there is no memory.
#[cold]
pub fn take_batch(class: usize) -> (*mut Object, usize) {
    let mut slabs = SLABS[class].lock();
    let (mut head, mut count) = (null_mut(), 0);
    while count < batch(class) {
        if slabs.partial == 0 && (count > 0 || !slabs.grow(class)) {
            break;
        }
        let first = slabs.partial;
        let slab = Slab::at(first);
        if slab.used() == 0 {
            slabs.empty -= 1;
        }
        while count < batch(class)
            && let Some(object) = slab.take()
        {
            // SAFETY: the object is free and ours now.
            unsafe { (*object).next = head };
            head = object;
            count += 1;
        }
        if slab.is_full() {
            slabs.unlink(&slab);
        }
    }
    (head, count)
}

/// Gives a batch of objects back from the front of the list `head`; returns the rest of the list.
///
/// # Safety
///
/// The list holds at least a batch of objects of this class that nobody uses.
#[cold]
pub unsafe fn give_batch(class: usize, mut head: *mut Object) -> *mut Object {
    let mut slabs = SLABS[class].lock();
    for _ in 0..batch(class) {
        let object = head;
        // SAFETY: the caller promises so many free objects.
        head = unsafe { (*object).next };
        let slab = Slab::of(object);
        if slab.is_full() {
            slabs.link(&slab);
        }
        slab.give(object);
        if slab.used() == 0 {
            if slabs.empty > 0 {
                slabs.unlink(&slab);
                slab.free();
            } else {
                slabs.empty += 1;
            }
        }
    }
    head
}

impl Class {
    /// Makes a new slab, all of it free. An object of any class fits in one frame: what is left of the memory may be frames that lie
    /// apart, and must do.
    fn grow(&mut self, class: usize) -> bool {
        let found = (0..=slab_order(class)).rev().find_map(|order| {
            let physical = frames::allocate_contiguous(1 << order)?;
            Some((order, physical))
        });
        let Some((order, physical)) = found else { return false };
        let count = 1 << order;
        let number = (physical / FRAME_SIZE as u64) as u32;
        for index in 0..count {
            // SAFETY: just allocated, and not shared with anyone.
            let metadata = unsafe { frames::metadata(physical + (index * FRAME_SIZE) as u64) };
            metadata.set(if index == 0 { State::Slab } else { State::SlabTail });
            metadata.next.store(number, Relaxed);
        }
        let slab = Slab::at(number);
        slab.metadata.order.store(order, Relaxed);
        slab.metadata.used.store(0, Relaxed);
        slab.set_free(NONE);
        if red_zone::ON {
            // SAFETY: the slab's frames were just allocated, one behind the other.
            unsafe { red_zone::slab_made(slab.base, count * FRAME_SIZE) };
        }
        let size = size_of_class(class);
        for index in (0..count * FRAME_SIZE / size).rev() {
            slab.thread(index * size);
        }
        HELD.fetch_add(count, Relaxed);
        self.empty += 1;
        self.link(&slab);
        true
    }

    fn link(&mut self, slab: &Slab) {
        slab.metadata.previous.store(0, Relaxed);
        slab.metadata.next.store(self.partial, Relaxed);
        if self.partial != 0 {
            Slab::at(self.partial).metadata.previous.store(slab.number, Relaxed);
        }
        self.partial = slab.number;
    }

    fn unlink(&mut self, slab: &Slab) {
        let (next, previous) = (slab.metadata.next.load(Relaxed), slab.metadata.previous.load(Relaxed));
        if previous == 0 {
            self.partial = next;
        } else {
            Slab::at(previous).metadata.next.store(next, Relaxed);
        }
        if next != 0 {
            Slab::at(next).metadata.previous.store(previous, Relaxed);
        }
    }
}

/// One slab, under its class's lock.
struct Slab {
    number: u32,
    base: *mut u8,
    metadata: &'static Metadata,
}

impl Slab {
    fn at(number: u32) -> Slab {
        let physical = u64::from(number) * FRAME_SIZE as u64;
        // SAFETY: only numbers of slabs' first frames, which are allocated, come here.
        Slab { number, base: arch::direct_map(physical), metadata: unsafe { frames::metadata(physical) } }
    }

    /// The slab that an object belongs to.
    fn of(object: *mut Object) -> Slab {
        let physical = arch::direct_map_physical(object.cast());
        // SAFETY: an object lies in an allocated frame.
        let metadata = unsafe { frames::metadata(physical) };
        if metadata.is(State::SlabTail) {
            return Slab::at(metadata.next.load(Relaxed));
        }
        debug_assert!(metadata.is(State::Slab), "an object that is freed lies in no slab");
        Slab::at((physical / FRAME_SIZE as u64) as u32)
    }

    fn used(&self) -> u16 {
        self.metadata.used.load(Relaxed)
    }

    fn is_full(&self) -> bool {
        self.metadata.references.load(Relaxed) == NONE
    }

    fn set_free(&self, offset: u32) {
        self.metadata.references.store(offset, Relaxed);
    }

    /// Puts the object at `offset` in front of the free ones.
    fn thread(&self, offset: usize) {
        let next = self.metadata.references.load(Relaxed);
        // SAFETY: the offset is that of a free object of this slab, large enough for a number.
        unsafe { self.base.add(offset).cast::<u32>().write(next) };
        self.set_free(offset as u32);
    }

    fn take(&self) -> Option<*mut Object> {
        let offset = self.metadata.references.load(Relaxed);
        if offset == NONE {
            return None;
        }
        // SAFETY: the offset is that of a free object, whose first word is the next one's offset.
        let (object, next) = unsafe {
            let object = self.base.add(offset as usize);
            (object, object.cast::<u32>().read())
        };
        self.set_free(next);
        self.metadata.used.store(self.used() + 1, Relaxed);
        Some(object.cast())
    }

    fn give(&self, object: *mut Object) {
        self.thread(object as usize - self.base as usize);
        self.metadata.used.store(self.used() - 1, Relaxed);
    }

    /// Gives its frames back.
    fn free(self) {
        let count = 1 << self.metadata.order.load(Relaxed);
        HELD.fetch_sub(count, Relaxed);
        for index in 0..count {
            // SAFETY: the slab's own frames.
            let metadata = unsafe { frames::metadata((self.number as usize + index) as u64 * FRAME_SIZE as u64) };
            metadata.set(State::Other);
        }
        // SAFETY: the slab came from `allocate_contiguous` with this count, and no object of it is in use.
        unsafe { frames::free_contiguous(u64::from(self.number) * FRAME_SIZE as u64, count) };
    }
}
