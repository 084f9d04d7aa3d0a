//! Copies that wait for what is missing, and go on.
//!
//! Next: `buffer.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Obstacle, UserPtr};
use crate::mm::address_space::AddressSpace;
use crate::mm::page_fault::Fault;
use crate::mm::{MakeRoom, try_box};

impl AddressSpace {
    /// Waits for what stopped a copy.
    ///
    /// # Errors
    ///
    /// `EFAULT`: the program has no such memory. `ENOMEM`: there is none for it.
    ///
    /// # Cancel safety
    ///
    /// As [`AddressSpace::fault_in`].
    pub async fn resolve(&self, obstacle: Obstacle) -> Result<(), Errno> {
        match obstacle {
            Obstacle::Refused => Err(Errno::EFAULT),
            Obstacle::Turn => {
                executor::yield_now().await;
                Ok(())
            }
            // The copy has tried all that needs no waiting. What waits is in a box: it is rare, and every call that copies would
            // have to have room for it.
            Obstacle::Missing(address, access) => {
                Box::into_pin(try_box(self.fault_in(address, access))?).await.map_err(|fault| match fault {
                    Fault::OutOfMemory => Errno::ENOMEM,
                    _ => Errno::EFAULT,
                })
            }
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    ///
    /// # Cancel safety
    ///
    /// Reads change nothing.
    pub async fn read_user<T: FromBytes>(&self, from: UserPtr<T>) -> Result<T, Errno> {
        loop {
            let stopped = match self.active().read(from) {
                Ok(value) => return Ok(value),
                Err(stopped) => stopped,
            };
            self.resolve(stopped.why).await?;
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    ///
    /// # Cancel safety
    ///
    /// Part of the value may have been written.
    pub async fn write_user<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> Result<(), Errno> {
        self.write_user_bytes(to.address(), value.as_bytes()).await
    }

    /// Reads as many bytes as `into` holds.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub async fn read_user_bytes(&self, from: usize, into: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        loop {
            let stopped = match self.active().read_bytes(from.saturating_add(done), &mut into[done..]) {
                Ok(()) => return Ok(()),
                Err(stopped) => stopped,
            };
            done += stopped.done;
            self.resolve(stopped.why).await?;
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    ///
    /// # Cancel safety
    ///
    /// Part of the bytes may have been written.
    pub async fn write_user_bytes(&self, to: usize, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        loop {
            let stopped = match self.active().write_bytes(to.saturating_add(done), &bytes[done..]) {
                Ok(()) => return Ok(()),
                Err(stopped) => stopped,
            };
            done += stopped.done;
            self.resolve(stopped.why).await?;
        }
    }

    /// Sets bytes to zero.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub async fn zero_user(&self, to: usize, len: usize) -> Result<(), Errno> {
        let mut done = 0;
        loop {
            let stopped = match self.active().zero(to.saturating_add(done), len - done) {
                Ok(()) => return Ok(()),
                Err(stopped) => stopped,
            };
            done += stopped.done;
            self.resolve(stopped.why).await?;
        }
    }

    /// Reads an array of `count` values.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub async fn read_user_array<T>(&self, from: UserPtr<T>, count: usize) -> Result<Vec<T>, Errno>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        from.slice(count).checked()?;
        let mut values: Vec<T> = Vec::new();
        values.make_exact_room(count)?;
        values.extend(core::iter::repeat_with(T::new_zeroed).take(count));
        self.read_user_bytes(from.address(), values.as_mut_slice().as_mut_bytes()).await?;
        Ok(values)
    }

    /// Reads a string that a NUL ends, without the NUL, of at most `longest` bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`; `ENAMETOOLONG`: there is no NUL in time.
    pub async fn read_c_string(&self, from: UserPtr<u8>, longest: usize) -> Result<Vec<u8>, Errno> {
        let mut string = Vec::new();
        loop {
            let stopped = match self.active().read_c_string(from, longest, &mut string) {
                Ok(result) => return result.map(|()| string),
                Err(stopped) => stopped,
            };
            self.resolve(stopped.why).await?;
        }
    }
}
