//! The boot order: one line a step, each with the reason for its place.
//!
//! Next: `devices.rs`, `filesystems.rs`, then `process/thread.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use abi::{Errno, Result};
use executor::Class;
use fs::{At, BoxFuture, Caller, Credentials, FsContext, Kind, MountNamespace, OpenFlags, WalkFlags};

use crate::arch::{self, BootInfo};
use crate::process::fd_table::FdTable;
use crate::process::limits::{Limits, UNLIMITED};
use crate::process::spawn::{SpawnOptions, spawn};
use crate::{audit, devices, filesystems, log, mm, panic, random, tasks, vdso, wall_clock};

/// Brings the system up and runs it for ever. Called once, on the boot CPU, with its final page tables and interrupts off.
pub fn start(info: &'static BootInfo) -> ! {
    log::init(); // first, so that every later step can say what goes wrong
    log::set_console(arch::serial_emergency::write);
    panic::set_log_tail(log::tail);
    log::configure(info.command_line);
    audit::configure(info.command_line);
    mm::init(info); // before anything is allocated
    arch::init_devices(); // interrupt controllers and clocks, which ACPI's tables describe: needs the heap
    log::set_clock(|| arch::clock::now().as_nanos());
    wall_clock::set(arch::clock::wall_clock_at_boot());
    vdso::init(); // after the clocks, whose rates it tells to programs
    random::init(); // after the clocks, whose irregularity is part of the seed
    executor::sync::track_lock_order(arch::cpu_id);
    let cpus = arch::smp::possible(tasks::cpu_limit(info.command_line));
    tasks::init(cpus);
    arch::irq::set_alarm_handler(|| tasks::executor().alarm());
    fs::environment::install(fs::environment::Environment { now: wall_clock::timestamp, devices: &devices::NodeTable });
    devices::prepare(); // before the drivers, who enter their devices there
    devices::start(info.command_line); // spawns the drivers' tasks; they run when the executor does
    tasks::spawn(Class::Driver, "boot", first_steps(mm::Initrd::take(info), info.command_line, cpus));
    tasks::spawn(Class::Driver, "load average", crate::load::run());
    tasks::spawn(Class::Driver, "reclaim", mm::gate::keep_free());
    tasks::spawn(Class::Driver, "bury large objects", mm::heap::vmap::bury());
    arch::start_interrupts();
    tasks::executor().run(arch::cpu_id())
}

async fn first_steps(archive: Option<mm::Initrd>, command_line: &'static [u8], cpus: usize) {
    arch::smp::start(cpus, tasks::timers(), mm::contiguous_for_ever, tasks::run_other_cpu).await;
    if let Err(errno) = Box::pin(user_space(archive, command_line)).await {
        panic!("no user space: {errno}");
    }
}

/// Makes the first tree of files from the initial archive, and starts init in it.
async fn user_space(archive: Option<mm::Initrd>, command_line: &'static [u8]) -> Result<()> {
    let root = filesystems::initial(archive).await?;
    let context = Arc::new(FsContext::new(MountNamespace::new(root, b"rootfs")));
    let credentials = Arc::new(Credentials::root());
    let files = console_files(context.clone(), credentials.clone()).await?;
    let words = CommandLine::parse(command_line);
    let options = SpawnOptions {
        program: words.init,
        arguments: words.arguments,
        environment: words.environment,
        nice: 0,
        fs: context,
        credentials,
        files,
        limits: Limits::initial(mm::frames::total() as u64 / 8),
    };
    spawn(options).map(drop)
}

/// Descriptors 0, 1 and 2 of init, if there is a console.
fn console_files(context: Arc<FsContext>, credentials: Arc<Credentials>) -> BoxFuture<'static, Result<FdTable>> {
    Box::pin(async move { open_console(Caller { context: &context, credentials: &credentials }).await })
}

async fn open_console(caller: Caller<'_>) -> Result<FdTable> {
    let files = FdTable::default();
    let node = At::working_directory(b"/dev/console");
    match caller.mkdir(At::working_directory(b"/dev"), 0o755).await {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    match caller.mknod(node, Kind::CharacterDevice, 0o600, fs::environment::make_device(5, 1)).await {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    match caller.open(node, OpenFlags::RDWR, 0, WalkFlags::FOLLOW).await {
        Ok(console) => {
            for _ in 0..3 {
                files.insert(console.clone(), false, 0, UNLIMITED)?;
            }
        }
        Err(errno) => ::log::warn!("there is no console for init: {errno}"),
    }
    Ok(files)
}

/// What the kernel's command line says to init.
struct CommandLine {
    init: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
}

impl CommandLine {
    /// As Linux: `init=` or `rdinit=` names the program, `NAME=value` words go to its environment, others and all behind `--` to its
    /// arguments. Words with a dot are for somebody else.
    fn parse(line: &[u8]) -> CommandLine {
        let mut parsed = CommandLine {
            init: b"/init".to_vec(),
            arguments: vec![],
            environment: vec![b"HOME=/".to_vec(), b"TERM=linux".to_vec()],
        };
        let mut is_for_init = false;
        for word in line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()) {
            if is_for_init {
                parsed.arguments.push(word.to_vec());
            } else if word == b"--" {
                is_for_init = true;
            } else if let Some(path) = word.strip_prefix(b"rdinit=").or(word.strip_prefix(b"init=")) {
                parsed.init = path.to_vec();
            } else {
                parsed.take_word(word);
            }
        }
        parsed.arguments.insert(0, parsed.init.clone());
        parsed
    }

    /// A word that is not the kernel's own.
    fn take_word(&mut self, word: &[u8]) {
        let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is_ours = name.contains(&b'.') || OWN_WORDS.contains(&name);
        if is_ours {
            return;
        }
        if word.contains(&b'=') {
            let same = |old: &Vec<u8>| old.starts_with(name) && old.get(name.len()) == Some(&b'=');
            self.environment.retain(|old| !same(old));
            self.environment.push(word.to_vec());
        } else {
            self.arguments.push(word.to_vec());
        }
    }
}

/// Words of the command line that mean something to the kernel itself.
const OWN_WORDS: &[&[u8]] = &[
    b"quiet",
    b"debug",
    b"loglevel",
    b"ignore_loglevel",
    b"console",
    b"maxcpus",
    b"audit",
    b"panic",
    b"root",
    b"ro",
    b"rw",
    b"rootfstype",
];
