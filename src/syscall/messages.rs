//! System V messages: msgget(2), msgsnd(2), msgrcv(2), msgctl(2). What they do is in `ipc/messages.rs`.
//!
//! Next: `ipc/messages.rs`.

use alloc::sync::Arc;

use abi::{Errno, Result, ipc};

use crate::ipc::identifiers::{Identified, Ownership, READ};
use crate::ipc::messages::{BYTES_OF_A_QUEUE, LONGEST_MESSAGE, MOST_QUEUES, Message, QUEUES, Queue, Wanted, which};
use crate::mm::user::UserPtr;
use crate::process::RunningThread;

/// `struct msqid64_ds`.
type QueueInformation = [u64; 15];

/// Where the text begins in a `struct msgbuf`.
const TEXT: usize = 8;

/// msgget(2). `EACCES`, `EEXIST`, `ENOENT`, `ENOMEM`, `ENOSPC`.
pub fn msgget(thread: &mut RunningThread, key: i32, flags: u32) -> Result<usize> {
    let mut queues = QUEUES.lock();
    match queues.find(key) {
        Some(_) if flags & ipc::IPC_CREAT != 0 && flags & ipc::IPC_EXCL != 0 => Err(Errno::EEXIST),
        Some(queue) => {
            queue.ownership().check(&thread.credentials, flags & 0o777)?;
            Ok(queue.id() as usize)
        }
        None if key != ipc::IPC_PRIVATE && flags & ipc::IPC_CREAT == 0 => Err(Errno::ENOENT),
        None => {
            let ownership = Ownership::new(key, flags, &thread.credentials);
            Queue::make(&mut queues, ownership).map(|id| id as usize)
        }
    }
}

/// msgsnd(2). `EACCES`, `EAGAIN`, `EFAULT`, `EIDRM`, `EINVAL`: no such queue, a type below 1, too long. `ENOMEM`. Signals with a handler
/// interrupt it for good: `EINTR`.
pub async fn msgsnd(thread: &mut RunningThread, id: i32, from: UserPtr<i64>, len: usize, flags: u32) -> Result<usize> {
    let kind = thread.get(from).await?;
    if len > LONGEST_MESSAGE || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text = UserPtr::new(from.address().checked_add(TEXT).ok_or(Errno::EFAULT)?);
    let bytes = thread.space.read_user_array(text, len).await?;
    let queue = QUEUES.lock().get(id)?;
    queue.send(thread, Message { kind, bytes }, flags & ipc::IPC_NOWAIT == 0).await.map(|()| 0)
}

/// msgrcv(2). `E2BIG`, `EACCES`, `EFAULT`: the message is lost. `EIDRM`, `EINVAL`, `ENOMEM`, `ENOMSG`. Signals with a handler interrupt it for
/// good: `EINTR`.
pub async fn msgrcv(
    thread: &mut RunningThread,
    id: i32,
    to: UserPtr<i64>,
    room: usize,
    kind: i64,
    flags: u32,
) -> Result<usize> {
    let has = |bit: u32| flags & bit != 0;
    if id < 0 || isize::try_from(room).is_err() {
        return Err(Errno::EINVAL);
    }
    let (cuts, may_wait) = (has(ipc::MSG_NOERROR), !has(ipc::IPC_NOWAIT));
    if has(ipc::MSG_COPY) && (has(ipc::MSG_EXCEPT) || may_wait) {
        return Err(Errno::EINVAL);
    }
    let queue = QUEUES.lock().get(id)?;
    let message = if has(ipc::MSG_COPY) {
        let place = usize::try_from(kind).map_err(|_| Errno::ENOMSG)?;
        queue.copy(&thread.credentials, place, room, cuts)?
    } else {
        queue.receive(thread, Wanted { which: which(kind, flags), room, cuts }, may_wait).await?
    };
    let len = message.bytes.len().min(room);
    thread.put(to, &message.kind).await?;
    let text = to.address().checked_add(TEXT).ok_or(Errno::EFAULT)?;
    thread.space.write_user_bytes(text, &message.bytes[..len]).await?;
    Ok(len)
}

/// msgctl(2). `EACCES`, `EFAULT`, `EIDRM`, `EINVAL`, `EPERM`.
pub async fn msgctl(thread: &mut RunningThread, id: i32, command: u32, argument: UserPtr<u8>) -> Result<usize> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        ipc::IPC_INFO | ipc::MSG_INFO => {
            let (limits, largest) = limits(command == ipc::MSG_INFO);
            thread.put(argument.cast(), &limits).await?;
            Ok(largest)
        }
        ipc::IPC_STAT | ipc::MSG_STAT | ipc::MSG_STAT_ANY => {
            let is_by_index = command != ipc::IPC_STAT;
            let queue = if is_by_index { QUEUES.lock().at(id)? } else { QUEUES.lock().get(id)? };
            if command != ipc::MSG_STAT_ANY {
                queue.ownership().check(&thread.credentials, READ)?;
            }
            thread.put(argument.cast(), &information(&queue)).await?;
            Ok(if is_by_index { queue.id() as usize } else { 0 })
        }
        ipc::IPC_SET => {
            let wanted: QueueInformation = thread.get(argument.cast()).await?;
            controlled(thread, id)?.set(&wanted, wanted[11] as usize, &thread.credentials).map(|()| 0)
        }
        ipc::IPC_RMID => {
            controlled(thread, id)?;
            let removed = QUEUES.lock().remove(id).ok_or(Errno::EIDRM)?;
            removed.retire();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The queue, if the caller may change or remove it.
fn controlled(thread: &RunningThread, id: i32) -> Result<Arc<Queue>> {
    let queue = QUEUES.lock().get(id)?;
    queue.ownership().check_control(&thread.credentials)?;
    Ok(queue)
}

/// `struct msginfo`, which in three of its places tells of the limits or of what there is; and the largest index in use.
fn limits(tells_use: bool) -> ([i32; 8], usize) {
    /// MSGSSZ, MSGSEG: of no use since Linux 2.
    const SEGMENTS: [i32; 2] = [16, 0xffff];
    let queues = QUEUES.lock();
    let (pool, map, headers) = if tells_use {
        let (mut count, mut bytes) = (0, 0);
        for about in queues.iter().map(|queue| queue.describe()) {
            count += about.count;
            bytes += about.bytes;
        }
        (queues.len(), count, bytes)
    } else {
        (MOST_QUEUES * BYTES_OF_A_QUEUE / 1024, BYTES_OF_A_QUEUE, BYTES_OF_A_QUEUE)
    };
    let [pool, map, longest, most_bytes, most, headers] =
        [pool, map, LONGEST_MESSAGE, BYTES_OF_A_QUEUE, MOST_QUEUES, headers].map(|number| number as i32);
    ([pool, map, longest, most_bytes, most, SEGMENTS[0], headers, SEGMENTS[1]], queues.largest_index())
}

fn information(queue: &Queue) -> QueueInformation {
    let about = queue.describe();
    let [a, b, c, d, e, f] = about.ownership.words(queue.sequence());
    let [bytes, count, most] = [about.bytes, about.count, about.most_bytes].map(|number| number as u64);
    let pids = u64::from(about.sender as u32) | u64::from(about.receiver as u32) << 32;
    [a, b, c, d, e, f, about.sent, about.received, about.changed, bytes, count, most, pids, 0, 0]
}
