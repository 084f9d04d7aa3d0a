use alloc::sync::Arc;

use fs::conformance::{World, against_host, check, pages, run, write_at};
use fs::{At, Errno, FileSystem, OpenFlags, WalkFlags};

use crate::{Limits, Tmpfs};

fn fresh() -> Arc<dyn FileSystem> {
    Tmpfs::new(pages(), Limits::NONE, 0o755)
}

#[test]
fn it_does_what_every_file_system_does() {
    check(fresh);
}

#[test]
fn random_operations_answer_as_the_host_does() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..9, |seed: u64| seed..seed + 1) {
        let folder = std::env::temp_dir().join(format!("rouse-tmpfs-{}-{seed}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let world = World::new(fresh());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            against_host(&world, &folder, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 2000);
        }));
        std::fs::remove_dir_all(&folder).expect("our own folder");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn its_limits_are_kept_and_what_is_removed_can_be_used_again() {
    let pages = pages();
    let world = World::new(Tmpfs::new(pages, Limits { pages: 4, inodes: 3 }, 0o755));
    let file = world.open("f", OpenFlags::RDWR | OpenFlags::CREAT).expect("made");
    assert_eq!(write_at(&file, 0, &[1; 5 * 4096]), Ok(4 * 4096));
    assert_eq!(write_at(&file, 1 << 30, b"x"), Err(Errno::ENOSPC));
    assert_eq!(world.stat("f").expect("there").attributes.blocks, 32);
    world.truncate("f", 4096).expect("cut");
    assert_eq!(write_at(&file, 1 << 30, b"x"), Ok(1));
    world.mkdir("d").expect("room");
    world.mkdir("e").expect("room");
    assert_eq!(world.mkdir("x"), Err(Errno::ENOSPC));
    world.rmdir("e").expect("empty");
    world.mkdir("x").expect("room again");
    assert_eq!(pages.live(), 2);
    drop(file);
    world.unlink("f").expect("there");
    assert_eq!(pages.live(), 0, "the pages go with the last name");
}

#[test]
fn nothing_is_lost_when_memory_runs_out() {
    let pages = pages();
    let world = World::new(Tmpfs::new(pages, Limits::NONE, 0o755));
    pages.set_limit(2);
    let file = world.open("f", OpenFlags::RDWR | OpenFlags::CREAT).expect("made");
    assert_eq!(write_at(&file, 0, &[1; 3 * 4096]), Ok(2 * 4096));
    assert_eq!(write_at(&file, 2 * 4096, b"x"), Err(Errno::ENOMEM));
    assert_eq!(world.read("f"), Ok(std::vec![1; 2 * 4096]));
}

#[test]
fn a_deep_tree_is_dropped_without_a_deep_stack() {
    let pages = pages();
    let thread = std::thread::Builder::new().stack_size(128 * 1024);
    let work = thread.spawn(move || {
        let world = World::new(Tmpfs::new(pages, Limits::NONE, 0o755));
        for _ in 0..20_000 {
            world.mkdir("d").expect("made");
            run(world.caller().chdir(At::working_directory(b"d"))).expect("there");
        }
        world.write("f", b"x").expect("made");
        drop(world);
    });
    work.expect("a thread").join().expect("no overflow");
    assert_eq!(pages.live(), 0);
}

#[test]
fn a_nameless_file_can_get_a_name() {
    let world = World::new(fresh());
    let at = At::working_directory(b"/");
    let flags = OpenFlags::TMPFILE | OpenFlags::RDWR;
    let file = run(world.caller().open(at, flags, 0o600, WalkFlags::empty())).expect("made");
    write_at(&file, 0, b"hidden").expect("written");
    assert_eq!(world.list("/"), Ok(std::vec![]));
    let place = file.path.clone().expect("a place");
    run(world.caller().link(At::place(&place), WalkFlags::empty(), At::working_directory(b"seen"))).expect("linked");
    assert_eq!(world.read("seen"), Ok(b"hidden".to_vec()));
}
