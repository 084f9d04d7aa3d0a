//! /dev/vportNpM: the ports of virtio consoles as files, channels of bytes to the host.
//!
//! As on Linux, one file at a time; the host is told when it is opened and closed. A read of a port that nobody has opened on the
//! host is at its end; a write to it waits. The nodes appear when the host adds the ports.
//!
//! Next: `drivers/virtio/src/console/port.rs`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use core::any::Any;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;

use abi::{Errno, Result};
use devfs::{Device, Devices};
use drivers::console::ByteChannel;
use executor::sync::{WaitQueue, Waiter};
use fs::environment::make_device;
use fs::{FileOps, Io, Kind, OpenFlags, PollEvents, Sink, Source, Stop};
use virtio::console::{Port, VirtioConsole};

/// The major number; dynamic on Linux.
const MAJOR: u32 = 245;
/// Minor numbers of one console.
const MOST_PORTS: u32 = 32;
/// How much is copied at once.
const PIECE: usize = 2048;

/// Enters a console's ports into /dev as they come, for ever; `index` numbers the virtio device. To be spawned.
pub async fn announce(console: Arc<VirtioConsole>, index: u32, devices: Arc<Devices>) {
    let mut is_known = vec![false; MOST_PORTS as usize];
    let mut changed = pin!(Waiter::shared(console.changed()));
    poll_fn(|context| {
        // Register, then look: a port that comes meanwhile wakes this.
        changed.as_mut().register(context);
        for port in console.ports() {
            if let Some(is_known @ false) = is_known.get_mut(port.id() as usize) {
                *is_known = true;
                enter(&devices, index, port);
            }
        }
        Poll::Pending
    })
    .await
}

fn enter(devices: &Devices, index: u32, port: Arc<Port>) {
    let name = format!("vport{index}p{}", port.id());
    let device = Device {
        name: name.as_bytes(),
        kind: Kind::CharacterDevice,
        number: make_device(MAJOR, index * MOST_PORTS + port.id()),
        mode: 0o600,
        gid: 0,
    };
    let is_open = Arc::new(AtomicBool::new(false));
    let opener = move |_flags| PortFile::open(&port, &is_open).map(|file| Arc::new(file) as Arc<dyn FileOps>);
    if let Err(errno) = devices.register(&device, Arc::new(opener)) {
        log::error!("/dev/{name}: {errno:?}");
    }
}

/// An open port.
struct PortFile {
    port: Arc<Port>,
    /// Whether there is a file for the port: this one.
    is_open: Arc<AtomicBool>,
}

impl PortFile {
    fn open(port: &Arc<Port>, is_open: &Arc<AtomicBool>) -> Result<PortFile> {
        // Acquire: pairs with the Release in drop().
        if is_open.swap(true, Ordering::Acquire) {
            return Err(Errno::EBUSY);
        }
        port.set_open(true);
        Ok(PortFile { port: port.clone(), is_open: is_open.clone() })
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        self.port.set_open(false);
        // Release: the next file opens after this one was closed.
        self.is_open.store(false, Ordering::Release);
    }
}

impl FileOps for PortFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        // Asked before looking: the bytes that came before the host closed are there by then.
        let is_connected = self.port.is_connected();
        match self.port.read_with(&mut |bytes| sink.put(bytes)) {
            0 if sink.faulted() => Err(Stop::Fault),
            0 if is_connected => Err(Stop::WouldBlock),
            len => Ok(len),
        }
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let mut piece = [0; PIECE];
        let mut done = 0;
        while source.remaining() > 0 {
            let len = source.take(&mut piece);
            let sent = self.port.try_write(&piece[..len]);
            done += sent;
            source.give_back(len - sent);
            if sent < PIECE {
                break;
            }
        }
        match done {
            0 if source.remaining() == 0 => Ok(0),
            0 if source.faulted() => Err(Stop::Fault),
            0 => Err(Stop::WouldBlock),
            done => Ok(done),
        }
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        if self.port.can_read() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if self.port.can_write() {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        if !self.port.is_connected() {
            events |= PollEvents::HUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.port.changed())
    }

    fn release(&self) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    fn name(&self) -> String {
        self.port.name().unwrap_or_else(|| format!("virtio port {}", self.port.id()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
