//! Moves the system to a root disk, as switch_root(8) does, with the disk itself never written.
//!
//! ```text
//! /dev/vda (ext4, read-only) ──lower──┐
//!                                     ├─ overlay = the new root; /proc /sys /dev are moved into it
//! tmpfs ───────────────────────upper──┘
//! ```
//!
//! What the host added with `--add` waits in `/add` of the initial root and is copied over the disk's files; so is init.

use crate::environment::INIT_ON_DISK;
use rustix::mount::{MountFlags, mount, mount_move};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

const DISK: &str = "/run/disk";
const MEMORY: &str = "/run/memory";
const ROOT: &str = "/run/root";

/// A disk that its driver has not announced by then will not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the file system on `disk` the root.
///
/// # Errors
/// The disk does not appear, is no ext4, or the kernel cannot do one of the steps; the old root is then still in place.
pub fn switch_to(disk: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !disk.exists() {
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for folder in [DISK, MEMORY, ROOT] {
        fs::create_dir_all(folder)?;
    }
    mount(disk, DISK, "ext4", MountFlags::RDONLY, None)?;
    mount("tmpfs", MEMORY, "tmpfs", MountFlags::empty(), Some(c"mode=755"))?;
    for folder in ["upper", "work"] {
        fs::create_dir(Path::new(MEMORY).join(folder))?;
    }
    let layers = c"lowerdir=/run/disk,upperdir=/run/memory/upper,workdir=/run/memory/work";
    mount("overlay", ROOT, "overlay", MountFlags::empty(), Some(layers))?;
    if Path::new("/add").exists() {
        copy_tree(Path::new("/add"), Path::new(ROOT))?;
    }
    let runtime = Path::new(ROOT).join("run");
    fs::create_dir_all(&runtime)?;
    mount("tmpfs", &runtime, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))?;
    fs::copy("/init", runtime.join(INIT_ON_DISK.trim_start_matches("/run/")))?;
    for folder in ["proc", "sys", "dev"] {
        let target = Path::new(ROOT).join(folder);
        fs::create_dir_all(&target)?;
        // One that was never mounted cannot be moved.
        let _ = mount_move(Path::new("/").join(folder), &target);
    }
    rustix::process::chdir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Copies files, folders and links from one tree over another.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&source, &target)?;
        } else {
            let _ = fs::remove_file(&target);
            if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else {
                fs::copy(&source, &target)?;
            }
        }
    }
    Ok(())
}
