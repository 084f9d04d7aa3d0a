//! The system call table: what is there, what is there in part, and what is refused and why.
//!
//! Three kinds of rows:
//!
//! - `now f(a, b)`: a plain function that never waits.
//! - `try f or g (a, b)`: `f` answers if it can at once (`Some`), else `g`, which may wait.
//! - `wait g(a, b)`: an async function.
//!
//! The names in brackets are the call's arguments, in the order of the registers; their types are those of the function.
//! [`SUPPORT`] says of each number what to expect; docs and /proc show it, and a test checks that no number of Linux 6.1 is missing.
//!
//! Next: `args.rs`.

use abi::{Errno, Result};

use super::args::FromRegister;
use super::{
    attributes, descriptor, directory, futex, identity, memory, mount, path, poll, process, resources, signal, socket, system,
    thread, time, transfer,
};
use crate::arch::Call;
use crate::process::RunningThread;

/// How much of a system call there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// All that its man page says.
    Full,
    /// Some: the text says what is missing.
    Partial(&'static str),
    /// Nothing: it fails with this error, for this reason.
    Refused(Errno, &'static str),
}

/// A row, for those who show the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number in RAX.
    pub number: usize,
    /// The name.
    pub name: &'static str,
    /// How much there is.
    pub support: Support,
}

macro_rules! invoke {
    ($thread:ident $call:ident [$($f:tt)+] ()) => { $($f)+($thread) };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident)) => {
        $($f)+($thread, arg($call, 0))
    };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident, $b:ident)) => {
        $($f)+($thread, arg($call, 0), arg($call, 1))
    };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident)) => {
        $($f)+($thread, arg($call, 0), arg($call, 1), arg($call, 2))
    };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident)) => {
        $($f)+($thread, arg($call, 0), arg($call, 1), arg($call, 2), arg($call, 3))
    };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident)) => {
        $($f)+($thread, arg($call, 0), arg($call, 1), arg($call, 2), arg($call, 3), arg($call, 4))
    };
    ($thread:ident $call:ident [$($f:tt)+] ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $g:ident)) => {
        $($f)+($thread, arg($call, 0), arg($call, 1), arg($call, 2), arg($call, 3), arg($call, 4), arg($call, 5))
    };
}

macro_rules! answer_now {
    ($thread:ident $call:ident now [$($f:tt)+] $args:tt) => { Some(invoke!($thread $call [$($f)+] $args)) };
    ($thread:ident $call:ident try [$($f:tt)+] or [$($g:tt)+] $args:tt) => { invoke!($thread $call [$($f)+] $args) };
    ($thread:ident $call:ident wait [$($g:tt)+] $args:tt) => { None };
    ($thread:ident $call:ident refused $errno:ident) => { None };
}

macro_rules! answer {
    ($thread:ident $call:ident now [$($f:tt)+] $args:tt) => { Err(Errno::ENOSYS) };
    ($thread:ident $call:ident try [$($f:tt)+] or [$($g:tt)+] $args:tt) => { invoke!($thread $call [$($g)+] $args).await };
    ($thread:ident $call:ident wait [$($g:tt)+] $args:tt) => { invoke!($thread $call [$($g)+] $args).await };
    ($thread:ident $call:ident refused $errno:ident) => { Err(Errno::$errno) };
}

macro_rules! support {
    (refused $errno:ident $why:literal) => { Support::Refused(Errno::$errno, $why) };
    ($kind:ident $([$($f:tt)+])? $(or [$($g:tt)+])? $($args:tt)?) => { Support::Full };
}

macro_rules! table {
    ($($number:literal $name:ident: $kind:ident $([$($f:tt)+] $(or [$($g:tt)+])? $args:tt)? $($errno:ident $why:literal)?
        $(, partly: $missing:literal)?;)*) => {
        /// The numbers, by name.
        pub mod numbers {
            $(#[doc = concat!("The number of `", stringify!($name), "`.")] pub const $name: usize = $number;)*
        }

        /// Every row.
        pub static SUPPORT: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            support: row_support!($kind $($errno $why)? $(, $missing)?),
        }),*];

        /// Answers what can be answered without waiting.
        #[inline]
        pub fn answer_now(thread: &mut RunningThread, call: &Call) -> Option<Result<usize>> {
            match call.number {
                $($number => answer_now!(thread call $kind $([$($f)+] $(or [$($g)+])? $args)? $($errno)?),)*
                _ => None,
            }
        }

        /// Answers what may have to wait.
        pub async fn answer(thread: &mut RunningThread, call: Call) -> Result<usize> {
            let call = &call;
            match call.number {
                $($number => answer!(thread call $kind $([$($f)+] $(or [$($g)+])? $args)? $($errno)?),)*
                number => unknown(thread, number),
            }
        }
    };
}

macro_rules! row_support {
    (refused $errno:ident $why:literal) => { Support::Refused(Errno::$errno, $why) };
    ($kind:ident , $missing:literal) => { Support::Partial($missing) };
    ($kind:ident) => { Support::Full };
}

#[inline(always)]
fn arg<T: FromRegister>(call: &Call, index: usize) -> T {
    T::from_register(call.args[index])
}

fn unknown(thread: &RunningThread, number: usize) -> Result<usize> {
    log::debug!("thread {}: there is no system call {number}", thread.tid());
    Err(Errno::ENOSYS)
}
