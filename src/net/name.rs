//! The addresses of AF_UNIX sockets, and the table of the abstract ones.
//!
//! A socket's name is a path in the file system, where an inode of its kind leads to it, or a string of bytes in a table of
//! the kernel's own. Both end when the socket does; only the inode stays, and leads nowhere.
//!
//! Next: `rights.rs`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Result, net};
use executor::sync::SpinLock;
use fs::{Inode, Kind};

use super::socket::{Socket, Type};

/// The bytes of `sun_path` in `struct sockaddr_un`.
const PATH_LEN: usize = 108;
/// The family, which every address begins with.
const FAMILY_LEN: usize = 2;
/// The longest address.
pub const ADDRESS_LEN: usize = FAMILY_LEN + PATH_LEN;

/// A socket's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Name {
    /// A path, as it was given to bind(2).
    Path(Vec<u8>),
    /// Any bytes.
    Abstract(Vec<u8>),
}

impl Name {
    /// From a `struct sockaddr_un` of the length that the program gave. `None`: no name, only the family.
    ///
    /// # Errors
    ///
    /// `EINVAL`: too short, too long, or another family.
    pub fn parse(address: &[u8]) -> Result<Option<Name>> {
        let (family, path) = address.split_first_chunk::<FAMILY_LEN>().ok_or(Errno::EINVAL)?;
        if u32::from(u16::from_ne_bytes(*family)) != net::AF_UNIX || path.len() > PATH_LEN {
            return Err(Errno::EINVAL);
        }
        Ok(match path {
            [] => None,
            [0, name @ ..] => Some(Name::Abstract(name.to_vec())),
            _ => Some(Name::Path(path.split(|byte| *byte == 0).next().unwrap_or(path).to_vec())),
        })
    }

    /// As `struct sockaddr_un`, with the length that unix(7) says. `None` is the address of a socket without a name.
    pub fn address(name: Option<&Name>) -> ([u8; ADDRESS_LEN + 1], usize) {
        let mut address = [0; ADDRESS_LEN + 1];
        address[..FAMILY_LEN].copy_from_slice(&(net::AF_UNIX as u16).to_ne_bytes());
        let (begin, bytes, end) = match name {
            None => (FAMILY_LEN, &[][..], 0),
            // With its NUL.
            Some(Name::Path(path)) => (FAMILY_LEN, &path[..], 1),
            Some(Name::Abstract(name)) => (FAMILY_LEN + 1, &name[..], 0),
        };
        let len = bytes.len().min(address.len() - begin - end);
        address[begin..begin + len].copy_from_slice(&bytes[..len]);
        (address, begin + len + end)
    }
}

/// Who has an abstract name: each type of socket has names of its own.
type Names = BTreeMap<(Type, Vec<u8>), Weak<Socket>>;

/// The sockets with abstract names; those of different types do not get in each other's way.
static ABSTRACT: SpinLock<Names> = SpinLock::new(BTreeMap::new());

/// Enters a socket under an abstract name.
///
/// # Errors
///
/// `EADDRINUSE`.
pub fn enter(name: &[u8], socket: &Arc<Socket>) -> Result<()> {
    let mut table = ABSTRACT.lock();
    let key = (socket.kind, name.to_vec());
    if table.contains_key(&key) {
        return Err(Errno::EADDRINUSE);
    }
    table.insert(key, Arc::downgrade(socket));
    Ok(())
}

/// Takes an abstract name out. Only the socket that has it does so.
pub fn remove(name: &[u8], kind: Type) {
    let former = ABSTRACT.lock().remove(&(kind, name.to_vec()));
    drop(former);
}

/// Enters a socket under a name that nobody has: five hexadecimal digits.
///
/// # Errors
///
/// `ENOSPC`: all are taken.
pub fn enter_anywhere(socket: &Arc<Socket>) -> Result<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1 << 12 {
        let name = format!("{:05x}", NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff).into_bytes();
        if enter(&name, socket).is_ok() {
            return Ok(name);
        }
    }
    Err(Errno::ENOSPC)
}

/// The socket of this abstract name.
///
/// # Errors
///
/// `ECONNREFUSED`: none.
pub fn find(name: &[u8], kind: Type) -> Result<Arc<Socket>> {
    let found = ABSTRACT.lock().get(&(kind, name.to_vec())).cloned();
    found.and_then(|socket| socket.upgrade()).ok_or(Errno::ECONNREFUSED)
}

/// Lets an inode lead to a socket.
pub fn attach(inode: &dyn Inode, socket: &Arc<Socket>) {
    let socket: Arc<dyn Any + Send + Sync> = socket.clone();
    let former = inode.core().with_extras(|extras| extras.bound.replace(Arc::downgrade(&socket)));
    drop(former);
}

/// The socket that an inode leads to.
///
/// # Errors
///
/// `ECONNREFUSED`: it is not a socket's, or its socket is gone. `EPROTOTYPE`: of another type.
pub fn find_at(inode: &dyn Inode, kind: Type) -> Result<Arc<Socket>> {
    if inode.core().kind != Kind::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    let bound = inode.core().with_extras(|extras| extras.bound.clone());
    let socket = bound.and_then(|bound| bound.upgrade()).ok_or(Errno::ECONNREFUSED)?;
    let socket = socket.downcast::<Socket>().map_err(|_| Errno::ECONNREFUSED)?;
    if socket.kind == kind { Ok(socket) } else { Err(Errno::EPROTOTYPE) }
}
