//! The set-up that Debian runs on: memory over a real ext4. Random operations must answer as the host's own file system does, and
//! the disk must not change.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drivers::BoxFuture;
use drivers::block::{BlockDevice, FakeDisk, Geometry, Request};
use fs::conformance::{World, against_host, pages, run};
use fs::inode::RenameMode;
use fs::{Errno, FileSystem};
use overlay::Overlay;
use tmpfs::{Limits, Tmpfs};

/// The tree that the operations meet: a few names, in folders, files, links and second names.
fn make_tree(root: &Path) {
    for folder in ["a", "a/b", "a/b/c", "b", "b/a", "c"] {
        std::fs::create_dir(root.join(folder)).unwrap();
    }
    for (file, len) in [("a/a", 5000), ("a/c", 1), ("a/b/a", 9000), ("b/b", 4096), ("b/a/b", 0), ("link", 77)] {
        std::fs::write(root.join(file), vec![len as u8; len]).unwrap();
    }
    for (target, link) in [("a/b", "a/link"), ("nowhere", "b/link"), ("c/b", "b/c")] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    for (old, new) in [("a/a", "b/a/a"), ("a/a", "b/a/c"), ("b/b", "c/b")] {
        std::fs::hard_link(root.join(old), root.join(new)).unwrap();
    }
}

/// An ext4 image of a folder; `None`, with one line, where there is no mke2fs.
fn image(folder: &Path, options: &[&str]) -> Option<Vec<u8>> {
    let image = folder.with_extension("img");
    let mke2fs = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).exists());
    let Some(mke2fs) = mke2fs else {
        eprintln!("skipped: mke2fs is not installed (package e2fsprogs)");
        return None;
    };
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(folder).args(options).arg(&image).arg("8M");
    assert!(command.status().unwrap().success());
    let bytes = std::fs::read(&image).unwrap();
    std::fs::remove_file(image).unwrap();
    Some(bytes)
}

/// A disk that fails when it has done so many requests.
struct Failing {
    disk: FakeDisk,
    left: AtomicUsize,
}

impl BlockDevice for Failing {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, fs::Result<()>> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.disk.submit(request),
            Err(_) => Box::pin(async { Err(Errno::EIO) }),
        }
    }
}

fn over(disk: Arc<dyn BlockDevice>) -> World {
    let volume = run(ext4::mount(disk, pages(), 0x801, ext4::Limits::default())).expect("a good image");
    let upper = Tmpfs::new(pages(), Limits::NONE, 0o755);
    World::new(run(Overlay::over(Arc::new(volume) as Arc<dyn FileSystem>, upper)).expect("two folders"))
}

#[test]
fn random_operations_over_ext4_answer_as_the_host_does() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..7, |seed: u64| seed..seed + 1) {
        let folder = std::env::temp_dir().join(format!("rouse-over-ext4-{}-{seed}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        make_tree(&folder);
        let outcome = std::panic::catch_unwind(|| {
            let block_size = ["-b4096", "-b1024"][seed as usize % 2];
            let Some(bytes) = image(&folder, &[block_size]) else { return };
            let disk = Arc::new(FakeDisk::with_content(bytes.clone()));
            let world = over(disk.clone());
            world.rmdir("lost+found").expect("empty");
            against_host(&world, &folder, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1500);
            assert!(disk.content() == bytes, "the disk was written");
        });
        std::fs::remove_dir_all(&folder).unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn an_error_of_the_disk_is_told_and_changes_nothing() {
    let folder = std::env::temp_dir().join(format!("rouse-over-failing-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("f"), vec![7; 300_000]).unwrap();
    let bytes = image(&folder, &["-b4096"]);
    std::fs::remove_dir_all(&folder).unwrap();
    let Some(bytes) = bytes else { return };
    for good_requests in 0..40 {
        let disk = Failing { disk: FakeDisk::with_content(bytes.clone()), left: AtomicUsize::new(usize::MAX) };
        let disk = Arc::new(disk);
        let world = over(disk.clone());
        world.stat("f").expect("found while the disk is well");
        disk.left.store(good_requests, Ordering::Relaxed);
        let outcome = world.rename("f", "g", RenameMode::NoReplace);
        disk.left.store(usize::MAX, Ordering::Relaxed);
        let name = if outcome.is_ok() { "g" } else { "f" };
        assert!(matches!(outcome, Ok(()) | Err(Errno::EIO)), "{outcome:?}");
        assert_eq!(world.list(".").expect("there"), [name, "lost+found"]);
        assert!(world.read(name).expect("whole") == vec![7; 300_000]);
        if outcome.is_ok() {
            assert!(good_requests > 1, "it takes several requests");
            return;
        }
    }
    panic!("it never succeeds");
}
