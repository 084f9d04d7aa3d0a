//! The open files of a process: /proc/PID/fd, a magic link for each, and /proc/PID/fdinfo.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::{Io, Kind, OpenFile, OpenFlags, Path};
use procfs::{Content, File, Folder, Link, Listed, Node};

use super::process::{Subject, display, parse_number};
use super::text::Text;
use crate::process::fd_table::Fd;

/// Where the inode numbers of links begin, and those of infos: the descriptor's number is added.
const LINKS: u64 = 1 << 32;
const INFOS: u64 = 2 << 32;

/// /proc/PID/fd.
pub fn links(subject: Subject) -> Content {
    Content::Folder(Arc::new(Descriptors { subject, is_info: false }))
}

/// /proc/PID/fdinfo.
pub fn infos(subject: Subject) -> Content {
    Content::Folder(Arc::new(Descriptors { subject, is_info: true }))
}

struct Descriptors {
    subject: Subject,
    is_info: bool,
}

impl Descriptors {
    fn inode_number(&self, fd: u64) -> u64 {
        self.subject.inode_number(fd + if self.is_info { INFOS } else { LINKS })
    }
}

impl Folder for Descriptors {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let descriptor = Descriptor { subject: self.subject.clone(), fd: Fd(parse_number(name)?) };
        let (file, _) = descriptor.file()?;
        let number = self.inode_number(u64::from(descriptor.fd.0.unsigned_abs()));
        let node = if self.is_info {
            self.subject.node(0, 0o400, Content::File(Arc::new(descriptor)))
        } else {
            let mode = 0o100 | u32::from(file.flags().can_read()) << 8 | u32::from(file.flags().can_write()) << 7;
            self.subject.node(0, mode, Content::Link(Arc::new(descriptor)))
        };
        Ok(node.numbered(number))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        let Ok(view) = self.subject.view() else { return Ok(()) };
        let kind = if self.is_info { Kind::Regular } else { Kind::Symlink };
        for fd in view.files.numbers(usize::try_from(position).unwrap_or(usize::MAX)) {
            let (name, number) = (format!("{fd}"), self.inode_number(fd as u64));
            if !tell(Listed { position: fd as u64 + 1, name: name.as_bytes(), number, kind }) {
                break;
            }
        }
        Ok(())
    }
}

struct Descriptor {
    subject: Subject,
    fd: Fd,
}

impl Descriptor {
    /// The open file, and whether exec closes it.
    fn file(&self) -> Result<(Arc<OpenFile>, bool)> {
        let view = self.subject.view().map_err(|_| Errno::ENOENT)?;
        view.files.get_with_flag(self.fd).map_err(|_| Errno::ENOENT)
    }
}

impl Link for Descriptor {
    fn target(&self) -> Result<Vec<u8>> {
        self.subject.check_access()?;
        let (file, _) = self.file()?;
        Ok(match &file.path {
            Some(path) => display(path),
            None => file.ops.name().into_bytes(),
        })
    }

    fn place(&self) -> Option<Result<Path>> {
        let find = || {
            self.subject.check_access()?;
            let (file, _) = self.file()?;
            match (&file.path, &file.inode) {
                (Some(path), _) => Ok(path.clone()),
                (None, Some(inode)) => Ok(Path::nowhere(inode.clone())),
                (None, None) => Err(Errno::ENXIO),
            }
        };
        Some(find())
    }
}

impl File for Descriptor {
    fn read(&self) -> Io<'_, Vec<u8>> {
        Io::ready(self.subject.check_access().and_then(|()| self.info()))
    }
}

impl Descriptor {
    fn info(&self) -> Result<Vec<u8>> {
        let (file, is_closed_on_exec) = self.file()?;
        let mut flags = file.flags();
        flags.set(OpenFlags::CLOEXEC, is_closed_on_exec);
        let position = file.with_position(|position| *position);
        let mount = file.path.as_ref().map_or(0, |path| path.mount.id);
        let inode = file.inode.as_ref().map_or(0, |inode| inode.core().number);
        let mut text = Text::new();
        text.add(format_args!("pos:\t{position}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{inode}\n", flags.bits()));
        Ok(text.into_bytes())
    }
}
