//! A model of a 16550 behind I/O ports, for tests: FIFOs, interrupt causes and an edge-triggered interrupt line.

use std::collections::VecDeque;
use std::sync::Mutex;

use drivers::hw::{Port, PortSpace};
use drivers::irq::{IrqControl, IrqLine};
use executor::sync::Event;

const FIFO: usize = 16;

pub(crate) struct FakeUart {
    chip: Mutex<Chip>,
    interrupt: Event,
}

#[derive(Default)]
struct Chip {
    is_absent: bool,
    has_fifo: bool,
    forgets: bool,
    received: VecDeque<u8>,
    transmitter: VecDeque<u8>,
    sent: Vec<u8>,
    lost: usize,
    /// "Transmitter empty" has happened and was not acknowledged.
    empty_pending: bool,
    enable: u8,
    line_control: u8,
    fifo_control: u8,
    modem_control: u8,
    scratch: u8,
    was_raised: bool,
}

struct NoControl;

static NO_CONTROL: NoControl = NoControl;

impl IrqControl for NoControl {
    fn unmask(&self, _line: u32) {}
    fn mask(&self, _line: u32) {}
}

impl FakeUart {
    pub(crate) fn new() -> &'static FakeUart {
        FakeUart::with(Chip { has_fifo: true, ..Chip::default() })
    }

    pub(crate) fn without_fifo() -> &'static FakeUart {
        FakeUart::with(Chip::default())
    }

    pub(crate) fn absent() -> &'static FakeUart {
        FakeUart::with(Chip { is_absent: true, ..Chip::default() })
    }

    fn with(chip: Chip) -> &'static FakeUart {
        Box::leak(Box::new(FakeUart { chip: Mutex::new(chip), interrupt: Event::new() }))
    }

    pub(crate) fn port(&'static self) -> Port {
        Port::new(self, 0x3f8, 8)
    }

    pub(crate) fn irq(&'static self) -> IrqLine {
        IrqLine::new(4, &self.interrupt, &NO_CONTROL)
    }

    /// From now on "transmitter empty" raises no interrupt.
    pub(crate) fn forget_transmitter_interrupts(&self) {
        self.change(|chip| chip.forgets = true);
    }

    /// Bytes come in over the line, as many as the FIFO takes; returns how many.
    pub(crate) fn receive(&self, bytes: &[u8]) -> usize {
        self.change(|chip| {
            let room = chip.depth() - chip.received.len();
            let taken = bytes.len().min(room);
            chip.received.extend(&bytes[..taken]);
            taken
        })
    }

    pub(crate) fn is_fifo_full(&self) -> bool {
        self.change(|chip| chip.received.len() == chip.depth())
    }

    /// The line takes everything that the transmitter holds.
    pub(crate) fn transmit(&self) {
        self.change(|chip| {
            let bytes: Vec<u8> = chip.transmitter.drain(..).collect();
            if !bytes.is_empty() && !chip.forgets {
                chip.empty_pending = true;
            }
            chip.sent.extend(bytes);
        });
    }

    pub(crate) fn take_sent(&self) -> Vec<u8> {
        self.change(|chip| std::mem::take(&mut chip.sent))
    }

    /// How many bytes were written into a full transmitter.
    pub(crate) fn lost(&self) -> usize {
        self.change(|chip| chip.lost)
    }

    fn change<R>(&self, work: impl FnOnce(&mut Chip) -> R) -> R {
        let mut chip = self.chip.lock().expect("no test panics in here");
        let result = work(&mut chip);
        let is_raised = chip.cause() & 1 == 0 && chip.modem_control & 8 != 0;
        let is_edge = is_raised && !chip.was_raised;
        chip.was_raised = is_raised;
        drop(chip);
        if is_edge {
            self.interrupt.notify();
        }
        result
    }
}

impl Chip {
    fn depth(&self) -> usize {
        if self.has_fifo && self.fifo_control & 1 != 0 { FIFO } else { 1 }
    }

    fn cause(&self) -> u8 {
        let fifo = if self.has_fifo && self.fifo_control & 1 != 0 { 0xc0 } else { 0 };
        if self.enable & 1 != 0 && !self.received.is_empty() {
            fifo | 4
        } else if self.enable & 2 != 0 && self.empty_pending {
            fifo | 2
        } else {
            fifo | 1
        }
    }

    fn read(&mut self, register: u16) -> u8 {
        match register {
            0 => self.received.pop_front().unwrap_or(0),
            1 => self.enable,
            2 => {
                let cause = self.cause();
                if cause & 0xf == 2 {
                    self.empty_pending = false;
                }
                cause
            }
            3 => self.line_control,
            4 => self.modem_control,
            5 => u8::from(!self.received.is_empty()) | if self.transmitter.is_empty() { 0x60 } else { 0 },
            6 => 0xb0,
            _ => self.scratch,
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        let is_divisor = self.line_control & 0x80 != 0 && register < 2;
        match register {
            _ if is_divisor => {}
            0 if self.transmitter.len() == self.depth() => self.lost += 1,
            0 => {
                self.empty_pending = false;
                self.transmitter.push_back(value);
            }
            1 => {
                if value & 2 != 0 && self.enable & 2 == 0 && self.transmitter.is_empty() && !self.forgets {
                    self.empty_pending = true;
                }
                self.enable = value;
            }
            2 => self.fifo_control = value,
            3 => self.line_control = value,
            4 => self.modem_control = value,
            7 => self.scratch = value,
            _ => {}
        }
    }
}

impl PortSpace for FakeUart {
    fn read8(&self, port: u16) -> u8 {
        self.change(|chip| if chip.is_absent { 0xff } else { chip.read(port - 0x3f8) })
    }

    fn write8(&self, port: u16, value: u8) {
        self.change(|chip| chip.write(port - 0x3f8, value));
    }

    fn read16(&self, _port: u16) -> u16 {
        unreachable!("a 16550 is read in bytes")
    }

    fn write16(&self, _port: u16, _value: u16) {
        unreachable!("a 16550 is written in bytes")
    }

    fn read32(&self, _port: u16) -> u32 {
        unreachable!("a 16550 is read in bytes")
    }

    fn write32(&self, _port: u16, _value: u32) {
        unreachable!("a 16550 is written in bytes")
    }
}
