//! How the format's code sees blocks: at once if they are cached, else it says what it needs and is run again.
//!
//! All code that interprets the format is synchronous and pure: it takes a [`View`] and asks it for blocks. A block that is not
//! in memory ends the attempt with [`Need::Blocks`]; [`Volume::attempt`] then awaits the block, pins it in the view, and starts the
//! attempt over. So a lookup whose blocks are cached costs no future at all, and there is one place that waits.
//!
//! ```text
//!   attempt(view) ──► Ok(value)                 done
//!                 ├─► Need::Errno               that is the answer
//!                 ├─► Need::Blocks(first, n)    read them (the first is needed, the others soon), pin the first, again
//!                 └─► Need::Pause               it has worked for long: let others run, again
//! ```
//!
//! Progress: pinned blocks stay, so an attempt never misses the same block twice. An attempt that scans a long directory moves
//! its own position on before it returns, and releases what it no longer needs ([`View::release`]).
//!
//! Next: `extent.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::Io;

use crate::cache::Block;
use crate::volume::Volume;

/// Why an attempt ended without a value.
#[derive(Debug)]
pub(crate) enum Need {
    /// It cannot be done.
    Errno(Errno),
    /// The first of so many consecutive blocks; the others will be wanted soon.
    Blocks(u64, usize),
    /// Others should run first.
    Pause,
}

impl From<Errno> for Need {
    fn from(errno: Errno) -> Need {
        Need::Errno(errno)
    }
}

/// What an attempt returns.
pub(crate) type Attempt<T> = Result<T, Need>;

/// The most memory an attempt may pin before it has to release some, in bytes. The deepest honest one (a name in a three-level
/// tree, in a file of five levels of extents) needs a few dozen blocks, a large attribute of 64 KiB as much again.
const MAX_PINNED: usize = 8 << 20;

/// The blocks of a volume, as one attempt sees them.
pub(crate) struct View<'v> {
    pub(crate) volume: &'v Volume,
    pinned: Vec<Arc<Block>>,
}

impl<'v> View<'v> {
    pub(crate) fn new(volume: &'v Volume) -> View<'v> {
        View { volume, pinned: Vec::new() }
    }

    /// A block; when it has to be read, so are up to `ahead` blocks in all from it on.
    ///
    /// # Errors
    ///
    /// [`Need::Blocks`]: it is not in memory. `EUCLEAN`: there is no such block.
    pub(crate) fn block(&self, number: u64, ahead: usize) -> Attempt<Arc<Block>> {
        if let Some(block) = self.pinned.iter().rev().find(|block| block.number == number) {
            return Ok(block.clone());
        }
        self.volume.check_blocks(number, 1)?;
        self.volume.blocks.get(number).ok_or(Need::Blocks(number, ahead.max(1)))
    }

    /// Lets the blocks of earlier attempts go: the work so far is noted elsewhere.
    pub(crate) fn release(&mut self) {
        self.pinned.clear();
    }

    async fn load(&mut self, first: u64, count: usize) -> Result<()> {
        if self.pinned.len() * self.volume.superblock.block_size >= MAX_PINNED {
            log::error!("ext4: too many blocks are needed to answer one request");
            return Err(Errno::EUCLEAN);
        }
        let block = self.volume.load(first, count).await?;
        self.pinned.push(block);
        Ok(())
    }

    async fn satisfy(&mut self, need: Need) -> Result<()> {
        match need {
            Need::Errno(errno) => Err(errno),
            Need::Blocks(first, count) => self.load(first, count).await,
            Need::Pause => {
                executor::yield_now().await;
                Ok(())
            }
        }
    }
}

impl Volume {
    /// Runs an attempt at once, and returns a future only if it has to wait.
    pub(crate) fn attempt<'a, T: Send + 'a>(
        &'a self,
        mut work: impl FnMut(&mut View<'a>) -> Attempt<T> + Send + 'a,
    ) -> Io<'a, T> {
        let mut view = View::new(self);
        match work(&mut view) {
            Ok(value) => Io::ready(Ok(value)),
            Err(Need::Errno(errno)) => Io::ready(Err(errno)),
            Err(need) => Io::wait(async move {
                let mut need = need;
                loop {
                    view.satisfy(need).await?;
                    match work(&mut view) {
                        Ok(value) => return Ok(value),
                        Err(next) => need = next,
                    }
                }
            }),
        }
    }
}
