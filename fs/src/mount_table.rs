//! The mounts as text: /proc/PID/mounts and /proc/PID/mountinfo (proc(5)), as seen from a root.
//!
//! What does not lie below the root is left out. Blanks, backslashes and `#` in names are written in octal, since fstab(5) gives them
//! a meaning.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::environment::{major, minor};
use crate::mount::{Mount, MountFlags, MountNamespace};
use crate::path::Path;

const FLAG_NAMES: [(MountFlags, &str); 7] = [
    (MountFlags::NOSUID, ",nosuid"),
    (MountFlags::NODEV, ",nodev"),
    (MountFlags::NOEXEC, ",noexec"),
    (MountFlags::NOATIME, ",noatime"),
    (MountFlags::NODIRATIME, ",nodiratime"),
    (MountFlags::RELATIME, ",relatime"),
    (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
];

impl MountNamespace {
    /// The content of /proc/PID/mounts for a process with this root.
    pub fn mounts_text(&self, root: &Path) -> Vec<u8> {
        let mut text = Vec::new();
        for (mount, place) in self.seen_from(root) {
            let file_system = &mount.superblock.file_system;
            append(&mut text, source(&mount));
            text.push(b' ');
            append(&mut text, &place);
            let is_read_only = mount.flags().contains(MountFlags::READ_ONLY) || mount.superblock.is_read_only();
            let options = format!("{}{}{}", access(is_read_only), flags_text(&mount), own_options(&mount));
            text.extend_from_slice(format!(" {} {options} 0 0\n", file_system.type_name()).as_bytes());
        }
        text
    }

    /// The content of /proc/PID/mountinfo for a process with this root.
    pub fn mount_info_text(&self, root: &Path) -> Vec<u8> {
        let mut text = Vec::new();
        for (mount, place) in self.seen_from(root) {
            let superblock = &mount.superblock;
            let parent = mount.place().map_or(mount.id, |place| place.mount.id);
            let device = superblock.root.inode().metadata().device;
            let numbers = format!("{} {parent} {}:{} ", mount.id, major(device), minor(device));
            text.extend_from_slice(numbers.as_bytes());
            append(&mut text, &name_in_file_system(&mount));
            text.push(b' ');
            append(&mut text, &place);
            let own = access(mount.flags().contains(MountFlags::READ_ONLY));
            let kind = superblock.file_system.type_name();
            text.extend_from_slice(format!(" {own}{} - {kind} ", flags_text(&mount)).as_bytes());
            append(&mut text, source(&mount));
            let shared = access(superblock.is_read_only());
            text.extend_from_slice(format!(" {shared}{}\n", own_options(&mount)).as_bytes());
        }
        text
    }

    /// The mounts below a root, with their names there.
    fn seen_from(&self, root: &Path) -> Vec<(Arc<Mount>, Vec<u8>)> {
        let named = self.mounts().into_iter().map(|mount| {
            let name = mount.root_path().display(root);
            (mount, name)
        });
        named.filter(|(_, name)| name.starts_with(b"/")).collect()
    }
}

fn access(is_read_only: bool) -> &'static str {
    if is_read_only { "ro" } else { "rw" }
}

/// The flags of a mount that have a name, each behind a comma.
fn flags_text(mount: &Mount) -> String {
    let flags = mount.flags();
    FLAG_NAMES.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
}

/// What was mounted, as it was named.
fn source(mount: &Mount) -> &[u8] {
    match &mount.superblock.source[..] {
        b"" => b"none",
        source => source,
    }
}

fn own_options(mount: &Mount) -> String {
    match mount.superblock.file_system.options() {
        options if options.is_empty() => options,
        options => format!(",{options}"),
    }
}

/// Which folder of its file system a mount shows.
fn name_in_file_system(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = Some(mount.root.clone());
    while let Some(dentry) = at {
        at = dentry.parent();
        if at.is_some() {
            names.push(dentry.name());
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

fn append(text: &mut Vec<u8>, name: &[u8]) {
    for &byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(byte),
        }
    }
}
