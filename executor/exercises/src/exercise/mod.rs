//! The starting points: they compile, and their tests fail.

pub mod countdown;
pub mod device;
pub mod event;
pub mod fairness;
pub mod semaphore;
