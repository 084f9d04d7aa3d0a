//! What a file system is: the contract between the kernel and the file systems, and what they all share.
//!
//! A file system is only its format. It implements [`Inode`] for its files and folders; everything else is here, once: the
//! walk along a path, the cache of names, mounts, permissions, the page cache, open files with their cursors, pipes.
//!
//! Two rules shape the contract:
//!
//! - **Answer at once what is known.** A method that may have to wait for a device returns [`Io`]: either the result, or a
//!   boxed future. What is cached costs no allocation and no task switch.
//! - **A file never blocks.** Reading and writing are attempts ([`FileOps::try_read`]); an attempt that cannot go on says why
//!   ([`Stop`]), and the kernel waits in one place, where signals, time limits and user-memory faults are handled for every call.
//!
//! Next: `inode.rs`. Exercise: follow a `read(2)` of an uncached page from `Stop::Miss` to the copied bytes.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[cfg(any(test, feature = "conformance"))]
extern crate std;

pub mod buffer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod context;
pub mod dentry;
pub mod directory_file;
pub mod environment;
pub mod file;
pub mod file_system;
pub mod inode;
pub mod io;
pub mod locks;
pub mod mount;
mod mount_table;
pub mod operations;
pub mod page_cache;
pub mod path;
pub mod permission;
pub mod pipe;
pub mod regular_file;
pub mod walk;

pub use abi::{Errno, Result};
pub use buffer::{Sink, Source};
pub use context::{At, Caller, FsContext};
pub use drivers::BoxFuture;
pub use drivers::hw::{PAGE_SIZE, Page, PageSource};
pub use file::{FileOps, IoctlArgument, OpenFile, OpenFlags, PollEvents, Stop};
pub use file_system::FileSystem;
pub use inode::{Attributes, DirectoryEntry, Inode, InodeCore, Kind, Metadata, NewNode};
pub use io::Io;
pub use mount::{Mount, MountFlags, MountNamespace};
pub use operations::TimeChange;
pub use page_cache::{Mapper, PageCache};
pub use path::Path;
pub use permission::{Access, Capabilities, Credentials};
pub use walk::WalkFlags;
