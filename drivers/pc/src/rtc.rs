//! The battery-backed clock (MC146818 and its heirs): what time it is when the machine starts.
//!
//! Its registers change under the reader once a second. They are read twice, until both readings agree and no update was announced.
//! The clock is taken to run in UTC.
//!
//! Source: Motorola MC146818A data sheet; ACPI 6.4, 5.2.9 for the century register.
//!
//! Next: `drivers/terminal`. Exercise: why is it not enough to wait until "update in progress" is off?

use drivers::hw::Port;

/// Its two ports: which register, and its value.
const INDEX: u16 = 0;
const VALUE: u16 = 1;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
/// Where PCs keep the century, unless ACPI says otherwise.
pub const CENTURY: u8 = 0x32;

/// Status A: the registers are about to change, or changing.
const UPDATE_IN_PROGRESS: u8 = 0x80;
/// Status B: 24 hours instead of 12; binary instead of decimal digits.
const IS_24_HOURS: u8 = 0x02;
const IS_BINARY: u8 = 0x04;
/// Hours register in 12-hour mode: afternoon.
const AFTERNOON: u8 = 0x80;

/// How often it is tried; an update takes 2 ms, a reading about 10 µs.
const TRIES: u32 = 10_000;

/// Reads the time: seconds since 1970-01-01 00:00 UTC. `century` is the register with the century, if the machine has one. `None`:
/// there is no clock, or what it says is no time.
pub fn read(port: Port, century: Option<u8>) -> Option<i64> {
    let mut last = None;
    for _ in 0..TRIES {
        if register(port, STATUS_A) & UPDATE_IN_PROGRESS != 0 {
            core::hint::spin_loop();
            continue;
        }
        let reading = Reading::take(port, century);
        if register(port, STATUS_A) & UPDATE_IN_PROGRESS == 0 && last == Some(reading) {
            return reading.seconds();
        }
        last = Some(reading);
    }
    None
}

fn register(port: Port, number: u8) -> u8 {
    port.write8(INDEX, number);
    port.read8(VALUE)
}

/// The registers as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reading {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    century: Option<u8>,
    status_b: u8,
}

impl Reading {
    fn take(port: Port, century: Option<u8>) -> Reading {
        Reading {
            seconds: register(port, SECONDS),
            minutes: register(port, MINUTES),
            hours: register(port, HOURS),
            day: register(port, DAY),
            month: register(port, MONTH),
            year: register(port, YEAR),
            century: century.map(|century| register(port, century)),
            status_b: register(port, STATUS_B),
        }
    }

    fn seconds(&self) -> Option<i64> {
        let number = |value: u8| {
            let is_binary = self.status_b & IS_BINARY != 0;
            let digits = (value >> 4 <= 9 && value & 0xf <= 9).then_some((value >> 4) * 10 + (value & 0xf));
            if is_binary { Some(value) } else { digits }
        };
        let in_range = |value: Option<u8>, low: u8, high: u8| value.filter(|value| (low..=high).contains(value));
        let seconds = in_range(number(self.seconds), 0, 59)?;
        let minutes = in_range(number(self.minutes), 0, 59)?;
        let hours = if self.status_b & IS_24_HOURS != 0 {
            in_range(number(self.hours), 0, 23)?
        } else {
            // Twelve is the first hour of each half.
            let hours = in_range(number(self.hours & !AFTERNOON), 1, 12)? % 12;
            hours + if self.hours & AFTERNOON != 0 { 12 } else { 0 }
        };
        let year = i64::from(in_range(number(self.year), 0, 99)?);
        let year = match self.century.and_then(number) {
            Some(century @ 19..=29) => i64::from(century) * 100 + year,
            // No century: the clock is younger than 1970.
            _ if year < 70 => 2000 + year,
            _ => 1900 + year,
        };
        let month = in_range(number(self.month), 1, 12)?;
        let day = in_range(number(self.day), 1, days_in(year, month))?;
        let days = days_since_epoch(year, i64::from(month), i64::from(day));
        Some(((days * 24 + i64::from(hours)) * 60 + i64::from(minutes)) * 60 + i64::from(seconds))
    }
}

fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap_year(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. The year is taken to begin in March, so that the leap day is its last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March on have 31, 30, 31, 30, 31 days, twice and a bit: (153 m + 2) / 5 days lie before month m.
    let before_month = (153 * month + 2) / 5;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::hw::PortSpace;
    use std::sync::Mutex;

    /// A clock whose registers are set by hand; `updates` readings of status A say that an update is in progress.
    struct FakeClock(Mutex<State>);

    struct State {
        index: u8,
        registers: [u8; 64],
        updates: u32,
        /// Seconds tick at each reading of the seconds, so often.
        ticks: u32,
    }

    impl PortSpace for FakeClock {
        fn read8(&self, port: u16) -> u8 {
            assert_eq!(port, 0x71);
            let mut state = self.0.lock().expect("no test panics in here");
            let index = state.index;
            if index == STATUS_A && state.updates > 0 {
                state.updates -= 1;
                return UPDATE_IN_PROGRESS;
            }
            if index == SECONDS && state.ticks > 0 {
                state.ticks -= 1;
                state.registers[0] += 1;
            }
            state.registers[usize::from(index)]
        }
        fn write8(&self, port: u16, value: u8) {
            assert_eq!(port, 0x70);
            self.0.lock().expect("no test panics in here").index = value & 0x3f;
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

    /// (second, minute, hour, day, month, year, century, status B)
    fn clock(values: [u8; 8], updates: u32, ticks: u32) -> Port {
        let mut registers = [0; 64];
        let places = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY, STATUS_B];
        places.iter().zip(values).for_each(|(place, value)| registers[usize::from(*place)] = value);
        let state = State { index: 0, registers, updates, ticks };
        Port::new(Box::leak(Box::new(FakeClock(Mutex::new(state)))), 0x70, 2)
    }

    #[test]
    fn decimal_digits_and_binary_numbers_give_the_same_time() {
        // 2026-11-23 13:06:58 UTC, as date(1) converts it.
        let decimal = clock([0x58, 0x06, 0x13, 0x23, 0x11, 0x26, 0x20, IS_24_HOURS], 0, 0);
        assert_eq!(read(decimal, Some(CENTURY)), Some(1_795_439_218));
        let binary = clock([58, 6, 13, 23, 11, 26, 20, IS_24_HOURS | IS_BINARY], 3, 0);
        assert_eq!(read(binary, Some(CENTURY)), Some(1_795_439_218));
        let no_century = clock([58, 6, 13, 23, 11, 26, 0, IS_24_HOURS | IS_BINARY], 0, 0);
        assert_eq!(read(no_century, None), Some(1_795_439_218));
    }

    #[test]
    fn twelve_hour_clocks_begin_each_half_with_twelve() {
        let midnight = clock([0, 0, 0x12, 0x01, 0x01, 0x70, 0x19, 0], 0, 0);
        assert_eq!(read(midnight, Some(CENTURY)), Some(0));
        let noon = clock([0, 0, 0x12 | AFTERNOON, 0x01, 0x01, 0x70, 0x19, 0], 0, 0);
        assert_eq!(read(noon, Some(CENTURY)), Some(12 * 3600));
        let evening = clock([0, 0, 0x11 | AFTERNOON, 0x01, 0x01, 0x70, 0x19, 0], 0, 0);
        assert_eq!(read(evening, Some(CENTURY)), Some(23 * 3600));
    }

    #[test]
    fn leap_days_exist_in_leap_years_only() {
        let leap = clock([0, 0, 0, 0x29, 0x02, 0x00, 0x20, IS_24_HOURS], 0, 0);
        assert_eq!(read(leap, Some(CENTURY)), Some(951_782_400));
        let none = clock([0, 0, 0, 0x29, 0x02, 0x01, 0x20, IS_24_HOURS], 0, 0);
        assert_eq!(read(none, Some(CENTURY)), None);
    }

    #[test]
    fn a_reading_during_an_update_is_taken_again() {
        let ticking = clock([10, 0, 0, 1, 1, 70, 19, IS_24_HOURS | IS_BINARY], 2, 3);
        assert_eq!(read(ticking, Some(CENTURY)), Some(13));
    }

    #[test]
    fn a_clock_that_is_not_there_gives_no_time() {
        let nothing = clock([0xff; 8], u32::MAX, 0);
        assert_eq!(read(nothing, Some(CENTURY)), None);
        let garbage = clock([0xff; 8], 0, 0);
        assert_eq!(read(garbage, Some(CENTURY)), None);
    }
}
