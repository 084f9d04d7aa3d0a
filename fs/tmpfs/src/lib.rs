//! tmpfs: a file system that lives in memory. The one to copy.
//!
//! A `Node` is an inode. A folder's entries are in two maps: by name, and by a position that only grows, so that a program that
//! reads a folder while others change it sees every entry that stays exactly once. A file's content is its page cache and nothing
//! else: what is not cached is a hole. So there is nothing to wait for, and every answer is an [`Io::ready`].
//!
//! What is counted, pages and inodes, is limited: when it is used up, `ENOSPC`.
//!
//! Next: `fs/ext4`. Exercise: which methods would have to wait if the pages could be swapped out?
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

pub mod initramfs;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, btree_map};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use executor::sync::SpinLock;
use fs::inode::{AttributeChange, FileSystemStatus, NewOwner, RenameMode};
use fs::{
    Attributes, DirectoryEntry, Errno, FileSystem, Inode, InodeCore, Io, Kind, Metadata, NewNode, PAGE_SIZE,
    PageSource, Result, environment,
};
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

/// What `statfs` calls a tmpfs.
const MAGIC: u64 = 0x0102_1994;
/// What an entry adds to the size of its folder, as Linux has it.
const ENTRY_SIZE: u64 = 20;
/// How many entries one read of a folder returns.
const ENTRIES_AT_ONCE: usize = 64;

/// How much a tmpfs may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pages of content.
    pub pages: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Limits {
    /// No limit but memory itself.
    pub const NONE: Limits = Limits { pages: u64::MAX, inodes: u64::MAX };
}

/// A tmpfs.
pub struct Tmpfs {
    volume: Arc<Volume>,
    root: Arc<Node>,
    type_name: &'static str,
}

/// What all nodes of a tmpfs share.
struct Volume {
    pages: &'static dyn PageSource,
    device: u64,
    next_number: AtomicU64,
    used_pages: Used,
    used_inodes: Used,
}

/// A count with a limit.
struct Used {
    now: AtomicU64,
    limit: u64,
}

impl Used {
    fn new(limit: u64) -> Used {
        Used { now: AtomicU64::new(0), limit }
    }

    fn take(&self) -> Result<()> {
        self.now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < self.limit).then_some(now + 1))
            .map(drop)
            .map_err(|_| Errno::ENOSPC)
    }

    fn give_back(&self, count: u64) {
        self.now.fetch_sub(count, Ordering::Relaxed);
    }

    fn free(&self) -> u64 {
        self.limit.saturating_sub(self.now.load(Ordering::Relaxed))
    }
}

impl Tmpfs {
    /// An empty tmpfs whose root belongs to root and has these permission bits.
    pub fn new(pages: &'static dyn PageSource, limits: Limits, mode: u32) -> Arc<Tmpfs> {
        Tmpfs::named("tmpfs", pages, limits, mode)
    }

    /// The same under another name: `rootfs`, `devtmpfs`.
    pub fn named(type_name: &'static str, pages: &'static dyn PageSource, limits: Limits, mode: u32) -> Arc<Tmpfs> {
        let volume = Arc::new(Volume {
            pages,
            device: environment::anonymous_device(),
            next_number: AtomicU64::new(1),
            used_pages: Used::new(limits.pages),
            used_inodes: Used::new(limits.inodes.saturating_add(1)),
        });
        let owner = NewOwner { mode, uid: 0, gid: 0, time: environment::now() };
        let root = volume.make(NewNode::Directory, owner).expect("the root was added to the limit");
        Arc::new(Tmpfs { volume, root, type_name })
    }
}

impl FileSystem for Tmpfs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        self.type_name
    }

    fn options(&self) -> String {
        match self.volume.used_pages.limit {
            u64::MAX => String::new(),
            pages => format!("size={}k", pages.saturating_mul(PAGE_SIZE as u64 / 1024)),
        }
    }
}

impl Volume {
    fn make(self: &Arc<Self>, node: NewNode<'_>, owner: NewOwner) -> Result<Arc<Node>> {
        self.used_inodes.take()?;
        let (kind, represents, content) = match node {
            NewNode::Regular => (Kind::Regular, 0, Content::Other),
            NewNode::Directory => (Kind::Directory, 0, Content::Folder(SpinLock::new(Entries::default()))),
            NewNode::Symlink(target) => (Kind::Symlink, 0, Content::Link(target.into())),
            NewNode::Special(kind, represents) => (kind, represents, Content::Other),
        };
        let attributes = Attributes {
            mode: owner.mode,
            uid: owner.uid,
            gid: owner.gid,
            size: if let Content::Link(target) = &content { target.len() as u64 } else { 0 },
            links: if kind == Kind::Directory { 2 } else { 1 },
            blocks: 0,
            accessed: owner.time,
            modified: owner.time,
            changed: owner.time,
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let core = InodeCore::in_memory(self.pages, self.device, number, kind, represents, attributes);
        Ok(Arc::new(Node { core, volume: self.clone(), content }))
    }
}

/// An inode of a tmpfs.
struct Node {
    core: InodeCore,
    volume: Arc<Volume>,
    content: Content,
}

enum Content {
    Folder(SpinLock<Entries>),
    Link(Box<[u8]>),
    Other,
}

/// The entries of a folder.
#[derive(Default)]
struct Entries {
    positions: HashMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, (Arc<[u8]>, Arc<Node>)>,
    last_position: u64,
}

impl Entries {
    fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        Some(&self.entries.get(self.positions.get(name)?)?.1)
    }

    fn add(&mut self, name: &[u8], node: Arc<Node>) -> Result<()> {
        if self.positions.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        // The table is one piece of memory, of any size.
        self.positions.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let name: Arc<[u8]> = name.into();
        self.last_position += 1;
        self.positions.insert(name.clone(), self.last_position);
        self.entries.insert(self.last_position, (name, node));
        Ok(())
    }

    /// Takes an entry out, if its node is one that the caller wants.
    fn remove(&mut self, name: &[u8], is_wanted: impl FnOnce(&Node) -> Result<()>) -> Result<Arc<Node>> {
        let EntryRef::Occupied(place) = self.positions.entry_ref(name) else { return Err(Errno::ENOENT) };
        let btree_map::Entry::Occupied(entry) = self.entries.entry(*place.get()) else { return Err(Errno::ENOENT) };
        is_wanted(&entry.get().1)?;
        place.remove();
        Ok(entry.remove().1)
    }

    fn replace(&mut self, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        let entry = self.entries.get_mut(self.positions.get(name)?)?;
        Some(core::mem::replace(&mut entry.1, node))
    }
}

impl Node {
    /// Works with the entries of a folder.
    fn with_entries<R>(&self, work: impl FnOnce(&mut Entries) -> Result<R>) -> Result<R> {
        match &self.content {
            Content::Folder(entries) => work(&mut entries.lock()),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn is_folder(&self) -> bool {
        self.core.kind == Kind::Directory
    }

    fn is_empty(&self) -> bool {
        self.with_entries(|entries| Ok(entries.positions.is_empty())).unwrap_or(true)
    }

    /// Notes that entries were added to (or taken from) a folder, and of these so many folders, which link to it by `..`.
    fn note_change(&self, entries: i64, folders: i64) {
        let now = environment::now();
        let mut attributes = self.core.attributes.lock();
        attributes.size = attributes.size.saturating_add_signed(entries * ENTRY_SIZE as i64);
        attributes.links = attributes.links.saturating_add_signed(folders as i32);
        attributes.modified = now;
        attributes.changed = now;
    }

    /// Notes that the node lost a name; a folder loses the link to itself with it.
    fn note_unlinked(&self) {
        let mut attributes = self.core.attributes.lock();
        attributes.links = if self.is_folder() { 0 } else { attributes.links.saturating_sub(1) };
        attributes.changed = environment::now();
    }

    fn add(&self, name: &[u8], node: Arc<Node>) -> Result<()> {
        let folders = i64::from(node.is_folder());
        self.with_entries(|entries| entries.add(name, node))?;
        self.note_change(1, folders);
        Ok(())
    }

    fn take(&self, name: &[u8], is_wanted: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
        let node = self.with_entries(|entries| entries.remove(name, is_wanted))?;
        self.note_change(-1, -i64::from(node.is_folder()));
        node.note_unlinked();
        Ok(())
    }

    /// The path walk holds the locks of both folders, so nothing changes between the steps.
    fn move_entry(&self, name: &[u8], new_parent: &Node, new_name: &[u8], mode: RenameMode) -> Result<()> {
        let find = |folder: &Node, name: &[u8]| folder.with_entries(|entries| Ok(entries.get(name).cloned()));
        let node = find(self, name)?.ok_or(Errno::ENOENT)?;
        let target = find(new_parent, new_name)?;
        let now = environment::now();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            (RenameMode::Exchange, Some(target)) => {
                let folders = i64::from(target.is_folder()) - i64::from(node.is_folder());
                new_parent.with_entries(|entries| Ok(entries.replace(new_name, node.clone())))?;
                self.with_entries(|entries| Ok(entries.replace(name, target.clone())))?;
                new_parent.note_change(0, -folders);
                self.note_change(0, folders);
                target.core.attributes.lock().changed = now;
            }
            (_, target) => {
                if let Some(target) = target {
                    if target.is_folder() && !target.is_empty() {
                        return Err(Errno::ENOTEMPTY);
                    }
                    new_parent.take(new_name, |_| Ok(()))?;
                }
                self.with_entries(|entries| entries.remove(name, |_| Ok(())))?;
                self.note_change(-1, -i64::from(node.is_folder()));
                new_parent.add(new_name, node.clone())?;
            }
        }
        node.core.attributes.lock().changed = now;
        Ok(())
    }

    fn list(&self, position: u64) -> Result<Vec<DirectoryEntry>> {
        self.with_entries(|entries| {
            let rest = entries.entries.range(position.saturating_add(1)..);
            Ok(rest
                .take(ENTRIES_AT_ONCE)
                .map(|(&position, (name, node))| DirectoryEntry {
                    name: name.to_vec(),
                    number: node.core.number,
                    kind: node.core.kind,
                    next: position,
                })
                .collect())
        })
    }
}

/// The tmpfs node behind an inode that the path walk says is of this file system.
fn node(inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast().map_err(|_| Errno::EXDEV)
}

impl Inode for Node {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = self.core.metadata();
        metadata.attributes.blocks = (self.core.pages.count() * PAGE_SIZE / 512) as u64;
        metadata
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let found = self.with_entries(|entries| entries.get(name).cloned().ok_or(Errno::ENOENT));
        Io::ready(found.map(|node| node as Arc<dyn Inode>))
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, owner: NewOwner) -> Io<'a, Arc<dyn Inode>> {
        let made = self.volume.make(node, owner);
        Io::ready(made.and_then(|node| {
            self.add(name, node.clone())?;
            Ok(node as Arc<dyn Inode>)
        }))
    }

    fn create_nameless(&self, owner: NewOwner) -> Io<'_, Arc<dyn Inode>> {
        let made = self.volume.make(NewNode::Regular, owner);
        Io::ready(made.map(|node| {
            node.core.attributes.lock().links = 0;
            node as Arc<dyn Inode>
        }))
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Io<'a, ()> {
        Io::ready(node(target).and_then(|node| {
            self.add(name, node.clone())?;
            let mut attributes = node.core.attributes.lock();
            attributes.links += 1;
            attributes.changed = environment::now();
            Ok(())
        }))
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(self.take(name, |node| if node.is_folder() { Err(Errno::EISDIR) } else { Ok(()) }))
    }

    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        Io::ready(self.take(name, |node| match node.is_folder() {
            false => Err(Errno::ENOTDIR),
            true if node.is_empty() => Ok(()),
            true => Err(Errno::ENOTEMPTY),
        }))
    }

    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        new_parent: &'a Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Io<'a, ()> {
        Io::ready(node(new_parent).and_then(|new_parent| self.move_entry(name, &new_parent, new_name, mode)))
    }

    fn read_link(&self) -> Io<'_, Vec<u8>> {
        Io::ready(match &self.content {
            Content::Link(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        })
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        Io::ready(self.list(position))
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        if change.size.is_some() && self.core.kind != Kind::Regular {
            return Io::ready(Err(Errno::EINVAL));
        }
        let dropped = self.core.apply(&change);
        self.volume.used_pages.give_back(dropped as u64);
        Io::ready(Ok(()))
    }

    fn is_hole(&self, _index: u64) -> bool {
        true
    }

    fn reserve_page(&self, _index: u64) -> Io<'_, ()> {
        Io::ready(self.volume.used_pages.take())
    }

    fn file_system(&self) -> FileSystemStatus {
        let Volume { used_pages, used_inodes, .. } = &*self.volume;
        let known = |limit: u64| if limit == u64::MAX { 0 } else { limit };
        FileSystemStatus {
            magic: MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: known(used_pages.limit),
            blocks_free: if used_pages.limit == u64::MAX { 0 } else { used_pages.free() },
            files: known(used_inodes.limit),
            files_free: if used_inodes.limit == u64::MAX { 0 } else { used_inodes.free() },
            name_length: 255,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.volume.used_pages.give_back(self.core.pages.count() as u64);
        self.volume.used_inodes.give_back(1);
        // A deep tree is taken apart in a loop: each folder's own drop then finds nothing left to descend into.
        let Content::Folder(entries) = &self.content else { return };
        let mut todo: Vec<Arc<Node>> = children(entries);
        while let Some(node) = todo.pop() {
            if let (1, Content::Folder(entries)) = (Arc::strong_count(&node), &node.content) {
                todo.extend(children(entries));
            }
        }
    }
}

/// Takes all entries out.
fn children(entries: &SpinLock<Entries>) -> Vec<Arc<Node>> {
    core::mem::take(&mut *entries.lock()).entries.into_values().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests;
