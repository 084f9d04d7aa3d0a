//! Event counters (eventfd(2)).

use core::any::Any;

use executor::sync::{SpinLock, WaitQueue};
use fs::{Errno, FileOps, OpenFlags, PollEvents, Sink, Source, Stop};

/// An event counter.
pub struct EventCounter {
    count: SpinLock<u64>,
    is_semaphore: bool,
    changed: WaitQueue,
}

impl EventCounter {
    /// A counter that begins with `count`; as a semaphore, each read takes one.
    pub fn new(count: u64, is_semaphore: bool) -> EventCounter {
        EventCounter { count: SpinLock::new(count), is_semaphore, changed: WaitQueue::new() }
    }
}

impl FileOps for EventCounter {
    fn try_read(&self, _position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Stop::WouldBlock);
        }
        let taken = if self.is_semaphore { 1 } else { *count };
        if sink.put(&taken.to_ne_bytes()) < 8 {
            return Err(Stop::Fault);
        }
        *count -= taken;
        drop(count);
        self.changed.wake_all();
        Ok(8)
    }

    fn try_write(&self, _position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let mut bytes = [0; 8];
        if source.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut count = self.count.lock();
        let taken = source.take(&mut bytes);
        if taken < 8 {
            source.give_back(taken);
            return Err(Stop::Fault);
        }
        let more = u64::from_ne_bytes(bytes);
        if more == u64::MAX {
            return Err(Errno::EINVAL.into());
        }
        if u64::MAX - 1 - *count < more {
            source.give_back(8);
            return Err(Stop::WouldBlock);
        }
        *count += more;
        drop(count);
        self.changed.wake_all();
        Ok(8)
    }

    fn poll(&self) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, count > 0);
        events.set(PollEvents::OUT | PollEvents::WRNORM, count < u64::MAX - 1);
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.changed)
    }

    fn name(&self) -> alloc::string::String {
        "anon_inode:[eventfd]".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
