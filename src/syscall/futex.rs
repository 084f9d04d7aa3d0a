//! Futexes: waiting on a word of user memory (futex(2), futex(7)).
//!
//! A word is named by a [`Key`]: its address in this address space, or, if it lies in memory that processes share, its place in
//! what is shared. The waiters of a key stand in a queue of one of `BUCKETS` tables. The order that makes it work:
//!
//! ```text
//!   waiter                                waker
//!   lock the bucket                       change the word (in user space)
//!   read the word, without faulting       lock the bucket
//!   it differs: EAGAIN                    take waiters off the queue
//!   join the queue, unlock, sleep         unlock, wake them
//! ```
//!
//! A word whose page is not there cannot be read under the lock: then everything is let go, the page brought in, and the wait
//! begun again.
//!
//! Robust futexes: when a thread ends, the locks on its list are marked and one waiter of each is woken.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};

use abi::{Errno, Result, general};
use executor::Instant;
use executor::sync::{SpinGuard, SpinLock};

use super::time;
use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::mm::{Access, AddressSpace, Fault};
use crate::process::RunningThread;
use crate::process::wait_event::{Interruptible, boxed_timer};

/// Which word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Identity of the address space, or of what is shared.
    object: usize,
    /// Address, or place within what is shared.
    offset: usize,
}

struct Waiter {
    bits: u32,
    is_woken: AtomicBool,
    /// Its thread has seen that it is woken.
    has_heard: AtomicBool,
    state: SpinLock<WaiterState>,
}

struct WaiterState {
    /// Where it waits now: a requeue changes it.
    key: Key,
    waker: Option<Waker>,
}

/// The queues of the keys that have waiters.
type Table = BTreeMap<Key, VecDeque<Arc<Waiter>>>;
type Bucket = SpinLock<Table>;

/// How many tables the keys are spread over.
const BUCKETS: usize = 256;

static TABLE: [Bucket; BUCKETS] = [const { SpinLock::new(BTreeMap::new()) }; BUCKETS];

fn bucket(key: Key) -> &'static Bucket {
    let hash = (key.object ^ key.offset.rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &TABLE[hash >> (usize::BITS - BUCKETS.trailing_zeros())]
}

fn check_alignment(address: usize) -> Result<()> {
    if address.is_multiple_of(4) { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(super) fn key(space: &Arc<AddressSpace>, address: usize, is_private: bool) -> Result<Key> {
    check_alignment(address)?;
    let shared = if is_private { None } else { space.shared_identity(address) };
    let (object, offset) = shared.unwrap_or((Arc::as_ptr(space) as usize, address));
    Ok(Key { object, offset })
}

pub(super) async fn fault_in(thread: &RunningThread, address: usize, access: Access) -> Result<()> {
    thread.space.fault_in(address, access).await.map_err(|fault| match fault {
        Fault::OutOfMemory => Errno::ENOMEM,
        _ => Errno::EFAULT,
    })
}

/// Takes up to `count` waiters whose bits match off a queue, and wakes them. Returns how many.
fn wake_key(key: Key, count: usize, bits: u32) -> usize {
    let mut woken = 0;
    // One at a time, so that nothing is allocated and no waker runs under the lock.
    while woken < count {
        let Some(waiter) = take_one(key, bits) else { break };
        waiter.wake();
        woken += 1;
    }
    woken
}

fn take_one(key: Key, bits: u32) -> Option<Arc<Waiter>> {
    let mut table = bucket(key).lock();
    let queue = table.get_mut(&key)?;
    let place = queue.iter().position(|waiter| waiter.bits & bits != 0)?;
    let waiter = queue.remove(place);
    if queue.is_empty() {
        table.remove(&key);
    }
    waiter
}

impl Waiter {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A waiter's place in a queue; dropping it leaves the queue, and passes a wake on that was not heard.
pub(super) struct Place(Arc<Waiter>);

impl Place {
    /// Has this waker woken with it.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let old = {
            let mut state = self.0.state.lock();
            let is_current = state.waker.as_ref().is_some_and(|old| old.will_wake(waker));
            if is_current { None } else { state.waker.replace(waker.clone()) }
        };
        drop(old);
    }

    /// Whether it is woken; then its thread has heard of it now.
    pub(super) fn hears_wake(&self) -> bool {
        let is_woken = self.0.is_woken.load(Ordering::Acquire);
        if is_woken {
            self.0.has_heard.store(true, Ordering::Relaxed);
        }
        is_woken
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A requeue may move it between the look at its key and the look into the bucket: then look again.
        while !self.0.is_woken.load(Ordering::Acquire) {
            let key = self.0.state.lock().key;
            let mut table = bucket(key).lock();
            let Some(queue) = table.get_mut(&key) else { continue };
            let before = queue.len();
            queue.retain(|other| !Arc::ptr_eq(other, &self.0));
            let found = queue.len() < before;
            if queue.is_empty() {
                table.remove(&key);
            }
            if found {
                return;
            }
        }
        // A signal, the time or the end of the wait came between the wake and the look at it: the wake is somebody else's.
        if !self.0.has_heard.load(Ordering::Relaxed) {
            let key = self.0.state.lock().key;
            wake_key(key, 1, self.0.bits);
        }
    }
}

/// What became of an attempt to join a queue.
pub(super) enum Joined {
    Waiting(Place),
    Differs,
    Fault,
}

pub(super) fn join(key: Key, address: usize, expected: u32, bits: u32, space: &AddressSpace) -> Result<Joined> {
    // What is allocated here is small and bounded by the number of threads, which the gate has admitted.
    let waiter = Arc::new(Waiter {
        bits,
        is_woken: AtomicBool::new(false),
        has_heard: AtomicBool::new(false),
        state: SpinLock::new(WaiterState { key, waker: None }),
    });
    let mut table = bucket(key).lock();
    match space.active().load_u32(UserPtr::new(address)) {
        None => return Ok(Joined::Fault),
        Some(value) if value != expected => return Ok(Joined::Differs),
        Some(_) => {}
    }
    let queue = table.entry(key).or_default();
    if queue.make_room(1).is_err() {
        return Err(Errno::ENOMEM);
    }
    queue.push_back(waiter.clone());
    Ok(Joined::Waiting(Place(waiter)))
}

async fn wait(
    thread: &mut RunningThread,
    address: usize,
    expected: u32,
    bits: u32,
    deadline: Option<Instant>,
    is_private: bool,
) -> Result<usize> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    loop {
        let key = key(&thread.space, address, is_private)?;
        match join(key, address, expected, bits, &thread.space)? {
            Joined::Differs => return Err(Errno::EAGAIN),
            Joined::Fault => fault_in(thread, address, Access::Read).await?,
            Joined::Waiting(place) => return sleep(thread, &place, deadline).await,
        }
    }
}

async fn sleep(thread: &RunningThread, place: &Place, deadline: Option<Instant>) -> Result<usize> {
    let mut timer = deadline.map(|deadline| boxed_timer(deadline, Location::caller())).transpose()?;
    poll_fn(|context| {
        place.set_waker(context.waker());
        // After the waker is in place: whoever wakes from now on finds it.
        if place.hears_wake() {
            return Poll::Ready(Ok(0));
        }
        if thread.is_interrupted(Interruptible::BySignals) {
            return Poll::Ready(Err(if deadline.is_some() { Errno::ERESTARTNOHAND } else { Errno::ERESTARTSYS }));
        }
        match timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
            Some(Poll::Ready(_)) => Poll::Ready(Err(Errno::ETIMEDOUT)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// FUTEX_REQUEUE, FUTEX_CMP_REQUEUE.
struct Requeue {
    from: Key,
    to: Key,
    /// Up to so many waiters are woken.
    wake: usize,
    /// Up to so many others are moved.
    most: usize,
    /// Only if the word at this address holds this value.
    condition: Option<(usize, u32)>,
}

/// What became of an attempt to requeue.
enum Requeued {
    Done(usize),
    Differs,
    Fault,
}

impl Requeue {
    /// Under the locks of both queues: nobody who changes one of the two words and then wakes finds waiters in neither.
    fn attempt(&self, space: &AddressSpace) -> Result<Requeued> {
        let mut woken = Vec::new();
        let moved;
        loop {
            let waiting = bucket(self.from).lock().get(&self.from).map_or(0, VecDeque::len);
            woken.make_room(waiting.min(self.wake))?;
            let mut tables = Tables::lock(self.from, self.to);
            if let Some((address, expected)) = self.condition {
                match space.active().load_u32(UserPtr::new(address)) {
                    None => return Ok(Requeued::Fault),
                    Some(value) if value != expected => return Ok(Requeued::Differs),
                    Some(_) => {}
                }
            }
            let Some(mut queue) = tables.from().remove(&self.from) else { return Ok(Requeued::Done(0)) };
            let wakes = queue.len().min(self.wake);
            if wakes > woken.capacity() {
                tables.from().insert(self.from, queue); // more have come meanwhile
                continue;
            }
            woken.extend(queue.drain(..wakes));
            moved = tables.take_over(self, &mut queue);
            if !queue.is_empty() {
                tables.from().insert(self.from, queue);
            }
            break;
        }
        let count = woken.len();
        woken.iter().for_each(|waiter| waiter.wake());
        Ok(Requeued::Done(count + moved?))
    }
}

/// The tables of two keys, locked: always in the order of their addresses, and only once if they are one.
struct Tables {
    first: SpinGuard<'static, Table>,
    second: Option<SpinGuard<'static, Table>>,
    from_is_first: bool,
}

impl Tables {
    fn lock(from: Key, to: Key) -> Tables {
        let (from, to) = (bucket(from), bucket(to));
        let from_is_first = core::ptr::from_ref(from) <= core::ptr::from_ref(to);
        let (first, second) = if from_is_first { (from, to) } else { (to, from) };
        let is_one = core::ptr::eq(first, second);
        Tables { first: first.lock(), second: (!is_one).then(|| second.lock()), from_is_first }
    }

    fn from(&mut self) -> &mut Table {
        match &mut self.second {
            Some(second) if !self.from_is_first => second,
            _ => &mut self.first,
        }
    }

    fn to(&mut self) -> &mut Table {
        match &mut self.second {
            Some(second) if self.from_is_first => second,
            _ => &mut self.first,
        }
    }

    /// Moves waiters from the head of `queue` to the end of the other word's. Without memory for it they stay.
    fn take_over(&mut self, request: &Requeue, queue: &mut VecDeque<Arc<Waiter>>) -> Result<usize> {
        let count = queue.len().min(request.most);
        if count == 0 {
            return Ok(0);
        }
        if request.from == request.to {
            return Ok(count); // they are there already
        }
        let other = self.to().entry(request.to).or_default();
        if other.make_room(count).is_err() {
            if other.is_empty() {
                self.to().remove(&request.to);
            }
            return Err(Errno::ENOMEM);
        }
        for waiter in queue.drain(..count) {
            waiter.state.lock().key = request.to;
            other.push_back(waiter);
        }
        Ok(count)
    }
}

/// Wakes waiters of a word, shared or private, as the end of a thread does.
pub async fn wake_address(space: &Arc<AddressSpace>, address: usize, count: usize) {
    for is_private in [true, false] {
        if let Ok(key) = key(space, address, is_private) {
            wake_key(key, count, u32::MAX);
        }
    }
}

/// futex(2), when nothing has to be waited for: wakes.
pub fn futex_now(
    thread: &mut RunningThread,
    address: usize,
    operation: u32,
    value: u32,
    _timeout: usize,
    _address_2: usize,
    value_3: u32,
) -> Option<Result<usize>> {
    let is_private = operation & general::FUTEX_PRIVATE_FLAG != 0;
    let bits = match operation & general::FUTEX_CMD_MASK as u32 {
        general::FUTEX_WAKE => u32::MAX,
        general::FUTEX_WAKE_BITSET if value_3 != 0 => value_3,
        _ => return None,
    };
    // As Linux 6.1 counts: none or fewer is one.
    let count = (value as i32).max(1) as usize;
    Some(key(&thread.space, address, is_private).map(|key| wake_key(key, count, bits)))
}

/// futex(2). `EAGAIN`: the word is not what was expected. `ETIMEDOUT`, `EINTR`, `EINVAL`: misaligned, or no bits. `ENOSYS`: priority
/// inheritance. `EFAULT`, `ENOMEM`.
pub async fn futex(
    thread: &mut RunningThread,
    address: usize,
    operation: u32,
    value: u32,
    timeout: usize,
    address_2: usize,
    value_3: u32,
) -> Result<usize> {
    let is_private = operation & general::FUTEX_PRIVATE_FLAG != 0;
    match operation & general::FUTEX_CMD_MASK as u32 {
        general::FUTEX_WAIT => {
            let deadline = relative_deadline(thread, timeout).await?;
            wait(thread, address, value, u32::MAX, deadline, is_private).await
        }
        general::FUTEX_WAIT_BITSET => {
            let deadline = absolute_deadline(thread, timeout, operation).await?;
            wait(thread, address, value, value_3, deadline, is_private).await
        }
        general::FUTEX_REQUEUE | general::FUTEX_CMP_REQUEUE => {
            if (value as i32) < 0 || (timeout as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let compares = operation & general::FUTEX_CMD_MASK as u32 == general::FUTEX_CMP_REQUEUE;
            let condition = compares.then_some((address, value_3));
            loop {
                let (from, to) = (key(&thread.space, address, is_private)?, key(&thread.space, address_2, is_private)?);
                let request = Requeue { from, to, wake: value as usize, most: timeout, condition };
                match request.attempt(&thread.space)? {
                    Requeued::Done(count) => return Ok(count),
                    Requeued::Differs => return Err(Errno::EAGAIN),
                    Requeued::Fault => fault_in(thread, address, Access::Read).await?,
                }
            }
        }
        general::FUTEX_WAKE_OP => wake_op(thread, address, value, timeout, address_2, value_3, is_private).await,
        general::FUTEX_WAKE_BITSET => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}

async fn relative_deadline(thread: &mut RunningThread, timeout: usize) -> Result<Option<Instant>> {
    if timeout == 0 {
        return Ok(None);
    }
    Ok(Some(time::after(time::duration(thread.get(UserPtr::new(timeout)).await?)?)))
}

async fn absolute_deadline(thread: &mut RunningThread, timeout: usize, operation: u32) -> Result<Option<Instant>> {
    if timeout == 0 {
        return Ok(None);
    }
    let at = time::duration(thread.get(UserPtr::new(timeout)).await?)?;
    let is_realtime = operation & general::FUTEX_CLOCK_REALTIME != 0;
    let clock = if is_realtime { time::Clock::Realtime } else { time::Clock::Monotonic };
    clock.instant(at).map(Some)
}

/// FUTEX_WAKE_OP: changes the second word, wakes waiters of the first, and of the second if what it held compares.
async fn wake_op(
    thread: &mut RunningThread,
    address: usize,
    wake: u32,
    wake_2: usize,
    address_2: usize,
    encoded: u32,
    is_private: bool,
) -> Result<usize> {
    let (first, second) = (key(&thread.space, address, is_private)?, key(&thread.space, address_2, is_private)?);
    let sign_extended = |bits: u32| ((bits << 20) as i32 >> 20) as u32;
    let operand = sign_extended(encoded >> 12 & 0xfff);
    let operand = if encoded >> 31 != 0 { 1 << (operand & 31) } else { operand };
    let operation = encoded >> 28 & 7;
    if operation > general::FUTEX_OP_XOR {
        return Err(Errno::ENOSYS);
    }
    let change = |old: u32| match operation {
        general::FUTEX_OP_SET => operand,
        general::FUTEX_OP_ADD => old.wrapping_add(operand),
        general::FUTEX_OP_OR => old | operand,
        general::FUTEX_OP_ANDN => old & !operand,
        _ => old ^ operand,
    };
    let old = loop {
        let changed = thread.space.active().fetch_op_u32(UserPtr::new(address_2), change);
        match changed {
            Some(old) => break old as i32,
            None => fault_in(thread, address_2, Access::Write).await?,
        }
    };
    let woken = wake_key(first, wake as usize, u32::MAX);
    let comparand = sign_extended(encoded & 0xfff) as i32;
    let holds = match encoded >> 24 & 0xf {
        general::FUTEX_OP_CMP_EQ => old == comparand,
        general::FUTEX_OP_CMP_NE => old != comparand,
        general::FUTEX_OP_CMP_LT => old < comparand,
        general::FUTEX_OP_CMP_LE => old <= comparand,
        general::FUTEX_OP_CMP_GT => old > comparand,
        general::FUTEX_OP_CMP_GE => old >= comparand,
        _ => return Err(Errno::ENOSYS),
    };
    Ok(if holds { woken + wake_key(second, wake_2, u32::MAX) } else { woken })
}

/// The most locks on a robust list that are looked at: ROBUST_LIST_LIMIT. A longer list is a loop.
const MOST_ROBUST: usize = 2048;

/// Marks the locks on a thread's robust list as left by a dead owner, and wakes a waiter of each (get_robust_list(2)). A list that
/// cannot be read ends early: its thread is gone, and there is nobody to tell.
pub async fn release_robust_list(thread: &mut RunningThread) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        let _ = walk_robust_list(thread, head).await;
    }
}

async fn walk_robust_list(thread: &mut RunningThread, head: usize) -> Result<()> {
    let [first, offset, pending]: [u64; 3] = thread.get(UserPtr::new(head)).await?;
    let mut entries = Vec::new();
    let mut next = first;
    // The lowest bit of a pointer marks a lock with priority inheritance; the pointer itself is even.
    while next & !1 != head as u64 && entries.len() < MOST_ROBUST {
        if next & !1 != pending & !1 {
            entries.make_room(1)?;
            entries.push(next & !1);
        }
        next = thread.get(UserPtr::new((next & !1) as usize)).await?;
    }
    if pending & !1 != 0 {
        entries.push(pending & !1);
    }
    for entry in entries {
        release_robust(thread, entry.wrapping_add(offset) as usize).await?;
    }
    Ok(())
}

async fn release_robust(thread: &mut RunningThread, address: usize) -> Result<()> {
    let tid = thread.tid() as u32;
    let died = |word: u32| {
        if word & general::FUTEX_TID_MASK == tid {
            word & general::FUTEX_WAITERS | general::FUTEX_OWNER_DIED
        } else {
            word
        }
    };
    let old = loop {
        let marked = thread.space.active().fetch_op_u32(UserPtr::new(address), died);
        match marked {
            Some(old) => break old,
            None => fault_in(thread, address, Access::Write).await?,
        }
    };
    if old & general::FUTEX_TID_MASK == tid && old & general::FUTEX_WAITERS != 0 {
        let space = thread.space.clone();
        wake_address(&space, address, 1).await;
    }
    Ok(())
}
