//! Which task a CPU is polling.
//!
//! The executor sets it around each poll; on the same CPU, code further up the stack (the thread's own code, an interrupt
//! handler) may ask for it. No reference is counted: the poll below holds one. next: queues.rs.

#[cfg(not(target_os = "none"))]
use core::sync::atomic::AtomicUsize;
use core::{
    mem::ManuallyDrop,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};

use super::{Facts, Header, Outcome, Runnable, TaskRef};

/// The task that a CPU is polling: set by the executor on that CPU around each poll, and asked for on that CPU only.
pub(crate) struct CurrentTask {
    task: AtomicPtr<Header>,
    /// On the host "CPU" is what a `Machine` claims it to be, so the claim is checked.
    #[cfg(not(target_os = "none"))]
    thread: AtomicUsize,
}

impl CurrentTask {
    pub(crate) const fn new() -> Self {
        Self {
            task: AtomicPtr::new(ptr::null_mut()),
            #[cfg(not(target_os = "none"))]
            thread: AtomicUsize::new(0),
        }
    }

    /// Polls `task`, and lets it be found meanwhile. `after` is called between the poll and whatever becomes of the task.
    #[inline]
    pub(crate) fn poll(&self, task: Runnable, after: impl FnOnce(&Facts, bool)) -> Outcome {
        #[cfg(not(target_os = "none"))]
        self.thread.store(this_thread(), Ordering::Relaxed);
        // Relaxed, here and below: only this CPU looks.
        self.task.store(task.0.as_ptr(), Ordering::Relaxed);
        let _over = Over(&self.task);
        task.poll(after)
    }

    /// Whether a task is being polled: for other CPUs a hint.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        !self.task.load(Ordering::Relaxed).is_null()
    }

    /// Shows the task to `look`, without counting a reference.
    #[inline]
    pub(crate) fn with<R>(&self, look: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        #[cfg(not(target_os = "none"))]
        if self.thread.load(Ordering::Relaxed) != this_thread() {
            return None;
        }
        let task = NonNull::new(self.task.load(Ordering::Relaxed))?;
        // SAFETY: not null, so `poll` above is under way on this CPU, below us on its stack (in the kernel by the contract of
        // `Machine::current_cpu`, on the host because the thread is the same), and the queue's reference keeps the cell.
        Some(look(&ManuallyDrop::new(TaskRef(task))))
    }
}

/// Takes the task back when its poll is over, by a panic too.
struct Over<'a>(&'a AtomicPtr<Header>);

impl Drop for Over<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
    }
}

/// A number that no other thread of the host has at the same time.
#[cfg(not(target_os = "none"))]
#[inline]
fn this_thread() -> usize {
    std::thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| ptr::from_ref(here).addr())
}
