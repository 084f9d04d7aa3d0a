//! /proc/sys: the settings of the kernel (sysctl(8)). Those that can be changed are written by root; the others say what is so.

use alloc::format;
use alloc::vec::Vec;

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use executor::sync::get_or_init;
use fs::permission::Capabilities;
use fs::pipe::PIPE_MAX_SIZE;
use procfs::{Node, Table, file, writable_file};

use crate::ipc::messages::{self, BYTES_OF_A_QUEUE, LONGEST_MESSAGE};
use crate::ipc::posix_queue::{self, MOST_MESSAGES, MOST_QUEUES};
use crate::ipc::semaphores::{MOST_IN_A_SET, MOST_OPERATIONS, MOST_SEMAPHORES, MOST_SETS};
use crate::ipc::shared_memory::{MOST_BYTES, MOST_SEGMENTS};
use crate::mm;
use crate::process::limits::NR_OPEN;
use crate::process::table::{PID_MAX, threads_at_most};
use crate::random;
use crate::syscall::system;

/// The most supplementary groups (setgroups(2)).
const GROUPS_MAX: usize = 65_536;

/// The folder.
pub fn folder() -> Node {
    Table::new().with("fs", files()).with("kernel", kernel()).with("vm", memory()).node()
}

/// A setting that is what it is.
fn fixed(value: impl core::fmt::Display + Send + Sync + 'static) -> Node {
    file(move || format!("{value}\n").into_bytes())
}

fn files() -> Node {
    Table::new()
        .with("file-max", fixed(i64::MAX))
        .with("mqueue", message_queues())
        .with("nr_open", fixed(NR_OPEN))
        .with("pipe-max-size", fixed(PIPE_MAX_SIZE))
        .node()
}

fn message_queues() -> Node {
    Table::new()
        .with("msg_default", fixed(MOST_MESSAGES))
        .with("msg_max", fixed(MOST_MESSAGES))
        .with("msgsize_default", fixed(posix_queue::LONGEST_MESSAGE))
        .with("msgsize_max", fixed(posix_queue::LONGEST_MESSAGE))
        .with("queues_max", fixed(MOST_QUEUES))
        .node()
}

fn memory() -> Node {
    Table::new()
        .with("drop_caches", writable_file(|| b"0\n".to_vec(), drop_caches))
        .with("max_map_count", writable_file(|| format!("{}\n", mm::areas_at_most()).into_bytes(), set_areas_at_most))
        .with("overcommit_memory", fixed(0))
        .with("overcommit_ratio", fixed(50))
        .node()
}

/// Forgets pages of files that can be read again; what else Linux would forget for 2 and 3 (names, inodes) is kept.
fn drop_caches(written: &[u8]) -> Result<()> {
    match written.trim_ascii() {
        b"1" | b"3" => while fs::page_cache::reclaim(usize::MAX) > 0 {},
        b"2" => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn kernel() -> Node {
    Table::new()
        .with("cap_last_cap", fixed(Capabilities::all().bits().ilog2()))
        .with("core_pattern", fixed("core"))
        .with("domainname", writable_file(|| line(system::domain_name()), |name| set(name, system::set_domain_name)))
        .with("hostname", writable_file(|| line(system::host_name()), |name| set(name, system::set_host_name)))
        .with("msgmax", fixed(LONGEST_MESSAGE))
        .with("msgmnb", fixed(BYTES_OF_A_QUEUE))
        .with("msgmni", fixed(messages::MOST_QUEUES))
        .with("ngroups_max", fixed(GROUPS_MAX))
        .with("osrelease", fixed(system::RELEASE))
        .with("ostype", fixed("Linux"))
        .with("overflowgid", fixed(65_534))
        .with("overflowuid", fixed(65_534))
        .with("pid_max", fixed(PID_MAX))
        .with("random", random_numbers())
        .with("randomize_va_space", fixed(2))
        .with("sem", fixed(format!("{MOST_IN_A_SET}\t{MOST_SEMAPHORES}\t{MOST_OPERATIONS}\t{MOST_SETS}")))
        .with("shm_rmid_forced", fixed(0))
        .with("shmall", fixed(MOST_BYTES))
        .with("shmmax", fixed(MOST_BYTES))
        .with("shmmni", fixed(MOST_SEGMENTS))
        .with("tainted", fixed(0))
        .with("threads-max", fixed(threads_at_most()))
        .with("version", fixed(system::VERSION))
        .node()
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    text
}

/// Sets a name to the first line of what was written, as much of it as fits.
fn set(written: &[u8], set: fn(&[u8]) -> Result<()>) -> Result<()> {
    let name = written.split(|byte| matches!(byte, b'\n' | b'\0')).next().ok_or(Errno::EINVAL)?;
    set(&name[..name.len().min(system::HOST_NAME_MAX)])
}

fn set_areas_at_most(written: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(written).map_err(|_| Errno::EINVAL)?;
    // Linux keeps it in an `int`.
    let count: u32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    mm::set_areas_at_most(i32::try_from(count).map_err(|_| Errno::EINVAL)? as usize);
    Ok(())
}

fn random_numbers() -> Node {
    static BOOT: OnceCell<[u8; 16]> = OnceCell::uninit();
    Table::new()
        .with("boot_id", file(|| uuid(*get_or_init(&BOOT, random::bytes))))
        .with("entropy_avail", fixed(256))
        .with("poolsize", fixed(256))
        .with("uuid", file(|| uuid(random::bytes())))
        .node()
}

/// A random UUID (RFC 9562, version 4) of these bytes, as a line.
fn uuid(bytes: [u8; 16]) -> Vec<u8> {
    let number = u128::from_be_bytes(bytes) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}\n", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]).into_bytes()
}
