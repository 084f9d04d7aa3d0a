//! Random operations, done on a file system under test and in a folder of the host, must give the same answers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::world::{World, read_at, write_at};
use crate::inode::{Kind, RenameMode};
use crate::{Errno, OpenFlags};

/// A small generator of numbers that look random (xorshift); a failing seed is in the panic message.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// A path of one to three names out of few, so that they often meet.
    fn path(&mut self) -> String {
        const NAMES: [&str; 5] = ["a", "b", "c", "link", "."];
        let depth = 1 + self.below(3);
        let names: Vec<&str> = (0..depth).map(|_| NAMES[self.below(5) as usize]).collect();
        let slash = if self.below(12) == 0 { "/" } else { "" };
        format!("{}{slash}", names.join("/"))
    }
}

/// What an operation answered: a summary, or the number of the error.
type Answer = Result<String, i32>;

fn ours<T>(result: crate::Result<T>, tell: impl FnOnce(T) -> String) -> Answer {
    result.map(tell).map_err(|errno: Errno| i32::from(errno.number()))
}

fn theirs<T>(result: io::Result<T>, tell: impl FnOnce(T) -> String) -> Answer {
    result.map(tell).map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Does `count` random operations on the world and in an empty folder of the host, and compares all answers.
pub fn against_host(world: &World, folder: &Path, seed: u64, count: usize) {
    let mut random = Random(seed | 1);
    let mut log = Vec::new();
    for _ in 0..count {
        let (text, mine, host) = step(world, folder, &mut random);
        log.push(format!("{text} -> {mine:?}"));
        let from = log.len().saturating_sub(25);
        assert_eq!(mine, host, "seed {seed}: {text}: ours, the host's; before that:\n{}", log[from..].join("\n"));
    }
}

fn step(world: &World, folder: &Path, random: &mut Random) -> (String, Answer, Answer) {
    let path = random.path();
    let host = on_host(folder, &path);
    let nothing = |()| String::new();
    match random.below(12) {
        0 => (format!("mkdir {path}"), ours(world.mkdir(&path), nothing), theirs(std::fs::create_dir(&host), nothing)),
        1 => (format!("rmdir {path}"), ours(world.rmdir(&path), nothing), theirs(std::fs::remove_dir(&host), nothing)),
        2 => {
            (format!("unlink {path}"), ours(world.unlink(&path), nothing), theirs(std::fs::remove_file(&host), nothing))
        }
        3 | 4 => write(world, &path, &host, random),
        5 => {
            let mine = world.open(&path, OpenFlags::empty()).and_then(|file| read_at(&file, 0, 50_000));
            let host = OpenOptions::new().read(true).open(&host).and_then(|file| {
                let mut bytes = vec![0; 50_000];
                let len = file.read_at(&mut bytes, 0)?;
                bytes.truncate(len);
                Ok(bytes)
            });
            let tell = |bytes: Vec<u8>| format!("{} {}", bytes.len(), bytes.iter().map(|&b| u64::from(b)).sum::<u64>());
            (format!("read {path}"), ours(mine, tell), theirs(host, tell))
        }
        6 | 7 => {
            let to = random.path();
            let mine = world.rename(&path, &to, RenameMode::Replace);
            (
                format!("rename {path} {to}"),
                ours(mine, nothing),
                theirs(std::fs::rename(&host, on_host(folder, &to)), nothing),
            )
        }
        8 => {
            let to = random.path();
            let mine = world.link(&path, &to);
            (
                format!("link {path} {to}"),
                ours(mine, nothing),
                theirs(std::fs::hard_link(&host, on_host(folder, &to)), nothing),
            )
        }
        9 => {
            let target = random.path();
            let mine = world.symlink(&target, &path);
            (
                format!("symlink {target} {path}"),
                ours(mine, nothing),
                theirs(std::os::unix::fs::symlink(&target, &host), nothing),
            )
        }
        10 => {
            let mine = world.list(&path).map(|names| names.join(" "));
            let host = std::fs::read_dir(&host).and_then(|entries| {
                let mut names: Vec<String> = entries
                    .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<_>>()?;
                names.sort();
                Ok(names.join(" "))
            });
            (format!("list {path}"), ours(mine, |names| names), theirs(host, |names| names))
        }
        _ => {
            let mine = world.stat(&path).map(|metadata| {
                let size = if metadata.kind == Kind::Directory { 0 } else { metadata.attributes.size };
                format!("{:o} {size} {}", metadata.kind.mode_bits(), links(metadata.kind, metadata.attributes.links))
            });
            let host = std::fs::symlink_metadata(&host).map(|metadata| {
                let kind = Kind::from_mode(metadata.mode()).expect("the host knows what it is");
                let size = if kind == Kind::Directory { 0 } else { metadata.size() };
                format!("{:o} {size} {}", kind.mode_bits(), links(kind, metadata.nlink() as u32))
            });
            (format!("stat {path}"), ours(mine, |text| text), theirs(host, |text| text))
        }
    }
}

/// Not every file system of a host counts the links of folders.
fn links(kind: Kind, links: u32) -> String {
    if kind == Kind::Directory { String::new() } else { links.to_string() }
}

/// Writes some bytes somewhere, or cuts the file.
fn write(world: &World, path: &str, host: &Path, random: &mut Random) -> (String, Answer, Answer) {
    let (position, len, byte) = (random.below(9000), random.below(9000) as usize, random.below(256) as u8);
    let content = vec![byte; len];
    if random.below(4) == 0 {
        let mine = world.truncate(path, position);
        let host = OpenOptions::new().write(true).open(host).and_then(|file| file.set_len(position));
        return (
            format!("truncate {path} {position}"),
            ours(mine, |()| String::new()),
            theirs(host, |()| String::new()),
        );
    }
    let mine = world
        .open(path, OpenFlags::WRONLY | OpenFlags::CREAT)
        .and_then(|file| if len == 0 { Ok(0) } else { write_at(&file, position, &content) });
    let theirs_file = OpenOptions::new().write(true).create(true).truncate(false).open(host);
    let host = theirs_file.and_then(|file| file.write_at(&content, position));
    let tell = |len: usize| len.to_string();
    (format!("write {path} {position} {len}"), ours(mine, tell), theirs(host, tell))
}

fn on_host(folder: &Path, path: &str) -> PathBuf {
    // `join` keeps a trailing slash and dots as they are.
    let mut whole = folder.as_os_str().to_os_string();
    whole.push("/");
    whole.push(path);
    PathBuf::from(whole)
}
