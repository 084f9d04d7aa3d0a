//! The walk along a path: links, dots, mounts, permissions, and what it costs.

use std::sync::Arc;

use fs::conformance::{World, pages, run};
use fs::inode::RenameMode;
use fs::{At, Capabilities, Credentials, Errno, FileSystem, Kind, MountFlags, OpenFlags, Path, Result, WalkFlags};
use tmpfs::{Limits, Tmpfs};

fn empty() -> Arc<dyn FileSystem> {
    Tmpfs::new(pages(), Limits::NONE, 0o755)
}

/// `/d/e/f` with a file, and links to it in many ways.
fn world() -> World {
    let world = World::new(empty());
    for folder in ["d", "d/e", "m"] {
        world.mkdir(folder).expect("made");
    }
    world.write("d/e/f", b"content").expect("made");
    world.symlink("d/e/f", "to-f").expect("made");
    world.symlink("/d/e", "to-e").expect("made");
    world.symlink("../to-e", "d/back").expect("made");
    world.symlink("nowhere", "dangling").expect("made");
    world.symlink("loop", "loop").expect("made");
    world
}

fn walk(world: &World, path: &str) -> Result<Path> {
    run(world.caller().walk(At::working_directory(path.as_bytes()), WalkFlags::FOLLOW))
}

fn name(world: &World, path: &str) -> String {
    let path = walk(world, path).expect("there");
    String::from_utf8(path.display(&world.context.root())).expect("ASCII")
}

fn mount(world: &World, at: &str) -> fs::MountFlags {
    run(world.caller().mount(empty(), b"none", MountFlags::empty(), At::working_directory(at.as_bytes())))
        .expect("mounted")
        .flags()
}

#[test]
fn dots_and_slashes_lead_where_they_should() {
    let world = world();
    for path in ["d/e", "/d//e/", "d/./e/.", "d/e/../e", "/../d/e", "../../d/e/..//e", "to-e/", "d/back/../e/."] {
        assert_eq!(name(&world, path), "/d/e", "{path}");
    }
    assert_eq!(name(&world, "/"), "/");
    assert_eq!(name(&world, "to-f"), "/d/e/f");
}

#[test]
fn what_is_no_folder_cannot_be_walked_through() {
    let world = world();
    for path in ["d/e/f/", "d/e/f/.", "d/e/f/..", "to-f/", "d/e/f/x"] {
        assert_eq!(walk(&world, path).err(), Some(Errno::ENOTDIR), "{path}");
    }
    for path in ["", "x", "d/x/y", "dangling", "dangling/x"] {
        assert_eq!(walk(&world, path).err(), Some(Errno::ENOENT), "{path}");
    }
}

#[test]
fn forty_links_are_followed_and_not_one_more() {
    let world = world();
    world.symlink("d/e/f", "link0").expect("made");
    for number in 1..=40 {
        world.symlink(&format!("link{}", number - 1), &format!("link{number}")).expect("made");
    }
    assert!(walk(&world, "link39").is_ok());
    assert_eq!(walk(&world, "link40").err(), Some(Errno::ELOOP));
    assert_eq!(walk(&world, "loop").err(), Some(Errno::ELOOP));
    assert_eq!(walk(&world, "loop/x").err(), Some(Errno::ELOOP));
}

#[test]
fn paths_and_names_have_a_limit() {
    let world = world();
    let longest = format!("{}d", "./".repeat(2047));
    assert_eq!(longest.len(), 4095);
    assert!(walk(&world, &longest).is_ok());
    assert_eq!(walk(&world, &format!("{longest}/")).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(walk(&world, &"n".repeat(256)).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(walk(&world, &"n".repeat(255)).err(), Some(Errno::ENOENT));
}

#[test]
fn a_cached_walk_needs_no_waiting_and_agrees_with_the_long_one() {
    let world = world();
    for path in ["d/e/f", "to-f", "d/back/f", "/d/../to-e/./f", "x", "d/e/f/", "loop"] {
        let at = At::working_directory(path.as_bytes());
        let quick = world.caller().try_walk(at, WalkFlags::FOLLOW).expect("tmpfs never waits");
        let slow = run(world.caller().walk(at, WalkFlags::FOLLOW));
        assert_eq!(quick.map(|path| path.inode().core().number), slow.map(|path| path.inode().core().number), "{path}");
    }
}

#[test]
fn only_who_may_search_a_folder_walks_through_it() {
    let mut world = world();
    world.chmod("d", 0o700).expect("root may");
    world.chmod("d/e/f", 0o604).expect("root may");
    world.become_user(1000, 1000);
    assert_eq!(walk(&world, "d/e").err(), Some(Errno::EACCES));
    assert!(walk(&world, "d").is_ok(), "its own permissions do not matter for naming it");
    assert_eq!(world.read("to-f"), Err(Errno::EACCES));
    world.credentials.effective = Capabilities::DAC_READ_SEARCH;
    assert_eq!(world.read("to-f"), Ok(b"content".to_vec()));
    assert_eq!(world.write("to-f", b"x"), Err(Errno::EACCES));
    world.credentials = Credentials::root();
    world.chmod("d", 0o711).expect("root may");
    world.become_user(1000, 1000);
    assert_eq!(world.read("to-f"), Ok(b"content".to_vec()));
    assert_eq!(world.list("d"), Err(Errno::EACCES));
}

#[test]
fn in_a_sticky_folder_one_removes_only_what_one_owns() {
    let mut world = world();
    world.chmod("m", 0o1777).expect("root may");
    world.write("m/roots", b"").expect("made");
    world.become_user(1000, 1000);
    world.write("m/mine", b"").expect("everybody may");
    assert_eq!(world.unlink("m/roots"), Err(Errno::EPERM));
    assert_eq!(world.rename("m/mine", "m/roots", RenameMode::Replace), Err(Errno::EPERM));
    world.become_user(1001, 1000);
    assert_eq!(world.unlink("m/mine"), Err(Errno::EPERM));
    world.become_user(1000, 1000);
    world.unlink("m/mine").expect("its own");
    assert_eq!(world.unlink("to-f"), Err(Errno::EACCES));
}

#[test]
fn in_a_sticky_folder_others_links_are_not_followed() {
    let mut world = world();
    world.chmod("m", 0o1777).expect("root may");
    world.symlink("/d/e/f", "m/roots").expect("made");
    world.become_user(1000, 1000);
    world.symlink("/d/e/f", "m/mine").expect("everybody may");
    assert_eq!(world.read("m/mine"), Ok(b"content".to_vec()));
    assert_eq!(world.read("m/roots"), Ok(b"content".to_vec()), "the folder is root's too");
    world.become_user(1001, 1001);
    assert_eq!(world.read("m/mine"), Err(Errno::EACCES));
    assert_eq!(world.readlink("m/mine"), Ok("/d/e/f".into()));
}

#[test]
fn a_set_group_id_folder_hands_its_group_on() {
    let mut world = world();
    world.chmod("m", 0o2777).expect("root may");
    let path = walk(&world, "m").expect("there");
    run(world.caller().chown(&path, None, Some(50))).expect("root may");
    world.become_user(1000, 1000);
    world.mkdir("m/sub").expect("everybody may");
    world.write("m/sub/f", b"").expect("its own");
    let (sub, file) = (world.stat("m/sub").expect("made").attributes, world.stat("m/sub/f").expect("made").attributes);
    assert_eq!((sub.gid, sub.mode, file.gid, file.uid), (50, 0o2755, 50, 1000));
}

#[test]
fn the_umask_takes_bits_away_and_the_unprivileged_may_not_give_files_away() {
    let mut world = world();
    world.chmod("/", 0o777).expect("root may");
    world.context.set_umask(0o077);
    world.become_user(1000, 1000);
    world.write("f", b"").expect("made");
    assert_eq!(world.stat("f").expect("made").attributes.mode, 0o600);
    let path = walk(&world, "f").expect("there");
    assert_eq!(run(world.caller().chown(&path, Some(0), None)), Err(Errno::EPERM));
    assert_eq!(run(world.caller().chown(&path, None, Some(7))), Err(Errno::EPERM));
    world.credentials.groups = Arc::from([7]);
    assert_eq!(run(world.caller().chown(&path, Some(1000), Some(7))), Ok(()));
    let device = At::working_directory(b"null");
    assert_eq!(run(world.caller().mknod(device, Kind::CharacterDevice, 0o666, 0x103)).err(), Some(Errno::EPERM));
    world.become_user(1001, 1001);
    assert_eq!(world.chmod("f", 0o777), Err(Errno::EPERM));
}

#[test]
fn a_mount_covers_its_place_and_dots_lead_out_of_it() {
    let world = world();
    world.write("m/covered", b"").expect("made");
    mount(&world, "m");
    assert_eq!(world.list("m"), Ok(vec![]));
    world.mkdir("m/inside").expect("made");
    assert_eq!(name(&world, "m/inside"), "/m/inside");
    assert_eq!(name(&world, "m/inside/../../d"), "/d");
    assert_ne!(world.stat("m").expect("there").device, world.stat("d").expect("there").device);
    assert_eq!(world.rename("d/e/f", "m/f", RenameMode::Replace), Err(Errno::EXDEV));
    assert_eq!(world.link("d/e/f", "m/f"), Err(Errno::EXDEV));
    assert_eq!(world.rmdir("m"), Err(Errno::EBUSY));
    assert_eq!(world.rename("m", "n", RenameMode::Replace), Err(Errno::EBUSY));
    let walk = WalkFlags::FOLLOW | WalkFlags::NO_CROSSING;
    assert_eq!(run(world.caller().walk(At::working_directory(b"m/inside"), walk)).err(), Some(Errno::EXDEV));
    mount(&world, "m");
    assert_eq!(world.list("m"), Ok(vec![]), "a mount on top of a mount");
    let unmount = || run(world.caller().unmount(At::working_directory(b"m"), WalkFlags::FOLLOW, false));
    assert_eq!(unmount(), Ok(()));
    assert_eq!(world.list("m"), Ok(vec!["inside".into()]));
    assert_eq!(unmount(), Ok(()));
    assert_eq!(world.list("m"), Ok(vec!["covered".into()]));
    assert_eq!(unmount(), Err(Errno::EINVAL));
    world.rename("m", "n", RenameMode::Replace).expect("free again");
}

#[test]
fn a_mount_in_use_is_busy_but_can_be_detached() {
    let world = world();
    mount(&world, "m");
    world.mkdir("m/sub").expect("made");
    let file = world.open("m/f", OpenFlags::RDWR | OpenFlags::CREAT).expect("made");
    let unmount = |lazy| run(world.caller().unmount(At::working_directory(b"m"), WalkFlags::FOLLOW, lazy));
    assert_eq!(unmount(false), Err(Errno::EBUSY));
    drop(file);
    mount(&world, "m/sub");
    assert_eq!(unmount(false), Err(Errno::EBUSY), "something is mounted in it");
    run(world.caller().chdir(At::working_directory(b"m/sub"))).expect("there");
    assert_eq!(run(world.caller().unmount(At::working_directory(b"/m"), WalkFlags::FOLLOW, true)), Ok(()));
    assert_eq!(world.list("/m"), Ok(vec![]));
    assert_eq!(world.write("still", b"works"), Ok(()));
    assert_eq!(world.context.current_directory_name(), Ok(b"(unreachable)/".to_vec()));
}

#[test]
fn nothing_changes_through_a_read_only_mount() {
    let world = world();
    mount(&world, "m");
    world.write("m/f", b"x").expect("made");
    let remount = |flags, whole| run(world.caller().remount(At::working_directory(b"m"), flags, whole));
    for whole in [false, true] {
        remount(MountFlags::READ_ONLY, whole).expect("a mount");
        assert_eq!(world.write("m/f", b"y"), Err(Errno::EROFS));
        assert_eq!(world.write("m/g", b"y"), Err(Errno::EROFS));
        assert_eq!(world.mkdir("m/f"), Err(Errno::EEXIST), "that it exists is said first");
        assert_eq!(world.unlink("m/f"), Err(Errno::EROFS));
        assert_eq!(world.chmod("m/f", 0), Err(Errno::EROFS));
        assert_eq!(world.read("m/f"), Ok(b"x".to_vec()));
        remount(MountFlags::empty(), whole).expect("a mount");
        world.write("m/f", b"x").expect("writable again");
    }
}

#[test]
fn a_bind_mount_shows_the_same_and_a_recursive_one_also_what_is_mounted_below() {
    let world = world();
    mount(&world, "d/e");
    world.write("d/e/inside", b"i").expect("made");
    let at = |path: &'static str| At::working_directory(path.as_bytes());
    run(world.caller().bind_mount(at("d"), at("m"), false)).expect("bound");
    assert_eq!(world.list("m/e"), Ok(vec!["f".into()]), "without what is mounted there");
    world.write("m/new", b"n").expect("made");
    assert_eq!(world.read("d/new"), Ok(b"n".to_vec()));
    world.unlink("d/new").expect("there");
    assert_eq!(world.stat("m/new").err(), Some(Errno::ENOENT));
    run(world.caller().unmount(at("m"), WalkFlags::FOLLOW, false)).expect("unused");
    run(world.caller().bind_mount(at("d"), at("m"), true)).expect("bound");
    assert_eq!(world.read("m/e/inside"), Ok(b"i".to_vec()));
    assert_eq!(name(&world, "m/e/.."), "/m");
    world.write("file", b"").expect("made");
    run(world.caller().bind_mount(at("d/e/inside"), at("file"), false)).expect("a file can be bound too");
    assert_eq!(world.read("file"), Ok(b"i".to_vec()));
    assert_eq!(run(world.caller().bind_mount(at("d"), at("file"), false)), Err(Errno::ENOTDIR));
}

#[test]
fn the_mounts_are_told_as_a_root_sees_them() {
    let world = world();
    world.mkdir("m x").expect("made");
    let flags = MountFlags::NOSUID | MountFlags::READ_ONLY;
    run(world.caller().mount(empty(), b"a disk", flags, At::working_directory(b"m x"))).expect("mounted");
    let at = |path: &'static str| At::working_directory(path.as_bytes());
    run(world.caller().bind_mount(at("d/e"), at("m"), false)).expect("bound");
    let text = |root: &Path| String::from_utf8(world.context.mounts().mounts_text(root)).expect("ASCII");
    assert_eq!(
        text(&world.context.root()),
        "test / tmpfs rw 0 0\na\\040disk /m\\040x tmpfs ro,nosuid 0 0\ntest /m tmpfs rw 0 0\n"
    );
    assert_eq!(text(&walk(&world, "m").expect("there")), "test / tmpfs rw 0 0\n");
    let info = world.context.mounts().mount_info_text(&world.context.root());
    let info = String::from_utf8(info).expect("ASCII");
    let fields: Vec<_> = info.lines().nth(2).expect("three mounts").split(' ').skip(3).collect();
    assert_eq!(fields, ["/d/e", "/m", "rw", "-", "tmpfs", "test", "rw"]);
}

#[test]
fn switch_root_works_as_busybox_does_it() {
    let world = world();
    mount(&world, "m");
    world.write("m/init", b"new").expect("made");
    let at = |path: &'static str| At::working_directory(path.as_bytes());
    run(world.caller().chdir(at("/m"))).expect("there");
    run(world.caller().move_mount(at("."), at("/"))).expect("moved");
    run(world.caller().chroot(at("."))).expect("root may");
    run(world.caller().chdir(at("/"))).expect("there");
    assert_eq!(world.list("/"), Ok(vec!["init".into()]));
    assert_eq!(world.list("/../.."), Ok(vec!["init".into()]));
    assert_eq!(world.context.current_directory_name(), Ok(b"/".to_vec()));
    assert_eq!(name(&world, "init"), "/init");
    let mounts = world.context.mounts().mounts();
    assert_eq!(mounts.len(), 2);
}

#[test]
fn pivot_root_shows_the_old_root_where_it_was_put() {
    let world = world();
    mount(&world, "m");
    world.mkdir("m/old").expect("made");
    let at = |path: &'static str| At::working_directory(path.as_bytes());
    assert_eq!(run(world.caller().pivot_root(at("d"), at("d/e"))), Err(Errno::EBUSY));
    run(world.caller().pivot_root(at("m"), at("m/old"))).expect("a mount");
    assert_eq!(world.list("/"), Ok(vec!["old".into()]));
    assert_eq!(world.read("/old/d/e/f"), Ok(b"content".to_vec()));
    assert_eq!(name(&world, "/old/d/../.."), "/");
    run(world.caller().unmount(at("/old"), WalkFlags::FOLLOW, true)).expect("detached");
    assert_eq!(world.list("/old"), Ok(vec![]));
}

#[test]
fn a_place_knows_its_name_also_after_a_move_and_that_it_is_gone() {
    let world = world();
    let file = walk(&world, "d/e/f").expect("there");
    let root = world.context.root();
    world.rename("d/e", "m/moved", RenameMode::Replace).expect("moved");
    assert_eq!(file.display(&root), b"/m/moved/f");
    world.unlink("m/moved/f").expect("there");
    assert_eq!(file.display(&root), b"/m/moved/f (deleted)");
    assert_eq!(file.name_from(&root), Err(Errno::ENOENT));
    let outside = walk(&world, "d").expect("there");
    let inside = walk(&world, "m").expect("there");
    assert_eq!(outside.display(&inside), b"(unreachable)/d");
}

#[test]
fn a_confined_walk_does_not_leave_its_beginning() {
    let world = world();
    world.symlink("/d", "d/absolute").expect("made");
    world.symlink("../m", "d/out").expect("made");
    let d = walk(&world, "d").expect("there");
    let walk = |path: &'static str, flags| {
        run(world.caller().walk(At::folder(&d, path.as_bytes()), flags | WalkFlags::FOLLOW))
    };
    let inside = |result: Result<Path>| result.map(|path| path.inode().core().number);
    for path in ["..", "/", "e/../..", "out", "absolute", "/e"] {
        assert_eq!(inside(walk(path, WalkFlags::BENEATH)), Err(Errno::EXDEV), "{path}");
    }
    assert!(walk("e/../e/f", WalkFlags::BENEATH).is_ok());
    let number = d.inode().core().number;
    for path in ["..", "/", "e/../..", "/../.."] {
        assert_eq!(inside(walk(path, WalkFlags::IN_ROOT)), Ok(number), "{path}");
    }
    assert_eq!(inside(walk("absolute", WalkFlags::IN_ROOT)), Err(Errno::ENOENT));
    assert_eq!(inside(walk("out", WalkFlags::NO_SYMLINKS)), Err(Errno::ELOOP));
    assert!(walk("e/f", WalkFlags::NO_SYMLINKS).is_ok());
}

#[test]
fn the_cache_of_names_gives_back_what_nobody_uses() {
    let world = World::new(empty());
    world.mkdir("d").expect("made");
    for number in 0..200 {
        world.write(&format!("d/{number}"), b"x").expect("made");
    }
    let held = walk(&world, "d/7").expect("there");
    assert!(fs::dentry::shrink(usize::MAX) >= 199);
    for number in 0..200 {
        assert_eq!(world.read(&format!("d/{number}")), Ok(b"x".to_vec()));
    }
    let again = walk(&world, "d/7").expect("there");
    assert!(held.is_same(&again), "what is in use keeps its one dentry");
}

#[test]
fn a_file_opened_with_both_bits_of_the_access_mode_is_neither_read_nor_written() {
    let world = world();
    let file = world.open("d/e/f", OpenFlags::WRONLY | OpenFlags::RDWR).expect("root may do both");
    assert!(!file.flags().can_read() && !file.flags().can_write());
}
