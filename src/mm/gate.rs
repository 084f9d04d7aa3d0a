//! The gate: memory is admitted, not hoped for.
//!
//! `Box` and `Arc` cannot fail softly, so a system call or a fault that will allocate passes here first. The gate is open while
//! more than the reserve is free; else it asks the page cache to give memory back, lets other
//! tasks run, and says `ENOMEM` when that did not help.
//!
//! ```text
//!   free:  ├── reserve: kernel only ──┤── shut: reclaim first ──┤── open ───────────►
//! ```
//!
//! So that the gate is rarely shut, a task ([`keep_free`]) takes pages from the page cache as soon as little is free: the frame
//! allocator wakes it.
//!
//! Next: `heap.rs`.

use abi::Errno;
use executor::sync::Event;

use super::frames;

/// Frames above the reserve below which the gate is shut; fewer on a machine with little memory.
const MARGIN: usize = 64;
/// How often a task lets others run before it gives up.
const PATIENCE: usize = 16;

/// Frames that the page cache is asked for at once.
const PART: usize = 64;

static LITTLE_IS_FREE: Event = Event::new();

/// Below so many free frames, memory is taken back from the page cache.
pub(super) fn low_watermark() -> usize {
    2 * frames::reserve() + 4 * margin()
}

#[inline]
fn margin() -> usize {
    frames::reserve().min(MARGIN)
}

/// Wakes [`keep_free`]. Takes no lock and allocates nothing.
#[cold]
pub(super) fn note_shortage() {
    LITTLE_IS_FREE.notify();
}

/// Keeps memory free, for ever: one task of the kernel's runs it.
///
/// # Cancel safety
///
/// Nothing is held while it waits.
pub async fn keep_free() {
    loop {
        LITTLE_IS_FREE.wait().await;
        while frames::surely_free() < low_watermark() + PART {
            if fs::page_cache::reclaim(PART) == 0 {
                break;
            }
            executor::yield_now().await;
        }
    }
}

/// Whether the gate is open now. Costs a few instructions.
#[inline]
pub fn is_open() -> bool {
    frames::surely_free() > frames::reserve() + margin()
}

/// Passes the gate if that needs no waiting.
///
/// # Errors
///
/// `ENOMEM`: nothing could be reclaimed at once.
#[inline]
pub fn try_admit() -> Result<(), Errno> {
    if frames::strikes_on_demand() {
        return Err(Errno::ENOMEM);
    }
    if is_open() || reclaim() { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Passes the gate, waiting for memory if there is none now.
///
/// # Errors
///
/// `ENOMEM`: there is none to be had.
///
/// # Cancel safety
///
/// Nothing is held while it waits.
pub async fn admit() -> Result<(), Errno> {
    for _ in 0..PATIENCE {
        if try_admit().is_ok() {
            return Ok(());
        }
        executor::yield_now().await;
    }
    Err(Errno::ENOMEM)
}

#[cold]
fn reclaim() -> bool {
    // What this CPU keeps for itself is free too; on a small machine it is much of what there is.
    frames::free_here() > frames::reserve() + margin() || fs::page_cache::reclaim(4 * MARGIN) > 0 && is_open()
}
