//! System V inter-process communication: the numbers of `<sys/ipc.h>`, `<sys/sem.h>`, `<sys/shm.h>` and `<sys/msg.h>`, as on x86_64.

/// The key of what no key finds again.
pub const IPC_PRIVATE: i32 = 0;
/// Make it if it is not there.
pub const IPC_CREAT: u32 = 0o1000;
/// Fail if it is there.
pub const IPC_EXCL: u32 = 0o2000;
/// Do not wait.
pub const IPC_NOWAIT: u32 = 0o4000;
/// Remove it.
pub const IPC_RMID: u32 = 0;
/// Change its owner and its permissions.
pub const IPC_SET: u32 = 1;
/// Tell about it.
pub const IPC_STAT: u32 = 2;
/// Tell the limits.
pub const IPC_INFO: u32 = 3;

/// Take the operation back when the process ends.
pub const SEM_UNDO: u32 = 0x1000;
/// Who operated last.
pub const GETPID: u32 = 11;
/// The value.
pub const GETVAL: u32 = 12;
/// All values of a set.
pub const GETALL: u32 = 13;
/// How many wait until the value is larger.
pub const GETNCNT: u32 = 14;
/// How many wait until the value is 0.
pub const GETZCNT: u32 = 15;
/// Set the value.
pub const SETVAL: u32 = 16;
/// Set all values of a set.
pub const SETALL: u32 = 17;
/// As [`IPC_STAT`], by index instead of identifier.
pub const SEM_STAT: u32 = 18;
/// How much there is.
pub const SEM_INFO: u32 = 19;
/// As [`SEM_STAT`], for anybody.
pub const SEM_STAT_ANY: u32 = 20;

/// Attach for reading only.
pub const SHM_RDONLY: u32 = 0o10_000;
/// Round the address down to a multiple of [`SHMLBA`].
pub const SHM_RND: u32 = 0o20_000;
/// Take the place of what is mapped there.
pub const SHM_REMAP: u32 = 0o40_000;
/// Allow execution.
pub const SHM_EXEC: u32 = 0o100_000;
/// Of large pages.
pub const SHM_HUGETLB: u32 = 0o4000;
/// What addresses are multiples of.
pub const SHMLBA: usize = 4096;
/// In the mode: goes with the last mapping.
pub const SHM_DEST: u32 = 0o1000;
/// In the mode: stays in memory.
pub const SHM_LOCKED: u32 = 0o2000;
/// Keep it in memory.
pub const SHM_LOCK: u32 = 11;
/// Do not keep it in memory.
pub const SHM_UNLOCK: u32 = 12;
/// As [`IPC_STAT`], by index instead of identifier.
pub const SHM_STAT: u32 = 13;
/// How much there is.
pub const SHM_INFO: u32 = 14;
/// As [`SHM_STAT`], for anybody.
pub const SHM_STAT_ANY: u32 = 15;

/// Cut off what does not fit.
pub const MSG_NOERROR: u32 = 0o10_000;
/// Of any type but this.
pub const MSG_EXCEPT: u32 = 0o20_000;
/// Leave it in the queue; the type is its place there.
pub const MSG_COPY: u32 = 0o40_000;
/// As [`IPC_STAT`], by index instead of identifier.
pub const MSG_STAT: u32 = 11;
/// How much there is.
pub const MSG_INFO: u32 = 12;
/// As [`MSG_STAT`], for anybody.
pub const MSG_STAT_ANY: u32 = 13;
