//! Descriptors under way: open files in a message (SCM_RIGHTS, unix(7)).
//!
//! A file in a queue may be a socket, in whose queue is a file that is a socket, and so on. Dropping such a chain by itself would
//! go as deep as the chain is long, on a stack that is not: so what is dropped is put on a list, and whoever finds nobody working on
//! that list empties it, one by one.
//!
//! How many files a user has under way is counted, and limited by the sender's RLIMIT_NOFILE.
//!
//! Next: `stream_queue.rs`. Exercise: who empties the list when a drop puts something on it?

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::mm::MakeRoom;
use abi::{Errno, Result};
use executor::sync::SpinLock;
use fs::OpenFile;

/// So many files go with one message.
pub const RIGHTS_MAX: usize = 253;

/// Open files on their way to another program.
pub struct Rights(Option<Box<Parcel>>);

struct Parcel {
    files: Vec<Arc<OpenFile>>,
    user: u32,
    /// The next on the list of what is to be dropped.
    next: Option<Box<Parcel>>,
}

struct Discarded {
    first: Option<Box<Parcel>>,
    is_being_emptied: bool,
}

static DISCARDED: SpinLock<Discarded> = SpinLock::new(Discarded { first: None, is_being_emptied: false });
/// How many files each user has under way.
static UNDER_WAY: SpinLock<BTreeMap<u32, usize>> = SpinLock::new(BTreeMap::new());

fn count(user: u32, files: usize, most: usize) -> Result<()> {
    let mut users = UNDER_WAY.lock();
    let now = users.entry(user).or_default();
    let total = now.saturating_add(files);
    if total > most {
        return Err(Errno::ETOOMANYREFS);
    }
    *now = total;
    Ok(())
}

fn uncount(user: u32, files: usize) {
    let mut users = UNDER_WAY.lock();
    if let Some(now) = users.get_mut(&user) {
        *now = now.saturating_sub(files);
        if *now == 0 {
            users.remove(&user);
        }
    }
}

impl Rights {
    /// Sends files on their way, on behalf of a user who may have `most` there.
    ///
    /// # Errors
    ///
    /// `ETOOMANYREFS`: more than that.
    pub fn new(files: Vec<Arc<OpenFile>>, user: u32, most: usize) -> Result<Rights> {
        count(user, files.len(), most)?;
        Ok(Rights(Some(Box::new(Parcel { files, user, next: None }))))
    }

    /// The same files once more: for a receiver that only peeks.
    pub fn copy(&self) -> Option<Rights> {
        let parcel = self.0.as_ref()?;
        let mut files = Vec::new();
        files.make_exact_room(parcel.files.len()).ok()?;
        files.extend(parcel.files.iter().cloned());
        Rights::new(files, parcel.user, usize::MAX).ok()
    }

    /// They have arrived.
    pub fn into_files(mut self) -> Vec<Arc<OpenFile>> {
        let Some(mut parcel) = self.0.take() else { return Vec::new() };
        uncount(parcel.user, parcel.files.len());
        core::mem::take(&mut parcel.files)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let Some(mut parcel) = self.0.take() else { return };
        let mut discarded = DISCARDED.lock();
        parcel.next = discarded.first.take();
        discarded.first = Some(parcel);
        if discarded.is_being_emptied {
            return;
        }
        discarded.is_being_emptied = true;
        while let Some(mut parcel) = discarded.first.take() {
            discarded.first = parcel.next.take();
            drop(discarded);
            uncount(parcel.user, parcel.files.len());
            // May drop more rights, which find the list being emptied.
            drop(parcel);
            discarded = DISCARDED.lock();
        }
        discarded.is_being_emptied = false;
    }
}
