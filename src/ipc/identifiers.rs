//! Identifiers and keys of System V objects, and who may use them (sysvipc(7)).
//!
//! An identifier is an index into a table and, above it, how often the table has begun anew: an old identifier does not find what
//! has its index now.
//!
//! Next: `semaphores.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result, ipc};
use fs::Credentials;
use fs::permission::Capabilities;

use crate::mm::MakeRoom;
use crate::wall_clock;

/// Bits of the index in an identifier; the rest counts.
const INDEX_BITS: u32 = 15;
/// Where the count begins anew: identifiers are not negative.
const SEQUENCES: u32 = 1 << (31 - INDEX_BITS);

/// The right to read an object, of whichever class.
pub const READ: u32 = 0o444;
/// The right to alter it.
pub const ALTER: u32 = 0o222;

/// Nanoseconds since 1970, as objects note when something was done to them: they are divided when somebody asks.
pub fn now() -> u64 {
    wall_clock::offset().saturating_add(crate::arch::clock::now().as_nanos())
}

/// The seconds of such a time.
pub fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000_000
}

/// What an object's name, owner and permissions are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// What it is found by.
    pub key: i32,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Who made it.
    pub creator_uid: u32,
    /// The group of who made it.
    pub creator_gid: u32,
    /// The lowest nine bits of a file's mode.
    pub mode: u32,
}

impl Ownership {
    /// Of an object that this caller makes.
    pub fn new(key: i32, flags: u32, credentials: &Credentials) -> Ownership {
        let Credentials { euid, egid, .. } = *credentials;
        Ownership { key, uid: euid, gid: egid, creator_uid: euid, creator_gid: egid, mode: flags & 0o777 }
    }

    /// `struct ipc64_perm` on x86_64.
    pub fn words(&self, sequence: u16) -> [u64; 6] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let Ownership { key, uid, gid, creator_uid, creator_gid, mode } = *self;
        [pair(key as u32, uid), pair(gid, creator_uid), pair(creator_gid, mode), sequence.into(), 0, 0]
    }

    /// The same with owner and permissions of a `struct ipc64_perm`: IPC_SET.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no such user or group.
    pub fn changed(self, words: &[u64]) -> Result<Ownership> {
        let [first, second, third, ..] = *words else { return Err(Errno::EINVAL) };
        let (uid, gid, mode) = ((first >> 32) as u32, second as u32, (third >> 32) as u32);
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        Ok(Ownership { uid, gid, mode: self.mode & !0o777 | mode & 0o777, ..self })
    }

    /// Checks for the rights in the lowest nine bits of `wanted`, of whichever class (`0o444` to read, `0o222` to alter).
    ///
    /// # Errors
    ///
    /// `EACCES`.
    pub fn check(&self, credentials: &Credentials, wanted: u32) -> Result<()> {
        let wanted = wanted >> 6 | wanted >> 3 | wanted;
        let granted = if [self.uid, self.creator_uid].contains(&credentials.euid) {
            self.mode >> 6
        } else if credentials.is_in_group(self.gid) || credentials.is_in_group(self.creator_gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 0o7 == 0 || credentials.can(Capabilities::IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Checks that the caller may change or remove the object.
    ///
    /// # Errors
    ///
    /// `EPERM`.
    pub fn check_control(&self, credentials: &Credentials) -> Result<()> {
        let is_owner = [self.uid, self.creator_uid].contains(&credentials.euid);
        if is_owner || credentials.can(Capabilities::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// What has an identifier.
pub trait Identified {
    /// Its identifier.
    fn id(&self) -> i32;
    /// Its key.
    fn key(&self) -> i32;
    /// How often the table had begun anew when it was made.
    fn sequence(&self) -> u16 {
        // As many as SEQUENCES.
        (self.id() >> INDEX_BITS) as u16
    }
}

/// The objects of one kind, by identifier.
pub struct Identifiers<T> {
    slots: Vec<Option<Arc<T>>>,
    count: usize,
    /// The index that was given away last.
    last: Option<usize>,
    sequence: u32,
}

impl<T: Identified> Identifiers<T> {
    /// None.
    pub const fn empty() -> Identifiers<T> {
        Identifiers { slots: Vec::new(), count: 0, last: None, sequence: 0 }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The largest index in use, or 0.
    pub fn largest_index(&self) -> usize {
        self.slots.iter().rposition(Option::is_some).unwrap_or(0)
    }

    /// All of them, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.slots.iter().flatten()
    }

    /// The object with this identifier.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none.
    pub fn get(&self, id: i32) -> Result<Arc<T>> {
        let found = self.at(id)?;
        if found.id() == id { Ok(found) } else { Err(Errno::EINVAL) }
    }

    /// The object whose identifier has the same index as this one.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is none.
    pub fn at(&self, id: i32) -> Result<Arc<T>> {
        let index = usize::try_from(id).map_err(|_| Errno::EINVAL)? & ((1 << INDEX_BITS) - 1);
        self.slots.get(index).cloned().flatten().ok_or(Errno::EINVAL)
    }

    /// The object with this key.
    pub fn find(&self, key: i32) -> Option<Arc<T>> {
        if key == ipc::IPC_PRIVATE {
            return None;
        }
        self.iter().find(|object| object.key() == key).cloned()
    }

    /// Adds what `make` makes of its identifier.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are `most` already. `ENOMEM`.
    pub fn add(&mut self, most: usize, make: impl FnOnce(i32) -> Arc<T>) -> Result<i32> {
        if self.count >= most {
            return Err(Errno::ENOSPC);
        }
        let index = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.slots.make_room(1)?;
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if self.last.is_some_and(|last| index <= last) {
            self.sequence = (self.sequence + 1) % SEQUENCES;
        }
        self.last = Some(index);
        // Both fit: the table has no more places than `most`, and the sequence begins anew in time.
        let id = (self.sequence << INDEX_BITS) as i32 | index as i32;
        self.slots[index] = Some(make(id));
        self.count += 1;
        Ok(id)
    }

    /// Takes the object with this identifier out, if it is there.
    pub fn remove(&mut self, id: i32) -> Option<Arc<T>> {
        let found = self.get(id).ok()?;
        let slot = self.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, &found)))?;
        *slot = None;
        self.count -= 1;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Object(i32, i32);

    impl Identified for Object {
        fn id(&self) -> i32 {
            self.0
        }
        fn key(&self) -> i32 {
            self.1
        }
    }

    #[test]
    fn an_old_identifier_does_not_find_what_has_its_place_now() {
        let mut table = Identifiers::empty();
        let add = |table: &mut Identifiers<Object>, key| table.add(2, |id| Arc::new(Object(id, key)));
        let (first, second) = (add(&mut table, 7), add(&mut table, 0));
        assert_eq!((first, second), (Ok(0), Ok(1)));
        assert_eq!(add(&mut table, 8), Err(Errno::ENOSPC));
        assert!(table.find(7).is_some() && table.find(0).is_none());
        assert!(table.remove(0).is_some() && table.remove(0).is_none());
        assert_eq!(add(&mut table, 9), Ok(1 << INDEX_BITS));
        assert_eq!(table.get(0).err(), Some(Errno::EINVAL));
        assert_eq!(table.at(0).map(|object| object.key()), Ok(9));
        assert_eq!((table.len(), table.largest_index()), (2, 1));
    }

    #[test]
    fn the_owner_the_group_and_others_have_each_their_own_rights() {
        let ownership = Ownership { gid: 5, ..Ownership::new(1, 0o640, &Credentials::user(10, 20)) };
        let may = |uid, gid, wanted| ownership.check(&Credentials::user(uid, gid), wanted);
        assert_eq!(may(10, 1, 0o222), Ok(()));
        assert_eq!((may(11, 5, 0o444), may(11, 20, 0o444)), (Ok(()), Ok(())));
        assert_eq!((may(11, 5, 0o222), may(11, 6, 0o444)), (Err(Errno::EACCES), Err(Errno::EACCES)));
        assert_eq!(ownership.check(&Credentials::root(), 0o666), Ok(()));
        assert_eq!(ownership.check_control(&Credentials::user(11, 5)), Err(Errno::EPERM));
    }
}
