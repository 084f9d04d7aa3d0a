//! Time: instants, and waiting for them.
//!
//! The executor does not know what a clock is: it asks its [`Machine`](crate::Machine) for the time, and tells it when to ring
//! the one alarm that each CPU has. On top of that alarm stands a wheel of deadlines per CPU. next: timers.rs.

mod instant;
mod sleep;
mod timeout;
mod timers;

pub use instant::Instant;
pub use sleep::Sleep;
pub use timeout::{Elapsed, Timeout};
pub use timers::TimerHandle;
pub(crate) use timers::{Clock, Timer, fire};
