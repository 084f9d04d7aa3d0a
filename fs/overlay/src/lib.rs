//! overlay: a folder that can be written, laid over one that cannot. So a Debian on a read-only disk becomes a system to work in.
//!
//! What is in the *upper* folder hides what has the same name in the *lower* one; folders of the same name are merged. Nothing
//! is ever written to the lower one: what changes there is first copied up, and what is removed gets a *whiteout* in the upper.
//!
//! ```text
//!   lower (ext4)         upper (tmpfs)            what is seen
//!   etc/                 etc/                     etc/             merged
//!     hostname             hostname                 hostname       copied up, changed
//!     passwd                                        passwd         from below
//!     motd                 motd  (whiteout)                        removed
//!   usr/                                          usr/             from below
//! ```
//!
//! - `volume.rs`: what all inodes share: which are alive, and what the upper layer says of itself. `node.rs`: an inode.
//! - `folder.rs`: looking up and listing in merged folders. `copy_up.rs`: copying from below. `names.rs`: adding, moving,
//!   removing entries. `options.rs`: the options of mount(2).
//!
//! Where it is kinder than Linux's overlayfs by default: folders from below can be renamed, two names of one lower file stay one
//! file when it is changed, an inode keeps its number when it is copied up. As there, a file opened for reading only goes on reading
//! the lower content after somebody else has opened it for writing.
//!
//! In the upper layer, a whiteout is a character device 0/0, as overlayfs writes it, and `trusted.overlay.opaque` is understood. What
//! a moved folder is merged with is kept in memory only, so the upper layer should be one that lives in memory too.
//!
//! Exercise: why does a listing begin with the names from below? Next: `xtask`, which makes the disk to lay it over.
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

mod copy_up;
mod folder;
mod names;
mod node;
mod options;
mod volume;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::sync::Arc;

use fs::inode::{NewNode, NewOwner};
use fs::{Errno, FileSystem, Inode, Kind, Path, Result, environment};

pub use crate::options::Options;
use crate::volume::Volume;

/// A folder that becomes a layer, with what keeps it there.
pub enum Layer {
    /// The root of a file system that is not mounted elsewhere.
    FileSystem(Arc<dyn FileSystem>),
    /// A folder of a mounted file system, which stays busy.
    Path(Path),
}

impl Layer {
    fn folder(&self) -> Result<Arc<dyn Inode>> {
        let folder = match self {
            Layer::FileSystem(file_system) => file_system.root(),
            Layer::Path(path) => path.inode().clone(),
        };
        if folder.core().kind == Kind::Directory { Ok(folder) } else { Err(Errno::ENOTDIR) }
    }
}

/// An overlay.
pub struct Overlay {
    volume: Arc<Volume>,
    root: Arc<node::Node>,
    options: String,
    _layers: [Layer; 2],
}

impl Overlay {
    /// Lays `upper` over `lower`. `work` is a folder of the same file system as `upper` but not inside it, empty, for what is being
    /// prepared; `options` is what /proc/mounts shows.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`: one is not a folder. `EINVAL`: `work` is `upper`, or of another file system.
    pub fn new(lower: Layer, upper: Layer, work: &Layer, options: String) -> Result<Arc<Overlay>> {
        let (below, above, work) = (lower.folder()?, upper.folder()?, work.folder()?);
        if Arc::ptr_eq(&above, &work) || above.core().device != work.core().device {
            return Err(Errno::EINVAL);
        }
        let volume = Volume::new(work, above.clone());
        let root = volume.root(below, above);
        Ok(Arc::new(Overlay { volume, root, options, _layers: [lower, upper] }))
    }

    /// Lays an empty file system that can be written over another one.
    ///
    /// # Errors
    ///
    /// As [`Overlay::new`]; `EEXIST`: `upper` is not empty.
    pub async fn over(lower: Arc<dyn FileSystem>, upper: Arc<dyn FileSystem>) -> Result<Arc<Overlay>> {
        let root = upper.root();
        let below = lower.root().metadata().attributes;
        let owner = NewOwner { mode: below.mode, uid: below.uid, gid: below.gid, time: environment::now() };
        let above = root.create(b"upper", NewNode::Directory, owner).await?;
        let private = NewOwner { mode: 0, uid: 0, gid: 0, time: owner.time };
        let work = root.create(b"work", NewNode::Directory, private).await?;
        let volume = Volume::new(work, above.clone());
        let root = volume.root(lower.root(), above);
        let layers = [Layer::FileSystem(lower), Layer::FileSystem(upper)];
        Ok(Arc::new(Overlay { volume, root, options: String::new(), _layers: layers }))
    }
}

impl FileSystem for Overlay {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn type_name(&self) -> &'static str {
        "overlay"
    }

    fn options(&self) -> String {
        self.options.clone()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.volume.close();
    }
}
