//! A screen and a keyboard as one line: the [`ByteChannel`] below a terminal that is used by a person at the machine.
//!
//! Keys become the bytes that a Linux console sends; bytes from programs wait in a bounded queue for `run`, which owns the
//! [`terminal::Terminal`] and draws. It draws at most 60 times a second: what scrolls past faster than that nobody could read.
//!
//! ```text
//!   keyboard ─► key() ─► incoming ─► try_read ─► line discipline
//!   line discipline ─► try_write ─► outgoing ─► run() ─► terminal::Terminal ─► frame buffer
//!                       incoming ◄── replies ◄────┘
//! ```
//!
//! Next: `pty.rs`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use conquer_once::spin::OnceCell;
use drivers::console::ByteChannel;
use drivers::display::FrameBuffer;
use drivers::input::{KeyEvent, KeySink, NamedKey};
use executor::sync::{Event, SpinLock, WaitQueue};
use executor::time::TimerHandle;

use super::terminal::WindowSize;
use crate::mm::MakeRoom;
use crate::tty::{Result, rank};

/// How many bytes wait to be shown, and how many keys to be read.
const OUTGOING: usize = 16 * 1024;
const INCOMING: usize = 1024;
/// The least time between two drawings.
const FRAME: Duration = Duration::from_millis(16);

/// How many lines are drawn before others get their turn.
const LINES_AT_ONCE: usize = 4;

/// How many kilobytes are interpreted before it is seen whether it is time to draw.
const PARTS_AT_ONCE: usize = 4;

/// A screen and a keyboard.
pub struct Screen {
    state: SpinLock<State>,
    readable: WaitQueue,
    writable: WaitQueue,
    /// Tells `run` that there are bytes to show.
    work: Event,
    size: WindowSize,
    /// What Ctrl-Alt-Delete does.
    reboot: fn(),
}

struct State {
    incoming: VecDeque<u8>,
    outgoing: VecDeque<u8>,
    has_application_keys: bool,
}

impl Screen {
    /// Takes the frame buffer over. The future draws, and is to be spawned; the keyboard driver's [`KeySink`] is the screen
    /// itself. `reboot` is called for Ctrl-Alt-Delete, in the keyboard's task.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV`: not a frame buffer that can be drawn on.
    pub fn new(
        frame: FrameBuffer,
        timers: TimerHandle,
        reboot: fn(),
    ) -> Result<(Arc<Screen>, impl Future<Output = ()> + Send + 'static)> {
        let terminal = Box::new(terminal::Terminal::new(frame)?);
        let mut state = State { incoming: VecDeque::new(), outgoing: VecDeque::new(), has_application_keys: false };
        state.incoming.make_exact_room(INCOMING)?;
        state.outgoing.make_exact_room(OUTGOING)?;
        let number = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        let size = WindowSize {
            rows: number(terminal.rows()),
            columns: number(terminal.columns()),
            width: number(frame.width),
            height: number(frame.height),
        };
        let screen = Arc::new(Screen {
            state: SpinLock::ordered(rank::SCREEN, state),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
            work: Event::new(),
            size,
            reboot,
        });
        let run = screen.clone().run(terminal, timers);
        Ok((screen, run))
    }

    /// Its size, for the terminal above it.
    pub fn size(&self) -> WindowSize {
        self.size
    }

    async fn run(self: Arc<Self>, mut terminal: Box<terminal::Terminal>, timers: TimerHandle) {
        let mut next_drawing = timers.now();
        let mut is_drawn = true;
        loop {
            if is_drawn {
                self.work.wait().await;
            } else {
                let mut time = pin!(timers.sleep_until(next_drawing));
                poll_fn(|context| {
                    let is_time = time.as_mut().poll(context).is_ready();
                    if self.work.poll_wait(context).is_ready() || is_time { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            let mut parts = 0;
            while parts < PARTS_AT_ONCE && self.show_some(&mut terminal) {
                (is_drawn, parts) = (false, parts + 1);
                self.writable.wake_all();
            }
            if parts == PARTS_AT_ONCE {
                self.work.notify();
            }
            let now = timers.now();
            if !is_drawn && now >= next_drawing {
                while terminal.flush_some(LINES_AT_ONCE) {
                    executor::yield_now().await;
                }
                (is_drawn, next_drawing) = (true, now.saturating_add(FRAME));
            }
            executor::yield_now().await;
        }
    }

    /// Interprets a part of what waits; `false` if nothing does.
    fn show_some(&self, terminal: &mut terminal::Terminal) -> bool {
        let mut bytes = [0; 1024];
        let len = {
            let mut state = self.state.lock();
            let len = bytes.len().min(state.outgoing.len());
            for (place, byte) in bytes.iter_mut().zip(state.outgoing.drain(..len)) {
                *place = byte;
            }
            len
        };
        terminal.write(&bytes[..len], &mut |reply| self.type_bytes(reply));
        self.state.lock().has_application_keys = terminal.grid().has_application_keys;
        len > 0
    }

    /// Puts bytes into the input, all or none: half an escape sequence is worse than none.
    fn type_bytes(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if state.incoming.len() + bytes.len() <= INCOMING {
            state.incoming.extend(bytes);
            drop(state);
            self.readable.wake_all();
        }
    }
}

impl KeySink for Screen {
    fn key(&self, event: KeyEvent) {
        match event {
            KeyEvent::Character(character) => self.type_bytes(character.encode_utf8(&mut [0; 4]).as_bytes()),
            KeyEvent::Named(NamedKey::Reboot) => (self.reboot)(),
            KeyEvent::Named(key) => {
                let has_application_keys = self.state.lock().has_application_keys;
                self.type_bytes(sequence(key, has_application_keys).as_bytes());
            }
        }
    }
}

/// What a key sends, as terminfo's `linux` says.
fn sequence(key: NamedKey, is_application: bool) -> &'static str {
    match (key, is_application) {
        (NamedKey::Up, false) => "\x1b[A",
        (NamedKey::Down, false) => "\x1b[B",
        (NamedKey::Right, false) => "\x1b[C",
        (NamedKey::Left, false) => "\x1b[D",
        (NamedKey::Up, true) => "\x1bOA",
        (NamedKey::Down, true) => "\x1bOB",
        (NamedKey::Right, true) => "\x1bOC",
        (NamedKey::Left, true) => "\x1bOD",
        (NamedKey::Home, _) => "\x1b[1~",
        (NamedKey::Insert, _) => "\x1b[2~",
        (NamedKey::Delete, _) => "\x1b[3~",
        (NamedKey::End, _) => "\x1b[4~",
        (NamedKey::PageUp, _) => "\x1b[5~",
        (NamedKey::PageDown, _) => "\x1b[6~",
        (NamedKey::Function(number), _) => match number {
            1 => "\x1b[[A",
            2 => "\x1b[[B",
            3 => "\x1b[[C",
            4 => "\x1b[[D",
            5 => "\x1b[[E",
            6 => "\x1b[17~",
            7 => "\x1b[18~",
            8 => "\x1b[19~",
            9 => "\x1b[20~",
            10 => "\x1b[21~",
            11 => "\x1b[23~",
            12 => "\x1b[24~",
            _ => "",
        },
        (NamedKey::Reboot, _) => "",
    }
}

impl ByteChannel for Screen {
    fn try_read(&self, into: &mut [u8]) -> usize {
        let mut state = self.state.lock();
        let len = into.len().min(state.incoming.len());
        for (place, byte) in into.iter_mut().zip(state.incoming.drain(..len)) {
            *place = byte;
        }
        len
    }

    fn try_write(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let len = bytes.len().min(OUTGOING - state.outgoing.len());
        state.outgoing.extend(&bytes[..len]);
        drop(state);
        self.work.notify();
        len
    }

    fn can_read(&self) -> bool {
        !self.state.lock().incoming.is_empty()
    }

    fn can_write(&self) -> bool {
        self.state.lock().outgoing.len() < OUTGOING
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

static PANIC_SCREEN: OnceCell<terminal::PanicScreen> = OnceCell::uninit();

/// Prepares the screen for [`show_panic`]. A frame buffer that cannot be drawn on shows no panic.
pub fn prepare_panic(frame: FrameBuffer) {
    if let Ok(screen) = terminal::PanicScreen::new(frame) {
        let _ = PANIC_SCREEN.try_init_once(|| screen);
    }
}

/// Shows text in the middle of a panic: without locks or memory.
pub fn show_panic(text: &str) {
    if let Ok(screen) = PANIC_SCREEN.try_get() {
        screen.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::display::PixelFormat;
    use drivers::hw::Mmio;
    use executor::testing::Bench;

    fn frame() -> FrameBuffer {
        let format = PixelFormat { bytes: 4, red: (16, 8), green: (8, 8), blue: (0, 8) };
        let (width, height) = (20 * 7, 4 * 16);
        FrameBuffer { pixels: Mmio::leaked(width * height * 4), width, height, pitch: width * 4, format }
    }

    fn is_dark(frame: &FrameBuffer, row: usize) -> bool {
        let mut bytes = vec![0; 16 * frame.pitch];
        frame.pixels.read_bytes(row * 16 * frame.pitch, &mut bytes);
        bytes.iter().all(|byte| *byte == 0)
    }

    fn start() -> (Bench, Arc<Screen>, FrameBuffer) {
        let (bench, frame) = (Bench::new(), frame());
        let (screen, run) = Screen::new(frame, bench.executor().timers(), || ()).expect("a sound frame buffer");
        bench.spawn(run);
        bench.settle();
        (bench, screen, frame)
    }

    fn typed(screen: &Screen) -> Vec<u8> {
        let mut bytes = [0; 64];
        let len = screen.try_read(&mut bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_drawn() {
        let (bench, screen, frame) = start();
        assert_eq!(screen.try_write(b"\n\nhello"), 7);
        assert!(is_dark(&frame, 2));
        bench.advance(FRAME);
        assert!(!is_dark(&frame, 2));
        assert_eq!(screen.unsent(), 0);
        assert_eq!((screen.size().columns, screen.size().rows), (20, 4));
    }

    #[test]
    fn a_flood_of_output_is_drawn_once_a_frame_and_holds_the_writer_back() {
        let (bench, screen, frame) = start();
        bench.advance(FRAME);
        assert_eq!(screen.try_write(&[b'\n'; 2 * OUTGOING]), OUTGOING);
        assert!(!screen.can_write());
        bench.settle();
        assert!(screen.can_write());
        screen.try_write(b"x");
        bench.settle();
        screen.try_write(b"\r\x1b[Jy");
        bench.advance(FRAME);
        assert!(!is_dark(&frame, 3));
    }

    #[test]
    fn keys_send_what_terminfo_says() {
        let (bench, screen, _) = start();
        screen.key(KeyEvent::Character('é'));
        screen.key(KeyEvent::Named(NamedKey::Up));
        screen.key(KeyEvent::Named(NamedKey::Function(5)));
        assert_eq!(typed(&screen), "é\x1b[A\x1b[[E".as_bytes());
        screen.try_write(b"\x1b[?1h");
        bench.settle();
        screen.key(KeyEvent::Named(NamedKey::Up));
        assert_eq!(typed(&screen), b"\x1bOA");
    }

    #[test]
    fn the_terminals_answers_come_in_as_if_typed() {
        let (bench, screen, _) = start();
        screen.try_write(b"\x1b[2;3H\x1b[6n");
        bench.settle();
        assert_eq!(typed(&screen), b"\x1b[2;3R");
    }

    #[test]
    fn a_key_that_finds_no_room_is_dropped_whole() {
        let (_, screen, _) = start();
        for _ in 0..1000 {
            screen.key(KeyEvent::Named(NamedKey::Up));
        }
        let mut bytes = vec![0; 4096];
        let len = screen.try_read(&mut bytes);
        assert_eq!(len, INCOMING / 3 * 3);
        assert!(bytes[..len].chunks(3).all(|key| key == b"\x1b[A"));
    }
}
