//! Where tables come from and go to: those that were freed are full of zeros, and each CPU keeps a few for the next fork.
//!
//! Next: `free.rs`.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::raw::set_entry_count;
use super::{OutOfMemory, kernel_root};
use crate::arch::direct_map;
use crate::arch::paging::{ENTRIES, KERNEL_ROOT_INDEX};
use crate::mm::frames::{self, Frame, Initial, PerCpu, Purpose};

/// Frames in page tables of programs.
static TABLES: AtomicUsize = AtomicUsize::new(0);

/// Frames in page tables of programs, for /proc/meminfo.
pub fn tables_in_use() -> usize {
    TABLES.load(Relaxed)
}

/// Tables without use that are full of zeros, and roots of which only the kernel's half is filled, of one CPU.
struct Spare {
    tables: Stack<24>,
    roots: Stack<4>,
}

impl Initial for Spare {
    const INITIAL: Spare = Spare { tables: Stack::EMPTY, roots: Stack::EMPTY };
}

/// A few frames.
struct Stack<const N: usize> {
    frames: [Option<Frame>; N],
    count: usize,
}

impl<const N: usize> Stack<N> {
    const EMPTY: Stack<N> = Stack { frames: [const { None }; N], count: 0 };

    fn pop(&mut self) -> Option<Frame> {
        self.count = self.count.checked_sub(1)?;
        self.frames[self.count].take()
    }

    /// The frame comes back if there is no room.
    fn push(&mut self, frame: Frame) -> Option<Frame> {
        match self.frames.get_mut(self.count) {
            Some(place) => {
                self.count += 1;
                *place = Some(frame);
                None
            }
            None => Some(frame),
        }
    }
}

static SPARE: PerCpu<Spare> = PerCpu::new();

/// A table full of zeros.
///
/// # Errors
///
/// [`OutOfMemory`].
pub fn allocate_table() -> Result<Frame, OutOfMemory> {
    let table = match reuse(|spare| &mut spare.tables)? {
        Some(table) => table,
        None => Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?,
    };
    // SAFETY: the table was just allocated.
    unsafe { set_entry_count(table.physical(), 0) };
    TABLES.fetch_add(1, Relaxed);
    Ok(table)
}

/// A root that has the kernel's half, and nothing in the other.
///
/// # Errors
///
/// [`OutOfMemory`].
pub fn allocate_root() -> Result<Frame, OutOfMemory> {
    let root = match reuse(|spare| &mut spare.roots)? {
        Some(root) => root,
        None => {
            let root = Frame::allocate_zeroed(Purpose::User).ok_or(OutOfMemory)?;
            // SAFETY: both are whole tables; the kernel's half of the boot table never changes after boot.
            unsafe {
                let from = direct_map(kernel_root()).cast::<u64>().add(KERNEL_ROOT_INDEX);
                let to = root.pointer().as_ptr().cast::<u64>().add(KERNEL_ROOT_INDEX);
                core::ptr::copy_nonoverlapping(from, to, ENTRIES - KERNEL_ROOT_INDEX);
            }
            root
        }
    };
    // SAFETY: the table was just allocated.
    unsafe { set_entry_count(root.physical(), 0) };
    TABLES.fetch_add(1, Relaxed);
    Ok(root)
}

/// A table that this CPU has kept, if there is one.
fn reuse<const N: usize>(kept: impl Fn(&mut Spare) -> &mut Stack<N>) -> Result<Option<Frame>, OutOfMemory> {
    let table = SPARE.with(|spare| kept(spare).pop());
    if table.is_some() {
        frames::faults::count(1);
        if frames::faults::strikes() {
            return Err(OutOfMemory);
        }
    }
    Ok(table)
}

/// Frees a table.
///
/// # Safety
///
/// It maps nothing, and the entry that led to it is gone: its reference passes to this call.
pub unsafe fn free_table(table: u64) {
    // SAFETY: the caller's promise.
    unsafe { recycle(Frame::from_raw(table), |spare| &mut spare.tables) };
}

/// Frees a root.
///
/// # Safety
///
/// It is in no use, and its user half is full of zeros.
pub unsafe fn free_root(root: Frame) {
    // SAFETY: the caller's promise.
    unsafe { recycle(root, |spare| &mut spare.roots) };
}

/// Keeps a table for the next who needs one, or frees it.
///
/// # Safety
///
/// The table is in no use, and full of zeros (a root: in its user half).
unsafe fn recycle<const N: usize>(table: Frame, kept: impl Fn(&mut Spare) -> &mut Stack<N>) {
    TABLES.fetch_sub(1, Relaxed);
    let refused = SPARE.with(|spare| kept(spare).push(table));
    if refused.is_none() {
        frames::faults::count(-1);
    }
}

/// Frames that CPUs keep as spare tables.
pub fn spare_tables() -> usize {
    // SAFETY: the pointer is valid for ever; each count is read as one word, whatever its CPU does to it meanwhile.
    SPARE.sum(|spare| unsafe {
        (&raw const (*spare).tables.count).read_volatile() + (&raw const (*spare).roots.count).read_volatile()
    })
}
