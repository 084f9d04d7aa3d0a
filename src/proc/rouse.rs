//! /proc/rouse: what only this kernel has to tell. `tasks`: every task of the executor and where in the source it waits.
//! `executor`: what each CPU did. `counters`: `name value`, one a line, of what costs time but few instructions.
//!
//! Two are to be written, by tests that want something to go wrong: `block-fault`, what is wrong with the disks (`block_faults.rs`), and
//! `allocation-fault`, after how many more allocations one fails in the process that writes the number (of a kernel with checks).

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, Ordering};

use abi::{Errno, Result};
use executor::Class;
use procfs::{Node, Table, file, writable_file};

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
        .with("tasks", file(all_tasks))
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

fn all_tasks() -> Vec<u8> {
    let mut seen = Vec::with_capacity(tasks::executor().task_count());
    tasks::executor().for_each_task(|task| seen.push(task.clone()));
    let mut text = Text::new();
    text.add(format_args!(
        "{:>6} {:<20} {:<9} {:<7} {:>10} {:>12} waits at\n",
        "id", "name", "class", "state", "polls", "time/us"
    ));
    for task in seen {
        let state = match (task.is_done(), task.is_running(), task.is_notified()) {
            (true, _, _) => "done",
            (_, true, _) => "running",
            (_, _, true) => "queued",
            _ => "waits",
        };
        text.add(format_args!("{:>6} {:<20} ", task.id(), task.name()));
        match task.class() {
            Class::Driver => text.add(format_args!("{:<9}", "driver")),
            Class::RealTime { priority, .. } => text.add(format_args!("real {priority:<4}")),
            Class::User { weight } => text.add(format_args!("user {weight:<4}")),
            Class::Batch { weight } => text.add(format_args!("batch {weight:<3}")),
        };
        text.add(format_args!(" {state:<7} {:>10} {:>12}", task.polls(), task.run_time().as_micros()));
        match task.waits_at() {
            Some(place) => text.add(format_args!(" {}:{}\n", place.file(), place.line())),
            None => text.add(format_args!(" -\n")),
        };
    }
    text.into_bytes()
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
