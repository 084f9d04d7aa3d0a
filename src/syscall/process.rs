//! Processes: fork and its kin, exec, exit, wait, kill.

use alloc::boxed::Box;
use alloc::sync::Arc;

use abi::{Errno, Result, general};

use crate::mm::user::UserPtr;
use crate::process::clone::CloneRequest;
use crate::process::exec::Program;
use crate::process::fd_table::Fd;
use crate::process::send;
use crate::process::signal::{Origin, Signal, SignalInfo};
use crate::process::start_stack::{STRING_MAX, Strings};
use crate::process::wait::{News, Report, Which};
use crate::process::{ExitStatus, Process, RunningThread, table};

/// fork(2).
pub async fn fork(thread: &mut RunningThread) -> Result<usize> {
    let request = CloneRequest { exit_signal: u64::from(general::SIGCHLD), ..CloneRequest::default() };
    thread.make_child(request).await
}

/// vfork(2).
pub async fn vfork(thread: &mut RunningThread) -> Result<usize> {
    let flags = u64::from(general::CLONE_VFORK | general::CLONE_VM);
    let request = CloneRequest { flags, exit_signal: u64::from(general::SIGCHLD), ..CloneRequest::default() };
    thread.make_child(request).await
}

/// clone(2), with the arguments in the order of x86_64.
pub async fn clone(
    thread: &mut RunningThread,
    flags: u64,
    stack_pointer: usize,
    parent_tid: usize,
    child_tid: usize,
    thread_local: usize,
) -> Result<usize> {
    let signal_mask = u64::from(general::CSIGNAL);
    let request = CloneRequest {
        flags: flags & 0xffff_ffff & !signal_mask,
        pidfd: parent_tid,
        child_tid,
        parent_tid,
        exit_signal: flags & signal_mask,
        stack_pointer,
        thread_local,
    };
    thread.make_child(request).await
}

/// The smallest and the largest `struct clone_args` that is understood, in bytes.
const CLONE_ARGS: core::ops::RangeInclusive<usize> = 64..=4096;

/// clone3(2). `EINVAL`, `E2BIG`: a structure of a wrong size or with unknown fields set. `EFAULT`; others as clone(2).
pub async fn clone3(thread: &mut RunningThread, arguments: UserPtr<u64>, size: usize) -> Result<usize> {
    if size > *CLONE_ARGS.end() {
        return Err(Errno::E2BIG);
    }
    if size < *CLONE_ARGS.start() {
        return Err(Errno::EINVAL);
    }
    let mut words = [0u64; 11];
    for index in 0..size / 8 {
        let word = thread.get(arguments.element(index)).await?;
        match words.get_mut(index) {
            Some(place) => *place = word,
            None if word != 0 => return Err(Errno::E2BIG),
            None => {}
        }
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, thread_local, set_tid, set_tid_size, _] =
        words;
    let known = (1 << 34) - 1 - u64::from(general::CSIGNAL);
    if flags & !known != 0 || set_tid != 0 || set_tid_size != 0 || (stack == 0) != (stack_size == 0) || exit_signal > 64
    {
        return Err(Errno::EINVAL);
    }
    let request = CloneRequest {
        flags,
        pidfd: pidfd as usize,
        child_tid: child_tid as usize,
        parent_tid: parent_tid as usize,
        exit_signal,
        stack_pointer: stack.wrapping_add(stack_size) as usize,
        thread_local: thread_local as usize,
    };
    thread.make_child(request).await
}

/// _exit(2) of one thread.
pub fn exit(thread: &mut RunningThread, code: i32) -> Result<usize> {
    thread.begin_exit(code);
    Ok(0)
}

/// exit_group(2).
pub fn exit_group(thread: &mut RunningThread, code: i32) -> Result<usize> {
    send::end_group(&thread.process, ExitStatus::Exited(code & 0xff));
    Ok(0)
}

fn which(pid: i32, own_group: i32) -> Result<Which> {
    Ok(match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(own_group),
        pid if pid < 0 => Which::Group(-pid),
        pid => Which::Pid(pid),
    })
}

/// wait4(2). `EINVAL`: unknown options. `ECHILD`, `EFAULT`; interrupted by signals, restarts.
pub async fn wait4(
    thread: &mut RunningThread,
    pid: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<[i64; 18]>,
) -> Result<usize> {
    let known = general::WNOHANG
        | general::WUNTRACED
        | general::WCONTINUED
        | general::__WALL
        | general::__WCLONE
        | general::__WNOTHREAD;
    if options & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let which = which(pid, thread.process.group())?;
    let Some(report) = thread.wait_for_child(which, options | general::WEXITED).await? else { return Ok(0) };
    if !status.is_null() {
        thread.put(status, &report.news.wait_status()).await?;
    }
    if !usage.is_null() {
        thread.put(usage, &super::resources::usage_of(report.times)).await?;
    }
    Ok(report.pid as usize)
}

/// waitid(2). `EINVAL`: unknown options or id type. `ECHILD`, `EFAULT`; interrupted by signals, restarts.
pub async fn waitid(
    thread: &mut RunningThread,
    id_type: u32,
    id: i32,
    information: UserPtr<[u8; 128]>,
    options: u32,
    usage: UserPtr<[i64; 18]>,
) -> Result<usize> {
    let events = general::WEXITED | general::WSTOPPED | general::WCONTINUED;
    let known =
        events | general::WNOHANG | general::WNOWAIT | general::__WALL | general::__WCLONE | general::__WNOTHREAD;
    if options & !known != 0 || options & events == 0 {
        return Err(Errno::EINVAL);
    }
    let which = match id_type {
        general::P_ALL => Which::Any,
        general::P_PID if id > 0 => Which::Pid(id),
        general::P_PGID if id > 0 => Which::Group(id),
        general::P_PGID if id == 0 => Which::Group(thread.process.group()),
        _ => return Err(Errno::EINVAL),
    };
    let report = thread.wait_for_child(which, options).await?;
    if let Some(report) = &report
        && !usage.is_null()
    {
        thread.put(usage, &super::resources::usage_of(report.times)).await?;
    }
    if !information.is_null() {
        let bytes = report.as_ref().map_or([0; 128], child_information);
        thread.put(information, &bytes).await?;
    }
    Ok(0)
}

fn child_information(report: &Report) -> [u8; 128] {
    let (code, status) = report.news.child_code();
    let origin = Origin::Child { code, pid: report.pid, uid: report.uid, status, user_time: 0, system_time: 0 };
    debug_assert!(!matches!(report.news, News::Ended(_)) || code != 0);
    SignalInfo { signal: Signal::SIGCHLD, origin }.to_bytes()
}

impl RunningThread {
    /// Whether it may send a signal to a process (kill(2), "DESCRIPTION").
    pub fn may_signal(&self, target: &Process, signal: Option<Signal>) -> bool {
        let own = &self.credentials;
        if own.can(fs::permission::Capabilities::KILL) || target.pid == self.process.pid {
            return true;
        }
        if signal == Some(Signal::SIGCONT) && target.session() == self.process.session() {
            return true;
        }
        let Some(other) = target.any_thread() else { return own.uid == target.image.lock().owner };
        let view = other.view.lock();
        view.as_ref().is_none_or(|view| {
            let theirs = &view.credentials;
            [theirs.uid, theirs.suid].iter().any(|id| *id == own.uid || *id == own.euid)
        })
    }

    /// The information that goes with a signal that this thread sends by kill(2) or tgkill(2).
    pub fn signal_by_user(&self, signal: Signal, is_directed: bool) -> SignalInfo {
        SignalInfo { signal, origin: Origin::User { pid: self.process.pid, uid: self.credentials.uid, is_directed } }
    }
}

/// A signal number of kill(2): 0 asks only whether one could be sent.
fn optional_signal(number: i32) -> Result<Option<Signal>> {
    if number == 0 { Ok(None) } else { Signal::new(usize::try_from(number).map_err(|_| Errno::EINVAL)?).map(Some) }
}

/// kill(2). `EINVAL`: no such signal. `ESRCH`: no such process. `EPERM`: none of them may be signalled.
pub fn kill(thread: &mut RunningThread, pid: i32, number: i32) -> Result<usize> {
    let signal = optional_signal(number)?;
    if pid > 0 {
        let target = table::process(pid).ok_or(Errno::ESRCH)?;
        return signal_process(thread, &target, signal);
    }
    let targets = table::with(|table| match pid {
        i32::MIN => alloc::vec::Vec::new(),
        -1 => {
            table.processes().filter(|process| process.pid > 1 && process.pid != thread.process.pid).cloned().collect()
        }
        0 => table.group(thread.process.group()),
        group => table.group(-group),
    });
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let mut result = Err(Errno::EPERM);
    for target in &targets {
        let sent = signal_process(thread, target, signal);
        result = if result.is_ok() || sent == Err(Errno::EPERM) { result } else { sent };
    }
    result
}

fn signal_process(thread: &RunningThread, target: &Arc<Process>, signal: Option<Signal>) -> Result<usize> {
    if !thread.may_signal(target, signal) {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        send::to_process(target, thread.signal_by_user(signal, false))?;
    }
    Ok(0)
}

/// tgkill(2). `EINVAL`, `ESRCH`, `EPERM`, `EAGAIN`.
pub fn tgkill(thread: &mut RunningThread, pid: i32, tid: i32, number: i32) -> Result<usize> {
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    signal_thread(thread, Some(pid), tid, number)
}

/// tkill(2). As tgkill(2).
pub fn tkill(thread: &mut RunningThread, tid: i32, number: i32) -> Result<usize> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    signal_thread(thread, None, tid, number)
}

fn signal_thread(thread: &RunningThread, pid: Option<i32>, tid: i32, number: i32) -> Result<usize> {
    let signal = optional_signal(number)?;
    let target = table::thread(tid).ok_or(Errno::ESRCH)?;
    if pid.is_some_and(|pid| target.process.pid != pid) {
        return Err(Errno::ESRCH);
    }
    if !thread.may_signal(&target.process, signal) {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        send::to_thread(&target, thread.signal_by_user(signal, true))?;
    }
    Ok(0)
}

async fn strings(thread: &RunningThread, list: UserPtr<u64>) -> Result<Strings> {
    let mut strings = Strings::default();
    if list.is_null() {
        return Ok(strings);
    }
    for index in 0.. {
        let pointer = thread.get(list.element(index)).await?;
        if pointer == 0 {
            break;
        }
        let pointer = UserPtr::new(pointer as usize);
        let string = thread.space.read_c_string(pointer, STRING_MAX - 1).await.map_err(|errno| match errno {
            Errno::ENAMETOOLONG => Errno::E2BIG,
            other => other,
        })?;
        strings.push(&string)?;
        // A bound for what the kernel holds meanwhile; the exact one depends on the stack's limit and is checked later.
        if strings.cost() > 8 << 20 {
            return Err(Errno::E2BIG);
        }
    }
    Ok(strings)
}

/// execve(2).
pub async fn execve(
    thread: &mut RunningThread,
    path: UserPtr<u8>,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
) -> Result<usize> {
    execveat(thread, super::path::AT_FDCWD, path, argv, envp, 0).await
}

/// execveat(2). `EINVAL`: unknown flags. `ELOOP`: a symbolic link with AT_SYMLINK_NOFOLLOW. Others as execve(2).
pub async fn execveat(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: u32,
) -> Result<usize> {
    if flags & !(general::AT_EMPTY_PATH | general::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    Box::pin(exec(thread, fd, path, argv, envp, flags)).await
}

async fn exec(
    thread: &mut RunningThread,
    fd: i32,
    path: UserPtr<u8>,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: u32,
) -> Result<usize> {
    let name = thread.path(path).await?;
    // In this order, as Linux 6.1: a bad list is told before a program that is not there.
    let arguments = strings(thread, argv).await?;
    let environment = strings(thread, envp).await?;
    let program = match program(thread, fd, &name, flags).await {
        Ok(program) => program,
        Err(errno) => {
            crate::audit::not_found(thread, &name, errno);
            return Err(errno);
        }
    };
    thread.execute(program, arguments, environment).await?;
    Ok(0)
}

/// What execveat(2) is to execute.
async fn program(thread: &RunningThread, fd: i32, name: &[u8], flags: u32) -> Result<Program> {
    if name.is_empty() && flags & general::AT_EMPTY_PATH != 0 {
        let (file, closes) = thread.files.get_with_flag(Fd(fd))?;
        return Program::of_file(&file, fd, closes);
    }
    let start = thread.start(fd, name)?;
    let follows = flags & general::AT_SYMLINK_NOFOLLOW == 0;
    let walk = if follows { fs::WalkFlags::FOLLOW } else { fs::WalkFlags::empty() };
    let path = thread.caller().walk(start.at(name, false), walk).await?;
    if path.inode().core().kind == fs::Kind::Symlink {
        return Err(Errno::ELOOP);
    }
    let is_relative = fd != super::path::AT_FDCWD && name.first() != Some(&b'/');
    let closes = is_relative && thread.files.get_with_flag(Fd(fd))?.1;
    let name = if is_relative { [alloc::format!("/dev/fd/{fd}/").as_bytes(), name].concat() } else { name.to_vec() };
    Ok(Program { path, name, name_will_vanish: closes })
}

/// unshare(2), of what threads share. `EINVAL`: namespaces and memory. `ENOMEM`.
pub fn unshare(thread: &mut RunningThread, flags: u32) -> Result<usize> {
    if flags & !(general::CLONE_FILES | general::CLONE_FS | general::CLONE_SYSVSEM) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & general::CLONE_FS != 0 {
        thread.fs = alloc::sync::Arc::new(thread.fs.fork());
        if let Some(view) = thread.view.lock().as_mut() {
            view.fs = thread.fs.clone();
        }
    }
    if flags & general::CLONE_FILES != 0 {
        thread.unshare_files()?;
    }
    if flags & general::CLONE_SYSVSEM != 0 {
        thread.release_semaphores();
    }
    Ok(0)
}
