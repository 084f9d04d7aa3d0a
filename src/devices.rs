//! Which devices there are, and where programs find them.
//!
//! Next: `devices/table.rs`, the table of drivers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::Result;
use conquer_once::spin::OnceCell;
use devfs::Devices;
use drivers::block::BlockDevice;
use executor::sync::SpinLock;
use fs::{FileOps, Kind, OpenFlags};

use crate::process::job_control::Processes;
use crate::tty::Terminals;
use crate::tty::devpts::Devpts;
use crate::{arch, mm};

#[cfg(target_os = "none")]
mod table;

#[cfg(target_os = "none")]
pub use table::start;

static TERMINALS: OnceCell<Arc<Terminals>> = OnceCell::uninit();
static NODES: OnceCell<Arc<Devices>> = OnceCell::uninit();
static PSEUDO_TERMINALS: OnceCell<Arc<Devpts>> = OnceCell::uninit();
static DISKS: SpinLock<Vec<Disk>> = SpinLock::new(Vec::new());

/// A disk, as programs name it.
#[derive(Clone)]
pub struct Disk {
    /// Its name below /dev.
    pub name: Arc<str>,
    /// Its device number.
    pub number: u64,
    /// The device.
    pub device: Arc<dyn BlockDevice>,
}

/// All terminals.
///
/// # Panics
///
/// Before [`prepare`].
pub fn terminals() -> &'static Arc<Terminals> {
    TERMINALS.get().expect("made at boot")
}

/// /dev.
///
/// # Panics
///
/// Before [`prepare`].
pub fn nodes() -> &'static Arc<Devices> {
    NODES.get().expect("made at boot")
}

/// /dev/pts.
///
/// # Panics
///
/// Before [`prepare`].
pub fn pseudo_terminals() -> &'static Arc<Devpts> {
    PSEUDO_TERMINALS.get().expect("made at boot")
}

/// The disk of this device number.
pub fn disk(number: u64) -> Option<Disk> {
    DISKS.lock().iter().find(|disk| disk.number == number).cloned()
}

/// All disks.
pub fn disks() -> Vec<Disk> {
    DISKS.lock().clone()
}

/// Makes what drivers enter their devices into.
pub fn prepare() {
    NODES.init_once(|| Arc::new(Devices::new(&mm::FRAMES)));
    TERMINALS.init_once(|| Terminals::new(Arc::new(Processes), arch::clock::now));
    PSEUDO_TERMINALS.init_once(|| Devpts::new(&mm::FRAMES, terminals().clone()));
}

/// The devices behind device nodes.
pub struct NodeTable;

impl fs::environment::DeviceTable for NodeTable {
    fn open(&self, kind: Kind, represents: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        fs::environment::DeviceTable::open(&**nodes(), kind, represents, flags)
    }
}
