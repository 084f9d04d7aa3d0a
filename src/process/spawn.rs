//! The kernel's own way to start a program: init, and helpers.
//!
//! A process is made around an empty address space; its first act is to execute the program, in its own task, as any exec.
//!
//! Next: `exec.rs`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, general};
use fs::{Credentials, FsContext};

use super::clone::{self, ReservedNumber};
use super::exec::Program;
use super::fd_table::FdTable;
use super::image::Image;
use super::limits::Limits;
use super::process::{ExitStatus, Process, Relations, SignalHandlers};
use super::scheduling::Scheduling;
use super::search::find;
use super::send;
use super::signal::SignalSet;
use super::start_stack::Strings;
use super::table::ThreadPermit;
use super::thread::{RunningThread, Thread, View};
use crate::arch::{UserContext, VectorState};
use crate::mm::{AddressSpace, Layout};

/// How a program is started by the kernel.
pub struct SpawnOptions {
    /// A path, or a bare name that is searched in the environment's PATH.
    pub program: Vec<u8>,
    /// Its arguments, the name it is called by first.
    pub arguments: Vec<Vec<u8>>,
    /// Its environment, `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// Its nice value.
    pub nice: i8,
    /// Where it stands in the file systems.
    pub fs: Arc<FsContext>,
    /// Who it acts for.
    pub credentials: Arc<Credentials>,
    /// Its open files.
    pub files: FdTable,
    /// Its limits.
    pub limits: Limits,
}

/// Starts a program as a process of its own. Its parent is nobody, its group and session are its own.
///
/// # Errors
///
/// `EAGAIN`: too many threads. `ENOMEM`. (That the program cannot be executed is known only later: the process then exits with 127, or 126
/// if it is not executable, as a shell's would.)
pub fn spawn(mut options: SpawnOptions) -> Result<Arc<Process>> {
    let program = options.program.clone();
    let (arguments, environment) = (core::mem::take(&mut options.arguments), core::mem::take(&mut options.environment));
    let running = empty_process(options)?;
    let process = running.process.clone();
    crate::audit::process_started(process.pid, running.credentials.uid, &program);
    // In a box: what a thread begins with has its place in it for ever.
    let words = Box::new((program, arguments, environment));
    clone::start_with(running, move |mut thread| {
        Box::pin(async move {
            let (program, arguments, environment) = *words;
            if let Err(errno) = first_exec(&mut thread, &program, &arguments, &environment).await {
                log::error!("{}: cannot be executed: {errno}", String::from_utf8_lossy(&program));
                let code = if errno == Errno::ENOENT { 127 } else { 126 };
                send::end_group(&thread.process, ExitStatus::Exited(code));
            }
            thread
        })
    })?;
    Ok(process)
}

/// The first thread of a new process, with nothing in its memory; nobody knows of it yet.
///
/// # Errors
///
/// `EAGAIN`: too many threads. `ENOMEM`.
pub(crate) fn empty_process(options: SpawnOptions) -> Result<Box<RunningThread>> {
    let permit = ThreadPermit::take(options.credentials.uid, None)?;
    let stack = options.limits.soft(general::RLIMIT_STACK);
    let space = AddressSpace::new(Layout::new(stack, None), crate::mm::Limits::default())?;
    let vector = VectorState::fresh()?;
    let number = ReservedNumber::take()?;
    let pid = number.0;
    let relations = Relations { pid: 0, group: pid, session: pid };
    let image = Arc::new(Image::default());
    let handlers = Arc::new(SignalHandlers::default());
    let process = Arc::new(Process::new(pid, &relations, handlers, image, options.limits));
    let view = View { space, files: Arc::new(options.files), fs: options.fs, credentials: options.credentials };
    let mut name = [0; 16];
    let base = options.program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let len = base.len().min(15);
    name[..len].copy_from_slice(&base[..len]);
    let shared = Thread::new(pid, process, SignalSet::EMPTY, name, 0, view.clone(), vector);
    shared.scheduling.set(Scheduling { nice: options.nice, ..Scheduling::default() });
    let running = RunningThread::new(shared, UserContext::new(0, 0), view, permit)?;
    number.keep();
    Ok(running)
}

async fn first_exec(
    thread: &mut RunningThread,
    program: &[u8],
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
) -> Result<()> {
    let mut all = [Strings::default(), Strings::default()];
    for (strings, list) in all.iter_mut().zip([arguments, environment]) {
        for string in list {
            strings.push(string)?;
        }
    }
    let [arguments, environment_strings] = all;
    let (path, name) = find(&thread.caller(), program, environment).await?;
    thread.execute(Program { path, name, name_will_vanish: false }, arguments, environment_strings).await
}
