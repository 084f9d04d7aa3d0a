//! Solutions: one way of several.

pub mod countdown;
pub mod device;
pub mod event;
pub mod fairness;
pub mod semaphore;
