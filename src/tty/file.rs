//! An open file on a terminal.
//!
//! Next: `ioctl.rs`.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use executor::sync::WaitQueue;
use fs::{FileOps, Io, IoctlArgument, OpenFlags, PollEvents, Sink, Source, Stop};

use super::ioctl;
use super::terminal::Terminal;
use crate::tty::Result;

/// What open(2) of a terminal's device node makes.
pub struct TerminalFile {
    /// The terminal.
    pub terminal: Arc<Terminal>,
    /// The terminal's generation when it was opened: another one now means that there was a hang-up.
    generation: u64,
}

impl TerminalFile {
    /// Opens; the caller has checked that this is allowed.
    pub(super) fn new(terminal: Arc<Terminal>) -> TerminalFile {
        let generation = terminal.change(|state| {
            state.opens += 1;
            if let Some(pty) = &mut state.pty {
                pty.is_slave_closed = false;
            }
            state.generation
        });
        if let Some(channel) = terminal.channel() {
            channel.set_open(true);
        }
        TerminalFile { terminal, generation }
    }

    /// Whether there was a hang-up since it was opened.
    pub fn is_hung_up(&self) -> bool {
        self.terminal.state.lock().generation != self.generation
    }
}

impl FileOps for TerminalFile {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        self.terminal.read(self.generation, sink)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        self.terminal.write(self.generation, source)
    }

    fn poll(&self) -> PollEvents {
        self.terminal.poll(self.generation)
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.ready)
    }

    fn ioctl(&self, command: u32, argument: &mut dyn IoctlArgument) -> Result<usize, Stop> {
        ioctl::terminal_ioctl(self, command, argument)
    }

    fn release(&self) -> Io<'_, ()> {
        self.terminal.closed(self.generation);
        Io::ready(Ok(()))
    }

    fn name(&self) -> String {
        self.terminal.name.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
