//! The vDSO: clock functions that a program calls without entering the kernel (vdso(7)).

use crate::mm::AddressSpace;
use abi::Result;

/// Maps it; returns its address, 0 if there is none.
///
/// # Errors
///
/// `ENOMEM`.
pub fn map(_space: &AddressSpace) -> Result<usize> {
    Ok(0)
}

/// The time of day was set: so many nanoseconds from 1970 to boot.
pub fn wall_clock_changed(_offset: u64) {}
