//! A PS/2 keyboard behind the i8042 controller.
//!
//! The controller gives one byte at each interrupt; the crate `pc-keyboard` assembles them (scan code set 1, which the controller
//! translates to) and knows the US layout; this file adds what a terminal wants: Ctrl, Alt as an escape before the character,
//! Ctrl-Alt-Delete, and the control codes that Unix expects of Enter and Backspace.
//!
//! A machine without the controller (QEMU's microvm) reads as all ones; every wait here is bounded.
//!
//! Next: `rtc.rs`. Exercise: where would a second layout go?

use alloc::sync::Arc;
use core::future::Future;

use drivers::hw::Port;
use drivers::input::{KeyEvent, KeySink, NamedKey};
use drivers::irq::IrqLine;
use drivers::{Errno, Result};
use log::debug;
use pc_keyboard::layouts::Us104Key;
use pc_keyboard::{DecodedKey, HandleControl, KeyCode, KeyState, Modifiers, PS2Keyboard, ScancodeSet1};

/// The ports, as offsets from 0x60.
const DATA: u16 = 0;
const STATUS: u16 = 4;
const COMMAND: u16 = 4;

/// Status: there is a byte to read; the last byte written was not taken yet; the byte is from the mouse.
const OUTPUT_FULL: u8 = 0x01;
const INPUT_FULL: u8 = 0x02;
const FROM_MOUSE: u8 = 0x20;

/// Commands of the controller.
const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
/// A command of the keyboard: report keys.
const ENABLE_SCANNING: u8 = 0xf4;

/// Configuration: interrupts for keyboard and mouse; clocks off; translation to scan code set 1.
const KEYBOARD_INTERRUPT: u8 = 0x01;
const MOUSE_INTERRUPT: u8 = 0x02;
const KEYBOARD_OFF: u8 = 0x10;
const TRANSLATE: u8 = 0x40;

/// How often a status is read before the controller is given up: an access takes about a microsecond.
const PATIENCE: u32 = 50_000;
/// The most bytes taken in one go.
const BURST: usize = 64;

/// Sets controller and keyboard up; the future hands keys to `sink`. `port` is the five I/O ports from 0x60 on.
///
/// # Errors
///
/// `ENODEV`: there is no controller, or it does not answer.
pub fn start(port: Port, irq: IrqLine, sink: Arc<dyn KeySink>) -> Result<impl Future<Output = ()> + Send + 'static> {
    Controller { port }.set_up()?;
    Ok(run(port, irq, sink))
}

async fn run(port: Port, mut irq: IrqLine, sink: Arc<dyn KeySink>) {
    let mut decoder = Decoder::new();
    loop {
        for _ in 0..BURST {
            let status = port.read8(STATUS);
            if status & OUTPUT_FULL == 0 || status == 0xff {
                break;
            }
            let byte = port.read8(DATA);
            if status & FROM_MOUSE == 0 {
                decoder.byte(byte, &mut |event| sink.key(event));
            }
        }
        irq.wait().await;
    }
}

struct Controller {
    port: Port,
}

impl Controller {
    fn set_up(&self) -> Result<()> {
        if self.port.read8(STATUS) == 0xff {
            return Err(Errno::ENODEV);
        }
        self.command(DISABLE_KEYBOARD)?;
        self.command(DISABLE_MOUSE)?;
        self.drain();
        self.command(READ_CONFIGURATION)?;
        let old = self.read()?;
        self.command(WRITE_CONFIGURATION)?;
        self.write((old | KEYBOARD_INTERRUPT | TRANSLATE) & !(MOUSE_INTERRUPT | KEYBOARD_OFF))?;
        self.command(ENABLE_KEYBOARD)?;
        // Most keyboards report keys anyway; one that does not answer may be plugged in later.
        if self.write(ENABLE_SCANNING).and_then(|()| self.read()).is_err() {
            debug!("no answer from the keyboard");
        }
        Ok(())
    }

    /// Throws away what waits to be read.
    fn drain(&self) {
        for _ in 0..BURST {
            if self.port.read8(STATUS) & OUTPUT_FULL == 0 {
                return;
            }
            self.port.read8(DATA);
        }
    }

    fn command(&self, command: u8) -> Result<()> {
        self.wait(|status| status & INPUT_FULL == 0)?;
        self.port.write8(COMMAND, command);
        Ok(())
    }

    fn write(&self, byte: u8) -> Result<()> {
        self.wait(|status| status & INPUT_FULL == 0)?;
        self.port.write8(DATA, byte);
        Ok(())
    }

    fn read(&self) -> Result<u8> {
        self.wait(|status| status & OUTPUT_FULL != 0)?;
        Ok(self.port.read8(DATA))
    }

    fn wait(&self, is_ready: impl Fn(u8) -> bool) -> Result<()> {
        for _ in 0..PATIENCE {
            if is_ready(self.port.read8(STATUS)) {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(Errno::ENODEV)
    }
}

/// Turns the keyboard's bytes into keys.
struct Decoder {
    keyboard: PS2Keyboard<Us104Key, ScancodeSet1>,
}

impl Decoder {
    fn new() -> Decoder {
        Decoder { keyboard: PS2Keyboard::new(ScancodeSet1::new(), Us104Key, HandleControl::Ignore) }
    }

    fn byte(&mut self, byte: u8, emit: &mut dyn FnMut(KeyEvent)) {
        let event = match self.keyboard.add_byte(byte) {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                debug!("the keyboard sent {byte:#04x}: {error:?}");
                return self.keyboard.clear();
            }
        };
        let is_delete = event.code == KeyCode::Delete || event.code == KeyCode::NumpadPeriod;
        let (code, is_down) = (event.code, event.state == KeyState::Down);
        let decoded = self.keyboard.process_keyevent(event);
        let modifiers = self.keyboard.get_modifiers();
        let has_alt = modifiers.lalt || modifiers.ralt;
        if is_down && is_delete && modifiers.is_ctrl() && has_alt {
            return emit(KeyEvent::Named(NamedKey::Reboot));
        }
        let Some(key) = decoded.and_then(|decoded| meaning(code, decoded, modifiers)) else { return };
        if has_alt {
            emit(KeyEvent::Character('\x1b'));
        }
        match key {
            Key::Character(character) => emit(KeyEvent::Character(character)),
            Key::Named(name) => emit(KeyEvent::Named(name)),
            Key::BackTab => "\x1b[Z".chars().for_each(|character| emit(KeyEvent::Character(character))),
        }
    }
}

enum Key {
    Character(char),
    Named(NamedKey),
    BackTab,
}

/// What a key stands for under the modifiers; `None` for the modifiers themselves and keys without a meaning here.
fn meaning(code: KeyCode, decoded: DecodedKey, modifiers: &Modifiers) -> Option<Key> {
    let key = match (code, decoded) {
        (KeyCode::Backspace, _) => Key::Character(if modifiers.is_ctrl() { '\x08' } else { '\x7f' }),
        (KeyCode::Return | KeyCode::NumpadEnter, _) => Key::Character('\r'),
        (KeyCode::Tab, _) if modifiers.is_shifted() => Key::BackTab,
        (KeyCode::Delete, _) | (KeyCode::NumpadPeriod, DecodedKey::Unicode('\x7f')) => Key::Named(NamedKey::Delete),
        (_, DecodedKey::Unicode(character)) if modifiers.is_ctrl() => Key::Character(control(character)),
        (_, DecodedKey::Unicode(character)) => Key::Character(character),
        (_, DecodedKey::RawKey(code)) => Key::Named(named(code)?),
    };
    Some(key)
}

/// What Ctrl makes of a character, as on a DEC VT220.
fn control(character: char) -> char {
    match character {
        'a'..='z' | '@'..='_' => char::from(character as u8 & 0x1f),
        ' ' | '2' | '`' => '\0',
        '3'..='7' => char::from(character as u8 - b'3' + 0x1b),
        '8' | '?' => '\x7f',
        '/' => '\x1f',
        other => other,
    }
}

fn named(code: KeyCode) -> Option<NamedKey> {
    let name = match code {
        KeyCode::ArrowUp => NamedKey::Up,
        KeyCode::ArrowDown => NamedKey::Down,
        KeyCode::ArrowLeft => NamedKey::Left,
        KeyCode::ArrowRight => NamedKey::Right,
        KeyCode::Home => NamedKey::Home,
        KeyCode::End => NamedKey::End,
        KeyCode::PageUp => NamedKey::PageUp,
        KeyCode::PageDown => NamedKey::PageDown,
        KeyCode::Insert => NamedKey::Insert,
        KeyCode::F1 => NamedKey::Function(1),
        KeyCode::F2 => NamedKey::Function(2),
        KeyCode::F3 => NamedKey::Function(3),
        KeyCode::F4 => NamedKey::Function(4),
        KeyCode::F5 => NamedKey::Function(5),
        KeyCode::F6 => NamedKey::Function(6),
        KeyCode::F7 => NamedKey::Function(7),
        KeyCode::F8 => NamedKey::Function(8),
        KeyCode::F9 => NamedKey::Function(9),
        KeyCode::F10 => NamedKey::Function(10),
        KeyCode::F11 => NamedKey::Function(11),
        KeyCode::F12 => NamedKey::Function(12),
        _ => return None,
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::hw::PortSpace;
    use drivers::irq::IrqControl;
    use executor::sync::Event;
    use executor::testing::Bench;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    const CTRL: u8 = 0x1d;
    const SHIFT: u8 = 0x2a;
    const ALT: u8 = 0x38;

    fn keys(bytes: &[u8]) -> Vec<KeyEvent> {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        bytes.iter().for_each(|byte| decoder.byte(*byte, &mut |event| events.push(event)));
        events
    }

    fn text(bytes: &[u8]) -> String {
        let character = |event| match event {
            KeyEvent::Character(character) => character,
            KeyEvent::Named(name) => panic!("{name:?} is no character"),
        };
        keys(bytes).into_iter().map(character).collect()
    }

    #[test]
    fn letters_follow_shift_and_caps_lock() {
        assert_eq!(text(&[0x1e, 0x9e]), "a");
        assert_eq!(text(&[SHIFT, 0x1e, 0x9e, SHIFT | 0x80, 0x1e]), "Aa");
        assert_eq!(text(&[0x3a, 0xba, 0x1e, 0x02]), "A1");
    }

    #[test]
    fn control_makes_control_characters() {
        // Ctrl-C, Ctrl-[, Ctrl-\, Ctrl-Space.
        assert_eq!(text(&[CTRL, 0x2e, 0x1a, 0x2b, 0x39]), "\x03\x1b\x1c\0");
        assert_eq!(text(&[CTRL, 0x2e, CTRL | 0x80, 0x2e]), "\x03c");
    }

    #[test]
    fn enter_backspace_and_alt_give_what_unix_expects() {
        assert_eq!(text(&[0x1c, 0x0e, 0x0f]), "\r\x7f\t");
        assert_eq!(text(&[ALT, 0x30]), "\x1bb");
        assert_eq!(text(&[SHIFT, 0x0f]), "\x1b[Z");
    }

    #[test]
    fn keys_without_a_character_have_names() {
        let named = |name| KeyEvent::Named(name);
        let expected =
            [NamedKey::Up, NamedKey::Delete, NamedKey::PageDown, NamedKey::Function(1), NamedKey::Function(12)];
        assert_eq!(keys(&[0xe0, 0x48, 0xe0, 0x53, 0xe0, 0x51, 0x3b, 0x58]), expected.map(named));
    }

    #[test]
    fn control_alt_delete_asks_for_a_reboot_and_types_nothing() {
        assert_eq!(keys(&[CTRL, ALT, 0xe0, 0x53]), [KeyEvent::Named(NamedKey::Reboot)]);
    }

    #[test]
    fn senseless_bytes_are_passed_over() {
        assert_eq!(text(&[0xe0, 0xff, 0x7f, 0xe1, 0x00, 0x1e, 0x9e, 0x1e]).chars().last(), Some('a'));
    }

    /// A controller: answers the commands that matter, and holds one byte at a time.
    struct FakeController {
        state: Mutex<State>,
        interrupt: Event,
    }

    struct State {
        is_absent: bool,
        output: VecDeque<u8>,
        configuration: u8,
        next_is_configuration: bool,
    }

    impl IrqControl for FakeController {
        fn unmask(&self, _line: u32) {}
        fn mask(&self, _line: u32) {}
    }

    impl PortSpace for FakeController {
        fn read8(&self, port: u16) -> u8 {
            let mut state = self.state.lock().expect("no test panics in here");
            match port {
                _ if state.is_absent => 0xff,
                0x64 => u8::from(!state.output.is_empty()),
                _ => state.output.pop_front().unwrap_or(0),
            }
        }

        fn write8(&self, port: u16, value: u8) {
            let mut state = self.state.lock().expect("no test panics in here");
            match (port, value) {
                (0x64, READ_CONFIGURATION) => {
                    let configuration = state.configuration;
                    state.output.push_back(configuration);
                }
                (0x64, WRITE_CONFIGURATION) => state.next_is_configuration = true,
                (0x60, _) if std::mem::take(&mut state.next_is_configuration) => state.configuration = value,
                (0x60, ENABLE_SCANNING) => state.output.push_back(0xfa),
                _ => {}
            }
        }

        fn read16(&self, _port: u16) -> u16 {
            unreachable!("bytes only")
        }
        fn write16(&self, _port: u16, _value: u16) {
            unreachable!("bytes only")
        }
        fn read32(&self, _port: u16) -> u32 {
            unreachable!("bytes only")
        }
        fn write32(&self, _port: u16, _value: u32) {
            unreachable!("bytes only")
        }
    }

    #[derive(Default)]
    struct Typed(Mutex<Vec<KeyEvent>>);

    impl KeySink for Typed {
        fn key(&self, event: KeyEvent) {
            self.0.lock().expect("no test panics in here").push(event);
        }
    }

    fn controller(is_absent: bool) -> &'static FakeController {
        let state =
            State { is_absent, output: VecDeque::from([1, 2, 3]), configuration: 0x13, next_is_configuration: false };
        Box::leak(Box::new(FakeController { state: Mutex::new(state), interrupt: Event::new() }))
    }

    #[test]
    fn the_controller_is_set_up_and_keys_arrive_by_interrupt() {
        let fake = controller(false);
        let typed = Arc::new(Typed::default());
        let irq = IrqLine::new(1, &fake.interrupt, fake);
        let run = start(Port::new(fake, 0x60, 5), irq, typed.clone()).expect("the controller answers");
        assert_eq!(fake.state.lock().expect("not poisoned").configuration, KEYBOARD_INTERRUPT | TRANSLATE);
        let bench = Bench::new();
        bench.spawn(run);
        bench.settle();
        fake.state.lock().expect("not poisoned").output.extend([0x1e, 0x9e]);
        fake.interrupt.notify();
        bench.settle();
        assert_eq!(*typed.0.lock().expect("not poisoned"), [KeyEvent::Character('a')]);
    }

    #[test]
    fn a_machine_without_the_controller_is_told_apart() {
        let fake = controller(true);
        let irq = IrqLine::new(1, &fake.interrupt, fake);
        let result = start(Port::new(fake, 0x60, 5), irq, Arc::new(Typed::default()));
        assert_eq!(result.err(), Some(Errno::ENODEV));
    }
}
