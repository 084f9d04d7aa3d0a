//! A task: a future on the heap, with everything that is needed to run it, queue it and wake it, in one allocation.
//!
//! ```text
//!            spawn() ── memory, future moved in, first reference to the TaskRef, second to the queue
//!               │
//!               ▼
//!        ┌► QUEUED ──── RunQueue::pop() ──► Runnable::poll() ──► RUNNING ──┐
//!        │     ▲                                                           │ Future::poll
//!        │     │ again: woken while it ran                                 ▼
//!        │     └───────────────────────────────────────────── Pending ◄────┴────► Ready
//!        │                                                       │                  │
//!   Waker::wake(),                                               ▼                  ▼
//!   TaskRef::wake() ◄── a queue, a timer, an interrupt ────── IDLE                DONE: the future is dropped at once
//!        (state.rs: who turns QUEUED on pushes)                  │                  │
//!                                                                ▼                  ▼
//!                                last reference dropped ──► reap list ──► executor: Dead::reap() frees the cell
//! ```
//!
//! A waker *is* a pointer to the cell: no allocation per poll, no reference counted for the waker that a poll is lent. It
//! names the task, never a CPU, so it stays right when the task is stolen. Waking from an interrupt handler is one step of
//! the state word and one push into a lock-free inbox. Nothing is ever freed where a reference is dropped, because that may
//! be an interrupt handler: the cell goes to a lock-free list, and the executor frees it between two polls.
//!
//! Three handles, told apart by what holding one proves:
//!
//! - [`TaskRef`] (and every `Waker`): the cell exists.
//! - [`Runnable`]: *the* right to queue or poll the task; there is one at most, and it owns the links in the cell.
//! - [`Dead`]: the last reference is gone; the cell is the holder's alone.
//!
//! The unsafe code of this file rests on exactly these three sentences. A future must be `Send`: its task may be polled by
//! another CPU next time, and the compiler then rejects a lock guard held over an `.await`. next: run_queue.rs.
//!
//! Exercise: a task is dropped half-way when the last reference to it goes while it is IDLE. Who can still hold one?

mod current;
mod queues;
mod registry;

use alloc::alloc::{alloc, dealloc};
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    fmt,
    future::Future,
    marker::PhantomData,
    mem::ManuallyDrop,
    panic::Location,
    pin::Pin,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker},
};

pub(crate) use current::CurrentTask;
pub(crate) use queues::{ByTime, Fifo, Stack};
pub(crate) use registry::Registry;

use crate::{
    list::Links,
    state::{State, Suspend, Wake},
    statistics::Counter,
};

/// How a task is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Runs ahead of every user thread, in the order of wake-ups. For tasks that are short between two awaits.
    Driver,
    /// Shares the CPU with its like in proportion to `weight`; [`Class::NORMAL`] has 1024.
    User {
        /// The share, relative to the other user tasks. 0 counts as 1.
        weight: u32,
    },
}

impl Class {
    /// A user task of ordinary weight: nice 0.
    pub const NORMAL: Self = Self::User { weight: 1024 };

    /// The word in which a task keeps its class: 0, or the weight.
    fn encode(self) -> u32 {
        match self {
            Self::Driver => 0,
            Self::User { weight } => weight.max(1),
        }
    }
}

/// Where a task goes when it is woken, and when the last reference to it is dropped. Both may be asked in an interrupt.
pub(crate) trait Schedule: Sync + 'static {
    fn schedule(&self, task: Runnable);
    /// The task that is being polled on `cpu` was woken: if it is in user mode, it is to come back.
    fn interrupt(&self, cpu: usize);
    fn retire(&self, task: Dead);
}

/// The part of a cell that does not depend on the future's type.
#[repr(C)]
struct Header {
    /// First, so that a pointer to the links is a pointer to the cell (task/queues.rs). The `Runnable`'s, or the `Dead`'s.
    links: UnsafeCell<Links>,
    state: State,
    /// The registry's.
    registered: UnsafeCell<Links>,
    vtable: &'static VTable,
    /// The `&'static S` of the `Cell<F, S>` that this is part of.
    scheduler: *const (),
    facts: Facts,
}

/// What is known about a task, beside its state. All of it may be read at any time; none of it orders anything.
#[derive(Debug)]
pub(crate) struct Facts {
    /// 0 until the registry has given it one.
    id: AtomicU64,
    name: &'static str,
    /// See [`Class::encode`].
    class: AtomicU32,
    /// The CPU that ran it last, or spawned it.
    pub(crate) cpu: AtomicUsize,
    /// The virtual time it has had, in nanoseconds of a task of ordinary weight, on the scale of `cpu`.
    pub(crate) virtual_runtime: AtomicU64,
    pub(crate) run_time: Counter,
    pub(crate) polls: Counter,
    /// The `&'static Location` of the wait that it was last seen to begin, or null.
    waits_at: AtomicPtr<Location<'static>>,
}

/// What differs from one type of future to the next. One static table per type.
struct VTable {
    /// Polls the future; when it is ready, drops it.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Hands the task's reference and right to be polled to its scheduler.
    schedule: unsafe fn(NonNull<Header>),
    /// Tells its scheduler that the task was woken while it runs.
    interrupt: unsafe fn(*const (), usize),
    /// Hands the cell, to which no reference is left, to its scheduler.
    retire: unsafe fn(NonNull<Header>),
    /// Drops what is in the cell, and frees it.
    free: unsafe fn(NonNull<Header>),
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
            cpu: AtomicUsize::new(new.cpu),
            virtual_runtime: AtomicU64::new(new.virtual_runtime),
            run_time: Counter::default(),
            polls: Counter::default(),
            waits_at: AtomicPtr::new(ptr::null_mut()),
        },
    };
    // SAFETY: the memory is fresh, of the right size and alignment, and nobody else's.
    unsafe { cell.write(Cell { header, scheduler: PhantomData, future: UnsafeCell::new(ManuallyDrop::new(future)) }) };
    // The state counts two references: these.
    Ok((TaskRef(cell.cast()), Runnable(cell.cast())))
}

/// A reference to a task: keeps its cell in memory, wakes it, names it.
pub struct TaskRef(NonNull<Header>);

// SAFETY: of the cell, a reference reaches only atomics, and the future is `Send`.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// What a task needs of memory, beside its future.
    pub const CELL_BYTES: usize = size_of::<Header>();

    fn header(&self) -> &Header {
        // SAFETY: the reference that this handle counts keeps the cell in memory; of a header only atomics ever change, but for
        // the links in their cell.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.header().facts
    }

    /// Has the task polled again, soon. From anywhere, an interrupt handler included: takes no lock, needs no memory.
    pub fn wake(&self) {
        match self.header().state.wake_by_ref() {
            // SAFETY: the state says that the right to queue it, and a reference, are ours to give.
            Wake::Enqueue => unsafe { (self.header().vtable.schedule)(self.0) },
            // SAFETY: the scheduler is the cell's own.
            Wake::Interrupt => unsafe {
                (self.header().vtable.interrupt)(self.header().scheduler, self.facts().cpu.load(Ordering::Relaxed));
            },
            Wake::Nothing | Wake::LastReference => {}
        }
    }

    /// A waker of this task.
    #[must_use]
    pub fn waker(&self) -> Waker {
        let this = ManuallyDrop::new(self.clone());
        // SAFETY: the waker takes over the reference of the clone; see `WAKER`.
        unsafe { Waker::from_raw(raw_waker(this.0)) }
    }

    /// The task that `waker` wakes, if it is a task's waker as the executor hands it to `poll` (not one that a combinator has wrapped).
    #[must_use]
    pub fn from_waker(waker: &Waker) -> Option<Self> {
        let header = header_of(waker)?;
        // SAFETY: the waker keeps the cell in memory during this call.
        unsafe { header.as_ref() }.state.add_reference();
        Some(Self(header))
    }

    /// Whether the task has to be polled (again): it is queued or, if it is running, was woken since its poll began.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.header().state.is_notified()
    }

    /// Takes back a notification of the *running* task: it has seen that it was woken, and looks for the reason itself.
    pub(crate) fn clear_notified(&self) {
        self.header().state.clear_notified();
    }

    /// Whether the task's future has finished.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.header().state.is_done()
    }

    /// Whether some CPU is polling it at this moment.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.header().state.is_running()
    }

    /// The task's number: unique in its executor, never 0, never used twice.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.facts().id()
    }

    /// The name it was spawned with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.facts().name
    }

    /// How it is scheduled.
    #[must_use]
    pub fn class(&self) -> Class {
        self.facts().class()
    }

    /// Schedules a user task with another weight from its next turn on. A driver task stays one.
    pub fn set_weight(&self, weight: u32) {
        let class = &self.facts().class;
        // Relaxed: nothing else depends on it.
        if class.load(Ordering::Relaxed) != 0 {
            class.store(weight.max(1), Ordering::Relaxed);
        }
    }

    /// How often it was polled.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.facts().polls.get()
    }

    /// For how long it has been polled, in all; a user thread's time in user mode included.
    #[must_use]
    pub fn run_time(&self) -> core::time::Duration {
        core::time::Duration::from_nanos(self.facts().run_time.get())
    }

    /// Where the wait was begun that it was last seen to begin: the caller of [`WaitQueue::wait`](crate::sync::WaitQueue::wait),
    /// for example. Meaningful while the task is idle.
    #[must_use]
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        let location = self.facts().waits_at.load(Ordering::Relaxed);
        // SAFETY: null, or made from a `&'static Location` in `note_wait`.
        unsafe { location.as_ref() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        self.header().state.add_reference();
        Self(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if self.header().state.drop_reference() {
            // SAFETY: that was the last reference.
            unsafe { (self.0.as_ref().vtable.retire)(self.0) };
        }
    }
}

impl PartialEq for TaskRef {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for TaskRef {}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("state", &self.header().state)
            .finish_non_exhaustive()
    }
}

impl Facts {
    pub(crate) fn id(&self) -> u64 {
        // Relaxed: it was given before the task was queued.
        self.id.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How the task is scheduled.
    pub(crate) fn class(&self) -> Class {
        // Relaxed: nothing else depends on it.
        match self.class.load(Ordering::Relaxed) {
            0 => Class::Driver,
            weight => Class::User { weight },
        }
    }
}

/// Remembers, for whoever looks at the task that is being polled with `context`, where it is about to wait.
pub(crate) fn note_wait(context: &Context<'_>, location: &'static Location<'static>) {
    if let Some(header) = header_of(context.waker()) {
        // SAFETY: the waker keeps the cell in memory during this call.
        let facts = unsafe { &header.as_ref().facts };
        facts.waits_at.store(ptr::from_ref(location).cast_mut(), Ordering::Relaxed);
    }
}

/// The cell behind a task's own waker.
fn header_of(waker: &Waker) -> Option<NonNull<Header>> {
    // The table's address need not be unique for a `const`; that of a static is.
    if !ptr::eq(waker.vtable(), &raw const WAKER) {
        return None;
    }
    NonNull::new(waker.data().cast_mut().cast())
}

/// The right to queue a task and to poll it, with the queue's reference. There is at most one of each task.
#[derive(Debug)]
pub(crate) struct Runnable(NonNull<Header>);

// SAFETY: the future is `Send`, and a `Runnable` is its only door.
unsafe impl Send for Runnable {}

/// How a poll ended.
pub(crate) enum Outcome {
    /// The task waits.
    Idle,
    /// It was woken while it ran: queue it again.
    Again(Runnable),
    /// It has finished.
    Done(Option<Dead>),
    /// It waits, and nobody is left who could wake it.
    Abandoned(Dead),
}

impl Runnable {
    pub(crate) fn facts(&self) -> &Facts {
        // SAFETY: the queue's reference keeps the cell in memory; facts are atomics and constants.
        unsafe { &(*self.0.as_ptr()).facts }
    }

    /// Polls the future once. `after` is called when it has been polled, and the task is still this CPU's.
    fn poll(self, after: impl FnOnce(&Facts)) -> Outcome {
        let task = self.0;
        // SAFETY: the queue's reference keeps the cell in memory until the end of this function gives it back.
        let header = unsafe { &*task.as_ptr() };
        header.state.start();
        // SAFETY: the waker borrows the queue's reference: it is never dropped, and does not outlive the poll.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(task)) });
        // SAFETY: we own the `Runnable`, and a task that is DONE is never queued.
        let poll = unsafe { (header.vtable.poll)(task, &mut Context::from_waker(&waker)) };
        after(&header.facts);
        match poll {
            Poll::Ready(()) => Outcome::Done(header.state.complete().then_some(Dead(task))),
            Poll::Pending => match header.state.suspend() {
                Suspend::Idle => Outcome::Idle,
                Suspend::Again => Outcome::Again(self),
                Suspend::LastReference => Outcome::Abandoned(Dead(task)),
            },
        }
    }
}

/// A cell to which no reference is left, on its way to be freed.
pub(crate) struct Dead(NonNull<Header>);

// SAFETY: the future is `Send`, and the cell is the holder's alone.
unsafe impl Send for Dead {}

impl Dead {
    /// Drops the future, unless it has finished, and frees the cell. Not in an interrupt handler.
    pub(crate) fn reap(self) {
        // SAFETY: no reference is left, and `self` is consumed.
        unsafe { ((*self.0.as_ptr()).vtable.free)(self.0) };
    }
}

/// The table of every task's waker; its address tells them from other wakers.
static WAKER: RawWakerVTable = RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

const fn raw_waker(task: NonNull<Header>) -> RawWaker {
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
