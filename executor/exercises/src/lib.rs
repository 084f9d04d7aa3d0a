//! Five exercises on async kernels, on the real executor and on the developer's machine; `docs/async.md` tells what they are about.
//!
//! | | to do in `src/exercise/` | the test | what the starting point does wrong |
//! |---|---|---|---|
//! | 1 | `countdown.rs` | `tests/countdown.rs` | it waits, and nobody is told to wake it |
//! | 2 | `event.rs` | `tests/event.rs` | it looks first and registers afterwards: a wake between the two is lost |
//! | 3 | `semaphore.rs` | `tests/semaphore.rs` | a waiter that gives up takes its permit along |
//! | 4 | `device.rs` | `tests/device.rs` | any completion ends any request, and memory is used again while the device writes to it |
//! | 5 | `fairness.rs` | `tests/fairness.rs` | all tasks take turns, whatever their weight, and whoever has slept waits for all of them |
//!
//! Change the file in `src/exercise/`, and try it:
//!
//! ```sh
//! cargo test -p exercises --features mine --test countdown     # your work
//! cargo test -p exercises                                      # the solutions; and that the starting points fail
//! ```
//!
//! What is given, and stays as it is, is in `src/world/`. The solutions are in `src/solution/`: one way of several. None needs `unsafe`.
//!
//! next: `exercise/countdown.rs`.

pub mod exercise;
pub mod solution;
pub mod world;
