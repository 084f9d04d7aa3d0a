//! The checks, one sentence each.

use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, read_at, run, write_at};
use crate::context::At;
use crate::inode::{Kind, RenameMode, Timestamp};
use crate::walk::WalkFlags;
use crate::{Errno, OpenFlags, TimeChange};

/// One check: what it is, and the check.
pub(super) type Check = (&'static str, fn(&mut World));

/// All of them.
pub(super) const ALL: &[Check] = &[
    ("a new file is empty and keeps what is written", a_new_file_keeps_what_is_written),
    ("a gap reads as zeros", a_gap_reads_as_zeros),
    ("what was cut off does not come back", what_was_cut_off_does_not_come_back),
    ("an append goes to the end wherever the cursor is", an_append_goes_to_the_end),
    ("exclusive creation refuses what is there", exclusive_creation_refuses),
    ("folders count their links", folders_count_their_links),
    ("only an empty folder can be removed", only_an_empty_folder_can_be_removed),
    ("two names are one file", two_names_are_one_file),
    ("an open file outlives its name", an_open_file_outlives_its_name),
    ("a symbolic link tells its target", a_symbolic_link_tells_its_target),
    ("a rename replaces what may be replaced", a_rename_replaces),
    ("a rename refuses what it must", a_rename_refuses),
    ("an exchange changes places", an_exchange_changes_places),
    ("all entries of a large folder are listed once", all_entries_are_listed_once),
    ("a name is any bytes up to 255", a_name_is_any_bytes),
    ("special nodes keep kind and number", special_nodes_keep_kind_and_number),
    ("attributes can be changed", attributes_can_be_changed),
    ("times follow what is done", times_follow_what_is_done),
    ("a write beyond the largest size is refused", a_write_beyond_the_largest_size_is_refused),
];

fn create() -> OpenFlags {
    OpenFlags::RDWR | OpenFlags::CREAT
}

fn a_new_file_keeps_what_is_written(world: &mut World) {
    world.write("f", b"").expect("made");
    assert_eq!(world.read("f").expect("there"), b"");
    let metadata = world.stat("f").expect("there");
    assert_eq!((metadata.kind, metadata.attributes.size, metadata.attributes.links), (Kind::Regular, 0, 1));
    assert_eq!(metadata.attributes.mode, 0o644);
    let content: Vec<u8> = (0..20_000_u32).map(|byte| (byte % 251) as u8).collect();
    world.write("f", &content).expect("written");
    assert_eq!(world.read("f").expect("there"), content);
    let file = world.open("f", OpenFlags::RDWR).expect("there");
    assert_eq!(write_at(&file, 4090, b"0123456789"), Ok(10));
    assert_eq!(read_at(&file, 4088, 14).expect("there")[2..12], *b"0123456789");
    assert_eq!(read_at(&file, 20_000, 10).expect("the end"), b"");
    assert_eq!(world.stat("f").expect("there").attributes.size, 20_000);
    run(file.ops.sync(false)).expect("synced");
}

fn a_gap_reads_as_zeros(world: &mut World) {
    let file = world.open("f", create()).expect("made");
    assert_eq!(write_at(&file, 10_000, b"x"), Ok(1));
    let content = world.read("f").expect("there");
    assert_eq!((content.len(), content[10_000]), (10_001, b'x'));
    assert!(content[..10_000].iter().all(|&byte| byte == 0));
    world.truncate("f", 30_000).expect("grows");
    assert_eq!(read_at(&file, 29_990, 100).expect("there"), [0; 10]);
}

fn what_was_cut_off_does_not_come_back(world: &mut World) {
    world.write("f", &vec![7; 9000]).expect("written");
    world.truncate("f", 5000).expect("cut");
    world.truncate("f", 9000).expect("grown");
    let content = world.read("f").expect("there");
    assert!(content[..5000].iter().all(|&byte| byte == 7) && content[5000..].iter().all(|&byte| byte == 0));
    let file = world.open("f", OpenFlags::RDWR | OpenFlags::TRUNC).expect("there");
    assert_eq!(world.stat("f").expect("there").attributes.size, 0);
    assert_eq!(write_at(&file, 100, b"a"), Ok(1));
    assert_eq!(world.read("f").expect("there")[..100], [0; 100]);
}

fn an_append_goes_to_the_end(world: &mut World) {
    world.write("f", b"one").expect("written");
    let file = world.open("f", OpenFlags::WRONLY | OpenFlags::APPEND).expect("there");
    assert_eq!(write_at(&file, 0, b" two"), Ok(4));
    world.truncate("f", 3).expect("cut");
    assert_eq!(write_at(&file, 77, b" three"), Ok(6));
    assert_eq!(world.read("f").expect("there"), b"one three");
}

fn exclusive_creation_refuses(world: &mut World) {
    world.open("f", create() | OpenFlags::EXCL).expect("made");
    assert_eq!(world.open("f", create() | OpenFlags::EXCL).err(), Some(Errno::EEXIST));
    world.symlink("nowhere", "l").expect("made");
    assert_eq!(world.open("l", create() | OpenFlags::EXCL).err(), Some(Errno::EEXIST));
    assert_eq!(world.open("d/f", create()).err(), Some(Errno::ENOENT));
    assert_eq!(world.open("f/f", create()).err(), Some(Errno::ENOTDIR));
    assert_eq!(world.open("g/", create()).err(), Some(Errno::EISDIR));
    assert_eq!(world.mkdir("f"), Err(Errno::EEXIST));
}

fn folders_count_their_links(world: &mut World) {
    let before = world.stat("/").expect("the root").attributes.links;
    world.mkdir("d").expect("made");
    world.mkdir("d/e").expect("made");
    world.write("d/f", b"").expect("made");
    assert_eq!(world.stat("/").expect("the root").attributes.links, before + 1);
    assert_eq!(world.stat("d").expect("there").attributes.links, 3);
    world.rename("d/e", "e", RenameMode::Replace).expect("moved");
    assert_eq!(world.stat("d").expect("there").attributes.links, 2);
    assert_eq!(world.stat("/").expect("the root").attributes.links, before + 2);
    world.rmdir("e").expect("empty");
    assert_eq!(world.stat("/").expect("the root").attributes.links, before + 1);
}

fn only_an_empty_folder_can_be_removed(world: &mut World) {
    world.mkdir("d").expect("made");
    world.write("d/f", b"x").expect("made");
    assert_eq!(world.rmdir("d"), Err(Errno::ENOTEMPTY));
    assert_eq!(world.unlink("d"), Err(Errno::EISDIR));
    assert_eq!(world.rmdir("d/f"), Err(Errno::ENOTDIR));
    assert_eq!(world.rmdir("d/nothing"), Err(Errno::ENOENT));
    assert_eq!(world.rmdir("d/."), Err(Errno::EINVAL));
    world.unlink("d/f").expect("there");
    let held = world.open("d", OpenFlags::DIRECTORY).expect("there");
    world.rmdir("d").expect("empty");
    assert_eq!(world.stat("d").err(), Some(Errno::ENOENT));
    assert_eq!(run(held.ops.read_directory(0)).err(), Some(Errno::ENOENT));
    let inside = At::folder(held.path.as_ref().expect("opened by a path"), b"f");
    let made = run(world.caller().open(inside, create(), 0o644, WalkFlags::empty()));
    assert_eq!(made.err(), Some(Errno::ENOENT), "nothing is made in a folder that is gone");
}

fn two_names_are_one_file(world: &mut World) {
    world.write("a", b"one").expect("made");
    world.mkdir("d").expect("made");
    world.link("a", "d/b").expect("linked");
    let (a, b) = (world.stat("a").expect("there"), world.stat("d/b").expect("there"));
    assert_eq!((a.number, a.attributes.links), (b.number, 2));
    world.write("d/b", b"two!").expect("written");
    assert_eq!(world.read("a").expect("there"), b"two!");
    assert_eq!(world.link("a", "d/b"), Err(Errno::EEXIST));
    assert_eq!(world.link("d", "e"), Err(Errno::EPERM));
    // Two names of one file: rename does nothing.
    world.rename("a", "d/b", RenameMode::Replace).expect("nothing to do");
    assert!(world.list("/").expect("there").contains(&"a".into()));
    world.unlink("a").expect("there");
    assert_eq!(world.read("d/b").expect("there"), b"two!");
    assert_eq!(world.stat("d/b").expect("there").attributes.links, 1);
}

fn an_open_file_outlives_its_name(world: &mut World) {
    world.write("f", b"still here").expect("made");
    let file = world.open("f", OpenFlags::RDWR).expect("there");
    world.unlink("f").expect("there");
    assert_eq!(world.open("f", OpenFlags::empty()).err(), Some(Errno::ENOENT));
    assert_eq!(read_at(&file, 0, 100).expect("open"), b"still here");
    assert_eq!(file.inode.as_ref().expect("a file").metadata().attributes.links, 0);
    world.write("f", b"another").expect("made");
    assert_eq!(read_at(&file, 0, 100).expect("open"), b"still here");
}

fn a_symbolic_link_tells_its_target(world: &mut World) {
    world.symlink("some/where", "l").expect("made");
    let metadata = world.stat("l").expect("there");
    assert_eq!((metadata.kind, metadata.attributes.size), (Kind::Symlink, 10));
    assert_eq!(world.readlink("l").expect("a link"), "some/where");
    let long = "x/".repeat(1500);
    world.symlink(&long, "long").expect("made");
    assert_eq!(world.readlink("long").expect("a link"), long);
    world.write("f", b"").expect("made");
    assert_eq!(world.readlink("f"), Err(Errno::EINVAL));
    assert_eq!(world.symlink("", "empty"), Err(Errno::ENOENT));
    world.unlink("l").expect("there");
    assert_eq!(world.stat("l").err(), Some(Errno::ENOENT));
}

fn a_rename_replaces(world: &mut World) {
    world.write("a", b"a").expect("made");
    world.write("b", b"b").expect("made");
    world.mkdir("d").expect("made");
    world.mkdir("empty").expect("made");
    world.rename("a", "d/a", RenameMode::Replace).expect("moved");
    world.rename("d/a", "b", RenameMode::Replace).expect("replaced");
    assert_eq!((world.read("b"), world.list("d")), (Ok(b"a".to_vec()), Ok(vec![])));
    world.write("d/inside", b"i").expect("made");
    world.rename("d", "empty", RenameMode::Replace).expect("replaced");
    assert_eq!(world.read("empty/inside"), Ok(b"i".to_vec()));
    assert_eq!(world.stat("d").err(), Some(Errno::ENOENT));
    world.mkdir("up").expect("made");
    world.rename("empty", "up/down", RenameMode::Replace).expect("moved");
    assert_eq!(world.read("up/down/../down/inside"), Ok(b"i".to_vec()));
    let number = world.stat("up").expect("there").number;
    let entries = world.entries("up/down").expect("there");
    assert_eq!(entries.iter().find(|entry| entry.name == b"..").map(|entry| entry.number), Some(number));
}

fn a_rename_refuses(world: &mut World) {
    world.mkdir("d").expect("made");
    world.mkdir("d/e").expect("made");
    world.mkdir("full").expect("made");
    world.write("full/f", b"").expect("made");
    world.write("f", b"").expect("made");
    let rename = |old, new| world.rename(old, new, RenameMode::Replace);
    assert_eq!(rename("d", "d/e/x"), Err(Errno::EINVAL));
    assert_eq!(rename("d", "d/e"), Err(Errno::EINVAL));
    assert_eq!(rename("d/e", "d"), Err(Errno::ENOTEMPTY));
    assert_eq!(rename("d", "full"), Err(Errno::ENOTEMPTY));
    assert_eq!(rename("d", "f"), Err(Errno::ENOTDIR));
    assert_eq!(rename("f", "d"), Err(Errno::EISDIR));
    assert_eq!(rename("nothing", "x"), Err(Errno::ENOENT));
    assert_eq!(rename("f", "x/"), Err(Errno::ENOTDIR));
    assert_eq!(rename("d/.", "x"), Err(Errno::EBUSY));
    assert_eq!(world.rename("f", "full", RenameMode::NoReplace), Err(Errno::EEXIST));
    world.rename("f", "g", RenameMode::NoReplace).expect("free");
}

fn an_exchange_changes_places(world: &mut World) {
    world.write("f", b"file").expect("made");
    world.mkdir("d").expect("made");
    world.mkdir("d/e").expect("made");
    world.write("d/e/x", b"x").expect("made");
    world.rename("f", "d/e", RenameMode::Exchange).expect("both there");
    assert_eq!((world.read("d/e"), world.read("f/x")), (Ok(b"file".to_vec()), Ok(b"x".to_vec())));
    assert_eq!(world.stat("d").expect("there").attributes.links, 2);
    assert_eq!(world.rename("f", "nothing", RenameMode::Exchange), Err(Errno::ENOENT));
}

fn all_entries_are_listed_once(world: &mut World) {
    world.mkdir("d").expect("made");
    let mut names: Vec<_> = (0..300).map(|number| alloc::format!("entry-{number:03}")).collect();
    for name in &names {
        world.write(&alloc::format!("d/{name}"), b"").expect("made");
    }
    assert_eq!(world.list("d").expect("there"), names);
    for name in names.iter().step_by(2) {
        world.unlink(&alloc::format!("d/{name}")).expect("there");
    }
    names = names.into_iter().skip(1).step_by(2).collect();
    assert_eq!(world.list("d").expect("there"), names);
    for entry in world.entries("d").expect("there").iter().skip(2) {
        let name = alloc::format!("d/{}", alloc::string::String::from_utf8_lossy(&entry.name));
        assert_eq!(world.stat(&name).expect("there").number, entry.number);
    }
}

fn a_name_is_any_bytes(world: &mut World) {
    let longest = "n".repeat(255);
    world.write(&longest, b"long").expect("allowed");
    assert_eq!(world.read(&longest).expect("there"), b"long");
    assert_eq!(world.write(&"n".repeat(256), b""), Err(Errno::ENAMETOOLONG));
    let odd = At::working_directory(b"\xff\x01 *\n");
    run(world.caller().mkdir(odd, 0o755)).expect("allowed");
    assert_eq!(run(world.caller().stat(odd, WalkFlags::empty())).expect("there").kind, Kind::Directory);
}

fn special_nodes_keep_kind_and_number(world: &mut World) {
    for (name, kind, number) in [
        ("fifo", Kind::Fifo, 0),
        ("socket", Kind::Socket, 0),
        ("char", Kind::CharacterDevice, crate::environment::make_device(1, 3)),
        ("block", Kind::BlockDevice, crate::environment::make_device(259, 70_000)),
    ] {
        let at = At::working_directory(name.as_bytes());
        run(world.caller().mknod(at, kind, 0o600, number)).expect("root may");
        let metadata = world.stat(name).expect("there");
        assert_eq!((metadata.kind, metadata.represents, metadata.attributes.mode), (kind, number, 0o600));
    }
}

fn attributes_can_be_changed(world: &mut World) {
    world.write("f", b"x").expect("made");
    world.chmod("f", 0o4751).expect("root may");
    assert_eq!(world.stat("f").expect("there").attributes.mode, 0o4751);
    let path = run(world.caller().walk(At::working_directory(b"f"), WalkFlags::FOLLOW)).expect("there");
    run(world.caller().chown(&path, Some(1000), Some(1001))).expect("root may");
    let attributes = world.stat("f").expect("there").attributes;
    assert_eq!((attributes.uid, attributes.gid, attributes.mode), (1000, 1001, 0o751));
    let time = |seconds| TimeChange::To(Timestamp { seconds, nanoseconds: 5 });
    run(world.caller().set_times(&path, time(-7), time(4_000_000_000))).expect("root may");
    let attributes = world.stat("f").expect("there").attributes;
    assert_eq!((attributes.accessed.seconds, attributes.modified.seconds), (-7, 4_000_000_000));
    run(world.caller().set_times(&path, TimeChange::Omit, TimeChange::Now)).expect("root may");
    let after = world.stat("f").expect("there").attributes;
    assert!(after.accessed.seconds == -7 && after.modified.seconds < 4_000_000_000);
}

fn times_follow_what_is_done(world: &mut World) {
    world.mkdir("d").expect("made");
    let before = world.stat("d").expect("there").attributes;
    world.write("d/f", b"x").expect("made");
    let after = world.stat("d").expect("there").attributes;
    assert!(after.modified > before.modified && after.changed > before.changed);
    let before = world.stat("d/f").expect("there").attributes;
    world.chmod("d/f", 0o600).expect("root may");
    let after = world.stat("d/f").expect("there").attributes;
    assert!(after.modified == before.modified && after.changed > before.changed);
    world.truncate("d/f", 0).expect("cut");
    assert!(world.stat("d/f").expect("there").attributes.modified > after.modified);
}

fn a_write_beyond_the_largest_size_is_refused(world: &mut World) {
    let file = world.open("f", create()).expect("made");
    let limit = file.inode.as_ref().expect("a file").max_size();
    assert_eq!(write_at(&file, limit, b"x"), Err(Errno::EFBIG));
    if let Some(beyond) = limit.checked_add(1) {
        assert_eq!(world.truncate("f", beyond), Err(Errno::EFBIG));
    }
    assert_eq!(world.stat("f").expect("there").attributes.size, 0);
}
