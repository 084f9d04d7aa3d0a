//! What stat(2) tells of an inode, and what can be changed about it.
//!
//! Next: `common.rs`.

use super::Kind;
use crate::{Credentials, environment};

/// A point in time since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds below a second.
    pub nanoseconds: u32,
}

/// What can change about an inode while it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky: the lower 12 bits of `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u32,
    /// Storage used, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of the attributes.
    pub changed: Timestamp,
}

impl Attributes {
    /// Those of something new that is in no folder, such as a pipe or a socket: made now, by `owner`.
    pub fn anonymous(mode: u32, owner: &Credentials) -> Attributes {
        let now = environment::now();
        Attributes {
            mode,
            uid: owner.fsuid,
            gid: owner.fsgid,
            links: 1,
            accessed: now,
            modified: now,
            changed: now,
            ..Attributes::default()
        }
    }
}

/// The part of the attributes that decides who may do what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// The lower 12 bits of `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What stat(2) tells: a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The device number of the file system.
    pub device: u64,
    /// The inode's number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// For device nodes, which device.
    pub represents: u64,
    /// The preferred unit of reading.
    pub block_size: u32,
    /// The rest.
    pub attributes: Attributes,
}

impl Metadata {
    /// `st_mode`: kind and permissions.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.attributes.mode
    }
}

/// A change of attributes, as chmod, chown, utimensat and truncate ask for; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttributeChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length: content beyond it is dropped, a gap reads as zeros.
    pub size: Option<u64>,
    /// New access time.
    pub accessed: Option<Timestamp>,
    /// New modification time.
    pub modified: Option<Timestamp>,
    /// New change time; the caller always sets it to now.
    pub changed: Option<Timestamp>,
}
