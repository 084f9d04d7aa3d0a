//! The only door to user memory.
//!
//! A user pointer is an allegation: [`UserPtr`] and [`UserSlice`] say what a program claims, and nothing about whether it is so. It
//! shows when one copies, and copying needs an [`ActiveSpace`], which sees to it that this CPU's page table is that program's.
//! It is not `Send`, so it cannot be kept across an await, after which the CPU may have turned to another program.
//!
//! A copy runs until it is done or meets a page that is not there. What can be had without waiting is had at once
//! (`page_fault.rs`); otherwise the copy stops and says how far it came and what is missing, the caller awaits that, and goes on:
//!
//! ```text
//!   copy ──► all done
//!     ▲  └─► fault at address ──► try_fault ──► Ok: go on copying
//!     │                             ├─► refused: EFAULT
//!     │                             └─► must wait: Stopped { done, address }
//!     └──────── AddressSpace::fault_in(address).await ◄───────┘
//! ```
//!
//! The `async` methods of [`AddressSpace`] (`waiting.rs`) do that loop; for a [`UserBuffer`] it is in `src/syscall/transfer.rs`. No slice
//! of user memory is ever made: it may change under way, so every byte is copied, once.
//!
//! Next: `pointer.rs`, then `src/syscall/args.rs`.

mod buffer;
#[deny(unsafe_code)]
mod pointer;
#[cfg(test)]
mod tests;
#[deny(unsafe_code)]
mod waiting;

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use abi::Errno;
use drivers::hw::PAGE_SIZE;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::address_space::AddressSpace;
use super::page_fault::{Access, Fault, Stop};
use crate::arch::paging::USER_END;
use crate::arch::{VectorState, copy, cpus_online};
use crate::mm::MakeRoom;

pub use buffer::{PORTION, UserBuffer};
pub use pointer::{UserPtr, UserSlice};

/// A copy has stopped before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// How many bytes were copied.
    pub done: usize,
    /// What is in the way.
    pub why: Obstacle,
}

/// What is in the way of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// The program has no such memory: `EFAULT`.
    Refused,
    /// The page at this address must be waited for: [`AddressSpace::fault_in`].
    Missing(usize, Access),
    /// So much is moved that others are to have their turn.
    Turn,
}

/// The address space that user addresses mean on this CPU now. Taken per poll by [`AddressSpace::active`].
///
/// Each copy makes sure that it is: within one poll, a system call may look into another program's memory.
#[derive(Clone, Copy)]
pub struct ActiveSpace<'a> {
    space: &'a AddressSpace,
    stays_here: PhantomData<*const ()>,
}

impl AddressSpace {
    /// User memory as this address space has it.
    #[inline]
    pub fn active(&self) -> ActiveSpace<'_> {
        ActiveSpace { space: self, stays_here: PhantomData }
    }
}

impl ActiveSpace<'_> {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline(always)] // a call would cost as much as the copy
    pub fn read<T: FromBytes>(&self, from: UserPtr<T>) -> Result<T, Stopped> {
        let mut value = MaybeUninit::<T>::uninit();
        let (into, len) = (value.as_mut_ptr().cast(), size_of::<T>());
        self.space.activate();
        // SAFETY: `value` has room for the size of a T.
        if !unsafe { copy::value_from_user(into, from.address(), len) } {
            // SAFETY: as above.
            unsafe { self.copy_in_anew(into, from.address(), len)? };
        }
        // SAFETY: every byte was written, and any bytes are a T (FromBytes).
        Ok(unsafe { value.assume_init() })
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline(always)] // a call would cost as much as the copy
    pub fn write<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> Result<(), Stopped> {
        self.space.activate();
        // SAFETY: `value` can be read for the size of a T.
        let is_written = unsafe { copy::value_to_user(to.address(), value.as_bytes().as_ptr(), size_of::<T>()) };
        if is_written { Ok(()) } else { self.write_anew(to.address(), value.as_bytes()) }
    }

    /// Reads a value that could not be read as a whole: byte by byte, and with what must be brought in.
    ///
    /// # Safety
    ///
    /// `into` is good for writing `len` bytes.
    #[cold]
    unsafe fn copy_in_anew(&self, into: *mut u8, from: usize, len: usize) -> Result<(), Stopped> {
        // SAFETY: as the caller vouches.
        unsafe { self.copy_in(into, from, len) }
    }

    /// The same for writing.
    #[cold]
    fn write_anew(&self, to: usize, bytes: &[u8]) -> Result<(), Stopped> {
        self.write_bytes(to, bytes)
    }

    /// Reads as many bytes as `into` holds.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline]
    pub fn read_bytes(&self, from: usize, into: &mut [u8]) -> Result<(), Stopped> {
        // SAFETY: `into` has room for its length.
        unsafe { self.copy_in(into.as_mut_ptr(), from, into.len()) }
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline]
    pub fn write_bytes(&self, to: usize, bytes: &[u8]) -> Result<(), Stopped> {
        // SAFETY: `bytes` can be read for its length.
        unsafe { self.copy_out(to, bytes.as_ptr(), bytes.len()) }
    }

    /// Makes sure that these bytes can be written now, and writes none: another thread may be at them.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn check_writable(&self, to: usize, len: usize) -> Result<(), Stopped> {
        let mut done = 0;
        while done < len {
            let at = to.saturating_add(done);
            self.touch(at, Access::Write).map_err(|why| Stopped { done, why })?;
            done += PAGE_SIZE - at % PAGE_SIZE;
        }
        Ok(())
    }

    /// Brings in the page at `at`, if that needs no waiting.
    fn touch(&self, at: usize, access: Access) -> Result<(), Obstacle> {
        match self.space.try_fault(at, access) {
            Ok(()) => Ok(()),
            Err(Stop::Fault(Fault::OutOfMemory) | Stop::Page(..) | Stop::Memory | Stop::OtherCpus) => {
                Err(Obstacle::Missing(at, access))
            }
            Err(Stop::Fault(_)) => Err(Obstacle::Refused),
        }
    }

    /// Sets bytes to zero.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn zero(&self, to: usize, len: usize) -> Result<(), Stopped> {
        self.repeat(to, len, Access::Write, move |done| copy::zero_user(to + done, len - done))
    }

    /// Writes vector registers to user memory as a signal frame holds them, if this CPU holds them and the memory is there; says whether.
    pub fn store_vector(&self, to: usize, vector: &VectorState) -> bool {
        self.space.activate();
        vector.store_in_frame(to)
    }

    /// Takes vector registers back from a signal frame, if this CPU holds them and the frame is there and as the kernel left it; says
    /// whether.
    pub fn load_vector(&self, from: usize, vector: &mut VectorState) -> bool {
        self.space.activate();
        vector.load_from_frame(from)
    }

    /// Appends a string that a NUL ends, without the NUL, to `string`, which holds what earlier attempts have read of it.
    ///
    /// The inner result is final: `ENAMETOOLONG` if there is no NUL among the first `longest` bytes and the one behind them,
    /// `ENOMEM` if there is no memory for it.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: go on with the same `string` when the obstacle is gone.
    pub fn read_c_string(
        &self,
        from: UserPtr<u8>,
        longest: usize,
        string: &mut Vec<u8>,
    ) -> Result<Result<(), Errno>, Stopped> {
        loop {
            let Some(address) = from.address().checked_add(string.len()) else {
                return Err(Stopped { done: 0, why: Obstacle::Refused });
            };
            if string.len() > longest {
                return Ok(Err(Errno::ENAMETOOLONG));
            }
            // Not beyond the page: the next one need not be there.
            let mut part = [0; 64];
            let len = part.len().min(PAGE_SIZE - address % PAGE_SIZE).min(longest + 1 - string.len());
            self.read_bytes(address, &mut part[..len]).map_err(|stopped| Stopped { done: 0, ..stopped })?;
            let end = part[..len].iter().position(|byte| *byte == 0);
            let found = &part[..end.unwrap_or(len)];
            if string.make_room(found.len()).is_err() {
                return Ok(Err(Errno::ENOMEM));
            }
            string.extend_from_slice(found);
            if end.is_some() {
                return Ok(Ok(()));
            }
        }
    }

    /// Reads an aligned word without faulting anything in: `None` if it is not there now. For futexes, under a lock.
    pub fn load_u32(&self, at: UserPtr<u32>) -> Option<u32> {
        self.space.activate();
        copy::load_u32_user(at.address())
    }

    /// Replaces an aligned word if it is `expected`, without faulting anything in; `Err` is what it is instead.
    pub fn compare_exchange_u32(&self, at: UserPtr<u32>, expected: u32, new: u32) -> Option<Result<u32, u32>> {
        self.space.activate();
        copy::compare_exchange_u32_user(at.address(), expected, new)
    }

    /// Replaces an aligned word by what `change` makes of it, without faulting anything in; returns what it was.
    pub fn fetch_op_u32(&self, at: UserPtr<u32>, change: impl Fn(u32) -> u32) -> Option<u32> {
        self.space.activate();
        copy::fetch_op_u32_user(at.address(), change)
    }

    /// # Safety
    ///
    /// `into` is good for writing `len` bytes.
    #[inline]
    unsafe fn copy_in(&self, into: *mut u8, from: usize, len: usize) -> Result<(), Stopped> {
        // SAFETY: `done` is at most `len`, so the rest lies within what the caller vouches for.
        self.repeat(from, len, Access::Read, move |done| unsafe {
            copy::from_user(into.add(done), from + done, len - done)
        })
    }

    /// # Safety
    ///
    /// `from` is good for reading `len` bytes.
    #[inline]
    unsafe fn copy_out(&self, to: usize, from: *const u8, len: usize) -> Result<(), Stopped> {
        // SAFETY: `done` is at most `len`, so the rest lies within what the caller vouches for.
        self.repeat(to, len, Access::Write, move |done| unsafe { copy::to_user(to + done, from.add(done), len - done) })
    }

    /// Copies until all is done or a page must be waited for. `attempt` tries from `done` on, and returns how much is left.
    #[inline]
    fn repeat(
        &self,
        address: usize,
        len: usize,
        access: Access,
        attempt: impl Fn(usize) -> usize,
    ) -> Result<(), Stopped> {
        self.space.activate();
        let left = attempt(0);
        if left == 0 { Ok(()) } else { self.go_on(address, len, access, len - left, attempt) }
    }

    #[cold]
    fn go_on(
        &self,
        address: usize,
        len: usize,
        access: Access,
        mut done: usize,
        attempt: impl Fn(usize) -> usize,
    ) -> Result<(), Stopped> {
        let mut stuck = 0;
        loop {
            let stop = |why| Err(Stopped { done, why });
            let Some(at) = address.checked_add(done).filter(|at| *at < USER_END) else {
                return stop(Obstacle::Refused);
            };
            self.touch(at, access).or_else(stop)?;
            let before = done;
            done = len - attempt(done);
            if done == len {
                return Ok(());
            }
            stuck = if done == before { stuck + 1 } else { 0 };
            if stuck > 16 && cpus_online() > 1 {
                // Another thread takes it away as often as we bring it in: others first.
                return Err(Stopped { done, why: Obstacle::Missing(at, access) });
            }
            // A page that is there and yet cannot be copied would be a mistake of ours: end in EFAULT, not in a loop.
            if stuck > 16 {
                log::error!("user memory at {at:#x} is mapped, yet it cannot be copied");
                return Err(Stopped { done, why: Obstacle::Refused });
            }
        }
    }
}
