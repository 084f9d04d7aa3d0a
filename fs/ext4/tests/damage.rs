//! Damaged images and failing disks: whatever the disk says, there is an answer, and it comes soon.

mod support;

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fs::{Errno, FileSystem, Inode, Kind};
use support::*;

/// A small volume with something of everything that is worth damaging.
fn small_image(name: &str, options: &[&str]) -> Vec<u8> {
    let folder: PathBuf = scratch(name);
    let mut random = Random(7);
    let pieces = File::create(folder.join("pieces")).unwrap();
    for index in 0..400u64 {
        pieces.write_all_at(&random.bytes(8), index * 2048).unwrap();
    }
    std::fs::write(folder.join("file"), random.bytes(30_000)).unwrap();
    symlink("file", folder.join("short")).unwrap();
    symlink("z/".repeat(200), folder.join("long")).unwrap();
    std::fs::create_dir(folder.join("large")).unwrap();
    for index in 0..120 {
        std::fs::write(folder.join(format!("large/{index} {}", "x".repeat(150))), [1]).unwrap();
    }
    let image = make_image(&folder, 2560, options);
    debugfs(&image, &["ea_set file user.name value".into(), format!("ea_set file user.other {}", "o".repeat(200))]);
    let _ = std::process::Command::new("/usr/sbin/e2fsck").args(["-fyD"]).arg(&image).output();
    std::fs::read(&image).unwrap()
}

/// Asks everything of everything, and counts what was answered; gives up after `budget` questions.
fn ask_everything(root: &Arc<dyn Inode>, budget: usize) -> usize {
    let (mut todo, mut left) = (vec![(root.clone(), 0)], budget);
    let mut answered = 0;
    while let Some((node, depth)) = todo.pop() {
        if left == 0 || depth > 8 {
            break;
        }
        left -= 1;
        let _ = node.metadata();
        let _ = node.file_system();
        for name in ["user.name", "user.other", "system.posix_acl_access"] {
            answered += usize::from(block_on(node.extended_attribute(name.as_bytes())).is_ok());
        }
        match node.core().kind {
            Kind::Directory => {
                let mut position = 0;
                for _ in 0..64 {
                    let Ok(entries) = block_on(node.read_directory(position)) else { break };
                    let Some(last) = entries.last() else { break };
                    assert!(last.next > position);
                    position = last.next;
                    for entry in &entries {
                        if let Ok(child) = block_on(node.lookup(&entry.name)) {
                            answered += 1;
                            todo.push((child, depth + 1));
                        }
                    }
                }
                let _ = lookup(&node, "absent");
            }
            Kind::Regular => {
                let pages = node.metadata().attributes.size / 4096;
                for index in [0, 1, 2, pages / 2, pages, pages + 1, u64::MAX / 4096, u64::MAX] {
                    let page = fs::Page::allocate(&PAGES).unwrap();
                    answered += usize::from(block_on(node.read_page(index, &page)).is_ok());
                }
            }
            Kind::Symlink => answered += usize::from(block_on(node.read_link()).is_ok()),
            _ => {}
        }
    }
    answered
}

/// Where the metadata of these small images is: hits there matter more than hits in content.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let used = |block: &&[u8]| block.iter().any(|byte| *byte != 0);
    bytes.chunks(1024).enumerate().filter(|(_, block)| used(block)).map(|(index, _)| index * 1024).collect()
}

fn damage(name: &str, options: &[&str], seed: u64, rounds: usize) {
    if !has_tools() {
        return;
    }
    // More rounds than a test should take: ROUNDS=10000 cargo test -p ext4 --test damage
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    let good = small_image(name, options);
    let blocks = interesting(&good);
    let expected = ask_everything(&mount(&Disk::new(good.clone())).unwrap().root(), 2000);
    assert!(expected > 150, "the undamaged volume answers: {expected}");
    let mut random = Random(seed);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(12) {
            let block = blocks[random.below(blocks.len())];
            let at = block + random.below(1024) / if random.below(2) == 0 { 1 } else { 16 };
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => bytes[block..block + 1024].fill([0, 0xff][random.below(2)]),
                _ => {
                    let from = blocks[random.below(blocks.len())];
                    bytes.copy_within(from..from + 1024, block);
                }
            }
        }
        match mount(&Disk::new(bytes)) {
            Ok(volume) => drop(ask_everything(&volume.root(), 300)),
            Err(errno) => {
                refused += 1;
                assert!([Errno::EINVAL, Errno::EUCLEAN, Errno::EIO, Errno::ENOMEM].contains(&errno), "{errno:?}");
            }
        }
    }
    assert!(
        refused > 0 && refused < rounds,
        "{refused} of {rounds} were refused: the damage is too small or too large"
    );
}

#[test]
fn a_damaged_ext4_neither_panics_nor_hangs() {
    damage("damaged-ext4", &["-t", "ext4", "-b", "1024", "-O", "^has_journal"], 0x1234, 250);
}

#[test]
fn a_damaged_ext4_without_checksums_neither_panics_nor_hangs() {
    let options = ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal,inline_data"];
    damage("damaged-plain", &options, 0x4321, 400);
}

#[test]
fn a_damaged_ext2_neither_panics_nor_hangs() {
    damage("damaged-ext2", &["-t", "ext2", "-b", "1024"], 0x9876, 250);
}

#[test]
fn a_damaged_journal_neither_panics_nor_hangs() {
    if !has_tools() {
        return;
    }
    let folder = scratch("damaged-journal");
    std::fs::write(folder.join("file"), vec![1; 8192]).unwrap();
    let image = make_image(&folder, 4096, &["-t", "ext4", "-b", "1024"]);
    let data = image.with_extension("data");
    std::fs::write(&data, vec![2; 4096]).unwrap();
    debugfs(
        &image,
        &["jo -c".into(), format!("jw -b 300,301,302 {}", data.display()), "jw -r 301".into(), "jc".into()],
    );
    let good = std::fs::read(&image).unwrap();
    let magic = [0xc0, 0x3b, 0x39, 0x98];
    let blocks: Vec<usize> = (0..good.len()).step_by(1024).filter(|at| good[*at..].starts_with(&magic)).collect();
    assert!(blocks.len() >= 4, "superblock, descriptor, revocation, commits");
    let mut random = Random(99);
    for _ in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            bytes[blocks[random.below(blocks.len())] + random.below(128)] ^= 1 << random.below(8);
        }
        if let Ok(volume) = mount(&Disk::new(bytes)) {
            ask_everything(&volume.root(), 50);
        }
    }
}

#[test]
fn wrong_checksums_are_errors() {
    if !has_tools() {
        return;
    }
    let good = small_image("checksums", &["-t", "ext4", "-b", "1024", "-O", "^has_journal"]);
    let image = scratch("checksums").join("image");
    std::fs::write(&image, &good).unwrap();
    let number_behind = |command: &str, words: &str| -> usize {
        let text = debugfs(&image, &[command.into()]);
        let rest = &text[text.find(words).unwrap_or_else(|| panic!("{words} in {text}")) + words.len()..];
        rest.trim_start_matches([' ', '#']).split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let broken = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        mount(&Disk::new(bytes))
    };
    assert_eq!(broken(1024 + 0x78).err(), Some(Errno::EIO), "in the superblock's name");
    assert_eq!(broken(2048 + 0x0c).err(), Some(Errno::EIO), "in the group's descriptor");
    let file = number_behind("imap file", "located at block");
    let offset = usize::from_str_radix(
        debugfs(&image, &["imap file".into()]).split("offset 0x").nth(1).unwrap().split_whitespace().next().unwrap(),
        16,
    )
    .unwrap();
    let volume = broken(file * 1024 + offset + 0x64).unwrap();
    let root = volume.root();
    assert_eq!(lookup(&root, "file").err(), Some(Errno::EIO), "in an inode");
    let folder = number_behind("blocks /", "blocks /\n");
    assert_eq!(lookup(&broken(folder * 1024 + 0x10).unwrap().root(), "file").err(), Some(Errno::EIO), "in a folder");
    let large = number_behind("blocks large", "blocks large\n");
    let volume = broken(large * 1024 + 40).unwrap();
    let root = volume.root();
    assert_eq!(lookup(&lookup(&root, "large").unwrap(), "x").err(), Some(Errno::EIO), "in an index");
}

#[test]
fn errors_of_the_disk_are_told_and_pass_when_they_pass() {
    if !has_tools() {
        return;
    }
    let disk = Disk::new(small_image("failing", &["-t", "ext4", "-b", "1024"]));
    disk.is_dead.store(true, Ordering::Relaxed);
    assert_eq!(mount(&disk).err(), Some(Errno::EIO));
    disk.is_dead.store(false, Ordering::Relaxed);
    let volume = mount(&disk).unwrap();
    let root = volume.root();
    disk.is_dead.store(true, Ordering::Relaxed);
    let mut failed = 0;
    for name in ["file", "large", "pieces", "long"] {
        match lookup(&root, name) {
            Err(errno) => assert_eq!(errno, Errno::EIO),
            Ok(node) if node.core().kind == Kind::Regular => assert_eq!(content(&node), Err(Errno::EIO)),
            Ok(node) => {
                let _ = block_on(node.read_directory(0));
                continue;
            }
        }
        failed += 1;
    }
    assert!(failed >= 2, "nothing of this was in memory");
    disk.is_dead.store(false, Ordering::Relaxed);
    assert!(ask_everything(&root, 2000) > 150, "an error is not remembered");
}

#[test]
fn a_bad_sector_costs_what_stands_there_and_no_more() {
    if !has_tools() {
        return;
    }
    let image = small_image("bad-sector", &["-t", "ext4", "-b", "1024"]);
    let sectors = image.len() as u64 / 512;
    let whole = ask_everything(&mount(&Disk::new(image.clone())).unwrap().root(), 2000);
    let mut random = Random(5);
    for _ in 0..60 {
        let disk = Disk::new(image.clone());
        // Behind the superblock and the descriptors, so that it can be mounted.
        disk.broken.lock().unwrap().insert(40 + random.next() % (sectors - 40));
        if let Ok(volume) = mount(&disk) {
            let answered = ask_everything(&volume.root(), 2000);
            assert!(answered <= whole);
        }
    }
}

#[test]
fn a_read_dropped_half_way_leaves_nothing_behind() {
    if !has_tools() {
        return;
    }
    let disk = Disk::new(small_image("dropped", &["-t", "ext4", "-b", "1024"]));
    let volume = mount(&disk).unwrap();
    let root = volume.root();
    for polls in 0..12 {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut future = Box::pin(async {
            let file = root.lookup(b"pieces").await?;
            let page = fs::Page::allocate(&PAGES).unwrap();
            file.read_page(100, &page).await
        });
        for _ in 0..polls {
            if future.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    assert!(content(&lookup(&root, "pieces").unwrap()).is_ok());
}
