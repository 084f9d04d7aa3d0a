//! Which drivers exist: a table, one row a driver.
//!
//! A driver's crate offers a `start` function that takes what it may touch and returns `(device, run)`; the rows here find its
//! hardware, hand it over, spawn `run`, and enter the device where programs find it. A driver that does not start says why in the log,
//! and the machine goes on without it.
//!
//! Next: `../process/thread.rs`.

use alloc::format;
use alloc::sync::Arc;

use abi::Result;
use devfs::Device;
use devfs::memory::Random;
use drivers::hw::{Dma, Port};
use executor::Class;
use fs::environment::make_device;
use fs::{FileOps, Kind, OpenFlags};
use virtio::BoxedTransport;

use super::{DISKS, Disk, nodes, terminals};
use crate::tty::{Screen, Termios, screen};
use crate::{arch, block_faults, buses, mm, ports, random, tasks};

/// The major number of virtio disks; dynamic on Linux.
const VIRTIO_DISK_MAJOR: u32 = 254;
/// Minor numbers of one disk: itself and its partitions.
const MINORS_PER_DISK: u32 = 16;

/// Starts a virtio driver on a transport; the number counts devices of the kind.
type VirtioStart = fn(BoxedTransport, u32) -> Result<()>;

/// The virtio drivers, by the device's type.
const VIRTIO_DRIVERS: &[(u32, VirtioStart)] = &[(2, virtio_block), (3, virtio_console)];

/// Starts all drivers.
pub fn start(command_line: &[u8]) {
    tasks::spawn(Class::Driver, "terminal deadlines", terminals().clone().run(tasks::timers()));
    report("memory devices", devfs::memory::register(nodes(), Random { fill: random::fill, mix: random::mix }));
    report("standard nodes", standard_nodes());
    report("serial port", serial());
    report("screen", screen());
    block_faults::configure(command_line);
    let functions = buses::pci_functions();
    let mut counts = [0; VIRTIO_DRIVERS.len()];
    for transport in buses::virtio_transports(&functions, command_line) {
        let row = VIRTIO_DRIVERS.iter().position(|(kind, _)| *kind == transport.device_type());
        if let Some(row) = row {
            report("virtio device", VIRTIO_DRIVERS[row].1(transport, counts[row]));
            counts[row] += 1;
        }
    }
    terminals().choose_console(command_line); // after all terminals were added
    tasks::spawn(Class::Driver, "log", crate::log::run());
}

fn report(what: &str, result: Result<()>) {
    if let Err(errno) = result {
        log::warn!("{what}: {errno}");
    }
}

fn register(
    name: &str,
    number: u64,
    mode: u32,
    open: impl Fn(OpenFlags) -> Result<Arc<dyn FileOps>> + Send + Sync + 'static,
) -> Result<()> {
    let device = Device { name: name.as_bytes(), kind: Kind::CharacterDevice, number, mode, gid: 0 };
    nodes().register(&device, Arc::new(open))
}

/// Nodes and links that are there whatever the hardware.
fn standard_nodes() -> Result<()> {
    let terminal = |device: (u32, u32)| move |flags| terminals().open(device, flags);
    register("tty", make_device(5, 0), 0o666, terminal((5, 0)))?;
    register("console", make_device(5, 1), 0o600, terminal((5, 1)))?;
    register("ptmx", make_device(5, 2), 0o666, terminal((5, 2)))?;
    register("kmsg", make_device(1, 11), 0o644, |_| {
        Ok(Arc::new(crate::log::kmsg::KmsgFile::open()) as Arc<dyn FileOps>)
    })?;
    nodes().make_folder(b"pts", 0o755)?;
    nodes().make_folder(b"shm", 0o1777)?;
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        nodes().link(name.as_bytes(), target.as_bytes())?;
    }
    Ok(())
}

/// The first serial port of a PC: the console.
fn serial() -> Result<()> {
    let Some(irq) = arch::irq::isa_line(4) else { return Ok(()) };
    let port = Port::new(&arch::Ports, 0x3f8, 8);
    let (channel, run) = pc::serial::Serial::new(port, irq, 115_200)?;
    tasks::spawn(Class::Driver, "serial", run);
    let (terminal, run) = terminals().add((4, 64), "/dev/ttyS0", Termios::initial(), channel)?;
    terminals().set_console(terminal);
    tasks::spawn(Class::Driver, "ttyS0", run);
    register("ttyS0", make_device(4, 64), 0o600, |flags| terminals().open((4, 64), flags))
}

/// The screen that the loader has set up, with a PC's keyboard: a terminal for the person at the machine.
fn screen() -> Result<()> {
    let Some(info) = arch::boot_info().framebuffer else { return Ok(()) };
    let frame = arch::frame_buffer(&info).ok_or(abi::Errno::ENODEV)?;
    screen::prepare_panic(frame);
    crate::panic::set_screen(screen::show_panic);
    let (device, run) = Screen::new(frame, tasks::timers(), || arch::power::reboot())?;
    tasks::spawn(Class::Driver, "screen", run);
    let (terminal, run) = terminals().add((4, 1), "/dev/tty1", Termios::initial().with_utf8(), device.clone())?;
    terminal.resize(device.size());
    tasks::spawn(Class::Driver, "tty1", run);
    for minor in [0, 1] {
        register(&format!("tty{minor}"), make_device(4, minor), 0o620, move |flags| {
            terminals().open((4, minor), flags)
        })?;
    }
    let Some(irq) = arch::irq::isa_line(1) else { return Ok(()) };
    match pc::keyboard::start(Port::new(&arch::Ports, 0x60, 5), irq, device) {
        Ok(run) => drop(tasks::spawn(Class::Driver, "keyboard", run)),
        Err(errno) => log::info!("no PS/2 keyboard: {errno}"),
    }
    Ok(())
}

fn virtio_block(transport: BoxedTransport, index: u32) -> Result<()> {
    let (device, run) = virtio::block::start(transport, dma())?;
    let device = block_faults::wrap(device);
    tasks::spawn(Class::Driver, "virtio-blk", run);
    let letter = char::from_u32(u32::from(b'a') + index % 26).unwrap_or('?');
    let name: Arc<str> = format!("vd{letter}").into();
    let number = make_device(VIRTIO_DISK_MAJOR, index * MINORS_PER_DISK);
    DISKS.lock().push(Disk { name: name.clone(), number, device });
    let node = Device { name: name.as_bytes(), kind: Kind::BlockDevice, number, mode: 0o660, gid: 6 };
    nodes().register(&node, Arc::new(|_| Err(abi::Errno::ENXIO)))
}

fn virtio_console(transport: BoxedTransport, index: u32) -> Result<()> {
    let (device, run) = virtio::console::start(transport, dma())?;
    tasks::spawn(Class::Driver, "virtio-console", run);
    tasks::spawn(Class::Driver, "virtio ports", ports::announce(device, index, nodes().clone()));
    Ok(())
}

/// Lets virtio and other bus masters reach memory.
fn dma() -> Dma {
    Dma::new(&mm::FRAMES)
}
