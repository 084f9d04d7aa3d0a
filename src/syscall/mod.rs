//! System calls.
//!
//! `table.rs` has one row for each number that Linux 6.1 knows; a row names a handler in one of the files beside it, or says
//! why there is none. A handler is an `async fn` (or, where nothing is ever waited for, a plain `fn`) on the running thread with
//! typed arguments.
//!
//! ```text
//!   a call ──► table::answer_now    plain functions: the call is answered without a future ever being made
//!          └─► table::answer        the rows that may wait
//! ```
//!
//! Next: `table.rs`. Exercise: add a system call of your own: one row, one function, one test.

pub mod args;
pub mod attributes;
pub mod capabilities;
pub mod clock_state;
pub mod copy_file;
pub mod credentials;
pub mod descriptor;
pub mod directory;
pub mod events;
pub mod file_lock;
pub mod futex;
pub mod futex_vector;
pub mod identity;
pub mod ioctl;
pub mod memory;
pub mod messages;
pub mod mount;
pub mod path;
pub mod poll;
pub mod posix_queue;
pub mod process;
pub mod resources;
pub mod scheduling;
pub mod semaphore;
pub mod shared_memory;
pub mod signal;
pub mod socket;
pub mod socket_message;
pub mod socket_messages;
pub mod socket_option;
pub mod splice;
pub mod sync;
pub mod system;
pub mod table;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod time;
pub mod timer;
pub mod transfer;

pub use table::numbers;

use core::num::NonZeroU32;
use core::sync::atomic::Ordering;

use abi::{Errno, Result};

use crate::process::RunningThread;
use crate::process::thread::attention;
use crate::trace;

impl RunningThread {
    /// Answers a system call that need not wait, without a future: its result is in the register where the program looks for
    /// it. False: nothing has been done, and the call is one for [`table::answer`].
    #[inline]
    pub fn answer_at_once(&mut self) -> bool {
        let number = self.context.call_number();
        // While the trace is on there is no such number, and the call goes the way where it is seen.
        let Some(result) = table::answer_now(self, self.trace.marked(number)) else { return false };
        self.finish(number, result);
        true
    }

    /// Like [`answer_at_once`](Self::answer_at_once), while the trace is on: the call is taken down. A copy of the table, out of the way.
    #[cold]
    #[inline(never)]
    fn answer_in_sight(&mut self, number: usize) -> bool {
        trace::call_begins(self, number);
        let Some(result) = table::answer_now(self, number) else { return false };
        self.finish(number, result);
        true
    }

    /// A system call begins that may wait, and that [`table::answer`] answers: its number. `None`: it has been answered.
    pub fn begin_call(&mut self) -> Option<usize> {
        let number = self.context.call_number();
        if self.trace.is_on() && self.answer_in_sight(number) {
            return None;
        }
        self.set_call_in_progress(Some(number));
        Some(number)
    }

    /// It has been answered.
    pub fn end_call(&mut self, result: Result<usize>) {
        let number = self.call_in_progress().unwrap_or(0);
        self.set_call_in_progress(None);
        self.finish(number, result);
    }

    #[inline]
    fn finish(&mut self, number: usize, result: Result<usize>) {
        crate::counters::SYSTEM_CALLS.add();
        // Checked builds can show every call: `debug` on the command line.
        #[cfg(debug_assertions)]
        log::trace!("{}: {}{:x?} = {result:x?}", self.tid(), table::name(number), self.context.call_arguments());
        let value = match result {
            Ok(value) => value as isize,
            Err(errno) => {
                if errno.number() >= Errno::ERESTARTSYS.number() {
                    // Numbers of calls that there are fit.
                    self.call_to_restart = NonZeroU32::new((number as u32).wrapping_add(1));
                    self.attention.fetch_or(attention::AFTERMATH, Ordering::Relaxed);
                }
                errno.as_return_value()
            }
        };
        self.context.set_return_value(value);
    }
}
