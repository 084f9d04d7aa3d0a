//! Open files of the kernel's own making: event counters, timers, and epoll.

pub mod epoll;
pub mod event;
pub mod timer;
