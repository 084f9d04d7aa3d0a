//! An open message queue: a descriptor that can be polled, and read for what there is to know.
//!
//! Next: `syscall/posix_queue.rs`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use abi::{Errno, general};
use executor::sync::WaitQueue;
use fs::{FileOps, PollEvents, Sink, Stop};

use super::Queue;

/// An open queue.
pub struct QueueFile {
    queue: Arc<Queue>,
}

impl QueueFile {
    /// Opens a queue.
    pub fn new(queue: Arc<Queue>) -> QueueFile {
        QueueFile { queue }
    }

    /// The queue.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What tells it from other open files, for as long as it is open.
    pub fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn text(&self) -> String {
        let state = self.queue.state.lock();
        let (kind, signal, pid) = match state.notice.as_ref().filter(|notice| notice.is_alive()) {
            Some(notice) => match notice.signal {
                Some((signal, _)) => (general::SIGEV_SIGNAL, signal.number(), notice.pid),
                None => (general::SIGEV_NONE, 0, notice.pid),
            },
            None => (0, 0, 0),
        };
        format!("QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
    }
}

impl Drop for QueueFile {
    fn drop(&mut self) {
        let id = self.id();
        self.queue.forget_notice(|notice| notice.file == id);
    }
}

impl FileOps for QueueFile {
    fn try_read(&self, position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        let text = self.text();
        let start = usize::try_from(*position).map_err(|_| Errno::EINVAL)?.min(text.len());
        let moved = sink.put(&text.as_bytes()[start..]);
        if moved == 0 && sink.faulted() {
            return Err(Stop::Fault);
        }
        *position += moved as u64;
        Ok(moved)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn poll(&self) -> PollEvents {
        let count = self.queue.count();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, count > 0);
        events.set(PollEvents::OUT | PollEvents::WRNORM, count < self.queue.capacity.messages);
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue.changed)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
