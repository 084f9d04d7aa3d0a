//! poll(2) and select(2): waiting for the first of several files.
//!
//! What is ready at once is answered without a future and without memory ([`poll_now`]). Otherwise the call stands in the wait
//! queue of every file, looks at all of them, and sleeps: in this order, so that nothing is missed.
//!
//! Next: `files/epoll.rs`, for many files.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::panic::Location;
use core::pin::Pin;
use core::task::Poll;

use abi::{Errno, Result, general};
use executor::Instant;
use executor::sync::{WaitQueue, Waiter};
use fs::{OpenFile, PollEvents};
use zerocopy::IntoBytes;

use super::time::{self, Timespec};
use crate::mm::MakeRoom;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::signal::SignalSet;
use crate::process::wait_event::{Interruptible, boxed_timer};

/// What poll(2) reports whether it was asked for or not.
const ALWAYS: PollEvents = PollEvents::ERR.union(PollEvents::HUP);
/// So many entries are copied at once on the fast path.
const FEW: usize = 16;

/// `struct pollfd`.
#[derive(Clone, Copy)]
struct Entry {
    fd: i32,
    wanted: PollEvents,
}

impl Entry {
    fn from_word(word: u64) -> Entry {
        let wanted = (word >> 32) as u16;
        Entry { fd: word as u32 as i32, wanted: PollEvents::from_bits_retain(u32::from(wanted)) }
    }

    /// As it lies in memory, with what was found.
    fn to_word(self, found: PollEvents) -> u64 {
        u64::from(self.fd as u32) | u64::from(self.wanted.bits() as u16) << 32 | u64::from(found.bits() as u16) << 48
    }
}

/// What a file shows of what is wanted.
fn look(file: &OpenFile, wanted: PollEvents) -> PollEvents {
    file.ops.poll() & (wanted | ALWAYS)
}

fn look_at(thread: &RunningThread, entry: Entry) -> PollEvents {
    match thread.files.get(Fd(entry.fd)) {
        _ if entry.fd < 0 => PollEvents::empty(),
        Ok(file) => look(&file, entry.wanted),
        Err(_) => PollEvents::NVAL,
    }
}

/// poll(2), if something is ready now, or nothing is to be waited for.
pub fn poll_now(thread: &mut RunningThread, list: UserPtr<u64>, count: usize, timeout: i32) -> Option<Result<usize>> {
    answer_now(thread, list, count, timeout == 0)
}

/// ppoll(2), likewise.
pub fn ppoll_now(
    thread: &mut RunningThread,
    list: UserPtr<u64>,
    count: usize,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    _size: usize,
) -> Option<Result<usize>> {
    let is_over = !timeout.is_null() && thread.try_get(timeout)? == [0, 0];
    // Another mask may let a signal in, which is for those who can wait.
    if mask.is_null() { answer_now(thread, list, count, is_over) } else { None }
}

/// Looks at all files once, and answers if that is enough. What it writes for nothing the long way writes again.
fn answer_now(thread: &RunningThread, list: UserPtr<u64>, count: usize, is_over: bool) -> Option<Result<usize>> {
    if count as u64 > thread.process.limits.lock().soft(general::RLIMIT_NOFILE) {
        return Some(Err(Errno::EINVAL));
    }
    let space = thread.space.active();
    let mut ready = 0;
    let mut words = [0; FEW];
    for first in (0..count).step_by(FEW) {
        let words = &mut words[..FEW.min(count - first)];
        let place = list.element(first).address();
        space.read_bytes(place, words.as_mut_bytes()).ok()?;
        for word in words.iter_mut() {
            let entry = Entry::from_word(*word);
            let found = look_at(thread, entry);
            ready += usize::from(!found.is_empty());
            *word = entry.to_word(found);
        }
        space.write_bytes(place, words.as_bytes()).ok()?;
    }
    (ready > 0 || is_over).then_some(Ok(ready))
}

/// poll(2). `EINVAL`: more entries than descriptors are allowed. `EINTR`, `EFAULT`, `ENOMEM`.
pub async fn poll(thread: &mut RunningThread, list: UserPtr<u64>, count: usize, timeout: i32) -> Result<usize> {
    let deadline = u64::try_from(timeout).ok().map(|ms| time::after(core::time::Duration::from_millis(ms)));
    poll_until(thread, list, count, deadline).await
}

/// ppoll(2). As poll(2).
pub async fn ppoll(
    thread: &mut RunningThread,
    list: UserPtr<u64>,
    count: usize,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    let deadline = deadline(thread, timeout).await?;
    replace_mask(thread, mask, size).await?;
    poll_until(thread, list, count, deadline).await
}

async fn deadline(thread: &RunningThread, timeout: UserPtr<Timespec>) -> Result<Option<Instant>> {
    if timeout.is_null() {
        return Ok(None);
    }
    Ok(Some(time::after(time::duration(thread.get(timeout).await?)?)))
}

/// Replaces the signal mask until the call is over, if it was given another. `EINVAL`: a wrong size. `EFAULT`.
pub(super) async fn replace_mask(thread: &mut RunningThread, mask: UserPtr<u64>, size: usize) -> Result<()> {
    if mask.is_null() {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SignalSet(thread.get(mask).await?);
    thread.replace_blocked_for_this_call(mask);
    Ok(())
}

async fn poll_until(
    thread: &mut RunningThread,
    list: UserPtr<u64>,
    count: usize,
    deadline: Option<Instant>,
) -> Result<usize> {
    if count as u64 > thread.process.limits.lock().soft(general::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let words: Vec<u64> = thread.space.read_user_array(list, count).await?;
    let entries: Vec<Entry> = words.into_iter().map(Entry::from_word).collect();
    let mut watched = Vec::new();
    watched.make_exact_room(count)?;
    for entry in &entries {
        watched.push(if entry.fd < 0 { None } else { Some((thread.files.get(Fd(entry.fd)).ok(), entry.wanted)) });
    }
    let mut found = Vec::new();
    found.resize(count, PollEvents::empty());
    let ready = wait_for_any(thread, &watched, &mut found, deadline).await?;
    for (index, (entry, found)) in entries.iter().zip(&found).enumerate() {
        thread.put(list.element(index), &entry.to_word(*found)).await?;
    }
    Ok(ready)
}

/// A file to be watched, and what for; `None` for none, and a file of `None` for a descriptor that is not open.
type Watched = Option<(Option<Arc<OpenFile>>, PollEvents)>;

fn look_at_all(watched: &[Watched], found: &mut [PollEvents]) -> usize {
    let mut ready = 0;
    for (watched, found) in watched.iter().zip(found) {
        *found = match watched {
            None => PollEvents::empty(),
            Some((None, _)) => PollEvents::NVAL,
            Some((Some(file), wanted)) => look(file, *wanted),
        };
        ready += usize::from(!found.is_empty());
    }
    ready
}

/// Waits until one of the files shows something; returns how many do. None when the time is up.
async fn wait_for_any(
    thread: &RunningThread,
    watched: &[Watched],
    found: &mut [PollEvents],
    deadline: Option<Instant>,
) -> Result<usize> {
    let is_over = deadline.is_some_and(|deadline| deadline <= crate::arch::clock::now());
    let ready = look_at_all(watched, found);
    if ready > 0 || is_over {
        return Ok(ready);
    }
    let mut waiters: Vec<Pin<Box<Waiter<&WaitQueue>>>> = Vec::new();
    for (file, _) in watched.iter().flatten() {
        if let Some(queue) = file.as_ref().and_then(|file| file.ops.wait_queue()) {
            waiters.make_room(1)?;
            waiters.push(Box::pin(Waiter::shared(queue)));
        }
    }
    let mut timer = deadline.map(|deadline| boxed_timer(deadline, Location::caller())).transpose()?;
    poll_fn(|context| {
        for waiter in &mut waiters {
            waiter.as_mut().register(context);
        }
        let ready = look_at_all(watched, found);
        if ready > 0 {
            return Poll::Ready(Ok(ready));
        }
        if thread.is_interrupted(Interruptible::BySignals) {
            return Poll::Ready(Err(Errno::ERESTARTNOHAND));
        }
        match timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
            Some(Poll::Ready(_)) => Poll::Ready(Ok(0)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// The highest descriptor of select(2): FD_SETSIZE.
const FD_SETSIZE: usize = 1024;
const WORDS: usize = FD_SETSIZE / 64;

/// What makes a descriptor appear in each of the three sets (select(2), "Correspondence between select() and poll()").
const SETS: [PollEvents; 3] = [
    PollEvents::RDNORM.union(PollEvents::IN).union(PollEvents::HUP).union(PollEvents::ERR),
    PollEvents::WRNORM.union(PollEvents::OUT).union(PollEvents::ERR),
    PollEvents::PRI,
];

async fn select_until(
    thread: &mut RunningThread,
    count: i32,
    sets: [UserPtr<u64>; 3],
    deadline: Option<Instant>,
) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(FD_SETSIZE);
    let words = count.div_ceil(64);
    let mut wanted: Box<Sets> = Box::new([[0; WORDS]; 3]);
    for (set, pointer) in wanted.iter_mut().zip(sets) {
        if !pointer.is_null() {
            for (index, word) in set.iter_mut().enumerate().take(words) {
                *word = thread.get(pointer.element(index)).await?;
            }
        }
    }
    let has = |set: &[u64; WORDS], fd: usize| set[fd / 64] & 1 << (fd % 64) != 0;
    let mut watched: Vec<Watched> = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let events = wanted.iter().zip(SETS).filter(|(set, _)| has(set, fd)).map(|(_, events)| events);
        let events = events.fold(PollEvents::empty(), PollEvents::union);
        if !events.is_empty() {
            watched.push(Some((Some(thread.files.get(Fd(fd as i32))?), events)));
            numbers.push(fd);
        }
    }
    let mut found = Vec::new();
    found.resize(watched.len(), PollEvents::empty());
    wait_for_any(thread, &watched, &mut found, deadline).await?;
    let mut bits = 0;
    for ((set, pointer), events) in wanted.iter_mut().zip(sets).zip(SETS) {
        let asked = core::mem::replace(set, [0; WORDS]);
        for (fd, found) in numbers.iter().zip(&found) {
            if has(&asked, *fd) && found.intersects(events) {
                set[fd / 64] |= 1 << (fd % 64);
                bits += 1;
            }
        }
        if !pointer.is_null() {
            for (index, word) in set.iter().enumerate().take(words) {
                thread.put(pointer.element(index), word).await?;
            }
        }
    }
    Ok(bits)
}

/// The sets of select(2), as bits.
type Sets = [[u64; WORDS]; 3];

/// Looks at all descriptors once, and answers if that is enough.
fn select_at_once(thread: &RunningThread, count: i32, sets: [UserPtr<u64>; 3], is_over: bool) -> Option<Result<usize>> {
    let count = usize::try_from(count).ok()?.min(FD_SETSIZE);
    let words = count.div_ceil(64);
    let space = thread.space.active();
    let mut asked: Sets = [[0; WORDS]; 3];
    for (set, pointer) in asked.iter_mut().zip(sets).filter(|(_, pointer)| !pointer.is_null()) {
        space.read_bytes(pointer.address(), set[..words].as_mut_bytes()).ok()?;
        if let (Some(last), 1..) = (set[..words].last_mut(), count % 64) {
            *last &= !(!0 << (count % 64));
        }
    }
    let mut found: Sets = [[0; WORDS]; 3];
    let mut bits = 0;
    for index in 0..words {
        let mut rest = asked[0][index] | asked[1][index] | asked[2][index];
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            let fd = index * 64 + bit.trailing_zeros() as usize;
            let file = match thread.files.get(Fd(fd as i32)) {
                Ok(file) => file,
                Err(errno) => return Some(Err(errno)),
            };
            let events = file.ops.poll();
            for ((asked, found), wanted) in asked.iter().zip(&mut found).zip(SETS) {
                if asked[index] & bit != 0 && events.intersects(wanted) {
                    found[index] |= bit;
                    bits += 1;
                }
            }
        }
    }
    if bits == 0 && !is_over {
        return None;
    }
    for (set, pointer) in found.iter().zip(sets).filter(|(_, pointer)| !pointer.is_null()) {
        space.write_bytes(pointer.address(), set[..words].as_bytes()).ok()?;
    }
    Some(Ok(bits))
}

/// select(2), if something is ready now, or nothing is to be waited for. With a time that would have to be counted down, it waits
/// its turn.
pub fn select_now(
    thread: &mut RunningThread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
) -> Option<Result<usize>> {
    let is_over = !timeout.is_null();
    if is_over && thread.try_get(timeout)? != [0, 0] {
        return None;
    }
    select_at_once(thread, count, [read, write, except], is_over)
}

/// pselect6(2), likewise.
pub fn pselect6_now(
    thread: &mut RunningThread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[usize; 2]>,
) -> Option<Result<usize>> {
    let is_over = !timeout.is_null() && thread.try_get(timeout)? == [0, 0];
    // The C library always hands a pair, usually of nothing.
    if !mask.is_null() && thread.try_get(mask)?[0] != 0 {
        return None;
    }
    select_at_once(thread, count, [read, write, except], is_over)
}

/// select(2). `EBADF`: a descriptor that is not open. `EINVAL`, `EINTR`, `EFAULT`, `ENOMEM`.
pub async fn select(
    thread: &mut RunningThread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let deadline = if timeout.is_null() {
        None
    } else {
        let [seconds, micros] = thread.get(timeout).await?;
        // As Linux, microseconds beyond a second are carried over.
        let seconds = seconds.checked_add(micros.div_euclid(1_000_000)).ok_or(Errno::EINVAL)?;
        Some(time::after(time::duration_of_timeval([seconds, micros.rem_euclid(1_000_000)])?))
    };
    let result = select_until(thread, count, [read, write, except], deadline).await;
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(crate::arch::clock::now());
        thread.put(timeout, &time::timeval(left)).await?;
    }
    result
}

/// pselect6(2). As select(2).
pub async fn pselect6(
    thread: &mut RunningThread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[usize; 2]>,
) -> Result<usize> {
    let deadline = deadline(thread, timeout).await?;
    if !mask.is_null() {
        let [mask, size] = thread.get(mask).await?;
        replace_mask(thread, UserPtr::new(mask), size).await?;
    }
    select_until(thread, count, [read, write, except], deadline).await
}
