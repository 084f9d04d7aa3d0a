//! Signals as data: their numbers, sets of them, what they carry, and what a process has said to do about each.
//!
//! Next: `signal_queue.rs`, where they wait; `send.rs`, how they get there; `deliver.rs`, what becomes of them.

use core::fmt;

use abi::{Errno, general};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

macro_rules! names {
    ($($name:ident)*) => {
        impl Signal {
            $(#[doc = concat!(stringify!($name), ", as signal(7) lists it.")] pub const $name: Signal = Signal(general::$name as u8);)*

            /// Its name, such as `SIGTERM`; `SIGRT` for the real-time signals.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Signal::$name => stringify!($name),)*
                    _ => "SIGRT",
                }
            }
        }
    };
}

names! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGSTKFLT
    SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

/// What a signal does when the process has not said otherwise (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process; Linux would write a core file if the limit allows one.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Lets a stopped process go on.
    Continue,
}

impl Signal {
    /// The first real-time signal.
    pub const FIRST_REAL_TIME: Signal = Signal(32);
    /// How many there are.
    pub const COUNT: usize = 64;

    /// From a number that a program gave.
    ///
    /// # Errors
    ///
    /// `EINVAL`: not 1 to 64.
    pub fn new(number: usize) -> Result<Signal, Errno> {
        if (1..=Signal::COUNT).contains(&number) { Ok(Signal(number as u8)) } else { Err(Errno::EINVAL) }
    }

    /// The number.
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// Its place in a table of all signals.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// Whether every instance is queued, with what it carries; of the others only the first is.
    pub fn is_real_time(self) -> bool {
        self >= Signal::FIRST_REAL_TIME
    }

    /// What it does by default.
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => DefaultAction::Ignore,
            Signal::SIGCONT => DefaultAction::Continue,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGXCPU
            | Signal::SIGXFSZ
            | Signal::SIGSYS => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_real_time() { write!(f, "SIGRT{}", self.0) } else { f.write_str(self.name()) }
    }
}

/// A set of signals, laid out as the kernel's `sigset_t`: bit 0 is signal 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// None.
    pub const EMPTY: SignalSet = SignalSet(0);
    /// The two that can be neither caught nor blocked.
    pub const UNBLOCKABLE: SignalSet = SignalSet::of(&[Signal::SIGKILL, Signal::SIGSTOP]);
    /// Those that stop a process by default.
    pub const STOPPING: SignalSet =
        SignalSet::of(&[Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]);
    /// Those that an instruction caused: taken before all others.
    pub const SYNCHRONOUS: SignalSet = SignalSet::of(&[
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGFPE,
        Signal::SIGSYS,
    ]);

    /// The set of these.
    pub const fn of(signals: &[Signal]) -> SignalSet {
        let mut bits = 0;
        let mut index = 0;
        while index < signals.len() {
            bits |= 1 << signals[index].index();
            index += 1;
        }
        SignalSet(bits)
    }

    /// Whether it is in the set.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << signal.index()) != 0
    }

    /// Adds one.
    pub fn insert(&mut self, signal: Signal) {
        self.0 |= 1 << signal.index();
    }

    /// Takes one out.
    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !(1 << signal.index());
    }

    /// Those in either.
    pub const fn union(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 | other.0)
    }

    /// Those in both.
    pub const fn intersection(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & other.0)
    }

    /// Those of this set that are not in the other.
    pub const fn without(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & !other.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one to deliver first: those that an instruction caused, then by number.
    pub fn first(self) -> Option<Signal> {
        let urgent = self.intersection(SignalSet::SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        (!from.is_empty()).then(|| Signal(from.0.trailing_zeros() as u8 + 1))
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a signal came from: the fields behind `si_code` in `siginfo_t` (sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The kernel itself, without more to say (`SI_KERNEL`).
    Kernel,
    /// kill(2), or tgkill(2) if `is_directed`, by this process and real user.
    User {
        /// Who sent it.
        pid: i32,
        /// With which real user.
        uid: u32,
        /// To one thread (`SI_TKILL`) rather than to a process (`SI_USER`).
        is_directed: bool,
    },
    /// sigqueue(3): whatever the sender put into `siginfo_t`, with its own `si_code`.
    Queued {
        /// `si_code`: negative.
        code: i32,
        /// The bytes behind `si_code` and its padding, from offset 16.
        payload: [u8; 32],
    },
    /// A child changed its state.
    Child {
        /// `CLD_EXITED` and its like.
        code: i32,
        /// The child.
        pid: i32,
        /// The child's real user.
        uid: u32,
        /// Exit status or signal.
        status: i32,
        /// User time in clock ticks.
        user_time: i64,
        /// System time in clock ticks.
        system_time: i64,
    },
    /// An instruction faulted.
    Fault {
        /// `SEGV_MAPERR` and its like.
        code: i32,
        /// The address.
        address: usize,
    },
    /// A timer expired (`SI_TIMER`).
    Timer {
        /// The timer's id.
        id: i32,
        /// How often it expired in between.
        overrun: i32,
        /// What timer_create(2) was given.
        value: u64,
    },
}

/// A signal with what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignalInfo {
    /// Which.
    pub signal: Signal,
    /// Where it came from.
    pub origin: Origin,
}

/// Size of `siginfo_t` in bytes.
pub const SIGNAL_INFO_SIZE: usize = 128;

impl SignalInfo {
    /// From the kernel.
    pub const fn kernel(signal: Signal) -> SignalInfo {
        SignalInfo { signal, origin: Origin::Kernel }
    }

    /// `si_code`.
    pub fn code(&self) -> i32 {
        match self.origin {
            Origin::Kernel => general::SI_KERNEL as i32,
            Origin::User { is_directed: false, .. } => general::SI_USER as i32,
            Origin::User { is_directed: true, .. } => general::SI_TKILL,
            Origin::Queued { code, .. } | Origin::Child { code, .. } | Origin::Fault { code, .. } => code,
            Origin::Timer { .. } => general::SI_TIMER,
        }
    }

    /// As `siginfo_t` lies in memory (`asm-generic/siginfo.h`).
    pub fn to_bytes(&self) -> [u8; SIGNAL_INFO_SIZE] {
        let mut bytes = [0; SIGNAL_INFO_SIZE];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &(self.signal.number() as i32).to_ne_bytes());
        put(8, &self.code().to_ne_bytes());
        match self.origin {
            Origin::Kernel => {}
            Origin::User { pid, uid, .. } => {
                put(16, &pid.to_ne_bytes());
                put(20, &uid.to_ne_bytes());
            }
            Origin::Queued { payload, .. } => put(16, &payload),
            Origin::Child { pid, uid, status, user_time, system_time, .. } => {
                put(16, &pid.to_ne_bytes());
                put(20, &uid.to_ne_bytes());
                put(24, &status.to_ne_bytes());
                put(32, &user_time.to_ne_bytes());
                put(40, &system_time.to_ne_bytes());
            }
            Origin::Fault { address, .. } => put(16, &address.to_ne_bytes()),
            Origin::Timer { id, overrun, value } => {
                put(16, &id.to_ne_bytes());
                put(20, &overrun.to_ne_bytes());
                put(24, &value.to_ne_bytes());
            }
        }
        bytes
    }

    /// From the `siginfo_t` that sigqueue(3) hands in.
    ///
    /// # Errors
    ///
    /// `EINVAL`: a wrong signal number.
    pub fn queued(signal: Signal, bytes: &[u8; SIGNAL_INFO_SIZE]) -> SignalInfo {
        let mut payload = [0; 32];
        payload.copy_from_slice(&bytes[16..48]);
        let code = i32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        SignalInfo { signal, origin: Origin::Queued { code, payload } }
    }
}

/// What a process wants done about a signal, laid out as x86_64's `struct kernel_sigaction` (rt_sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Action {
    /// The handler's address, or [`Action::DEFAULT`], or [`Action::IGNORE`].
    pub handler: usize,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: usize,
    /// Blocked while the handler runs.
    pub mask: SignalSet,
}

impl Action {
    /// `SIG_DFL`.
    pub const DEFAULT: usize = 0;
    /// `SIG_IGN`.
    pub const IGNORE: usize = 1;

    /// Whether `SA_*` flag bits are all set.
    pub fn has(&self, flags: u32) -> bool {
        self.flags & u64::from(flags) == u64::from(flags)
    }

    /// Whether the signal would be thrown away.
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.handler {
            Action::IGNORE => true,
            Action::DEFAULT => signal.default_action() == DefaultAction::Ignore,
            _ => false,
        }
    }

    /// Takes out of the mask what cannot be blocked.
    #[inline]
    pub fn correct_mask(&mut self) {
        self.mask = self.mask.without(SignalSet::UNBLOCKABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_outside_1_to_64_are_refused() {
        assert_eq!(Signal::new(0), Err(Errno::EINVAL));
        assert_eq!(Signal::new(65), Err(Errno::EINVAL));
        assert_eq!(Signal::new(9), Ok(Signal::SIGKILL));
    }

    #[test]
    fn a_fault_is_delivered_before_signals_with_lower_numbers() {
        let set = SignalSet::of(&[Signal::SIGHUP, Signal::SIGSEGV]);
        assert_eq!(set.first(), Some(Signal::SIGSEGV));
        assert_eq!(SignalSet::of(&[Signal::SIGTERM, Signal::SIGHUP]).first(), Some(Signal::SIGHUP));
        assert_eq!(SignalSet::EMPTY.first(), None);
    }

    #[test]
    fn signal_info_lies_in_memory_as_the_c_library_reads_it() {
        let info = SignalInfo {
            signal: Signal::SIGCHLD,
            origin: Origin::Child { code: 1, pid: 7, uid: 8, status: 9, user_time: 10, system_time: 11 },
        };
        let bytes = info.to_bytes();
        // SAFETY-free check through the generated structure's field offsets.
        assert_eq!(i32::from_ne_bytes(bytes[0..4].try_into().unwrap()), 17);
        assert_eq!(i32::from_ne_bytes(bytes[8..12].try_into().unwrap()), 1);
        assert_eq!(i32::from_ne_bytes(bytes[16..20].try_into().unwrap()), 7);
        assert_eq!(i32::from_ne_bytes(bytes[24..28].try_into().unwrap()), 9);
        assert_eq!(i64::from_ne_bytes(bytes[32..40].try_into().unwrap()), 10);
    }

    #[test]
    fn an_action_cannot_block_kill_and_stop() {
        let mut action = Action { handler: 2, mask: SignalSet(!0), ..Action::default() };
        action.correct_mask();
        assert!(!action.mask.contains(Signal::SIGKILL) && !action.mask.contains(Signal::SIGSTOP));
        assert!(action.mask.contains(Signal::SIGTERM));
    }
}
