//! The futures of the operations are part of every thread's system call: they stay small.

use fs::conformance::{World, pages};
use fs::inode::RenameMode;
use fs::{At, OpenFlags, WalkFlags};
use tmpfs::{Limits, Tmpfs};

#[test]
fn operations_on_names_are_small_futures() {
    let world = World::new(Tmpfs::new(pages(), Limits::NONE, 0o755));
    let (caller, at) = (world.caller(), At::working_directory(b"f"));
    let sizes = [
        ("walk", size_of_val(&caller.walk(at, WalkFlags::FOLLOW))),
        ("open", size_of_val(&caller.open(at, OpenFlags::empty(), 0, WalkFlags::empty()))),
        ("stat", size_of_val(&caller.stat(at, WalkFlags::FOLLOW))),
        ("readlink", size_of_val(&caller.readlink(at))),
        ("mkdir", size_of_val(&caller.mkdir(at, 0))),
        ("unlink", size_of_val(&caller.unlink(at))),
        ("rmdir", size_of_val(&caller.rmdir(at))),
        ("link", size_of_val(&caller.link(at, WalkFlags::empty(), at))),
        ("rename", size_of_val(&caller.rename(at, at, RenameMode::Replace))),
        ("truncate", size_of_val(&caller.truncate(at, 0))),
        ("chdir", size_of_val(&caller.chdir(at))),
        ("unmount", size_of_val(&caller.unmount(at, WalkFlags::FOLLOW, false))),
    ];
    for (name, size) in sizes {
        println!("{name}: {size}");
    }
    for (name, size) in sizes {
        assert!(size <= 1024, "{name} is {size} bytes");
    }
}
