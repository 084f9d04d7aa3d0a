//! Numbers out of bytes from disk: little-endian, and checked, for no offset that comes from disk can be trusted.
//!
//! Next: `superblock.rs`.

use abi::{Errno, Result};

/// `len` bytes from `at` on.
///
/// # Errors
///
/// `EUCLEAN`: they do not lie inside.
pub(crate) fn part(bytes: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(Errno::EUCLEAN)
}

/// The bytes from `at` on.
///
/// # Errors
///
/// `EUCLEAN`: `at` lies outside.
pub(crate) fn from(bytes: &[u8], at: usize) -> Result<&[u8]> {
    bytes.get(at..).ok_or(Errno::EUCLEAN)
}

macro_rules! numbers {
    ($($name:ident $type:ty;)*) => {$(
        #[doc = concat!("The little-endian `", stringify!($type), "` at `at`; `EUCLEAN` if it does not lie inside.")]
        pub(crate) fn $name(bytes: &[u8], at: usize) -> Result<$type> {
            let mut number = [0; size_of::<$type>()];
            number.copy_from_slice(part(bytes, at, size_of::<$type>())?);
            Ok(<$type>::from_le_bytes(number))
        }
    )*};
}

numbers! {
    u8_at u8;
    u16_at u16;
    u32_at u32;
}

/// Two halves as one number, as the fields are stored that grew when 64 bits came.
pub(crate) fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
