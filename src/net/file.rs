//! A socket as an open file.
//!
//! Next: `src/syscall/socket.rs`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::general;
use conquer_once::spin::OnceCell;
use executor::sync::WaitQueue;
use executor::sync::get_or_init;
use fs::inode::{AttributeChange, FileSystemStatus};
use fs::{
    Attributes, Credentials, Errno, FileOps, Inode, InodeCore, Io, IoctlArgument, Kind, OpenFile, OpenFlags, PAGE_SIZE,
    PollEvents, Result, Sink, Source, Stop, environment,
};

use super::socket::{Sender, Socket};
use super::transfer::{Incoming, Outgoing};

/// A socket that is open. When it goes, the socket is closed.
pub struct SocketFile {
    socket: Arc<Socket>,
    number: u64,
}

/// Opens a socket. `flags` may have NONBLOCK.
pub fn open(socket: Arc<Socket>, owner: &Credentials, flags: OpenFlags) -> Arc<OpenFile> {
    static DEVICE: OnceCell<u64> = OnceCell::uninit();
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let device = *get_or_init(&DEVICE, environment::anonymous_device);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let attributes = Attributes::anonymous(0o777, owner);
    let inode = SocketInode(InodeCore::in_memory(&crate::mm::FRAMES, device, number, Kind::Socket, 0, attributes));
    let ops = Arc::new(SocketFile { socket, number });
    let flags = flags & OpenFlags::NONBLOCK | OpenFlags::RDWR;
    Arc::new(OpenFile::new(ops, None, Some(Arc::new(inode)), flags))
}

/// The socket behind an open file.
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn socket_of(file: &OpenFile) -> Result<&Arc<Socket>> {
    match file.ops.as_any().downcast_ref::<SocketFile>() {
        Some(file) => Ok(&file.socket),
        None => Err(Errno::ENOTSOCK),
    }
}

/// On whose behalf something is sent by write(2).
fn current_sender() -> Sender {
    if let Some(thread) = crate::process::current::get() {
        let (uid, gid) =
            thread.view.lock().as_ref().map_or((0, 0), |view| (view.credentials.uid, view.credentials.gid));
        return Sender { pid: thread.process.pid, uid, gid };
    }
    Sender { pid: 0, uid: 0, gid: 0 }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.close();
    }
}

impl FileOps for SocketFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let wants_credentials = self.socket.wants_credentials();
        // Files that come along are lost: only recvmsg(2) receives them.
        self.socket.try_receive(sink, &mut Incoming { wants_credentials, ..Incoming::default() })
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let mut outgoing = Outgoing { sender: current_sender(), rights: None };
        self.socket.try_send(&crate::mm::FRAMES, None, source, &mut outgoing)
    }

    fn poll(&self) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.changed())
    }

    fn ioctl(&self, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        if command != abi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        if self.socket.is_listening() {
            return Err(Errno::EINVAL.into());
        }
        argument.put(&(self.socket.readable() as u32).to_ne_bytes())?;
        Ok(0)
    }

    fn name(&self) -> String {
        format!("socket:[{}]", self.number)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What fstat(2) reports on.
struct SocketInode(InodeCore);

impl Inode for SocketInode {
    fn core(&self) -> &InodeCore {
        &self.0
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        Err(Errno::ENXIO)
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.0.apply(&change);
        Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus {
            magic: u64::from(general::SOCKFS_MAGIC),
            block_size: PAGE_SIZE as u64,
            name_length: 255,
            ..FileSystemStatus::default()
        }
    }
}
