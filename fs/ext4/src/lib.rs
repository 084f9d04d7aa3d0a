//! ext4, and with it ext2 and ext3: reading the file system of most Linux disks.
//!
//! [`mount`] checks the superblock and returns the volume as an [`fs::FileSystem`]; everything else happens through its root. The
//! device is never written. Writing needs an overlay on top (`fs/overlay`).
//!
//! ```text
//!   node.rs       answers what fs::Inode asks
//!     directory.rs  hash_tree.rs + hash.rs   names         content.rs   pages        xattr.rs  inline.rs
//!     inode.rs  group.rs    where inodes are               extent.rs  block_map.rs   where content is
//!   view.rs       runs that code: at once over cached blocks, again after each block that had to be read
//!   volume.rs     what is shared: inodes and blocks in memory          superblock.rs  journal.rs
//!   cache.rs  disk.rs     blocks in memory, blocks from the device
//! ```
//!
//! Nothing read from disk is trusted: every number is checked where it is used, every loop is bounded, and damage ends in
//! `EUCLEAN` (what is written makes no sense) or `EIO` (a checksum is wrong, or the device failed), with a line in the log.
//!
//! What is known: 64-bit block numbers, flexible and meta block groups, metadata checksums, extents and block maps, inline
//! data, indexed folders, large files, folders and attributes, clusters, a journal to be recovered (in memory). What is refused:
//! encryption, case folding, compression, journals elsewhere, fast commits.
//!
//! Exercise: which of the blocks that a lookup needs is read first, and by which line? Next: `superblock.rs`.
#![cfg_attr(not(test), no_std)]
#![warn(unreachable_pub)]

extern crate alloc;

mod block_map;
mod bytes;
mod cache;
mod checksum;
mod content;
mod directory;
mod disk;
mod extent;
mod group;
mod hash;
mod hash_tree;
mod inline;
mod inode;
mod journal;
mod node;
mod superblock;
mod view;
mod volume;
mod xattr;

pub use volume::{Ext4, Limits, mount};
