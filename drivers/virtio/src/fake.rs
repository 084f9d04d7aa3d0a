//! The host's side of a virtio device, for tests: it finds the rings in memory as a device does, by the addresses it was told.
//!
//! It is strict. It looks at a queue only after its doorbell, interrupts only when it was asked to, loses an interrupt whose line is
//! still masked, and reaches memory only through frames that are in use: a driver that forgets a doorbell, a wish, to arm a line, or
//! to keep a page, fails its test.
//!
//! Next: the tests at the end of `block.rs`, then of `console.rs`.

use std::boxed::Box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

use drivers::hw::{Dma, DmaAddr, HostPages, PAGE_SIZE, Page};
use drivers::irq::{IrqControl, IrqLine};
use drivers::{Errno, Result};
use executor::sync::Event;

use crate::features::{EVENT_INDEX, INDIRECT_DESCRIPTORS, VERSION_1};
use crate::ring::{INDIRECT, NEXT, RingAddresses, WRITE};
use crate::transport::{BoxedTransport, Concern, Lines, Transport, status};

/// The host's handle on the device.
#[derive(Clone)]
pub(crate) struct FakeDevice {
    state: Arc<Mutex<State>>,
    pub(crate) pages: &'static HostPages,
}

/// What a fake is made with.
pub(crate) struct Shape {
    pub(crate) device_type: u32,
    pub(crate) features: u64,
    pub(crate) config: Vec<u8>,
    pub(crate) queues: usize,
    pub(crate) queue_size: u16,
    /// One interrupt line for each group and one for the configuration, instead of one for everything.
    pub(crate) has_vectors: bool,
}

impl Shape {
    pub(crate) fn new(device_type: u32, features: u64, config: Vec<u8>, queues: usize) -> Shape {
        let features = features | VERSION_1 | EVENT_INDEX | INDIRECT_DESCRIPTORS;
        Shape { device_type, features, config, queues, queue_size: 256, has_vectors: true }
    }
}

struct State {
    shape: Shape,
    accepted: u64,
    status: u8,
    generation: u32,
    config_changed: bool,
    queues: Vec<Queue>,
    /// One line for each group, then one for the configuration; or one for all.
    lines: Vec<&'static Line>,
}

/// An edge-triggered line.
#[derive(Default)]
struct Line {
    event: Event,
    is_armed: AtomicBool,
}

impl Line {
    fn raise(&self) {
        if self.is_armed.load(Ordering::Relaxed) {
            self.event.notify();
        }
    }
}

impl IrqControl for Line {
    fn unmask(&self, _line: u32) {
        self.is_armed.store(true, Ordering::Relaxed);
    }

    fn mask(&self, _line: u32) {
        self.is_armed.store(false, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct Queue {
    ring: Option<RingAddresses>,
    size: u16,
    group: usize,
    seen: u16,
    used: u16,
    has_rung: bool,
    doorbells: usize,
}

/// A chain that the driver has offered.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    /// Address, length, whether the device writes it.
    pub(crate) buffers: Vec<(u64, usize, bool)>,
}

impl FakeDevice {
    pub(crate) fn new(shape: Shape) -> FakeDevice {
        let queues = vec![Queue::default(); shape.queues];
        let state =
            State { shape, accepted: 0, status: 0, generation: 0, config_changed: false, queues, lines: Vec::new() };
        FakeDevice { state: Arc::new(Mutex::new(state)), pages: Box::leak(Box::new(HostPages::new())) }
    }

    /// What the driver gets.
    pub(crate) fn transport(&self) -> BoxedTransport {
        Box::new(FakeTransport(self.clone()))
    }

    pub(crate) fn dma(&self) -> Dma {
        Dma::new(self.pages)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state().status & status::DRIVER_OK != 0
    }

    pub(crate) fn doorbells(&self, queue: u16) -> usize {
        self.state().queues[usize::from(queue)].doorbells
    }

    fn page(&self, address: u64) -> (Page, usize) {
        let page = self.pages.page_at(DmaAddr(address)).expect("the device was given memory that is not in use");
        (page, address as usize % PAGE_SIZE)
    }

    pub(crate) fn read(&self, mut address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let (page, offset) = self.page(address);
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE_SIZE - offset));
            page.read(offset, now);
            address += now.len() as u64;
            rest = later;
        }
        bytes
    }

    pub(crate) fn write(&self, mut address: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (page, offset) = self.page(address);
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_SIZE - offset));
            page.write(offset, now);
            address += now.len() as u64;
            bytes = later;
        }
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().expect("two bytes"))
    }

    /// Takes a chain that the driver has offered, if it has rung.
    pub(crate) fn take(&self, queue: u16) -> Option<Chain> {
        let mut state = self.state();
        if state.status & status::DRIVER_OK == 0 {
            return None;
        }
        let has_event_index = state.accepted & EVENT_INDEX != 0;
        let queue = &mut state.queues[usize::from(queue)];
        let ring = queue.ring.filter(|_| queue.has_rung)?;
        let size = u64::from(queue.size);
        if self.read_u16(ring.available.0 + 2) == queue.seen {
            // Nothing left: asleep until the next doorbell, which is asked for.
            if has_event_index {
                self.write(ring.used.0 + 4 + 8 * size, &queue.seen.to_le_bytes());
            }
            queue.has_rung = false;
            return None;
        }
        let head = self.read_u16(ring.available.0 + 4 + 2 * (u64::from(queue.seen) % size));
        queue.seen = queue.seen.wrapping_add(1);
        Some(Chain { head, buffers: self.buffers(ring.descriptors.0, head, size) })
    }

    fn buffers(&self, table: u64, first: u16, size: u64) -> Vec<(u64, usize, bool)> {
        let mut buffers = Vec::new();
        let mut index = first;
        loop {
            assert!(u64::from(index) < size && buffers.len() <= size as usize, "a chain that leaves its table");
            let bytes = self.read(table + 16 * u64::from(index), 16);
            let address = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            let len = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
            let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
            if flags & INDIRECT != 0 {
                assert!(flags & NEXT == 0, "an indirect table is the whole chain");
                return self.buffers(address, 0, u64::from(len / 16));
            }
            buffers.push((address, len as usize, flags & WRITE != 0));
            if flags & NEXT == 0 {
                return buffers;
            }
            index = u16::from_le_bytes([bytes[14], bytes[15]]);
        }
    }

    /// Returns a chain, and interrupts if the driver wants that.
    pub(crate) fn give_back(&self, queue: u16, head: u16, len: usize) {
        self.give_back_raw(queue, u32::from(head), len as u32);
    }

    /// Writes an entry of the used ring, true or not.
    pub(crate) fn give_back_raw(&self, queue: u16, id: u32, len: u32) {
        let mut state = self.state();
        let state = &mut *state;
        let has_event_index = state.accepted & EVENT_INDEX != 0;
        let queue = &mut state.queues[usize::from(queue)];
        let Some(ring) = queue.ring else { return };
        let size = u64::from(queue.size);
        let entry = ring.used.0 + 4 + 8 * (u64::from(queue.used) % size);
        self.write(entry, &[id.to_le_bytes(), len.to_le_bytes()].concat());
        let wish = self.read_u16(ring.available.0 + 4 + 2 * size);
        let is_wanted = !has_event_index || wish == queue.used;
        queue.used = queue.used.wrapping_add(1);
        self.write(ring.used.0 + 2, &queue.used.to_le_bytes());
        if is_wanted {
            let group = if state.shape.has_vectors { queue.group } else { 0 };
            state.lines[group].raise();
        }
    }

    /// Writes the index of the used ring, and interrupts.
    pub(crate) fn set_used_index(&self, queue: u16, index: u16) {
        let mut state = self.state();
        let queue = &mut state.queues[usize::from(queue)];
        queue.used = index;
        if let Some(ring) = queue.ring {
            self.write(ring.used.0 + 2, &index.to_le_bytes());
        }
        state.lines.iter().for_each(|line| line.raise());
    }

    /// Changes the configuration, and interrupts.
    pub(crate) fn change_config(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.state();
        state.shape.config[offset..offset + bytes.len()].copy_from_slice(bytes);
        state.generation += 1;
        state.config_changed = true;
        state.lines.last().expect("connected").raise();
    }

    /// Says that it has failed, and interrupts.
    pub(crate) fn fail(&self) {
        let mut state = self.state();
        state.status |= status::NEEDS_RESET;
        state.config_changed = true;
        state.lines.last().expect("connected").raise();
    }
}

struct FakeTransport(FakeDevice);

impl Transport for FakeTransport {
    fn device_type(&self) -> u32 {
        self.0.state().shape.device_type
    }

    fn offered_features(&mut self) -> u64 {
        self.0.state().shape.features
    }

    fn accept_features(&mut self, features: u64) {
        self.0.state().accepted = features;
    }

    fn status(&self) -> u8 {
        self.0.state().status
    }

    fn set_status(&self, status: u8) {
        let mut state = self.0.state();
        state.status = status;
        if status == 0 {
            state.queues.iter_mut().for_each(|queue| *queue = Queue::default());
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u16 {
        let state = self.0.state();
        if usize::from(queue) < state.queues.len() { state.shape.queue_size } else { 0 }
    }

    fn connect(&mut self, groups: usize) -> Result<Lines> {
        let mut state = self.0.state();
        let count = if state.shape.has_vectors { groups + 1 } else { 1 };
        state.lines = (0..count).map(|_| &*Box::leak(Box::new(Line::default()))).collect();
        let concern = |index| match index {
            _ if count == 1 => Concern::Everything,
            index if index == groups => Concern::Configuration,
            index => Concern::Group(index),
        };
        let line = |(index, line): (usize, &&'static Line)| (IrqLine::new(0, &line.event, *line), concern(index));
        Ok(Lines(state.lines.iter().enumerate().map(line).collect()))
    }

    fn set_queue(&mut self, queue: u16, group: usize, size: u16, addresses: RingAddresses) -> Result<()> {
        let mut state = self.0.state();
        assert!(size.is_power_of_two() && size <= state.shape.queue_size, "a queue of a size that was not offered");
        assert!(state.status & status::DRIVER_OK == 0, "a queue that is set up too late");
        let queue = state.queues.get_mut(usize::from(queue)).ok_or(Errno::EIO)?;
        *queue = Queue { ring: Some(addresses), size, group, ..Queue::default() };
        Ok(())
    }

    fn notify(&self, queue: u16) {
        let mut state = self.0.state();
        let queue = &mut state.queues[usize::from(queue)];
        queue.has_rung = true;
        queue.doorbells += 1;
    }

    fn acknowledge(&self) -> bool {
        let mut state = self.0.state();
        !state.shape.has_vectors && core::mem::replace(&mut state.config_changed, false)
    }

    fn config_generation(&self) -> u32 {
        self.0.state().generation
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        into.fill(0);
        let state = self.0.state();
        if let Some(bytes) = state.shape.config.get(offset..offset + into.len()) {
            into.copy_from_slice(bytes);
        }
    }
}
