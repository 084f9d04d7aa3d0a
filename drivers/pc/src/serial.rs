//! The 16550 serial port, driven by interrupts in both directions.
//!
//! Two bounded queues stand between the chip's 16-byte FIFOs and whoever uses the [`ByteChannel`]. `run` waits for the interrupt,
//! or for somebody who made room or has news, and then serves the chip until it asks for nothing more. An edge-triggered
//! line needs that: while one cause is left, no further edge comes.
//!
//! ```text
//!   try_write ─► outgoing ─► (at once if the FIFO is empty, else by serve) ─► THR ─► line
//!   try_read ◄── incoming ◄──────────────────────────────────── serve ◄─── RBR ◄─── line
//! ```
//!
//! What to do is read from the line status, never from the interrupt's stated cause: chips differ in when they report an empty
//! transmitter. A receiver whose queue is full is left alone, with its interrupt off, so that the other side is held
//! back by its own FIFO; reading turns it on again.
//!
//! Source: National PC16550D data sheet. The crate `uart_16550` was looked at: it polls, and owns its ports.
//!
//! Next: `keyboard.rs`. Exercise: the tests' model can leave out the interrupt for "transmitter empty"; which line below saves us?

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use drivers::console::ByteChannel;
use drivers::hw::Port;
use drivers::irq::IrqLine;
use drivers::{Errno, Result};
use executor::sync::{Event, SpinLock, WaitQueue};

/// The registers, as offsets from the first port. Some are two, by direction or by the divisor latch bit.
mod register {
    pub(super) const DATA: u16 = 0;
    pub(super) const INTERRUPT_ENABLE: u16 = 1;
    pub(super) const INTERRUPT_CAUSE: u16 = 2;
    pub(super) const FIFO_CONTROL: u16 = 2;
    pub(super) const LINE_CONTROL: u16 = 3;
    pub(super) const MODEM_CONTROL: u16 = 4;
    pub(super) const LINE_STATUS: u16 = 5;
    pub(super) const MODEM_STATUS: u16 = 6;
    pub(super) const SCRATCH: u16 = 7;
}

/// Line status: a byte has been received.
const DATA_READY: u8 = 0x01;
/// Line status: the byte at the front came with a break.
const BREAK: u8 = 0x10;
/// Line status: the transmitter's FIFO is empty.
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Interrupt enable: received data; transmitter empty.
const ON_RECEIVED: u8 = 0x01;
const ON_TRANSMITTER_EMPTY: u8 = 0x02;
/// Interrupt cause: none.
const NO_CAUSE: u8 = 0x01;
/// Interrupt cause: both bits are set where the FIFOs work.
const HAS_FIFO: u8 = 0xc0;
/// Line control: 8 data bits, no parity, one stop bit; and the bit that makes registers 0 and 1 the divisor.
const EIGHT_N_ONE: u8 = 0x03;
const DIVISOR_LATCH: u8 = 0x80;
/// Modem control: ready, and the output that gates the interrupt on PCs.
const READY_WITH_INTERRUPT: u8 = 0x0b;

/// The speed at divisor 1.
const BASE_SPEED: u32 = 115_200;
/// How many bytes wait in each direction.
const QUEUE: usize = 4096;
/// The transmitter's FIFO.
const FIFO: usize = 16;
/// How often `serve` goes round before it lets others run.
const ROUNDS: usize = 256;

/// A serial port.
pub struct Serial {
    port: Port,
    state: SpinLock<State>,
    readable: WaitQueue,
    writable: WaitQueue,
    /// Notified when `run` must look at the chip without an interrupt.
    kick: Event,
}

struct State {
    incoming: VecDeque<u8>,
    outgoing: VecDeque<u8>,
    /// How many bytes an empty transmitter takes.
    fifo: usize,
    /// What the interrupt-enable register holds.
    enabled: u8,
}

/// What serving the chip led to.
#[derive(Default)]
struct Served {
    has_received: bool,
    has_sent: bool,
    /// The chip still asks for something.
    is_unfinished: bool,
}

impl Serial {
    /// Sets the port up for `speed` bits per second and returns it with the future that drives it. `port` is the eight I/O
    /// ports from the first on, `irq` the port's interrupt.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such chip there. `EINVAL`: a speed it cannot have. `ENOMEM`.
    pub fn new(
        port: Port,
        irq: IrqLine,
        speed: u32,
    ) -> Result<(Arc<Serial>, impl Future<Output = ()> + Send + 'static)> {
        let divisor = BASE_SPEED.checked_div(speed).filter(|divisor| (1..=0xffff).contains(divisor));
        let divisor = divisor.ok_or(Errno::EINVAL)? as u16;
        if !is_there(&port) {
            return Err(Errno::ENODEV);
        }
        let fifo = set_up(&port, divisor);
        let mut state = State { incoming: VecDeque::new(), outgoing: VecDeque::new(), fifo, enabled: ON_RECEIVED };
        state.incoming.try_reserve_exact(QUEUE).map_err(|_| Errno::ENOMEM)?;
        state.outgoing.try_reserve_exact(QUEUE).map_err(|_| Errno::ENOMEM)?;
        port.write8(register::INTERRUPT_ENABLE, ON_RECEIVED);
        let serial = Arc::new(Serial {
            port,
            state: SpinLock::new(state),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
            kick: Event::new(),
        });
        // What arrived before interrupts were on is fetched by the first look.
        serial.kick.notify();
        let run = serial.clone().run(irq);
        Ok((serial, run))
    }

    async fn run(self: Arc<Self>, mut irq: IrqLine) {
        loop {
            {
                let mut interrupt = pin!(irq.wait());
                poll_fn(|context| {
                    let is_kicked = self.kick.poll_wait(context).is_ready();
                    if interrupt.as_mut().poll(context).is_ready() || is_kicked {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
            let served = self.serve(&mut self.state.lock());
            if served.has_received {
                self.readable.wake_all();
            }
            if served.has_sent {
                self.writable.wake_all();
            }
            if served.is_unfinished {
                // A chip that never stops asking, broken or flooded: others get their turn in between.
                self.kick.notify();
                executor::yield_now().await;
            }
        }
    }

    /// Does all that the chip asks for.
    fn serve(&self, state: &mut State) -> Served {
        let mut served = Served::default();
        for _ in 0..ROUNDS {
            // Reading the cause acknowledges "transmitter empty".
            let is_done = self.port.read8(register::INTERRUPT_CAUSE) & NO_CAUSE != 0;
            served.has_received |= self.receive(state);
            served.has_sent |= self.send(state);
            if is_done {
                return served;
            }
            // The rarer causes, which are not enabled, and yet some chips report them: reading acknowledges.
            self.port.read8(register::MODEM_STATUS);
        }
        served.is_unfinished = true;
        served
    }

    /// Fetches what the receiver holds, as far as there is room; whether there was something.
    fn receive(&self, state: &mut State) -> bool {
        let before = state.incoming.len();
        while state.incoming.len() < QUEUE {
            let status = self.port.read8(register::LINE_STATUS);
            if status & DATA_READY == 0 {
                break;
            }
            let byte = self.port.read8(register::DATA);
            if status & BREAK == 0 {
                state.incoming.push_back(byte);
            }
        }
        let wanted = if state.incoming.len() < QUEUE { ON_RECEIVED } else { 0 };
        self.enable(state, (state.enabled & !ON_RECEIVED) | wanted);
        state.incoming.len() > before
    }

    /// Gives the transmitter what it can take; whether it took something.
    fn send(&self, state: &mut State) -> bool {
        let mut has_sent = false;
        if !state.outgoing.is_empty() && self.port.read8(register::LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            let len = state.fifo.min(state.outgoing.len());
            for byte in state.outgoing.drain(..len) {
                self.port.write8(register::DATA, byte);
            }
            has_sent = true;
        }
        // The interrupt is wanted only while there is more: it comes when the FIFO has run empty.
        let wanted = if state.outgoing.is_empty() { 0 } else { ON_TRANSMITTER_EMPTY };
        self.enable(state, (state.enabled & !ON_TRANSMITTER_EMPTY) | wanted);
        has_sent
    }

    fn enable(&self, state: &mut State, interrupts: u8) {
        if state.enabled != interrupts {
            state.enabled = interrupts;
            self.port.write8(register::INTERRUPT_ENABLE, interrupts);
        }
    }
}

/// Whether a 16550 or one of its ancestors answers.
fn is_there(port: &Port) -> bool {
    let holds = |value| {
        port.write8(register::SCRATCH, value);
        port.read8(register::SCRATCH) == value
    };
    holds(0x5a) && holds(0xa5) && port.read8(register::LINE_STATUS) != 0xff
}

/// Sets speed, format and FIFOs; returns how many bytes the transmitter takes at once.
fn set_up(port: &Port, divisor: u16) -> usize {
    port.write8(register::INTERRUPT_ENABLE, 0);
    port.write8(register::LINE_CONTROL, DIVISOR_LATCH);
    port.write8(register::DATA, divisor as u8);
    port.write8(register::INTERRUPT_ENABLE, (divisor >> 8) as u8);
    port.write8(register::LINE_CONTROL, EIGHT_N_ONE);
    // FIFOs on, interrupt at 8 bytes or after a pause. They are not cleared: input that came early is kept.
    port.write8(register::FIFO_CONTROL, 0x81);
    port.write8(register::MODEM_CONTROL, READY_WITH_INTERRUPT);
    if port.read8(register::INTERRUPT_CAUSE) & HAS_FIFO == HAS_FIFO { FIFO } else { 1 }
}

impl ByteChannel for Serial {
    fn try_read(&self, into: &mut [u8]) -> usize {
        let mut state = self.state.lock();
        let len = into.len().min(state.incoming.len());
        for (place, byte) in into.iter_mut().zip(state.incoming.drain(..len)) {
            *place = byte;
        }
        if len > 0 && state.enabled & ON_RECEIVED == 0 {
            // There was no room before; now there is.
            self.kick.notify();
        }
        len
    }

    fn try_write(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let len = bytes.len().min(QUEUE - state.outgoing.len());
        state.outgoing.extend(&bytes[..len]);
        // The first bytes need no interrupt, and a transmitter that forgot to interrupt is started again.
        self.send(&mut state);
        len
    }

    fn can_read(&self) -> bool {
        !self.state.lock().incoming.is_empty()
    }

    fn can_write(&self) -> bool {
        self.state.lock().outgoing.len() < QUEUE
    }

    fn unsent(&self) -> usize {
        self.state.lock().outgoing.len()
    }

    fn readable(&self) -> &WaitQueue {
        &self.readable
    }

    fn writable(&self) -> &WaitQueue {
        &self.writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_uart::FakeUart;
    use drivers::console::conformance::{self, Subject};
    use executor::testing::Bench;

    fn start(uart: &'static FakeUart) -> (Bench, Arc<Serial>) {
        let bench = Bench::new();
        let (serial, run) = Serial::new(uart.port(), uart.irq(), 115_200).expect("the model is there");
        bench.spawn(run);
        bench.settle();
        (bench, serial)
    }

    /// Lets the line move until nothing moves any more; at most so many FIFOs full.
    fn transmit(bench: Bench, uart: &FakeUart) -> Vec<u8> {
        for _ in 0..1000 {
            uart.transmit();
            bench.settle();
        }
        uart.take_sent()
    }

    #[test]
    fn the_port_is_a_byte_channel_like_any_other() {
        conformance::check(&mut || {
            let uart = FakeUart::new();
            let (bench, serial) = start(uart);
            let far_write = move |bytes: &[u8]| {
                let mut sent = 0;
                loop {
                    let count = uart.receive(&bytes[sent..]);
                    bench.settle();
                    sent += count;
                    if count == 0 {
                        return sent;
                    }
                }
            };
            let far_read = move || {
                uart.transmit();
                bench.settle();
                uart.take_sent()
            };
            Subject { channel: serial, far_write: Box::new(far_write), far_read: Box::new(far_read) }
        });
    }

    #[test]
    fn a_missing_port_is_refused() {
        let uart = FakeUart::absent();
        assert_eq!(Serial::new(uart.port(), uart.irq(), 115_200).err(), Some(Errno::ENODEV));
        let uart = FakeUart::new();
        assert_eq!(Serial::new(uart.port(), uart.irq(), 0).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn bytes_from_the_line_are_read_in_order() {
        let uart = FakeUart::new();
        let (bench, serial) = start(uart);
        for part in [&b"hello "[..], b"world"] {
            uart.receive(part);
            bench.settle();
        }
        let mut bytes = [0; 32];
        assert_eq!(serial.try_read(&mut bytes), 11);
        assert_eq!(&bytes[..11], b"hello world");
        assert!(!serial.can_read());
    }

    #[test]
    fn a_long_text_leaves_in_order_driven_by_interrupts() {
        let uart = FakeUart::new();
        let (bench, serial) = start(uart);
        let text: Vec<u8> = (0..3000).map(|number| number as u8).collect();
        assert_eq!(serial.try_write(&text), text.len());
        assert_eq!(transmit(bench, uart), text);
        assert_eq!(serial.unsent(), 0);
    }

    #[test]
    fn a_chip_without_fifos_gets_one_byte_at_a_time() {
        let uart = FakeUart::without_fifo();
        let (bench, serial) = start(uart);
        serial.try_write(b"abc");
        assert_eq!(transmit(bench, uart), b"abc");
        assert_eq!(uart.lost(), 0);
    }

    #[test]
    fn a_full_queue_takes_no_more_and_wakes_the_writer_when_there_is_room() {
        let uart = FakeUart::new();
        let (bench, serial) = start(uart);
        let taken = serial.try_write(&[b'x'; 10_000]);
        assert_eq!(taken, QUEUE);
        let rest = serial.try_write(&[b'y'; 10_000]);
        assert_eq!(serial.try_write(b"z"), 0);
        let writer = serial.clone();
        let woken = bench.start(async move { writer.writable().wait().await });
        bench.settle();
        assert!(woken.try_take().is_none());
        uart.transmit();
        bench.settle();
        assert!(woken.try_take().is_some());
        assert_eq!(transmit(bench, uart).len(), taken + rest);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_the_line_back_and_loses_nothing() {
        let uart = FakeUart::new();
        let (bench, serial) = start(uart);
        let text: Vec<u8> = (0..QUEUE + 500).map(|number| (number % 251) as u8).collect();
        let mut sent = 0;
        let mut got = Vec::new();
        while got.len() < text.len() {
            // The other side respects the FIFO, as hardware flow control makes it do.
            while sent < text.len() && uart.receive(&text[sent..sent + 1]) == 1 {
                sent += 1;
            }
            bench.settle();
            if uart.is_fifo_full() || sent == text.len() {
                let mut bytes = [0; 100];
                let len = serial.try_read(&mut bytes);
                got.extend_from_slice(&bytes[..len]);
                bench.settle();
            }
        }
        assert_eq!(got, text);
        assert_eq!(uart.lost(), 0);
    }

    #[test]
    fn a_transmitter_that_forgets_to_interrupt_is_restarted_by_the_next_write() {
        let uart = FakeUart::new();
        uart.forget_transmitter_interrupts();
        let (bench, serial) = start(uart);
        serial.try_write(&[b'a'; 20]);
        uart.transmit();
        bench.settle();
        serial.try_write(b"b");
        uart.transmit();
        bench.settle();
        let sent = uart.take_sent();
        assert_eq!(sent.len(), 21);
        assert_eq!(sent.last(), Some(&b'b'));
    }

    #[test]
    fn what_was_typed_before_the_driver_started_is_not_lost() {
        let uart = FakeUart::new();
        // The FIFO is off still: one byte is all the chip holds.
        assert_eq!(uart.receive(b"x"), 1);
        let (_, serial) = start(uart);
        let mut bytes = [0; 8];
        assert_eq!((serial.try_read(&mut bytes), bytes[0]), (1, b'x'));
    }
}
