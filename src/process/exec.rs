//! exec: a new program in place of the old one (execve(2)).
//!
//! Read [`RunningThread::execute`] from top to bottom: its lines are the steps. Everything that can fail, and everything that has
//! to be awaited (the walk, the file's first pages, the interpreter's, the strings of the old program, the new stack), comes
//! before `RunningThread::commit`; until then the old program is untouched and gets the error. The commit is the point of no
//! return: it cannot fail.
//!
//! ```text
//!   open ─► first page ─┬─ "#!" ─► open the interpreter, again
//!                       └─ ELF ──► plan ─► plan of PT_INTERP ─► new address space beside the old ─► stack
//!                                                                                   │
//!   old program ◄── any error                                                       ▼
//!                                                        commit: other threads end, swap, ring 3
//! ```
//!
//! Files are not read whole: a plan needs the first page, and pages of the text come by page fault, shared between all who run it.
//!
//! Next: `signal.rs`. Exercise: which line would have to move for a failed exec to lose the old program's close-on-exec files?

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};
use fs::permission::{Access, Capabilities, check};
use fs::{At, Caller, Credentials, Kind, MountFlags, OpenFile, Path, WalkFlags};

use super::deliver::AlternateStack;
use super::elf_plan::{self, HEADER_LEN, Header, Plan};
use super::fd_table::FdTable;
use super::image::{ExecutingHold, Image};
use super::load;
use super::process::SignalHandlers;
use super::script::{self, LINE_MAX};
use super::start_stack::{self, Auxiliary, Strings};
use super::table;
use super::thread::{RunningThread, View, attention};
use super::wait_event::Interruptible;
use crate::arch::{self, FaultRecord, UserContext};
use crate::mm::AddressSpace;

/// What is to be executed, and how it was named.
pub struct Program {
    /// The file.
    pub path: Path,
    /// What the program is told it was called by: AT_EXECFN, and a script's name for its interpreter.
    pub name: Vec<u8>,
    /// The name means a descriptor that is closed by this exec, so that a script could not be found by it.
    pub name_will_vanish: bool,
}

/// So many scripts may be each other's interpreters, as on Linux.
const SCRIPTS_MAX: usize = 5;
/// Bytes of a page.
const PAGE: usize = fs::PAGE_SIZE;

/// An executable file that stays as it is while it is looked at.
struct Executable {
    path: Path,
    hold: ExecutingHold,
}

/// Everything that the commit needs, made beforehand.
struct Prepared {
    space: Arc<AddressSpace>,
    context: UserContext,
    image: Image,
    credentials: Credentials,
    is_secure: bool,
    name: [u8; 16],
    files: Option<FdTable>,
    handlers: Arc<SignalHandlers>,
}

impl RunningThread {
    /// Replaces the program. Returns only if it failed, or when the thread is about to begin in the new one.
    ///
    /// # Errors
    ///
    /// execve(2)'s: `EACCES`: not a file, no x permission, or a noexec mount. `ENOEXEC`: no format that can be executed. `ELIBBAD`: a bad
    /// interpreter. `ELOOP`: too many scripts. `E2BIG`: too many arguments. `ENOENT`, `ENOTDIR`, `ETXTBSY`, `ENOMEM`, `EFAULT`, `EIO`.
    pub async fn execute(&mut self, program: Program, arguments: Strings, environment: Strings) -> Result<()> {
        let called = program.path.clone();
        let prepared = Box::pin(self.prepare(program, arguments, environment)).await;
        crate::audit::executed(self, &called, prepared.as_ref().err().copied());
        let prepared = prepared?;
        if !self.begin_commit() {
            return Err(Errno::EAGAIN); // seen by nobody: this thread is to end
        }
        Box::pin(self.commit(prepared)).await;
        Ok(())
    }

    async fn prepare(&mut self, program: Program, arguments: Strings, environment: Strings) -> Result<Prepared> {
        let stack_limit = self.process.limits.lock().soft(general::RLIMIT_STACK);
        start_stack::check_total(&arguments, &environment, stack_limit)?;
        let executable = open(&self.caller(), program.path.clone())?;
        let credentials = self.credentials_for(&executable.path);
        let (executable, arguments) = self.follow_scripts(executable, &program, arguments).await?;
        // An interpreter's set-user-ID bit counts, a script's does not.
        let credentials =
            if executable.path.is_same(&program.path) { credentials } else { self.credentials_for(&executable.path) };
        let is_secure = credentials.uid != credentials.euid || credentials.gid != credentials.egid;

        let plan = read_plan(&executable.path).await?;
        let interpreter = match &plan.interpreter {
            Some(range) => Some(self.open_interpreter(&executable.path, range).await?),
            None => None,
        };

        let space = load::new_space(self)?;
        let main = load::program(&space, &executable.path, &plan, plan.interpreter.is_some()).await?;
        let loaded_interpreter = match &interpreter {
            Some((file, plan)) => Some(load::interpreter(&space, &file.path, plan).await?),
            None => None,
        };
        let thread_pointer = match (&plan.thread_local, &interpreter) {
            (Some(storage), None) => load::thread_local(&space, &executable.path, storage)?,
            _ => 0,
        };
        let facts = Auxiliary {
            table: (main.table_address, u64::from(plan.table_count)),
            base: loaded_interpreter.as_ref().map_or(0, |loaded| loaded.base),
            entry: main.entry,
            ids: [credentials.uid, credentials.euid, credentials.gid, credentials.egid],
            is_secure,
            capabilities: arch::hardware_capabilities(),
            vdso: load::vdso(self, &space)?,
            signal_stack: arch::smallest_signal_stack() as u64,
            random: crate::random::bytes(),
        };
        let layout = space.layout();
        let top = load::stack(&space, arguments.cost() + environment.cost(), plan.stack_is_executable)?;
        let stack = start_stack::build(top, &program.name, &arguments, &environment, &facts)?;
        space.write_user_bytes(stack.pointer, &stack.bytes).await?;

        let entry = loaded_interpreter.as_ref().map_or(main.entry, |loaded| loaded.entry);
        let mut context = UserContext::new(entry, stack.pointer as u64);
        context.fs_base = thread_pointer;
        let mut holds = Vec::new();
        holds.try_reserve_exact(2).map_err(|_| Errno::ENOMEM)?;
        let name = command_name(&executable.path, &program);
        let image = Image {
            executable: Some(executable.path),
            arguments: stack.arguments,
            environment: stack.environment,
            auxiliary: stack.bytes[stack.auxiliary].to_vec(),
            stack_start: layout.stack_top.min(stack.pointer),
            code: main.code,
            data: main.data,
            owner: credentials.uid,
            holds,
        };
        let mut image = image;
        image.holds.push(executable.hold);
        image.holds.extend(interpreter.map(|(file, _)| file.hold));
        let is_shared = Arc::strong_count(&self.files) > 2; // this half and the view
        Ok(Prepared {
            space,
            context,
            image,
            credentials,
            is_secure,
            name,
            files: if is_shared { Some(self.files.copy()?) } else { None },
            handlers: Arc::new(self.process.handlers().copy_for_exec()),
        })
    }

    /// While the file is a script, its interpreter is what is executed, with the script as an argument.
    async fn follow_scripts(
        &self,
        mut executable: Executable,
        program: &Program,
        mut arguments: Strings,
    ) -> Result<(Executable, Strings)> {
        if arguments.count() == 0 {
            arguments.push(b"")?;
        }
        let mut script_name = program.name.clone();
        for _ in 0..=SCRIPTS_MAX {
            let mut line = [0; LINE_MAX];
            let len = read_content(&executable.path, 0, &mut line).await?;
            if !line[..len].starts_with(b"#!") {
                return Ok((executable, arguments));
            }
            let script = script::parse(&line[..len]).ok_or(Errno::ENOEXEC)?;
            if program.name_will_vanish {
                return Err(Errno::ENOENT);
            }
            arguments = match script.argument {
                Some(argument) => arguments.replace_first(&[script.interpreter, argument, &script_name])?,
                None => arguments.replace_first(&[script.interpreter, &script_name])?,
            };
            let at = At::working_directory(script.interpreter);
            let path = Box::pin(self.caller().walk(at, WalkFlags::FOLLOW)).await?;
            script_name = script.interpreter.to_vec();
            executable = open(&self.caller(), path)?;
        }
        Err(Errno::ELOOP)
    }

    async fn open_interpreter(&self, program: &Path, range: &core::ops::Range<u64>) -> Result<(Executable, Plan)> {
        let mut bytes = Vec::new();
        let len = (range.end - range.start) as usize;
        bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(len, 0);
        if read_content(program, range.start, &mut bytes).await? != len {
            return Err(Errno::ENOEXEC);
        }
        let name = elf_plan::interpreter_path(&bytes)?;
        let path = Box::pin(self.caller().walk(At::working_directory(name), WalkFlags::FOLLOW)).await?;
        let executable = open(&self.caller(), path)?;
        let plan = read_plan(&executable.path).await.map_err(|errno| match errno {
            Errno::ENOEXEC => Errno::ELIBBAD,
            other => other,
        })?;
        Ok((executable, plan))
    }

    /// Whom the new program acts for: set-user-ID and set-group-ID take effect here, unless the mount or prctl(2) forbids it.
    fn credentials_for(&self, path: &Path) -> Credentials {
        let old = &*self.credentials;
        let mut new = Credentials { suid: old.euid, sgid: old.egid, fsuid: old.euid, fsgid: old.egid, ..old.clone() };
        let node = path.inode().metadata().attributes;
        if !path.mount.flags().contains(MountFlags::NOSUID) && !self.no_new_privileges {
            if node.mode & general::S_ISUID != 0 {
                (new.euid, new.suid, new.fsuid) = (node.uid, node.uid, node.uid);
            }
            if node.mode & (general::S_ISGID | general::S_IXGRP) == general::S_ISGID | general::S_IXGRP {
                (new.egid, new.sgid, new.fsgid) = (node.gid, node.gid, node.gid);
            }
        }
        grant_capabilities(&mut new);
        new
    }

    /// The point of no return. From here on nothing fails; a kill ends the new program in its first step.
    async fn commit(&mut self, prepared: Prepared) {
        self.outlive_other_threads().await;
        crate::syscall::futex::release_robust_list(self).await;
        self.take_over_leader();
        self.process.timers.posix.clear();
        if let Some(files) = prepared.files {
            self.files = Arc::new(files);
        }
        while let Some(file) = self.files.remove_first_close_on_exec() {
            let _ = self.close_file(file).await;
        }
        let Prepared { space, context, image, credentials, is_secure, name, handlers, .. } = prepared;
        self.permit.change_user(credentials.uid);
        self.credentials = Arc::new(credentials);
        let old = core::mem::replace(&mut self.space, space);
        self.context = context;
        {
            let mut own = self.vector.lock();
            own.reset();
            own.restore();
        }
        self.alternate_stack = AlternateStack::NONE;
        self.saved_mask = None;
        self.restart = None;
        self.last_fault = FaultRecord::default();
        self.rseq = None;
        self.clear_child_tid.store(0, Ordering::Relaxed);
        *self.name.lock() = name;
        let process = self.process.clone();
        process.set_handlers(handlers);
        *process.image.lock() = Arc::new(image);
        process.dumpable.store(u32::from(!is_secure), Ordering::Relaxed);
        process.has_executed.store(true, Ordering::Relaxed);
        process.exit_signal.store(general::SIGCHLD, Ordering::Relaxed);
        *self.view.lock() = Some(View {
            space: self.space.clone(),
            files: self.files.clone(),
            fs: self.fs.clone(),
            credentials: self.credentials.clone(),
        });
        self.release_borrowed_memory();
        drop(old);
    }

    /// Marks the point of no return and tells all other threads to end. False: the process is ending, or another thread was first; then this
    /// one is among those that are to end.
    fn begin_commit(&self) -> bool {
        let threads = self.process.threads.lock();
        let mut signals = self.process.signals.lock();
        if signals.group_exit.is_some() || signals.is_executing {
            return false;
        }
        signals.is_executing = true;
        for other in threads.iter().filter(|other| !Arc::ptr_eq(other, self.shared())) {
            other.alert(attention::END);
        }
        true
    }

    /// Waits until all other threads of the process are gone.
    async fn outlive_other_threads(&self) {
        let process = self.process.clone();
        let is_alone = || (process.threads.lock().len() == 1).then_some(());
        // Even a kill waits for this: the other threads are on their way out.
        let _ = self.wait_event(&process.thread_events, Interruptible::No, None, is_alone).await;
        process.signals.lock().is_executing = false;
    }

    /// The process keeps its number whichever thread executes the program.
    fn take_over_leader(&self) {
        let (old, pid) = (self.tid(), self.process.pid);
        if old != pid {
            let shared = self.shared().clone();
            table::with(|table| {
                table.remove_thread(old);
                shared.tid.store(pid, Ordering::Relaxed);
                table.add_thread(pid, shared);
            });
        }
    }
}

/// Checks that a file may be executed, and keeps it from being written.
fn open(caller: &Caller<'_>, path: Path) -> Result<Executable> {
    let inode = path.inode();
    if inode.core().kind != Kind::Regular || path.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    check(caller.credentials, &**inode, Access::EXECUTE)?;
    let hold = ExecutingHold::take(inode)?;
    Ok(Executable { path, hold })
}

/// What root may do, a program that becomes root may do (capabilities(7), "Capabilities and execution of programs by root").
fn grant_capabilities(new: &mut Credentials) {
    let is_root = new.uid == 0 || new.euid == 0;
    if is_root {
        new.permitted = new.inheritable | new.bounding;
        new.effective = if new.euid == 0 { new.permitted } else { Capabilities::empty() };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
}

/// `comm`: the last part of the name that the program was called by; of one that was named by a descriptor, of its path.
fn command_name(path: &Path, program: &Program) -> [u8; 16] {
    let by_descriptor = program.name.starts_with(b"/dev/fd/");
    let file_name = path.dentry.name();
    let called = program.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = if by_descriptor { &file_name[..] } else { called };
    let mut command = [0; 16];
    let len = name.len().min(15);
    command[..len].copy_from_slice(&name[..len]);
    command
}

/// Reads from a file's content through the page cache, up to its end. Returns how much there was.
///
/// # Errors
///
/// `EIO`, `ENOMEM`.
pub async fn read_content(path: &Path, offset: u64, into: &mut [u8]) -> Result<usize> {
    let inode = path.inode();
    let size = inode.metadata().attributes.size;
    let len = into.len().min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = at as usize % PAGE;
        let part = (PAGE - within).min(len - done);
        let page = inode.core().pages.load(&**inode, at / PAGE as u64).await?;
        page.read(within, &mut into[done..done + part]);
        done += part;
    }
    Ok(len)
}

async fn read_plan(path: &Path) -> Result<Plan> {
    let mut bytes = [0; HEADER_LEN];
    let len = read_content(path, 0, &mut bytes).await?;
    let header = Header::parse(&bytes[..len])?;
    let mut table = Vec::new();
    table.try_reserve_exact(header.table_len()).map_err(|_| Errno::ENOMEM)?;
    table.resize(header.table_len(), 0);
    if read_content(path, header.table_offset, &mut table).await? != table.len() {
        return Err(Errno::ENOEXEC);
    }
    Plan::new(header, &table)
}

impl Program {
    /// What an open file names, for execveat(2) with an empty path.
    ///
    /// # Errors
    ///
    /// `EACCES`: it has no place.
    pub fn of_file(file: &OpenFile, number: i32, closes: bool) -> Result<Program> {
        let path = file.path.clone().ok_or(Errno::EACCES)?;
        let name = alloc::format!("/dev/fd/{number}").into_bytes();
        Ok(Program { path, name, name_will_vanish: closes })
    }
}
