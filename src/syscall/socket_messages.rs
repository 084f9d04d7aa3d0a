//! Sockets: several messages with one call, sendmmsg(2) and recvmmsg(2). Each is what sendmsg(2) and recvmsg(2) make of it.
//!
//! Next: `socket_option.rs`.

use abi::{Errno, Result, net};

use super::socket_message::{recvmsg, sendmsg};
use super::time::{self, Timespec};
use crate::mm::user::UserPtr;
use crate::net::socket_of;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// `struct mmsghdr`: a `struct msghdr`, and how many bytes were moved.
pub type MessageWithLength = [u64; 8];

/// Where the length is in it.
const LENGTH: usize = 56;
/// The most messages that are sent at once.
const MOST_SENT: u32 = 1024;
/// After the first, take only what is there.
const MSG_WAITFORONE: u32 = 0x1_0000;

/// One of the messages, as the calls for one take it, and the place of its length.
fn message(list: UserPtr<MessageWithLength>, index: u32) -> (UserPtr<[u64; 7]>, UserPtr<u32>) {
    let at = list.element(index as usize);
    (at.cast(), UserPtr::new(at.address().wrapping_add(LENGTH)))
}

/// sendmmsg(2). As sendmsg(2), if not even the first was sent.
pub async fn sendmmsg(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<MessageWithLength>,
    count: u32,
    flags: u32,
) -> Result<usize> {
    socket_of(&*thread.files.get(fd)?)?;
    for index in 0..count.min(MOST_SENT) {
        let (header, length) = message(list, index);
        let outcome = match sendmsg(thread, fd, header, flags).await {
            Ok(sent) => thread.put(length, &(sent as u32)).await,
            Err(errno) => Err(errno),
        };
        match outcome {
            Ok(()) => {}
            Err(_) if index > 0 => return Ok(index as usize),
            Err(errno) => return Err(errno),
        }
    }
    Ok(count.min(MOST_SENT) as usize)
}

/// recvmmsg(2). As recvmsg(2), if not even the first was received. As on Linux the time is looked at after each message only: it ends no wait.
pub async fn recvmmsg(
    thread: &mut RunningThread,
    fd: Fd,
    list: UserPtr<MessageWithLength>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let end = match timeout.non_null() {
        Some(timeout) => Some(time::after(time::duration(thread.get(timeout).await?)?)),
        None => None,
    };
    socket_of(&*thread.files.get(fd)?)?;
    let mut flags = flags;
    let mut done = 0;
    while done < count {
        let (header, length) = message(list, done);
        let outcome = match recvmsg(thread, fd, header, flags & !MSG_WAITFORONE).await {
            Ok(received) => thread.put(length, &(received as u32)).await,
            Err(errno) => Err(errno),
        };
        match outcome {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= net::MSG_DONTWAIT;
        }
        if end.is_some_and(|end| end <= crate::arch::clock::now()) {
            break;
        }
    }
    if let (Some(end), true) = (end, done > 0) {
        let left = end.saturating_duration_since(crate::arch::clock::now());
        thread.put(timeout, &time::timespec(left)).await.map_err(|_| Errno::EFAULT)?;
    }
    Ok(done as usize)
}
