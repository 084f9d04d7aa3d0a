//! An inode of an overlay: one of the lower layer, one of the upper, or both.
//!
//! ```text
//!   Layers::Upper(u)                 made above, or found there without anything to be merged with
//!   Layers::Lower { l, upper: — }    only below       ── copy_up ──►  Layers::Lower { l, upper: u }
//! ```
//!
//! A folder with both is merged; a file with both has its content and attributes above, and goes on having its number. What is
//! asked of an inode is answered by [`Node::real`]: the upper one as soon as there is one.
//!
//! Next: `folder.rs`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use conquer_once::spin::OnceCell;
use executor::sync::SpinLock;
use fs::inode::{AttributeChange, FileSystemStatus, NewOwner, Permissions, RenameMode};
use fs::{DirectoryEntry, Errno, Inode, InodeCore, Io, Kind, Metadata, NewNode, Page, Result};

use crate::volume::{Identity, Volume};

/// What statfs(2) calls an overlay.
const MAGIC: u64 = 0x794c_7630;

/// The inodes behind one of the overlay.
pub(crate) enum Layers {
    /// One of the upper layer.
    Upper(Arc<dyn Inode>),
    /// One of the lower layer, and perhaps one of the upper one over it.
    Lower { lower: Arc<dyn Inode>, upper: OnceCell<Arc<dyn Inode>> },
}

impl Layers {
    pub(crate) fn below(lower: Arc<dyn Inode>) -> Layers {
        Layers::Lower { lower, upper: OnceCell::uninit() }
    }

    pub(crate) fn both(lower: Arc<dyn Inode>, upper: Arc<dyn Inode>) -> Layers {
        Layers::Lower { lower, upper: OnceCell::new(upper) }
    }
}

/// Where an inode that is only below has to be copied to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: Arc<[u8]>,
}

/// An inode of an overlay.
pub(crate) struct Node {
    pub(crate) volume: Arc<Volume>,
    this: Weak<Node>,
    pub(crate) identity: Identity,
    layers: Layers,
    /// `None` when it has lost that name, and for inodes that never need it.
    pub(crate) place: SpinLock<Option<Place>>,
    /// Names that an inode which is only below has lost or won.
    links_change: AtomicI32,
    /// A folder that was removed.
    pub(crate) is_removed: AtomicBool,
}

impl Node {
    pub(crate) fn new(volume: Arc<Volume>, identity: Identity, layers: Layers, place: Option<Place>) -> Arc<Node> {
        Arc::new_cyclic(|this| Node {
            volume,
            this: this.clone(),
            identity,
            layers,
            place: SpinLock::new(place),
            links_change: AtomicI32::new(0),
            is_removed: AtomicBool::new(false),
        })
    }

    pub(crate) fn this(&self) -> Result<Arc<Node>> {
        self.this.upgrade().ok_or(Errno::EIO)
    }

    /// The inode of an overlay's tree behind what the path walk holds.
    pub(crate) fn of(inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
        let any: Arc<dyn Any + Send + Sync> = inode.clone();
        any.downcast().map_err(|_| Errno::EXDEV)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.real().core().kind
    }

    pub(crate) fn lower(&self) -> Option<&Arc<dyn Inode>> {
        match &self.layers {
            Layers::Lower { lower, .. } => Some(lower),
            Layers::Upper(_) => None,
        }
    }

    pub(crate) fn upper(&self) -> Option<&Arc<dyn Inode>> {
        match &self.layers {
            Layers::Upper(upper) => Some(upper),
            Layers::Lower { upper, .. } => upper.get(),
        }
    }

    /// The one that answers.
    pub(crate) fn real(&self) -> &Arc<dyn Inode> {
        match &self.layers {
            Layers::Upper(upper) => upper,
            Layers::Lower { lower, upper } => upper.get().unwrap_or(lower),
        }
    }

    /// The copy is ready: from now on it answers.
    pub(crate) fn set_upper(&self, copy: Arc<dyn Inode>) {
        if let Layers::Lower { upper, .. } = &self.layers {
            upper.init_once(|| copy);
        }
    }

    /// How many names it has.
    pub(crate) fn links(&self) -> u32 {
        let links = self.real().metadata().attributes.links;
        match (&self.layers, self.upper()) {
            _ if self.is_removed.load(Ordering::Acquire) => 0,
            // Where both layers may have folders nobody counts them; 1 tells programs not to rely on it.
            (Layers::Lower { lower, .. }, Some(_)) if self.kind() == Kind::Directory => {
                if lower.metadata().attributes.links == 2 { links } else { 1 }
            }
            (_, Some(_)) => links,
            (_, None) => links.saturating_add_signed(self.links_change.load(Ordering::Acquire)),
        }
    }

    /// Whether it is a lower file with several names, so that a change must be seen through all of them.
    fn has_other_names(&self) -> bool {
        self.lower().is_some_and(|lower| lower.core().kind != Kind::Directory && lower.metadata().attributes.links > 1)
    }

    /// Keeps it, if it was changed and other names lead to it through the lower layer; or no longer.
    pub(crate) fn keep_while_named(&self) {
        let (Some(lower), true) = (self.lower(), self.has_other_names()) else { return };
        let number = lower.core().number;
        match self.this() {
            Ok(this) if self.links() > 0 => self.volume.keep(number, this),
            _ => self.volume.release(number),
        }
    }

    /// Notes that it lost the name `name` in `parent`. `was_above`: the upper layer has counted that already.
    pub(crate) fn lost_name(&self, parent: &Node, name: &[u8], was_above: bool) {
        let is_place = |place: &Place| core::ptr::eq(&*place.parent, parent) && *place.name == *name;
        let before = {
            let mut place = self.place.lock();
            if place.as_ref().is_some_and(is_place) { place.take() } else { None }
        };
        drop(before);
        match self.upper() {
            Some(_) if was_above => {}
            Some(upper) => {
                let mut attributes = upper.core().attributes.lock();
                attributes.links = attributes.links.saturating_sub(1);
            }
            None => {
                self.links_change.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if let Some(upper) = self.upper()
            && self.links() == 0
        {
            self.volume.forget(upper);
        }
        self.keep_while_named();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.volume.retire(self.identity);
        // The last user of a deep place would drop its parents recursively, one stack frame a level: do it in a loop instead.
        let mut place = self.place.lock().take();
        while let Some(parent) = place.and_then(|place| Arc::into_inner(place.parent)) {
            place = parent.place.lock().take();
        }
    }
}

impl Inode for Node {
    fn core(&self) -> &InodeCore {
        self.real().core()
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = self.real().metadata();
        metadata.device = self.volume.device;
        metadata.number = self.identity.number();
        metadata.attributes.links = self.links();
        metadata
    }

    fn permissions(&self) -> Permissions {
        self.real().permissions()
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        self.find(name)
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, owner: NewOwner) -> Io<'a, Arc<dyn Inode>> {
        Io::wait(self.add_new(name, node, owner))
    }

    fn create_nameless(&self, owner: NewOwner) -> Io<'_, Arc<dyn Inode>> {
        Io::wait(async move {
            let upper = self.volume.upper.create_nameless(owner).await?;
            Ok(self.volume.of_upper(upper, None)? as Arc<dyn Inode>)
        })
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Io<'a, ()> {
        Io::wait(self.add_name(name, target))
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        Io::wait(self.remove_name(name))
    }

    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        Io::wait(self.remove_folder(name))
    }

    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        new_parent: &'a Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Io<'a, ()> {
        Io::wait(self.move_name(name, new_parent, new_name, mode))
    }

    fn read_link(&self) -> Io<'_, Vec<u8>> {
        self.real().read_link()
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        self.list(position)
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        match self.upper() {
            Some(upper) => upper.change(change),
            None => Io::wait(async move { self.copy_up(change.size.unwrap_or(u64::MAX)).await?.change(change).await }),
        }
    }

    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        self.real().read_page(index, page)
    }

    fn read_pages<'a>(&'a self, first: u64, pages: &'a [Page]) -> Io<'a, ()> {
        self.real().read_pages(first, pages)
    }

    fn is_hole(&self, index: u64) -> bool {
        self.real().is_hole(index)
    }

    fn max_size(&self) -> u64 {
        self.real().max_size()
    }

    fn prepare_writing(&self, keeps: u64) -> Io<'_, ()> {
        match self.upper() {
            Some(_) => Io::ready(Ok(())),
            None => Io::wait(self.copy_up_to_write(keeps)),
        }
    }

    fn content(&self) -> Option<Arc<dyn Inode>> {
        Some(self.real().content().unwrap_or_else(|| self.real().clone()))
    }

    fn reserve_page(&self, index: u64) -> Io<'_, ()> {
        self.real().reserve_page(index)
    }

    fn write_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        self.real().write_page(index, page)
    }

    fn sync(&self, data_only: bool) -> Io<'_, ()> {
        self.real().sync(data_only)
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus { magic: MAGIC, ..self.volume.upper.file_system() }
    }

    fn extended_attribute<'a>(&'a self, name: &'a [u8]) -> Io<'a, Vec<u8>> {
        self.real().extended_attribute(name)
    }

    fn extended_attribute_names(&self) -> Io<'_, Vec<u8>> {
        self.real().extended_attribute_names()
    }
}
