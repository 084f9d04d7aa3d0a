//! Images as the real `mke2fs -d` makes them, in many variants, compared file by file with the folder they were made from.

mod support;

use std::fs::{File, Permissions};
use std::future::Future;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use drivers::block::{FakeDisk, Pick};
use fs::{Errno, FileSystem, Kind};
use support::*;

/// A folder with something of everything.
fn source(name: &str) -> PathBuf {
    let root = scratch(name);
    let mut random = Random(0x5eed);
    for (file, len) in [("empty", 0), ("tiny", 1), ("small", 700), ("page", 4096), ("more", 4097), ("large", 700_001)] {
        std::fs::write(root.join(file), random.bytes(len)).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    for at in [0, 50_000, 300_000, 1_000_000, 2_500_000] {
        sparse.write_all_at(&random.bytes(5000), at).unwrap();
    }
    sparse.set_len(2_700_003).unwrap();
    File::create(root.join("hole")).unwrap().set_len(123_456).unwrap();
    std::fs::create_dir_all(root.join("a/deep/folder/tree")).unwrap();
    std::fs::write(root.join("a/deep/folder/tree/leaf"), "leaf").unwrap();
    std::fs::hard_link(root.join("small"), root.join("a/other name of small")).unwrap();
    symlink("small", root.join("short link")).unwrap();
    symlink("x".repeat(59), root.join("link of 59")).unwrap();
    symlink("y".repeat(60), root.join("link of 60")).unwrap();
    symlink(format!("/{}", "z/".repeat(450)), root.join("long link")).unwrap();
    std::fs::set_permissions(root.join("page"), Permissions::from_mode(0o4711)).unwrap();
    let past = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    File::options().write(true).open(root.join("page")).unwrap().set_modified(past).unwrap();
    std::fs::create_dir(root.join("many")).unwrap();
    for index in 0..300 {
        std::fs::write(root.join(format!("many/a file whose name is somewhat long, number {index}")), [index as u8])
            .unwrap();
    }
    root
}

fn check(name: &str, options: &[&str]) {
    if !has_tools() {
        return;
    }
    let folder = source(name);
    if options.contains(&"inline_data") {
        // mke2fs 1.47 itself writes a wrong size for files that end in a gap, with this feature.
        std::fs::remove_file(folder.join("hole")).unwrap();
        File::options().write(true).open(folder.join("sparse")).unwrap().set_len(2_505_000).unwrap();
    }
    compare(&mount_image(&make_image(&folder, 24_576, options)).root(), &folder, true);
}

#[test]
fn default_ext4_reads_as_it_was_written() {
    check("default", &["-t", "ext4", "-b", "4096"]);
}

#[test]
fn ext4_with_blocks_of_1_kib_reads_as_it_was_written() {
    check("blocks-1k", &["-t", "ext4", "-b", "1024"]);
}

#[test]
fn ext4_with_blocks_of_2_kib_reads_as_it_was_written() {
    check("blocks-2k", &["-t", "ext4", "-b", "2048"]);
}

#[test]
fn ext4_with_blocks_of_64_kib_reads_as_it_was_written() {
    check("blocks-64k", &["-t", "ext4", "-b", "65536", "-O", "^has_journal"]);
}

#[test]
fn ext2_reads_as_it_was_written() {
    check("ext2", &["-t", "ext2"]);
    check("ext2-1k", &["-t", "ext2", "-b", "1024", "-I", "128"]);
}

#[test]
fn ext2_without_file_types_in_folders_reads_as_it_was_written() {
    check("ext2-old", &["-t", "ext2", "-O", "none", "-I", "128"]);
}

#[test]
fn ext3_reads_as_it_was_written() {
    check("ext3", &["-t", "ext3"]);
    check("ext3-1k", &["-t", "ext3", "-b", "1024"]);
}

#[test]
fn ext4_with_the_old_checksums_reads_as_it_was_written() {
    check("uninit-bg", &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"]);
    check("no-checksums", &["-t", "ext4", "-O", "^metadata_csum,^64bit"]);
}

#[test]
fn ext4_with_inline_data_reads_as_it_was_written() {
    check("inline", &["-t", "ext4", "-b", "4096", "-O", "inline_data"]);
    check("inline-large", &["-t", "ext4", "-O", "inline_data", "-I", "1024"]);
}

#[test]
fn ext4_with_meta_groups_and_small_groups_reads_as_it_was_written() {
    check("meta-bg", &["-t", "ext4", "-b", "1024", "-g", "256", "-O", "meta_bg,^resize_inode"]);
}

#[test]
fn ext4_with_clusters_reads_as_it_was_written() {
    check("clusters", &["-t", "ext4", "-O", "bigalloc", "-C", "16384"]);
    check("clusters-1k", &["-t", "ext4", "-O", "bigalloc", "-b", "1024", "-C", "16384"]);
}

#[test]
fn ext4_with_a_checksum_seed_and_sparse_super2_reads_as_it_was_written() {
    check("seed", &["-t", "ext4", "-O", "metadata_csum_seed,sparse_super2"]);
}

/// A name so long that few fit into a block.
fn long_name(index: usize) -> String {
    format!("{index} {}", "long ".repeat(40))
}

/// `mke2fs -d` makes no indexes; `e2fsck -D` does.
fn indexed(name: &str, files: usize, options: &[&str]) -> (PathBuf, PathBuf) {
    let folder = scratch(name);
    std::fs::create_dir(folder.join("large")).unwrap();
    for index in 0..files {
        File::create(folder.join("large").join(long_name(index))).unwrap();
    }
    let inodes = (files + 100).to_string();
    let image = make_image(&folder, 24_576, &[options, &["-N", &inodes]].concat());
    let checked = std::process::Command::new("/usr/sbin/e2fsck").args(["-fyD"]).arg(&image).output().unwrap();
    assert!(checked.status.code().unwrap() <= 1, "{}", String::from_utf8_lossy(&checked.stdout));
    (folder, image)
}

fn is_indexed(image: &Path) -> bool {
    debugfs(image, &["htree_dump /large".into()]).contains("Number of entries")
}

#[test]
fn names_in_an_indexed_folder_are_found_with_few_requests() {
    if !has_tools() {
        return;
    }
    let (folder, image) = indexed("htree", 1500, &["-t", "ext4", "-b", "4096"]);
    assert!(is_indexed(&image));
    compare(&mount_image(&image).root(), &folder, true);
    let disk = Disk::new(std::fs::read(&image).unwrap());
    let volume = mount(&disk).unwrap();
    let root = volume.root();
    let large = lookup(&root, "large").unwrap();
    let before = disk.sectors.load(Ordering::Relaxed);
    assert_eq!(lookup(&large, "no such name").err(), Some(Errno::ENOENT));
    let read = (disk.sectors.load(Ordering::Relaxed) - before) * 512;
    assert!(read < 100_000, "{read} bytes were read, as if there were no index");
}

#[test]
fn every_kind_of_hash_and_an_index_of_two_levels_lead_to_the_names() {
    if !has_tools() {
        return;
    }
    for hash in ["legacy", "half_md4", "tea"] {
        let (folder, image) = indexed(&format!("htree-{hash}"), 200, &["-t", "ext4", "-b", "1024"]);
        debugfs(&image, &[format!("ssv def_hash_version {hash}")]);
        let _ = std::process::Command::new("/usr/sbin/e2fsck").args(["-fyD"]).arg(&image).output().unwrap();
        assert!(is_indexed(&image));
        let volume = mount_image(&image);
        let root = volume.root();
        compare(&root, &folder, true);
    }
    let (folder, image) = indexed("htree-levels", 1000, &["-t", "ext4", "-b", "1024"]);
    assert!(debugfs(&image, &["htree_dump /large".into()]).contains("Indirect levels: 1"));
    compare(&mount_image(&image).root(), &folder, true);
}

#[test]
fn a_file_in_very_many_pieces_is_read_through_a_deep_tree_of_extents() {
    if !has_tools() {
        return;
    }
    for (name, options) in [("pieces", ["-t", "ext4", "-b", "1024"]), ("pieces-ext3", ["-t", "ext3", "-b", "1024"])] {
        let folder = scratch(name);
        let file = File::create(folder.join("pieces")).unwrap();
        for index in 0..1200u64 {
            file.write_all_at(&index.to_le_bytes(), index * 2048).unwrap();
        }
        let image = make_image(&folder, 24_576, &options);
        compare(&mount_image(&image).root(), &folder, true);
        if name == "pieces" {
            let tree = debugfs(&image, &["extents /pieces".into()]);
            assert!(tree.contains("/ 2"), "a tree of depth 2: {}", &tree[..tree.len().min(300)]);
        }
    }
}

#[test]
fn what_debugfs_adds_is_seen() {
    if !has_tools() {
        return;
    }
    let folder = scratch("special");
    std::fs::write(folder.join("file"), "content").unwrap();
    let image = make_image(&folder, 8192, &["-t", "ext4", "-b", "4096"]);
    let (long, value) = ("v".repeat(1500), image.with_extension("value"));
    std::fs::write(&value, &long).unwrap();
    debugfs(
        &image,
        &[
            "mknod null c 1 3".into(),
            "mknod disk b 300 60000".into(),
            "mknod pipe p".into(),
            "ea_set file user.short value".into(),
            "ea_set file trusted.other x".into(),
            format!("ea_set -f {} file security.long", value.display()),
            "sif file uid 70000".into(),
            "sif file gid 123456".into(),
            "sif file mtime @0x80000000".into(),
            "sif file atime_extra 5".into(),
        ],
    );
    let volume = mount_image(&image);
    let root = volume.root();
    let null = lookup(&root, "null").unwrap().metadata();
    assert_eq!((null.kind, null.represents), (Kind::CharacterDevice, 0x103));
    let disk = lookup(&root, "disk").unwrap().metadata();
    assert_eq!((disk.kind, disk.represents), (Kind::BlockDevice, (60_000 & 0xff) | 300 << 8 | (60_000 & !0xff) << 12));
    assert_eq!(lookup(&root, "pipe").unwrap().metadata().kind, Kind::Fifo);
    let file = lookup(&root, "file").unwrap();
    let attribute = |name: &str| block_on(file.extended_attribute(name.as_bytes()));
    assert_eq!(attribute("user.short").unwrap(), b"value");
    assert_eq!(attribute("trusted.other").unwrap(), b"x");
    assert_eq!(attribute("security.long").unwrap(), long.as_bytes());
    let names = block_on(file.extended_attribute_names()).unwrap();
    let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    assert_eq!(names, [b"security.long".as_slice(), b"trusted.other", b"user.short"]);
    assert_eq!(attribute("user.none"), Err(Errno::ENODATA));
    assert_eq!(attribute("foreign.none"), Err(Errno::EOPNOTSUPP));
    let attributes = file.metadata().attributes;
    assert_eq!((attributes.uid, attributes.gid), (70_000, 123_456));
    assert_eq!(attributes.modified.seconds, 0x8000_0000, "later than 2038");
    assert_eq!(attributes.accessed.nanoseconds, 1);
    assert!(attributes.accessed.seconds > 1 << 32, "the second epoch");
}

#[test]
fn space_that_was_reserved_but_never_written_reads_as_zeros() {
    if !has_tools() {
        return;
    }
    let folder = scratch("reserved");
    std::fs::write(folder.join("file"), vec![7; 16_384]).unwrap();
    let image = make_image(&folder, 8192, &["-t", "ext4"]);
    debugfs(&image, &["fallocate file 4 9".into(), "sif file size 40960".into()]);
    let file = lookup(&mount_image(&image).root(), "file").unwrap();
    let bytes = content(&file).unwrap();
    assert!(bytes[..16_384].iter().all(|byte| *byte == 7) && bytes[16_384..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_the_journal_holds_is_read_instead_of_what_stands_in_place() {
    if !has_tools() {
        return;
    }
    for (name, options) in
        [("journal", &["-t", "ext4", "-b", "4096"][..]), ("journal-ext3", &["-t", "ext3", "-b", "4096"][..])]
    {
        let folder = scratch(name);
        std::fs::write(folder.join("file"), vec![b'o'; 8192]).unwrap();
        let image = make_image(&folder, 16_384, options);
        let blocks = debugfs(&image, &["blocks file".into()]);
        let numbers: Vec<u64> = blocks.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // A block that begins like one of the journal's own must be escaped there.
        let mut newer = vec![b'n'; 4096];
        newer[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        let data = image.with_extension("data");
        std::fs::write(&data, &newer).unwrap();
        let version = if name == "journal" { "jo -c" } else { "jo" };
        let write = format!("jw -b {} {}", numbers[1], data.display());
        debugfs(&image, &[version.into(), write, "jc".into()]);
        let file = lookup(&mount_image(&image).root(), "file").unwrap();
        let bytes = content(&file).unwrap();
        assert!(bytes[..4096].iter().all(|byte| *byte == b'o'), "{name}: this block was not changed");
        assert!(bytes[4096..] == newer, "{name}: this block's newest copy is in the journal");
    }
}

#[test]
fn the_size_of_the_volume_is_told() {
    if !has_tools() {
        return;
    }
    let image = make_image(&scratch("status"), 65_536, &["-t", "ext4", "-b", "4096"]);
    let status = mount_image(&image).root().file_system();
    assert_eq!((status.magic, status.block_size, status.name_length), (0xef53, 4096, 255));
    assert!(status.blocks < 16_384 && status.blocks_free < status.blocks && status.blocks_free > 10_000, "{status:?}");
    assert!(status.files_free < status.files && status.files >= 16_384, "{status:?}");
}

#[test]
fn an_unknown_feature_and_a_foreign_device_are_refused() {
    if !has_tools() {
        return;
    }
    let image = make_image(&scratch("refused"), 8192, &["-t", "ext4", "-O", "^metadata_csum"]);
    let good = std::fs::read(&image).unwrap();
    let refused = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[1024 + at] |= value;
        mount(&Disk::new(bytes)).err()
    };
    assert_eq!(refused(0x62, 0x1), Some(Errno::EINVAL), "encryption");
    assert_eq!(refused(0x63, 0x40), Some(Errno::EINVAL), "a feature without a name");
    assert_eq!(refused(0x66, 0x40), None, "a feature that readers need not know");
    assert_eq!(refused(0x38, 0x4), Some(Errno::EINVAL), "another magic number");
    assert_eq!(mount(&Disk::new(vec![0; 1 << 20])).err(), Some(Errno::EINVAL));
    assert_eq!(mount(&Disk::new(vec![0; 1024])).err(), Some(Errno::EINVAL));
    assert_eq!(mount(&Disk::new(good[..1 << 20].to_vec())).err(), Some(Errno::EINVAL), "a device that was cut");
}

#[test]
fn an_inode_is_one_while_it_lives_and_all_memory_is_given_back() {
    if !has_tools() {
        return;
    }
    let folder = source("one");
    let image = make_image(&folder, 24_576, &["-t", "ext4", "-b", "4096"]);
    let disk = Disk::new(std::fs::read(image).unwrap());
    let volume = mount(&disk).unwrap();
    let root = volume.root();
    let (small, other) = (walk(&root, "small").unwrap(), walk(&root, "a/other name of small").unwrap());
    assert!(std::sync::Arc::ptr_eq(&small, &other));
    compare(&root, &folder, true);
    drop((small, other, root, volume));
    assert_eq!(std::sync::Arc::strong_count(&disk), 1, "the volume is gone");
}

#[test]
fn those_who_wait_for_the_same_blocks_find_the_same_inodes() {
    if !has_tools() {
        return;
    }
    let folder = source("together");
    let image = make_image(&folder, 24_576, &["-t", "ext4", "-b", "4096"]);
    // By hand: requests are done in an order of our choosing, long after they were made.
    let disk = std::sync::Arc::new(FakeDisk::with_content(std::fs::read(image).unwrap()).by_hand());
    let mut random = Random(3);
    let mut drive = |work: &mut dyn FnMut(&mut Context<'_>) -> bool| {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            if work(&mut context) {
                return;
            }
            disk.complete(Pick::Nth(random.below(1000)));
        }
        panic!("it hangs");
    };
    let mut mounting = Box::pin(ext4::mount(disk.clone(), &PAGES, 0x700, ext4::Limits::default()));
    let mut volume = None;
    drive(&mut |context| match mounting.as_mut().poll(context) {
        Poll::Ready(mounted) => volume.replace(mounted.unwrap()).is_none(),
        Poll::Pending => false,
    });
    let root = volume.as_ref().unwrap().root();
    let names: Vec<String> = ["small", "sparse", "many", "a", "page", "small"].map(String::from).to_vec();
    let mut lookups: Vec<_> = names.iter().map(|name| (root.lookup(name.as_bytes()), None)).collect();
    drive(&mut |context| {
        for (lookup, found) in &mut lookups {
            if found.is_none()
                && let Poll::Ready(inode) = std::pin::Pin::new(lookup).poll(context)
            {
                *found = Some(inode.unwrap());
            }
        }
        lookups.iter().all(|(_, found)| found.is_some())
    });
    let found: Vec<_> = lookups.into_iter().map(|(_, found)| found.unwrap()).collect();
    assert!(std::sync::Arc::ptr_eq(&found[0], &found[5]));
    for (name, inode) in names.iter().zip(&found) {
        assert_eq!(inode.metadata().attributes.size, walk(&root, name).unwrap().metadata().attributes.size, "{name}");
    }
}
