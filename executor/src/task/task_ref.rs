//! The handle by which a task is named, woken and asked about. next: waker.rs.

use core::{
    fmt, mem::ManuallyDrop, panic::Location, ptr::NonNull, sync::atomic::Ordering, task::Waker, time::Duration,
};

use super::{
    Class, Facts, Header,
    waker::{header_of, raw_waker},
};
use crate::{cause::Cause, state::Wake, time::Instant};

/// A reference to a task: keeps its cell in memory, wakes it, names it.
pub struct TaskRef(pub(super) NonNull<Header>);

// SAFETY: of the cell, a reference reaches only atomics, and the future is `Send`.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// What a task needs of memory, beside its future.
    pub const CELL_BYTES: usize = size_of::<Header>();

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the reference that this handle counts keeps the cell in memory; of a header only atomics ever change, but for
        // the links in their cell.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn facts(&self) -> &Facts {
        &self.header().facts
    }

    /// Has the task polled again, soon. From anywhere, an interrupt handler included: takes no lock, needs no memory.
    #[inline]
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
    #[inline]
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
    #[inline]
    pub fn class(&self) -> Class {
        self.facts().class()
    }

    /// Schedules the task in another class from its next turn on. A driver task stays one, and nobody else becomes one.
    pub fn set_class(&self, class: Class) {
        let word = &self.facts().class;
        // Relaxed: nothing else depends on it.
        if class != Class::Driver && word.load(Ordering::Relaxed) != 0 {
            word.store(class.encode(), Ordering::Relaxed);
        }
    }

    /// The CPUs that may run it, a bit each; all bits: any.
    #[must_use]
    pub fn affinity(&self) -> u64 {
        self.facts().affinity.load(Ordering::Relaxed)
    }

    /// Says which CPUs may run it, a bit each of the first 64; all bits: any. At least one of them runs. A task that is in user mode elsewhere
    /// is brought back by [`TaskRef::wake`], one that is itself the caller moves when it yields.
    pub fn set_affinity(&self, cpus: u64) {
        // Relaxed: it is looked at when the task is queued, and before it is polled.
        self.facts().affinity.store(cpus, Ordering::Relaxed);
    }

    /// The CPU that polls it, or polled it last.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.facts().cpu.load(Ordering::Relaxed)
    }

    /// How often it was polled.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.facts().polls.get()
    }

    /// For how long it has been polled, in all; a user thread's time in user mode included.
    #[must_use]
    pub fn run_time(&self) -> Duration {
        Duration::from_nanos(self.facts().run_time.get())
    }

    /// Where the wait was begun that it was last seen to begin: the caller of [`WaitQueue::wait`](crate::sync::WaitQueue::wait),
    /// for example. Meaningful while the task is idle.
    #[must_use]
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.facts().waits_at()
    }

    /// When its last poll ended, which is since when it waits; [`Instant::BOOT`] before the first.
    #[must_use]
    pub fn idle_since(&self) -> Instant {
        Instant::from_nanos(self.facts().idle_since.get())
    }

    /// How often a wake has queued it: wakes of a task that is queued already, or runs, are not counted.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.facts().wakes.get()
    }

    /// Who queued it last.
    #[must_use]
    pub fn woken_by(&self) -> Cause {
        Cause::decode(self.facts().woken_by.get())
    }

    /// The longest that one poll of it took, user mode aside; at most 4.3 seconds are told.
    #[must_use]
    pub fn worst_poll(&self) -> Duration {
        Duration::from_nanos(self.facts().worst_poll.load(Ordering::Relaxed).into())
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
        write!(f, "task {} \"{}\": {:?}, {} polls", self.id(), self.name(), self.header().state, self.polls())?;
        match self.waits_at() {
            Some(place) if !self.is_done() => write!(f, ", waits at {place}"),
            _ => Ok(()),
        }
    }
}
