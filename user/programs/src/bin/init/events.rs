//! What interrupts init's waiting: a child that ended, and the signals by which programs ask for the end.
//!
//! Busybox's `poweroff`, `reboot` and `halt` send process 1 SIGUSR2, SIGTERM and SIGUSR1. A handler only sets a flag and writes
//! a byte to a pipe, so that `poll` wakes; the work is done in [`Events::handle`].

use crate::power;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::system::RebootCommand;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A poll looks around this often even if nothing woke it, should a kernel lose a SIGCHLD.
const LOOK_AROUND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// The wake-up pipe and what was asked for.
pub struct Events {
    woken: PipeReader,
    requests: [(Arc<AtomicBool>, RebootCommand); 3],
}

impl Events {
    /// Installs the handlers.
    ///
    /// # Errors
    /// None of the kernel's refusals is expected: they are those of pipe and sigaction.
    pub fn new() -> io::Result<Self> {
        let (woken, wake) = io::pipe()?;
        rustix::io::ioctl_fionbio(&woken, true)?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        let asked = |signal, how| -> io::Result<_> {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
            Ok((flag, how))
        };
        let requests = [
            asked(SIGUSR2, RebootCommand::PowerOff)?,
            asked(SIGTERM, RebootCommand::Restart)?,
            asked(SIGUSR1, RebootCommand::Halt)?,
        ];
        signal_hook::low_level::pipe::register(SIGCHLD, OwnedFd::from(wake))?;
        Ok(Self { woken, requests })
    }

    /// Waits until one of `others` is ready, or something happened; answers what each of `others` is ready for.
    ///
    /// # Errors
    /// Those of poll, but never EINTR.
    pub fn wait(&self, others: &[PollFd<'_>]) -> io::Result<Vec<PollFlags>> {
        let mut all = others.to_vec();
        all.push(PollFd::new(&self.woken, PollFlags::IN));
        match poll(&mut all, Some(&LOOK_AROUND)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(all[..others.len()].iter().map(PollFd::revents).collect())
    }

    /// Reaps every child that ended and tells `ended` of it; ends the system if that was asked for.
    pub fn handle(&mut self, mut ended: impl FnMut(Pid, WaitStatus)) {
        // The bytes only wake; an empty pipe is the usual case.
        let _ = self.woken.read(&mut [0; 64]);
        for (flag, how) in &self.requests {
            if flag.load(Ordering::Relaxed) {
                power::end(*how);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            ended(pid, status);
        }
    }
}
