//! Socket options (socket(7)).
//!
//! What only other kinds of sockets have is accepted and has no effect, as on Linux.

use core::sync::atomic::Ordering;

use abi::{Errno, Result, net};

use crate::mm::user::UserPtr;
use crate::net::{BUFFER_SIZE, Direction, Sender, socket_of};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

const MICROSECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;

/// The direction of a time limit.
fn direction(option: u32) -> Direction {
    if option == net::SO_RCVTIMEO_OLD { Direction::Receive } else { Direction::Send }
}

/// setsockopt(2). `ENOPROTOOPT`: no such option; `EINVAL`, `EDOM`, `EFAULT`.
pub async fn setsockopt(
    thread: &mut RunningThread,
    fd: Fd,
    level: u32,
    option: u32,
    value: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let socket = socket_of(&file)?;
    if level != net::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    let number: i32 = thread.get(value.cast()).await?;
    match option {
        net::SO_PASSCRED => socket.set_wants_credentials(number != 0),
        net::SO_RCVTIMEO_OLD | net::SO_SNDTIMEO_OLD => {
            if len < 16 {
                return Err(Errno::EINVAL);
            }
            let [seconds, microseconds]: [i64; 2] = thread.get(value.cast()).await?;
            if !(0..1_000_000).contains(&microseconds) {
                return Err(Errno::EDOM);
            }
            // A negative time does not wait: as little as can be said.
            let time = match u64::try_from(seconds) {
                Ok(seconds) => seconds.saturating_mul(SECOND).saturating_add(microseconds as u64 * MICROSECOND),
                Err(_) => 1,
            };
            socket.timeout(direction(option)).store(time, Ordering::Relaxed);
        }
        net::SO_SNDBUF
        | net::SO_RCVBUF
        | net::SO_SNDBUFFORCE
        | net::SO_RCVBUFFORCE
        | net::SO_REUSEADDR
        | net::SO_REUSEPORT
        | net::SO_KEEPALIVE
        | net::SO_BROADCAST
        | net::SO_OOBINLINE
        | net::SO_PRIORITY
        | net::SO_LINGER
        | net::SO_DONTROUTE
        | net::SO_RCVLOWAT
        | net::SO_TIMESTAMP_OLD => {}
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(0)
}

/// getsockopt(2). `ENOPROTOOPT`: no such option; `EINVAL`, `EFAULT`.
pub async fn getsockopt(
    thread: &mut RunningThread,
    fd: Fd,
    level: u32,
    option: u32,
    value: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    let file = thread.files.get(fd)?;
    let socket = socket_of(&file)?;
    if level != net::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = usize::try_from(thread.get(len).await?).map_err(|_| Errno::EINVAL)?;
    let (mut bytes, mut size) = ([0; 16], 4);
    let number = match option {
        net::SO_PEERCRED => {
            let Sender { pid, uid, gid } = socket.peer_credentials();
            bytes[4..8].copy_from_slice(&uid.to_ne_bytes());
            bytes[8..12].copy_from_slice(&gid.to_ne_bytes());
            size = 12;
            pid as u32
        }
        net::SO_RCVTIMEO_OLD | net::SO_SNDTIMEO_OLD => {
            let time = socket.timeout(direction(option)).load(Ordering::Relaxed);
            bytes[..8].copy_from_slice(&(time / SECOND).to_ne_bytes());
            bytes[8..].copy_from_slice(&(time % SECOND / MICROSECOND).to_ne_bytes());
            size = 16;
            (time / SECOND) as u32
        }
        net::SO_TYPE => socket.kind.number(),
        net::SO_DOMAIN => net::AF_UNIX,
        net::SO_ERROR => socket.take_error().map_or(0, |errno| errno.number() as u32),
        net::SO_ACCEPTCONN => u32::from(socket.is_listening()),
        net::SO_PASSCRED => u32::from(socket.wants_credentials()),
        net::SO_SNDBUF | net::SO_RCVBUF => BUFFER_SIZE as u32,
        net::SO_RCVLOWAT => 1,
        net::SO_LINGER => {
            size = 8;
            0
        }
        net::SO_PROTOCOL
        | net::SO_REUSEADDR
        | net::SO_REUSEPORT
        | net::SO_KEEPALIVE
        | net::SO_BROADCAST
        | net::SO_OOBINLINE
        | net::SO_PRIORITY
        | net::SO_DONTROUTE
        | net::SO_TIMESTAMP_OLD => 0,
        _ => return Err(Errno::ENOPROTOOPT),
    };
    bytes[..4].copy_from_slice(&number.to_ne_bytes());
    let size = size.min(room);
    thread.space.write_user_bytes(value.address(), &bytes[..size]).await?;
    thread.put(len, &(size as i32)).await?;
    Ok(0)
}
