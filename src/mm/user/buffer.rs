//! User memory as the target of a read or the source of a write.
//!
//! Next: `src/syscall/transfer.rs`.

use abi::Errno;
use drivers::hw::{PAGE_SIZE, Page};
use fs::{Sink, Source};

use super::{ActiveSpace, Obstacle, Stopped, UserSlice};
use crate::mm::address_space::AddressSpace;

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
    /// How much more may be moved before others have their turn.
    portion: usize,
    obstacle: Option<Obstacle>,
}

/// How many bytes are moved before others have their turn: then a copy stops as if a page were missing. No message of a socket is longer.
pub const PORTION: usize = 1 << 20;

impl<'a> UserBuffer<'a> {
    /// One stretch.
    ///
    /// # Errors
    ///
    /// `EFAULT`: it does not lie in the user half.
    #[inline]
    pub fn new(space: &'a AddressSpace, slice: UserSlice) -> Result<UserBuffer<'a>, Errno> {
        let current = slice.checked()?;
        let remaining = current.len;
        Ok(UserBuffer { space, current, used: 0, slices: &[], next: 0, remaining, portion: PORTION, obstacle: None })
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
        let current = UserSlice::default();
        Ok(UserBuffer { space, current, used: 0, slices, next: 0, remaining, portion: PORTION, obstacle: None })
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
            Some(obstacle) => {
                self.portion = PORTION;
                self.space.resolve(obstacle).await
            }
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
        let wanted = len.min(self.remaining);
        let len = wanted.min(self.portion);
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
                self.portion -= done;
                return done;
            }
        }
        self.portion -= done;
        if done == len && len < wanted {
            self.obstacle = Some(Obstacle::Turn);
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
        self.put_pages(core::slice::from_ref(page), offset, len)
    }

    fn put_pages(&mut self, pages: &[Page], offset: usize, len: usize) -> usize {
        let len = len.min((pages.len() * PAGE_SIZE).saturating_sub(offset));
        self.each(len, |space, to, done, part| {
            let mut copied = 0;
            while copied < part {
                let at = offset + done + copied;
                let (page, within) = (&pages[at / PAGE_SIZE], at % PAGE_SIZE);
                let count = (PAGE_SIZE - within).min(part - copied);
                // SAFETY: within + count is at most PAGE_SIZE, which is what the page has; the page is held meanwhile.
                let outcome = unsafe { space.copy_out(to + copied, page.pointer().as_ptr().add(within), count) };
                outcome.map_err(|stopped| Stopped { done: copied + stopped.done, ..stopped })?;
                copied += count;
            }
            Ok(())
        })
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
