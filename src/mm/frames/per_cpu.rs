//! One value per CPU, reached without a lock.
//!
//! Kernel code is not preempted: between two awaits a task stays on its CPU, and an interrupt handler neither allocates nor
//! frees. So a CPU's own value has one user at a time, as long as nothing outlives [`PerCpu::with`], which a closure ensures.
//! On the developer's machine a thread stands for a CPU.
//!
//! Next: `../frames.rs`.

use core::cell::{Cell, UnsafeCell};

use crate::arch;

/// CPUs that have a value. More CPUs want values that are allocated when a CPU is started.
const CPUS: usize = 64;

/// What each CPU's value is before its first use.
pub trait Initial {
    /// That value.
    const INITIAL: Self;
}

/// A value for each CPU.
pub struct PerCpu<T> {
    cells: [Owned<T>; CPUS],
}

/// A CPU's own value, in cache lines of its own.
#[repr(align(64))]
struct Owned<T> {
    value: UnsafeCell<T>,
    in_use: Cell<bool>,
}

// SAFETY: a cell is only touched by the CPU (on the host: the thread) whose number it bears, see `with`.
unsafe impl<T: Send> Sync for PerCpu<T> {}

impl<T: Initial> PerCpu<T> {
    /// The first value for every CPU.
    pub const fn new() -> PerCpu<T> {
        PerCpu { cells: [const { Owned { value: UnsafeCell::new(T::INITIAL), in_use: Cell::new(false) } }; CPUS] }
    }
}

impl<T> PerCpu<T> {
    /// Works on this CPU's value. `work` must not come back here for the same value; checked builds notice.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let cell = &self.cells[arch::cpu_id()];
        if cfg!(debug_assertions) {
            assert!(!cell.in_use.replace(true), "a CPU's own value is used twice at once");
        }
        // SAFETY: only this CPU uses this cell; kernel code is not preempted and interrupt handlers stay out; `work` does not
        // come back (asserted in checked builds, and visible in the two callers, `frames.rs` and `heap.rs`).
        let result = work(unsafe { &mut *cell.value.get() });
        if cfg!(debug_assertions) {
            cell.in_use.set(false);
        }
        result
    }

    /// Adds up a number over all CPUs. The others may be at work meanwhile: the sum is a snapshot for statistics.
    pub fn sum(&self, number: impl Fn(*const T) -> usize) -> usize {
        self.cells.iter().map(|cell| number(cell.value.get())).sum()
    }
}
