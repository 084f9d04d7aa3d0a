//! The kernel's symbol table: from an address to the function it lies in.
//!
//! The table is not compiled in: it can only be made when all addresses are final. The linker leaves a header without entries in
//! the last segment of the image, and `xtask/src/symbols.rs` replaces it, after the link, by a full table. All numbers are
//! little-endian.
//!
//! ```text
//! 0   8  "ROUSESYM"
//! 8   4  length of the whole table in bytes
//! 12  4  number of entries n
//! 16  8n entries, sorted: address minus base (4), offset of the name in the table (4); base is 0xffff_ffff_8000_0000
//! ..     names: length (1), then so many bytes of UTF-8, already demangled
//! ```
//!
//! Next: `panic.rs`, which prints backtraces with it.

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"ROUSESYM";
/// Bytes before the first entry.
pub const HEADER_SIZE: usize = 16;
/// What the entries' addresses count from.
pub const BASE: u64 = 0xffff_ffff_8000_0000;
/// A table without entries, as the linker leaves it.
pub const EMPTY: [u8; HEADER_SIZE] = *b"ROUSESYM\x10\0\0\0\0\0\0\0";

/// A symbol table, read in place.
#[derive(Clone, Copy)]
pub struct Symbols<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// A function that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// How far behind its beginning the address lies.
    pub offset: u64,
}

/// The length that a table's header states; `None` if it is no table.
pub fn stated_length(header: &[u8]) -> Option<usize> {
    (header.get(..8)? == MAGIC).then_some(())?;
    Some(read_u32(header, 8)? as usize).filter(|&length| length >= HEADER_SIZE)
}

impl<'a> Symbols<'a> {
    /// The table in `bytes`; one that makes no sense counts as empty.
    pub fn new(bytes: &'a [u8]) -> Symbols<'a> {
        let count = stated_length(bytes).and_then(|_| read_u32(bytes, 12)).unwrap_or(0) as usize;
        let room = bytes.len().saturating_sub(HEADER_SIZE) / 8;
        Symbols { bytes, count: count.min(room) }
    }

    /// The function that begins at or before `address`, closest to it.
    pub fn find(&self, address: u64) -> Option<Symbol<'a>> {
        let wanted = u32::try_from(address.checked_sub(BASE)?).ok()?;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let (start, name) = self.entry(low.checked_sub(1)?)?;
        Some(Symbol { name: self.name(name as usize)?, offset: (wanted - start).into() })
    }

    fn entry(&self, index: usize) -> Option<(u32, u32)> {
        let at = HEADER_SIZE + 8 * index;
        Some((read_u32(self.bytes, at)?, read_u32(self.bytes, at + 4)?))
    }

    fn name(&self, at: usize) -> Option<&'a str> {
        let length = *self.bytes.get(at)? as usize;
        str::from_utf8(self.bytes.get(at + 1..at + 1 + length)?).ok()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u32, &str)]) -> Vec<u8> {
        let mut names = Vec::new();
        let mut bytes = EMPTY.to_vec();
        let first_name = HEADER_SIZE + 8 * entries.len();
        for (address, name) in entries {
            bytes.extend(address.to_le_bytes());
            bytes.extend(((first_name + names.len()) as u32).to_le_bytes());
            names.push(name.len() as u8);
            names.extend(name.bytes());
        }
        bytes.extend(names);
        let length = bytes.len() as u32;
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        bytes
    }

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let bytes = table(&[(0x10_0000, "first"), (0x10_0040, "second"), (0x20_0000, "third")]);
        let symbols = Symbols::new(&bytes);
        let name_at = |offset: u64| symbols.find(BASE + offset).map(|symbol| (symbol.name, symbol.offset));
        assert_eq!(name_at(0x10_0000), Some(("first", 0)));
        assert_eq!(name_at(0x10_003f), Some(("first", 0x3f)));
        assert_eq!(name_at(0x10_0040), Some(("second", 0)));
        assert_eq!(name_at(0x2f_ffff), Some(("third", 0xf_ffff)));
        assert_eq!(name_at(0xf_ffff), None);
        assert_eq!(symbols.find(0x1000), None);
    }

    #[test]
    fn the_table_as_linked_is_valid_and_empty() {
        assert_eq!(stated_length(&EMPTY), Some(HEADER_SIZE));
        assert_eq!(Symbols::new(&EMPTY).find(BASE + 5), None);
    }

    #[test]
    fn a_damaged_table_finds_nothing_and_does_not_panic() {
        let good = table(&[(0x1000, "a function")]);
        for cut in 0..good.len() {
            let _ = Symbols::new(&good[..cut]).find(BASE + 0x1000);
        }
        let mut wrong = good.clone();
        wrong[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Symbols::new(&wrong).find(BASE + 0x1000), None);
        wrong[0] = b'x';
        assert_eq!(Symbols::new(&wrong).find(BASE + 0x1000), None);
    }
}
