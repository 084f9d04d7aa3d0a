//! Waiting for the first of several futexes: futex_waitv(2).
//!
//! The call stands in the queue of each word, one after the other, each time under the lock under which the word is read; then it sleeps until one
//! of its places is woken. A wake that came to another of them goes on to the next waiter there.
//!
//! Next: `futex.rs`.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::panic::Location;
use core::task::Poll;

use abi::{Errno, Result, general};
use executor::Instant;

use super::futex::{Joined, Place, fault_in, join, key};
use super::time::{self, Clock, Timespec};
use crate::mm::user::UserPtr;
use crate::mm::{Access, MakeRoom};
use crate::process::RunningThread;
use crate::process::wait_event::{Interruptible, boxed_timer};

/// `struct futex_waitv`: the value, the address, and flags.
pub type Wanted = [u64; 3];

/// The most words of a call: FUTEX_WAITV_MAX.
const MOST: usize = 128;
/// The word has 32 bits, and so it must.
const FUTEX_32: u32 = 2;

/// futex_waitv(2): which word was woken. `EAGAIN`: one is not what was expected. `EINVAL`: no word or too many, flags, a clock or time that is none,
/// misaligned. `EINTR`, `ETIMEDOUT`, `EFAULT`, `ENOMEM`.
pub async fn futex_waitv(
    thread: &mut RunningThread,
    list: UserPtr<Wanted>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: u32,
) -> Result<usize> {
    let count = count as usize;
    if flags != 0 || !(1..=MOST).contains(&count) || list.is_null() {
        return Err(Errno::EINVAL);
    }
    let deadline = match timeout.non_null() {
        None => None,
        Some(_) if ![general::CLOCK_MONOTONIC, general::CLOCK_REALTIME].contains(&clock) => return Err(Errno::EINVAL),
        Some(timeout) => Some(Clock::new(clock)?.instant(time::duration(thread.get(timeout).await?)?)?),
    };
    let wanted: Vec<Wanted> = thread.space.read_user_array(list, count).await?;
    for [_, _, flags] in &wanted {
        let (flags, reserved) = (*flags as u32, *flags >> 32);
        if flags & !(FUTEX_32 | general::FUTEX_PRIVATE_FLAG) != 0 || flags & FUTEX_32 == 0 || reserved != 0 {
            return Err(Errno::EINVAL);
        }
    }
    let mut places = Vec::new();
    places.make_exact_room(count)?;
    loop {
        match join_all(thread, &wanted, &mut places)? {
            Start::Waiting => return sleep(thread, &places, deadline).await,
            Start::Woken(index) => return Ok(index),
            Start::Fault(address) => fault_in(thread, address, Access::Read).await?,
        }
    }
}

/// How the wait begins.
enum Start {
    /// In all queues.
    Waiting,
    /// One was woken already, and another is not what was expected any more.
    Woken(usize),
    /// The word at this address is not there.
    Fault(usize),
}

fn join_all(thread: &RunningThread, wanted: &[Wanted], places: &mut Vec<Place>) -> Result<Start> {
    places.clear();
    for [value, address, flags] in wanted {
        let (address, is_private) = (*address as usize, *flags as u32 & general::FUTEX_PRIVATE_FLAG != 0);
        let key = key(&thread.space, address, is_private)?;
        match join(key, address, *value as u32, u32::MAX, &thread.space)? {
            Joined::Waiting(place) => places.push(place),
            Joined::Fault => {
                let start = woken(places).map_or(Start::Fault(address), Start::Woken);
                // Nobody stands in line while a page is brought in.
                places.clear();
                return Ok(start);
            }
            Joined::Differs => return woken(places).map(Start::Woken).ok_or(Errno::EAGAIN),
        }
    }
    Ok(Start::Waiting)
}

/// Which of the places was woken, if one was; its wake is heard.
fn woken(places: &[Place]) -> Option<usize> {
    places.iter().position(Place::hears_wake)
}

async fn sleep(thread: &RunningThread, places: &[Place], deadline: Option<Instant>) -> Result<usize> {
    let mut timer = deadline.map(|deadline| boxed_timer(deadline, Location::caller())).transpose()?;
    poll_fn(|context| {
        places.iter().for_each(|place| place.set_waker(context.waker()));
        // After the wakers are in place: whoever wakes from now on finds them.
        if let Some(index) = woken(places) {
            return Poll::Ready(Ok(index));
        }
        if thread.is_interrupted(Interruptible::BySignals) {
            return Poll::Ready(Err(Errno::ERESTARTSYS));
        }
        match timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
            Some(Poll::Ready(_)) => Poll::Ready(Err(Errno::ETIMEDOUT)),
            _ => Poll::Pending,
        }
    })
    .await
}
