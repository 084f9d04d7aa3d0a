//! The two checksums of the format: CRC-32C for everything since `metadata_csum`, CRC-16 for group descriptors before it.
//!
//! Both are used "raw": the register is handed on as the next seed, without the final inversion of the published CRC-32C.
//!
//! Next: `superblock.rs`.

/// The seed from which a chain of [`crc32c`] starts.
pub(crate) const START: u32 = !0;

/// `TABLES[0]` steps one byte; `TABLES[n]` steps a byte that n more bytes follow, so that eight bytes take one step.
static TABLES: [[u32; 256]; 8] = tables();

#[allow(clippy::large_stack_frames, reason = "runs in the compiler only")]
const fn tables() -> [[u32; 256]; 8] {
    /// The Castagnoli polynomial, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { register >> 1 ^ POLYNOMIAL } else { register >> 1 };
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut level = 1;
    while level < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[level - 1][byte];
            tables[level][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        level += 1;
    }
    tables
}

/// Takes `bytes` into the register.
pub(crate) fn crc32c(register: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let register = eights.iter().fold(register, |register, eight| {
        let mixed = u64::from_le_bytes(*eight) ^ u64::from(register);
        (0..8).fold(0, |sum, at| sum ^ TABLES[7 - at][(mixed >> (at * 8) & 0xff) as usize])
    });
    rest.iter()
        .fold(register, |register, byte| register >> 8 ^ TABLES[0][((register ^ u32::from(*byte)) & 0xff) as usize])
}

/// Takes `bytes` into the register of the CRC-16 (polynomial 0x8005, bits reversed).
pub(crate) fn crc16(register: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(register, |register, byte| {
        (0..8).fold(
            register ^ u16::from(*byte),
            |register, _| {
                if register & 1 == 1 { register >> 1 ^ 0xa001 } else { register >> 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(!crc32c(START, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(crc32c(START, b"1234"), b"56789"), 0xe306_9283, "it can be taken in parts");
    }

    #[test]
    fn crc16_gives_the_published_check_value() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc16(0xffff, b"123456789"), 0x4b37);
    }
}
