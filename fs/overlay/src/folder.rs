//! Looking up and listing in a folder that may be merged.
//!
//! A listing first gives the names from below (those that still are there, whatever they lead to now), then those that are only
//! above. So a name keeps its position when it is copied up, and whoever lists a folder while others change it sees each name
//! that stays exactly once. Positions of the second part have the [`ABOVE`] bit set.
//!
//! Next: `copy_up.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::{DirectoryEntry, Errno, Inode, Io, Kind, Result};

use crate::node::{Node, Place};
use crate::volume::{Identity, find, found, is_whiteout};

/// Marks a position among the names that are only above.
const ABOVE: u64 = 1 << 62;

impl Node {
    /// The entry of that name.
    pub(crate) fn find(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let above = match self.upper().map(|upper| upper.lookup(name).now()) {
            None => None,
            Some(Ok(answer)) => match found(answer) {
                Ok(entry) => entry,
                Err(errno) => return Io::ready(Err(errno)),
            },
            Some(Err(_)) => return self.find_waiting(name),
        };
        let needs_lower = above.as_ref().is_none_or(|entry| entry.core().kind == Kind::Directory);
        let below = match self.lower().filter(|_| needs_lower).map(|lower| lower.lookup(name).now()) {
            None => None,
            Some(Ok(answer)) => match found(answer) {
                Ok(entry) => entry,
                Err(errno) => return Io::ready(Err(errno)),
            },
            Some(Err(_)) => return self.find_waiting(name),
        };
        Io::ready(self.resolve(name, above, below).map(|node| node as Arc<dyn Inode>))
    }

    fn find_waiting(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let name = name.to_vec();
        Io::wait(async move { Ok(self.entry(&name).await? as Arc<dyn Inode>) })
    }

    /// The entry of that name.
    ///
    /// # Errors
    ///
    /// `ENOENT`; those of the layers.
    pub(crate) async fn entry(&self, name: &[u8]) -> Result<Arc<Node>> {
        let above = self.above(name).await?;
        let below = if above.as_ref().is_none_or(|entry| entry.core().kind == Kind::Directory) {
            self.below(name).await?
        } else {
            None
        };
        self.resolve(name, above, below)
    }

    /// What the upper layer has under a name; perhaps a whiteout.
    pub(crate) async fn above(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        match self.upper() {
            Some(upper) => find(upper, name).await,
            None => Ok(None),
        }
    }

    /// What the lower layer has under a name.
    pub(crate) async fn below(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        match self.lower() {
            Some(lower) => Ok(find(lower, name).await?.filter(|entry| !is_whiteout(entry))),
            None => Ok(None),
        }
    }

    fn resolve(&self, name: &[u8], above: Option<Arc<dyn Inode>>, below: Option<Arc<dyn Inode>>) -> Result<Arc<Node>> {
        let below = below.filter(|entry| !is_whiteout(entry));
        match (above, below) {
            (Some(above), _) if is_whiteout(&above) => Err(Errno::ENOENT),
            (Some(above), below) => {
                let merged = self.volume.merged_with(&above, below);
                self.volume.of_upper(above, merged)
            }
            (None, Some(below)) => self.volume.of_lower(below, Place { parent: self.this()?, name: name.into() }),
            (None, None) => Err(Errno::ENOENT),
        }
    }

    /// Entries from a position on.
    pub(crate) fn list(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        if self.kind() != Kind::Directory {
            return Io::ready(Err(Errno::ENOTDIR));
        }
        Io::wait(self.read_merged(position))
    }

    /// Entries from a position on; none at the end.
    pub(crate) async fn read_merged(&self, mut position: u64) -> Result<Vec<DirectoryEntry>> {
        while let Some(lower) = self.lower().filter(|_| position & ABOVE == 0) {
            let entries = lower.read_directory(position).await?;
            let Some(last) = entries.last() else {
                position = ABOVE;
                break;
            };
            position = last.next;
            if position & ABOVE != 0 {
                log::error!("overlay: the lower layer's positions are too large");
                return Err(Errno::EIO);
            }
            let kept = self.still_there(entries).await?;
            if !kept.is_empty() {
                return Ok(kept);
            }
        }
        let Some(upper) = self.upper() else { return Ok(Vec::new()) };
        loop {
            let entries = upper.read_directory(position & !ABOVE).await?;
            let Some(last) = entries.last() else { return Ok(entries) };
            position = last.next | ABOVE;
            let kept = self.only_above(upper, entries).await?;
            if !kept.is_empty() {
                return Ok(kept);
            }
        }
    }

    /// Of the entries from below those that are not hidden, as what they lead to now.
    async fn still_there(&self, entries: Vec<DirectoryEntry>) -> Result<Vec<DirectoryEntry>> {
        let mut kept = Vec::with_capacity(entries.len());
        for mut entry in entries {
            // Only a device can be a whiteout, so hardly ever anything has to be looked up below.
            if entry.kind == Kind::CharacterDevice && self.below(&entry.name).await?.is_none() {
                continue;
            }
            if let Some(above) = self.above(&entry.name).await? {
                if is_whiteout(&above) {
                    continue;
                }
                let below = if above.core().kind == Kind::Directory { self.below(&entry.name).await? } else { None };
                entry.number = self.number_of(&above, below);
                entry.kind = above.core().kind;
            }
            kept.push(entry);
        }
        Ok(kept)
    }

    /// Of the entries from above those that were not listed with the ones from below.
    async fn only_above(&self, upper: &Arc<dyn Inode>, entries: Vec<DirectoryEntry>) -> Result<Vec<DirectoryEntry>> {
        let mut kept = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let Some(above) = find(upper, &entry.name).await? else { continue };
            if is_whiteout(&above) || self.below(&entry.name).await?.is_some() {
                continue;
            }
            entry.number = self.number_of(&above, None);
            entry.next |= ABOVE;
            kept.push(entry);
        }
        Ok(kept)
    }

    /// The number that stat(2) will tell of an entry.
    fn number_of(&self, above: &Arc<dyn Inode>, below: Option<Arc<dyn Inode>>) -> u64 {
        let merged = self.volume.merged_with(above, below);
        let identity = merged.map(|lower| Identity::Lower(lower.core().number));
        identity.unwrap_or_else(|| self.volume.identity(above)).number()
    }
}
