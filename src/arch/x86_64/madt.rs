//! The ACPI tables that `acpi` leaves as bytes: the interrupt controllers of the MADT, and the sleep type in the DSDT.
//!
//! Pure parsing with checked lengths: a table that lies about its size ends the walk.
//!
//! Next: `acpi.rs`, which finds the tables.

/// What the MADT says about interrupt controllers (ACPI 6.5, section 5.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A CPU that can be used, by the number of its local APIC.
    Cpu(u32),
    /// An I/O APIC: where its registers are, and the first interrupt number it serves.
    IoApic {
        /// Physical address.
        address: u64,
        /// The first of its global interrupt numbers.
        first: u32,
    },
    /// An ISA interrupt that arrives elsewhere, or otherwise, than its number says.
    Override {
        /// The ISA number.
        isa: u8,
        /// The global one.
        global: u32,
        /// How it is signalled.
        signal: Signal,
    },
    /// The local APICs are not where the table's header says.
    LocalApicAddress(u64),
}

/// How a line asks for an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Signal {
    /// As long as the line is asserted, instead of when it becomes so.
    pub is_level: bool,
    /// Asserted means low.
    pub is_active_low: bool,
}

impl Signal {
    /// What the flags of an override mean on the ISA bus, whose own habit is edge, active high.
    const fn from_flags(flags: u16) -> Signal {
        Signal { is_active_low: flags & 3 == 3, is_level: flags >> 2 & 3 == 3 }
    }
}

/// The entries of a MADT, given all of its bytes.
pub fn entries(table: &[u8]) -> impl Iterator<Item = Entry> {
    const FIRST_ENTRY: usize = 44;
    let mut rest = table.get(FIRST_ENTRY..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        loop {
            let length = usize::from(*rest.get(1)?);
            if length < 2 {
                return None;
            }
            let entry = rest.get(..length)?;
            rest = &rest[length..];
            if let Some(known) = decode(entry) {
                return Some(known);
            }
        }
    })
}

fn decode(entry: &[u8]) -> Option<Entry> {
    // Bit 1 says that the CPU may be plugged in later: it is not there now.
    const ENABLED: u32 = 1;
    let can_run = |flags: u32| flags & ENABLED != 0;
    match entry[0] {
        0 => can_run(u32_at(entry, 4)?).then_some(Entry::Cpu((*entry.get(3)?).into())),
        1 => Some(Entry::IoApic { address: u32_at(entry, 4)?.into(), first: u32_at(entry, 8)? }),
        2 => Some(Entry::Override {
            isa: *entry.get(3)?,
            global: u32_at(entry, 4)?,
            signal: Signal::from_flags(u16::from_le_bytes([*entry.get(8)?, *entry.get(9)?])),
        }),
        5 => Some(Entry::LocalApicAddress(u64::from(u32_at(entry, 4)?) | u64::from(u32_at(entry, 8)?) << 32)),
        9 => can_run(u32_at(entry, 8)?).then_some(Entry::Cpu(u32_at(entry, 4)?)),
        _ => None,
    }
}

/// The two values that the object `_S5_` of a DSDT wants in the SLP_TYP fields of the PM1 control registers for power-off.
///
/// The name is followed by a package of small integers, in the AML encoding (ACPI 6.5, section 20.2): `12 length count
/// item item …`, where an item is `00`, `01` or `0a value`.
pub fn power_off_types(dsdt: &[u8]) -> Option<(u8, u8)> {
    let at = dsdt.windows(5).position(|window| window == b"_S5_\x12")? + 5;
    // The two top bits of the package length say how many bytes follow it.
    let length_bytes = usize::from(*dsdt.get(at)? >> 6) + 1;
    let count = *dsdt.get(at + length_bytes)?;
    let mut items = dsdt.get(at + length_bytes + 1..)?;
    let mut next = || match *items {
        [value @ (0 | 1), ref rest @ ..] => {
            items = rest;
            Some(value)
        }
        [0x0a, value, ref rest @ ..] => {
            items = rest;
            Some(value)
        }
        _ => None,
    };
    let first = next()?;
    Some((first, if count > 1 { next()? } else { first }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 44];
        entries.iter().for_each(|entry| bytes.extend(*entry));
        bytes
    }

    #[test]
    fn the_controllers_of_a_pc_are_read() {
        let table = table(&[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[0, 8, 1, 4, 0, 0, 0, 0],
            &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[4, 6, 0xff, 0, 0, 1],
            &[2, 10, 0, 9, 9, 0, 0, 0, 13, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        ]);
        let found: Vec<_> = entries(&table).collect();
        let level = Signal { is_level: true, is_active_low: false };
        assert_eq!(
            found,
            [
                Entry::Cpu(0),
                Entry::Cpu(0x12c),
                Entry::IoApic { address: 0xfec0_0000, first: 0 },
                Entry::Override { isa: 9, global: 9, signal: level },
                Entry::Override { isa: 0, global: 2, signal: Signal::default() },
            ]
        );
    }

    #[test]
    fn an_entry_that_lies_about_its_length_ends_the_walk() {
        assert_eq!(entries(&table(&[&[0, 0, 1, 1]])).count(), 0);
        assert_eq!(entries(&table(&[&[0, 200, 1, 1]])).count(), 0);
        assert_eq!(entries(&table(&[&[1, 4, 0, 0], &[0, 8, 0, 3, 1, 0, 0, 0]])).collect::<Vec<_>>(), [Entry::Cpu(3)]);
        assert_eq!(entries(&[]).count(), 0);
    }

    #[test]
    fn the_power_off_type_is_found_in_the_package() {
        assert_eq!(power_off_types(b"....\x08_S5_\x12\x06\x04\x00\x00\x00\x00..."), Some((0, 0)));
        assert_eq!(power_off_types(b"\x08_S5_\x12\x0a\x04\x0a\x05\x0a\x07\x00\x00"), Some((5, 7)));
        assert_eq!(power_off_types(b"\x08_S5_\x12\x06\x01\x0a\x05"), Some((5, 5)));
        assert_eq!(power_off_types(b"\x08_S5_\x12\x06\x02\x0a"), None);
        assert_eq!(power_off_types(b"no such object"), None);
    }
}
