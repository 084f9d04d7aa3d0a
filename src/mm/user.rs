//! The only door to user memory.
//!
//! A user pointer is an allegation: [`UserPtr`] and [`UserSlice`] say what a program claims, and nothing about whether it is so. It
//! shows when one copies, and copying needs an [`ActiveSpace`]: the proof that this CPU's page table is that program's.
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
//! The `async` methods of [`AddressSpace`] do that loop. No slice of user memory is ever made: it may change under way, so every
//! byte is copied, once.
//!
//! Next: `src/syscall/args.rs`.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use abi::Errno;
use drivers::hw::{PAGE_SIZE, Page};
use fs::{Sink, Source};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::address_space::AddressSpace;
use super::page_fault::{Access, Fault, Stop};
use crate::arch::paging::USER_END;
use crate::arch::{copy, cpus_online};

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

    fn advance(&mut self, by: usize) {
        self.address += by;
        self.len -= by;
    }
}

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
}

/// The address space that user addresses mean on this CPU now. Taken per poll by [`AddressSpace::active`].
///
/// Each copy makes sure that it still is: within one poll, a system call may look into another program's memory.
#[derive(Clone, Copy)]
pub struct ActiveSpace<'a> {
    space: &'a AddressSpace,
    stays_here: PhantomData<*const ()>,
}

impl AddressSpace {
    /// Makes it the active one, if it is not, and proves it.
    #[inline]
    pub fn active(&self) -> ActiveSpace<'_> {
        self.activate();
        ActiveSpace { space: self, stays_here: PhantomData }
    }

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
            Obstacle::Missing(address, access) => self.fault_in(address, access).await.map_err(|fault| match fault {
                Fault::OutOfMemory => Errno::ENOMEM,
                _ => Errno::EFAULT,
            }),
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
        values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
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

impl ActiveSpace<'_> {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline]
    pub fn read<T: FromBytes>(&self, from: UserPtr<T>) -> Result<T, Stopped> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` has room for the size of a T.
        unsafe { self.copy_in(value.as_mut_ptr().cast(), from.address, size_of::<T>())? };
        // SAFETY: every byte was written, and any bytes are a T (FromBytes).
        Ok(unsafe { value.assume_init() })
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> Result<(), Stopped> {
        self.write_bytes(to.address, value.as_bytes())
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
        self.repeat(to, len, Access::Write, |done| copy::zero_user(to + done, len - done))
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
            let Some(address) = from.address.checked_add(string.len()) else {
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
            if string.try_reserve(found.len()).is_err() {
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
        copy::load_u32_user(at.address)
    }

    /// Replaces an aligned word if it is `expected`, without faulting anything in; `Err` is what it is instead.
    pub fn compare_exchange_u32(&self, at: UserPtr<u32>, expected: u32, new: u32) -> Option<Result<u32, u32>> {
        self.space.activate();
        copy::compare_exchange_u32_user(at.address, expected, new)
    }

    /// Replaces an aligned word by what `change` makes of it, without faulting anything in; returns what it was.
    pub fn fetch_op_u32(&self, at: UserPtr<u32>, change: impl Fn(u32) -> u32) -> Option<u32> {
        self.space.activate();
        copy::fetch_op_u32_user(at.address, change)
    }

    /// # Safety
    ///
    /// `into` is good for writing `len` bytes.
    #[inline]
    unsafe fn copy_in(&self, into: *mut u8, from: usize, len: usize) -> Result<(), Stopped> {
        // SAFETY: `done` is at most `len`, so the rest lies within what the caller vouches for.
        self.repeat(from, len, Access::Read, |done| unsafe { copy::from_user(into.add(done), from + done, len - done) })
    }

    /// # Safety
    ///
    /// `from` is good for reading `len` bytes.
    #[inline]
    unsafe fn copy_out(&self, to: usize, from: *const u8, len: usize) -> Result<(), Stopped> {
        // SAFETY: `done` is at most `len`, so the rest lies within what the caller vouches for.
        self.repeat(to, len, Access::Write, |done| unsafe { copy::to_user(to + done, from.add(done), len - done) })
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

/// User memory as the target of a read or the source of a write: one stretch, or several (readv, writev).
///
/// It may be kept across awaits; each copy makes its address space the active one. When [`Sink::faulted`] says so, the kernel
/// awaits [`UserBuffer::resolve`] and tries again.
pub struct UserBuffer<'a> {
    space: &'a AddressSpace,
    /// What is left of the stretch being copied, and how much of it was.
    current: UserSlice,
    used: usize,
    /// All stretches, if there are several, and which is the next.
    slices: &'a [UserSlice],
    next: usize,
    remaining: usize,
    obstacle: Option<Obstacle>,
}

impl<'a> UserBuffer<'a> {
    /// One stretch.
    ///
    /// # Errors
    ///
    /// `EFAULT`: it does not lie in the user half.
    #[inline]
    pub fn new(space: &'a AddressSpace, slice: UserSlice) -> Result<UserBuffer<'a>, Errno> {
        let current = slice.checked()?;
        Ok(UserBuffer { space, current, used: 0, slices: &[], next: 0, remaining: current.len, obstacle: None })
    }

    /// Several stretches, one after the other.
    ///
    /// # Errors
    ///
    /// `EFAULT`: one does not lie in the user half. `EINVAL`: together they are longer than `isize::MAX`.
    pub fn vectored(space: &'a AddressSpace, slices: &'a [UserSlice]) -> Result<UserBuffer<'a>, Errno> {
        let mut remaining = 0_usize;
        for slice in slices {
            let total = remaining.checked_add(slice.checked()?.len);
            remaining = total.filter(|total| isize::try_from(*total).is_ok()).ok_or(Errno::EINVAL)?;
        }
        Ok(UserBuffer { space, current: UserSlice::default(), used: 0, slices, next: 0, remaining, obstacle: None })
    }

    /// How many more bytes there are.
    pub fn len(&self) -> usize {
        self.remaining
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Lets it end after `len` more bytes.
    pub fn truncate(&mut self, len: usize) {
        self.remaining = self.remaining.min(len);
    }

    /// What stopped the last copy.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Waits for what stopped the last copy.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn resolve(&mut self) -> Result<(), Errno> {
        match self.obstacle.take() {
            Some(obstacle) => self.space.resolve(obstacle).await,
            None => Ok(()),
        }
    }

    /// Goes over the next `len` bytes, stretch by stretch. `copy` gets the user address, how many bytes were done before, and how
    /// many there are.
    #[inline]
    fn each(
        &mut self,
        len: usize,
        copy: impl Fn(ActiveSpace<'_>, usize, usize, usize) -> Result<(), Stopped>,
    ) -> usize {
        self.obstacle = None;
        let len = len.min(self.remaining);
        let space = self.space.active();
        let mut done = 0;
        while done < len {
            if self.current.len == 0 {
                let Some(slice) = self.slices.get(self.next) else { break };
                (self.current, self.used) = (*slice, 0);
                self.next += 1;
                continue;
            }
            let part = self.current.len.min(len - done);
            let result = copy(space, self.current.address, done, part);
            let copied = result.map_or_else(|stopped| stopped.done, |()| part);
            self.current.advance(copied);
            self.used += copied;
            self.remaining -= copied;
            done += copied;
            if let Err(stopped) = result {
                self.obstacle = Some(stopped.why);
                break;
            }
        }
        done
    }

    /// Goes back by `len` bytes that were copied since the attempt began.
    fn step_back(&mut self, mut len: usize) {
        loop {
            let back = len.min(self.used);
            self.current = UserSlice::new(self.current.address - back, self.current.len + back);
            self.used -= back;
            self.remaining += back;
            len -= back;
            if len == 0 || self.next < 2 {
                return;
            }
            // This stretch is whole again and will be fetched again: go on at the end of the one before it.
            self.next -= 1;
            let before = self.slices[self.next - 1];
            self.current = UserSlice::new(before.address + before.len, 0);
            self.used = before.len;
        }
    }
}

impl Sink for UserBuffer<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.each(bytes.len(), |space, to, done, part| space.write_bytes(to, &bytes[done..done + part]))
    }

    fn put_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let len = len.min(PAGE_SIZE.saturating_sub(offset));
        let from = page.pointer().as_ptr();
        // SAFETY: offset + done + part is at most PAGE_SIZE, which is what the page has; the page is held meanwhile.
        self.each(len, |space, to, done, part| unsafe { space.copy_out(to, from.add(offset + done), part) })
    }

    fn put_zeros(&mut self, len: usize) -> usize {
        self.each(len, |space, to, _, part| space.zero(to, part))
    }

    fn give_back(&mut self, len: usize) {
        self.step_back(len);
    }

    fn faulted(&self) -> bool {
        self.obstacle.is_some()
    }
}

impl Source for UserBuffer<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let len = into.len();
        let into = into.as_mut_ptr();
        // SAFETY: done + part is at most the length of `into`, which is borrowed meanwhile.
        self.each(len, |space, from, done, part| unsafe { space.copy_in(into.add(done), from, part) })
    }

    fn take_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let len = len.min(PAGE_SIZE.saturating_sub(offset));
        let into = page.pointer().as_ptr();
        // SAFETY: offset + done + part is at most PAGE_SIZE, which is what the page has; its bytes are never lent.
        self.each(len, |space, from, done, part| unsafe { space.copy_in(into.add(offset + done), from, part) })
    }

    fn skip(&mut self, len: usize) -> usize {
        self.each(len, |_, _, _, _| Ok(()))
    }

    fn give_back(&mut self, len: usize) {
        self.step_back(len);
    }

    fn faulted(&self) -> bool {
        self.obstacle.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{Layout, Limits, MapRequest, Placement, Rights, init_on_host};

    const RW: Rights = Rights { read: true, write: true, execute: false };
    const BASE: usize = 0x10_0000;

    fn space_with(pages: usize) -> alloc::sync::Arc<AddressSpace> {
        init_on_host();
        let space = AddressSpace::new(Layout::new(8 << 20, None), Limits::default()).expect("memory");
        space.map(MapRequest::anonymous(pages * PAGE_SIZE, RW).at(Placement::Fixed(BASE))).expect("room");
        space
    }

    #[test]
    fn a_copy_brings_in_the_pages_it_needs_and_finds_zeros_in_fresh_ones() {
        let space = space_with(3);
        let user = space.active();
        user.write_bytes(BASE + PAGE_SIZE - 2, b"abcd").expect("mapped");
        let mut bytes = [1; 8];
        user.read_bytes(BASE + PAGE_SIZE - 4, &mut bytes).expect("mapped");
        assert_eq!(&bytes, b"\0\0abcd\0\0");
        assert_eq!(user.read(UserPtr::<u16>::new(BASE + 2 * PAGE_SIZE)), Ok(0));
    }

    #[test]
    fn a_copy_that_leaves_the_mapping_says_how_far_it_came() {
        let space = space_with(1);
        let stopped = space.active().write_bytes(BASE + PAGE_SIZE - 3, b"abcdef").expect_err("only three fit");
        assert_eq!(stopped, Stopped { done: 3, why: Obstacle::Refused });
    }

    #[test]
    fn addresses_beyond_the_user_half_are_refused_without_being_touched() {
        let space = space_with(1);
        for address in [USER_END, usize::MAX - 1, 0xffff_8000_0000_0000] {
            let stopped = space.active().read(UserPtr::<u64>::new(address)).expect_err("not user memory");
            assert_eq!(stopped.why, Obstacle::Refused);
        }
        assert_eq!(UserSlice::new(USER_END - 1, 2).checked(), Err(Errno::EFAULT));
        assert_eq!(UserSlice::new(usize::MAX, 2).checked(), Err(Errno::EFAULT));
    }

    #[test]
    fn a_string_may_end_with_the_last_mapped_byte() {
        let space = space_with(1);
        let user = space.active();
        user.write_bytes(BASE + PAGE_SIZE - 6, b"hello\0").expect("mapped");
        let mut string = Vec::new();
        let read =
            |longest, string: &mut Vec<u8>| user.read_c_string(UserPtr::new(BASE + PAGE_SIZE - 6), longest, string);
        assert_eq!(read(5, &mut string), Ok(Ok(())));
        assert_eq!(string, b"hello");
        assert_eq!(read(4, &mut Vec::new()), Ok(Err(Errno::ENAMETOOLONG)));
        user.write_bytes(BASE + PAGE_SIZE - 1, b"!").expect("mapped");
        let stopped = read(100, &mut Vec::new()).expect_err("it runs out of the mapping");
        assert_eq!(stopped.why, Obstacle::Refused);
    }

    #[test]
    fn what_was_given_back_is_given_again_across_stretches() {
        let space = space_with(2);
        space.active().write_bytes(BASE, b"abcdefghij").expect("mapped");
        let slices = [UserSlice::new(BASE, 3), UserSlice::new(BASE + 3, 0), UserSlice::new(BASE + 3, 7)];
        let mut buffer = UserBuffer::vectored(&space, &slices).expect("in the user half");
        let mut bytes = [0; 5];
        assert_eq!(buffer.take(&mut bytes), 5);
        Source::give_back(&mut buffer, 4);
        assert_eq!(Source::remaining(&buffer), 9);
        let mut rest = [0; 9];
        assert_eq!(buffer.take(&mut rest), 9);
        assert_eq!(&rest, b"bcdefghij");
    }

    #[test]
    fn several_stretches_are_filled_one_after_the_other() {
        let space = space_with(2);
        let slices = [UserSlice::new(BASE, 3), UserSlice::new(0, 0), UserSlice::new(BASE + 100, 5)];
        let mut buffer = UserBuffer::vectored(&space, &slices).expect("in the user half");
        assert_eq!(buffer.put(b"abcdef"), 6);
        assert_eq!(buffer.put_zeros(10), 2);
        assert!(buffer.is_empty() && !Sink::faulted(&buffer));
        let mut back = [9; 5];
        space.active().read_bytes(BASE + 100, &mut back).expect("mapped");
        assert_eq!(&back, b"def\0\0");
        let mut source = UserBuffer::vectored(&space, &slices).expect("in the user half");
        let mut bytes = [0; 8];
        assert_eq!(source.take(&mut bytes), 8);
        assert_eq!(&bytes, b"abcdef\0\0");
    }

    #[test]
    fn a_buffer_that_is_not_mapped_faults_and_keeps_its_place() {
        let space = space_with(1);
        let mut buffer = UserBuffer::new(&space, UserSlice::new(BASE + PAGE_SIZE - 2, 4)).expect("in the user half");
        assert_eq!(buffer.put(b"wxyz"), 2);
        assert!(Sink::faulted(&buffer));
        assert_eq!((buffer.len(), buffer.obstacle()), (2, Some(Obstacle::Refused)));
        assert!(UserBuffer::new(&space, UserSlice::new(usize::MAX, 4)).is_err());
    }

    #[test]
    fn a_futex_word_is_read_only_if_it_is_there() {
        let space = space_with(1);
        let user = space.active();
        let word = UserPtr::<u32>::new(BASE + 8);
        assert_eq!(user.load_u32(word), None);
        user.write(word, &7_u32).expect("mapped");
        assert_eq!(user.load_u32(word), Some(7));
        assert_eq!(user.compare_exchange_u32(word, 6, 9), Some(Err(7)));
        assert_eq!(user.fetch_op_u32(word, |old| old + 1), Some(7));
        assert_eq!(user.load_u32(word), Some(8));
        assert_eq!(user.load_u32(UserPtr::new(BASE + 9)), None);
    }
}
