//! From registers to typed arguments.
//!
//! A handler's parameters have types; each is made from its register here. Values that must be checked (flags, clock ids) are taken
//! as numbers and checked by their handler, which knows the right error.
//!
//! Next: `transfer.rs`.

use crate::mm::user::UserPtr;
use crate::process::fd_table::Fd;

/// Made from the register that holds a system call's argument.
pub trait FromRegister {
    /// Takes as many low bits as the type has, as the C prototype of the call does.
    fn from_register(register: usize) -> Self;
}

macro_rules! truncating {
    ($($type:ty)*) => {$(
        impl FromRegister for $type {
            fn from_register(register: usize) -> $type {
                register as $type
            }
        }
    )*};
}

truncating! { usize isize u64 i64 u32 i32 u16 }

impl FromRegister for Fd {
    fn from_register(register: usize) -> Fd {
        Fd(register as i32)
    }
}

impl<T> FromRegister for UserPtr<T> {
    fn from_register(register: usize) -> UserPtr<T> {
        UserPtr::new(register)
    }
}
