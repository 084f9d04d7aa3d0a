//! The system call table: what is there, what is there in part, and what is refused and why.
//!
//! Three kinds of rows:
//!
//! - `now f(a, b)`: a plain function that never waits.
//! - `try f or g (a, b)`: `f` answers if it can at once (`Some`), else `g`, which may wait.
//! - `wait g(a, b)`: an async function.
//! - `large g(a, b)`, `try_large f or g (a, b)`: the same, with a future that is put into a box: one that is too large to be a part of
//!   every thread, of a call that allocates anyhow, or has tried `f` and is going to wait.
//!
//! The names in brackets are the call's arguments, in the order of the registers; their types are those of the function.
//! [`SUPPORT`] says of each number what to expect; docs and /proc show it, and a test checks that no number of Linux 6.1 is missing.
//!
//! Next: `args.rs`.

use alloc::boxed::Box;

use abi::{Errno, Result};

use super::args::FromRegister;
use super::{
    attributes, capabilities, clock_state, copy_file, credentials, descriptor, directory, events, file_lock, futex,
    futex_vector, identity, ioctl, memory, messages, mount, path, poll, posix_queue, process, resources, scheduling,
    semaphore, shared_memory, signal, socket, socket_message, socket_messages, socket_option, splice, sync, system,
    thread, time, timer, transfer,
};
use crate::mm::try_box;
use crate::process::RunningThread;

/// How much of a system call there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// All that its man page says.
    Full,
    /// Some: the text says what is missing.
    Partial(&'static str),
    /// Nothing: it fails with this error, for this reason.
    Refused(Errno, &'static str),
}

/// A row, for those who show the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number in RAX.
    pub number: usize,
    /// The name.
    pub name: &'static str,
    /// How much there is.
    pub support: Support,
}

// The arguments are read before the function is called with the thread that holds them.
macro_rules! invoke {
    ($thread:ident [$($f:tt)+] ()) => { $($f)+($thread) };
    ($thread:ident [$($f:tt)+] ($a:ident)) => {{
        let [$a, ..] = $thread.context.call_arguments();
        $($f)+($thread, arg($a))
    }};
    ($thread:ident [$($f:tt)+] ($a:ident, $b:ident)) => {{
        let [$a, $b, ..] = $thread.context.call_arguments();
        $($f)+($thread, arg($a), arg($b))
    }};
    ($thread:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident)) => {{
        let [$a, $b, $c, ..] = $thread.context.call_arguments();
        $($f)+($thread, arg($a), arg($b), arg($c))
    }};
    ($thread:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident)) => {{
        let [$a, $b, $c, $d, ..] = $thread.context.call_arguments();
        $($f)+($thread, arg($a), arg($b), arg($c), arg($d))
    }};
    ($thread:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident)) => {{
        let [$a, $b, $c, $d, $e, _] = $thread.context.call_arguments();
        $($f)+($thread, arg($a), arg($b), arg($c), arg($d), arg($e))
    }};
    ($thread:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $g:ident)) => {{
        let [$a, $b, $c, $d, $e, $g] = $thread.context.call_arguments();
        $($f)+($thread, arg($a), arg($b), arg($c), arg($d), arg($e), arg($g))
    }};
}

macro_rules! answer_now {
    ($thread:ident now [$($f:tt)+] $args:tt) => { Some(invoke!($thread [$($f)+] $args)) };
    ($thread:ident try [$($f:tt)+] or [$($g:tt)+] $args:tt) => { invoke!($thread [$($f)+] $args) };
    ($thread:ident try_large [$($f:tt)+] or [$($g:tt)+] $args:tt) => { invoke!($thread [$($f)+] $args) };
    ($thread:ident wait [$($g:tt)+] $args:tt) => { None };
    ($thread:ident large [$($g:tt)+] $args:tt) => { None };
    ($thread:ident refused $errno:ident) => { None };
}

// A thread that sleeps has room for the largest of the others.
macro_rules! boxed {
    ($future:expr) => {
        match try_box($future) {
            Ok(future) => Box::into_pin(future).await,
            Err(errno) => Err(errno),
        }
    };
}

macro_rules! answer {
    ($thread:ident now [$($f:tt)+] $args:tt) => { Err(Errno::ENOSYS) };
    ($thread:ident try [$($f:tt)+] or [$($g:tt)+] $args:tt) => { invoke!($thread [$($g)+] $args).await };
    ($thread:ident try_large [$($f:tt)+] or [$($g:tt)+] $args:tt) => { boxed!(invoke!($thread [$($g)+] $args)) };
    ($thread:ident wait [$($g:tt)+] $args:tt) => { invoke!($thread [$($g)+] $args).await };
    ($thread:ident large [$($g:tt)+] $args:tt) => { boxed!(invoke!($thread [$($g)+] $args)) };
    ($thread:ident refused $errno:ident) => { Err(Errno::$errno) };
}

macro_rules! table {
    ($($number:literal $name:ident: $kind:ident $([$($f:tt)+] $(or [$($g:tt)+])? ($($a:ident),*))? $($errno:ident $why:literal)?
        $(, partly: $missing:literal)?;)*) => {
        /// The numbers, by name.
        pub mod numbers {
            $(#[doc = concat!("The number of `", stringify!($name), "`.")] pub const $name: usize = $number;)*
        }

        /// Every row.
        pub static SUPPORT: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            support: row_support!($kind $($errno $why)? $(, $missing)?),
        }),*];

        /// Answers what can be answered without waiting.
        #[inline(always)] // into the loop around user mode: a call would cost a fifth of the quickest
        pub fn answer_now(thread: &mut RunningThread, number: usize) -> Option<Result<usize>> {
            match number {
                $($number => answer_now!(thread $kind $([$($f)+] $(or [$($g)+])? ($($a),*))? $($errno)?),)*
                _ => None,
            }
        }

        /// Answers what may have to wait.
        pub async fn answer(thread: &mut RunningThread, number: usize) -> Result<usize> {
            match number {
                $($number => answer!(thread $kind $([$($f)+] $(or [$($g)+])? ($($a),*))? $($errno)?),)*
                number => unknown(thread, number),
            }
        }
    };
}

macro_rules! row_support {
    (refused $errno:ident $why:literal) => {
        Support::Refused(Errno::$errno, $why)
    };
    ($kind:ident , $missing:literal) => {
        Support::Partial($missing)
    };
    ($kind:ident) => {
        Support::Full
    };
}

#[inline(always)]
fn arg<T: FromRegister>(register: usize) -> T {
    T::from_register(register)
}

/// The name of a number, such as `READ`; `?` for one that there is not.
pub fn name(number: usize) -> &'static str {
    SUPPORT.iter().find(|row| row.number == number).map_or("?", |row| row.name)
}

fn unknown(thread: &RunningThread, number: usize) -> Result<usize> {
    log::debug!("thread {}: there is no system call {number}", thread.tid());
    Err(Errno::ENOSYS)
}

table! {
    0 READ: try [transfer::read_now] or [transfer::read] (fd, buffer, count);
    1 WRITE: try_large [transfer::write_now] or [transfer::write] (fd, buffer, count);
    2 OPEN: large [path::open] (path, flags, mode);
    3 CLOSE: wait [descriptor::close] (fd);
    4 STAT: try_large [path::stat_now] or [path::stat] (path, result);
    5 FSTAT: try_large [attributes::fstat_now] or [attributes::fstat] (fd, result);
    6 LSTAT: try_large [path::lstat_now] or [path::lstat] (path, result);
    7 POLL: try [poll::poll_now] or [poll::poll] (fds, count, timeout);
    8 LSEEK: now [descriptor::lseek] (fd, offset, whence);
    9 MMAP: wait [memory::mmap] (address, len, protection, flags, fd, offset);
    10 MPROTECT: now [memory::mprotect] (address, len, protection);
    11 MUNMAP: try [memory::munmap_now] or [memory::munmap] (address, len);
    12 BRK: wait [memory::brk] (address);
    13 RT_SIGACTION: try [signal::rt_sigaction_now] or [signal::rt_sigaction] (signal, new, old, size);
    14 RT_SIGPROCMASK: try [signal::rt_sigprocmask_now] or [signal::rt_sigprocmask] (how, new, old, size);
    15 RT_SIGRETURN: try [signal::rt_sigreturn_now] or [signal::rt_sigreturn] ();
    16 IOCTL: wait [ioctl::ioctl] (fd, command, argument);
    17 PREAD64: wait [transfer::pread64] (fd, buffer, count, offset);
    18 PWRITE64: try_large [transfer::pwrite64_now] or [transfer::pwrite64] (fd, buffer, count, offset);
    19 READV: large [transfer::readv] (fd, vectors, count);
    20 WRITEV: large [transfer::writev] (fd, vectors, count);
    21 ACCESS: wait [path::access] (path, mode);
    22 PIPE: wait [descriptor::pipe] (result);
    23 SELECT: try_large [poll::select_now] or [poll::select] (count, read, write, except, timeout);
    24 SCHED_YIELD: wait [scheduling::sched_yield] ();
    25 MREMAP: wait [memory::mremap] (old, old_len, new_len, flags, new);
    26 MSYNC: wait [memory::msync] (address, len, flags);
    27 MINCORE: wait [memory::mincore] (address, len, result);
    28 MADVISE: wait [memory::madvise] (address, len, advice);
    29 SHMGET: wait [shared_memory::shmget] (key, size, flags), partly: "no large pages";
    30 SHMAT: wait [shared_memory::shmat] (id, address, flags);
    31 SHMCTL: large [shared_memory::shmctl] (id, command, argument);
    32 DUP: now [descriptor::dup] (fd);
    33 DUP2: wait [descriptor::dup2] (old, new);
    34 PAUSE: wait [signal::pause] ();
    35 NANOSLEEP: wait [time::nanosleep] (request, remaining);
    36 GETITIMER: wait [timer::getitimer] (which, result);
    37 ALARM: now [timer::alarm] (seconds);
    38 SETITIMER: wait [timer::setitimer] (which, new, old);
    39 GETPID: now [identity::getpid] ();
    40 SENDFILE: large [copy_file::sendfile] (to, from, offset, count);
    41 SOCKET: wait [socket::socket] (domain, kind, protocol), partly: "AF_UNIX only, EAFNOSUPPORT for the others";
    42 CONNECT: wait [socket::connect] (fd, address, len);
    43 ACCEPT: large [socket::accept] (fd, address, len);
    44 SENDTO: large [socket_message::sendto] (fd, buffer, count, flags, address, len), partly: "no MSG_OOB";
    45 RECVFROM: large [socket_message::recvfrom] (fd, buffer, count, flags, address, len), partly: "no MSG_OOB";
    46 SENDMSG: large [socket_message::sendmsg] (fd, message, flags), partly: "no MSG_OOB";
    47 RECVMSG: large [socket_message::recvmsg] (fd, message, flags), partly: "no MSG_OOB";
    48 SHUTDOWN: wait [socket::shutdown] (fd, how);
    49 BIND: wait [socket::bind] (fd, address, len);
    50 LISTEN: wait [socket::listen] (fd, backlog);
    51 GETSOCKNAME: wait [socket::getsockname] (fd, address, len);
    52 GETPEERNAME: wait [socket::getpeername] (fd, address, len);
    53 SOCKETPAIR: wait [socket::socketpair] (domain, kind, protocol, result), partly: "AF_UNIX only";
    54 SETSOCKOPT: wait [socket_option::setsockopt] (fd, level, option, value, len), partly: "SOL_SOCKET only; buffer sizes are fixed";
    55 GETSOCKOPT: wait [socket_option::getsockopt] (fd, level, option, value, len), partly: "SOL_SOCKET only";
    56 CLONE: large [process::clone] (flags, stack, parent_tid, child_tid, thread_local), partly: "no namespaces, no pidfds";
    57 FORK: large [process::fork] ();
    58 VFORK: large [process::vfork] ();
    59 EXECVE: wait [process::execve] (path, argv, envp);
    60 EXIT: now [process::exit] (code);
    61 WAIT4: wait [process::wait4] (pid, status, options, usage);
    62 KILL: now [process::kill] (pid, signal);
    63 UNAME: try_large [system::uname_now] or [system::uname] (result);
    64 SEMGET: now [semaphore::semget] (key, count, flags);
    65 SEMOP: try_large [semaphore::semop_now] or [semaphore::semop] (id, operations, count);
    66 SEMCTL: wait [semaphore::semctl] (id, number, command, argument);
    67 SHMDT: now [shared_memory::shmdt] (address);
    68 MSGGET: now [messages::msgget] (key, flags);
    69 MSGSND: large [messages::msgsnd] (id, from, len, flags);
    70 MSGRCV: large [messages::msgrcv] (id, to, room, kind, flags);
    71 MSGCTL: large [messages::msgctl] (id, command, argument);
    72 FCNTL: wait [descriptor::fcntl] (fd, command, argument), partly: "no owners, leases or notifications";
    73 FLOCK: wait [file_lock::flock] (fd, operation);
    74 FSYNC: wait [sync::fsync] (fd);
    75 FDATASYNC: wait [sync::fdatasync] (fd);
    76 TRUNCATE: wait [attributes::truncate] (path, len);
    77 FTRUNCATE: wait [attributes::ftruncate] (fd, len);
    78 GETDENTS: wait [directory::getdents] (fd, buffer, size);
    79 GETCWD: wait [directory::getcwd] (buffer, size);
    80 CHDIR: wait [directory::chdir] (path);
    81 FCHDIR: now [directory::fchdir] (fd);
    82 RENAME: wait [path::rename] (old, new);
    83 MKDIR: wait [path::mkdir] (path, mode);
    84 RMDIR: wait [path::rmdir] (path);
    85 CREAT: large [path::creat] (path, mode);
    86 LINK: wait [path::link] (old, new);
    87 UNLINK: wait [path::unlink] (path);
    88 SYMLINK: wait [path::symlink] (target, path);
    89 READLINK: wait [path::readlink] (path, buffer, len);
    90 CHMOD: wait [attributes::chmod] (path, mode);
    91 FCHMOD: wait [attributes::fchmod] (fd, mode);
    92 CHOWN: wait [attributes::chown] (path, uid, gid);
    93 FCHOWN: wait [attributes::fchown] (fd, uid, gid);
    94 LCHOWN: wait [attributes::lchown] (path, uid, gid);
    95 UMASK: now [directory::umask] (mask);
    96 GETTIMEOFDAY: wait [time::gettimeofday] (time, zone);
    97 GETRLIMIT: wait [resources::getrlimit] (resource, result);
    98 GETRUSAGE: wait [resources::getrusage] (who, result), partly: "times and peak memory only";
    99 SYSINFO: wait [resources::sysinfo] (result);
    100 TIMES: wait [resources::times] (result);
    101 PTRACE: refused ENOSYS "tracing comes later";
    102 GETUID: now [credentials::getuid] ();
    103 SYSLOG: large [system::syslog] (action, buffer, len);
    104 GETGID: now [credentials::getgid] ();
    105 SETUID: now [credentials::setuid] (uid);
    106 SETGID: now [credentials::setgid] (gid);
    107 GETEUID: now [credentials::geteuid] ();
    108 GETEGID: now [credentials::getegid] ();
    109 SETPGID: now [identity::setpgid] (pid, group);
    110 GETPPID: now [identity::getppid] ();
    111 GETPGRP: now [identity::getpgrp] ();
    112 SETSID: now [identity::setsid] ();
    113 SETREUID: now [credentials::setreuid] (real, effective);
    114 SETREGID: now [credentials::setregid] (real, effective);
    115 GETGROUPS: wait [credentials::getgroups] (room, list);
    116 SETGROUPS: wait [credentials::setgroups] (count, list);
    117 SETRESUID: now [credentials::setresuid] (real, effective, saved);
    118 GETRESUID: wait [credentials::getresuid] (real, effective, saved);
    119 SETRESGID: now [credentials::setresgid] (real, effective, saved);
    120 GETRESGID: wait [credentials::getresgid] (real, effective, saved);
    121 GETPGID: now [identity::getpgid] (pid);
    122 SETFSUID: now [credentials::setfsuid] (uid);
    123 SETFSGID: now [credentials::setfsgid] (gid);
    124 GETSID: now [identity::getsid] (pid);
    125 CAPGET: wait [capabilities::capget] (header, data);
    126 CAPSET: wait [capabilities::capset] (header, data);
    127 RT_SIGPENDING: wait [signal::rt_sigpending] (set, size);
    128 RT_SIGTIMEDWAIT: large [signal::rt_sigtimedwait] (set, information, timeout, size);
    129 RT_SIGQUEUEINFO: wait [signal::rt_sigqueueinfo] (pid, signal, information);
    130 RT_SIGSUSPEND: wait [signal::rt_sigsuspend] (mask, size);
    131 SIGALTSTACK: wait [signal::sigaltstack] (new, old);
    132 UTIME: wait [attributes::utime] (path, times);
    133 MKNOD: wait [path::mknod] (path, mode, device);
    134 USELIB: refused ENOSYS "as Linux: obsolete";
    135 PERSONALITY: now [thread::personality] (persona), partly: "ADDR_NO_RANDOMIZE has effect";
    136 USTAT: refused ENOSYS "obsolete: statfs tells more";
    137 STATFS: wait [attributes::statfs] (path, result);
    138 FSTATFS: wait [attributes::fstatfs] (fd, result);
    139 SYSFS: refused ENOSYS "obsolete: /proc/filesystems tells more";
    140 GETPRIORITY: now [scheduling::getpriority] (which, who);
    141 SETPRIORITY: now [scheduling::setpriority] (which, who, nice);
    142 SCHED_SETPARAM: wait [scheduling::sched_setparam] (tid, parameter);
    143 SCHED_GETPARAM: wait [scheduling::sched_getparam] (tid, parameter);
    144 SCHED_SETSCHEDULER: wait [scheduling::sched_setscheduler] (tid, policy, parameter), partly: "no SCHED_DEADLINE";
    145 SCHED_GETSCHEDULER: now [scheduling::sched_getscheduler] (tid);
    146 SCHED_GET_PRIORITY_MAX: now [scheduling::sched_get_priority_max] (policy);
    147 SCHED_GET_PRIORITY_MIN: now [scheduling::sched_get_priority_min] (policy);
    148 SCHED_RR_GET_INTERVAL: wait [scheduling::sched_rr_get_interval] (tid, result);
    149 MLOCK: wait [memory::mlock] (address, len);
    150 MUNLOCK: now [memory::munlock] (address, len);
    151 MLOCKALL: now [memory::mlockall] (flags);
    152 MUNLOCKALL: now [memory::munlockall] ();
    153 VHANGUP: refused ENOSYS "nobody has asked for it yet";
    154 MODIFY_LDT: refused ENOSYS "no local descriptor tables";
    155 PIVOT_ROOT: wait [mount::pivot_root] (new_root, put_old);
    156 SYSCTL: refused ENOSYS "as Linux: removed";
    157 PRCTL: wait [thread::prctl] (option, a, b, c, d), partly: "names, death signal, dumpable, sub-reaper, no_new_privs, capability bounds";
    158 ARCH_PRCTL: wait [thread::arch_prctl] (code, address);
    159 ADJTIMEX: large [clock_state::adjtimex] (state), partly: "the clock can be asked, not steered: EOPNOTSUPP";
    160 SETRLIMIT: wait [resources::setrlimit] (resource, new);
    161 CHROOT: wait [directory::chroot] (path);
    162 SYNC: wait [sync::sync] ();
    163 ACCT: refused ENOSYS "no process accounting";
    164 SETTIMEOFDAY: wait [time::settimeofday] (time, zone);
    165 MOUNT: wait [mount::mount] (source, target, kind, flags, options), partly: "no propagation between mounts";
    166 UMOUNT2: wait [mount::umount2] (target, flags), partly: "MNT_FORCE only detaches";
    167 SWAPON: refused ENOSYS "no swap";
    168 SWAPOFF: refused ENOSYS "no swap";
    169 REBOOT: now [system::reboot] (magic, magic_2, command, argument);
    170 SETHOSTNAME: wait [system::sethostname] (name, len);
    171 SETDOMAINNAME: wait [system::setdomainname] (name, len);
    172 IOPL: refused ENOSYS "no ports for programs";
    173 IOPERM: refused ENOSYS "no ports for programs";
    174 CREATE_MODULE: refused ENOSYS "as Linux: removed";
    175 INIT_MODULE: refused ENOSYS "no modules";
    176 DELETE_MODULE: refused ENOSYS "no modules";
    177 GET_KERNEL_SYMS: refused ENOSYS "as Linux: removed";
    178 QUERY_MODULE: refused ENOSYS "as Linux: removed";
    179 QUOTACTL: refused ENOSYS "no quotas";
    180 NFSSERVCTL: refused ENOSYS "as Linux: removed";
    181 GETPMSG: refused ENOSYS "as Linux: never was";
    182 PUTPMSG: refused ENOSYS "as Linux: never was";
    183 AFS_SYSCALL: refused ENOSYS "as Linux: never was";
    184 TUXCALL: refused ENOSYS "as Linux: never was";
    185 SECURITY: refused ENOSYS "as Linux: never was";
    186 GETTID: now [identity::gettid] ();
    187 READAHEAD: now [attributes::readahead] (fd, offset, count);
    188 SETXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    189 LSETXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    190 FSETXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    191 GETXATTR: wait [attributes::getxattr] (path, name, buffer, size);
    192 LGETXATTR: wait [attributes::lgetxattr] (path, name, buffer, size);
    193 FGETXATTR: wait [attributes::fgetxattr] (fd, name, buffer, size);
    194 LISTXATTR: refused EOPNOTSUPP "extended attributes cannot be listed yet";
    195 LLISTXATTR: refused EOPNOTSUPP "extended attributes cannot be listed yet";
    196 FLISTXATTR: refused EOPNOTSUPP "extended attributes cannot be listed yet";
    197 REMOVEXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    198 LREMOVEXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    199 FREMOVEXATTR: refused EOPNOTSUPP "extended attributes are read only so far";
    200 TKILL: now [process::tkill] (tid, signal);
    201 TIME: wait [time::time] (result);
    202 FUTEX: try [futex::futex_now] or [futex::futex] (address, operation, value, timeout, address_2, value_3), partly: "no priority inheritance";
    203 SCHED_SETAFFINITY: wait [scheduling::sched_setaffinity] (tid, size, mask);
    204 SCHED_GETAFFINITY: wait [scheduling::sched_getaffinity] (tid, size, mask);
    205 SET_THREAD_AREA: refused ENOSYS "as Linux on x86_64";
    206 IO_SETUP: refused ENOSYS "asynchronous I/O comes later";
    207 IO_DESTROY: refused ENOSYS "asynchronous I/O comes later";
    208 IO_GETEVENTS: refused ENOSYS "asynchronous I/O comes later";
    209 IO_SUBMIT: refused ENOSYS "asynchronous I/O comes later";
    210 IO_CANCEL: refused ENOSYS "asynchronous I/O comes later";
    211 GET_THREAD_AREA: refused ENOSYS "as Linux on x86_64";
    212 LOOKUP_DCOOKIE: refused ENOSYS "no profiling cookies";
    213 EPOLL_CREATE: now [events::epoll_create] (size);
    214 EPOLL_CTL_OLD: refused ENOSYS "as Linux: never was";
    215 EPOLL_WAIT_OLD: refused ENOSYS "as Linux: never was";
    216 REMAP_FILE_PAGES: refused ENOSYS "obsolete: mmap does it";
    217 GETDENTS64: wait [directory::getdents64] (fd, buffer, size);
    218 SET_TID_ADDRESS: now [thread::set_tid_address] (address);
    219 RESTART_SYSCALL: wait [time::restart_syscall] ();
    220 SEMTIMEDOP: try_large [semaphore::semtimedop_now] or [semaphore::semtimedop] (id, operations, count, timeout);
    221 FADVISE64: now [attributes::fadvise64] (fd, offset, len, advice);
    222 TIMER_CREATE: wait [timer::timer_create] (clock, event, result), partly: "EOPNOTSUPP for clocks of CPU time";
    223 TIMER_SETTIME: wait [timer::timer_settime] (id, flags, new, old), partly: "an absolute time does not follow a change of the clock";
    224 TIMER_GETTIME: wait [timer::timer_gettime] (id, result);
    225 TIMER_GETOVERRUN: now [timer::timer_getoverrun] (id);
    226 TIMER_DELETE: now [timer::timer_delete] (id);
    227 CLOCK_SETTIME: wait [time::clock_settime] (clock, time);
    228 CLOCK_GETTIME: try [time::clock_gettime_now] or [time::clock_gettime] (clock, result);
    229 CLOCK_GETRES: wait [time::clock_getres] (clock, result);
    230 CLOCK_NANOSLEEP: wait [time::clock_nanosleep] (clock, flags, request, remaining);
    231 EXIT_GROUP: now [process::exit_group] (code);
    232 EPOLL_WAIT: wait [events::epoll_wait] (fd, events, count, timeout);
    233 EPOLL_CTL: wait [events::epoll_ctl] (fd, operation, target, event);
    234 TGKILL: now [process::tgkill] (pid, tid, signal);
    235 UTIMES: wait [attributes::utimes] (path, times);
    236 VSERVER: refused ENOSYS "as Linux: never was";
    237 MBIND: refused ENOSYS "one memory node";
    238 SET_MEMPOLICY: refused ENOSYS "one memory node";
    239 GET_MEMPOLICY: refused ENOSYS "one memory node";
    240 MQ_OPEN: large [posix_queue::mq_open] (name, flags, mode, attributes);
    241 MQ_UNLINK: large [posix_queue::mq_unlink] (name);
    242 MQ_TIMEDSEND: large [posix_queue::mq_timedsend] (fd, from, len, priority, timeout);
    243 MQ_TIMEDRECEIVE: large [posix_queue::mq_timedreceive] (fd, to, room, priority, timeout);
    244 MQ_NOTIFY: large [posix_queue::mq_notify] (fd, event), partly: "EBADF for SIGEV_THREAD, which needs netlink; ends with the open file, not with a process's first close";
    245 MQ_GETSETATTR: large [posix_queue::mq_getsetattr] (fd, new, old);
    246 KEXEC_LOAD: refused ENOSYS "no kexec";
    247 WAITID: wait [process::waitid] (id_type, id, information, options, usage), partly: "no pidfds";
    248 ADD_KEY: refused ENOSYS "no key rings";
    249 REQUEST_KEY: refused ENOSYS "no key rings";
    250 KEYCTL: refused ENOSYS "no key rings";
    251 IOPRIO_SET: refused ENOSYS "no I/O priorities";
    252 IOPRIO_GET: refused ENOSYS "no I/O priorities";
    253 INOTIFY_INIT: refused ENOSYS "notifications come later";
    254 INOTIFY_ADD_WATCH: refused ENOSYS "notifications come later";
    255 INOTIFY_RM_WATCH: refused ENOSYS "notifications come later";
    256 MIGRATE_PAGES: refused ENOSYS "one memory node";
    257 OPENAT: large [path::openat] (folder, path, flags, mode);
    258 MKDIRAT: wait [path::mkdirat] (folder, path, mode);
    259 MKNODAT: wait [path::mknodat] (folder, path, mode, device);
    260 FCHOWNAT: wait [attributes::fchownat] (folder, path, uid, gid, flags);
    261 FUTIMESAT: wait [attributes::futimesat] (folder, path, times);
    262 NEWFSTATAT: try_large [path::newfstatat_now] or [path::newfstatat] (folder, path, result, flags);
    263 UNLINKAT: wait [path::unlinkat] (folder, path, flags);
    264 RENAMEAT: wait [path::renameat] (old_folder, old, new_folder, new);
    265 LINKAT: wait [path::linkat] (old_folder, old, new_folder, new, flags);
    266 SYMLINKAT: wait [path::symlinkat] (target, folder, path);
    267 READLINKAT: wait [path::readlinkat] (folder, path, buffer, len);
    268 FCHMODAT: wait [attributes::fchmodat] (folder, path, mode);
    269 FACCESSAT: wait [path::faccessat] (folder, path, mode);
    270 PSELECT6: try_large [poll::pselect6_now] or [poll::pselect6] (count, read, write, except, timeout, mask);
    271 PPOLL: try_large [poll::ppoll_now] or [poll::ppoll] (fds, count, timeout, mask, size);
    272 UNSHARE: now [process::unshare] (flags), partly: "files, fs and undo lists only: no namespaces";
    273 SET_ROBUST_LIST: now [thread::set_robust_list] (head, len);
    274 GET_ROBUST_LIST: wait [thread::get_robust_list] (tid, head, len);
    275 SPLICE: large [splice::splice] (from, from_offset, to, to_offset, len, flags);
    276 TEE: large [splice::tee] (from, to, len, flags);
    277 SYNC_FILE_RANGE: wait [sync::sync_file_range] (fd, offset, len, flags);
    278 VMSPLICE: large [splice::vmsplice] (fd, vectors, count, flags), partly: "copies what is given";
    279 MOVE_PAGES: refused ENOSYS "one memory node";
    280 UTIMENSAT: wait [attributes::utimensat] (folder, path, times, flags);
    281 EPOLL_PWAIT: wait [events::epoll_pwait] (fd, events, count, timeout, mask);
    282 SIGNALFD: refused ENOSYS "signal descriptors come later";
    283 TIMERFD_CREATE: now [events::timerfd_create] (clock, flags);
    284 EVENTFD: now [events::eventfd] (count);
    285 FALLOCATE: wait [attributes::fallocate] (fd, mode, offset, len), partly: "mode 0 only";
    286 TIMERFD_SETTIME: wait [events::timerfd_settime] (fd, flags, new, old), partly: "a change of the clock moves and cancels nothing";
    287 TIMERFD_GETTIME: wait [events::timerfd_gettime] (fd, result);
    288 ACCEPT4: large [socket::accept4] (fd, address, len, flags);
    289 SIGNALFD4: refused ENOSYS "signal descriptors come later";
    290 EVENTFD2: now [events::eventfd2] (count, flags);
    291 EPOLL_CREATE1: now [events::epoll_create1] (flags);
    292 DUP3: wait [descriptor::dup3] (old, new, flags);
    293 PIPE2: wait [descriptor::pipe2] (result, flags);
    294 INOTIFY_INIT1: refused ENOSYS "notifications come later";
    295 PREADV: large [transfer::preadv] (fd, vectors, count, offset);
    296 PWRITEV: large [transfer::pwritev] (fd, vectors, count, offset);
    297 RT_TGSIGQUEUEINFO: wait [signal::rt_tgsigqueueinfo] (pid, tid, signal, information);
    298 PERF_EVENT_OPEN: refused ENOSYS "no performance events";
    299 RECVMMSG: large [socket_messages::recvmmsg] (fd, list, count, flags, timeout), partly: "no MSG_OOB; an error behind the first message is not kept for the next call";
    300 FANOTIFY_INIT: refused ENOSYS "notifications come later";
    301 FANOTIFY_MARK: refused ENOSYS "notifications come later";
    302 PRLIMIT64: wait [resources::prlimit64] (pid, resource, new, old);
    303 NAME_TO_HANDLE_AT: refused EOPNOTSUPP "no file handles";
    304 OPEN_BY_HANDLE_AT: refused EOPNOTSUPP "no file handles";
    305 CLOCK_ADJTIME: large [clock_state::clock_adjtime] (clock, state), partly: "the clock can be asked, not steered: EOPNOTSUPP";
    306 SYNCFS: wait [sync::syncfs] (fd);
    307 SENDMMSG: large [socket_messages::sendmmsg] (fd, list, count, flags), partly: "no MSG_OOB";
    308 SETNS: refused ENOSYS "no namespaces";
    309 GETCPU: wait [scheduling::getcpu] (cpu, node, cache);
    310 PROCESS_VM_READV: refused ENOSYS "tracing comes later";
    311 PROCESS_VM_WRITEV: refused ENOSYS "tracing comes later";
    312 KCMP: refused ENOSYS "no checkpoints";
    313 FINIT_MODULE: refused ENOSYS "no modules";
    314 SCHED_SETATTR: wait [scheduling::sched_setattr] (tid, attr, flags), partly: "no SCHED_DEADLINE, no hints of utilisation";
    315 SCHED_GETATTR: wait [scheduling::sched_getattr] (tid, attr, size, flags);
    316 RENAMEAT2: wait [path::renameat2] (old_folder, old, new_folder, new, flags), partly: "no RENAME_WHITEOUT";
    317 SECCOMP: refused ENOSYS "filters come later";
    318 GETRANDOM: wait [system::getrandom] (buffer, len, flags);
    319 MEMFD_CREATE: wait [attributes::memfd_create] (name, flags), partly: "no seals";
    320 KEXEC_FILE_LOAD: refused ENOSYS "no kexec";
    321 BPF: refused ENOSYS "no BPF";
    322 EXECVEAT: wait [process::execveat] (folder, path, argv, envp, flags);
    323 USERFAULTFD: refused ENOSYS "faults are the kernel's";
    324 MEMBARRIER: now [memory::membarrier] (command, flags, cpu);
    325 MLOCK2: wait [memory::mlock2] (address, len, flags);
    326 COPY_FILE_RANGE: large [copy_file::copy_file_range] (from, from_offset, to, to_offset, count, flags);
    327 PREADV2: large [transfer::preadv2] (fd, vectors, count, offset, offset_high, flags), partly: "RWF_HIPRI only";
    328 PWRITEV2: large [transfer::pwritev2] (fd, vectors, count, offset, offset_high, flags), partly: "RWF_HIPRI only";
    329 PKEY_MPROTECT: refused ENOSYS "no protection keys";
    330 PKEY_ALLOC: refused ENOSYS "no protection keys";
    331 PKEY_FREE: refused ENOSYS "no protection keys";
    332 STATX: large [path::statx] (folder, path, flags, mask, result);
    333 IO_PGETEVENTS: refused ENOSYS "asynchronous I/O comes later";
    334 RSEQ: wait [thread::rseq] (address, len, flags, signature);
    424 PIDFD_SEND_SIGNAL: refused ENOSYS "process descriptors come later";
    425 IO_URING_SETUP: refused ENOSYS "asynchronous I/O comes later";
    426 IO_URING_ENTER: refused ENOSYS "asynchronous I/O comes later";
    427 IO_URING_REGISTER: refused ENOSYS "asynchronous I/O comes later";
    428 OPEN_TREE: refused ENOSYS "the new mount calls come later";
    429 MOVE_MOUNT: refused ENOSYS "the new mount calls come later";
    430 FSOPEN: refused ENOSYS "the new mount calls come later";
    431 FSCONFIG: refused ENOSYS "the new mount calls come later";
    432 FSMOUNT: refused ENOSYS "the new mount calls come later";
    433 FSPICK: refused ENOSYS "the new mount calls come later";
    434 PIDFD_OPEN: refused ENOSYS "process descriptors come later";
    435 CLONE3: large [process::clone3] (arguments, size), partly: "no namespaces, no pidfds";
    436 CLOSE_RANGE: wait [descriptor::close_range] (first, last, flags);
    437 OPENAT2: large [path::openat2] (folder, path, how, size);
    438 PIDFD_GETFD: refused ENOSYS "process descriptors come later";
    439 FACCESSAT2: wait [path::faccessat2] (folder, path, mode, flags);
    440 PROCESS_MADVISE: refused ENOSYS "tracing comes later";
    441 EPOLL_PWAIT2: wait [events::epoll_pwait2] (fd, events, count, timeout, mask);
    442 MOUNT_SETATTR: refused ENOSYS "the new mount calls come later";
    443 QUOTACTL_FD: refused ENOSYS "no quotas";
    444 LANDLOCK_CREATE_RULESET: refused ENOSYS "no Landlock";
    445 LANDLOCK_ADD_RULE: refused ENOSYS "no Landlock";
    446 LANDLOCK_RESTRICT_SELF: refused ENOSYS "no Landlock";
    447 MEMFD_SECRET: refused ENOSYS "no secret memory";
    448 PROCESS_MRELEASE: refused ENOSYS "process descriptors come later";
    449 FUTEX_WAITV: large [futex_vector::futex_waitv] (list, count, flags, timeout, clock);
    450 SET_MEMPOLICY_HOME_NODE: refused ENOSYS "one memory node";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_linux_6_1_is_missing_or_doubled() {
        let numbers: std::vec::Vec<usize> = SUPPORT.iter().map(|row| row.number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        let linux: std::vec::Vec<usize> = (0..=334).chain(424..=450).collect();
        assert_eq!(numbers, linux);
    }

    #[test]
    fn every_refusal_and_every_gap_says_why() {
        for row in SUPPORT {
            match row.support {
                Support::Full => {}
                Support::Partial(why) | Support::Refused(_, why) => assert!(!why.is_empty(), "{}", row.name),
            }
        }
    }
}
