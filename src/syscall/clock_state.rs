//! How well the clock is set: adjtimex(2) and clock_adjtime(2). It runs free: nothing steers it, and so it can only be asked.
//!
//! Next: `timer.rs`.

use abi::{Errno, Result, general};
use fs::Capabilities;

use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::wall_clock;

/// `struct timex`, in words of eight bytes.
pub type ClockState = [u64; 26];

/// The answer for a clock that nobody sets: TIME_ERROR.
const TIME_ERROR: usize = 5;
/// Nobody sets it: STA_UNSYNC.
const UNSYNCHRONISED: u64 = 0x40;
/// The largest error that is told, in microseconds: as of a clock of which nothing is known.
const UNKNOWN_ERROR: u64 = 16_000_000;
/// ADJ_OFFSET_SS_READ: asks for what adjtime(3) has left to do.
const READ_OLD_OFFSET: u32 = 0xa001;
/// ADJ_OFFSET_SINGLESHOT: adjtime(3). Of nothing, it takes back what is left to do, which is nothing here.
const OLD_OFFSET: u32 = 0x8001;

/// adjtimex(2). `EPERM`: a change without CAP_SYS_TIME; `EOPNOTSUPP`: a change. `EFAULT`.
pub async fn adjtimex(thread: &mut RunningThread, state: UserPtr<ClockState>) -> Result<usize> {
    let mut words: ClockState = thread.get(state).await?;
    let modes = words[0] as u32;
    if modes != 0 && modes != READ_OLD_OFFSET {
        if !thread.credentials.can(Capabilities::SYS_TIME) {
            return Err(Errno::EPERM);
        }
        let offset = words[1];
        if modes != OLD_OFFSET || offset != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    let now = wall_clock::now();
    words[1..].fill(0);
    // Errors, status, the constant of its loop, precision and tolerance, the time, and how long a tick is: all in microseconds.
    words[3..=7].copy_from_slice(&[UNKNOWN_ERROR, UNKNOWN_ERROR, UNSYNCHRONISED, 2, 1]);
    words[8..=11].copy_from_slice(&[500 << 16, now.as_secs(), now.subsec_micros().into(), 10_000]);
    thread.put(state, &words).await?;
    Ok(TIME_ERROR)
}

/// clock_adjtime(2). As adjtimex(2); `EINVAL`: no such clock; `EOPNOTSUPP`: one that cannot be set.
pub async fn clock_adjtime(thread: &mut RunningThread, clock: u32, state: UserPtr<ClockState>) -> Result<usize> {
    match clock {
        general::CLOCK_REALTIME => adjtimex(thread, state).await,
        other => super::time::Clock::new(other).and(Err(Errno::EOPNOTSUPP)),
    }
}
