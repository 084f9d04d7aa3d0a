//! ioctl(2): what every file knows is answered here, the rest by the file, which gets the argument as [`IoctlArgument`].

use abi::{Errno, Result};
use fs::{IoctlArgument, OpenFlags, Stop};

use super::transfer::until_possible;
use crate::mm::user::{Stopped, UserPtr};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// The argument of an ioctl, over user memory. A copy that stops leaves what stopped it.
struct Argument<'a> {
    thread: &'a RunningThread,
    value: usize,
    stopped: Option<Stopped>,
}

impl Argument<'_> {
    fn note(&mut self, result: Result<(), Stopped>) -> Result<(), Stop> {
        result.map_err(|stopped| {
            self.stopped = Some(stopped);
            Stop::Fault
        })
    }
}

impl IoctlArgument for Argument<'_> {
    fn value(&self) -> usize {
        self.value
    }

    fn get(&mut self, into: &mut [u8]) -> Result<(), Stop> {
        let result = self.thread.space.active().read_bytes(self.value, into);
        self.note(result)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let result = self.thread.space.active().write_bytes(self.value, bytes);
        self.note(result)
    }

    fn check_writable(&mut self, len: usize) -> Result<(), Stop> {
        let result = self.thread.space.active().check_writable(self.value, len);
        self.note(result)
    }
}

/// ioctl(2). `EBADF`; `ENOTTY`: the file knows no such command; others by file.
pub async fn ioctl(thread: &mut RunningThread, fd: Fd, command: u32, argument: usize) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    match command {
        abi::ioctl::FIOCLEX | abi::ioctl::FIONCLEX => {
            thread.files.set_close_on_exec(fd, command == abi::ioctl::FIOCLEX)?;
            return Ok(0);
        }
        abi::ioctl::FIONBIO => {
            let on: i32 = thread.get(UserPtr::new(argument)).await?;
            let flags = file.flags() - OpenFlags::NONBLOCK;
            file.set_flags(if on != 0 { flags | OpenFlags::NONBLOCK } else { flags });
            return Ok(0);
        }
        _ => {}
    }
    loop {
        let mut stopped = None;
        let attempt = || {
            let mut over = Argument { thread, value: argument, stopped: None };
            let outcome = file.ops.ioctl(command, &mut over);
            stopped = over.stopped.take();
            outcome
        };
        match until_possible(thread, &file, attempt).await? {
            Ok(value) => return Ok(value),
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Fault) => match stopped {
                Some(stopped) => thread.space.resolve(stopped.why).await?,
                None => return Err(Errno::EFAULT),
            },
            Err(Stop::Miss(page)) => file.ops.prepare(page).await?,
            Err(Stop::WouldBlock) => return Err(Errno::EAGAIN),
        }
    }
}
