//! Overlays of two file systems in memory, tried through the path walk as the kernel uses them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::boxed::Box;
use std::path::Path;

use fs::conformance::{World, against_host, check, pages, read_all, read_at, run, write_at};
use fs::inode::{RenameMode, Timestamp};
use fs::{At, DirectoryEntry, Errno, FileSystem, Inode, InodeCore, Io, Kind, OpenFlags, Page, TimeChange, WalkFlags};
use tmpfs::{Limits, Tmpfs};

use crate::Overlay;

fn memory() -> Arc<Tmpfs> {
    Tmpfs::new(pages(), Limits::NONE, 0o755)
}

/// A lower layer with these files and folders, and an overlay over it.
fn over(fill: impl FnOnce(&World)) -> (Arc<Tmpfs>, World) {
    let lower = memory();
    fill(&World::new(lower.clone()));
    let overlay = run(Overlay::over(lower.clone(), memory())).expect("two folders");
    (lower, World::new(overlay))
}

/// What a file system looks like: paths, kinds, modes, sizes, content.
fn picture(world: &World) -> Vec<std::string::String> {
    let mut lines = Vec::new();
    let mut todo = Vec::from([std::string::String::from(".")]);
    while let Some(folder) = todo.pop() {
        for name in world.list(&folder).expect("a folder") {
            let path = std::format!("{folder}/{name}");
            let metadata = world.stat(&path).expect("listed");
            let content = match metadata.kind {
                Kind::Regular => std::format!("{:?}", world.read(&path).expect("a file")),
                Kind::Symlink => world.readlink(&path).expect("a link"),
                Kind::Directory => {
                    todo.push(path.clone());
                    std::string::String::new()
                }
                _ => std::string::String::new(),
            };
            lines.push(std::format!("{path} {:o} {content}", metadata.mode()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn an_overlay_over_nothing_does_what_every_file_system_does() {
    check(|| run(Overlay::over(memory(), memory())).expect("two folders"));
}

/// Makes the same tree in the lower layer and in a folder of the host.
fn same_tree(world: &World, host: &Path) {
    for folder in ["a", "a/b", "a/b/c", "b", "b/a", "c"] {
        world.mkdir(folder).expect("new");
        std::fs::create_dir(host.join(folder)).expect("new");
    }
    for (file, len) in [("a/a", 5000), ("a/c", 1), ("a/b/a", 9000), ("b/b", 4096), ("b/a/b", 0), ("link", 77)] {
        world.write(file, &std::vec![len as u8; len]).expect("new");
        std::fs::write(host.join(file), std::vec![len as u8; len]).expect("new");
    }
    for (target, link) in [("a/b", "a/link"), ("nowhere", "b/link"), ("c/b", "b/c")] {
        world.symlink(target, link).expect("new");
        std::os::unix::fs::symlink(target, host.join(link)).expect("new");
    }
    for (old, new) in [("a/a", "b/a/a"), ("a/a", "b/a/c"), ("b/b", "c/b")] {
        world.link(old, new).expect("new");
        std::fs::hard_link(host.join(old), host.join(new)).expect("new");
    }
}

fn random_operations(slow: bool) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..17, |seed: u64| seed..seed + 1) {
        let host = std::env::temp_dir().join(std::format!("rouse-overlay-{}-{slow}-{seed}", std::process::id()));
        std::fs::create_dir(&host).expect("a folder of its own");
        let lower = memory();
        same_tree(&World::new(lower.clone()), &host);
        let before = picture(&World::new(lower.clone()));
        let below: Arc<dyn FileSystem> = if slow { Arc::new(SlowFileSystem(lower.clone())) } else { lower.clone() };
        let world = World::new(run(Overlay::over(below, memory())).expect("two folders"));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            against_host(&world, &host, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1200);
        }));
        std::fs::remove_dir_all(&host).expect("our own folder");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(picture(&World::new(lower)), before, "seed {seed}: the lower layer was changed");
    }
}

#[test]
fn random_operations_over_a_full_lower_layer_answer_as_the_host_does() {
    random_operations(false);
}

#[test]
fn random_operations_answer_as_the_host_does_when_the_lower_layer_makes_them_wait() {
    random_operations(true);
}

#[test]
fn what_is_below_is_seen_and_what_is_written_stays_above() {
    let (lower, world) = over(|world| {
        world.mkdir("etc").expect("new");
        world.write("etc/name", b"below").expect("new");
    });
    assert_eq!(world.read("etc/name").expect("there"), b"below");
    world.write("etc/name", b"above").expect("written");
    world.write("etc/new", b"new").expect("written");
    assert_eq!(world.read("etc/name").expect("there"), b"above");
    assert_eq!(world.list("etc").expect("there"), ["name", "new"]);
    let below = World::new(lower);
    assert_eq!(below.read("etc/name").expect("there"), b"below");
    assert_eq!(below.list("etc").expect("there"), ["name"]);
}

#[test]
fn a_copy_keeps_number_attributes_and_the_times_of_its_folders() {
    let (_, world) = over(|world| {
        world.mkdir("d").expect("new");
        world.write("d/f", &[1; 10_000]).expect("new");
        world.chmod("d/f", 0o750).expect("own");
        world.chmod("d", 0o711).expect("own");
    });
    let (folder, file) = (world.stat("d").expect("there"), world.stat("d/f").expect("there"));
    let path = run(world.caller().walk(At::working_directory(b"d/f"), WalkFlags::empty())).expect("there");
    let time = Timestamp { seconds: 12_345, nanoseconds: 6 };
    run(world.caller().set_times(&path, TimeChange::To(time), TimeChange::Omit)).expect("own");
    let after = world.stat("d/f").expect("there");
    assert_eq!((after.number, after.device), (file.number, file.device));
    assert_eq!(after.attributes.accessed, time);
    let (before, after) = (file.attributes, after.attributes);
    assert_eq!((after.mode, after.size, after.modified), (before.mode, before.size, before.modified));
    let after = world.stat("d").expect("there");
    assert_eq!((after.attributes.modified, after.attributes.mode), (folder.attributes.modified, 0o711));
    assert_eq!(after.number, folder.number);
    assert_eq!(world.read("d/f").expect("there"), [1; 10_000]);
}

#[test]
fn a_removed_name_stays_removed_and_a_new_folder_of_that_name_is_empty() {
    let (_, world) = over(|world| {
        world.mkdir("d").expect("new");
        world.write("d/f", b"x").expect("new");
        world.write("f", b"x").expect("new");
    });
    world.unlink("f").expect("there");
    assert_eq!(world.stat("f").err(), Some(Errno::ENOENT));
    assert_eq!(world.rmdir("d"), Err(Errno::ENOTEMPTY));
    world.unlink("d/f").expect("there");
    world.rmdir("d").expect("empty");
    assert!(world.list(".").expect("there").is_empty());
    world.mkdir("d").expect("free");
    assert!(world.list("d").expect("there").is_empty());
    world.mkdir("f").expect("free");
    world.write("d/f", b"y").expect("free");
    assert_eq!(world.read("d/f").expect("there"), b"y");
}

#[test]
fn who_reads_goes_on_reading_what_was_below() {
    let (_, world) = over(|world| world.write("f", &[1; 9000]).expect("new"));
    let reader = world.open("f", OpenFlags::empty()).expect("there");
    let writer = world.open("f", OpenFlags::RDWR).expect("there");
    assert_eq!(write_at(&writer, 0, &[2; 100]), Ok(100));
    assert_eq!(read_at(&reader, 0, 200), Ok([1; 200].to_vec()));
    assert_eq!(read_at(&writer, 0, 101).expect("open")[100], 1);
    assert_eq!(world.read("f").expect("there")[..100], [2; 100]);
}

#[test]
fn a_file_cut_when_it_is_opened_is_not_copied_first() {
    let (lower, world) = over(|world| world.write("f", &[1; 40_000]).expect("new"));
    let upper = world.context.root().inode().file_system();
    drop(world.open("f", OpenFlags::WRONLY | OpenFlags::TRUNC).expect("there"));
    assert_eq!(world.stat("f").expect("there").attributes.blocks, 0);
    assert_eq!(world.read("f").expect("there"), b"");
    world.truncate("f", 10).expect("there");
    assert_eq!(world.read("f").expect("there"), [0; 10]);
    assert_eq!(world.context.root().inode().file_system(), upper);
    assert_eq!(World::new(lower).read("f").expect("there").len(), 40_000);
}

#[test]
fn a_program_in_execution_is_not_written_even_after_it_was_copied_up() {
    let (_, world) = over(|world| world.write("f", b"program").expect("new"));
    let program = world.open("f", OpenFlags::empty()).expect("there").inode.clone().expect("a file");
    program.core().begin_executing().expect("nobody writes");
    for is_above in [false, true] {
        assert_eq!(world.open("f", OpenFlags::RDWR).err(), Some(Errno::ETXTBSY), "{is_above}");
        assert_eq!(world.open("f", OpenFlags::WRONLY | OpenFlags::TRUNC).err(), Some(Errno::ETXTBSY));
        assert_eq!(world.truncate("f", 0), Err(Errno::ETXTBSY));
        world.chmod("f", 0o755).expect("the mode may change");
        assert_eq!(world.read("f").expect("there"), b"program");
    }
    program.core().end_executing();
    assert!(world.open("f", OpenFlags::RDWR).is_ok());
    program.core().begin_executing().expect("nobody writes any more");
}

#[test]
fn two_names_of_one_lower_file_stay_one_file() {
    let (_, world) = over(|world| {
        world.write("one", b"below").expect("new");
        world.link("one", "two").expect("new");
    });
    world.write("one", b"above").expect("written");
    assert_eq!(world.read("two").expect("there"), b"above");
    let (one, two) = (world.stat("one").expect("there"), world.stat("two").expect("there"));
    assert_eq!((one.number, one.attributes.links), (two.number, 2));
    world.unlink("one").expect("there");
    fs::dentry::shrink(usize::MAX);
    assert_eq!(world.read("two").expect("there"), b"above");
    assert_eq!(world.stat("two").expect("there").attributes.links, 1);
    world.link("two", "three").expect("there");
    world.unlink("two").expect("there");
    assert_eq!(world.read("three").expect("there"), b"above");
    assert_eq!(world.list(".").expect("there"), ["three"]);
}

#[test]
fn a_folder_from_below_moves_with_everything_in_it() {
    let (_, world) = over(|world| {
        for folder in ["a", "a/b", "d"] {
            world.mkdir(folder).expect("new");
        }
        world.write("a/b/f", b"deep").expect("new");
        world.write("d/hidden", b"x").expect("new");
    });
    world.rename("a", "moved", RenameMode::NoReplace).expect("free");
    assert_eq!(world.read("moved/b/f").expect("there"), b"deep");
    world.write("moved/b/g", b"new").expect("written");
    fs::dentry::shrink(usize::MAX);
    assert_eq!(world.list("moved/b").expect("there"), ["f", "g"]);
    assert_eq!(world.list(".").expect("there"), ["d", "moved"]);
    world.unlink("d/hidden").expect("there");
    world.rename("moved", "d", RenameMode::Replace).expect("empty");
    assert_eq!(world.list("d").expect("there"), ["b"]);
    world.mkdir("a").expect("free");
    assert!(world.list("a").expect("there").is_empty());
    world.rename("a", "d", RenameMode::Exchange).expect("both there");
    assert_eq!(world.read("a/b/f").expect("there"), b"deep");
}

#[test]
fn a_listing_sees_each_name_once_while_names_are_copied_up() {
    let (_, world) = over(|world| {
        for index in 0..300 {
            world.write(&std::format!("f{index}"), b"x").expect("new");
        }
    });
    world.write("f7", b"changed").expect("written");
    world.write("new", b"new").expect("written");
    world.unlink("f8").expect("there");
    let folder = world.open(".", OpenFlags::DIRECTORY).expect("there");
    let (mut names, mut position) = (Vec::new(), 0);
    loop {
        let entries = run(folder.ops.read_directory(position)).expect("a folder");
        let Some(last) = entries.last() else { break };
        position = last.next;
        for entry in &entries {
            let name = std::string::String::from_utf8_lossy(&entry.name).into_owned();
            if name.starts_with('f') {
                assert_eq!(entry.number, world.stat(&name).expect("listed").number);
                world.chmod(&name, 0o600).expect("own");
            }
            names.push(name);
        }
        // Those that come later are copied up too.
        for index in (0..300).filter(|index| *index != 8) {
            world.chmod(&std::format!("f{index}"), 0o640).expect("own");
        }
    }
    let mut expected: Vec<_> = (0..300).filter(|index| *index != 8).map(|index| std::format!("f{index}")).collect();
    expected.extend([".", "..", "new"].map(Into::into));
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn when_there_is_no_room_nothing_changes() {
    let lower = memory();
    let below = World::new(lower.clone());
    below.mkdir("d").expect("new");
    below.write("d/f", &[7; 5 * 4096]).expect("new");
    let before = picture(&below);
    for inodes in 2..12 {
        for pages_allowed in [0, 3, 100] {
            let upper = Tmpfs::new(pages(), Limits { pages: pages_allowed, inodes }, 0o755);
            let world = World::new(run(Overlay::over(lower.clone(), upper)).expect("two folders"));
            let failed = [
                world.chmod("d/f", 0o600).is_err(),
                world.rename("d/f", "d/g", RenameMode::NoReplace).is_err(),
                world.unlink("d/f").is_err(),
                world.rename("d", "e", RenameMode::NoReplace).is_err(),
            ];
            let folder = if failed[3] { "d" } else { "e" };
            let names = world.list(folder).expect("there");
            match (failed[1], failed[2]) {
                (false, _) => assert_eq!(names, ["g"]),
                (true, true) => assert_eq!(names, ["f"]),
                (true, false) => assert!(names.is_empty()),
            }
            for name in names {
                assert_eq!(world.read(&std::format!("{folder}/{name}")).expect("there"), [7; 5 * 4096]);
            }
            let missing = if failed[3] { "e" } else { "d" };
            assert_eq!(world.stat(missing).err(), Some(Errno::ENOENT), "{inodes} inodes, {pages_allowed} pages");
        }
    }
    assert_eq!(picture(&World::new(lower)), before);
}

#[test]
fn a_copy_dropped_half_way_leaves_nothing_behind() {
    let lower = memory();
    World::new(lower.clone()).write("f", &[7; 20 * 4096]).expect("new");
    let above = pages();
    let upper = Tmpfs::new(above, Limits::NONE, 0o755);
    let world = World::new(run(Overlay::over(Arc::new(SlowFileSystem(lower)), upper)).expect("two folders"));
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    for polls in 0..30 {
        let caller = world.caller();
        let mut opening = Box::pin(caller.open(At::working_directory(b"f"), OpenFlags::RDWR, 0, WalkFlags::empty()));
        for _ in 0..polls {
            if opening.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
        drop(opening);
        let is_copied = world.stat("f").expect("there").attributes.blocks > 0 && above.live() > 0;
        assert!(is_copied || above.live() == 0, "after {polls} polls");
    }
    let file = world.open("f", OpenFlags::RDWR).expect("there");
    assert_eq!(read_all(&file).expect("there"), [7; 20 * 4096]);
}

#[test]
fn all_memory_is_given_back() {
    let above = pages();
    let lower = memory();
    let below = World::new(lower.clone());
    below.write("one", &[1; 5000]).expect("new");
    below.link("one", "two").expect("new");
    drop(below);
    let world = World::new(run(Overlay::over(lower.clone(), Tmpfs::new(above, Limits::NONE, 0o755))).expect("folders"));
    world.write("one", &[2; 5000]).expect("written");
    world.write("three", &[3; 5000]).expect("written");
    assert!(above.live() >= 4);
    drop(world);
    assert_eq!(above.live(), 0);
    assert_eq!(Arc::strong_count(&lower), 1);
}

/// A file system that is never ready at once.
struct SlowFileSystem(Arc<Tmpfs>);

impl FileSystem for SlowFileSystem {
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Slow(self.0.root()))
    }

    fn type_name(&self) -> &'static str {
        "slow"
    }
}

struct Slow(Arc<dyn Inode>);

async fn pause() {
    let mut has_paused = false;
    core::future::poll_fn(|_| {
        if core::mem::replace(&mut has_paused, true) { core::task::Poll::Ready(()) } else { core::task::Poll::Pending }
    })
    .await;
}

impl Inode for Slow {
    fn core(&self) -> &InodeCore {
        self.0.core()
    }

    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let found = self.0.lookup(name).now();
        Io::wait(async move {
            pause().await;
            let Ok(found) = found else { return Err(Errno::EIO) };
            Ok(Arc::new(Slow(found?)) as Arc<dyn Inode>)
        })
    }

    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        Io::wait(async move {
            pause().await;
            self.0.read_directory(position).await
        })
    }

    fn read_link(&self) -> Io<'_, Vec<u8>> {
        Io::wait(async move {
            pause().await;
            self.0.read_link().await
        })
    }

    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        self.0.read_page(index, page)
    }

    fn is_hole(&self, index: u64) -> bool {
        self.0.is_hole(index)
    }

    fn reserve_page(&self, index: u64) -> Io<'_, ()> {
        self.0.reserve_page(index)
    }

    fn file_system(&self) -> fs::inode::FileSystemStatus {
        self.0.file_system()
    }
}
