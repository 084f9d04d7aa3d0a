//! The machine on the developer's own machine, for `cargo test`.
//!
//! RAM is one lazily filled allocation, and "physical address" is an offset in it. A thread stands for a CPU: it has a number
//! and a page-table root of its own. The copy routines, which the hardware's MMU serves on the bare machine, walk the very
//! same page tables in software, with the same checks, and stop where the CPU would fault.
//!
//! Next: `x86_64/paging.rs`.

use alloc::boxed::Box;
use core::cell::Cell;
use std::sync::{Mutex, OnceLock};

use super::paging::{Entry, LEVELS, USER_END, index};
use super::{BootInfo, MemoryKind, MemoryRegion};

/// CPUs, that is: threads that may use the kernel's code at the same time.
pub const MAX_CPUS: usize = 64;
/// Bytes of RAM. Most of it is never touched.
const RAM: usize = 1 << 30;
/// The largest block of the frame allocator: what is aligned in physical memory is aligned for the host too.
const ALIGN: usize = 1 << 22;
/// What [`boot_info`] calls usable begins here; below lies what a PC keeps for itself.
const USABLE: u64 = 0x10_0000;
/// The second half of RAM is for tests that want memory of their own.
const PRIVATE: u64 = (RAM / 2) as u64;

fn ram() -> *mut u8 {
    static BASE: OnceLock<usize> = OnceLock::new();
    let base = *BASE.get_or_init(|| {
        // With a small alignment the host's allocator maps fresh pages, and need not fill them with zeros.
        let layout = std::alloc::Layout::from_size_align(RAM + ALIGN, 16).expect("a constant layout");
        // SAFETY: the layout has a size.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!base.is_null(), "no address space for the machine's RAM");
        base.expose_provenance().next_multiple_of(ALIGN)
    });
    core::ptr::with_exposed_provenance_mut(base)
}

/// Where the kernel sees the byte at a physical address.
pub fn direct_map(physical: u64) -> *mut u8 {
    assert!(physical < RAM as u64, "no RAM at {physical:#x}");
    ram().wrapping_add(physical as usize)
}

/// The physical address of a byte that [`direct_map`] showed.
pub fn direct_map_physical(pointer: *mut u8) -> u64 {
    (pointer as usize - ram() as usize) as u64
}

/// What a boot loader would have told.
pub fn boot_info() -> &'static BootInfo {
    static INFO: OnceLock<BootInfo> = OnceLock::new();
    INFO.get_or_init(|| {
        let region = MemoryRegion { start: USABLE, end: PRIVATE, kind: MemoryKind::Usable };
        BootInfo {
            memory: Box::leak(Box::new([region])),
            command_line: b"",
            initrd: None,
            rsdp: None,
            framebuffer: None,
            kernel: 0..0,
        }
    })
}

/// Physical memory that belongs to the caller alone, for ever.
///
/// # Panics
///
/// When all tests together ask for more than half a gigabyte.
pub fn private_memory(bytes: u64) -> core::ops::Range<u64> {
    static NEXT: Mutex<u64> = Mutex::new(PRIVATE);
    let mut next = NEXT.lock().expect("nobody panics in here");
    let start = *next;
    assert!(start + bytes <= RAM as u64, "no private memory left");
    *next += bytes.next_multiple_of(1 << 22);
    start..start + bytes
}

/// A thread's number, given back when it ends.
struct CpuId(usize);

static CPU_IDS: Mutex<[bool; MAX_CPUS]> = Mutex::new([false; MAX_CPUS]);

impl CpuId {
    fn take() -> CpuId {
        loop {
            let mut taken = CPU_IDS.lock().expect("nobody panics in here");
            if let Some(id) = taken.iter().position(|taken| !taken) {
                taken[id] = true;
                return CpuId(id);
            }
            drop(taken);
            std::thread::yield_now();
        }
    }
}

impl Drop for CpuId {
    fn drop(&mut self) {
        CPU_IDS.lock().expect("nobody panics in here")[self.0] = false;
    }
}

thread_local! {
    static CPU_ID: CpuId = CpuId::take();
    static ROOT: Cell<u64> = const { Cell::new(0) };
    static FLUSHES: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread.
pub fn cpu_id() -> usize {
    CPU_ID.with(|id| id.0)
}

/// Makes `root` the page table of this thread.
pub fn activate(root: u64) {
    ROOT.set(root);
    FLUSHES.set(FLUSHES.get() + 1);
}

/// The page table of this thread.
pub fn active_root() -> u64 {
    ROOT.get()
}

/// Forgets a translation: there is no cache of them here, so it is only counted.
pub fn flush_page(_address: usize) {
    FLUSHES.set(FLUSHES.get() + 1);
}

/// How often this thread has flushed translations.
pub fn flushes() -> usize {
    FLUSHES.get()
}

/// Where user address `address` is in RAM if ring 3 may read it (or write it) through this thread's page table.
fn walk(address: usize, for_writing: bool) -> Option<*mut u8> {
    if ROOT.get() == 0 || address >= USER_END {
        return None;
    }
    let mut table = ROOT.get();
    for level in (0..LEVELS).rev() {
        // SAFETY: the root was made by mm and its tables are whole frames of RAM; entries are read as single words.
        let entry = unsafe { direct_map(table).cast::<Entry>().add(index(address, level)).read_volatile() };
        if !entry.is_user() || for_writing && !entry.is_writable() {
            return None;
        }
        table = entry.physical();
    }
    Some(direct_map(table).wrapping_add(address % 4096))
}

/// Goes over the bytes of user memory page by page; returns how many bytes were not reached because of a fault.
fn each_page(address: usize, len: usize, for_writing: bool, mut work: impl FnMut(*mut u8, usize, usize)) -> usize {
    let mut done = 0;
    while done < len {
        let Some(at) = address.checked_add(done).and_then(|address| walk(address, for_writing)) else { break };
        let part = (4096 - (address + done) % 4096).min(len - done);
        work(at, done, part);
        done += part;
    }
    len - done
}

/// What the active program sees at `address`, if it may look there: for the steps of programs.
pub fn peek<const N: usize>(address: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the destination is N bytes.
    let missed = unsafe { copy::from_user(bytes.as_mut_ptr(), address, N) };
    (missed == 0).then_some(bytes)
}

/// Has the active program write to its memory; says whether it could.
pub fn poke(address: usize, bytes: &[u8]) -> bool {
    // SAFETY: the source is a slice.
    let missed = unsafe { copy::to_user(address, bytes.as_ptr(), bytes.len()) };
    missed == 0
}

/// The routines that touch user memory through the active page table.
pub mod copy {
    use core::sync::atomic::{AtomicU32, Ordering};

    /// Copies `len` bytes of user memory; returns how many were not copied because the page is not there.
    ///
    /// # Safety
    ///
    /// `destination` is good for writing `len` bytes.
    pub unsafe fn from_user(destination: *mut u8, source: usize, len: usize) -> usize {
        super::each_page(source, len, false, |page, done, part| {
            // SAFETY: the walk ends in a whole page of RAM; the caller vouches for the destination.
            unsafe { core::ptr::copy(page, destination.add(done), part) }
        })
    }

    /// Copies `len` bytes to user memory; returns how many were not copied because the page is not there, or not writable.
    ///
    /// # Safety
    ///
    /// `source` is good for reading `len` bytes.
    pub unsafe fn to_user(destination: usize, source: *const u8, len: usize) -> usize {
        super::each_page(destination, len, true, |page, done, part| {
            // SAFETY: the walk ends in a whole page of RAM; the caller vouches for the source.
            unsafe { core::ptr::copy(source.add(done), page, part) }
        })
    }

    /// Reads `len` bytes of user memory; says whether all could be read.
    ///
    /// # Safety
    ///
    /// As of [`from_user`].
    pub unsafe fn value_from_user(into: *mut u8, from: usize, len: usize) -> bool {
        // SAFETY: as the caller vouches.
        unsafe { from_user(into, from, len) == 0 }
    }

    /// Writes `len` bytes to user memory; says whether all could be written.
    ///
    /// # Safety
    ///
    /// As of [`to_user`].
    pub unsafe fn value_to_user(to: usize, from: *const u8, len: usize) -> bool {
        // SAFETY: as the caller vouches.
        unsafe { to_user(to, from, len) == 0 }
    }

    /// Sets `len` bytes of user memory to zero; returns how many were not.
    pub fn zero_user(destination: usize, len: usize) -> usize {
        super::each_page(destination, len, true, |page, _, part| {
            // SAFETY: the walk ends in a whole page of RAM.
            unsafe { page.write_bytes(0, part) }
        })
    }

    fn with_word<R>(address: usize, for_writing: bool, work: impl FnOnce(&AtomicU32) -> R) -> Option<R> {
        let at = address.is_multiple_of(4).then(|| super::walk(address, for_writing))??;
        // SAFETY: an aligned word inside a page of RAM, which is only touched as raw memory and as atomics.
        Some(work(unsafe { AtomicU32::from_ptr(at.cast()) }))
    }

    /// Reads an aligned word; `None` if it is not there.
    pub fn load_u32_user(address: usize) -> Option<u32> {
        with_word(address, false, |word| word.load(Ordering::SeqCst))
    }

    /// Replaces an aligned word by `new` if it is `expected`. `Ok`: it was; `Err`: what it was instead; `None`: it faulted.
    pub fn compare_exchange_u32_user(address: usize, expected: u32, new: u32) -> Option<Result<u32, u32>> {
        with_word(address, true, |word| word.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst))
    }

    /// Replaces an aligned word by what `change` makes of it; returns what it was. `None`: it faulted.
    pub fn fetch_op_u32_user(address: usize, change: impl Fn(u32) -> u32) -> Option<u32> {
        let change = |word: &AtomicU32| {
            word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(change(old))).unwrap_or_else(|old| old)
        };
        with_word(address, true, change)
    }
}
