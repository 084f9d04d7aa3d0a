//! The settings of a terminal: what tcgetattr(3) gets and tcsetattr(3) sets.
//!
//! Inside the kernel there is one form, [`Termios`], with the layout of Linux's `struct termios2`. Programs use three: `termios`
//! (TCGETS, 36 bytes, speeds in `c_cflag`), `termios2` (TCGETS2, 44 bytes, speeds as numbers too) and the ancient `termio` (TCGETA, 18
//! bytes). The conversions are here.
//!
//! Next: `discipline.rs`, which obeys the settings.

use abi::general::{
    B38400, BOTHER, CBAUD, CREAD, CS8, ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, HUPCL, IBSHIFT, ICANON, ICRNL, IEXTEN,
    ISIG, IUTF8, IXON, NCC, NCCS, ONLCR, OPOST,
};

/// How many control characters there are.
pub const CONTROL_CHARACTERS: usize = NCCS as usize;

/// A control character with this value is switched off (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = 0;

/// Bytes of `struct termios`.
pub const TERMIOS_SIZE: usize = 36;
/// Bytes of `struct termios2`.
pub const TERMIOS2_SIZE: usize = 44;
/// Bytes of `struct termio`, its padding included.
pub const TERMIO_SIZE: usize = 18;

/// The settings of a terminal; termios(3) says what each bit does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Termios {
    /// Input modes.
    pub input: u32,
    /// Output modes.
    pub output: u32,
    /// Control modes.
    pub control: u32,
    /// Local modes.
    pub local: u32,
    /// The number of the line discipline; always 0, N_TTY.
    pub line: u8,
    /// The control characters, by `VINTR` and its like.
    pub characters: [u8; CONTROL_CHARACTERS],
    /// Bits per second inwards.
    pub input_speed: u32,
    /// Bits per second outwards.
    pub output_speed: u32,
}

impl Termios {
    /// What a terminal starts with, as on Linux (`stty sane`, roughly).
    pub const fn initial() -> Termios {
        Termios {
            input: ICRNL | IXON,
            output: OPOST | ONLCR,
            control: B38400 | CS8 | CREAD | HUPCL,
            local: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            // INTR ^C, QUIT ^\, ERASE DEL, KILL ^U, EOF ^D, TIME, MIN, SWTC, START ^Q, STOP ^S, SUSP ^Z, EOL, REPRINT ^R,
            // DISCARD ^O, WERASE ^W, LNEXT ^V, EOL2.
            characters: [3, 0x1c, 0x7f, 0x15, 4, 0, 1, 0, 0x11, 0x13, 0x1a, 0, 0x12, 0x0f, 0x17, 0x16, 0, 0, 0],
            input_speed: 38400,
            output_speed: 38400,
        }
    }

    /// The same with another speed, for lines that have one.
    #[must_use]
    pub const fn with_speed(mut self, bits_per_second: u32) -> Termios {
        self.control = (self.control & !CBAUD) | code_of(bits_per_second);
        self.input_speed = bits_per_second;
        self.output_speed = bits_per_second;
        self
    }

    /// The same for a line that speaks UTF-8: erasing takes whole characters.
    #[must_use]
    pub const fn with_utf8(mut self) -> Termios {
        self.input |= IUTF8;
        self
    }

    /// One control character, by its index (`VINTR`, …).
    pub fn character(&self, index: u32) -> u8 {
        self.characters.get(index as usize).copied().unwrap_or(DISABLED)
    }

    /// As `struct termios2`; its first 36 bytes are `struct termios`.
    pub fn to_bytes(&self) -> [u8; TERMIOS2_SIZE] {
        let mut bytes = [0; TERMIOS2_SIZE];
        for (place, word) in [(0, self.input), (4, self.output), (8, self.control), (12, self.local)] {
            bytes[place..place + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[16] = self.line;
        bytes[17..36].copy_from_slice(&self.characters);
        bytes[36..40].copy_from_slice(&self.input_speed.to_ne_bytes());
        bytes[40..44].copy_from_slice(&self.output_speed.to_ne_bytes());
        bytes
    }

    /// From `struct termios2`, or from `struct termios` if there are only 36 bytes: then the speeds come from `c_cflag`. Shorter
    /// input leaves `self` as it is.
    pub fn set_from_bytes(&mut self, bytes: &[u8]) {
        if bytes.len() < TERMIOS_SIZE {
            return;
        }
        let word =
            |place: usize| u32::from_ne_bytes([bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]]);
        (self.input, self.output, self.control, self.local) = (word(0), word(4), word(8), word(12));
        self.line = 0;
        self.characters.copy_from_slice(&bytes[17..36]);
        let numbers = (bytes.len() >= TERMIOS2_SIZE).then(|| (word(36), word(40)));
        self.settle_speeds(numbers);
    }

    /// As `struct termio`: the low halves of the modes and eight control characters.
    pub fn to_termio(&self) -> [u8; TERMIO_SIZE] {
        let mut bytes = [0; TERMIO_SIZE];
        for (place, word) in [(0, self.input), (2, self.output), (4, self.control), (6, self.local)] {
            bytes[place..place + 2].copy_from_slice(&(word as u16).to_ne_bytes());
        }
        bytes[8] = self.line;
        bytes[9..9 + NCC as usize].copy_from_slice(&self.characters[..NCC as usize]);
        bytes
    }

    /// From `struct termio`: what it cannot say stays.
    pub fn set_from_termio(&mut self, bytes: &[u8; TERMIO_SIZE]) {
        let merge = |old: u32, place: usize| {
            (old & 0xffff_0000) | u32::from(u16::from_ne_bytes([bytes[place], bytes[place + 1]]))
        };
        self.input = merge(self.input, 0);
        self.output = merge(self.output, 2);
        self.control = merge(self.control, 4);
        self.local = merge(self.local, 6);
        self.characters[..NCC as usize].copy_from_slice(&bytes[9..9 + NCC as usize]);
        self.settle_speeds(None);
    }

    /// Makes the numbers agree with the codes in `c_cflag`, or takes the numbers given where the code says so (`BOTHER`).
    fn settle_speeds(&mut self, numbers: Option<(u32, u32)>) {
        let output_code = self.control & CBAUD;
        if output_code != BOTHER {
            self.output_speed = speed_of(output_code);
        } else if let Some((_, output)) = numbers {
            self.output_speed = output;
        }
        // An input code of 0 means: as the output.
        match ((self.control >> IBSHIFT) & CBAUD, numbers) {
            (0, _) | (BOTHER, None) => self.input_speed = self.output_speed,
            (BOTHER, Some((input, _))) => self.input_speed = input,
            (code, _) => self.input_speed = speed_of(code),
        }
    }
}

/// Bits per second by code; the codes from 16 on carry bit 12 (`CBAUDEX`) instead of bit 4.
const SPEEDS: [u32; 31] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115_200, 230_400,
    460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000,
    4_000_000,
];

/// The speed that a code of `c_cflag` stands for.
fn speed_of(code: u32) -> u32 {
    let index = if code & BOTHER != 0 { (code & 0xf) + 15 } else { code & 0xf };
    SPEEDS.get(index as usize).copied().unwrap_or(0)
}

/// The code for a speed; `BOTHER` if there is none.
const fn code_of(speed: u32) -> u32 {
    let mut index = 0;
    while index < SPEEDS.len() {
        if SPEEDS[index] == speed {
            return if index < 16 { index as u32 } else { BOTHER | (index as u32 - 15) };
        }
        index += 1;
    }
    BOTHER
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::general::{B115200, B4000000};

    #[test]
    fn speeds_and_codes_agree_with_the_header() {
        assert_eq!((speed_of(B38400), speed_of(B115200), speed_of(B4000000)), (38400, 115_200, 4_000_000));
        assert_eq!(
            (code_of(38400), code_of(115_200), code_of(4_000_000), code_of(12345)),
            (B38400, B115200, B4000000, BOTHER)
        );
    }

    #[test]
    fn settings_survive_the_way_to_user_space_and_back() {
        let settings = Termios::initial().with_speed(115_200);
        let mut back = Termios::initial();
        back.set_from_bytes(&settings.to_bytes());
        assert_eq!(back, settings);
        let mut short = Termios::initial();
        short.set_from_bytes(&settings.to_bytes()[..TERMIOS_SIZE]);
        assert_eq!(short, settings);
        let mut ancient = settings.clone();
        ancient.set_from_termio(&settings.to_termio());
        // A termio has no bits above 16, and no control character above the eighth: the others stay.
        assert_eq!(ancient, settings);
    }

    #[test]
    fn a_speed_without_a_code_is_taken_as_a_number() {
        let mut bytes = Termios::initial().to_bytes();
        bytes[8..12].copy_from_slice(&(CS8 | BOTHER).to_ne_bytes());
        bytes[36..44].copy_from_slice(&[1, 0, 0, 0, 0x39, 0x30, 0, 0]);
        let mut settings = Termios::initial();
        settings.set_from_bytes(&bytes);
        assert_eq!((settings.input_speed, settings.output_speed), (12345, 12345));
    }
}
