//! The battery clock: seconds since 1970, as the CMOS of a PC keeps them.
//!
//! Registers as in the data sheet of the MC146818, plus the century where ACPI says which register holds it. The clock is read until two
//! readings agree, so that no carry is seen half-way.
//!
//! Next: `clock.rs`.

/// The registers of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct Reading {
    pub second: u8,
    pub minute: u8,
    pub hour: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    /// 0: there is no such register.
    pub century: u8,
    /// Register B: whether numbers are binary, and hours count to 24.
    pub mode: u8,
}

impl Reading {
    /// Seconds since 1970-01-01, if this is a date.
    pub fn seconds(&self) -> Option<u64> {
        const BINARY: u8 = 4;
        const HOURS_24: u8 = 2;
        const AFTERNOON: u8 = 0x80;
        let number = |value: u8| {
            if self.mode & BINARY != 0 {
                return Some(u64::from(value));
            }
            (value & 0xf < 10 && value >> 4 < 10).then_some(u64::from(value >> 4) * 10 + u64::from(value & 0xf))
        };
        let mut hour = number(self.hour & !AFTERNOON)?;
        if self.mode & HOURS_24 == 0 {
            hour = hour % 12 + if self.hour & AFTERNOON != 0 { 12 } else { 0 };
        }
        let century = match number(self.century)? {
            century @ 19..=25 => century,
            _ => 20,
        };
        let (second, minute) = (number(self.second)?, number(self.minute)?);
        let (year, month, day) = (century * 100 + number(self.year)?, number(self.month)?, number(self.day)?);
        if second > 60
            || minute > 59
            || hour > 23
            || !(1..=12).contains(&month)
            || !(1..=31).contains(&day)
            || year < 1970
        {
            return None;
        }
        Some(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year is taken to begin in March, so that the leap day is its last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    const MARCH_YEAR_DAYS_TO_1970: u64 = 719_468;
    days - MARCH_YEAR_DAYS_TO_1970
}

/// Reads the clock: seconds since 1970, or `None` where there is no clock. `century_register` is what ACPI says, 0 for none.
#[cfg(target_os = "none")]
pub fn read(century_register: u8) -> Option<u64> {
    use super::instructions::{inb, outb};
    let register = |number: u8| {
        // Bit 7 set keeps NMIs out while the index is in use.
        outb(0x70, number | 0x80);
        inb(0x71)
    };
    let reading = || {
        const UPDATING: u8 = 0x80;
        for _ in 0..10_000 {
            if register(10) & UPDATING == 0 {
                break;
            }
            core::hint::spin_loop();
        }
        Reading {
            second: register(0),
            minute: register(2),
            hour: register(4),
            day: register(7),
            month: register(8),
            year: register(9),
            century: if century_register == 0 { 0 } else { register(century_register) },
            mode: register(11),
        }
    };
    let mut last = reading();
    for _ in 0..5 {
        let next = reading();
        if next == last {
            break;
        }
        last = next;
    }
    // Let NMIs in again.
    outb(0x70, 0);
    last.seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_in_decimal_digits_is_a_time() {
        let reading = Reading {
            second: 0x59,
            minute: 0x30,
            hour: 0x23,
            day: 0x29,
            month: 0x02,
            year: 0x24,
            century: 0x20,
            mode: 2,
        };
        assert_eq!(reading.seconds(), Some(1_709_249_459));
    }

    #[test]
    fn a_binary_reading_of_a_twelve_hour_clock_is_a_time() {
        let noon = Reading { second: 0, minute: 0, hour: 12 | 0x80, day: 1, month: 1, year: 70, century: 19, mode: 4 };
        assert_eq!(noon.seconds(), Some(12 * 3600));
        assert_eq!(Reading { hour: 12, ..noon }.seconds(), Some(0));
        assert_eq!(Reading { hour: 11 | 0x80, ..noon }.seconds(), Some(23 * 3600));
    }

    #[test]
    fn a_missing_clock_is_no_time() {
        let all_ones =
            Reading { second: 255, minute: 255, hour: 255, day: 255, month: 255, year: 255, century: 255, mode: 255 };
        assert_eq!(all_ones.seconds(), None);
        let zeros = Reading { second: 0, minute: 0, hour: 0, day: 0, month: 0, year: 0, century: 0, mode: 0 };
        assert_eq!(zeros.seconds(), None);
    }

    #[test]
    fn days_agree_with_the_calendar() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(1970, 3, 1), 59);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2026, 11, 23), 20_780);
    }
}
