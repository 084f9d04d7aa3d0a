//! What the tests of the format share: images made by the real `mke2fs`, a disk in memory that can be slow or fail, and a walk
//! that compares a mounted volume with the folder it was made from.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use drivers::BoxFuture;
use drivers::block::{BlockDevice, Geometry, Operation, Request, SECTOR_SIZE};
use drivers::hw::{HostPages, PAGE_SIZE, Page};
use fs::{DirectoryEntry, Errno, Inode, Kind};

pub static PAGES: HostPages = HostPages::new();

/// Polls until it is ready. A future that stays pending without end is a hang, and fails the test.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..50_000_000u64 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it hangs");
}

/// A disk in memory.
pub struct Disk {
    bytes: Mutex<Vec<u8>>,
    max_segments: usize,
    /// Requests so far, and the sectors they moved.
    pub requests: AtomicUsize,
    pub sectors: AtomicU64,
    /// Sectors that cannot be read.
    pub broken: Mutex<BTreeSet<u64>>,
    /// Whether every request fails.
    pub is_dead: AtomicBool,
}

impl Disk {
    pub fn new(bytes: Vec<u8>) -> Arc<Disk> {
        Disk::with_segments(bytes, 64)
    }

    pub fn with_segments(bytes: Vec<u8>, max_segments: usize) -> Arc<Disk> {
        Arc::new(Disk {
            bytes: Mutex::new(bytes),
            max_segments,
            requests: AtomicUsize::new(0),
            sectors: AtomicU64::new(0),
            broken: Mutex::default(),
            is_dead: AtomicBool::new(false),
        })
    }

    fn carry_out(&self, request: &Request) -> fs::Result<()> {
        request.check(&self.geometry())?;
        assert_eq!(request.operation, Operation::Read, "a volume is only read");
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sectors = (request.len() / SECTOR_SIZE) as u64;
        self.sectors.fetch_add(sectors, Ordering::Relaxed);
        let touched = request.sector..request.sector + sectors;
        if self.is_dead.load(Ordering::Relaxed) || self.broken.lock().unwrap().range(touched).next().is_some() {
            return Err(Errno::EIO);
        }
        let bytes = self.bytes.lock().unwrap();
        let mut at = request.sector as usize * SECTOR_SIZE;
        for segment in &request.segments {
            segment.page.write(segment.offset, &bytes[at..at + segment.len]);
            at += segment.len;
        }
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        let sectors = (self.bytes.lock().unwrap().len() / SECTOR_SIZE) as u64;
        Geometry { sectors, max_segments: self.max_segments, read_only: true }
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, fs::Result<()>> {
        let mut is_first_poll = true;
        Box::pin(std::future::poll_fn(move |context| {
            if std::mem::take(&mut is_first_poll) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(self.carry_out(&request))
        }))
    }
}

/// A folder for one test, empty at its beginning.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Says so and returns false if the tools that make images are not installed.
pub fn has_tools() -> bool {
    let is_there = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|path| Path::new(path).exists());
    if !is_there {
        eprintln!("skipped: mke2fs is not installed (package e2fsprogs)");
    }
    is_there
}

/// Runs a tool of e2fsprogs.
pub fn run(tool: &str, arguments: &[&str]) -> String {
    let directory = if Path::new("/usr/sbin/mke2fs").exists() { "/usr/sbin" } else { "/sbin" };
    let output = Command::new(format!("{directory}/{tool}")).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text
}

/// Runs commands in debugfs, which changes an image without mounting it.
pub fn debugfs(image: &Path, commands: &[String]) -> String {
    let script = image.with_extension("debugfs");
    std::fs::write(&script, commands.join("\n") + "\n").unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap(), image.to_str().unwrap()])
}

/// Makes an image of a folder, `kib` large.
pub fn make_image(folder: &Path, kib: u64, options: &[&str]) -> PathBuf {
    let image = folder.with_extension("img");
    let _ = std::fs::remove_file(&image);
    let size = format!("{kib}k");
    let mut arguments = vec!["-q", "-F", "-d", folder.to_str().unwrap()];
    arguments.extend(options);
    arguments.extend([image.to_str().unwrap(), &size]);
    run("mke2fs", &arguments);
    image
}

pub fn mount(disk: &Arc<Disk>) -> fs::Result<ext4::Ext4> {
    block_on(ext4::mount(disk.clone(), &PAGES, 0x700, ext4::Limits::default()))
}

pub fn mount_image(image: &Path) -> ext4::Ext4 {
    mount(&Disk::new(std::fs::read(image).unwrap())).expect("an image of mke2fs can be mounted")
}

/// All entries of a folder.
pub fn entries(folder: &Arc<dyn Inode>) -> fs::Result<Vec<DirectoryEntry>> {
    let (mut all, mut position) = (Vec::new(), 0);
    loop {
        let some = block_on(folder.read_directory(position))?;
        let Some(last) = some.last() else { return Ok(all) };
        assert!(last.next > position, "positions go on");
        position = last.next;
        all.extend(some);
    }
}

/// The whole content of a file.
pub fn content(file: &Arc<dyn Inode>) -> fs::Result<Vec<u8>> {
    let size = file.metadata().attributes.size as usize;
    let mut bytes = vec![0; size.next_multiple_of(PAGE_SIZE)];
    for (index, chunk) in bytes.chunks_mut(PAGE_SIZE).enumerate() {
        let page = Page::allocate(&PAGES).unwrap();
        page.write(0, &[0x5a; PAGE_SIZE]);
        block_on(file.read_page(index as u64, &page))?;
        page.read(0, chunk);
    }
    assert!(bytes[size..].iter().all(|byte| *byte == 0), "zeros follow the end of the file");
    bytes.truncate(size);
    Ok(bytes)
}

pub fn lookup(folder: &Arc<dyn Inode>, name: &str) -> fs::Result<Arc<dyn Inode>> {
    block_on(folder.lookup(name.as_bytes()))
}

/// Walks along a path of plain names.
pub fn walk(root: &Arc<dyn Inode>, path: &str) -> fs::Result<Arc<dyn Inode>> {
    path.split('/').filter(|name| !name.is_empty()).try_fold(root.clone(), |folder, name| lookup(&folder, name))
}

/// Compares a mounted folder with the one it was made from: names, kinds, attributes, content, all the way down.
pub fn compare(mounted: &Arc<dyn Inode>, source: &Path, is_root: bool) {
    let mut expected: BTreeMap<Vec<u8>, PathBuf> = std::fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().as_bytes().to_vec(), entry.path()))
        .collect();
    for entry in entries(mounted).unwrap() {
        if is_root && entry.name == b"lost+found" {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let path = expected.remove(&entry.name).unwrap_or_else(|| panic!("{name} is not in {source:?}, or twice"));
        let inode = block_on(mounted.lookup(&entry.name)).unwrap_or_else(|errno| panic!("{path:?}: {errno:?}"));
        assert_eq!((inode.core().kind, inode.core().number), (entry.kind, entry.number), "{path:?}");
        compare_node(&inode, &path);
    }
    assert!(expected.is_empty(), "missing in {source:?}: {expected:?}");
    for absent in ["absent", "no such name, and a long one at that, so that it takes more than one round of the hash"] {
        assert_eq!(lookup(mounted, absent).err(), Some(Errno::ENOENT));
    }
}

fn compare_node(inode: &Arc<dyn Inode>, path: &Path) {
    let (found, expected) = (inode.metadata(), std::fs::symlink_metadata(path).unwrap());
    assert_eq!(found.mode(), expected.mode(), "{path:?}");
    assert_eq!(found.attributes.uid, expected.uid(), "{path:?}");
    assert_eq!(found.attributes.gid, expected.gid(), "{path:?}");
    assert_eq!(found.attributes.modified.seconds, expected.mtime(), "{path:?}");
    match found.kind {
        Kind::Directory => compare(inode, path, false),
        Kind::Regular => {
            assert_eq!(found.attributes.size, expected.size(), "{path:?}");
            assert_eq!(found.attributes.links, expected.nlink() as u32, "{path:?}");
            assert!(content(inode).unwrap() == std::fs::read(path).unwrap(), "the content of {path:?} differs");
        }
        Kind::Symlink => {
            let target = std::fs::read_link(path).unwrap();
            assert_eq!(block_on(inode.read_link()).unwrap(), target.as_os_str().as_bytes(), "{path:?}");
        }
        _ => {}
    }
}

/// Numbers that look random and are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
