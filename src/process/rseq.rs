//! Restartable sequences (rseq(2)): a program learns on which CPU it runs without asking, and what it does there in a few instructions
//! is begun again if it was interrupted or moved.
//!
//! The program registers an area, in which it names the sequence that it is in, and the kernel the CPU. What must be told is noted where
//! it happens, cheaply, and told before the program goes on:
//!
//! ```text
//!   preempted      Told::forget ─┐
//!   polled         note_place ───┴─► another CPU than the area names? attention::PLACE
//!   next delivery  update_rseq ──► abort the sequence, write the CPU into the area
//! ```
//!
//! Next: `deliver.rs`; rseq(2) itself is in `src/syscall/thread.rs`.

use alloc::boxed::Box;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use abi::{Errno, Result};

use super::signal::Action;
use super::thread::attention;
use super::{RunningThread, Signal, SignalInfo, Thread, send};
use crate::arch;
use crate::mm::user::UserPtr;

/// Where a thread's restartable-sequence area lies (rseq(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Its address.
    pub address: usize,
    /// Its length.
    pub len: NonZeroU32,
    /// The signature that stands before each abort handler.
    pub signature: u32,
}

/// In place of a CPU's number: the thread has no area.
const NO_AREA: u32 = u32::MAX;
/// In place of a CPU's number: it must be told anew.
const NOT_TOLD: u32 = u32::MAX - 1;

/// The CPU that a thread's area names. Relaxed throughout: only the thread itself touches it.
pub struct Told(AtomicU32);

impl Default for Told {
    /// There is no area.
    fn default() -> Told {
        Told(AtomicU32::new(NO_AREA))
    }
}

impl Told {
    /// Where it goes on must be told before it does, if there is an area: it may have been interrupted.
    pub fn forget(&self) {
        if self.0.load(Relaxed) != NO_AREA {
            self.begin();
        }
    }

    /// There is an area that names no CPU yet.
    pub fn begin(&self) {
        self.0.store(NOT_TOLD, Relaxed);
    }

    /// There is a copy of somebody's area.
    pub fn take_over(&self, original: &Told) {
        self.0.store(original.0.load(Relaxed), Relaxed);
    }

    fn set(&self, cpu: u32) {
        self.0.store(cpu, Relaxed);
    }

    fn clear(&self) {
        self.0.store(NO_AREA, Relaxed);
    }
}

impl Thread {
    /// A poll begins: has the thread tell its program where it runs, if that is not what it was told.
    #[inline]
    pub fn note_place(&self) {
        let told = self.told.0.load(Relaxed);
        if told != NO_AREA && told != arch::cpu_id() as u32 {
            self.attention.fetch_or(attention::PLACE, Relaxed);
        }
    }
}

impl RunningThread {
    /// There is no area any more.
    pub fn forget_rseq(&mut self) {
        self.rseq = None;
        self.told.clear();
    }

    /// Tells the program where it goes on; if its area is bad, by a SIGSEGV: one that ends it, if a handler of SIGSEGV is what is
    /// `delivered` now.
    pub async fn update_rseq(&mut self, delivered: Option<Signal>) {
        if self.tell_rseq_now() {
            return;
        }
        // Rare: not a part of every thread.
        if Box::pin(self.tell_rseq()).await.is_err() {
            if delivered == Some(Signal::SIGSEGV) {
                self.process.handlers().set(Signal::SIGSEGV, Action::default());
            }
            send::force(self.shared(), SignalInfo::kernel(Signal::SIGSEGV));
        }
    }

    /// Tells the program on which CPU it goes on, if it is in no restartable sequence and its area is there.
    pub(super) fn tell_rseq_now(&self) -> bool {
        let Some(area) = self.rseq else { return true };
        let is_in_none = self.try_get(UserPtr::<u64>::new(area.address + 8)) == Some(0);
        let cpu = arch::cpu_id() as u32;
        let is_told = is_in_none && self.try_put(UserPtr::new(area.address), &[cpu, cpu]);
        if is_told {
            self.told.set(cpu);
        }
        is_told
    }

    /// Ends the restartable sequence that the program is in, and tells it on which CPU it goes on.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`: as of `abort_restartable_sequence`.
    pub async fn tell_rseq(&mut self) -> Result<()> {
        let Some(area) = self.rseq else { return Ok(()) };
        self.abort_restartable_sequence().await?;
        // If this has to wait for a page, the next poll may be on another CPU, and finds that the thread must be told again.
        let cpu = arch::cpu_id() as u32;
        self.told.set(cpu);
        self.put(UserPtr::new(area.address), &[cpu, cpu]).await
    }

    /// Aborts the restartable sequence that the thread is in, as must happen before it goes on after it was preempted, moved, or
    /// had a signal delivered: the program goes on at the sequence's abort handler (rseq(2)).
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`: the area or the sequence's description is bad: the caller sends SIGSEGV.
    async fn abort_restartable_sequence(&mut self) -> Result<()> {
        let Some(area) = self.rseq else { return Ok(()) };
        let pointer: UserPtr<u64> = UserPtr::new(area.address + 8);
        let description: u64 = self.get(pointer).await?;
        if description == 0 {
            return Ok(());
        }
        let [head, start, len, abort]: [u64; 4] = self.get(UserPtr::new(description as usize)).await?;
        let version = head as u32;
        if version != 0 || abort.wrapping_sub(start) < len || abort < 4 {
            return Err(Errno::EINVAL);
        }
        let signature: u32 = self.get(UserPtr::new(abort as usize - 4)).await?;
        if signature != area.signature {
            return Err(Errno::EINVAL);
        }
        // Only of a good description is the pointer cleared: a bad one is found again, should a handler return to it.
        self.put(pointer, &0).await?;
        if self.context.rip.wrapping_sub(start) < len {
            self.context.rip = abort;
        }
        Ok(())
    }
}
