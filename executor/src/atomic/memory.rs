//! Memory as the CPUs of a simulation see it: each has a store buffer, as on x86.
//!
//! ```text
//!   store (not SeqCst) ──► the CPU's buffer ──► in order, some time later ──► memory
//!   load               ◄── the CPU's own buffer, else memory
//!   read-modify-write, SeqCst store, fence(SeqCst): the buffer is drained first
//! ```
//!
//! That is total store order (Intel SDM volume 3, 9.2; Owens, Sarkar and Sewell 2009), the whole of what an x86 processor reorders.
//! So a simulation that runs the real executor finds a fence that is missing, and not only a step that is. All CPUs of a simulation
//! run on one thread of the host, which [`simulate`] makes a simulation's; on all other threads atomics are what they always are.
//!
//! A drained store is kept here under its address, and put in its place by the next who touches the atomic: nothing here follows
//! a pointer. next: tests/simulation/main.rs.

use alloc::{collections::VecDeque, rc::Rc, vec::Vec};
use core::cell::{Cell, RefCell};
use std::{collections::HashMap, thread, thread_local};

/// What a CPU is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something that others can see, or that depends on what others did.
    Next,
    /// Nothing: it waits for a lock, or for somebody to finish. Others must go on first.
    Spin,
}

/// What the simulation does between two steps of a CPU: let others go first, take an interrupt.
type Hook = Rc<dyn Fn(Step)>;

struct Memory {
    hook: Hook,
    cpu: usize,
    buffers: Vec<VecDeque<(usize, u64)>>,
    /// What has left the buffers, and is not yet in its place.
    drained: HashMap<usize, u64>,
}

/// What a load finds outside its place.
pub(super) enum Found {
    Nothing,
    /// In the CPU's own store buffer.
    Buffered(u64),
    /// In memory: to be put in its place.
    Drained(u64),
}

thread_local! {
    static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// Runs `body` as a simulation of `cpus` CPUs, whose `hook` is called before each of their steps.
pub fn simulate<R>(cpus: usize, hook: impl Fn(Step) + 'static, body: impl FnOnce() -> R) -> R {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            IS_SIMULATED.set(false);
            MEMORY.take();
        }
    }
    let buffers = (0..cpus).map(|_| VecDeque::new()).collect();
    MEMORY.replace(Some(Memory { hook: Rc::new(hook), cpu: 0, buffers, drained: HashMap::new() }));
    IS_SIMULATED.set(true);
    let _over = Over;
    body()
}

/// The steps that follow are those of `cpu`.
pub fn play(cpu: usize) {
    with(|memory| memory.cpu = cpu);
}

/// Lets the oldest store in the buffer of `cpu` reach memory. False if there is none.
pub fn drain_one(cpu: usize) -> bool {
    with(|memory| memory.drain_one(cpu)).unwrap_or(false)
}

/// How many stores wait in the buffer of `cpu`.
pub fn buffered(cpu: usize) -> usize {
    with(|memory| memory.buffers[cpu].len()).unwrap_or(0)
}

/// Lets all stores of the present CPU reach memory: what a fence does.
pub fn drain() {
    with(|memory| while memory.drain_one(memory.cpu) {});
}

/// Whether this thread is a simulation's.
#[inline]
pub(super) fn is_simulated() -> bool {
    IS_SIMULATED.get()
}

/// A CPU of the simulation is about to do something.
#[inline]
pub fn step(step: Step) {
    // Not while a failed simulation is torn down.
    if is_simulated() && !thread::panicking() {
        let hook = with(|memory| Rc::clone(&memory.hook));
        if let Some(hook) = hook {
            hook(step);
        }
    }
}

pub(super) fn load(address: usize) -> Found {
    with(|memory| {
        let own = memory.buffers[memory.cpu].iter().rev().find(|store| store.0 == address);
        match own {
            Some(store) => Found::Buffered(store.1),
            None => memory.drained.remove(&address).map_or(Found::Nothing, Found::Drained),
        }
    })
    .unwrap_or(Found::Nothing)
}

pub(super) fn store(address: usize, value: u64) {
    with(|memory| memory.buffers[memory.cpu].push_back((address, value)));
}

/// What has been drained for `address`: to be put in its place, before a read-modify-write.
pub(super) fn settle(address: usize) -> Option<u64> {
    with(|memory| memory.drained.remove(&address)).flatten()
}

/// The atomic at `address` is gone.
pub(super) fn forget(address: usize) {
    with(|memory| {
        memory.buffers.iter_mut().for_each(|buffer| buffer.retain(|store| store.0 != address));
        memory.drained.remove(&address);
    });
}

impl Memory {
    fn drain_one(&mut self, cpu: usize) -> bool {
        let store = self.buffers[cpu].pop_front();
        if let Some((address, value)) = store {
            self.drained.insert(address, value);
        }
        store.is_some()
    }
}

fn with<R>(look: impl FnOnce(&mut Memory) -> R) -> Option<R> {
    // None while the thread ends.
    MEMORY.try_with(|memory| memory.borrow_mut().as_mut().map(look)).ok().flatten()
}
