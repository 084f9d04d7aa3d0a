//! A file system whose every answer comes late: the waiting half of all operations, and what a drop half-way leaves behind.

use std::any::Any;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fs::conformance::{World, check, pages, run};
use fs::inode::{AttributeChange, FileSystemStatus, NewOwner, RenameMode};
use fs::{
    At, DirectoryEntry, Errno, FileSystem, Inode, InodeCore, Io, Metadata, NewNode, OpenFlags, Result, WalkFlags,
};
use tmpfs::{Limits, Tmpfs};

/// Pending once.
async fn later() {
    let mut is_later = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut is_later, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The same answer, but not at once; the work is done in between.
fn late<'a, T: Send + Unpin + 'a>(work: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
    Io::wait(async move {
        later().await;
        let result = work().await;
        later().await;
        result
    })
}

struct Late(Arc<dyn Inode>);

fn wrapped(inode: Arc<dyn Inode>) -> Arc<dyn Inode> {
    Arc::new(Late(inode))
}

fn inner(inode: &Arc<dyn Inode>) -> Arc<dyn Inode> {
    let any: &dyn Any = &**inode;
    any.downcast_ref::<Late>().expect("all inodes are late").0.clone()
}

fn late_inode<'a>(work: impl FnOnce() -> Io<'a, Arc<dyn Inode>> + Send + 'a) -> Io<'a, Arc<dyn Inode>> {
    Io::wait(async move { late(work).await.map(wrapped) })
}

impl Inode for Late {
    fn core(&self) -> &InodeCore {
        self.0.core()
    }
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }
    fn lookup(&self, name: &[u8]) -> Io<'_, Arc<dyn Inode>> {
        let name = name.to_vec();
        Io::wait(async move {
            later().await;
            self.0.lookup(&name).await.map(wrapped)
        })
    }
    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, owner: NewOwner) -> Io<'a, Arc<dyn Inode>> {
        late_inode(move || self.0.create(name, node, owner))
    }
    fn create_nameless(&self, owner: NewOwner) -> Io<'_, Arc<dyn Inode>> {
        late_inode(move || self.0.create_nameless(owner))
    }
    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Io<'a, ()> {
        Io::wait(async move {
            later().await;
            self.0.link(name, &inner(target)).await
        })
    }
    fn unlink<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        late(move || self.0.unlink(name))
    }
    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Io<'a, ()> {
        late(move || self.0.remove_directory(name))
    }
    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        new_parent: &'a Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Io<'a, ()> {
        Io::wait(async move {
            later().await;
            self.0.rename(name, &inner(new_parent), new_name, mode).await
        })
    }
    fn read_link(&self) -> Io<'_, Vec<u8>> {
        late(|| self.0.read_link())
    }
    fn read_directory(&self, position: u64) -> Io<'_, Vec<DirectoryEntry>> {
        late(move || self.0.read_directory(position))
    }
    fn change(&self, change: AttributeChange) -> Io<'_, ()> {
        late(move || self.0.change(change))
    }
    fn is_hole(&self, index: u64) -> bool {
        self.0.is_hole(index)
    }
    fn reserve_page(&self, index: u64) -> Io<'_, ()> {
        self.0.reserve_page(index)
    }
    fn file_system(&self) -> FileSystemStatus {
        self.0.file_system()
    }
}

struct LateFileSystem(Arc<Tmpfs>, Arc<dyn Inode>);

impl FileSystem for LateFileSystem {
    fn root(&self) -> Arc<dyn Inode> {
        self.1.clone()
    }
    fn type_name(&self) -> &'static str {
        self.0.type_name()
    }
}

fn fresh() -> Arc<dyn FileSystem> {
    let tmpfs = Tmpfs::new(pages(), Limits::NONE, 0o755);
    let root = wrapped(tmpfs.root());
    Arc::new(LateFileSystem(tmpfs, root))
}

#[test]
fn late_answers_are_the_same_answers() {
    check(fresh);
}

#[test]
fn random_operations_answer_late_as_the_host_does() {
    let folder = std::env::temp_dir().join(format!("rouse-late-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder of its own");
    let world = World::new(fresh());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fs::conformance::against_host(&world, &folder, 0x5eed, 3000);
    }));
    std::fs::remove_dir_all(&folder).expect("our own folder");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_name_that_was_looked_for_is_found_without_waiting_and_so_is_its_absence() {
    let world = World::new(fresh());
    world.mkdir("d").expect("made");
    world.write("d/f", b"x").expect("made");
    world.symlink("d/f", "l").expect("made");
    fs::dentry::shrink(0);
    for path in ["d/f", "l", "d/nothing"] {
        let at = At::working_directory(path.as_bytes());
        let slow = run(world.caller().walk(at, WalkFlags::FOLLOW)).map(|path| path.inode().core().number);
        let quick = world.caller().try_walk(at, WalkFlags::FOLLOW).expect("cached by now");
        assert_eq!(quick.map(|path| path.inode().core().number), slow, "{path}");
    }
    world.write("d/nothing", b"now").expect("made");
    assert_eq!(world.read("d/nothing"), Ok(b"now".to_vec()));
    world.unlink("d/f").expect("there");
    assert_eq!(world.read("l"), Err(Errno::ENOENT));
}

/// Polls an operation `polls` times and drops it; whether it was done by then.
fn poll_and_drop<T>(operation: impl Future<Output = Result<T>>, polls: usize) -> bool {
    let mut operation = pin!(operation);
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).any(|_| operation.as_mut().poll(&mut context).is_ready())
}

#[test]
fn an_operation_that_is_dropped_anywhere_leaves_no_lock_and_no_wrong_name() {
    type Operation = fn(&World, usize) -> bool;
    let operations: &[Operation] = &[
        |world, polls| poll_and_drop(world.caller().mkdir(At::working_directory(b"d/new"), 0o755), polls),
        |world, polls| poll_and_drop(world.caller().unlink(At::working_directory(b"d/f")), polls),
        |world, polls| poll_and_drop(world.caller().rmdir(At::working_directory(b"d/e")), polls),
        |world, polls| {
            let (old, new) = (At::working_directory(b"d/f"), At::working_directory(b"d/e/g"));
            poll_and_drop(world.caller().rename(old, new, RenameMode::Replace), polls)
        },
        |world, polls| {
            let (old, new) = (At::working_directory(b"d/f"), At::working_directory(b"d/e"));
            poll_and_drop(world.caller().rename(old, new, RenameMode::Exchange), polls)
        },
        |world, polls| {
            let (old, new) = (At::working_directory(b"d/f"), At::working_directory(b"d/g"));
            poll_and_drop(world.caller().link(old, WalkFlags::empty(), new), polls)
        },
        |world, polls| {
            let (at, flags) = (At::working_directory(b"d/h"), OpenFlags::CREAT | OpenFlags::RDWR);
            poll_and_drop(world.caller().open(at, flags, 0o644, WalkFlags::empty()), polls)
        },
        |world, polls| poll_and_drop(world.caller().truncate(At::working_directory(b"d/f"), 1), polls),
    ];
    for (number, operation) in operations.iter().enumerate() {
        for polls in 0..100 {
            let world = World::new(fresh());
            world.mkdir("d").expect("made");
            world.mkdir("d/e").expect("made");
            world.write("d/f", b"content").expect("made");
            let is_done = operation(&world, polls);
            // What a walk finds is what the folder lists, and everything can still be changed.
            for folder in ["d", "d/e"] {
                let Ok(names) = world.list(folder) else { continue };
                for name in ["f", "e", "g", "h", "new"] {
                    let found = world.stat(&format!("{folder}/{name}")).is_ok();
                    let listed = names.contains(&name.to_string());
                    assert_eq!(found, listed, "operation {number}, {polls} polls: {folder}/{name}");
                }
            }
            world.mkdir("d/after").expect("no lock is left");
            world.rename("d", "moved", RenameMode::Replace).expect("no lock is left");
            if is_done {
                break;
            }
            assert!(polls < 99, "operation {number} never ends");
        }
    }
}
