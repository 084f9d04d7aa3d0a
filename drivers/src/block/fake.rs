//! A disk for tests: its content is a vector, and a request is done when the test says so.
//!
//! Next: `conformance.rs`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use executor::sync::SpinLock;

use super::{BlockDevice, Geometry, Operation, Request, SECTOR_SIZE};
use crate::{BoxFuture, Errno, Result};

/// Which of several requests in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The one that came first.
    Oldest,
    /// The one that came last.
    Newest,
    /// The one at this place, counted from the oldest, round and round.
    Nth(usize),
}

impl Pick {
    /// Its place among `count` requests; `None` if there are none.
    pub fn among(self, count: usize) -> Option<usize> {
        match self {
            Pick::Oldest => (count > 0).then_some(0),
            Pick::Newest => count.checked_sub(1),
            Pick::Nth(place) => place.checked_rem(count),
        }
    }
}

/// A disk made of memory, for tests.
pub struct FakeDisk {
    geometry: Geometry,
    state: Arc<SpinLock<State>>,
}

struct State {
    content: Vec<u8>,
    pending: Vec<Pending>,
    completes_by_itself: bool,
    failures: usize,
    completed: usize,
}

/// A request that the disk has not done yet. It is the disk's: its future may be gone.
struct Pending {
    request: Request,
    reply: Weak<SpinLock<Reply>>,
}

enum Reply {
    Waiting(Waker),
    Done(Result<()>),
}

impl FakeDisk {
    /// An empty disk that does each request at once.
    pub fn new(sectors: u64) -> FakeDisk {
        FakeDisk::with_content(vec![0; sectors as usize * SECTOR_SIZE])
    }

    /// A disk that does each request at once, with this content, such as the image of a file system.
    pub fn with_content(content: Vec<u8>) -> FakeDisk {
        let sectors = (content.len() / SECTOR_SIZE) as u64;
        let state = State { content, pending: Vec::new(), completes_by_itself: true, failures: 0, completed: 0 };
        let geometry = Geometry { sectors, max_segments: 32, read_only: false };
        FakeDisk { geometry, state: Arc::new(SpinLock::new(state)) }
    }

    /// Makes it keep requests until [`complete`](FakeDisk::complete) is called.
    pub fn by_hand(self) -> FakeDisk {
        self.state.lock().completes_by_itself = false;
        self
    }

    /// Makes it refuse writes.
    pub fn read_only(mut self) -> FakeDisk {
        self.geometry.read_only = true;
        self
    }

    /// Does one of the requests that wait; `false` if there is none.
    pub fn complete(&self, pick: Pick) -> bool {
        let finished = {
            let mut state = self.state.lock();
            let Some(place) = pick.among(state.pending.len()) else { return false };
            let pending = state.pending.remove(place);
            let result = state.carry_out(&pending.request);
            (pending, result)
        };
        let (Pending { request, reply }, result) = finished;
        drop(request);
        if let Some(reply) = reply.upgrade()
            && let Reply::Waiting(waker) = core::mem::replace(&mut *reply.lock(), Reply::Done(result))
        {
            waker.wake();
        }
        true
    }

    /// Makes the next `count` requests fail with `EIO`.
    pub fn fail_next(&self, count: usize) {
        self.state.lock().failures = count;
    }

    /// How many requests wait to be done.
    pub fn pending(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// How many requests have been done, failed ones included.
    pub fn completed(&self) -> usize {
        self.state.lock().completed
    }

    /// A copy of what is on the disk.
    pub fn content(&self) -> Vec<u8> {
        self.state.lock().content.clone()
    }
}

impl State {
    fn carry_out(&mut self, request: &Request) -> Result<()> {
        self.completed += 1;
        if let Some(left) = self.failures.checked_sub(1) {
            self.failures = left;
            return Err(Errno::EIO);
        }
        let mut at = request.sector as usize * SECTOR_SIZE;
        for segment in &request.segments {
            let content = &mut self.content[at..at + segment.len];
            match request.operation {
                Operation::Read => segment.page.write(segment.offset, content),
                Operation::Write => segment.page.read(segment.offset, content),
                Operation::Flush => {}
            }
            at += segment.len;
        }
        Ok(())
    }
}

impl BlockDevice for FakeDisk {
    fn geometry(&self) -> Geometry {
        self.geometry.clone()
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            request.check(&self.geometry)?;
            if self.state.lock().completes_by_itself {
                return self.state.lock().carry_out(&request);
            }
            Submitted::New(self, request).await
        })
    }
}

/// Waits for a request that is done by hand.
enum Submitted<'d> {
    New(&'d FakeDisk, Request),
    Waiting(Arc<SpinLock<Reply>>),
    Over,
}

impl Future for Submitted<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        *this = match core::mem::replace(this, Submitted::Over) {
            Submitted::New(disk, request) => {
                let reply = Arc::new(SpinLock::new(Reply::Waiting(context.waker().clone())));
                disk.state.lock().pending.push(Pending { request, reply: Arc::downgrade(&reply) });
                Submitted::Waiting(reply)
            }
            Submitted::Waiting(reply) => {
                if let Reply::Done(result) = *reply.lock() {
                    return Poll::Ready(result);
                }
                *reply.lock() = Reply::Waiting(context.waker().clone());
                Submitted::Waiting(reply)
            }
            Submitted::Over => unreachable!("polled after it was ready"),
        };
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::conformance::{self, Subject};
    use crate::hw::HostPages;

    #[test]
    fn the_fake_disk_is_a_disk_whether_it_answers_at_once_or_by_hand() {
        let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
        conformance::check(&mut || Subject { device: Arc::new(FakeDisk::new(64)), step: Box::new(|_| false), pages });
        conformance::check(&mut || {
            let disk = Arc::new(FakeDisk::new(64).by_hand());
            Subject { device: disk.clone(), step: Box::new(move |pick| disk.complete(pick)), pages }
        });
    }
}
