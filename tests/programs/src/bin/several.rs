//! What programs rely on of calls that do several things at once: sendmmsg, recvmmsg and futex_waitv; and of adjtimex, which only asks here.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux, as root.
#![allow(unsafe_code, reason = "a program that makes system calls by number has no safe form")]

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;

use test_programs::children::{becomes, drop_privileges, in_child};
use test_programs::{Case, Outcome, ensure, errno};

/// Messages of one buffer each, and how long each was.
struct Messages {
    buffers: Vec<[u8; 16]>,
    lengths: Vec<u32>,
}

impl Messages {
    fn new(count: usize) -> Messages {
        Messages { buffers: vec![[0; 16]; count], lengths: vec![99; count] }
    }

    /// Calls with the messages; how many were moved, or the number of the error.
    fn with(&mut self, len: usize, call: impl FnOnce(*mut libc::mmsghdr, u32) -> i32) -> Result<usize, i32> {
        let mut vectors: Vec<libc::iovec> = self
            .buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: len })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeros is valid.
                let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_len = 99;
                header
            })
            .collect();
        let answer = call(headers.as_mut_ptr(), headers.len() as u32);
        let outcome = usize::try_from(answer).map_err(|_| errno());
        self.lengths = headers.iter().map(|header| header.msg_len).collect();
        outcome
    }

    fn send(&mut self, socket: &impl AsRawFd, len: usize, flags: i32) -> Result<usize, i32> {
        let fd = socket.as_raw_fd();
        // SAFETY: the headers and what they lead to outlive the call.
        self.with(len, |headers, count| unsafe { libc::sendmmsg(fd, headers, count, flags) })
    }

    fn receive(
        &mut self,
        socket: &impl AsRawFd,
        flags: i32,
        timeout: Option<&mut libc::timespec>,
    ) -> Result<usize, i32> {
        let (fd, timeout) = (socket.as_raw_fd(), timeout.map_or(ptr::null_mut(), ptr::from_mut));
        // SAFETY: the headers, what they lead to, and the time outlive the call.
        self.with(16, |headers, count| unsafe { libc::recvmmsg(fd, headers, count, flags, timeout) })
    }
}

fn several_messages_are_sent_and_received() -> Outcome {
    let (here, there) = UnixDatagram::pair().map_err(|error| error.to_string())?;
    let mut sent = Messages::new(3);
    for (buffer, text) in sent.buffers.iter_mut().zip(["one", "two", "six"]) {
        buffer[..3].copy_from_slice(text.as_bytes());
    }
    ensure!(sent.send(&here, 3, 0) == Ok(3) && sent.lengths == [3, 3, 3]);
    let mut received = Messages::new(5);
    ensure!(received.receive(&there, libc::MSG_DONTWAIT, None) == Ok(3));
    ensure!(received.lengths == [3, 3, 3, 99, 99] && received.buffers[2][..3] == *b"six");
    ensure!(received.receive(&there, libc::MSG_DONTWAIT, None) == Err(libc::EAGAIN));
    // It waits for the first, and then takes what is there.
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Messages::new(5);
            received.receive(&there, libc::MSG_WAITFORONE, None)
        });
        ensure!(sent.send(&here, 1, 0) == Ok(3));
        let first = receiver.join().unwrap_or(Err(0));
        ensure!(matches!(first, Ok(1..=3)), "{first:?}");
        let rest = 3 - first.unwrap_or(0);
        let mut left = Messages::new(5);
        ensure!(left.receive(&there, libc::MSG_DONTWAIT, None).unwrap_or(0) == rest);
        Ok(())
    })?;
    // A time that is over ends it after the next message.
    ensure!(sent.send(&here, 1, 0) == Ok(3));
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    ensure!(received.receive(&there, 0, Some(&mut time)) == Ok(1) && (time.tv_sec, time.tv_nsec) == (0, 0));
    time.tv_sec = 1000;
    ensure!(Messages::new(2).receive(&there, 0, Some(&mut time)) == Ok(2) && (900..1000).contains(&time.tv_sec));
    time.tv_nsec = -1;
    ensure!(received.receive(&there, 0, Some(&mut time)) == Err(libc::EINVAL));
    ensure!(Messages::new(0).send(&here, 1, 0) == Ok(0));
    drop(there);
    ensure!(sent.send(&here, 1, libc::MSG_NOSIGNAL) == Err(libc::ECONNREFUSED));
    // SAFETY: a descriptor that is no socket, and no message.
    ensure!(unsafe { libc::sendmmsg(0, ptr::null_mut(), 1, 0) } == -1 && errno() == libc::ENOTSOCK);
    Ok(())
}

/// `struct futex_waitv` for a private word of 32 bits.
fn wanted(word: &AtomicU32, value: u32) -> [u64; 3] {
    [u64::from(value), ptr::from_ref(word).addr() as u64, 2 | libc::FUTEX_PRIVATE_FLAG as u64]
}

fn wait_for(list: &[[u64; 3]], time: Option<&libc::timespec>, clock: i32) -> Result<usize, i32> {
    let time = time.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the list and the time outlive the call, and the words too.
    let answer = unsafe { libc::syscall(449, list.as_ptr(), list.len(), 0, time, clock) };
    usize::try_from(answer).map_err(|_| errno())
}

fn wake(word: &AtomicU32) -> i64 {
    // SAFETY: the word is there.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) }
}

fn the_first_of_several_futexes_ends_the_wait() -> Outcome {
    let words: Vec<AtomicU32> = (0..128).map(AtomicU32::new).collect();
    let list: Vec<[u64; 3]> = words.iter().zip(0..).map(|(word, value)| wanted(word, value)).collect();
    for number in [0, 77, 127] {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| wait_for(&list, None, libc::CLOCK_MONOTONIC));
            ensure!(becomes(|| wake(&words[number]) == 1));
            ensure!(waiter.join().is_ok_and(|woken| woken == Ok(number)));
            Ok(())
        })?;
        ensure!(words.iter().all(|word| wake(word) == 0), "nobody waits any more");
    }
    words[5].store(99, Ordering::SeqCst);
    ensure!(wait_for(&list, None, 0) == Err(libc::EAGAIN));
    ensure!(words.iter().all(|word| wake(word) == 0));
    let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        ensure!(wait_for(&list[..5], Some(&libc::timespec { tv_sec: 0, tv_nsec: 1 }), clock) == Err(libc::ETIMEDOUT));
    }
    ensure!(wait_for(&list[..5], Some(&past), libc::CLOCK_PROCESS_CPUTIME_ID) == Err(libc::EINVAL));
    ensure!(wait_for(&[], None, 0) == Err(libc::EINVAL) && wait_for(&[list[0]; 129], None, 0) == Err(libc::EINVAL));
    for bad in [[0, list[0][1] + 1, 130], [0, list[0][1], 128], [0, list[0][1], 3], [0, list[0][1], 1 << 32 | 2]] {
        ensure!(wait_for(&[bad], None, 0) == Err(libc::EINVAL), "{bad:?}");
    }
    ensure!(wait_for(&[[0, 8, 2]], None, 0) == Err(libc::EFAULT));
    Ok(())
}

fn a_wake_among_many_is_not_lost() -> Outcome {
    const ROUNDS: u32 = 300;
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    let done = AtomicI32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = [0, 0];
            while seen != [ROUNDS, ROUNDS] {
                let list = [wanted(&words[0], seen[0]), wanted(&words[1], seen[1])];
                let _ = wait_for(&list, None, 0);
                seen = [0, 1].map(|index: usize| words[index].load(Ordering::SeqCst));
            }
            done.store(1, Ordering::SeqCst);
        });
        for word in &words {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    word.fetch_add(1, Ordering::SeqCst);
                    wake(word);
                }
            });
        }
    });
    ensure!(done.load(Ordering::SeqCst) == 1);
    Ok(())
}

fn the_clock_can_be_asked_how_well_it_is_set() -> Outcome {
    let ask = |modes: u32| {
        // SAFETY: all zeros is valid; it outlives the call.
        unsafe {
            let mut state: libc::timex = MaybeUninit::zeroed().assume_init();
            state.modes = modes;
            let answer = libc::adjtimex(&raw mut state);
            if answer < 0 { Err(errno()) } else { Ok((answer, state)) }
        }
    };
    let (answer, state) = ask(0).map_err(|errno| format!("errno {errno}"))?;
    ensure!((0..=5).contains(&answer) && state.tick == 10_000 && state.tolerance == 32_768_000 && state.precision == 1);
    ensure!(answer != 5 || state.status & libc::STA_UNSYNC != 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|error| error.to_string())?;
    ensure!((now.as_secs() as i64 - state.time.tv_sec).abs() < 100 && (0..1_000_000_000).contains(&state.time.tv_usec));
    // SAFETY: all zeros is valid; it outlives the call.
    unsafe {
        let mut state: libc::timex = MaybeUninit::zeroed().assume_init();
        ensure!(libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut state) == answer);
        ensure!(libc::clock_adjtime(libc::CLOCK_MONOTONIC, &raw mut state) == -1 && errno() == libc::EOPNOTSUPP);
    }
    // adjtime(3) of nothing, and what it has left to do.
    for modes in [libc::ADJ_OFFSET_SINGLESHOT, libc::ADJ_OFFSET_SS_READ] {
        ensure!(ask(modes).is_ok_and(|(_, state)| state.offset == 0));
    }
    let refused = in_child(|| {
        drop_privileges(1234, 1234);
        ask(libc::ADJ_FREQUENCY).err().unwrap_or(0)
    });
    ensure!(refused? == libc::EPERM);
    Ok(())
}

const CASES: &[Case] = &[
    ("several messages are sent and received", several_messages_are_sent_and_received),
    ("the first of several futexes ends the wait", the_first_of_several_futexes_ends_the_wait),
    ("a wake among many is not lost", a_wake_among_many_is_not_lost),
    ("the clock can be asked how well it is set", the_clock_can_be_asked_how_well_it_is_set),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
