//! The kernel's own way to start a program: init, and helpers.
//!
//! A process is made around an empty address space; its first act is to execute the program, in its own task, as any exec.
//!
//! Next: `exec.rs`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::permission::{Access, check};
use fs::{At, Caller, Credentials, FsContext, Kind, Path, WalkFlags};

use super::clone::{self, ReservedNumber};
use super::exec::Program;
use super::fd_table::FdTable;
use super::image::Image;
use super::limits::Limits;
use super::process::{ExitStatus, Process, Relations, SignalHandlers};
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
    pub nice: i32,
    /// Where it stands in the file systems.
    pub fs: Arc<FsContext>,
    /// Who it acts for.
    pub credentials: Arc<Credentials>,
    /// Its open files.
    pub files: FdTable,
    /// Its limits.
    pub limits: Limits,
}

/// Where bare names are searched if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin:/usr/local/bin";

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
    clone::start_with(running, move |mut thread| {
        Box::pin(async move {
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
    let space = AddressSpace::new(Layout::new(8 << 20, None), crate::mm::Limits::default())?;
    let vector = VectorState::fresh()?;
    let number = ReservedNumber::take()?;
    let pid = number.0;
    let relations = Relations { pid: 0, group: pid, session: pid };
    let image = Arc::new(Image::default());
    let handlers = Arc::new(SignalHandlers::default());
    let process = Arc::new(Process::new(pid, &relations, handlers, image, options.limits));
    process.nice.store(options.nice, core::sync::atomic::Ordering::Relaxed);
    let view = View { space, files: Arc::new(options.files), fs: options.fs, credentials: options.credentials };
    let mut name = [0; 16];
    let base = options.program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let len = base.len().min(15);
    name[..len].copy_from_slice(&base[..len]);
    let shared = Thread::new(pid, process, SignalSet::EMPTY, name, 0, view.clone(), vector);
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

/// Finds a program: a name with a slash is a path; a bare one is searched in PATH. An empty element of PATH is the working directory; a
/// folder, or a file that may not be executed, does not match, but makes the answer `EACCES` if nothing else does.
///
/// # Errors
///
/// `ENOENT`, `EACCES`; others as of a walk.
pub async fn find(caller: &Caller<'_>, program: &[u8], environment: &[Vec<u8>]) -> Result<(Path, Vec<u8>)> {
    if program.contains(&b'/') {
        let path = Box::pin(caller.walk(At::working_directory(program), WalkFlags::FOLLOW)).await?;
        return Ok((path, program.to_vec()));
    }
    let list = environment.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut answer = Errno::ENOENT;
    for folder in list.split(|byte| *byte == b':') {
        let name = if folder.is_empty() { program.to_vec() } else { [folder, b"/", program].concat() };
        match Box::pin(caller.walk(At::working_directory(&name), WalkFlags::FOLLOW)).await {
            Ok(path) if is_executable(caller, &path) => return Ok((path, name)),
            Ok(_) | Err(Errno::EACCES) => answer = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(answer)
}

fn is_executable(caller: &Caller<'_>, path: &Path) -> bool {
    path.inode().core().kind == Kind::Regular && check(caller.credentials, &**path.inode(), Access::EXECUTE).is_ok()
}
