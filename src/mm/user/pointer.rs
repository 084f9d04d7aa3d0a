//! What a program claims: an address, or a stretch of bytes. Nothing here looks at the memory behind it.
//!
//! Next: `waiting.rs`.

use core::fmt;
use core::marker::PhantomData;

use abi::Errno;

use crate::arch::paging::USER_END;

/// An address at which a program claims to have a `T`.
#[repr(transparent)]
pub struct UserPtr<T> {
    address: usize,
    what: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> UserPtr<T> {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> PartialEq for UserPtr<T> {
    fn eq(&self, other: &UserPtr<T>) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPtr({:#x})", self.address)
    }
}

impl<T> UserPtr<T> {
    /// What a register or a structure says.
    pub const fn new(address: usize) -> UserPtr<T> {
        UserPtr { address, what: PhantomData }
    }

    /// The address.
    pub const fn address(self) -> usize {
        self.address
    }

    /// Whether it is null, which many calls take for "not wanted".
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// `None` for null.
    pub fn non_null(self) -> Option<UserPtr<T>> {
        (!self.is_null()).then_some(self)
    }

    /// The element `index` of an array that begins here. Beyond the address space it is an address that always faults.
    pub const fn element(self, index: usize) -> UserPtr<T> {
        let address = match index.checked_mul(size_of::<T>()) {
            Some(offset) => self.address.saturating_add(offset),
            None => usize::MAX,
        };
        UserPtr::new(address)
    }

    /// The same address as that of something else.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.address)
    }

    /// The bytes of `count` elements from here on.
    pub const fn slice(self, count: usize) -> UserSlice {
        UserSlice { address: self.address, len: count.saturating_mul(size_of::<T>()) }
    }
}

/// A stretch of bytes that a program claims to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserSlice {
    /// Its first byte.
    pub address: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl UserSlice {
    /// What two registers say.
    pub const fn new(address: usize, len: usize) -> UserSlice {
        UserSlice { address, len }
    }

    /// Checks that it lies in the user half, as Linux does before it begins with a buffer.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn checked(self) -> Result<UserSlice, Errno> {
        match self.address.checked_add(self.len) {
            Some(end) if end <= USER_END => Ok(self),
            _ => Err(Errno::EFAULT),
        }
    }

    pub(super) fn advance(&mut self, by: usize) {
        self.address += by;
        self.len -= by;
    }
}
