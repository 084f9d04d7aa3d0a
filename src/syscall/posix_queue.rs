//! POSIX message queues: mq_open(3) and its kin, which are system calls of nearly the same shape. What a queue is stands in
//! `ipc/posix_queue.rs`.
//!
//! Next: `ipc/posix_queue.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use executor::Instant;
use fs::{Inode, OpenFile, OpenFlags, Path, permission};

use super::time::{self, Clock, Timespec};
use crate::ipc::posix_queue::file::QueueFile;
use crate::ipc::posix_queue::{Capacity, Message, Notice, PRIORITIES, Queue, names};
use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::signal::Signal;
use crate::process::wait_event::Interruptible;

/// `struct mq_attr`: flags, most messages, longest message, messages now.
type Attributes = [i64; 8];

/// The longest name.
const NAME_MAX: usize = 255;

/// mq_open(3), whose name has lost its slash in the C library. `EACCES`: no right, or not a name. `EEXIST`, `EINVAL`: both directions' bits, or more
/// than there may be. `EMFILE`: descriptors, or RLIMIT_MSGQUEUE. `ENAMETOOLONG`, `ENFILE`, `ENOENT`, `ENOMEM`, `ENOSPC`, `EFAULT`.
pub async fn mq_open(
    thread: &mut RunningThread,
    name: UserPtr<u8>,
    flags: u32,
    mode: u32,
    attributes: UserPtr<Attributes>,
) -> Result<usize> {
    let wanted = match attributes.non_null() {
        Some(attributes) => Some(thread.get(attributes).await?),
        None => None,
    };
    let name = name_of(thread, name).await?;
    let flags = OpenFlags::from_bits_truncate(flags);
    let folder = names::folder();
    let file = loop {
        match folder.find(&name) {
            Some(_) if flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) => return Err(Errno::EEXIST),
            Some(_) if flags.is_for_control_only() => return Err(Errno::EINVAL),
            Some(queue) => break queue.open_as(&thread.credentials, flags)?,
            None if !flags.contains(OpenFlags::CREAT) => return Err(Errno::ENOENT),
            None => {}
        }
        let capacity = match wanted {
            Some([_, messages, bytes, ..]) => Capacity::new(messages, bytes, &thread.credentials)?,
            None => Capacity::DEFAULT,
        };
        permission::check(&thread.credentials, &*folder, fs::Access::WRITE | fs::Access::EXECUTE)?;
        let limit = thread.process.limits.lock().soft(general::RLIMIT_MSGQUEUE);
        let mode = mode & 0o7777 & !thread.fs.umask();
        match folder.make(&name, mode, capacity, &thread.credentials, limit) {
            Ok(queue) => break QueueFile::new(queue),
            // Somebody was faster.
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    };
    let inode: Arc<dyn Inode> = file.queue().clone();
    let keep = flags & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::NONBLOCK);
    let file = OpenFile::new(Arc::new(file), None::<Path>, Some(inode), keep);
    thread.new_descriptor(Arc::new(file), true).map(|fd| fd.0 as usize)
}

async fn name_of(thread: &RunningThread, name: UserPtr<u8>) -> Result<Vec<u8>> {
    let name = thread.path(name).await?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        name if name.contains(&b'/') => Err(Errno::EACCES),
        long if long.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(name),
    }
}

/// mq_unlink(3). `EACCES`, `EPERM`: another's. `ENAMETOOLONG`, `ENOENT`, `EFAULT`.
pub async fn mq_unlink(thread: &mut RunningThread, name: UserPtr<u8>) -> Result<usize> {
    let name = name_of(thread, name).await?;
    names::folder().remove(&name, &thread.credentials).map(|()| 0)
}

/// An open queue.
struct Open {
    file: Arc<OpenFile>,
}

impl Open {
    fn new(thread: &RunningThread, fd: Fd) -> Result<Open> {
        let file = thread.files.get(fd)?;
        if file.ops.as_any().is::<QueueFile>() { Ok(Open { file }) } else { Err(Errno::EBADF) }
    }

    fn queue_file(&self) -> Result<&QueueFile> {
        self.file.ops.as_any().downcast_ref().ok_or(Errno::EBADF)
    }

    fn queue(&self) -> Result<&Queue> {
        Ok(&**self.queue_file()?.queue())
    }

    fn may_wait(&self) -> bool {
        !self.file.flags().contains(OpenFlags::NONBLOCK)
    }
}

/// The time of day at which a wait is over.
async fn deadline(thread: &RunningThread, timeout: UserPtr<Timespec>) -> Result<Option<Instant>> {
    match timeout.non_null() {
        Some(timeout) => Clock::Realtime.instant(time::duration(thread.get(timeout).await?)?).map(Some),
        None => Ok(None),
    }
}

/// mq_timedsend(3). `EAGAIN`, `EBADF`, `EINTR`, `EINVAL`: a priority too high, or no time. `EMSGSIZE`, `ENOMEM`, `ETIMEDOUT`, `EFAULT`.
pub async fn mq_timedsend(
    thread: &mut RunningThread,
    fd: Fd,
    from: UserPtr<u8>,
    len: usize,
    priority: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let deadline = deadline(thread, timeout).await?;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let open = Open::new(thread, fd)?;
    if !open.file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let queue = open.queue()?;
    if len > queue.capacity().bytes {
        return Err(Errno::EMSGSIZE);
    }
    let bytes = thread.space.read_user_array(from, len).await?;
    let mut message = Some(Message { priority, bytes });
    let sender = (thread.process.pid, thread.credentials.uid);
    let mut attempt = || match queue.try_send(&mut message, sender) {
        Ok(false) => None,
        Ok(true) => Some(Ok(0)),
        Err(errno) => Some(Err(errno)),
    };
    if let Some(outcome) = attempt() {
        return outcome;
    }
    if !open.may_wait() {
        return Err(Errno::EAGAIN);
    }
    thread.wait_event(queue.writable(), Interruptible::BySignals, deadline, attempt).await?
}

/// mq_timedreceive(3). `EAGAIN`, `EBADF`, `EINTR`, `EINVAL`: no time. `EMSGSIZE`: less room than the longest message needs. `ETIMEDOUT`, `EFAULT`.
pub async fn mq_timedreceive(
    thread: &mut RunningThread,
    fd: Fd,
    to: UserPtr<u8>,
    room: usize,
    priority: UserPtr<u32>,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let deadline = deadline(thread, timeout).await?;
    let open = Open::new(thread, fd)?;
    if !open.file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    let queue = open.queue()?;
    if room < queue.capacity().bytes {
        return Err(Errno::EMSGSIZE);
    }
    let message = match queue.try_receive() {
        Some(message) => message,
        None if !open.may_wait() => return Err(Errno::EAGAIN),
        None => {
            let _expecting = queue.expect();
            thread.wait_event(queue.readable(), Interruptible::BySignals, deadline, || queue.try_receive()).await?
        }
    };
    if let Some(priority) = priority.non_null() {
        thread.put(priority, &message.priority).await?;
    }
    thread.space.write_user_bytes(to.address(), &message.bytes).await?;
    Ok(message.bytes.len())
}

/// mq_notify(3). `EBADF`: also for SIGEV_THREAD, which goes by a netlink socket. `EBUSY`, `EINVAL`, `EFAULT`.
pub async fn mq_notify(thread: &mut RunningThread, fd: Fd, event: UserPtr<[u32; 16]>) -> Result<usize> {
    let wanted = match event.non_null() {
        Some(event) => {
            let event = thread.get(event).await?;
            let value = u64::from(event[0]) | u64::from(event[1]) << 32;
            match event[3] {
                general::SIGEV_NONE => Some(None),
                general::SIGEV_SIGNAL => Some(Some((Signal::new(event[2] as usize)?, value))),
                // There are no netlink sockets, so no descriptor is one.
                general::SIGEV_THREAD => return Err(Errno::EBADF),
                _ => return Err(Errno::EINVAL),
            }
        }
        None => None,
    };
    let open = Open::new(thread, fd)?;
    let (queue, pid) = (open.queue()?, thread.process.pid);
    match wanted {
        Some(signal) => {
            let owner = Arc::downgrade(&thread.process);
            queue.set_notice(Notice { owner, pid, signal, file: open.queue_file()?.id() })?;
        }
        None => queue.remove_notice(pid),
    }
    Ok(0)
}

/// mq_getattr(3) and mq_setattr(3). `EBADF`; `EINVAL`: flags other than O_NONBLOCK. `EFAULT`.
pub async fn mq_getsetattr(
    thread: &mut RunningThread,
    fd: Fd,
    new: UserPtr<Attributes>,
    old: UserPtr<Attributes>,
) -> Result<usize> {
    let wanted = match new.non_null() {
        Some(new) => {
            let [flags, ..] = thread.get(new).await?;
            if flags & !i64::from(general::O_NONBLOCK) != 0 {
                return Err(Errno::EINVAL);
            }
            Some(flags != 0)
        }
        None => None,
    };
    let open = Open::new(thread, fd)?;
    let (queue, flags) = (open.queue()?, open.file.flags());
    let Capacity { messages, bytes } = queue.capacity();
    let nonblock = i64::from((flags & OpenFlags::NONBLOCK).bits());
    let before = [nonblock, messages as i64, bytes as i64, queue.count() as i64, 0, 0, 0, 0];
    if let Some(is_nonblocking) = wanted {
        let mut flags = flags;
        flags.set(OpenFlags::NONBLOCK, is_nonblocking);
        open.file.set_flags(flags);
    }
    if let Some(old) = old.non_null() {
        thread.put(old, &before).await?;
    }
    Ok(0)
}
