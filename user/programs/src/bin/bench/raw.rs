//! The few calls that have no safe form, each wrapped so that it is safe to use here.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

/// A process that forks, whose child exits at once, and that waits for it.
///
/// # Errors
/// Those of fork and wait.
pub fn fork_and_exit() -> io::Result<()> {
    // SAFETY: this program has one thread when this row runs, and the child only calls _exit.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: _exit may be called at any time.
        0 => unsafe { libc::_exit(0) },
        _ => {
            let mut status = 0;
            // SAFETY: the status outlives the call.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })
        }
    }
}

/// Installs a handler for SIGUSR1 that does nothing.
///
/// # Errors
/// Those of sigaction.
pub fn install_handler() -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    install(libc::SIGUSR1, nothing as *const () as libc::sighandler_t, 0)
}

fn install(signal: libc::c_int, handler: libc::sighandler_t, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: the default action, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action outlives the call, and the old one is not wanted.
    check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })
}

/// A page that is read-only, and becomes writable in the handler of the fault that a write to it causes.
pub struct GuardedPage {
    page: *mut u8,
}

const PAGE: usize = 4096;

impl GuardedPage {
    /// Maps the page and installs the handler.
    ///
    /// # Errors
    /// Those of mmap and sigaction.
    pub fn new() -> io::Result<Self> {
        extern "C" fn open_up(_signal: libc::c_int, information: *mut libc::siginfo_t, _context: *mut libc::c_void) {
            // SAFETY: the kernel hands over a valid siginfo; si_addr is what was written to: the one page that is read-only.
            unsafe {
                let address = (*information).si_addr() as usize & !(PAGE - 1);
                libc::mprotect(ptr::with_exposed_provenance_mut(address), PAGE, libc::PROT_READ | libc::PROT_WRITE);
            }
        }
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let page = unsafe {
            libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        install(libc::SIGSEGV, open_up as *const () as libc::sighandler_t, libc::SA_SIGINFO)?;
        Ok(Self { page: page.cast() })
    }

    /// Makes the page read-only and writes to it: two mprotects, one fault, one signal.
    ///
    /// # Errors
    /// Those of mprotect.
    pub fn fault(&self) -> io::Result<()> {
        // SAFETY: the page is ours alone, stays mapped, and the handler makes it writable before the write is tried again.
        unsafe {
            check(libc::mprotect(self.page.cast(), PAGE, libc::PROT_READ))?;
            self.page.write_volatile(1);
        }
        Ok(())
    }
}

/// Maps `length` bytes, of a file or anonymous, touches each page, and unmaps them.
///
/// # Errors
/// Those of mmap and munmap.
pub fn map_and_touch(file: Option<&std::fs::File>, length: usize) -> io::Result<()> {
    let (flags, descriptor) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, descriptor, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for offset in (0..length).step_by(PAGE) {
        // SAFETY: within the mapping; the file is at least that long, and nobody else writes it.
        unsafe { start.cast::<u8>().add(offset).read_volatile() };
        if file.is_none() {
            // SAFETY: as above.
            unsafe { start.cast::<u8>().add(offset).write_volatile(1) };
        }
    }
    // SAFETY: exactly the mapping made above, to which no reference exists.
    check(unsafe { libc::munmap(start, length) })
}

/// Maps so many anonymous bytes and unmaps them, and touches none.
///
/// # Errors
/// Those of mmap and munmap.
pub fn map_and_unmap(length: usize) -> io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly the mapping made above, to which no reference exists.
    check(unsafe { libc::munmap(start, length) })
}

/// A child process.
pub struct Forked(libc::pid_t);

/// Forks; the child does the work, and ends with whether that went well.
///
/// # Errors
/// Those of fork.
pub fn fork(work: impl FnOnce() -> bool) -> io::Result<Forked> {
    // SAFETY: the rows that fork have one thread, so nothing is locked or half done in the child; it leaves by _exit.
    let child = unsafe { libc::fork() };
    check(child)?;
    if child == 0 {
        let is_well = work();
        // SAFETY: _exit may be called at any time.
        unsafe { libc::_exit(i32::from(!is_well)) };
    }
    Ok(Forked(child))
}

/// Waits for a child.
///
/// # Errors
/// Those of wait; the child's work did not go well.
pub fn wait(child: Forked) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    check(unsafe { libc::waitpid(child.0, &raw mut status, 0) })?;
    if status == 0 { Ok(()) } else { Err(io::Error::other("a worker failed")) }
}

/// Descriptors as select(2) takes them.
pub struct DescriptorSet {
    set: libc::fd_set,
    beyond: libc::c_int,
}

impl DescriptorSet {
    /// Those of these files that select(2) can name: the first 1,024.
    pub fn of(files: &[BorrowedFd<'_>]) -> Self {
        // SAFETY: all zeros is the empty set.
        let mut set: libc::fd_set = unsafe { MaybeUninit::zeroed().assume_init() };
        let numbers = || files.iter().map(AsRawFd::as_raw_fd).filter(|number| (*number as usize) < libc::FD_SETSIZE);
        // SAFETY: each number lies within the set.
        numbers().for_each(|number| unsafe { libc::FD_SET(number, &raw mut set) });
        Self { set, beyond: numbers().max().map_or(0, |last| last + 1) }
    }

    /// Asks which of them can be read, without waiting.
    ///
    /// # Errors
    /// Those of select.
    pub fn select(&self) -> io::Result<()> {
        let mut ready = self.set;
        let mut at_once = libc::timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the set and the time outlive the call; the other sets are not wanted.
        check(unsafe { libc::select(self.beyond, &raw mut ready, ptr::null_mut(), ptr::null_mut(), &raw mut at_once) })
    }
}

/// Locks one byte of a file for this process, and waits for it; the lock goes with its last unlock, or with the process.
///
/// # Errors
/// Those of fcntl.
pub fn lock_byte(file: impl AsFd, byte: u8) -> io::Result<()> {
    record_lock(file.as_fd(), byte, libc::F_WRLCK)
}

/// Gives up the lock of one byte.
///
/// # Errors
/// Those of fcntl.
pub fn unlock_byte(file: impl AsFd, byte: u8) -> io::Result<()> {
    record_lock(file.as_fd(), byte, libc::F_UNLCK)
}

fn record_lock(file: BorrowedFd<'_>, byte: u8, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte.into();
    lock.l_len = 1;
    // SAFETY: the lock outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw const lock) })
}

/// A set of System V semaphores, all 0 at first.
#[derive(Clone, Copy)]
pub struct Semaphores(pub libc::c_int);

impl Semaphores {
    /// Makes a set of so many.
    ///
    /// # Errors
    /// Those of semget.
    pub fn new(count: libc::c_int) -> io::Result<Self> {
        // SAFETY: the call takes numbers only.
        let set = unsafe { libc::semget(libc::IPC_PRIVATE, count, 0o600) };
        check(set)?;
        Ok(Self(set))
    }

    /// Adds to one of them, or takes from it and waits until that can be done.
    ///
    /// # Errors
    /// Those of semop.
    pub fn add(self, number: u16, change: i16) -> io::Result<()> {
        let mut operation = libc::sembuf { sem_num: number, sem_op: change, sem_flg: 0 };
        // SAFETY: one operation, which outlives the call.
        check(unsafe { libc::semop(self.0, &raw mut operation, 1) })
    }

    /// Removes the set; whoever waits on it is told.
    ///
    /// # Errors
    /// Those of semctl.
    pub fn remove(self) -> io::Result<()> {
        // SAFETY: the command takes no further argument.
        check(unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) })
    }
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What sleeps.
#[derive(Clone, Copy)]
pub enum Sleeper {
    /// A thread of this process.
    Thread,
    /// A process of its own, a copy of this one.
    Process,
}

/// Starts sleepers that touch no memory, and answers how many there are. Threads share this one's stack, which takes a loop that
/// keeps all it needs in registers; and so a process's pages stay shared, too.
pub fn start_sleepers(kind: Sleeper, count: usize) -> usize {
    // SAFETY: nothing depends on the group, and the children come after it: so they can be ended together.
    unsafe { libc::setpgid(0, 0) };
    const THREAD: libc::c_int = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let flags = match kind {
        Sleeper::Thread => THREAD,
        Sleeper::Process => libc::SIGCHLD,
    };
    if count == 0 {
        return 0;
    }
    let left: usize;
    // SAFETY: a child goes from its first instruction to pause(2) and back for ever, and touches no memory; it ends with the process,
    // or by a signal. What the system call changes is told to the compiler.
    unsafe {
        std::arch::asm!(
            "2:",
            "mov eax, {clone}",
            "xor esi, esi",
            "xor edx, edx",
            "xor r10d, r10d",
            "xor r8d, r8d",
            "syscall",
            "test rax, rax",
            "js 4f",
            "jnz 5f",
            "3:",
            "mov eax, {pause}",
            "syscall",
            "jmp 3b",
            "5:",
            "dec {left}",
            "jnz 2b",
            "4:",
            clone = const libc::SYS_clone,
            pause = const libc::SYS_pause,
            left = inout(reg) count => left,
            in("rdi") flags,
            out("rax") _, out("rsi") _, out("rdx") _, out("r10") _, out("r8") _, out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    count - left
}

/// Ends sleepers that are processes: all of this one's group but itself.
pub fn end_sleepers() {
    // SAFETY: signals may be ignored and sent at any time; the children have kept the default, which ends them.
    unsafe {
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        libc::kill(0, libc::SIGUSR1);
    }
}
