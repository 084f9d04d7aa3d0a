//! devpts: the file system of /dev/pts, in which each pseudo-terminal's slave has a node by its number for as long as its master is
//! open, and `ptmx` makes new ones.
//!
//! The folder is made when it is asked for, from the list of terminals. A node's owner and permissions can be changed (grantpt(3),
//! mesg(1)), so nodes are kept while their terminal exists.
//!
//! Next: `src/syscall/table.rs`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use executor::sync::SpinLock;
use fs::environment::{anonymous_device, make_device, now};
use fs::inode::{AttributeChange, FileSystemStatus};
use fs::{Attributes, DirectoryEntry, FileOps, FileSystem, Inode, InodeCore, Io, Kind, OpenFlags, PageSource};

use super::pty::{MULTIPLEXER, SLAVE_MAJOR};
use super::terminal::Terminal;
use super::terminals::Terminals;
use crate::tty::{Errno, Result, rank};

/// Slaves belong to the group `tty`, which Debian gives this number, and which may write to them.
const TTY_GROUP: u32 = 5;
const SLAVE_MODE: u32 = 0o620;
/// Everybody may make pseudo-terminals.
const MULTIPLEXER_MODE: u32 = 0o666;
/// What statfs(2) calls devpts.
const MAGIC: u64 = 0x1cd1;

/// Inode numbers: the folder, ptmx, and the slaves behind them (as on Linux).
const ROOT: u64 = 1;
const PTMX: u64 = 2;
const FIRST_SLAVE: u64 = 3;

/// The file system.
pub struct Devpts {
    folder: Arc<Folder>,
}

/// A node that somebody has looked at, and whose it is.
type SeenNode = (Weak<Terminal>, Arc<Node>);

struct Folder {
    core: InodeCore,
    pages: &'static dyn PageSource,
    terminals: Arc<Terminals>,
    multiplexer: Arc<Node>,
    /// The nodes that somebody has looked at, each with its terminal.
    nodes: SpinLock<BTreeMap<u32, SeenNode>>,
}

/// A node of a terminal, or of the multiplexer.
struct Node {
    core: InodeCore,
    terminals: Arc<Terminals>,
    device: (u32, u32),
}

fn attributes(mode: u32, uid: u32, gid: u32, links: u32) -> Attributes {
    let time = now();
    Attributes { mode, uid, gid, size: 0, links, blocks: 0, accessed: time, modified: time, changed: time }
}

impl Devpts {
    /// The pseudo-terminals of `terminals` as a file system. It keeps no content; `pages` is what every inode is made with.
    pub fn new(pages: &'static dyn PageSource, terminals: Arc<Terminals>) -> Arc<Devpts> {
        let device = anonymous_device();
        let represents = make_device(MULTIPLEXER.0, MULTIPLEXER.1);
        let multiplexer = Arc::new(Node {
            core: InodeCore::new(
                pages,
                device,
                PTMX,
                Kind::CharacterDevice,
                represents,
                attributes(MULTIPLEXER_MODE, 0, 0, 1),
            ),
            terminals: terminals.clone(),
            device: MULTIPLEXER,
        });
        let core = InodeCore::new(pages, device, ROOT, Kind::Directory, 0, attributes(0o755, 0, 0, 2));
        let nodes = SpinLock::ordered(rank::NODES, BTreeMap::new());
        Arc::new(Devpts { folder: Arc::new(Folder { core, pages, terminals, multiplexer, nodes }) })
    }
}

impl FileSystem for Devpts {
    fn root(&self) -> Arc<dyn Inode> {
        self.folder.clone()
    }

    fn type_name(&self) -> &'static str {
        "devpts"
    }

    fn options(&self) -> String {
        format!("gid={TTY_GROUP},mode={SLAVE_MODE:o},ptmxmode={MULTIPLEXER_MODE:o}")
    }
}

impl Folder {
    fn node(&self, index: u32) -> Option<Arc<Node>> {
        let terminal = self.terminals.find((SLAVE_MAJOR, index))?;
        let mut nodes = self.nodes.lock();
        // Nodes of terminals that are gone are dropped on the way.
        nodes.retain(|_, (owner, _)| owner.strong_count() > 0);
        if let Some((owner, node)) = nodes.get(&index)
            && owner.upgrade().is_some_and(|owner| Arc::ptr_eq(&owner, &terminal))
        {
            return Some(node.clone());
        }
        let core = InodeCore::new(
            self.pages,
            self.core.device,
            FIRST_SLAVE + u64::from(index),
            Kind::CharacterDevice,
            make_device(SLAVE_MAJOR, index),
            attributes(SLAVE_MODE, terminal.pty_owner(), TTY_GROUP, 1),
        );
        let node = Arc::new(Node { core, terminals: self.terminals.clone(), device: (SLAVE_MAJOR, index) });
        nodes.insert(index, (Arc::downgrade(&terminal), node.clone()));
        Some(node)
    }
}

/// The number that a name is: decimal, as it is printed.
fn index_of(name: &[u8]) -> Option<u32> {
    let index = core::str::from_utf8(name).ok()?.parse().ok()?;
    (format!("{index}").as_bytes() == name).then_some(index)
}

const STATUS: FileSystemStatus = FileSystemStatus {
    magic: MAGIC,
    block_size: 4096,
    blocks: 0,
    blocks_free: 0,
    files: 0,
    files_free: 0,
    name_length: 255,
};

impl Inode for Folder {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Io::ready(Ok(self.multiplexer.clone()));
        }
        let node = index_of(name).and_then(|index| self.node(index)).ok_or(Errno::ENOENT);
        Io::ready(node.map(|node| node as Arc<dyn Inode>))
    }

    fn names_are_stable(&self) -> bool {
        false
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        let entry =
            |name: Vec<u8>, number: u64| DirectoryEntry { name, number, kind: Kind::CharacterDevice, next: number };
        let mut indices = self.terminals.pty_indices();
        indices.sort_unstable();
        let slaves = indices.into_iter().map(|index| (format!("{index}").into_bytes(), FIRST_SLAVE + u64::from(index)));
        let all = core::iter::once((b"ptmx".to_vec(), PTMX)).chain(slaves);
        // Positions are inode numbers, so that a listing goes on where it stopped whatever has come and gone.
        Io::ready(Ok(all
            .filter(|(_, number)| *number > position)
            .take(100)
            .map(|(name, number)| entry(name, number))
            .collect()))
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.core.apply(&AttributeChange { size: None, ..change });
        Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        STATUS
    }
}

impl Inode for Node {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        self.core.apply(&AttributeChange { size: None, ..change });
        Io::ready(Ok(()))
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Result<Option<Arc<dyn FileOps>>> {
        self.terminals.open(self.device, flags).map(Some)
    }

    fn file_system(&self) -> FileSystemStatus {
        STATUS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tty::tests::{Jobs, close, pty, world};
    use drivers::hw::HostPages;

    static PAGES: HostPages = HostPages::new();

    fn names(folder: &Arc<dyn Inode>) -> Vec<String> {
        let mut names = Vec::new();
        let mut position = 0;
        while let Ok(Ok(entries)) = folder.read_directory(position).now() {
            let Some(last) = entries.last() else { break };
            position = last.next;
            names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
        }
        names
    }

    fn find(folder: &Arc<dyn Inode>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        folder.lookup(name).now().unwrap_or(Err(Errno::EIO))
    }

    #[test]
    fn a_slave_has_a_node_while_its_master_is_open() {
        let world = world();
        let folder = Devpts::new(&PAGES, world.terminals.clone()).root();
        assert_eq!(names(&folder), ["ptmx"]);
        let (master, _slave) = pty(&world);
        pty(&world);
        assert_eq!(names(&folder), ["ptmx", "0", "1"]);
        let node = find(&folder, b"1").expect("it is listed");
        assert_eq!(node.core().represents, make_device(SLAVE_MAJOR, 1));
        for name in [&b"2"[..], b"00", b"+1", b"1x", b"\xff", b"4294967296"] {
            assert_eq!(find(&folder, name).err(), Some(Errno::ENOENT));
        }
        close(&world, master);
        assert_eq!(names(&folder), ["ptmx", "1"]);
        assert_eq!(find(&folder, b"0").err(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_node_belongs_to_who_opened_the_master_and_keeps_its_changes() {
        let world = world();
        let folder = Devpts::new(&PAGES, world.terminals.clone()).root();
        Jobs::call_as(&world.jobs, 300, 300, 300);
        let (master, slave) = pty(&world);
        let node = find(&folder, b"0").expect("it is there");
        let permissions = node.permissions();
        assert_eq!((permissions.mode, permissions.uid, permissions.gid), (0o620, 1000, 5));
        let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
        node.change(change).now().unwrap_or(Err(Errno::EIO)).expect("it can be changed");
        assert_eq!(find(&folder, b"0").expect("it is there").permissions().mode, 0o600);
        // The next terminal of that number starts afresh.
        close(&world, master);
        drop((slave, node));
        pty(&world);
        assert_eq!(find(&folder, b"0").expect("it is there").permissions().mode, 0o620);
    }

    #[test]
    fn opening_the_nodes_opens_master_and_slave() {
        let world = world();
        let folder = Devpts::new(&PAGES, world.terminals.clone()).root();
        let open = |name: &[u8]| find(&folder, name).and_then(|node| node.open(OpenFlags::RDWR));
        let master = open(b"ptmx").expect("it can be opened").expect("by itself");
        assert_eq!(open(b"0").err(), Some(Errno::EIO), "it is locked");
        assert_eq!(master.name(), "/dev/ptmx");
    }
}
