//! Interrupts: from a vector to whoever waits for it.
//!
//! Next: `apic.rs`.

/// Vectors below are exceptions.
pub const FIRST_VECTOR: u8 = 32;

/// What an interrupt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// This CPU's alarm.
    Alarm,
    /// Anything else; its handler has run.
    Other,
}

impl Served {
    /// Whether it was the alarm.
    pub fn is_alarm(self) -> bool {
        self == Served::Alarm
    }
}

/// Serves one interrupt, with interrupts off.
pub(super) fn dispatch(_vector: u8) -> Served {
    Served::Other
}

/// Serves an NMI.
pub(super) fn non_maskable() {}
