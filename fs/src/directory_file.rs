//! An open folder: its entries, for getdents64(2).
//!
//! The positions of a program are those of the inode moved by two, so that `.` and `..` come first.
//!
//! Next: `pipe.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use crate::inode::{DirectoryEntry, Kind};
use crate::path::Path;
use crate::{Errno, FileOps, Inode, Io, Result, environment};

/// `.` and `..` take two positions.
const DOTS: u64 = 2;

/// An open folder.
pub struct DirectoryFile {
    path: Path,
    sets_access_time: bool,
}

impl DirectoryFile {
    /// Opens a folder.
    pub fn new(path: Path, sets_access_time: bool) -> DirectoryFile {
        DirectoryFile { path, sets_access_time }
    }

    fn with_dots(&self, entries: Vec<DirectoryEntry>, position: u64) -> Vec<DirectoryEntry> {
        let mut all = Vec::with_capacity(entries.len() + 2);
        let parent = self.path.dentry.parent().map_or_else(|| above(&self.path), |parent| parent.inode().clone());
        let dots = [(&b"."[..], self.path.inode().metadata().number), (&b".."[..], parent.metadata().number)];
        for (at, (name, number)) in dots.into_iter().enumerate().skip(position as usize) {
            all.push(DirectoryEntry { name: name.to_vec(), number, kind: Kind::Directory, next: at as u64 + 1 });
        }
        all.extend(entries.into_iter().map(moved));
        all
    }

    fn note_read(&self) {
        if self.sets_access_time {
            let mut attributes = self.path.inode().core().attributes.lock();
            if attributes.accessed <= attributes.modified || attributes.accessed <= attributes.changed {
                attributes.accessed = environment::now();
            }
        }
    }
}

fn moved(entry: DirectoryEntry) -> DirectoryEntry {
    DirectoryEntry { next: entry.next.saturating_add(DOTS), ..entry }
}

/// What is above the root of a mount.
fn above(path: &Path) -> Arc<dyn Inode> {
    match path.mount.place() {
        Some(place) => place.dentry.parent().unwrap_or(place.dentry).inode().clone(),
        None => path.inode().clone(),
    }
}

impl FileOps for DirectoryFile {
    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        if self.path.dentry.is_removed() {
            return Io::ready(Err(Errno::ENOENT));
        }
        self.note_read();
        let entries = self.path.inode().read_directory(position.saturating_sub(DOTS));
        let finish = move |entries: Result<Vec<DirectoryEntry>>| {
            let entries = entries?;
            Ok(if position < DOTS {
                self.with_dots(entries, position)
            } else {
                entries.into_iter().map(moved).collect()
            })
        };
        match entries.now() {
            Ok(entries) => Io::ready(finish(entries)),
            Err(waiting) => Io::wait(async move { finish(waiting.await) }),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn try_read(&self, _position: &mut u64, _sink: &mut dyn crate::Sink) -> Result<usize, crate::Stop> {
        Err(Errno::EISDIR.into())
    }

    fn sync(&self, data_only: bool) -> Io<'_, ()> {
        self.path.inode().sync(data_only)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
