//! How many requests to the disk a Debian root costs. Set `ROUSE_DEBIAN_IMAGE` to an ext4 image of one (`xtask` makes it), and run
//! with `--nocapture` to see the figures; without it this is skipped.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fs::{FileSystem, Inode, Kind};
use support::*;

/// Requests and KiB so far.
fn spent(disk: &Disk) -> (usize, u64) {
    (disk.requests.load(Ordering::Relaxed), disk.sectors.load(Ordering::Relaxed) / 2)
}

fn list_everything(root: &Arc<dyn Inode>) -> usize {
    let (mut todo, mut count) = (vec![root.clone()], 0);
    while let Some(folder) = todo.pop() {
        for entry in entries(&folder).unwrap() {
            let inode = block_on(folder.lookup(&entry.name)).unwrap();
            let _ = inode.metadata();
            count += 1;
            match inode.core().kind {
                Kind::Symlink => drop(block_on(inode.read_link()).unwrap()),
                Kind::Directory => todo.push(inode),
                _ => {}
            }
        }
    }
    count
}

#[test]
fn a_debian_root_costs_few_requests() {
    let Ok(image) = std::env::var("ROUSE_DEBIAN_IMAGE") else {
        eprintln!("skipped: ROUSE_DEBIAN_IMAGE is not set");
        return;
    };
    let bytes = std::fs::read(image).unwrap();
    let disk = Disk::new(bytes.clone());
    let volume = mount(&disk).unwrap();
    println!("mount: {:?} (requests, KiB)", spent(&disk));
    let count = list_everything(&volume.root());
    println!("ls -lR, {count} entries: {:?}", spent(&disk));
    assert!(spent(&disk).0 < count, "fewer requests than entries");

    let disk = Disk::new(bytes);
    let volume = mount(&disk).unwrap();
    for path in ["usr/bin/bash", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6"]
    {
        let before = spent(&disk);
        let file = walk(&volume.root(), path).unwrap();
        let found = spent(&disk);
        let size = file.metadata().attributes.size;
        let mut index = 0;
        while index * 4096 < size {
            block_on(file.core().pages.load_ahead(&*file, index, 32)).unwrap();
            index += 1;
        }
        let read = spent(&disk);
        println!("{path}: found with {} requests, its {size} bytes read with {}", found.0 - before.0, read.0 - found.0);
    }
}
