use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use alloc::sync::Arc;
use fs::conformance::{World, pages, read_at, run, write_at};
use fs::{At, Errno, Kind, OpenFlags, WalkFlags};

use super::*;

/// Numbers below ten are processes.
struct Processes;

impl Folder for Processes {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let pid: u32 = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(Errno::ENOENT)?;
        if pid >= 10 {
            return Err(Errno::ENOENT);
        }
        let status = file(move || format!("Pid: {pid}\n").into_bytes());
        Ok(Table::new().with("status", status).node().owned_by(pid, 7).numbered(u64::from(pid)))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        for pid in position..10 {
            let name = pid.to_string();
            if !tell(Listed { position: pid + 1, name: name.as_bytes(), number: pid, kind: Kind::Directory }) {
                break;
            }
        }
        Ok(())
    }
}

fn world() -> (World, Arc<Mutex<Vec<u8>>>) {
    fs::conformance::install();
    let counter = AtomicU32::new(0);
    let setting = Arc::new(Mutex::new(b"1\n".to_vec()));
    let (reads, writes) = (setting.clone(), setting.clone());
    let count = file(move || format!("{}\n", counter.fetch_add(1, Ordering::Relaxed)).repeat(100).into_bytes());
    let set = writable_file(
        move || reads.lock().expect("not poisoned").clone(),
        move |bytes| match bytes {
            b"bad\n" => Err(Errno::EINVAL),
            _ => {
                *writes.lock().expect("not poisoned") = bytes.to_vec();
                Ok(())
            }
        },
    );
    let root = Table::new()
        .with("count", count)
        .with("self", link(|| Ok(b"3".to_vec())))
        .with("sys", Table::new().with("setting", set).node())
        .with_rest(Processes);
    (World::new(Procfs::new("proc", 0x9fa0, pages(), root.node())), setting)
}

#[test]
fn a_file_read_in_pieces_is_one_snapshot_and_anew_from_the_beginning() {
    let (world, _) = world();
    let file = world.open("count", OpenFlags::empty()).expect("there");
    assert_eq!(read_at(&file, 0, 3).expect("readable"), b"0\n0");
    assert_eq!(read_at(&file, 150, 1000).expect("readable"), b"0\n".repeat(25));
    assert_eq!(read_at(&file, 200, 10).expect("the end"), b"");
    assert_eq!(read_at(&file, 0, 2).expect("readable"), b"1\n");
}

#[test]
fn a_setting_is_written_whole_or_refused() {
    let (world, setting) = world();
    let file = world.open("sys/setting", OpenFlags::RDWR | OpenFlags::TRUNC).expect("root may");
    assert_eq!(write_at(&file, 0, b"42\n"), Ok(3));
    assert_eq!(*setting.lock().expect("not poisoned"), b"42\n");
    assert_eq!(write_at(&file, 0, b"bad\n"), Err(Errno::EINVAL));
    assert_eq!(world.read("sys/setting"), Ok(b"42\n".to_vec()));
}

#[test]
fn the_changing_part_is_found_and_listed_behind_the_table() {
    let (world, _) = world();
    let names = world.list("/").expect("there");
    assert_eq!(names.len(), 13);
    assert!(names.contains(&"9".into()) && names.contains(&"sys".into()));
    assert_eq!(world.read("self/status"), Ok(b"Pid: 3\n".to_vec()));
    let metadata = world.stat("7").expect("there");
    assert_eq!((metadata.attributes.uid, metadata.attributes.gid, metadata.number), (7, 7, 7));
    assert_eq!(world.stat("10").err(), Some(Errno::ENOENT));
}

#[test]
fn a_process_that_ends_is_kept_alive_by_nothing() {
    struct Ends(Arc<()>);
    impl Folder for Ends {
        fn lookup(&self, _name: &[u8]) -> Result<Node> {
            let held = self.0.clone();
            let status = file(move || format!("{}", Arc::strong_count(&held)).into_bytes());
            Ok(Table::new().with("status", status).node())
        }
        fn list(&self, _position: u64, _tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
            Ok(())
        }
    }
    let process = Arc::new(());
    let root = Table::new().with_rest(Ends(process.clone())).node();
    let world = World::new(Procfs::new("proc", 0x9fa0, pages(), root));
    assert_eq!(world.read("1/status"), Ok(b"3".to_vec()));
    assert_eq!(Arc::strong_count(&process), 2, "the folder of a process is not remembered, nor what is in it");
}

#[test]
fn a_link_is_asked_each_time() {
    let counter = AtomicU32::new(0);
    let own = link(move || Ok(counter.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()));
    let root = Table::new().with("self", own).with_rest(Processes).node();
    let world = World::new(Procfs::new("proc", 0x9fa0, pages(), root));
    assert_eq!(world.read("self/status"), Ok(b"Pid: 0\n".to_vec()));
    assert_eq!(world.read("self/status"), Ok(b"Pid: 1\n".to_vec()));
    assert_eq!(world.readlink("self"), Ok("2".into()));
}

#[test]
fn nothing_can_be_made_removed_or_given_away() {
    let (world, _) = world();
    assert_eq!(world.mkdir("new"), Err(Errno::ENOENT));
    assert_eq!(world.unlink("count"), Err(Errno::EPERM));
    assert_eq!(world.rmdir("sys"), Err(Errno::EPERM));
    assert_eq!(world.chmod("count", 0o777), Err(Errno::EPERM));
    let opened = world.open("new", OpenFlags::CREAT | OpenFlags::WRONLY);
    assert_eq!(opened.err(), Some(Errno::ENOENT));
}

#[test]
fn a_magic_link_leads_to_a_place_and_tells_a_name() {
    let (outer, _) = world();
    let target = run(outer.caller().walk(At::working_directory(b"sys/setting"), WalkFlags::FOLLOW)).expect("there");
    let root = Table::new().with("fd", magic_link(|| Ok(b"/elsewhere".to_vec()), move || Ok(target.clone())));
    let world = World::new(Procfs::new("proc", 0x9fa0, pages(), root.node()));
    assert_eq!(world.readlink("fd"), Ok("/elsewhere".into()));
    assert_eq!(world.read("fd"), Ok(b"1\n".to_vec()));
    let walk = WalkFlags::FOLLOW | WalkFlags::NO_MAGIC_LINKS;
    assert_eq!(run(world.caller().walk(At::working_directory(b"fd"), walk)).err(), Some(Errno::ELOOP));
}
