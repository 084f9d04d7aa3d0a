//! Requests in flight: who owns their memory, who is woken, and what happens when nobody waits any more.
//!
//! A queue has a fixed number of slots. Each slot owns a fixed piece of the descriptor table (or, with indirect descriptors, one
//! descriptor and a table of its own), a few bytes of header that the device reads, and one byte of status that it writes. So the id
//! of a returned descriptor *is* the slot: any order of completion is told apart without a search.
//!
//! ```text
//!            slot()              send()                  interrupt, service()          poll
//!   Free ──────────► Reserved ──────────► InFlight ────────────────────► Done ──────────────► Free
//!    ▲   drop           │                    │ drop of the future                                 │
//!    ├──────────────────┘                    ▼                                                    │
//!    └───────────────── service() ◄────── Orphaned (its memory stays the device's) ◄──── (never)  │
//! ```
//!
//! The payload `P` (the pages) lives in the slot from `send` until the device has returned it, whatever becomes of the future.
//! The waker stands in the slot before the doorbell rings.
//!
//! A semaphore counts the free slots: who needs one when there is none stands in line, first come, first served, and may leave at
//! any time.
//!
//! Next: `block.rs`. Exercise: why is the payload returned to the future, and not dropped by `service`?

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use drivers::hw::{Dma, DmaAddr, DmaBuffer};
use drivers::{Errno, Result};
use executor::sync::{Semaphore, SpinLock};

use crate::features::{EVENT_INDEX, INDIRECT_DESCRIPTORS};
use crate::ring::{DESCRIPTOR_SIZE, Descriptor, INDIRECT, NEXT, Ring, Violation, WRITE};
use crate::transport::Transport;

/// The bytes of a slot's header.
pub(crate) const HEADER_SIZE: usize = 16;

/// A piece of memory of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) address: DmaAddr,
    pub(crate) len: u32,
}

/// Which way a request's payload goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToDevice,
    FromDevice,
}

/// What a queue is made with.
pub(crate) struct Plan {
    /// Its number.
    pub(crate) queue: u16,
    /// The group of queues that shares its interrupt.
    pub(crate) group: usize,
    /// The features agreed on.
    pub(crate) features: u64,
    /// The most requests in flight that are of use.
    pub(crate) max_slots: u16,
    /// The most buffers of a request's payload.
    pub(crate) max_buffers: usize,
}

/// What a request owns while the device may reach it.
pub(crate) trait Payload: Send {
    /// Its buffers, in order; `None` behind the last.
    fn buffer(&self, index: usize) -> Option<Buffer>;
}

/// A queue of requests, each with a payload `P` that it owns while the device may reach it.
pub(crate) struct RequestQueue<P> {
    queue: u16,
    transport: Arc<dyn Transport>,
    shape: Shape,
    state: SpinLock<State<P>>,
    free_slots: Semaphore,
}

/// How the descriptors and the shared memory are divided among the slots.
#[derive(Clone, Copy)]
struct Shape {
    is_indirect: bool,
    /// Descriptors of one request: header, payload, status.
    width: usize,
    /// The ring's descriptors that belong to one slot.
    ring_width: u16,
}

struct State<P> {
    ring: Ring,
    /// For each slot: its table (if indirect), its header, its status.
    memory: DmaBuffer,
    slots: Vec<Slot<P>>,
    free: Vec<u16>,
    is_broken: bool,
}

enum Slot<P> {
    Free,
    Reserved,
    InFlight { payload: P, waiter: Option<Waker> },
    Done(Result<P>),
}

/// What is left to do after a turn of service, without a lock held.
struct Finished<P> {
    waker: Option<Waker>,
    orphan: Option<P>,
}

impl Shape {
    fn slot_bytes(&self) -> usize {
        let table = if self.is_indirect { self.width * DESCRIPTOR_SIZE } else { 0 };
        table + HEADER_SIZE + 16
    }

    fn table(&self, slot: u16) -> usize {
        usize::from(slot) * self.slot_bytes()
    }

    fn header(&self, slot: u16) -> usize {
        self.table(slot) + self.slot_bytes() - HEADER_SIZE - 16
    }

    fn status(&self, slot: u16) -> usize {
        self.header(slot) + HEADER_SIZE
    }

    fn head(&self, slot: u16) -> u16 {
        slot * self.ring_width
    }

    /// The slot whose chain begins at `head`.
    fn slot_of(&self, head: u16) -> Option<u16> {
        head.is_multiple_of(self.ring_width).then_some(head / self.ring_width)
    }
}

impl<P: Payload> RequestQueue<P> {
    /// Sets a queue up. The second half of the pair makes the queue of it once the transport is shared.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has no such queue or one too small for a request; `ENOMEM`; `EIO` if it does not take it.
    pub(crate) fn prepare(transport: &mut dyn Transport, dma: &Dma, plan: &Plan) -> Result<Prepared<P>> {
        let is_indirect = plan.features & INDIRECT_DESCRIPTORS != 0;
        let width = plan.max_buffers + 2;
        let ring_width = if is_indirect { 1 } else { u16::try_from(width).map_err(|_| Errno::EINVAL)? };
        let shape = Shape { is_indirect, width, ring_width };
        let wanted = plan.max_slots.saturating_mul(ring_width);
        let size = Ring::fitting_size(transport.max_queue_size(plan.queue), wanted).ok_or(Errno::ENODEV)?;
        let count = (size / ring_width).min(plan.max_slots);
        if count == 0 {
            return Err(Errno::ENODEV);
        }
        let has_event_index = plan.features & EVENT_INDEX != 0;
        let ring = Ring::new(dma, size, transport.used_alignment(), has_event_index).ok_or(Errno::ENOMEM)?;
        let memory = dma.allocate(shape.slot_bytes() * usize::from(count)).ok_or(Errno::ENOMEM)?;
        transport.set_queue(plan.queue, plan.group, size, ring.addresses())?;
        let state = State {
            ring,
            memory,
            slots: (0..count).map(|_| Slot::Free).collect(),
            free: (0..count).rev().collect(),
            is_broken: false,
        };
        Ok(Prepared { queue: plan.queue, shape, state })
    }

    /// Waits for a free slot, first come, first served.
    ///
    /// # Errors
    ///
    /// `EIO` if the device has been given up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the line; no slot is lost.
    pub(crate) async fn slot(&self) -> Result<Reserved<'_, P>> {
        self.free_slots.acquire(1).await;
        let mut state = self.state.lock();
        if state.is_broken {
            drop(state);
            // Whoever is next in line shall know, too.
            self.free_slots.release(1);
            return Err(Errno::EIO);
        }
        let slot = state.free.pop().expect("there is a free slot for each permit");
        state.slots[usize::from(slot)] = Slot::Reserved;
        Ok(Reserved { queue: self, slot })
    }

    /// Completes what the device has returned. Called by the run future after an interrupt.
    ///
    /// # Errors
    ///
    /// The device's violation of the protocol; the caller stops the device and then calls [`fail_all`](RequestQueue::fail_all).
    pub(crate) fn service(&self) -> core::result::Result<(), Violation> {
        while let Some(finished) = self.take_finished()? {
            if finished.orphan.is_some() {
                self.free_slots.release(1);
            }
            if let Some(waker) = finished.waker {
                waker.wake();
            }
        }
        Ok(())
    }

    /// One completion, with its orphaned payload and its waker taken out, so that neither is run under the lock.
    fn take_finished(&self) -> core::result::Result<Option<Finished<P>>, Violation> {
        let mut state = self.state.lock();
        if state.is_broken {
            return Ok(None);
        }
        let Some(used) = state.ring.take()? else { return Ok(None) };
        let slot = self.shape.slot_of(used.head).ok_or(Violation::UnknownHead)?;
        state.finish(slot).map(Some).ok_or(Violation::UnknownHead)
    }

    /// Ends every request with `EIO` and refuses new ones. Returns what the device was still given, to be dropped only if the
    /// device has surely stopped.
    pub(crate) fn fail_all(&self) -> Vec<P> {
        let (payloads, wakers) = self.state.lock().fail_all();
        wakers.into_iter().for_each(Waker::wake);
        // Whoever stands in line gets the slot of an orphan, or this permit, and learns that the device is gone.
        self.free_slots.release(1);
        payloads
    }
}

impl<P> State<P> {
    /// The device is done with `slot`; `None` if the slot was not in flight.
    fn finish(&mut self, slot: u16) -> Option<Finished<P>> {
        let place = self.slots.get_mut(usize::from(slot))?;
        match core::mem::replace(place, Slot::Free) {
            Slot::InFlight { payload, waiter: Some(waker) } => {
                *place = Slot::Done(Ok(payload));
                Some(Finished { waker: Some(waker), orphan: None })
            }
            Slot::InFlight { payload, waiter: None } => {
                self.free.push(slot);
                Some(Finished { waker: None, orphan: Some(payload) })
            }
            other => {
                *place = other;
                None
            }
        }
    }

    fn fail_all(&mut self) -> (Vec<P>, Vec<Waker>) {
        self.is_broken = true;
        let (mut payloads, mut wakers) = (Vec::new(), Vec::new());
        for place in &mut self.slots {
            match core::mem::replace(place, Slot::Free) {
                Slot::InFlight { payload, waiter } => {
                    payloads.push(payload);
                    if let Some(waker) = waiter {
                        wakers.push(waker);
                        *place = Slot::Done(Err(Errno::EIO));
                    }
                }
                other => *place = other,
            }
        }
        (payloads, wakers)
    }
}

/// A queue that the device knows, before its transport is shared.
pub(crate) struct Prepared<P> {
    queue: u16,
    shape: Shape,
    state: State<P>,
}

impl<P> Prepared<P> {
    /// Makes the queue.
    pub(crate) fn finish(self, transport: Arc<dyn Transport>) -> RequestQueue<P> {
        RequestQueue {
            queue: self.queue,
            transport,
            shape: self.shape,
            free_slots: Semaphore::new(self.state.free.len()),
            state: SpinLock::new(self.state),
        }
    }
}

/// A slot that nobody else has. Dropping it frees it.
pub(crate) struct Reserved<'q, P: Payload> {
    queue: &'q RequestQueue<P>,
    slot: u16,
}

impl<'q, P: Payload> Reserved<'q, P> {
    /// Hands a request to the device: the header, then the payload's buffers, then the status byte. Resolves to the status and the
    /// payload when the device is done.
    ///
    /// # Errors
    ///
    /// `EIO` if the device has been given up.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the first poll, nothing has happened. Dropped later, the request is orphaned.
    pub(crate) async fn send(self, header: [u8; HEADER_SIZE], direction: Direction, payload: P) -> Result<(u8, P)> {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        self.hand_over(header, direction, payload, waker)?.await
    }

    fn hand_over(
        self,
        header: [u8; HEADER_SIZE],
        direction: Direction,
        payload: P,
        waker: Waker,
    ) -> Result<InFlight<'q, P>> {
        let (queue, slot, shape) = (self.queue, self.slot, self.queue.shape);
        let wants_doorbell = {
            let mut state = queue.state.lock();
            if state.is_broken {
                return Err(Errno::EIO);
            }
            state.memory.write(shape.header(slot), &header);
            state.memory.write8(shape.status(slot), u8::MAX);
            let base = state.memory.device_address().0;
            let at = |offset: usize, len: usize| Buffer { address: DmaAddr(base + offset as u64), len: len as u32 };
            let head = core::iter::once((at(shape.header(slot), HEADER_SIZE), 0));
            let flags = if direction == Direction::FromDevice { WRITE } else { 0 };
            let middle = (0..shape.width - 2).map_while(|index| payload.buffer(index)).map(|buffer| (buffer, flags));
            let tail = core::iter::once((at(shape.status(slot), 1), WRITE));
            state.describe(shape, slot, head.chain(middle).chain(tail));
            state.slots[usize::from(slot)] = Slot::InFlight { payload, waiter: Some(waker) };
            state.ring.offer(shape.head(slot));
            state.ring.publish()
        };
        // The slot is the device's now: its end is InFlight's matter.
        core::mem::forget(self);
        if wants_doorbell {
            queue.transport.notify(queue.queue);
        }
        Ok(InFlight { queue, slot, is_over: false })
    }
}

impl<P> State<P> {
    /// Writes a slot's chain of descriptors.
    fn describe(&mut self, shape: Shape, slot: u16, buffers: impl Iterator<Item = (Buffer, u16)>) {
        let (table, head) = (shape.table(slot), shape.head(slot));
        let mut count = 0;
        let mut buffers = buffers.peekable();
        while let Some((buffer, flags)) = buffers.next() {
            let flags = if buffers.peek().is_some() { flags | NEXT } else { flags };
            let next = if shape.is_indirect { count + 1 } else { head + count + 1 };
            let descriptor = Descriptor { address: buffer.address, len: buffer.len, flags, next };
            if shape.is_indirect {
                descriptor.store(&self.memory, table, usize::from(count));
            } else {
                self.ring.set_descriptor(head + count, descriptor);
            }
            count += 1;
        }
        if shape.is_indirect {
            let address = DmaAddr(self.memory.device_address().0 + table as u64);
            let len = u32::from(count) * DESCRIPTOR_SIZE as u32;
            self.ring.set_descriptor(head, Descriptor { address, len, flags: INDIRECT, next: 0 });
        }
    }
}

impl<P: Payload> Drop for Reserved<'_, P> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.slots[usize::from(self.slot)] = Slot::Free;
        state.free.push(self.slot);
        drop(state);
        self.queue.free_slots.release(1);
    }
}

/// Waits for the device to return a slot. Dropping it orphans the request.
struct InFlight<'q, P: Payload> {
    queue: &'q RequestQueue<P>,
    slot: u16,
    is_over: bool,
}

impl<P: Payload> Future for InFlight<'_, P> {
    type Output = Result<(u8, P)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        executor::waits_here(context);
        let mut state = self.queue.state.lock();
        let status = state.memory.read8(self.queue.shape.status(self.slot));
        let place = &mut state.slots[usize::from(self.slot)];
        match core::mem::replace(place, Slot::Free) {
            Slot::InFlight { payload, waiter } => {
                let waiter = waiter.filter(|waiter| waiter.will_wake(context.waker()));
                let waiter = waiter.unwrap_or_else(|| context.waker().clone());
                *place = Slot::InFlight { payload, waiter: Some(waiter) };
                Poll::Pending
            }
            Slot::Done(outcome) => {
                state.free.push(self.slot);
                drop(state);
                self.is_over = true;
                self.queue.free_slots.release(1);
                Poll::Ready(outcome.map(|payload| (status, payload)))
            }
            Slot::Free | Slot::Reserved => unreachable!("a slot in flight belongs to its future until it is over"),
        }
    }
}

impl<P: Payload> Drop for InFlight<'_, P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.queue.state.lock();
        let place = &mut state.slots[usize::from(self.slot)];
        let done = match core::mem::replace(place, Slot::Free) {
            Slot::InFlight { payload, .. } => {
                *place = Slot::InFlight { payload, waiter: None };
                return;
            }
            done => done,
        };
        state.free.push(self.slot);
        drop(state);
        drop(done);
        self.queue.free_slots.release(1);
    }
}
