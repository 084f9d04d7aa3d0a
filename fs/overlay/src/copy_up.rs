//! Copying from the lower layer to the upper one, before a change.
//!
//! A file's content is copied into a nameless upper file first, page by page, without keeping others from changing names; only
//! then does it get its name, in one step. So a copy that fails or is dropped half-way leaves nothing behind. The folders above it
//! are copied first, without their content.
//!
//! All this is rare and deep, so its steps are boxed: the futures that wait on them stay small.
//!
//! Next: `names.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::inode::{AttributeChange, Attributes, NewOwner};
use fs::page_cache::READ_AHEAD_AT_MOST;
use fs::{Errno, Inode, Kind, NewNode, PAGE_SIZE, Page, Result};

use crate::node::{Node, Place};
use crate::volume::Changes;

/// So many pages are copied before others may run.
const PAGES_AT_ONCE: u64 = 64;

impl Node {
    /// As [`Node::copy_up`], for somebody who is going to write the content.
    ///
    /// # Errors
    ///
    /// `ETXTBSY`: it is being executed. Those of [`Node::copy_up`].
    pub(crate) async fn copy_up_to_write(&self, keeps: u64) -> Result<()> {
        // Refused before anything is cut off.
        let core = self.core();
        core.begin_writing()?;
        core.end_writing();
        self.copy_up(keeps).await.map(drop)
    }

    /// Makes sure that it is in the upper layer, with the first `keeps` bytes of its content.
    ///
    /// # Errors
    ///
    /// `ENOENT`: a folder that was removed. `EIO`, `ENOSPC`, `ENOMEM`.
    ///
    /// # Cancel safety
    ///
    /// A dropped copy leaves nothing behind but, perhaps, folders above it that were copied already.
    pub(crate) async fn copy_up(&self, keeps: u64) -> Result<Arc<dyn Inode>> {
        let lower = match (self.upper(), self.lower()) {
            (Some(upper), _) => return Ok(upper.clone()),
            (None, Some(lower)) => lower,
            (None, None) => return Err(Errno::EIO),
        };
        match lower.core().kind {
            Kind::Directory => {
                let changes = self.volume.changes.lock().await;
                Box::pin(self.upper_folder(&changes)).await
            }
            Kind::Regular => {
                let _copying = self.volume.copying.lock().await;
                if let Some(upper) = self.upper() {
                    return Ok(upper.clone());
                }
                let copy = Box::pin(self.copy_of_content(lower, keeps)).await?;
                Box::pin(self.name_copy(lower, copy)).await
            }
            kind => {
                let _copying = self.volume.copying.lock().await;
                let target = if kind == Kind::Symlink { lower.read_link().await? } else { Vec::new() };
                let node = match kind {
                    Kind::Symlink => NewNode::Symlink(&target),
                    kind => NewNode::Special(kind, lower.core().represents),
                };
                Box::pin(self.copy_in_place(lower, node)).await
            }
        }
    }

    /// A nameless upper file with the attributes of the lower one and the beginning of its content.
    async fn copy_of_content(&self, lower: &Arc<dyn Inode>, keeps: u64) -> Result<Arc<dyn Inode>> {
        let attributes = lower.metadata().attributes;
        let copy = self.volume.upper.create_nameless(owner(&attributes)).await?;
        let size = attributes.size.min(keeps);
        if size > 0 {
            copy.change(AttributeChange { size: Some(size), ..AttributeChange::default() }).await?;
        }
        for index in 0..size.div_ceil(PAGE_SIZE as u64) {
            // What is in memory below is copied without waiting for anything: others run in between.
            if index % PAGES_AT_ONCE == PAGES_AT_ONCE - 1 {
                executor::yield_now().await;
            }
            let from = lower.core().pages.load_ahead(&**lower, index, READ_AHEAD_AT_MOST).await?;
            let len = (size - index * PAGE_SIZE as u64).min(PAGE_SIZE as u64) as usize;
            if !is_zero(&from, len) {
                let to = copy.core().pages.load_for_write(&*copy, index).await?;
                to.copy_from(&from);
                to.zero(len, PAGE_SIZE - len);
                copy.core().pages.mark_dirty(index);
            }
        }
        restore(&copy, &attributes).await?;
        Ok(copy)
    }

    /// Gives the copy its name, if the file still has one.
    async fn name_copy(&self, lower: &Arc<dyn Inode>, copy: Arc<dyn Inode>) -> Result<Arc<dyn Inode>> {
        let changes = self.volume.changes.lock().await;
        let place = self.place.lock().clone();
        if let Some(Place { parent, name }) = place {
            let folder = parent.upper_folder(&changes).await?;
            let before = folder.metadata().attributes;
            folder.link(&name, &copy).await?;
            restore(&folder, &before).await?;
        }
        self.publish_copy(lower, &copy);
        Ok(copy)
    }

    /// Makes a copy that has no content, under its name.
    async fn copy_in_place(&self, lower: &Arc<dyn Inode>, node: NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let changes = self.volume.changes.lock().await;
        if let Some(upper) = self.upper() {
            return Ok(upper.clone());
        }
        let attributes = lower.metadata().attributes;
        let place = self.place.lock().clone();
        let copy = match place {
            Some(Place { parent, name }) => {
                let folder = parent.upper_folder(&changes).await?;
                let before = folder.metadata().attributes;
                let copy = folder.create(&name, node, owner(&attributes)).await?;
                restore(&folder, &before).await?;
                copy
            }
            None => {
                let name = self.volume.temporary_name();
                let copy = self.volume.work.create(name.as_bytes(), node, owner(&attributes)).await?;
                self.volume.work.unlink(name.as_bytes()).await?;
                copy
            }
        };
        restore(&copy, &attributes).await?;
        self.publish_copy(lower, &copy);
        Ok(copy)
    }

    /// From now on the copy is the file. It counts all names of the file, wherever they lead through.
    fn publish_copy(&self, lower: &Arc<dyn Inode>, copy: &Arc<dyn Inode>) {
        let links = self.links();
        let has_name = links > 0;
        copy.core().attributes.lock().links = links;
        if has_name {
            self.volume.set_origin(copy, lower);
        }
        self.set_upper(copy.clone());
        // Who executes it was counted below, and will be discounted above.
        lower.core().hand_over_users(copy.core());
        self.keep_while_named();
    }

    /// The upper folder of a folder, copied with all those above it if need be.
    ///
    /// # Errors
    ///
    /// `ENOENT`: it was removed. `ENOSPC`, `ENOMEM`.
    pub(crate) async fn upper_folder(&self, _changes: &Changes<'_>) -> Result<Arc<dyn Inode>> {
        let mut missing = Vec::new();
        let mut at = self.this()?;
        let mut upper = loop {
            if let Some(upper) = at.upper() {
                break upper.clone();
            }
            let Place { parent, name } = at.place.lock().clone().ok_or(Errno::ENOENT)?;
            missing.push((at, name));
            at = parent;
        };
        while let Some((folder, name)) = missing.pop() {
            let lower = folder.lower().ok_or(Errno::EIO)?;
            let (attributes, before) = (lower.metadata().attributes, upper.metadata().attributes);
            let copy = upper.create(&name, NewNode::Directory, owner(&attributes)).await?;
            restore(&upper, &before).await?;
            restore(&copy, &attributes).await?;
            folder.set_upper(copy.clone());
            upper = copy;
        }
        Ok(upper)
    }
}

fn owner(attributes: &Attributes) -> NewOwner {
    NewOwner { mode: attributes.mode, uid: attributes.uid, gid: attributes.gid, time: attributes.changed }
}

/// Gives an upper inode the attributes that copying must not change.
async fn restore(upper: &Arc<dyn Inode>, attributes: &Attributes) -> Result<()> {
    let change = AttributeChange {
        mode: Some(attributes.mode),
        accessed: Some(attributes.accessed),
        modified: Some(attributes.modified),
        changed: Some(attributes.changed),
        ..AttributeChange::default()
    };
    upper.change(change).await
}

/// Whether the first `len` bytes of a page are zeros: such pages stay holes.
fn is_zero(page: &Page, len: usize) -> bool {
    const STEP: usize = 256;
    let mut bytes = [0; STEP];
    (0..len).step_by(STEP).all(|offset| {
        let part = &mut bytes[..STEP.min(len - offset)];
        page.read(offset, part);
        part.iter().all(|byte| *byte == 0)
    })
}
