//! A task's waker: a pointer to its cell, and one table for all. next: queues.rs.

use core::{
    mem::ManuallyDrop,
    panic::Location,
    ptr::{self, NonNull},
    sync::atomic::Ordering,
    task::{Context, RawWaker, RawWakerVTable, Waker},
};

use super::{Header, TaskRef};
use crate::state::Wake;

/// Remembers, for whoever looks at the task that is being polled with `context`, where it is about to wait.
#[inline]
pub(crate) fn note_wait(context: &Context<'_>, location: &'static Location<'static>) {
    if let Some(header) = header_of(context.waker()) {
        // SAFETY: the waker keeps the cell in memory during this call.
        let facts = unsafe { &header.as_ref().facts };
        facts.waits_at.store(ptr::from_ref(location).cast_mut(), Ordering::Relaxed);
    }
}

/// Says that the task that is being polled with `context` is about to wait here, for whoever looks at it: for a future that is written by
/// hand and waits with none of this crate's.
#[track_caller]
pub fn waits_here(context: &Context<'_>) {
    note_wait(context, Location::caller());
}

/// The cell behind a task's own waker.
#[inline]
pub(super) fn header_of(waker: &Waker) -> Option<NonNull<Header>> {
    // The table's address need not be unique for a `const`; that of a static is.
    if !ptr::eq(waker.vtable(), &raw const WAKER) {
        return None;
    }
    NonNull::new(waker.data().cast_mut().cast())
}

/// The table of every task's waker; its address tells them from other wakers.
static WAKER: RawWakerVTable = RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

pub(super) const fn raw_waker(task: NonNull<Header>) -> RawWaker {
    RawWaker::new(task.as_ptr().cast_const().cast(), &WAKER)
}

/// # Safety
/// `data` comes from a waker of this table: a cell, with one reference that is the waker's.
unsafe fn waker_clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker's reference keeps the cell in memory; it is never null.
    let task = unsafe { NonNull::new_unchecked(data.cast::<Header>().cast_mut()) };
    // SAFETY: as above.
    unsafe { task.as_ref() }.state.add_reference();
    raw_waker(task)
}

/// # Safety
/// As [`waker_clone`]; the reference is consumed.
unsafe fn waker_wake(data: *const ()) {
    // SAFETY: the waker's reference keeps the cell in memory; it is never null.
    let task = unsafe { NonNull::new_unchecked(data.cast::<Header>().cast_mut()) };
    // SAFETY: as above, until the state's word consumes the reference; what is read from it here is static, or a copy.
    let (state, vtable, scheduler, cpu) = unsafe {
        let header = task.as_ptr();
        (&(*header).state, (*header).vtable, (*header).scheduler, (*header).facts.cpu.load(Ordering::Relaxed))
    };
    match state.wake_by_value() {
        // SAFETY: the state says that the right to queue it, and a reference, are ours to give.
        Wake::Enqueue => unsafe { (vtable.schedule)(task) },
        // SAFETY: the scheduler is the cell's own. The cell itself may be gone by now.
        Wake::Interrupt => unsafe { (vtable.interrupt)(scheduler, cpu) },
        Wake::Nothing => {}
        // SAFETY: the state says that no reference is left.
        Wake::LastReference => unsafe { (vtable.retire)(task) },
    }
}

/// # Safety
/// As [`waker_clone`].
unsafe fn waker_wake_by_ref(data: *const ()) {
    // SAFETY: the waker's reference keeps the cell in memory; it is never null, and never dropped here.
    ManuallyDrop::new(TaskRef(unsafe { NonNull::new_unchecked(data.cast::<Header>().cast_mut()) })).wake();
}

/// # Safety
/// As [`waker_clone`]; the reference is consumed.
unsafe fn waker_drop(data: *const ()) {
    // SAFETY: the waker's reference is the handle's now; it is never null.
    drop(TaskRef(unsafe { NonNull::new_unchecked(data.cast::<Header>().cast_mut()) }));
}
