//! The files about the machine as a whole: /proc/{cmdline,cpuinfo,devices,interrupts,loadavg,meminfo,partitions,stat,swaps,
//! uptime,version} and /proc/tty/drivers.

use alloc::format;
use alloc::vec::Vec;

use drivers::block::SECTOR_SIZE;
use fs::PAGE_SIZE;
use fs::environment::{major, minor};

use super::text::Text;
use crate::process::table;
use crate::syscall::system::{RELEASE, VERSION};
use crate::{arch, counters, devices, load, mm, tasks, wall_clock};

/// Nanoseconds of a clock tick, the unit of times here (`sysconf(_SC_CLK_TCK)` is 100).
pub const TICK: u64 = 10_000_000;

/// /proc/cmdline.
pub fn command_line() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(arch::boot_info().command_line).bytes(b"\n");
    text.into_bytes()
}

/// /proc/cpuinfo.
pub fn cpu_info() -> Vec<u8> {
    let mut text = Text::new();
    for cpu in 0..tasks::cpu_count() {
        text.add(format_args!("processor\t: {cpu}\n{}\n", arch::cpu_info::describe(cpu, tasks::cpu_count())));
    }
    text.into_bytes()
}

/// /proc/devices.
pub fn devices() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"Character devices:\n");
    for (number, name) in
        [(1, "mem"), (4, "ttyS"), (5, "/dev/tty"), (5, "/dev/console"), (5, "/dev/ptmx"), (128, "ptm"), (136, "pts")]
    {
        text.add(format_args!("{number:>3} {name}\n"));
    }
    text.bytes(b"\nBlock devices:\n");
    let mut majors: Vec<u32> = devices::disks().iter().map(|disk| major(disk.number)).collect();
    majors.dedup();
    for number in majors {
        text.add(format_args!("{number:>3} virtblk\n"));
    }
    text.into_bytes()
}

/// /proc/interrupts.
pub fn interrupts() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"           CPU0       \n");
    for (vector, line, count) in arch::irq::counts() {
        match line {
            Some(line) => text.add(format_args!("{line:>3}: {count:>10}   IO-APIC  {line}\n")),
            None => text.add(format_args!("{vector:>3}: {count:>10}   PCI-MSI  vector {vector}\n")),
        };
    }
    let alarms: u64 = (0..tasks::cpu_count()).map(|cpu| tasks::executor().statistics(cpu).alarms).sum();
    text.add(format_args!("LOC: {alarms:>10}   Local timer interrupts\n"));
    text.add(format_args!("RES: {:>10}   Rescheduling interrupts\n", arch::apic::ipis_sent()));
    text.into_bytes()
}

/// How many tasks run or wait for a CPU.
fn running() -> usize {
    (0..tasks::cpu_count()).map(|cpu| tasks::executor().statistics(cpu).waiting).sum::<usize>() + 1
}

/// /proc/loadavg.
pub fn load_averages() -> Vec<u8> {
    let mut text = Text::new();
    for average in load::averages() {
        let hundredths = (average * 100 + (1 << (load::PLACES - 1))) >> load::PLACES;
        text.add(format_args!("{}.{:02} ", hundredths / 100, hundredths % 100));
    }
    let last = table::with(|table| table.last_number());
    text.add(format_args!("{}/{} {last}\n", running(), table::thread_count()));
    text.into_bytes()
}

/// /proc/meminfo.
pub fn memory() -> Vec<u8> {
    let memory = mm::statistics();
    let cached = memory.cache.cached + memory.cache.in_memory;
    let mut text = Text::new();
    for (name, pages) in [
        ("MemTotal:", memory.total),
        ("MemFree:", memory.free),
        ("MemAvailable:", memory.available),
        ("Buffers:", 0),
        ("Cached:", cached),
        ("SwapCached:", 0),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Dirty:", memory.cache.dirty),
        ("Shmem:", memory.cache.in_memory),
        ("Slab:", memory.slab + memory.large),
        ("SUnreclaim:", memory.slab + memory.large),
        ("PageTables:", memory.page_tables),
    ] {
        text.add(format_args!("{name:<16}{:>8} kB\n", pages * (PAGE_SIZE / 1024)));
    }
    text.into_bytes()
}

/// /proc/partitions.
pub fn partitions() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"major minor  #blocks  name\n\n");
    for disk in devices::disks() {
        let blocks = disk.device.geometry().sectors * SECTOR_SIZE as u64 / 1024;
        text.add(format_args!("{:4}  {:7} {blocks:10} {}\n", major(disk.number), minor(disk.number), disk.name));
    }
    text.into_bytes()
}

/// User, system and idle time of all CPUs together, in ticks.
fn times() -> (u64, u64, u64) {
    let (user, system) = (counters::USER_TIME.get(), counters::SYSTEM_TIME.get());
    let all = arch::clock::now().as_nanos() * tasks::cpu_count() as u64;
    (user / TICK, system / TICK, all.saturating_sub(user + system) / TICK)
}

/// /proc/stat.
pub fn statistics() -> Vec<u8> {
    let (user, system, idle) = times();
    let mut text = Text::new();
    text.add(format_args!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n"));
    let now = arch::clock::now().as_nanos();
    for cpu in 0..tasks::cpu_count() {
        let (user, system) = (counters::USER_TIME.get_on(cpu), counters::SYSTEM_TIME.get_on(cpu));
        let idle = now.saturating_sub(user + system);
        text.add(format_args!("cpu{cpu} {} 0 {} {} 0 0 0 0 0 0\n", user / TICK, system / TICK, idle / TICK));
    }
    let interrupts: u64 = arch::irq::counts().map(|(_, _, count)| count).sum();
    let alarms = tasks::executor().statistics(0).alarms;
    let polls: u64 = (0..tasks::cpu_count()).map(|cpu| tasks::executor().statistics(cpu).polls).sum();
    text.add(format_args!("intr {}\n", interrupts + alarms));
    text.add(format_args!("ctxt {polls}\nbtime {}\n", wall_clock::boot_time()));
    text.add(format_args!("processes {}\n", counters::THREADS_MADE.get()));
    text.add(format_args!("procs_running {}\nprocs_blocked 0\n", running()));
    text.bytes(b"softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    text.into_bytes()
}

/// /proc/swaps: there is none.
pub fn swaps() -> Vec<u8> {
    b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_vec()
}

/// /proc/tty/drivers: how ps(1) names terminals.
pub fn terminal_drivers() -> Vec<u8> {
    let mut text = Text::new();
    for (name, node, number, minors, kind) in [
        ("/dev/tty", "/dev/tty", 5, "0", "system:/dev/tty"),
        ("/dev/console", "/dev/console", 5, "1", "system:console"),
        ("/dev/ptmx", "/dev/ptmx", 5, "2", "system"),
        ("serial", "/dev/ttyS", 4, "64-95", "serial"),
        ("pty_slave", "/dev/pts", 136, "0-1048575", "pty:slave"),
        ("pty_master", "/dev/ptm", 128, "0-1048575", "pty:master"),
    ] {
        text.add(format_args!("{name:<20} {node:<13} {number:>3} {minors:>7} {kind}\n"));
    }
    text.into_bytes()
}

/// /proc/uptime: since boot, and how long CPUs had nothing to do.
pub fn uptime() -> Vec<u8> {
    let up = arch::clock::now().as_nanos() / TICK;
    let idle = times().2;
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100).into_bytes()
}

/// /proc/version.
pub fn version() -> Vec<u8> {
    format!("Linux version {RELEASE} (rouse@rouse) (rustc) {VERSION}\n").into_bytes()
}
