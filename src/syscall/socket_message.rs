//! Sockets: sending and receiving, with what goes along: addresses, descriptors, credentials (unix(7), cmsg(3)).
//!
//! Next: `socket_option.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, general, net};
use executor::sync::WaitQueue;
use fs::{Capabilities, OpenFile, Stop};

use super::socket::{Waiting, attempt, find, get_address, put_address, put_address_in};
use super::transfer::{self, MOST};
use crate::mm::MakeRoom;
use crate::mm::user::{UserPtr, UserSlice};
use crate::mm::{FRAMES, UserBuffer};
use crate::net::{Direction, Incoming, Name, Outgoing, RIGHTS_MAX, Rights, Sender, Socket, Type, socket_of};
use crate::process::fd_table::Fd;
use crate::process::signal::Signal;
use crate::process::{RunningThread, send};

/// The most bytes that may go along (`net.core.optmem_max`).
const CONTROL_MAX: usize = 20_480;
/// `struct cmsghdr`: length, level, type.
const HEADER: usize = 16;

/// `struct msghdr`.
struct Header {
    name: UserPtr<u8>,
    name_len: i32,
    vectors: UserPtr<[usize; 2]>,
    count: usize,
    control: usize,
    control_len: usize,
}

impl Header {
    async fn get(thread: &RunningThread, from: UserPtr<[u64; 7]>) -> Result<Header> {
        let [name, name_len, vectors, count, control, control_len, _] = thread.get(from).await?;
        Ok(Header {
            name: UserPtr::new(name as usize),
            name_len: name_len as u32 as i32,
            vectors: UserPtr::new(vectors as usize),
            count: count as usize,
            control: control as usize,
            control_len: control_len as usize,
        })
    }
}

/// Sends all of it, if it may wait.
async fn send(
    thread: &RunningThread,
    file: &OpenFile,
    to: Option<Arc<Socket>>,
    buffer: &mut UserBuffer<'_>,
    flags: u32,
    outgoing: &mut Outgoing,
) -> Result<usize> {
    let socket = socket_of(file)?;
    if flags & net::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let how = Waiting::new(file, socket, Direction::Send, flags);
    let queue = to.as_ref().map_or(socket.changed(), |to| to.drained());
    let once = |buffer: &mut UserBuffer<'_>| socket.try_send(&FRAMES, to.as_ref(), buffer, outgoing).map(Moved::some);
    let outcome = go_on(thread, queue, how, buffer, once).await;
    if outcome == Err(Errno::EPIPE) && socket.kind == Type::Stream && flags & net::MSG_NOSIGNAL == 0 {
        send::to_caller(thread.shared(), Signal::SIGPIPE);
    }
    outcome
}

/// Receives: what is there, or with MSG_WAITALL all of it.
async fn receive(
    thread: &RunningThread,
    file: &OpenFile,
    buffer: &mut UserBuffer<'_>,
    flags: u32,
    incoming: &mut Incoming,
) -> Result<usize> {
    let socket = socket_of(file)?;
    if flags & net::MSG_OOB != 0 {
        return Err(if socket.kind == Type::Stream { Errno::EINVAL } else { Errno::EOPNOTSUPP });
    }
    incoming.peeks = flags & net::MSG_PEEK != 0;
    incoming.wants_credentials = socket.wants_credentials();
    let wants_all = socket.kind == Type::Stream && flags & net::MSG_WAITALL != 0 && !incoming.peeks;
    let how = Waiting::new(file, socket, Direction::Receive, flags);
    let once = |buffer: &mut UserBuffer<'_>| {
        let bytes = socket.try_receive(buffer, incoming)?;
        Ok(Moved { bytes, is_last: !wants_all || incoming.rights.is_some() })
    };
    go_on(thread, socket.changed(), how, buffer, once).await
}

/// What one attempt has moved.
struct Moved {
    bytes: usize,
    /// It is to be the last.
    is_last: bool,
}

impl Moved {
    fn some(bytes: usize) -> Moved {
        Moved { bytes, is_last: false }
    }
}

/// Attempts until the buffer is done, or nothing more comes; an error counts only if nothing was moved before it.
async fn go_on(
    thread: &RunningThread,
    queue: &WaitQueue,
    how: Waiting<'_>,
    buffer: &mut UserBuffer<'_>,
    mut once: impl FnMut(&mut UserBuffer<'_>) -> Result<Moved, Stop>,
) -> Result<usize> {
    let mut done = 0;
    loop {
        let problem = match attempt(thread, queue, how, || once(buffer)).await {
            Ok(moved) => {
                done += moved.bytes;
                if moved.bytes == 0 || moved.is_last || buffer.is_empty() {
                    return Ok(done);
                }
                continue;
            }
            Err(Stop::Fault) => buffer.resolve().await,
            Err(Stop::Errno(errno)) => Err(errno),
            Err(_) => Err(Errno::EAGAIN),
        };
        match problem {
            Ok(()) => {}
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        }
    }
}

/// The socket that a message is sent to by name.
async fn receiver(
    thread: &RunningThread,
    socket: &Socket,
    address: UserPtr<u8>,
    len: i32,
) -> Result<Option<Arc<Socket>>> {
    if address.is_null() || len == 0 || socket.kind == Type::SequencedPacket {
        return Ok(None);
    }
    let address = get_address(thread, address, len).await?;
    if socket.kind == Type::Stream {
        return Err(if socket.peer().is_some() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
    }
    let name = Name::parse(&address)?.ok_or(Errno::EINVAL)?;
    find(thread, &name, socket.kind).await.map(Some)
}

fn sender(thread: &RunningThread) -> Sender {
    Sender { pid: thread.process.pid, uid: thread.credentials.uid, gid: thread.credentials.gid }
}

/// sendto(2), send(2). `EPIPE`, for a stream with SIGPIPE; `ENOTCONN`, `EISCONN`, `ECONNREFUSED`, `ECONNRESET`, `EMSGSIZE`, `EAGAIN`,
/// `EINTR`, `EFAULT`.
pub async fn sendto(
    thread: &mut RunningThread,
    fd: Fd,
    buffer: usize,
    count: usize,
    flags: u32,
    address: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let to = receiver(thread, socket_of(&file)?, address, len).await?;
    let mut buffer = UserBuffer::new(&thread.space, UserSlice::new(buffer, count.min(MOST)))?;
    let mut outgoing = Outgoing { sender: sender(thread), rights: None };
    send(thread, &file, to, &mut buffer, flags, &mut outgoing).await
}

/// recvfrom(2), recv(2). `EAGAIN`, `EINTR`, `ENOTCONN`, `ECONNRESET`, `EINVAL`, `EFAULT`.
pub async fn recvfrom(
    thread: &mut RunningThread,
    fd: Fd,
    buffer: usize,
    count: usize,
    flags: u32,
    address: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let mut buffer = UserBuffer::new(&thread.space, UserSlice::new(buffer, count.min(MOST)))?;
    let mut incoming = Incoming::default();
    let done = receive(thread, &file, &mut buffer, flags, &mut incoming).await?;
    if !address.is_null() {
        match incoming.from.take() {
            Some(name) => put_address(thread, Some(name), address, len).await?,
            None => thread.put(len, &0).await?,
        }
    }
    Ok(if flags & net::MSG_TRUNC != 0 && incoming.is_truncated { incoming.len } else { done })
}

/// sendmsg(2). As sendto(2); `EINVAL`: bad control data; `EBADF`: a descriptor among it; `ETOOMANYREFS`; `EPERM`: credentials that are
/// not the caller's; `ENOBUFS`.
pub async fn sendmsg(thread: &mut RunningThread, fd: Fd, message: UserPtr<[u64; 7]>, flags: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let socket = socket_of(&file)?;
    let header = Header::get(thread, message).await?;
    let slices = transfer::vector(thread, header.vectors, header.count).await.map_err(too_many)?;
    let mut outgoing = Outgoing { sender: sender(thread), rights: None };
    if header.control_len > 0 {
        if header.control_len > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let control: Vec<u8> = thread.space.read_user_array(UserPtr::new(header.control), header.control_len).await?;
        parse_control(thread, &control, &mut outgoing)?;
    }
    let to = receiver(thread, socket, header.name, header.name_len).await?;
    let mut buffer = UserBuffer::vectored(&thread.space, &slices)?;
    buffer.truncate(MOST);
    send(thread, &file, to, &mut buffer, flags, &mut outgoing).await
}

/// readv(2) says `EINVAL` of too many buffers, these calls `EMSGSIZE`.
fn too_many(errno: Errno) -> Errno {
    if errno == Errno::EINVAL { Errno::EMSGSIZE } else { errno }
}

/// What goes along with a message.
fn parse_control(thread: &RunningThread, mut control: &[u8], outgoing: &mut Outgoing) -> Result<()> {
    let mut files = Vec::new();
    while let Some((header, _)) = control.split_first_chunk::<HEADER>() {
        let [len @ .., _, _, _, _, _, _, _, _] = header;
        let len = usize::from_ne_bytes(*len);
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let data = control.get(HEADER..len).ok_or(Errno::EINVAL)?;
        match (word(8), word(12)) {
            (net::SOL_SOCKET, net::SCM_RIGHTS) => add_files(thread, data, &mut files)?,
            (net::SOL_SOCKET, net::SCM_CREDENTIALS) => outgoing.sender = check_credentials(thread, data)?,
            (net::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
        control = control.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    if !files.is_empty() {
        let is_privileged = thread.credentials.can(Capabilities::SYS_RESOURCE | Capabilities::SYS_ADMIN);
        let limit = thread.process.limits.lock().soft(general::RLIMIT_NOFILE);
        let most = if is_privileged { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        outgoing.rights = Some(Rights::new(files, thread.credentials.uid, most)?);
    }
    Ok(())
}

fn add_files(thread: &RunningThread, data: &[u8], files: &mut Vec<Arc<OpenFile>>) -> Result<()> {
    let (numbers, _) = data.as_chunks::<4>();
    if numbers.len() + files.len() > RIGHTS_MAX {
        return Err(Errno::EINVAL);
    }
    files.make_room(numbers.len())?;
    for number in numbers {
        files.push(thread.files.get(Fd(i32::from_ne_bytes(*number)))?);
    }
    Ok(())
}

/// `struct ucred`: whoever may not pretend says only what is so.
fn check_credentials(thread: &RunningThread, data: &[u8]) -> Result<Sender> {
    let (words, rest) = data.as_chunks::<4>();
    let ([pid, uid, gid], []) = (words, rest) else { return Err(Errno::EINVAL) };
    let (pid, uid, gid) = (i32::from_ne_bytes(*pid), u32::from_ne_bytes(*uid), u32::from_ne_bytes(*gid));
    let own = &thread.credentials;
    let is_so = (pid == thread.process.pid || own.can(Capabilities::SYS_ADMIN))
        && ([own.uid, own.euid, own.suid].contains(&uid) || own.can(Capabilities::SETUID))
        && ([own.gid, own.egid, own.sgid].contains(&gid) || own.can(Capabilities::SETGID));
    if is_so { Ok(Sender { pid, uid, gid }) } else { Err(Errno::EPERM) }
}

/// recvmsg(2). As recvfrom(2); `EMSGSIZE`: too many buffers.
pub async fn recvmsg(thread: &mut RunningThread, fd: Fd, message: UserPtr<[u64; 7]>, flags: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    socket_of(&file)?;
    let header = Header::get(thread, message).await?;
    let name_room = usize::try_from(header.name_len).map_err(|_| Errno::EINVAL)?;
    let slices = transfer::vector(thread, header.vectors, header.count).await.map_err(too_many)?;
    let mut buffer = UserBuffer::vectored(&thread.space, &slices)?;
    buffer.truncate(MOST);
    let mut incoming = Incoming::default();
    let done = receive(thread, &file, &mut buffer, flags, &mut incoming).await?;
    let mut control = Control { bytes: Vec::new(), room: header.control_len.min(CONTROL_MAX), flags: 0 };
    if header.control == 0 {
        control.room = 0;
    }
    fill_control(thread, &mut incoming, flags, &mut control);
    thread.space.write_user_bytes(header.control, &control.bytes).await?;
    let name_len = match incoming.from.take() {
        Some(name) if !header.name.is_null() => put_address_in(thread, Some(name), header.name, name_room).await?,
        _ => 0,
    };
    let shown = flags & net::MSG_CMSG_CLOEXEC | if incoming.is_truncated { net::MSG_TRUNC } else { 0 } | control.flags;
    let base = message.address();
    thread.put(UserPtr::<u32>::new(base + 8), &(name_len as u32)).await?;
    thread.put(UserPtr::<u64>::new(base + 40), &(control.bytes.len() as u64)).await?;
    thread.put(UserPtr::<u32>::new(base + 48), &shown).await?;
    Ok(if flags & net::MSG_TRUNC != 0 && incoming.is_truncated { incoming.len } else { done })
}

/// What goes to the program along with a message.
struct Control {
    bytes: Vec<u8>,
    room: usize,
    flags: u32,
}

impl Control {
    fn left(&self) -> usize {
        self.room - self.bytes.len()
    }

    /// Adds as much as there is room for.
    fn add(&mut self, kind: u32, data: &[u8]) {
        let len = (HEADER + data.len()).min(self.left());
        if len < HEADER {
            self.flags |= net::MSG_CTRUNC;
            return;
        }
        if len < HEADER + data.len() {
            self.flags |= net::MSG_CTRUNC;
        }
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&net::SOL_SOCKET.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&data[..len - HEADER]);
        let end = self.bytes.len().next_multiple_of(8).min(self.room);
        self.bytes.resize(end, 0);
    }
}

fn fill_control(thread: &RunningThread, incoming: &mut Incoming, flags: u32, control: &mut Control) {
    if incoming.wants_credentials
        && let Some(Sender { pid, uid, gid }) = incoming.sender
    {
        let mut data = [0; 12];
        data[..4].copy_from_slice(&pid.to_ne_bytes());
        data[4..8].copy_from_slice(&uid.to_ne_bytes());
        data[8..].copy_from_slice(&gid.to_ne_bytes());
        control.add(net::SCM_CREDENTIALS, &data);
    }
    let Some(rights) = incoming.rights.take() else { return };
    let room = control.left().saturating_sub(HEADER) / 4;
    let mut data = Vec::new();
    for file in rights.into_files() {
        if data.len() / 4 == room {
            control.flags |= net::MSG_CTRUNC;
            break;
        }
        match thread.new_descriptor(file, flags & net::MSG_CMSG_CLOEXEC != 0) {
            Ok(fd) => data.extend_from_slice(&fd.0.to_ne_bytes()),
            Err(_) => {
                control.flags |= net::MSG_CTRUNC;
                break;
            }
        }
    }
    if !data.is_empty() {
        control.add(net::SCM_RIGHTS, &data);
    }
}
