//! Unpacking an initramfs: one or more newc cpio archives, each plain or compressed with gzip or zstd, one after the other
//! (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! An entry is made only when all of it is there, so that a truncated archive leaves whole files. What an earlier archive made, a
//! later one replaces. Names are bytes; those that would lead out of the root are refused.
//!
//! The archive's parser is our own: the crates at hand want names in UTF-8, or lose folders.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::buffer::SliceSource;
use fs::inode::{AttributeChange, NewOwner, Timestamp};
use fs::path::NAME_MAX;
use fs::regular_file::{Options, RegularFile};
use fs::{BoxFuture, Errno, FileOps, Inode, Kind, NewNode, OpenFlags, Result, Stop, environment};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const HEADER: usize = 110;
const LAST_NAME: &[u8] = b"TRAILER!!!";
/// Decompressed content grows by this much at a time.
const CHUNK: usize = 1 << 20;
/// Content that was written is given back in parts of this size.
const PART: usize = 64 << 10;

/// The bytes that are to be unpacked. Whoever lends them learns what is not needed any more, so that a machine need not have room for
/// the archive and its content at once.
pub trait Archive: Send {
    /// What is left of it.
    fn rest(&self) -> &[u8];

    /// Gives the first `len` bytes back, or all if there are fewer.
    fn advance(&mut self, len: usize);
}

impl Archive for &[u8] {
    fn rest(&self) -> &[u8] {
        self
    }

    fn advance(&mut self, len: usize) {
        *self = self.get(len..).unwrap_or_default();
    }
}

/// Unpacks archives into a root folder that nobody walks in yet.
///
/// # Errors
///
/// `EINVAL`: damaged or truncated; what came before the damage is there. `ENOMEM`, `ENOSPC`.
pub fn unpack<'a>(archive: &'a mut dyn Archive, root: Arc<dyn Inode>) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let mut unpacker = Unpacker { root, links: BTreeMap::new(), folder_times: Vec::new() };
        let result = unpacker.unpack_all(archive).await;
        unpacker.set_folder_times().await?;
        result
    })
}

/// Passes the zeros between two archives; whether anything follows.
fn skip_zeros(archive: &mut dyn Archive) -> bool {
    let zeros = archive.rest().iter().take_while(|byte| **byte == 0).count();
    archive.advance(zeros);
    !archive.rest().is_empty()
}

struct Unpacker {
    root: Arc<dyn Inode>,
    /// Files with more names to come: device and number in the archive.
    links: BTreeMap<(u64, u32), Arc<dyn Inode>>,
    /// Set at the end: adding entries changes them.
    folder_times: Vec<(Arc<dyn Inode>, Timestamp)>,
}

impl Unpacker {
    async fn unpack_all(&mut self, archive: &mut dyn Archive) -> Result<()> {
        while skip_zeros(archive) {
            match archive.rest() {
                [b'0', b'7', b'0', b'7', b'0', ..] => self.unpack_one(archive).await?,
                [0x1f, 0x8b, ..] => self.unpack_compressed(archive, gunzip).await?,
                [0x28, 0xb5, 0x2f, 0xfd, ..] => self.unpack_compressed(archive, unzstd).await?,
                _ => {
                    log::error!("initramfs: neither a newc archive nor gzip nor zstd");
                    return Err(Errno::EINVAL);
                }
            }
        }
        Ok(())
    }

    /// Archives that were compressed together.
    async fn unpack_compressed(&mut self, archive: &mut dyn Archive, decompress: Decompress) -> Result<()> {
        let (content, rest) = decompress(archive.rest())?;
        let len = archive.rest().len() - rest.len();
        archive.advance(len);
        let mut content = content.as_slice();
        while skip_zeros(&mut content) {
            self.unpack_one(&mut content).await?;
        }
        Ok(())
    }

    /// Unpacks up to the trailer, and passes it.
    async fn unpack_one(&mut self, archive: &mut dyn Archive) -> Result<()> {
        let whole = archive.rest().len();
        self.links.clear();
        loop {
            let Some(entry) = Entry::parse(archive.rest()) else {
                log::error!("initramfs: damaged or truncated at byte {}", whole - archive.rest().len());
                return Err(Errno::EINVAL);
            };
            let end = archive.rest().len().saturating_sub(entry.end);
            if entry.name != LAST_NAME {
                archive.advance(entry.start);
                match self.make(&entry, archive).await {
                    Err(errno @ (Errno::ENOSPC | Errno::ENOMEM)) => return Err(errno),
                    Err(errno) => log::error!("initramfs: {}: {errno}", String::from_utf8_lossy(&entry.name)),
                    Ok(()) => {}
                }
            }
            // Some of it is passed already.
            let left = archive.rest().len() - end;
            archive.advance(left);
            if entry.name == LAST_NAME {
                return Ok(());
            }
        }
    }

    /// Makes what an entry says; the archive begins with its content.
    async fn make(&mut self, entry: &Entry, archive: &mut dyn Archive) -> Result<()> {
        let Some((folder, name)) = self.folder_of(&entry.name).await? else {
            // The root itself.
            return self.set_attributes(&self.root.clone(), entry).await;
        };
        let kind = Kind::from_mode(entry.mode).ok_or(Errno::EINVAL)?;
        let existing = match folder.lookup(name).await {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if kind == Kind::Directory
            && let Some(inode) = existing.as_ref().filter(|inode| inode.core().kind == Kind::Directory)
        {
            return self.set_attributes(inode, entry).await;
        }
        if let Some(inode) = existing {
            match inode.core().kind {
                Kind::Directory => folder.remove_directory(name).await?,
                _ => folder.unlink(name).await?,
            }
        }
        let link = (entry.device, entry.number);
        let has_more_names = entry.names > 1 && kind != Kind::Directory;
        if has_more_names && let Some(inode) = self.links.get(&link).cloned() {
            folder.link(name, &inode).await?;
            return write(&inode, entry, archive).await;
        }
        let node = match kind {
            Kind::Regular => NewNode::Regular,
            Kind::Directory => NewNode::Directory,
            Kind::Symlink => NewNode::Symlink(archive.rest().get(..entry.size).ok_or(Errno::EINVAL)?),
            kind => NewNode::Special(kind, entry.represents),
        };
        let owner = NewOwner { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, time: environment::now() };
        let inode = folder.create(name, node, owner).await?;
        if has_more_names {
            self.links.insert(link, inode.clone());
        }
        if kind == Kind::Regular {
            write(&inode, entry, archive).await?;
        }
        self.set_attributes(&inode, entry).await
    }

    async fn set_attributes(&mut self, inode: &Arc<dyn Inode>, entry: &Entry) -> Result<()> {
        if inode.core().kind == Kind::Directory {
            self.folder_times.push((inode.clone(), entry.modified));
        }
        let change = AttributeChange {
            mode: Some(entry.mode & 0o7777),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            modified: Some(entry.modified),
            ..AttributeChange::default()
        };
        inode.change(change).await
    }

    async fn set_folder_times(&mut self) -> Result<()> {
        for (folder, modified) in core::mem::take(&mut self.folder_times) {
            folder.change(AttributeChange { modified: Some(modified), ..AttributeChange::default() }).await?;
        }
        Ok(())
    }

    /// The folder that an entry is in, and the last part of its name; `None` for the root.
    async fn folder_of<'n>(&self, name: &'n [u8]) -> Result<Option<(Arc<dyn Inode>, &'n [u8])>> {
        let parts = parts(name)?;
        let Some((last, folders)) = parts.split_last() else { return Ok(None) };
        let mut folder = self.root.clone();
        for part in folders {
            folder = folder.lookup(part).await?;
        }
        Ok(Some((folder, last)))
    }
}

/// The names in a path, without empty ones and `.`.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    let is_sound = |part: &&[u8]| *part != b".." && part.len() <= NAME_MAX;
    if parts.iter().all(is_sound) { Ok(parts) } else { Err(Errno::EINVAL) }
}

/// Writes an entry's content, with which the archive begins, a part at a time: what is written is given back.
async fn write(inode: &Arc<dyn Inode>, entry: &Entry, archive: &mut dyn Archive) -> Result<()> {
    let file = RegularFile::new(inode.clone(), Options { sets_access_time: false, keeps_set_id: true });
    let mut position = 0;
    while position < entry.size as u64 {
        let before = position;
        let rest = archive.rest().get(..entry.size - position as usize).ok_or(Errno::EINVAL)?;
        let mut source = SliceSource::new(&rest[..rest.len().min(PART)]);
        let outcome = file.try_write(&mut position, OpenFlags::WRONLY, &mut source);
        archive.advance((position - before) as usize);
        match outcome {
            Ok(_) => {}
            Err(Stop::Miss(miss)) => file.prepare(miss).await?,
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::WouldBlock | Stop::Fault) => return Err(Errno::EIO),
        }
    }
    inode.change(AttributeChange { modified: Some(entry.modified), ..AttributeChange::default() }).await
}

/// What decompresses the beginning of some bytes; it returns the content, and what follows in the bytes.
type Decompress = fn(&[u8]) -> Result<(Vec<u8>, &[u8])>;

/// An entry of a newc archive.
struct Entry {
    name: Vec<u8>,
    /// Bytes of content.
    size: usize,
    /// Where the content begins, and where the next entry.
    start: usize,
    end: usize,
    number: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    names: u32,
    modified: Timestamp,
    device: u64,
    represents: u64,
}

impl Entry {
    /// The entry at the beginning; `None` if there is no whole one.
    fn parse(archive: &[u8]) -> Option<Entry> {
        let (header, _) = archive.split_at_checked(HEADER)?;
        if !matches!(&header[..6], b"070701" | b"070702") {
            return None;
        }
        let mut fields = [0_u32; 13];
        for (field, digits) in fields.iter_mut().zip(header[6..].chunks_exact(8)) {
            *field = u32::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        let [number, mode, uid, gid, names, modified, size, major, minor, node_major, node_minor, name_size, _] =
            fields;
        let name_end = HEADER.checked_add(name_size as usize)?;
        let [name @ .., 0] = archive.get(HEADER..name_end)? else { return None };
        let start = name_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(size as usize)?;
        archive.get(start..end)?;
        Some(Entry {
            name: name.to_vec(),
            size: end - start,
            start,
            // The last entry of an archive may lack its padding.
            end: end.checked_next_multiple_of(4)?,
            number,
            mode,
            uid,
            gid,
            names,
            modified: Timestamp { seconds: i64::from(modified), nanoseconds: 0 },
            device: environment::make_device(major, minor),
            represents: environment::make_device(node_major, node_minor),
        })
    }
}

fn damaged<E>(_: E) -> Errno {
    log::error!("initramfs: the compressed content is damaged or truncated");
    Errno::EINVAL
}

/// Decompresses one gzip member (RFC 1952); returns what follows it.
fn gunzip(archive: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut rest = gzip_content(archive).ok_or(()).map_err(damaged)?;
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut content = Vec::new();
    let mut filled = 0;
    loop {
        content.try_reserve(CHUNK).map_err(|_| Errno::ENOMEM)?;
        content.resize(filled + CHUNK, 0);
        let step = inflate(&mut state, rest, &mut content[filled..], MZFlush::None);
        rest = &rest[step.bytes_consumed..];
        filled += step.bytes_written;
        match step.status {
            Ok(MZStatus::StreamEnd) => break,
            // No room for more output is no error, but no progress at all is: the input ended too early.
            Ok(_) | Err(MZError::Buf) if step.bytes_written > 0 => {}
            other => return Err(damaged(other)),
        }
    }
    content.truncate(filled);
    let (trailer, after) = rest.split_at_checked(8).ok_or(()).map_err(damaged)?;
    if trailer[4..] != (filled as u32).to_le_bytes() {
        return Err(damaged(()));
    }
    Ok((content, after))
}

/// What follows the header of a gzip member.
fn gzip_content(member: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = member.split_at_checked(10)?;
    let flags = header[3];
    if header[2] != 8 {
        return None;
    }
    if flags & 4 != 0 {
        let len = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
        rest = rest.get(2 + usize::from(len)..)?;
    }
    // The original name, and a comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest.iter().position(|&byte| byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// Decompresses one zstd frame (RFC 8878); returns what follows it.
fn unzstd(archive: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut rest = archive;
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut rest).map_err(damaged)?;
    let mut content = Vec::new();
    loop {
        let is_finished = decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBytes(CHUNK)).map_err(damaged)?;
        if let Some(part) = decoder.collect() {
            content.try_reserve(part.len()).map_err(|_| Errno::ENOMEM)?;
            content.extend_from_slice(&part);
        }
        if is_finished {
            return Ok((content, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Tmpfs};
    use fs::FileSystem;
    use fs::conformance::{World, pages, run};
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn entry(name: &str, mode: u32, number: u32, names: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"070701".to_vec();
        let fields =
            [number, mode, 5, 6, names, 1_000_000, content.len() as u32, 0, 1, 4, 64, name.len() as u32 + 1, 0];
        for field in fields {
            bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive() -> Vec<u8> {
        let mut all = Vec::new();
        all.extend(entry(".", 0o040_755, 1, 2, b""));
        all.extend(entry("bin", 0o040_711, 2, 2, b""));
        all.extend(entry("bin/busybox", 0o100_755, 3, 2, b""));
        all.extend(entry("./bin/sh", 0o100_755, 3, 2, &[b'x'; 9000]));
        all.extend(entry("init", 0o120_777, 4, 1, b"bin/sh"));
        all.extend(entry("tty", 0o020_620, 5, 1, b""));
        all.extend(entry("../evil", 0o100_644, 6, 1, b"no"));
        all.extend(entry("missing/file", 0o100_644, 7, 1, b"no"));
        all.extend(entry("TRAILER!!!", 0, 0, 1, b""));
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }

    fn unpacked(bytes: &[u8]) -> (World, Result<()>) {
        let tmpfs = Tmpfs::new(pages(), Limits::NONE, 0o755);
        let mut rest = bytes;
        let result = run(unpack(&mut rest, tmpfs.root()));
        (World::new(tmpfs), result)
    }

    fn through(command: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is installed");
        child.stdin.take().expect("piped").write_all(input).expect("it reads");
        child.wait_with_output().expect("it ends").stdout
    }

    fn check_content(world: &World) {
        assert_eq!(world.list("/"), Ok(["bin", "init", "tty"].map(String::from).to_vec()));
        let (busybox, sh) = (world.stat("bin/busybox").expect("made"), world.stat("bin/sh").expect("made"));
        assert_eq!((busybox.number, busybox.attributes.links, busybox.attributes.size), (sh.number, 2, 9000));
        assert_eq!((sh.attributes.mode, sh.attributes.uid, sh.attributes.gid), (0o755, 5, 6));
        assert_eq!(sh.attributes.modified.seconds, 1_000_000);
        assert_eq!(world.read("init"), Ok(std::vec![b'x'; 9000]));
        assert_eq!(world.stat("bin").expect("made").attributes.modified.seconds, 1_000_000);
        assert_eq!(world.stat("bin").expect("made").attributes.mode, 0o711);
        let tty = world.stat("tty").expect("made");
        assert_eq!((tty.kind, tty.represents, tty.attributes.mode), (Kind::CharacterDevice, 0x440, 0o620));
    }

    #[test]
    fn an_archive_is_unpacked_with_links_devices_owners_and_times() {
        let (world, result) = unpacked(&archive());
        assert_eq!(result, Ok(()));
        check_content(&world);
    }

    #[test]
    fn compressed_and_concatenated_archives_are_unpacked() {
        let mut second = entry("init", 0o100_700, 9, 1, b"#!/bin/sh\n");
        second.extend(entry("TRAILER!!!", 0, 0, 1, b""));
        for mut bytes in [through(&["gzip", "-c"], &archive()), zstd_of(&archive())] {
            if bytes.is_empty() {
                continue;
            }
            check_content(&unpacked(&bytes).0);
            let (_, cut) = unpacked(&bytes[..bytes.len() - 9]);
            assert_eq!(cut, Err(Errno::EINVAL), "a truncated compressed archive is noticed");
            bytes.extend_from_slice(&[0; 7]);
            bytes.extend_from_slice(&second);
            let (world, result) = unpacked(&bytes);
            assert_eq!(result, Ok(()));
            assert_eq!(world.read("init"), Ok(b"#!/bin/sh\n".to_vec()));
        }
    }

    /// Nothing if the host has no zstd.
    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        match Command::new("zstd").arg("--version").output() {
            Ok(_) => through(&["zstd", "-c"], bytes),
            Err(_) => Vec::new(),
        }
    }

    /// An archive that takes note of what is left of it.
    struct Watched<'a> {
        rest: &'a [u8],
        lefts: Vec<usize>,
    }

    impl Archive for Watched<'_> {
        fn rest(&self) -> &[u8] {
            self.rest
        }

        fn advance(&mut self, len: usize) {
            self.rest.advance(len);
            self.lefts.push(self.rest.len());
        }
    }

    #[test]
    fn an_archive_is_given_back_while_it_is_unpacked() {
        let mut all = entry("large", 0o100_644, 1, 1, &std::vec![7; 5 * PART + 3]);
        all.extend(entry("TRAILER!!!", 0, 0, 1, b""));
        let tmpfs = Tmpfs::new(pages(), Limits::NONE, 0o755);
        let mut watched = Watched { rest: &all, lefts: Vec::new() };
        assert_eq!(run(unpack(&mut watched, tmpfs.root())), Ok(()));
        assert_eq!(World::new(tmpfs).read("large").map(|content| content.len()), Ok(5 * PART + 3));
        let mut before = all.len();
        for left in &watched.lefts {
            assert!((left..=&(left + PART + 3)).contains(&&before), "{before} bytes, then {left}");
            before = *left;
        }
        assert_eq!(before, 0);
    }

    #[test]
    fn a_truncated_archive_leaves_whole_files_and_is_refused() {
        let whole = archive();
        for len in (0..whole.len() - 600).step_by(37) {
            let (world, result) = unpacked(&whole[..len]);
            assert_eq!(result.is_err(), len > 0, "cut to {len} bytes");
            if let Ok(content) = world.read("bin/sh") {
                assert!(content.is_empty() || content.len() == 9000);
            }
        }
    }

    #[test]
    fn damaged_numbers_are_refused_without_harm() {
        for (at, byte) in [(0, b'1'), (13, b'z'), (54, b'F'), (94, b'F'), (101, b'0')] {
            let mut bytes = archive();
            bytes[at] = byte;
            let _ = unpacked(&bytes).1;
        }
        assert_eq!(unpacked(b"garbage").1, Err(Errno::EINVAL));
    }
}
