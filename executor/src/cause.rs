//! Who wakes a task: another task, an interrupt, or a deadline. next: machine.rs, for those who trace it.

/// On whose behalf a CPU acts, and so who has woken what it wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody that is known: a task that was never woken says so.
    Unknown,
    /// The task of this number.
    Task(u64),
    /// The interrupt of this vector.
    Interrupt(u8),
    /// A deadline that came.
    Timer,
}

const TIMER: u64 = 1 << 63;
/// With the vector in the lowest byte.
const INTERRUPT: u64 = 1 << 62;

impl Cause {
    /// As one word: 0, the number of a task, or a bit that no such number reaches.
    #[inline]
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Task(id) => id,
            Self::Interrupt(vector) => INTERRUPT | vector as u64,
            Self::Timer => TIMER,
        }
    }

    /// Whether [`Cause::encode`] was given a task.
    #[inline]
    pub(crate) const fn is_task(word: u64) -> bool {
        word != 0 && word < INTERRUPT
    }

    /// What [`Cause::encode`] was given.
    #[must_use]
    pub const fn decode(word: u64) -> Self {
        match word {
            0 => Self::Unknown,
            TIMER => Self::Timer,
            word if word & INTERRUPT != 0 => Self::Interrupt(word as u8),
            id => Self::Task(id),
        }
    }
}
