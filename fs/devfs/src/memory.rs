//! The devices that are only memory: null, zero, full, random and urandom (null(4), full(4), random(4)).

use alloc::sync::Arc;
use core::any::Any;

use fs::environment::make_device;
use fs::{Errno, FileOps, IoctlArgument, Kind, OpenFlags, Result, Sink, Source, Stop};

use crate::{Device, Devices};

/// The major number of all of them.
const MAJOR: u32 = 1;
/// What one attempt moves at most, so that a long transfer yields now and then.
const AT_ONCE: usize = 1 << 20;

/// Where randomness comes from and goes to.
#[derive(Clone, Copy)]
pub struct Random {
    /// Fills with random bytes; never fails, never waits.
    pub fill: fn(&mut [u8]),
    /// Mixes bytes that a program wrote into the pool.
    pub mix: fn(&[u8]),
}

/// Registers all of them.
///
/// # Errors
///
/// Those of [`Devices::register`].
pub fn register(devices: &Devices, random: Random) -> Result<()> {
    let null: Arc<dyn FileOps> = Arc::new(Null);
    let zero: Arc<dyn FileOps> = Arc::new(Zero);
    let full: Arc<dyn FileOps> = Arc::new(Full);
    let random: Arc<dyn FileOps> = Arc::new(random);
    let table: [(&[u8], u32, &Arc<dyn FileOps>); 5] = [
        (b"null", 3, &null),
        (b"zero", 5, &zero),
        (b"full", 7, &full),
        (b"random", 8, &random),
        (b"urandom", 9, &random),
    ];
    for (name, minor, ops) in table {
        let ops = ops.clone();
        let number = make_device(MAJOR, minor);
        let device = Device { name, kind: Kind::CharacterDevice, number, mode: 0o666, gid: 0 };
        devices.register(&device, Arc::new(move |_| Ok(ops.clone())))?;
    }
    Ok(())
}

fn swallow(source: &mut dyn Source) -> Result<usize, Stop> {
    Ok(source.skip(source.remaining()))
}

fn zeros(sink: &mut dyn Sink) -> Result<usize, Stop> {
    let done = sink.put_zeros(sink.remaining().min(AT_ONCE));
    if done == 0 && sink.faulted() { Err(Stop::Fault) } else { Ok(done) }
}

struct Null;

impl FileOps for Null {
    fn try_read(&self, _position: &mut u64, _sink: &mut dyn Sink) -> Result<usize, Stop> {
        Ok(0)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        swallow(source)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Public for mmap(2): a private mapping of it is anonymous memory.
pub struct Zero;

impl FileOps for Zero {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        zeros(sink)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        swallow(source)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn reads_fully(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Full;

impl FileOps for Full {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        zeros(sink)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, _source: &mut dyn Source) -> Result<usize, Stop> {
        Err(Errno::ENOSPC.into())
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn reads_fully(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FileOps for Random {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let mut done = 0;
        let wanted = sink.remaining().min(AT_ONCE / 16);
        let mut bytes = [0; 256];
        while done < wanted {
            let part = &mut bytes[..(wanted - done).min(256)];
            (self.fill)(part);
            let moved = sink.put(part);
            done += moved;
            if moved < part.len() {
                break;
            }
        }
        if done == 0 && sink.faulted() { Err(Stop::Fault) } else { Ok(done) }
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let mut done = 0;
        let mut bytes = [0; 256];
        while source.remaining() > 0 && done < AT_ONCE {
            let moved = source.take(&mut bytes);
            (self.mix)(&bytes[..moved]);
            done += moved;
            if moved < bytes.len() {
                break;
            }
        }
        if done == 0 && source.faulted() { Err(Stop::Fault) } else { Ok(done) }
    }

    fn reads_fully(&self) -> bool {
        true
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn ioctl(&self, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        match command {
            abi::ioctl::RNDGETENTCNT => argument.put(&256_u32.to_le_bytes()).map(|()| 0),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
