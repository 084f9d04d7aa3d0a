//! What is mounted: /proc/PID/mounts, mountinfo, and /proc/filesystems.
//!
//! A process is told of the mounts that it can reach from its root.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::Result;
use fs::environment::{major, minor};
use fs::mount::{Mount, MountFlags};
use fs::path::Path;

use super::process::Subject;
use super::text::Text;
use crate::filesystems::KINDS;

/// What is told as an octal number in a name.
const ODD: &[u8] = b" \t\n#";

/// /proc/filesystems.
pub fn file_systems() -> Vec<u8> {
    let mut text = Text::new();
    for kind in KINDS {
        text.add(format_args!("{}\t{}\n", if kind.needs_device { "" } else { "nodev" }, kind.name));
    }
    text.into_bytes()
}

/// The mounts that a process can reach, and their names.
fn reachable(subject: &Subject) -> Result<Vec<(Arc<Mount>, Vec<u8>)>> {
    let view = subject.view()?;
    let root = view.fs.root();
    let mounts = view.fs.mounts().mounts().into_iter().filter_map(|mount| {
        let name = mount.root_path().display(&root);
        name.starts_with(b"/").then_some((mount, name))
    });
    Ok(mounts.collect())
}

/// /proc/PID/mounts: as fstab(5).
pub fn mounts(subject: &Subject) -> Result<Vec<u8>> {
    let mut text = Text::new();
    for (mount, name) in reachable(subject)? {
        source(&mut text, &mount);
        text.bytes(b" ").escaped(&name, ODD).add(format_args!(" {} ", mount.superblock.file_system.type_name()));
        text.bytes(read_only(mount.flags()));
        flags(&mut text, mount.flags());
        file_system_options(&mut text, &mount);
        text.bytes(b" 0 0\n");
    }
    Ok(text.into_bytes())
}

/// /proc/PID/mountinfo.
pub fn mountinfo(subject: &Subject) -> Result<Vec<u8>> {
    let mut text = Text::new();
    for (mount, name) in reachable(subject)? {
        let parent = mount.place().map_or(mount.id, |place| place.mount.id);
        let device = mount.root.inode().metadata().device;
        let whole = Path { mount: mount.clone(), dentry: mount.superblock.root.clone() };
        let part = Path { mount: whole.mount.clone(), dentry: mount.root.clone() };
        text.add(format_args!("{} {parent} {}:{} ", mount.id, major(device), minor(device)));
        text.escaped(&inside(&part, &whole), ODD).bytes(b" ").escaped(&name, ODD).bytes(b" ");
        text.bytes(read_only(mount.flags()));
        flags(&mut text, mount.flags());
        text.add(format_args!(" - {} ", mount.superblock.file_system.type_name()));
        source(&mut text, &mount);
        text.bytes(if mount.superblock.is_read_only() { b" ro" } else { b" rw" });
        file_system_options(&mut text, &mount);
        text.bytes(b"\n");
    }
    Ok(text.into_bytes())
}

/// The name of a folder inside its file system.
fn inside(part: &Path, whole: &Path) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = part.dentry.clone();
    while !Arc::ptr_eq(&at, &whole.dentry) {
        names.push(at.name());
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    let mut text = Vec::new();
    for name in names.iter().rev() {
        text.push(b'/');
        text.extend_from_slice(name);
    }
    if text.is_empty() {
        text.push(b'/');
    }
    text
}

fn source(text: &mut Text, mount: &Mount) {
    let source = &mount.superblock.source;
    if source.is_empty() {
        text.bytes(b"none");
    } else {
        text.escaped(source, ODD);
    }
}

fn read_only(flags: MountFlags) -> &'static [u8] {
    if flags.contains(MountFlags::READ_ONLY) { b"ro" } else { b"rw" }
}

/// The flags of a mount that have a name, each behind a comma.
fn flags(text: &mut Text, flags: MountFlags) {
    const NAMES: [(MountFlags, &str); 7] = [
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
        (MountFlags::RELATIME, "relatime"),
        (MountFlags::NOSYMFOLLOW, "nosymfollow"),
    ];
    for (_, name) in NAMES.iter().filter(|(flag, _)| flags.contains(*flag)) {
        text.add(format_args!(",{name}"));
    }
}

fn file_system_options(text: &mut Text, mount: &Mount) {
    let options = mount.superblock.file_system.options();
    if !options.is_empty() {
        text.add(format_args!(",{options}"));
    }
}
