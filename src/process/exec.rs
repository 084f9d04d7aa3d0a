//! exec: a new program in place of the old one (execve(2)).
//!
//! Read [`RunningThread::execute`] from top to bottom: its lines are the steps. Everything that can fail, and everything that has
//! to be awaited (the walk, the file's first pages, the interpreter's, the strings of the old program, the new stack), comes
//! before `RunningThread::commit` (`exec_commit.rs`); until then the old program is untouched and gets the error. The commit is the point of no
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
//! Next: `executable.rs`, `load.rs`, `start_stack.rs`, `exec_commit.rs`. Exercise: which line would have to move for a failed exec to lose the old program's close-on-exec files?

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use abi::{Errno, Result, general};
use fs::{At, OpenFile, Path, WalkFlags};

use super::elf_plan::{self, Plan};
use super::exec_commit::Prepared;
use super::executable::Executable;
use super::image::Image;
use super::load;
use super::script::{self, LINE_MAX};
use super::start_stack::{self, Auxiliary, Strings};
use super::thread::RunningThread;
use crate::arch::{self, UserContext};
use crate::mm::MakeRoom;

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
        crate::mm::admit().await?;
        let executable = Executable::open(&self.caller(), program.path.clone())?;
        let (executable, arguments) = self.follow_scripts(executable, &program, arguments).await?;
        // An interpreter's set-user-ID bit counts, a script's does not.
        let identity = self.identity_for(&executable.path);
        let credentials = &identity.credentials;
        let plan = executable.plan().await?;
        let interpreter = match &plan.interpreter {
            Some(range) => Some(self.open_interpreter(&executable, range).await?),
            None => None,
        };

        let space = load::new_space(self, &identity)?;
        let main = load::program(&space, &executable, &plan).await?;
        let loaded_interpreter = match &interpreter {
            Some((file, plan)) => Some(load::interpreter(&space, file, plan).await?),
            None => None,
        };
        let thread_pointer = match (&plan.thread_local, &interpreter) {
            (Some(storage), None) => load::thread_local(&space, &executable, storage)?,
            _ => 0,
        };
        let facts = Auxiliary {
            table: (main.table_address, u64::from(plan.table_count)),
            base: loaded_interpreter.as_ref().map_or(0, |loaded| loaded.base),
            entry: main.entry,
            ids: [credentials.uid, credentials.euid, credentials.gid, credentials.egid],
            is_secure: identity.is_secure,
            capabilities: arch::hardware_capabilities(),
            vdso: load::vdso(&identity, &space)?,
            signal_stack: arch::smallest_signal_stack() as u64,
            random: crate::random::bytes(),
        };
        let strings = arguments.cost() + environment.cost();
        let top = load::stack(&space, strings, plan.stack_is_executable, identity.personality)?;
        let stack = start_stack::build(top, &program.name, &arguments, &environment, &facts)?;
        space.write_user_bytes(stack.pointer, &stack.bytes).await?;

        let entry = loaded_interpreter.as_ref().map_or(main.entry, |loaded| loaded.entry);
        let mut context = UserContext::new(entry, stack.pointer as u64);
        context.fs_base = thread_pointer;
        let is_readable = executable.is_readable && interpreter.as_ref().is_none_or(|(file, _)| file.is_readable);
        let name = command_name(&executable.path, &program);
        let mut holds = Vec::new();
        holds.make_exact_room(2)?;
        holds.push(executable.hold);
        holds.extend(interpreter.map(|(file, _)| file.hold));
        let image = Image {
            executable: Some(executable.path),
            arguments: stack.arguments,
            environment: stack.environment,
            auxiliary: stack.bytes[stack.auxiliary].to_vec(),
            stack_start: space.layout().stack_top.min(stack.pointer),
            code: main.code,
            data: main.data,
            owner: credentials.uid,
            holds,
        };
        // Last, so that the copy lacks nothing that another thread opens meanwhile. (This half and the view hold it; others share it.)
        let is_shared = Arc::strong_count(&self.files) > 2;
        Ok(Prepared {
            space,
            context,
            image: Arc::new(image),
            is_dumpable: is_readable && !identity.is_secure,
            is_secure: identity.is_secure,
            personality: identity.personality,
            credentials: Arc::new(identity.credentials),
            name,
            files: if is_shared { Some(Arc::new(self.files.copy()?)) } else { None },
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
            let len = executable.read(0, &mut line).await?;
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
            executable = Executable::open(&self.caller(), path)?;
        }
        Err(Errno::ELOOP)
    }

    async fn open_interpreter(&self, program: &Executable, range: &Range<u64>) -> Result<(Executable, Plan)> {
        let mut bytes = Vec::new();
        let len = (range.end - range.start) as usize;
        bytes.make_exact_room(len)?;
        bytes.resize(len, 0);
        if program.read(range.start, &mut bytes).await? != len {
            return Err(Errno::ENOEXEC);
        }
        let name = elf_plan::interpreter_path(&bytes)?;
        let path = Box::pin(self.caller().walk(At::working_directory(name), WalkFlags::FOLLOW)).await?;
        let executable = Executable::open(&self.caller(), path)?;
        let plan = executable.plan().await.map_err(|errno| match errno {
            Errno::ENOEXEC => Errno::ELIBBAD,
            other => other,
        })?;
        Ok((executable, plan))
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
