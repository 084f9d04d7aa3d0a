//! Which drivers exist: a table, one row a driver.
//!
//! A driver's crate offers a `start` function that takes what it may touch and returns `(device, run)`; the rows here find its
//! hardware, hand it over, spawn `run`, and enter the device where programs find it.
//!
//! Next: `process/thread.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use drivers::block::BlockDevice;
use drivers::hw::{Dma, Port};
use executor::Class;
use executor::sync::SpinLock;
use fs::environment::{DeviceTable, make_device};
use fs::{FileOps, Kind, OpenFlags};

use crate::process::job_control::Processes;
use crate::tty::{Terminals, Termios};
use crate::{arch, mm, tasks};

static TERMINALS: OnceCell<Arc<Terminals>> = OnceCell::uninit();
static DISKS: SpinLock<Vec<Disk>> = SpinLock::new(Vec::new());

/// A disk, as programs name it.
#[derive(Clone)]
pub struct Disk {
    /// Its name below /dev.
    pub name: &'static str,
    /// Its device number.
    pub number: u64,
    /// The device.
    pub device: Arc<dyn BlockDevice>,
}

/// All terminals.
///
/// # Panics
///
/// Before [`init`].
pub fn terminals() -> &'static Arc<Terminals> {
    TERMINALS.get().expect("made at boot")
}

/// The disk of this device number.
pub fn disk(number: u64) -> Option<Disk> {
    DISKS.lock().iter().find(|disk| disk.number == number).cloned()
}

/// The devices behind device nodes.
pub struct Devices;

impl DeviceTable for Devices {
    fn open(&self, kind: Kind, represents: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let (major, minor) = (fs::environment::major(represents), fs::environment::minor(represents));
        match (kind, major, minor) {
            (Kind::CharacterDevice, 1, 11) => Ok(Arc::new(crate::log::kmsg::KmsgFile::open())),
            (Kind::CharacterDevice, 4 | 5, _) => terminals().open((major, minor), flags),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// Starts all drivers.
pub fn init() {
    TERMINALS.init_once(|| Terminals::new(Arc::new(Processes), tasks::timers()));
    tasks::spawn(Class::Driver, "terminal deadlines", terminals().clone().run());
    serial();
}

/// The first serial port of a PC: the console.
fn serial() {
    let Some(irq) = arch::irq::isa_line(4) else { return };
    let port = Port::new(&arch::Ports, 0x3f8, 8);
    let (channel, run) = match pc::serial::Serial::new(port, irq, 115_200) {
        Ok(serial) => serial,
        Err(errno) => return log::info!("no serial port: {errno}"),
    };
    tasks::spawn(Class::Driver, "serial", run);
    match terminals().add((4, 64), "/dev/ttyS0", Termios::initial(), channel) {
        Ok((terminal, run)) => {
            terminals().set_console(terminal);
            tasks::spawn(Class::Driver, "ttyS0", run);
        }
        Err(errno) => log::error!("/dev/ttyS0: {errno}"),
    }
}

/// Lets virtio and other bus masters reach memory.
pub fn dma() -> Dma {
    Dma::new(&mm::FRAMES)
}

/// The number of a device node.
pub const fn number(major: u32, minor: u32) -> u64 {
    make_device(major, minor)
}
