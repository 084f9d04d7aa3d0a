//! What the exercises are given: a CPU that is interrupted where the test says, a disk, and a CPU to be shared.

pub mod cpu;
pub mod disk;
pub mod interrupt;
