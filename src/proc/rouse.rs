//! /proc/rouse: what only this kernel has to tell. `tasks`: every task of the executor (`rouse_tasks.rs`). `executor`: what each CPU did.
//! `counters`: `name value`, one a line, of what costs time but few instructions. `stacks`: how many bytes of each of the kernel's
//! stacks were ever used. `trace`: what happens, one thing after the other
//! (`../trace/file.rs`).
//!
//! Three are to be written, by tests that want something to go wrong: `long-poll`, for how many milliseconds this very poll is to last;
//! `block-fault`, what is wrong with the disks (`block_faults.rs`); and `allocation-fault`, after how many more allocations one
//! fails in the process that writes the number (of a kernel with checks).

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, Ordering};
use core::time::Duration;

use abi::{Errno, Result};
use procfs::{Node, Table, file, writable_file};

use super::rouse_tasks;
use super::text::Text;
use crate::process::current;
use crate::{arch, block_faults, counters, mm, tasks};

/// The folder.
pub fn folder() -> Node {
    Table::new()
        .with("allocation-fault", writable_file(allocation_fault, set_allocation_fault))
        .with("block-fault", writable_file(block_fault, block_faults::set))
        .with("counters", file(all_counters))
        .with("executor", file(cpus))
        .with("long-poll", writable_file(|| b"0\n".to_vec(), keep_the_cpu))
        .with("stacks", file(stacks))
        .with("trace", crate::trace::node())
        .with("tasks", file(rouse_tasks::table))
        .node()
}

fn block_fault() -> Vec<u8> {
    block_faults::now().map_or_else(|| b"none\n".to_vec(), |faults| format!("{faults}\n").into_bytes())
}

/// Whose allocation is to fail.
static VICTIM: AtomicI32 = AtomicI32::new(0);

fn allocation_fault() -> Vec<u8> {
    mm::frames::demanded_failure().map_or_else(|| b"off\n".to_vec(), |left| format!("{left}\n").into_bytes())
}

fn set_allocation_fault(text: &[u8]) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Err(Errno::EOPNOTSUPP); // compiled out: it would cost a look at each allocation
    }
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim();
    let countdown = if text == "off" { None } else { Some(text.parse().map_err(|_| Errno::EINVAL)?) };
    VICTIM.store(current::get().map_or(0, |thread| thread.process.pid), Ordering::Relaxed);
    let is_victim = || current::get().is_some_and(|thread| thread.process.pid == VICTIM.load(Ordering::Relaxed));
    mm::frames::demand_failure(countdown, is_victim);
    Ok(())
}

/// The longest poll that can be asked for.
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// Keeps the CPU for so many milliseconds, as kernel code that does not yield would.
fn keep_the_cpu(text: &[u8]) -> Result<()> {
    let millis = core::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).ok_or(Errno::EINVAL)?;
    let duration = Duration::from_millis(millis);
    if duration > LONGEST_POLL {
        return Err(Errno::EINVAL);
    }
    let end = arch::clock::now() + duration;
    while arch::clock::now() < end {
        core::hint::spin_loop();
    }
    Ok(())
}

fn cpus() -> Vec<u8> {
    let mut text = Text::new();
    for cpu in 0..tasks::cpu_count() {
        let did = tasks::executor().statistics(cpu);
        text.add(format_args!(
            "cpu{cpu} polls {} long_polls {} sleeps {} idle_us {} kicks {} alarms {} stolen {} waiting {}\n",
            did.polls,
            did.long_polls,
            did.sleeps,
            did.idle_time / 1000,
            did.kicks,
            did.alarms,
            did.stolen,
            did.waiting
        ));
    }
    text.into_bytes()
}

fn stacks() -> Vec<u8> {
    let mut text = Text::new();
    for cpu in 0..tasks::cpu_count() {
        for (kind, used, size) in arch::stack_depth::deepest(cpu) {
            text.add(format_args!("cpu{cpu} {} {used} of {size}\n", kind.name()));
        }
    }
    text.into_bytes()
}

fn all_counters() -> Vec<u8> {
    let executor = tasks::executor();
    let sum = |field: fn(executor::CpuStatistics) -> u64| {
        (0..tasks::cpu_count()).map(|cpu| field(executor.statistics(cpu))).sum::<u64>()
    };
    let mut text = Text::new();
    for (name, value) in [
        ("system_calls", counters::SYSTEM_CALLS.get()),
        ("heap_allocations", mm::heap::allocations() as u64),
        ("cr3_loads", arch::paging::switches()),
        ("page_flushes", arch::paging::page_flushes()),
        ("ipis", arch::apic::ipis_sent()),
        ("device_accesses", counters::DEVICE_ACCESSES.get() + drivers::hw::doorbells()),
        ("threads_made", counters::THREADS_MADE.get()),
        ("tasks", executor.task_count() as u64),
        ("polls", sum(|did| did.polls)),
        ("long_polls", sum(|did| did.long_polls)),
        ("sleeps", sum(|did| did.sleeps)),
        ("alarms", sum(|did| did.alarms)),
        ("kicks", sum(|did| did.kicks)),
    ] {
        text.add(format_args!("{name} {value}\n"));
    }
    text.into_bytes()
}
