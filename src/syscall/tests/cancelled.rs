//! Calls that block, dropped at every poll: no wake is lost with them, and nothing leaks.
//!
//! Two threads make the same call and wait. One, the victim, is polled k times and dropped, for each k; the other must then still be
//! woken by what both waited for, whether that happened before the drop or after it, and go on.
//!
//! Exercise: add a call. Its row is the call, what comes before it, and what it waits for.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use executor::testing::WakeCounter;

use super::world::{DATA, advance, new_thread, perform, set_call, sibling};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::syscall::numbers::*;
use crate::syscall::table;

/// A call that blocks.
struct Blocking {
    name: &'static str,
    number: usize,
    args: &'static [usize],
    /// What comes before it.
    before: &'static [(usize, &'static [usize])],
    /// What it waits for.
    event: &'static [(usize, &'static [usize])],
    /// It waits for the clock.
    passes: Duration,
}

const NOTHING: Blocking = Blocking { name: "", number: 0, args: &[], before: &[], event: &[], passes: Duration::ZERO };
const WAIT: usize = 128;
const WAKE: usize = 129;
const PIPE: (usize, &[usize]) = (PIPE2, &[DATA + 0x800, 0]);
const ROOM: usize = DATA + 0x1000;
/// Where the preparation of [`answers`] leaves a `struct pollfd` for descriptor 0, and ten milliseconds.
const POLLED: usize = DATA + 0x900;
const TIME: usize = DATA + 0x910;
/// A `struct epoll_event`: EPOLLIN.
const INTEREST: usize = DATA + 0x920;
const ONE: usize = DATA + 0x930;
/// The path `/f`, and a `struct itimerspec` of every ten milliseconds.
const PATH: usize = DATA + 0x938;
const EVERY: usize = DATA + 0x940;
/// The same path without its slash.
const NAME: usize = PATH + 1;
/// O_RDWR | O_CREAT.
const MAKE: usize = 0o102;
/// Two `struct futex_waitv`, the second of which is for the word at `ROOM`.
const SEVERAL: usize = DATA + 0x970;
/// The key of a System V object.
const KEY: usize = 7;
const LOCK: usize = 2;
const UNLOCK: usize = 8;

const CASES: &[Blocking] = &[
    Blocking {
        name: "read of an empty pipe",
        number: READ,
        args: &[0, ROOM, 1],
        before: &[PIPE],
        event: &[(WRITE, &[1, ROOM, 1])],
        ..NOTHING
    },
    Blocking {
        name: "write to a full pipe",
        number: WRITE,
        args: &[1, ROOM, 4096],
        before: &[PIPE, (WRITE, &[1, DATA, 0x1_0000])],
        event: &[(READ, &[0, ROOM, 4096])],
        ..NOTHING
    },
    Blocking {
        name: "futex wait",
        number: FUTEX,
        args: &[ROOM, WAIT, 0, 0],
        event: &[(FUTEX, &[ROOM, WAKE, 1])],
        ..NOTHING
    },
    Blocking {
        name: "futex wait with a time",
        number: FUTEX,
        args: &[ROOM, WAIT, 0, TIME],
        event: &[(FUTEX, &[ROOM, WAKE, 1])],
        ..NOTHING
    },
    Blocking {
        name: "poll",
        number: POLL,
        args: &[POLLED, 1, usize::MAX],
        before: &[PIPE],
        event: &[(WRITE, &[1, ROOM, 1])],
        ..NOTHING
    },
    Blocking {
        name: "epoll_wait",
        number: EPOLL_WAIT,
        args: &[2, ROOM, 4, usize::MAX],
        before: &[PIPE, (EPOLL_CREATE1, &[0]), (EPOLL_CTL, &[2, 1, 0, INTEREST])],
        event: &[(WRITE, &[1, ROOM, 1])],
        ..NOTHING
    },
    Blocking {
        name: "read of an eventfd",
        number: READ,
        args: &[0, ROOM, 8],
        before: &[(EVENTFD2, &[0, 0])],
        event: &[(WRITE, &[0, ONE, 8])],
        ..NOTHING
    },
    Blocking {
        name: "read of a socket",
        number: READ,
        args: &[0, ROOM, 1],
        before: &[(SOCKETPAIR, &[1, 1, 0, DATA + 0x800])],
        event: &[(WRITE, &[1, ROOM, 1])],
        ..NOTHING
    },
    Blocking {
        name: "read of a timer",
        number: READ,
        args: &[0, ROOM, 8],
        before: &[(TIMERFD_CREATE, &[1, 0]), (TIMERFD_SETTIME, &[0, 0, EVERY, 0])],
        passes: Duration::from_millis(10),
        ..NOTHING
    },
    Blocking {
        name: "flock",
        number: FLOCK,
        args: &[1, LOCK],
        before: &[(OPEN, &[PATH, MAKE, 0o600]), (OPEN, &[PATH, MAKE, 0o600]), (FLOCK, &[0, LOCK])],
        event: &[(FLOCK, &[0, UNLOCK])],
        ..NOTHING
    },
    Blocking {
        name: "futex_waitv",
        number: FUTEX_WAITV,
        args: &[SEVERAL, 2, 0, 0, 0],
        event: &[(FUTEX, &[ROOM, WAKE, 1])],
        ..NOTHING
    },
    Blocking {
        name: "receipt of a message",
        number: MSGRCV,
        args: &[0, ROOM, 8, 0, 0],
        // One queue for all: each case leaves it empty.
        before: &[(MSGGET, &[KEY, 0o1600])],
        event: &[(MSGSND, &[0, ONE, 8, 0])],
        ..NOTHING
    },
    Blocking {
        name: "receipt from a POSIX queue",
        number: MQ_TIMEDRECEIVE,
        args: &[0, ROOM, 8192, 0, 0],
        // One queue for all: each case leaves it empty.
        before: &[(MQ_OPEN, &[NAME, MAKE, 0o600, 0])],
        event: &[(MQ_TIMEDSEND, &[0, ONE, 8, 0, 0])],
        ..NOTHING
    },
    Blocking {
        name: "splice from an empty pipe",
        number: SPLICE,
        args: &[0, 0, 3, 0, 1, 0],
        before: &[PIPE, PIPE],
        event: &[(WRITE, &[1, ROOM, 1])],
        ..NOTHING
    },
    Blocking {
        name: "splice into a full pipe",
        number: SPLICE,
        args: &[0, 0, 3, 0, 1, 0],
        before: &[PIPE, PIPE, (WRITE, &[1, ROOM, 8]), (WRITE, &[3, DATA, 0x1_0000])],
        event: &[(READ, &[2, ROOM, 4096])],
        ..NOTHING
    },
    Blocking { name: "nanosleep", number: NANOSLEEP, args: &[TIME, 0], passes: Duration::from_millis(10), ..NOTHING },
];

/// When the event comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// Before the victim is dropped, which does not hear of it any more.
    BeforeTheDrop,
    /// After it.
    AfterTheDrop,
    /// The victim goes on by it, and a second one follows.
    ForBoth,
}

type Answer = Pin<Box<dyn Future<Output = abi::Result<usize>>>>;

fn answer(thread: &RunningThread, number: usize, args: &[usize]) -> (Answer, Arc<WakeCounter>, Waker) {
    let mut thread = sibling(thread);
    set_call(&mut thread.context, number, args);
    let counter = Arc::new(WakeCounter::default());
    let waker = Waker::from(counter.clone());
    (Box::pin(async move { table::answer(&mut thread, number).await }), counter, waker)
}

fn polled(answer: &mut Answer, waker: &Waker) -> Poll<abi::Result<usize>> {
    answer.as_mut().poll(&mut Context::from_waker(waker))
}

impl Blocking {
    fn prepare(&self) -> Box<RunningThread> {
        let mut thread = new_thread(0);
        thread.space.activate();
        let words: [(usize, &[u64]); 7] = [
            (POLLED, &[1 << 32]),
            (TIME, &[0, 10_000_000]),
            (INTEREST, &[1]),
            (ONE, &[1]),
            (PATH, &[0x662f]),
            (EVERY, &[0, 10_000_000, 0, 10_000_000]),
            (SEVERAL, &[0, ROOM as u64 + 8, 2, 0, ROOM as u64, 2]),
        ];
        for (address, words) in words {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert!(crate::arch::host::poke(address, &bytes));
        }
        for (number, args) in self.before {
            perform(&mut thread, *number, args).unwrap_or_else(|errno| panic!("{}: {errno}", self.name));
        }
        thread
    }

    fn happens(&self, thread: &mut RunningThread) {
        for (number, args) in self.event {
            perform(thread, *number, args).unwrap_or_else(|errno| panic!("{}: {errno}", self.name));
        }
        advance(self.passes);
    }

    /// References to what the call works on.
    fn references(thread: &RunningThread) -> Vec<usize> {
        let files = (0..3).filter_map(|number| thread.files.get(Fd(number)).ok());
        let mut counts: Vec<usize> = files.map(|file| Arc::strong_count(&file)).collect();
        counts.extend([
            Arc::strong_count(&thread.space),
            Arc::strong_count(&thread.files),
            Arc::strong_count(&thread.process),
        ]);
        counts
    }

    fn check(&self, polls: usize, event: Event) -> Result<(), String> {
        let problem = |problem: &str| Err(format!("{}, {polls} polls, event {event:?}: {problem}", self.name));
        let mut thread = self.prepare();
        let before = Self::references(&thread);
        let (mut victim, _, victims_waker) = answer(&thread, self.number, self.args);
        let (mut survivor, woken, survivors_waker) = answer(&thread, self.number, self.args);
        if (0..polls).any(|_| polled(&mut victim, &victims_waker).is_ready()) {
            return problem("the victim does not wait");
        }
        if polled(&mut survivor, &survivors_waker).is_ready() {
            return problem("the other does not wait");
        }
        if event != Event::AfterTheDrop {
            self.happens(&mut thread);
        }
        if event == Event::ForBoth && !(0..10).any(|_| polled(&mut victim, &victims_waker).is_ready()) {
            return problem("the victim was to go on");
        }
        drop(victim);
        if event != Event::BeforeTheDrop {
            self.happens(&mut thread);
        }
        if woken.count() == 0 {
            return problem("the wake is lost");
        }
        let outcome = (0..10).find_map(|_| match polled(&mut survivor, &survivors_waker) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        });
        match outcome {
            None => return problem("the other does not go on"),
            Some(Err(errno)) => return problem(&format!("the other fails: {errno}")),
            Some(_) => {}
        }
        drop(survivor);
        if Self::references(&thread) != before { problem("something leaks") } else { Ok(()) }
    }
}

#[test]
fn no_wake_is_lost_and_nothing_leaks_with_a_call_that_is_dropped() {
    let mut problems = vec![];
    for case in CASES {
        for polls in 0..4 {
            problems.extend(case.check(polls, Event::BeforeTheDrop).err());
            problems.extend(case.check(polls, Event::AfterTheDrop).err());
            if polls > 0 {
                problems.extend(case.check(polls, Event::ForBoth).err());
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}
