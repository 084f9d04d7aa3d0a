//! The files about the state of a process: /proc/PID/{children,comm,limits,oom_score_adj,schedstat,stat,status,wchan}.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::{Errno, Result};
use fs::Credentials;
use fs::permission::Capabilities;

use super::access;
use super::process::Subject;
use super::system::TICK;
use super::text::Text;
use crate::devices;
use crate::mm::report::Usage;
use crate::process::limits::{Limits, UNLIMITED};
use crate::process::process::SignalHandlers;
use crate::process::scheduling::Scheduling;
use crate::process::signal::Action;
use crate::process::{Process, Signal, SignalSet, Thread, current, table};

/// Who a process acts for; what it was when it ended, of a zombie.
pub fn credentials(subject: &Subject, process: &Process) -> Option<Arc<Credentials>> {
    match subject.view() {
        Ok(view) => Some(view.credentials),
        Err(_) => process.remains.lock().as_ref().map(|remains| remains.credentials.clone()),
    }
}

/// Its name without what fills it up.
fn name(subject: &Subject, process: &Process) -> Vec<u8> {
    let name = match subject.thread() {
        Ok(thread) => *thread.name.lock(),
        Err(_) => process.remains.lock().as_ref().map_or([0; 16], |remains| remains.name),
    };
    name.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// /proc/PID/comm.
pub fn comm(subject: &Subject) -> Result<Vec<u8>> {
    let process = subject.process()?;
    let mut name = name(subject, &process);
    name.push(b'\n');
    Ok(name)
}

/// A write to /proc/PID/comm: a process names its own threads.
///
/// # Errors
///
/// `EINVAL`: another process.
pub fn set_comm(subject: &Subject, written: &[u8]) -> Result<()> {
    let thread = subject.thread()?;
    if !current::get().is_some_and(|caller| Arc::ptr_eq(&caller.process, &thread.process)) {
        return Err(Errno::EINVAL);
    }
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(written.iter().take_while(|byte| !matches!(byte, b'\n' | 0))) {
        *to = *from;
    }
    *thread.name.lock() = name;
    Ok(())
}

/// /proc/PID/oom_score_adj.
pub fn oom_score_adjustment(subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{}\n", subject.process()?.oom_score_adjustment.load(Ordering::Relaxed)).into_bytes())
}

/// A write to it.
///
/// # Errors
///
/// `EINVAL`: not a number from -1000 to 1000. `EACCES`: to lower it takes CAP_SYS_RESOURCE.
pub fn set_oom_score_adjustment(subject: &Subject, written: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(written).map_err(|_| Errno::EINVAL)?;
    let wanted: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&wanted) {
        return Err(Errno::EINVAL);
    }
    let process = subject.process()?;
    let own = current::get().and_then(|caller| Some(caller.view.lock().as_ref()?.credentials.clone()));
    let is_privileged = own.is_none_or(|own| own.can(Capabilities::SYS_RESOURCE));
    if wanted < process.oom_score_adjustment.load(Ordering::Relaxed) && !is_privileged {
        return Err(Errno::EACCES);
    }
    process.oom_score_adjustment.store(wanted, Ordering::Relaxed);
    Ok(())
}

/// /proc/PID/task/TID/children.
pub fn children(subject: &Subject) -> Result<Vec<u8>> {
    let process = subject.process()?;
    let children: Vec<i32> = table::with(|table| table.children(process.pid).map(|child| child.pid).collect());
    let mut text = Text::new();
    for pid in children {
        text.add(format_args!("{pid} "));
    }
    Ok(text.into_bytes())
}

/// The letter of a state, and its name.
fn state(subject: &Subject, process: &Process) -> (char, &'static str) {
    let Ok(thread) = subject.thread() else { return ('Z', "zombie") };
    if process.signals.lock().stopped_by.is_some() {
        return ('T', "stopped");
    }
    match thread.task() {
        Some(task) if task.is_running() || task.is_notified() => ('R', "running"),
        _ => ('S', "sleeping"),
    }
}

/// The signals of a thread and its process, as sets.
struct Signals {
    pending: SignalSet,
    process_pending: SignalSet,
    blocked: SignalSet,
    ignored: SignalSet,
    caught: SignalSet,
}

impl Signals {
    fn of(subject: &Subject, process: &Process) -> Signals {
        let (pending, blocked) = match subject.thread() {
            Ok(thread) => {
                let signals = thread.signals.lock();
                (signals.pending.set(), signals.blocked)
            }
            Err(_) => (SignalSet::EMPTY, SignalSet::EMPTY),
        };
        let (ignored, caught) = handled(&process.handlers());
        Signals { pending, process_pending: process.pending(), blocked, ignored, caught }
    }
}

/// Which signals are ignored, and which have a handler.
fn handled(handlers: &SignalHandlers) -> (SignalSet, SignalSet) {
    let (mut ignored, mut caught) = (SignalSet::EMPTY, SignalSet::EMPTY);
    for signal in (1..=Signal::COUNT).filter_map(|number| Signal::new(number).ok()) {
        match handlers.get(signal).handler {
            Action::DEFAULT => {}
            Action::IGNORE => ignored.insert(signal),
            _ => caught.insert(signal),
        }
    }
    (ignored, caught)
}

/// User and system time in nanoseconds. A thread's is parted as its process's is.
fn times(subject: &Subject, process: &Process) -> (u64, u64) {
    let (user, system) = process.times.read();
    if !subject.is_thread() {
        return (user, system);
    }
    let own = subject.thread().map_or(0, |thread| thread.cpu_time.load(Ordering::Relaxed));
    let part = u128::from(own) * u128::from(user) / u128::from(user + system).max(1);
    let user = u64::try_from(part).unwrap_or(own).min(own);
    (user, own - user)
}

/// The number of the controlling terminal, and the group in its foreground.
fn terminal(process: &Process) -> (u64, i32) {
    match devices::terminals().controlling(process.session()) {
        Some(terminal) => {
            let (major, minor) = terminal.device;
            (fs::environment::make_device(major, minor) & 0xffff_ffff, terminal.ownership().foreground)
        }
        None => (0, -1),
    }
}

/// Bits of the flags in /proc/PID/stat: forked but has not executed; its addresses are random.
const PF_FORKNOEXEC: u32 = 0x40;
const PF_RANDOMIZE: u32 = 0x40_0000;

/// /proc/PID/stat. Addresses and the exit code are 0 for those who may not look into the process.
pub fn stat(subject: &Subject) -> Result<Vec<u8>> {
    let process = &*subject.process()?;
    let may_look = access::may_look_into(process);
    let (tty, foreground) = terminal(process);
    let has_executed = process.has_executed.load(Ordering::Relaxed);
    let flags = PF_RANDOMIZE | if has_executed { 0 } else { PF_FORKNOEXEC };
    let (user, system) = times(subject, process);
    let (children_user, children_system) = process.children_times.read();
    let thread = subject.thread().ok();
    let scheduling = thread.as_ref().map_or_else(Scheduling::default, |thread| thread.scheduling.get());
    let cpu = thread.as_ref().and_then(|thread| thread.task()).map_or(0, |task| task.cpu());
    let signals = Signals::of(subject, process);
    let space = subject.view().ok().map(|view| view.space);
    let usage = space.as_ref().map_or(Usage::default(), |space| space.usage());
    let resident = usage.resident.total();
    let image = process.image.lock().clone();
    let address = |address: usize| if may_look && space.is_some() { address } else { 0 };
    let heap = space.as_ref().map_or(0, |space| space.brk_start());
    let is_waiting = state(subject, process).0 == 'S';

    let mut text = Text::new();
    text.add(format_args!("{} (", subject.id())).bytes(&name(subject, process));
    text.add(format_args!(") {} {} ", state(subject, process).0, process.parent()));
    text.add(format_args!("{} {} {tty} {foreground} {flags} ", process.group(), process.session()));
    text.bytes(b"0 0 0 0 "); // page faults are not counted
    text.add(format_args!("{} {} ", user / TICK, system / TICK));
    text.add(format_args!("{} {} ", children_user / TICK, children_system / TICK));
    text.add(format_args!("{} {} ", scheduling.shown_priority(), scheduling.nice));
    text.add(format_args!("{} 0 ", process.threads.lock().len()));
    text.add(format_args!("{} {} {resident} ", process.started.as_nanos() / TICK, usage.mapped * fs::PAGE_SIZE));
    text.add(format_args!("{} ", process.limits.lock().soft(abi::general::RLIMIT_RSS)));
    text.add(format_args!("{} {} ", address(image.code.start), address(image.code.end)));
    text.add(format_args!("{} 0 0 ", address(image.stack_start)));
    // Only the first 31 signals: the rest is in status.
    let low = |set: SignalSet| set.0 & 0x7fff_ffff;
    text.add(format_args!("{} {} ", low(signals.pending), low(signals.blocked)));
    text.add(format_args!("{} {} ", low(signals.ignored), low(signals.caught)));
    text.add(format_args!("{} 0 0 {} ", u8::from(is_waiting), process.exit_signal.load(Ordering::Relaxed)));
    text.add(format_args!("{cpu} {} {} 0 0 0 ", scheduling.priority, scheduling.policy.number()));
    text.add(format_args!("{} {} {} ", address(image.data.start), address(image.data.end), address(heap)));
    text.add(format_args!("{} {} ", address(image.arguments.start), address(image.arguments.end)));
    text.add(format_args!("{} {} ", address(image.environment.start), address(image.environment.end)));
    let status = process.exit_status.lock().filter(|_| may_look).map_or(0, |status| status.wait_status());
    text.add(format_args!("{status}\n"));
    Ok(text.into_bytes())
}

/// /proc/PID/status.
pub fn status(subject: &Subject) -> Result<Vec<u8>> {
    let process = &*subject.process()?;
    let view = subject.view().ok();
    let mut text = Text::new();
    text.bytes(b"Name:\t").escaped(&name(subject, process), b"\n").bytes(b"\n");
    if let Some(view) = &view {
        text.add(format_args!("Umask:\t{:04o}\n", view.fs.umask()));
    }
    let (letter, word) = state(subject, process);
    text.add(format_args!("State:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\n", process.pid));
    text.add(format_args!("Pid:\t{}\nPPid:\t{}\nTracerPid:\t0\n", subject.id(), process.parent()));
    let credentials = credentials(subject, process);
    if let Some(own) = &credentials {
        text.add(format_args!("Uid:\t{}\t{}\t{}\t{}\n", own.uid, own.euid, own.suid, own.fsuid));
        text.add(format_args!("Gid:\t{}\t{}\t{}\t{}\n", own.gid, own.egid, own.sgid, own.fsgid));
    }
    let slots = view.as_ref().and_then(|view| view.files.numbers(0).last().copied()).map_or(0, |last| last + 1);
    text.add(format_args!("FDSize:\t{}\nGroups:\t", slots.next_multiple_of(64)));
    for group in credentials.iter().flat_map(|own| own.groups.iter()) {
        text.add(format_args!("{group} "));
    }
    text.add(format_args!("\nNStgid:\t{}\nNSpid:\t{}\n", process.pid, subject.id()));
    text.add(format_args!("NSpgid:\t{}\nNSsid:\t{}\n", process.group(), process.session()));
    if let Some(view) = &view {
        let image = process.image.lock().clone();
        memory(&mut text, view.space.usage(), image.code.len().div_ceil(fs::PAGE_SIZE));
    }
    text.add(format_args!("Threads:\t{}\n", process.threads.lock().len()));
    text.add(format_args!("SigQ:\t0/{}\n", process.limits.lock().soft(abi::general::RLIMIT_SIGPENDING)));
    let signals = Signals::of(subject, process);
    for (name, set) in [
        ("SigPnd", signals.pending),
        ("ShdPnd", signals.process_pending),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ] {
        text.add(format_args!("{name}:\t{:016x}\n", set.0));
    }
    if let Some(own) = &credentials {
        for (name, set) in [
            ("CapInh", own.inheritable),
            ("CapPrm", own.permitted),
            ("CapEff", own.effective),
            ("CapBnd", own.bounding),
            ("CapAmb", own.ambient),
        ] {
            text.add(format_args!("{name}:\t{:016x}\n", set.bits()));
        }
    }
    let cpus = crate::tasks::cpu_count();
    let mask = u64::MAX >> (64 - cpus.clamp(1, 64));
    text.add(format_args!("Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t0"));
    if cpus > 1 {
        text.add(format_args!("-{}", cpus - 1));
    }
    text.bytes(b"\nMems_allowed:\t1\nMems_allowed_list:\t0\n");
    text.add(format_args!("voluntary_ctxt_switches:\t{}\n", polls(subject)));
    text.bytes(b"nonvoluntary_ctxt_switches:\t0\n");
    Ok(text.into_bytes())
}

/// The lines about memory; `code` is the size of the program's own code in pages.
fn memory(text: &mut Text, usage: Usage, code: usize) {
    let resident = usage.resident.total();
    for (name, pages) in [
        ("VmPeak", usage.peak_mapped),
        ("VmSize", usage.mapped),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", usage.peak_resident.max(resident)),
        ("VmRSS", resident),
        ("RssAnon", usage.resident.anonymous),
        ("RssFile", usage.resident.file),
        ("RssShmem", 0),
        ("VmData", usage.data),
        ("VmStk", usage.stack),
        ("VmExe", code.min(usage.text)),
        ("VmLib", usage.text.saturating_sub(code)),
        ("VmPTE", usage.tables),
        ("VmSwap", 0),
    ] {
        text.add(format_args!("{name}:\t{:>8} kB\n", pages * (fs::PAGE_SIZE / 1024)));
    }
}

/// How often it was given a CPU.
fn polls(subject: &Subject) -> u64 {
    subject.thread().ok().and_then(|thread| Some(thread.task()?.polls())).unwrap_or(0)
}

/// /proc/PID/schedstat: time on a CPU, time spent waiting for one (not counted), turns.
pub fn schedule(subject: &Subject) -> Result<Vec<u8>> {
    let time = subject.thread().map_or(0, |thread| thread.cpu_time.load(Ordering::Relaxed));
    Ok(format!("{time} 0 {}\n", polls(subject)).into_bytes())
}

/// /proc/PID/wchan: where in the kernel's source it waits; `0` if it does not.
pub fn wait_channel(subject: &Subject) -> Result<Vec<u8>> {
    subject.check_access()?;
    let place = |thread: &Thread| {
        let task = thread.task()?;
        let is_waiting = !task.is_running() && !task.is_notified();
        task.waits_at().filter(|_| is_waiting).map(|place| format!("{}:{}", place.file(), place.line()))
    };
    let place = subject.thread().ok().and_then(|thread| place(&thread));
    Ok(place.unwrap_or_else(|| "0".into()).into_bytes())
}

/// The limits by number: name and unit.
const LIMITS: [(&str, &str); Limits::COUNT] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

/// /proc/PID/limits.
pub fn limits(subject: &Subject) -> Result<Vec<u8>> {
    let limits = *subject.process()?.limits.lock();
    let mut text = Text::new();
    text.add(format_args!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units"));
    let value = |limit| if limit == UNLIMITED { "unlimited".into() } else { format!("{limit}") };
    for (resource, (name, unit)) in LIMITS.iter().enumerate() {
        let limit = limits.get(resource)?;
        text.add(format_args!("{name:<25} {:<20} {:<20} {unit:<10}\n", value(limit.soft), value(limit.hard)));
    }
    Ok(text.into_bytes())
}
