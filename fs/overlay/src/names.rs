//! Adding, moving and removing entries.
//!
//! What the lower layer has under a name must be hidden when the name goes, and must stay hidden when another thing takes the
//! name. Each change is prepared in the work folder where it takes several steps, and then put in place by one rename, so that
//! who looks meanwhile sees the state before or after, and a failure leaves the state before.
//!
//! The caller holds the path walk's locks of the folders; `changes` keeps copies from below away meanwhile.
//!
//! Next: `options.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use fs::inode::{NewOwner, RenameMode};
use fs::{Errno, Inode, Kind, NewNode, Result, environment};

use crate::node::Node;
use crate::volume::{Volume, find, is_whiteout};

/// A whiteout: a character device with the number 0/0.
const WHITEOUT: NewNode<'static> = NewNode::Special(Kind::CharacterDevice, 0);

impl Volume {
    /// Puts a new whiteout into the work folder; returns its name there.
    async fn prepare_whiteout(&self) -> Result<alloc::string::String> {
        let name = self.temporary_name();
        let owner = NewOwner { mode: 0, uid: 0, gid: 0, time: environment::now() };
        self.work.create(name.as_bytes(), WHITEOUT, owner).await?;
        Ok(name)
    }

    /// Hides a name in an upper folder, whatever the folder has there: `there` says whether there is something.
    async fn hide(&self, folder: &Arc<dyn Inode>, name: &[u8], there: Option<Kind>) -> Result<()> {
        let temporary = self.prepare_whiteout().await?;
        let temporary = temporary.as_bytes();
        let mode = if there == Some(Kind::Directory) { RenameMode::Exchange } else { RenameMode::Replace };
        let moved = self.work.rename(temporary, folder, name, mode).await;
        match (moved, there) {
            // The folder is in the work folder now.
            (Ok(()), Some(Kind::Directory)) => self.discard_folder(temporary).await,
            (Ok(()), _) => Ok(()),
            (Err(errno), _) => {
                let _ = self.work.unlink(temporary).await;
                Err(errno)
            }
        }
    }

    /// Removes a folder of the work folder that holds nothing but whiteouts.
    async fn discard_folder(&self, name: &[u8]) -> Result<()> {
        if let Some(folder) = find(&self.work, name).await? {
            clear_whiteouts(&folder).await?;
            self.work.remove_directory(name).await?;
        }
        Ok(())
    }

    /// Puts what the work folder has under `temporary` in the place of a whiteout.
    async fn replace_whiteout(&self, temporary: &[u8], folder: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        self.work.rename(temporary, folder, name, RenameMode::Exchange).await?;
        self.work.unlink(temporary).await
    }
}

/// Removes all entries of an upper folder that has only whiteouts.
async fn clear_whiteouts(folder: &Arc<dyn Inode>) -> Result<()> {
    loop {
        let entries = folder.read_directory(0).await?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            folder.unlink(&entry.name).await?;
        }
    }
}

impl Node {
    /// Makes a new entry.
    pub(crate) async fn add_new(&self, name: &[u8], node: NewNode<'_>, owner: NewOwner) -> Result<Arc<dyn Inode>> {
        let changes = self.volume.changes.lock().await;
        let folder = Box::pin(self.upper_folder(&changes)).await?;
        let made = match find(&folder, name).await? {
            Some(there) if is_whiteout(&there) => {
                let temporary = self.volume.temporary_name();
                let made = self.volume.work.create(temporary.as_bytes(), node, owner).await?;
                if made.core().kind == Kind::Directory {
                    // It hides the lower folder of its name.
                    self.volume.set_merged(&made, None);
                }
                self.volume.replace_whiteout(temporary.as_bytes(), &folder, name).await?;
                made
            }
            Some(_) => return Err(Errno::EEXIST),
            None => folder.create(name, node, owner).await?,
        };
        Ok(self.volume.of_upper(made, None)? as Arc<dyn Inode>)
    }

    /// Gives an inode another name.
    pub(crate) async fn add_name(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Node::of(target)?;
        let upper = Box::pin(target.copy_up(u64::MAX)).await?;
        let changes = self.volume.changes.lock().await;
        let folder = Box::pin(self.upper_folder(&changes)).await?;
        match find(&folder, name).await? {
            Some(there) if is_whiteout(&there) => {
                let temporary = self.volume.temporary_name();
                self.volume.work.link(temporary.as_bytes(), &upper).await?;
                self.volume.replace_whiteout(temporary.as_bytes(), &folder, name).await?;
            }
            Some(_) => return Err(Errno::EEXIST),
            None => folder.link(name, &upper).await?,
        }
        target.keep_while_named();
        Ok(())
    }

    /// Removes a name that is not a folder's.
    pub(crate) async fn remove_name(&self, name: &[u8]) -> Result<()> {
        let changes = self.volume.changes.lock().await;
        let entry = Box::pin(self.entry(name)).await?;
        if entry.kind() == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        let there = self.above(name).await?.map(|inode| inode.core().kind);
        let folder = Box::pin(self.upper_folder(&changes)).await?;
        if self.below(name).await?.is_some() {
            Box::pin(self.volume.hide(&folder, name, there)).await?;
        } else {
            folder.unlink(name).await?;
        }
        entry.lost_name(self, name, there.is_some());
        Ok(())
    }

    /// Removes an empty folder.
    pub(crate) async fn remove_folder(&self, name: &[u8]) -> Result<()> {
        let changes = self.volume.changes.lock().await;
        let entry = Box::pin(self.entry(name)).await?;
        if entry.kind() != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !Box::pin(entry.read_merged(0)).await?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let there = self.above(name).await?;
        let folder = Box::pin(self.upper_folder(&changes)).await?;
        if self.below(name).await?.is_some() {
            let kind = there.as_ref().map(|_| Kind::Directory);
            Box::pin(self.volume.hide(&folder, name, kind)).await?;
        } else {
            if let Some(there) = &there {
                clear_whiteouts(there).await?;
            }
            folder.remove_directory(name).await?;
        }
        entry.is_removed.store(true, Ordering::Release);
        entry.lost_name(self, name, true);
        Ok(())
    }

    /// Moves an entry.
    pub(crate) async fn move_name(
        &self,
        name: &[u8],
        new_parent: &Arc<dyn Inode>,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let new_parent = Node::of(new_parent)?;
        let entry = Box::pin(self.entry(name)).await?;
        // Content is copied before anything is locked.
        Box::pin(entry.copy_up(u64::MAX)).await?;
        let target = match Box::pin(new_parent.entry(new_name)).await {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => Err(Errno::ENOENT),
            (RenameMode::Exchange, Some(target)) => {
                Box::pin(self.exchange(name, &entry, &new_parent, new_name, &target)).await
            }
            (_, target) => Box::pin(self.replace(name, &entry, &new_parent, new_name, target)).await,
        }
    }

    async fn exchange(
        &self,
        name: &[u8],
        entry: &Node,
        new_parent: &Node,
        new_name: &[u8],
        target: &Node,
    ) -> Result<()> {
        Box::pin(target.copy_up(u64::MAX)).await?;
        let changes = self.volume.changes.lock().await;
        let from = Box::pin(self.upper_folder(&changes)).await?;
        let to = Box::pin(new_parent.upper_folder(&changes)).await?;
        entry.name_above(&from, name).await?;
        target.name_above(&to, new_name).await?;
        for moved in [entry, target] {
            moved.fix_merge();
        }
        from.rename(name, &to, new_name, RenameMode::Exchange).await
    }

    async fn replace(
        &self,
        name: &[u8],
        entry: &Node,
        new_parent: &Node,
        new_name: &[u8],
        target: Option<Arc<Node>>,
    ) -> Result<()> {
        let changes = self.volume.changes.lock().await;
        let from = Box::pin(self.upper_folder(&changes)).await?;
        let to = Box::pin(new_parent.upper_folder(&changes)).await?;
        if let Some(target) = &target
            && target.kind() == Kind::Directory
            && !Box::pin(target.read_merged(0)).await?.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        // What can fail for want of room is done first.
        entry.name_above(&from, name).await?;
        let whiteout = match self.below(name).await? {
            Some(_) => Some(self.volume.prepare_whiteout().await?),
            None => None,
        };
        entry.fix_merge();
        let there = find(&to, new_name).await?;
        let moved = match &there {
            // Neither a folder over a whiteout nor one over a folder with whiteouts can simply be put there.
            Some(there) if is_whiteout(there) || there.core().kind == Kind::Directory => {
                Box::pin(self.move_over(&from, name, &to, new_name, there)).await
            }
            _ => from.rename(name, &to, new_name, RenameMode::Replace).await,
        };
        match (moved, whiteout) {
            (Ok(()), Some(whiteout)) => {
                self.volume.work.rename(whiteout.as_bytes(), &from, name, RenameMode::Replace).await?;
            }
            (Err(errno), whiteout) => {
                if let Some(whiteout) = whiteout {
                    let _ = self.volume.work.unlink(whiteout.as_bytes()).await;
                }
                return Err(errno);
            }
            (Ok(()), None) => {}
        }
        if let Some(target) = target {
            let is_folder = target.kind() == Kind::Directory;
            target.is_removed.store(is_folder, Ordering::Release);
            target.lost_name(new_parent, new_name, is_folder || there.is_some());
        }
        Ok(())
    }

    /// Exchanges an entry with the whiteout or empty folder at its new place, and removes that from the old one.
    async fn move_over(
        &self,
        from: &Arc<dyn Inode>,
        name: &[u8],
        to: &Arc<dyn Inode>,
        new_name: &[u8],
        there: &Arc<dyn Inode>,
    ) -> Result<()> {
        from.rename(name, to, new_name, RenameMode::Exchange).await?;
        if there.core().kind == Kind::Directory {
            clear_whiteouts(there).await?;
            from.remove_directory(name).await
        } else {
            from.unlink(name).await
        }
    }

    /// Before a name moves: if the upper layer has the inode but not under this name, because it came from below by several names,
    /// then it gets it there too. It is no new name, so it is not counted again.
    async fn name_above(&self, folder: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        if let (None, Some(upper)) = (find(folder, name).await?, self.upper()) {
            folder.link(name, upper).await?;
            let mut attributes = upper.core().attributes.lock();
            attributes.links = attributes.links.saturating_sub(1);
        }
        Ok(())
    }

    /// Before a folder moves: it stays merged with what it is merged with now, whatever its new name means below.
    fn fix_merge(&self) {
        if let Some(upper) = self.upper()
            && self.kind() == Kind::Directory
        {
            self.volume.set_merged(upper, self.lower().cloned());
        }
    }
}
