//! Sockets: making, naming and connecting them.
//!
//! AF_UNIX only so far (`src/net`). A socket attempts; what waits is `attempt`, for all of the calls alike.
//!
//! Next: `socket_message.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use abi::{Errno, Result, net};
use executor::Instant;
use executor::sync::WaitQueue;
use fs::permission::{Access, check};
use fs::{At, Kind, OpenFile, OpenFlags, Stop, WalkFlags};

use super::time;
use crate::mm::user::UserPtr;
use crate::net::{Direction, Name, Sender, Socket, Type, open, socket_of};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;
use crate::process::wait_event::Interruptible;

/// The longest address that is copied in: `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;
/// The flags of socket(2) that stand beside the type.
const FLAGS: u32 = OpenFlags::NONBLOCK.bits() | OpenFlags::CLOEXEC.bits();

impl RunningThread {
    /// Who it is for those who connect to it.
    pub(super) fn peer_credentials(&self) -> Sender {
        Sender { pid: self.process.pid, uid: self.credentials.euid, gid: self.credentials.egid }
    }

    fn new_socket(&self, socket: Arc<Socket>, flags: OpenFlags) -> Result<Fd> {
        let file = open(socket, &self.credentials, flags);
        self.new_descriptor(file, flags.contains(OpenFlags::CLOEXEC))
    }
}

/// What kind of socket, and with which flags.
fn parse_kind(domain: u32, kind: u32, protocol: u32) -> Result<(Type, OpenFlags)> {
    let (flags, kind) = (kind & !0xf, kind & 0xf);
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if domain != net::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != net::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok((Type::from_number(kind)?, OpenFlags::from_bits_truncate(flags)))
}

/// Attempts until it is done, an error, or the socket's own time is up (`EAGAIN`). `queue` is woken when it may succeed.
pub(super) async fn attempt<T>(
    thread: &RunningThread,
    queue: &WaitQueue,
    how: Waiting<'_>,
    mut attempt: impl FnMut() -> Result<T, Stop>,
) -> Result<T, Stop> {
    if !how.may_wait {
        return attempt();
    }
    let deadline = deadline(how.socket, how.direction);
    let waited = thread.wait_event(queue, Interruptible::BySignals, deadline, || match attempt() {
        Err(Stop::WouldBlock) => None,
        outcome => Some(outcome),
    });
    outcome(waited.await, deadline)
}

/// When a wait that begins now is over.
pub(super) fn deadline(socket: &Socket, direction: Direction) -> Option<Instant> {
    let timeout = socket.timeout(direction).load(Ordering::Relaxed);
    (timeout != 0).then(|| time::after(Duration::from_nanos(timeout)))
}

/// What becomes of an attempt that was waited for.
pub(super) fn outcome<T>(waited: Result<Result<T, Stop>>, deadline: Option<Instant>) -> Result<T, Stop> {
    match waited {
        Ok(outcome) => outcome,
        Err(Errno::ETIMEDOUT) => Err(Stop::WouldBlock),
        // As on Linux: the time that is left is not known to a call that would begin again.
        Err(Errno::ERESTARTSYS) if deadline.is_some() => Err(Errno::EINTR.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether an attempt waits, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) socket: &'a Socket,
    pub(super) direction: Direction,
    pub(super) may_wait: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(file: &'a OpenFile, socket: &'a Socket, direction: Direction, flags: u32) -> Waiting<'a> {
        let may_wait = !file.flags().contains(OpenFlags::NONBLOCK) && flags & net::MSG_DONTWAIT == 0;
        Waiting { socket, direction, may_wait }
    }
}

/// The errno of an attempt that stopped, where no user memory is involved.
pub(super) fn errno_of(stop: Stop) -> Errno {
    match stop {
        Stop::Errno(errno) => errno,
        Stop::WouldBlock => Errno::EAGAIN,
        Stop::Fault | Stop::Miss(_) => Errno::EFAULT,
    }
}

/// The bytes of an address.
pub(super) async fn get_address(thread: &RunningThread, address: UserPtr<u8>, len: i32) -> Result<Vec<u8>> {
    match usize::try_from(len) {
        Ok(len) if len <= ADDRESS_MAX => thread.space.read_user_array(address, len).await,
        _ => Err(Errno::EINVAL),
    }
}

/// Copies an address out as far as the program has room, and says how long it is.
pub(super) async fn put_address(
    thread: &RunningThread,
    name: Option<Arc<Name>>,
    address: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<()> {
    let room = usize::try_from(thread.get(len).await?).map_err(|_| Errno::EINVAL)?;
    let actual = put_address_in(thread, name, address, room).await?;
    thread.put(len, &(actual as i32)).await
}

/// Copies an address out as far as there is room; returns how long it is.
pub(super) async fn put_address_in(
    thread: &RunningThread,
    name: Option<Arc<Name>>,
    address: UserPtr<u8>,
    room: usize,
) -> Result<usize> {
    let (bytes, len) = Name::address(name.as_deref());
    thread.space.write_user_bytes(address.address(), &bytes[..len.min(room)]).await?;
    Ok(len)
}

/// Finds the socket of a name. `ECONNREFUSED`: there is none. `EPROTOTYPE`: of another type. `EACCES`, `ENOENT` and others of the walk.
pub(super) async fn find(thread: &RunningThread, name: &Name, kind: Type) -> Result<Arc<Socket>> {
    match name {
        Name::Abstract(name) => crate::net::find(name, kind),
        Name::Path(path) => {
            let place = Box::pin(thread.caller().walk(At::working_directory(path), WalkFlags::FOLLOW)).await?;
            check(&thread.credentials, &**place.inode(), Access::WRITE)?;
            crate::net::find_at(&**place.inode(), kind)
        }
    }
}

/// socket(2). `EAFNOSUPPORT`: not AF_UNIX. `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EINVAL`, `EMFILE`.
pub async fn socket(thread: &mut RunningThread, domain: u32, kind: u32, protocol: u32) -> Result<usize> {
    let (kind, flags) = parse_kind(domain, kind, protocol)?;
    let socket = Socket::new(kind, thread.peer_credentials());
    thread.new_socket(socket, flags).map(|fd| fd.0 as usize)
}

/// socketpair(2). As socket(2); `EFAULT`.
pub async fn socketpair(
    thread: &mut RunningThread,
    domain: u32,
    kind: u32,
    protocol: u32,
    result: UserPtr<[i32; 2]>,
) -> Result<usize> {
    let (kind, flags) = parse_kind(domain, kind, protocol)?;
    let (one, other) = Socket::pair(kind, thread.peer_credentials());
    let one = thread.new_socket(one, flags)?;
    let other = match thread.new_socket(other, flags) {
        Ok(other) => other,
        Err(errno) => {
            drop(thread.files.remove(one));
            return Err(errno);
        }
    };
    if let Err(errno) = thread.put(result, &[one.0, other.0]).await {
        drop(thread.files.remove(one));
        drop(thread.files.remove(other));
        return Err(errno);
    }
    Ok(0)
}

/// bind(2). `EINVAL`: it has a name, or the address is none. `EADDRINUSE`. Others as mknod(2): `EACCES`, `ENOENT`, `EROFS`, …
pub async fn bind(thread: &mut RunningThread, fd: Fd, address: UserPtr<u8>, len: i32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let socket = socket_of(&file)?;
    let name = Name::parse(&get_address(thread, address, len).await?)?;
    socket.begin_binding()?;
    match name {
        None => socket.bind_abstract(None)?,
        Some(Name::Abstract(name)) => socket.bind_abstract(Some(name))?,
        Some(Name::Path(path)) => {
            let made = Box::pin(thread.caller().mknod(At::working_directory(&path), Kind::Socket, 0o777, 0)).await;
            match made {
                Ok(place) => socket.bind_path(Name::Path(path), place),
                Err(errno) => {
                    socket.give_up_binding();
                    return Err(if errno == Errno::EEXIST { Errno::EADDRINUSE } else { errno });
                }
            }
        }
    }
    Ok(0)
}

/// listen(2). `EINVAL`: it has no name, or is connected. `EOPNOTSUPP`: a datagram socket.
pub async fn listen(thread: &mut RunningThread, fd: Fd, backlog: i32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    // As on Linux, a negative number is a very large one.
    socket_of(&file)?.listen(backlog as u32 as usize, thread.peer_credentials())?;
    Ok(0)
}

/// connect(2). `ECONNREFUSED`: nobody listens. `EISCONN`, `EPROTOTYPE`, `EINVAL`; `EAGAIN`: too many wait to be accepted; `EACCES`,
/// `ENOENT` and others of the walk.
pub async fn connect(thread: &mut RunningThread, fd: Fd, address: UserPtr<u8>, len: i32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let socket = socket_of(&file)?;
    let address = get_address(thread, address, len).await?;
    if socket.kind == Type::Datagram && address.starts_with(&(net::AF_UNSPEC as u16).to_ne_bytes()) {
        socket.set_peer(None)?;
        return Ok(0);
    }
    let name = Name::parse(&address)?.ok_or(Errno::EINVAL)?;
    let to = find(thread, &name, socket.kind).await?;
    if socket.kind == Type::Datagram {
        socket.set_peer(Some(to))?;
        return Ok(0);
    }
    let how = Waiting::new(&file, socket, Direction::Send, 0);
    let who = thread.peer_credentials();
    attempt(thread, to.drained(), how, || socket.try_connect(&to, who)).await.map_err(errno_of)?;
    Ok(0)
}

/// accept(2).
pub async fn accept(thread: &mut RunningThread, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize> {
    accept4(thread, fd, address, len, 0).await
}

/// accept4(2). `EINVAL`: it does not listen, or unknown flags. `EOPNOTSUPP`: a datagram socket. `EAGAIN`, `EINTR`, `EMFILE`, `EFAULT`.
pub async fn accept4(
    thread: &mut RunningThread,
    fd: Fd,
    address: UserPtr<u8>,
    len: UserPtr<i32>,
    flags: u32,
) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = thread.files.get(fd)?;
    let listener = socket_of(&file)?;
    let how = Waiting::new(&file, listener, Direction::Receive, 0);
    let accepted = attempt(thread, listener.changed(), how, || listener.try_accept()).await.map_err(errno_of)?;
    let name = accepted.peer().and_then(|peer| peer.name());
    // From here on it is closed when it is dropped.
    let flags = OpenFlags::from_bits_truncate(flags);
    let file = open(accepted, &thread.credentials, flags);
    if !address.is_null() {
        put_address(thread, name, address, len).await?;
    }
    thread.new_descriptor(file, flags.contains(OpenFlags::CLOEXEC)).map(|fd| fd.0 as usize)
}

/// getsockname(2). `ENOTSOCK`, `EFAULT`, `EINVAL`.
pub async fn getsockname(thread: &mut RunningThread, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize> {
    let file = thread.files.get(fd)?;
    put_address(thread, socket_of(&file)?.name(), address, len).await?;
    Ok(0)
}

/// getpeername(2). `ENOTCONN`; as getsockname(2).
pub async fn getpeername(thread: &mut RunningThread, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let peer = socket_of(&file)?.peer().ok_or(Errno::ENOTCONN)?;
    put_address(thread, peer.name(), address, len).await?;
    Ok(0)
}

/// shutdown(2). `ENOTCONN`, `EINVAL`.
pub async fn shutdown(thread: &mut RunningThread, fd: Fd, how: u32) -> Result<usize> {
    let direction = match how {
        net::SHUT_RD => Direction::Receive,
        net::SHUT_WR => Direction::Send,
        net::SHUT_RDWR => Direction::Both,
        _ => return Err(Errno::EINVAL),
    };
    let file = thread.files.get(fd)?;
    socket_of(&file)?.shut_down(direction)?;
    Ok(0)
}
