//! What all inodes of an overlay share.
//!
//! An inode is known by its identity: the number of the lower inode that it is or once was, else that of the upper one. One
//! `Arc` of each identity is alive at a time.
//!
//! Next: `node.rs`.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use executor::sync::{Mutex, MutexGuard, SpinLock};
use fs::{Errno, Inode, Kind, Result, environment};
use hashbrown::HashMap;

use crate::node::{Layers, Node, Place};

/// The name under which overlayfs marks a folder that hides the lower one of its name.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Which inode it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Identity {
    /// It came from below.
    Lower(u64),
    /// It was made above.
    Upper(u64),
}

impl Identity {
    /// The number that programs see. Those of inodes from above lie beyond all that a file system with 32-bit numbers has.
    pub(crate) fn number(self) -> u64 {
        match self {
            Identity::Lower(number) => number,
            Identity::Upper(number) => number.wrapping_add(1 << 32),
        }
    }
}

/// The right to change the upper layer.
pub(crate) type Changes<'a> = MutexGuard<'a, ()>;

/// What all inodes share.
pub(crate) struct Volume {
    pub(crate) device: u64,
    /// The folder for what is being prepared.
    pub(crate) work: Arc<dyn Inode>,
    /// The root of the upper layer.
    pub(crate) upper: Arc<dyn Inode>,
    /// Held while names of the upper layer change. Who also needs the path walk's locks of folders has them already.
    pub(crate) changes: Mutex<()>,
    /// Held while content is copied up, which may take long. Taken before `changes`.
    pub(crate) copying: Mutex<()>,
    next_temporary: AtomicU64,
    inodes: SpinLock<Inodes>,
    this: Weak<Volume>,
}

#[derive(Default)]
struct Inodes {
    alive: HashMap<Identity, Weak<Node>>,
    /// Lower files with several names that were changed: the other names still lead to the lower file, and from there to here.
    kept: HashMap<u64, Arc<Node>>,
    /// By the number of an upper inode: the lower one it is a copy of.
    origins: HashMap<u64, u64>,
    /// By the number of an upper folder: the lower one it is merged with, if that is not simply the one of the same name.
    merged: HashMap<u64, Option<Arc<dyn Inode>>>,
    is_closed: bool,
}

/// Whether it says that the name is not there.
pub(crate) fn is_whiteout(inode: &Arc<dyn Inode>) -> bool {
    let core = inode.core();
    core.kind == Kind::CharacterDevice && core.represents == 0
}

/// An entry of a layer's folder, if it is there.
pub(crate) async fn find(folder: &Arc<dyn Inode>, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
    found(folder.lookup(name).await)
}

/// "Not there" as an answer instead of an error.
pub(crate) fn found(answer: Result<Arc<dyn Inode>>) -> Result<Option<Arc<dyn Inode>>> {
    match answer {
        Ok(inode) => Ok(Some(inode)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

impl Volume {
    pub(crate) fn new(work: Arc<dyn Inode>, upper: Arc<dyn Inode>) -> Arc<Volume> {
        Arc::new_cyclic(|this| Volume {
            device: environment::anonymous_device(),
            work,
            upper,
            changes: Mutex::new(()),
            copying: Mutex::new(()),
            next_temporary: AtomicU64::new(0),
            inodes: SpinLock::new(Inodes::default()),
            this: this.clone(),
        })
    }

    pub(crate) fn root(&self, lower: Arc<dyn Inode>, upper: Arc<dyn Inode>) -> Arc<Node> {
        self.of_upper(upper, Some(lower)).expect("the volume is held by the caller")
    }

    /// A name in the work folder that nobody uses.
    pub(crate) fn temporary_name(&self) -> String {
        format!("#{:x}", self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }

    /// The inode of an entry that is in the upper layer; for a folder, with what it is merged with.
    pub(crate) fn of_upper(&self, upper: Arc<dyn Inode>, lower: Option<Arc<dyn Inode>>) -> Result<Arc<Node>> {
        let number = upper.core().number;
        let (identity, layers) = match lower {
            Some(lower) => (Identity::Lower(lower.core().number), Layers::both(lower, upper)),
            None => {
                let origin = self.inodes.lock().origins.get(&number).copied();
                (origin.map_or(Identity::Upper(number), Identity::Lower), Layers::Upper(upper))
            }
        };
        self.node(identity, layers, None)
    }

    /// The inode of an entry that is only in the lower layer.
    pub(crate) fn of_lower(&self, lower: Arc<dyn Inode>, place: Place) -> Result<Arc<Node>> {
        self.node(Identity::Lower(lower.core().number), Layers::below(lower), Some(place))
    }

    fn node(&self, identity: Identity, layers: Layers, place: Option<Place>) -> Result<Arc<Node>> {
        let volume = self.this.upgrade().ok_or(Errno::EIO)?;
        if let Some(node) = self.alive(identity) {
            return Ok(node);
        }
        let node = Node::new(volume, identity, layers, place);
        let mut inodes = self.inodes.lock();
        let entry = inodes.alive.entry(identity).or_default();
        if let Some(other) = entry.upgrade() {
            // Somebody was faster; ours is dropped behind the lock.
            drop(inodes);
            return Ok(other);
        }
        *entry = Arc::downgrade(&node);
        Ok(node)
    }

    fn alive(&self, identity: Identity) -> Option<Arc<Node>> {
        self.inodes.lock().alive.get(&identity)?.upgrade()
    }

    /// Called when an inode goes.
    pub(crate) fn retire(&self, identity: Identity) {
        let mut inodes = self.inodes.lock();
        if inodes.alive.get(&identity).is_some_and(|node| node.strong_count() == 0) {
            inodes.alive.remove(&identity);
        }
    }

    /// What an upper folder is merged with, when the lower layer has `same_name` at its place.
    pub(crate) fn merged_with(
        &self,
        upper: &Arc<dyn Inode>,
        same_name: Option<Arc<dyn Inode>>,
    ) -> Option<Arc<dyn Inode>> {
        if upper.core().kind != Kind::Directory {
            return None;
        }
        if let Some(known) = self.inodes.lock().merged.get(&upper.core().number) {
            return known.clone();
        }
        let lower = same_name.filter(|lower| lower.core().kind == Kind::Directory)?;
        let is_opaque = matches!(upper.extended_attribute(OPAQUE).now(), Ok(Ok(value)) if value == b"y");
        (!is_opaque).then_some(lower)
    }

    /// Notes what an upper folder is merged with, wherever it will be.
    pub(crate) fn set_merged(&self, upper: &Arc<dyn Inode>, lower: Option<Arc<dyn Inode>>) {
        let before = self.inodes.lock().merged.insert(upper.core().number, lower);
        drop(before);
    }

    /// Notes that an upper inode is the copy of a lower one.
    pub(crate) fn set_origin(&self, upper: &Arc<dyn Inode>, lower: &Arc<dyn Inode>) {
        self.inodes.lock().origins.insert(upper.core().number, lower.core().number);
    }

    /// The identity of an upper inode that is not merged with anything.
    pub(crate) fn identity(&self, upper: &Arc<dyn Inode>) -> Identity {
        let number = upper.core().number;
        self.inodes.lock().origins.get(&number).map_or(Identity::Upper(number), |lower| Identity::Lower(*lower))
    }

    /// Forgets what is known of an upper inode that lost its last name.
    pub(crate) fn forget(&self, upper: &Arc<dyn Inode>) {
        let number = upper.core().number;
        let before = {
            let mut inodes = self.inodes.lock();
            inodes.origins.remove(&number);
            inodes.merged.remove(&number)
        };
        drop(before);
    }

    /// Keeps a changed inode for the sake of its other names.
    pub(crate) fn keep(&self, number: u64, node: Arc<Node>) {
        let before = {
            let mut inodes = self.inodes.lock();
            if inodes.is_closed { None } else { inodes.kept.insert(number, node) }
        };
        drop(before);
    }

    /// Keeps it no longer: it has no name left.
    pub(crate) fn release(&self, number: u64) {
        let before = self.inodes.lock().kept.remove(&number);
        drop(before);
    }

    /// Keeps nothing from now on: kept inodes hold the volume, which holds them.
    pub(crate) fn close(&self) {
        let kept = {
            let mut inodes = self.inodes.lock();
            inodes.is_closed = true;
            core::mem::take(&mut inodes.kept)
        };
        drop(kept);
    }
}
