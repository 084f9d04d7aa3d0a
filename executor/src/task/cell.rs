//! A task's one allocation, and the four functions that know the type of its future. next: waker.rs.

use alloc::alloc::{alloc, dealloc};
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    fmt,
    future::Future,
    marker::PhantomData,
    mem::ManuallyDrop,
    pin::Pin,
    ptr::{self, NonNull},
    sync::atomic::{self as plain, AtomicPtr},
    task::{Context, Poll},
};

use super::{Class, Dead, Facts, Header, Runnable, Schedule, TaskRef};
use crate::{
    atomic::{AtomicU32, AtomicU64, AtomicUsize},
    list::Links,
    state::State,
    statistics::Counter,
};

/// What differs from one type of future to the next. One static table per type.
pub(super) struct VTable {
    /// Polls the future; when it is ready, drops it.
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Hands the task's reference and right to be polled to its scheduler.
    pub(super) schedule: unsafe fn(NonNull<Header>),
    /// Tells its scheduler that the task was woken while it runs.
    pub(super) interrupt: unsafe fn(*const (), usize),
    /// Hands the cell, to which no reference is left, to its scheduler.
    pub(super) retire: unsafe fn(NonNull<Header>),
    /// Drops what is in the cell, and frees it.
    pub(super) free: unsafe fn(NonNull<Header>),
}

/// The allocation.
#[repr(C)]
struct Cell<F, S: 'static> {
    header: Header,
    scheduler: PhantomData<&'static S>,
    /// Touched by whoever owns the `Runnable` while the task is not DONE, by the owner of the `Dead` afterwards.
    future: UnsafeCell<ManuallyDrop<F>>,
}

/// There was no memory for a task. The future comes back as it was given.
pub struct SpawnError<F> {
    /// The future that was to be spawned.
    pub future: F,
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpawnError")
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for a task")
    }
}

/// A task as it is born.
pub(crate) struct NewTask {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) cpu: usize,
    pub(crate) affinity: u64,
    pub(crate) virtual_runtime: u64,
}

impl<F, S> Cell<F, S>
where
    F: Future<Output = ()> + Send + 'static,
    S: Schedule,
{
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        schedule: Self::schedule,
        interrupt: Self::interrupt,
        retire: Self::retire,
        free: Self::free,
    };

    /// # Safety
    /// `task` is a `Cell<F, S>` whose `Runnable` the caller owns, and whose future has not finished.
    unsafe fn poll(task: NonNull<Header>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the caller owns the `Runnable`: nobody else touches the future. It never moves, and is dropped in place below.
        let future = unsafe { &mut *(*task.cast::<Self>().as_ptr()).future.get() };
        // SAFETY: as above.
        let poll = unsafe { Pin::new_unchecked(&mut **future) }.poll(context);
        if poll.is_ready() {
            // SAFETY: dropped once: after this the state becomes DONE, and `free` asks for that.
            unsafe { ManuallyDrop::drop(future) };
        }
        poll
    }

    /// # Safety
    /// `task` is a `Cell<F, S>`, and its right to be queued, with one reference, is the caller's to give.
    unsafe fn schedule(task: NonNull<Header>) {
        // SAFETY: the cell exists, because the caller has a reference to it; its scheduler is an `S`, and static.
        let scheduler = unsafe { &*(*task.as_ptr()).scheduler.cast::<S>() };
        scheduler.schedule(Runnable(task));
    }

    /// # Safety
    /// `scheduler` is what a `Cell<F, S>` says. (Not the cell itself: the caller's reference to it may be gone already.)
    unsafe fn interrupt(scheduler: *const (), cpu: usize) {
        // SAFETY: it is an `S`, and static.
        unsafe { &*scheduler.cast::<S>() }.interrupt(cpu);
    }

    /// # Safety
    /// `task` is a `Cell<F, S>` to which no reference is left.
    unsafe fn retire(task: NonNull<Header>) {
        // SAFETY: the cell is the caller's alone; its scheduler is an `S`, and static.
        let scheduler = unsafe { &*(*task.as_ptr()).scheduler.cast::<S>() };
        scheduler.retire(Dead(task));
    }

    /// # Safety
    /// `task` is a `Cell<F, S>` to which no reference is left; it is not used again.
    unsafe fn free(task: NonNull<Header>) {
        let cell = task.cast::<Self>();
        // SAFETY: the cell is the caller's alone; unless it is DONE, the future is still in it. It was allocated in `spawn` with
        // this layout.
        unsafe {
            if !(*cell.as_ptr()).header.state.is_done() {
                ManuallyDrop::drop(&mut *(*cell.as_ptr()).future.get());
            }
            ptr::drop_in_place(cell.as_ptr());
            dealloc(cell.as_ptr().cast(), Layout::new::<Self>());
        }
    }
}

/// Makes a task of `future`: a handle to it, and the right to queue it.
///
/// # Errors
/// There is no memory for the cell.
pub(crate) fn spawn<F, S>(scheduler: &'static S, new: &NewTask, future: F) -> Result<(TaskRef, Runnable), SpawnError<F>>
where
    F: Future<Output = ()> + Send + 'static,
    S: Schedule,
{
    // SAFETY: the layout is not of size zero: a cell has a header.
    let memory = unsafe { alloc(Layout::new::<Cell<F, S>>()) };
    let Some(cell) = NonNull::new(memory.cast::<Cell<F, S>>()) else {
        return Err(SpawnError { future });
    };
    let header = Header {
        links: UnsafeCell::new(Links::new()),
        state: State::new_queued(1),
        registered: UnsafeCell::new(Links::new()),
        vtable: const { &Cell::<F, S>::VTABLE },
        scheduler: ptr::from_ref(scheduler).cast(),
        facts: Facts {
            id: AtomicU64::new(0),
            name: new.name,
            class: AtomicU32::new(new.class.encode()),
            worst_poll: plain::AtomicU32::new(0),
            cpu: AtomicUsize::new(new.cpu),
            affinity: AtomicU64::new(new.affinity),
            virtual_runtime: AtomicU64::new(new.virtual_runtime),
            run_time: Counter::default(),
            polls: Counter::default(),
            wakes: Counter::default(),
            woken_by: Counter::default(),
            idle_since: Counter::default(),
            waits_at: AtomicPtr::new(ptr::null_mut()),
        },
    };
    // SAFETY: the memory is fresh, of the right size and alignment, and nobody else's.
    unsafe { cell.write(Cell { header, scheduler: PhantomData, future: UnsafeCell::new(ManuallyDrop::new(future)) }) };
    // The state counts two references: these.
    Ok((TaskRef(cell.cast()), Runnable(cell.cast())))
}
