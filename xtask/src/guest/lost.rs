//! Why a machine ended before its program did.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Why a machine ended before its program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel panicked.
    Panic,
    /// The processor gave up (triple fault), or the machine was reset.
    Reset,
    /// The time limit.
    TimedOut,
    /// The machine was switched off from inside.
    PoweredOff,
    /// QEMU itself failed, or the channels did.
    Machine,
}

/// A machine that ended before its program did, with the kernel's last lines.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Why.
    pub failure: Failure,
    /// The last of the kernel's log, and of what QEMU said.
    pub log: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.failure {
            Failure::Panic => "the kernel panicked",
            Failure::Reset => "the machine was reset (triple fault or reboot)",
            Failure::TimedOut => "the time limit has passed",
            Failure::PoweredOff => "the machine was switched off before the program ended",
            Failure::Machine => "the machine failed",
        };
        f.write_str(what)?;
        if self.log.trim().is_empty() { Ok(()) } else { write!(f, "; the kernel's last lines:\n{}", self.log) }
    }
}

impl std::error::Error for Lost {}

/// What QEMU's end means.
///
/// Rouse leaves through isa-debug-exit, which makes QEMU exit with an odd status (`value << 1 | 1`), only when it has panicked
/// or was told to; Linux says on its console that it panicked, and resets.
pub(super) fn classify(status: Option<ExitStatus>, log: &str, resets: &str) -> Failure {
    const QEMU_ITSELF: i32 = 1;
    if log.contains("Kernel panic - not syncing") {
        return Failure::Panic;
    }
    if resets.contains("Triple fault") {
        return Failure::Reset;
    }
    match status {
        Some(status) if status.signal().is_some() => Failure::Machine,
        Some(status) => match status.code() {
            Some(0) if log.contains("Restarting system") || log.contains("reboot: machine restart") => Failure::Reset,
            Some(0) => Failure::PoweredOff,
            Some(QEMU_ITSELF) => Failure::Machine,
            Some(code) if code % 2 == 1 => Failure::Panic,
            _ => Failure::Machine,
        },
        None => Failure::Machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn each_end_of_a_machine_has_its_own_name() {
        assert_eq!(classify(exited(0), "", ""), Failure::PoweredOff);
        assert_eq!(classify(exited(0), "reboot: Restarting system\n", ""), Failure::Reset);
        assert_eq!(classify(exited(0), "", "CPU Reset\nTriple fault\n"), Failure::Reset);
        assert_eq!(classify(exited(0), "Kernel panic - not syncing: x", ""), Failure::Panic);
        assert_eq!(classify(exited(33), "", ""), Failure::Panic);
        assert_eq!(classify(exited(1), "", ""), Failure::Machine);
        assert_eq!(classify(Some(ExitStatus::from_raw(11)), "", ""), Failure::Machine);
    }
}
