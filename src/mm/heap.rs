//! The kernel heap: `Box`, `Vec` and `Arc` in the kernel come from here.
//!
//! Small objects (up to 4 KiB) belong to one of 28 size classes. Each CPU keeps a list of free objects per class, threaded
//! through the objects themselves: allocating is taking its head, freeing is putting one in front, without a lock. When a list
//! runs dry or grows long, a batch moves from or to the class's slabs (`heap/slab.rs`), under the class's lock. Larger objects are
//! whole frames: contiguous in the direct map, or, where there is no such run, side by side in a window (`heap/vmap.rs`).
//!
//! ```text
//!   alloc ──► this CPU's list ──batch──► class: partial slabs ──► frames
//!   dealloc ─►      (no lock)  ◄──────       (lock)
//! ```
//!
//! `Box::new` cannot fail softly on stable Rust. What a program can make the kernel allocate is therefore admitted first
//! (`gate.rs`), sized through `try_reserve`, or made by [`try_box`].
//!
//! Interrupt handlers neither allocate nor free. Next: `heap/slab.rs`.

mod red_zone;
mod slab;
#[cfg(target_os = "none")]
pub mod vmap;

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::Errno;

use super::frames::{self, FRAME_SIZE, Initial, PerCpu};
use crate::arch;
use slab::{CLASSES, Object};

/// The kernel's allocator; the host keeps its own, so that tests can use both.
pub struct Heap;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap;

static CPUS: PerCpu<CpuHeap> = PerCpu::new();
/// Frames that hold large objects.
static LARGE: AtomicUsize = AtomicUsize::new(0);

/// Free objects of one CPU.
struct CpuHeap {
    lists: [FreeList; CLASSES],
    allocations: usize,
}

/// Free objects of one class, each holding the address of the next.
#[derive(Clone, Copy)]
struct FreeList {
    head: *mut Object,
    count: usize,
}

// SAFETY: the objects in the list belong to the list's CPU alone.
unsafe impl Send for FreeList {}

impl Initial for CpuHeap {
    const INITIAL: CpuHeap = CpuHeap { lists: [FreeList { head: null_mut(), count: 0 }; CLASSES], allocations: 0 };
}

/// How many allocations the kernel has made since boot. The difference around a system call says what it allocated.
pub fn allocations() -> usize {
    // SAFETY: the pointer is valid for ever; one word is read, whatever its CPU does to it meanwhile.
    CPUS.sum(|cpu| unsafe { (&raw const (*cpu).allocations).read_volatile() })
}

/// Frames the heap holds: (in slabs, in large objects).
pub fn frames_held() -> (usize, usize) {
    (slab::frames_held(), LARGE.load(Ordering::Relaxed))
}

/// A box, or the knowledge that there is no memory for it.
///
/// # Errors
///
/// `ENOMEM`.
pub fn try_box<T>(value: T) -> Result<Box<T>, Errno> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    if super::frames::faults::strikes() {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: the layout is not of size zero.
    let memory = NonNull::new(unsafe { alloc::alloc::alloc(layout) }).ok_or(Errno::ENOMEM)?.cast::<T>();
    // SAFETY: fresh memory of T's layout from the global allocator, written before it becomes a box.
    unsafe {
        memory.write(value);
        Ok(Box::from_raw(memory.as_ptr()))
    }
}

// SAFETY: `allocate` returns memory of at least the layout's size and alignment that nobody else uses (a slab object is a
// multiple of the alignment from its slab's start, a page; frames are page-aligned) and `deallocate` undoes it by the same layout.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let whole = red_zone::around(layout);
        let class = slab::class_of(whole);
        let object = match class {
            Some(class) => CPUS.with(|cpu| cpu.allocate(class)),
            None => allocate_large(whole),
        };
        if red_zone::ON && !object.is_null() {
            // SAFETY: the object is as large as its class, or as `whole`.
            unsafe { red_zone::taken(object, layout, class.map(slab::size_of_class)) };
        }
        object
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let whole = red_zone::around(layout);
        let class = slab::class_of(whole);
        if red_zone::ON {
            // SAFETY: the caller gives back an object of this layout; it is as large as its class, or as `whole`.
            unsafe { red_zone::given_back(pointer, layout, class.map(slab::size_of_class)) };
        }
        match class {
            // SAFETY: the caller gives back an object of this class.
            Some(class) => CPUS.with(|cpu| unsafe { cpu.free(class, pointer.cast()) }),
            // SAFETY: the caller gives back what `allocate_large` made for this layout.
            None => unsafe { free_large(pointer, whole) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a valid size for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let stays = match (slab::class_of(layout), slab::class_of(wanted)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => large_frames(layout) == large_frames(wanted),
            _ => false,
        };
        // With red zones it always moves: who keeps an old address is found.
        if stays && !red_zone::ON {
            return pointer;
        }
        // SAFETY: `wanted` has a size, as the caller promises; the copy takes what fits both; the old object is the caller's.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(pointer, new, size.min(layout.size()));
                self.dealloc(pointer, layout);
            }
            new
        }
    }
}

impl CpuHeap {
    #[inline]
    fn allocate(&mut self, class: usize) -> *mut u8 {
        self.allocations += 1;
        let list = &mut self.lists[class];
        if list.head.is_null() {
            let (head, count) = slab::take_batch(class);
            *list = FreeList { head, count };
            if head.is_null() {
                return null_mut();
            }
        }
        let object = list.head;
        // SAFETY: an object in the list is free, and holds the next one's address.
        list.head = unsafe { (*object).next };
        list.count -= 1;
        object.cast()
    }

    /// # Safety
    ///
    /// `object` is an object of this class that nobody uses any more.
    #[inline]
    unsafe fn free(&mut self, class: usize, object: *mut Object) {
        let list = &mut self.lists[class];
        // SAFETY: the object is ours now, and large enough for an address.
        unsafe { (*object).next = list.head };
        list.head = object;
        list.count += 1;
        if list.count > 2 * slab::batch(class) {
            // SAFETY: the list holds more than a batch of free objects of this class.
            list.head = unsafe { slab::give_batch(class, list.head) };
            list.count -= slab::batch(class);
        }
    }
}

fn large_frames(layout: Layout) -> usize {
    let frames = layout.size().div_ceil(FRAME_SIZE);
    if layout.align() > FRAME_SIZE { frames.max(layout.align() / FRAME_SIZE).next_power_of_two() } else { frames }
}

#[cold]
fn allocate_large(layout: Layout) -> *mut u8 {
    CPUS.with(|cpu| cpu.allocations += 1);
    let count = large_frames(layout);
    // A block of the buddy allocator is aligned to its size, which is what an alignment above a page asks for.
    let object = match frames::allocate_contiguous(count) {
        Some(physical) => arch::direct_map(physical),
        None => allocate_scattered(layout, count),
    };
    if !object.is_null() {
        LARGE.fetch_add(count, Ordering::Relaxed);
    }
    object
}

#[cfg(target_os = "none")]
fn allocate_scattered(layout: Layout, count: usize) -> *mut u8 {
    /// The kernel's own lists may grow by this much out of the reserve.
    const FEW: usize = 16;
    // Not the last of the memory: what is larger can be refused, as far as callers ask with `try_reserve`.
    let has_room = count <= FEW || frames::free() > count + frames::reserve();
    if layout.align() <= FRAME_SIZE && has_room { vmap::allocate(count) } else { null_mut() }
}

#[cfg(not(target_os = "none"))]
fn allocate_scattered(_layout: Layout, _count: usize) -> *mut u8 {
    null_mut()
}

/// # Safety
///
/// `pointer` came from `allocate_large` for this layout.
#[cold]
unsafe fn free_large(pointer: *mut u8, layout: Layout) {
    let count = large_frames(layout);
    LARGE.fetch_sub(count, Ordering::Relaxed);
    #[cfg(target_os = "none")]
    if vmap::contains(pointer) {
        // SAFETY: the caller's promise; objects in the window came from there.
        unsafe { vmap::free(pointer) };
        return;
    }
    // SAFETY: the caller's promise; the frames lie in the direct map in physical order.
    unsafe { frames::free_contiguous(arch::direct_map_physical(pointer), count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::frames::faults;
    use crate::mm::init_on_host;

    fn allocate(layout: Layout) -> *mut u8 {
        // SAFETY: the layouts of these tests have a size.
        unsafe { Heap.alloc(layout) }
    }

    fn free(object: *mut u8, layout: Layout) {
        // SAFETY: the tests free what they allocated, once.
        unsafe { Heap.dealloc(object, layout) }
    }

    #[test]
    fn every_class_fits_its_sizes_and_wastes_at_most_a_quarter() {
        for size in 1..=4096 {
            let class = slab::class_of(Layout::from_size_align(size, 8).expect("valid")).expect("small");
            let fits = slab::size_of_class(class);
            assert!(fits >= size && (class == 0 || slab::size_of_class(class - 1) < size), "{size} → {fits}");
            assert!(size <= 128 || fits * 4 <= size * 5 + 4, "{size} takes {fits}");
        }
        assert_eq!(slab::class_of(Layout::from_size_align(4097, 8).expect("valid")), None);
    }

    #[test]
    fn objects_are_aligned_do_not_overlap_and_keep_what_was_written() {
        init_on_host();
        let mut state = 3_u64;
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for round in 0..30_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 33) as usize;
            if held.len() < 300 && random.is_multiple_of(2) {
                let size = if random.is_multiple_of(64) { 1 + random % 40_000 } else { 1 + random % 700 };
                let align = 1 << (random / 64 % 9);
                let layout = Layout::from_size_align(size, align).expect("valid");
                let object = allocate(layout);
                assert!(!object.is_null() && object.addr().is_multiple_of(align));
                let mark = round as u8;
                // SAFETY: the object has `size` bytes.
                unsafe { object.write_bytes(mark, size) };
                held.push((object, layout, mark));
            } else if !held.is_empty() {
                let (object, layout, mark) = held.swap_remove(random % held.len());
                // SAFETY: the object was filled when it was made.
                let bytes = unsafe { core::slice::from_raw_parts(object, layout.size()) };
                assert!(bytes.iter().all(|byte| *byte == mark), "somebody else wrote to an object");
                free(object, layout);
            }
        }
        held.into_iter().for_each(|(object, layout, _)| free(object, layout));
    }

    #[test]
    fn a_heap_that_shrinks_gives_its_slabs_back() {
        init_on_host();
        let layout = Layout::from_size_align(1500, 8).expect("valid");
        let before = faults::balance();
        let objects: Vec<*mut u8> = (0..2000).map(|_| allocate(layout)).collect();
        let most = faults::balance() - before;
        objects.into_iter().for_each(|object| free(object, layout));
        let rest = faults::balance() - before;
        assert!(most > 700 && rest < 40, "{most} frames at most, {rest} left");
    }

    #[test]
    fn a_box_that_finds_no_memory_is_an_error() {
        init_on_host();
        faults::fail_after(Some(0));
        assert_eq!(try_box([0_u64; 4]).err(), Some(Errno::ENOMEM));
        assert_eq!(try_box(5).map(|five| *five), Ok(5));
    }

    #[test]
    fn allocations_are_counted() {
        init_on_host();
        let layout = Layout::from_size_align(64, 8).expect("valid");
        let before = allocations();
        free(allocate(layout), layout);
        assert!(allocations() > before);
    }
}
